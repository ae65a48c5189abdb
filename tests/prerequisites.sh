#!/usr/bin/env bash
# Is everything here that the tests need? Installs what is missing as root on Debian; otherwise says which command would, and fails.
# `--go` prints a Go that builds the control plane of the cluster tests, and looks for nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

oldest=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
fail() {
  printf 'prerequisites: %s\n' "$1" >&2
  exit 1
}

# Debian keeps each Go under a folder of its own; Go's own archive goes to /usr/local/go.
oldest_go=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' tests/cluster/control-plane/go.mod)
find_go() {
  local go there
  for go in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
    [ -x "$go" ] || continue
    # A toolchain that go.mod names would be downloaded; only what is here counts.
    there=$(GOTOOLCHAIN=local "$go" env GOVERSION | sed 's/^go//')
    [ "$(printf '%s\n%s\n' "$oldest_go" "$there" | sort -V | head -n 1)" = "$oldest_go" ] || continue
    echo "$go"
    return
  done
  return 1
}
no_go="Go $oldest_go or newer is missing; install it: https://go.dev/dl, unpacked to /usr/local/go"
if [ "${1:-}" = --go ]; then
  find_go || fail "$no_go"
  exit
fi

command -v cargo >/dev/null && command -v rustc >/dev/null ||
  fail "Rust $oldest or newer is missing; install it: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
there=$(rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
[ "$(printf '%s\n%s\n' "$oldest" "$there" | sort -V | head -n 1)" = "$oldest" ] ||
  fail "Rust $oldest or newer is needed and $there is here; update it: rustup update stable"
cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 ||
  fail "rustfmt or clippy is missing; install them: rustup component add rustfmt clippy"

# command, Debian package that has it
needed='cc gcc
make make
curl curl
openssl openssl
nginx nginx-light
nghttp nghttp2-client
haproxy haproxy
wrk wrk
slowhttptest slowhttptest
python3 python3
strace strace
valgrind valgrind
nft nftables
chromium chromium
certutil libnss3-tools
ip iproute2
mount mount
unshare util-linux
nsenter util-linux
setpriv util-linux
setcap libcap2-bin
capsh libcap2-bin
readelf binutils'

missing=() packages=()
while read -r tool package; do
  command -v "$tool" >/dev/null && continue
  missing+=("$tool")
  packages+=("$package")
done <<<"$needed"
# A compiler without the C library's headers compiles nothing.
if [ -z "${missing[*]}" ] && ! printf '#include <stdlib.h>\n' | cc -E - >/dev/null 2>&1; then
  missing+=("C library headers")
  packages+=(libc6-dev)
fi
# Go builds the control plane and is not needed after that.
go=$(find_go || true)
if [ -z "$go" ] && ! tests/cluster/control-plane/build.sh --built; then
  package=golang-$oldest_go-go
  [ "$(id -u)" != 0 ] || apt-get update -qq || true
  # Where Debian has none that is new enough, its owner chooses where it comes from.
  apt-cache show "$package" >/dev/null 2>&1 || fail "$no_go"
  missing+=(go)
  packages+=("$package")
fi

if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get install -y --no-install-recommends ${packages[*]}"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "prerequisites: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # RUNLEVEL=1 keeps a freshly installed nginx from taking port 80, and HAProxy from starting.
    apt-get update -qq && RUNLEVEL=1 $install -qq || fail "could not install; this command failed: $install"
  else
    fail "missing: ${missing[*]}; on Debian this installs them: sudo $install"
  fi
fi
for tool in $(awk '{ print $1 }' <<<"$needed"); do
  command -v "$tool" >/dev/null || fail "$tool is still missing"
done
find_go >/dev/null || tests/cluster/control-plane/build.sh --built || fail "$no_go"
echo "prerequisites: Rust $there and $(awk '{ printf "%s ", $1 }' <<<"$needed")are here"
