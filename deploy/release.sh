#!/usr/bin/env bash
# How is the binary made that a release ships? Twice: the first counts what it does while it is under load, and the second is laid out
# and optimized by those counts (profile-guided optimization). The load is that of the benchmarks: proxying of every protocol, and
# translation of changes. Nothing else differs from `cargo build --release`.
#
# usage: deploy/release.sh          about 30 minutes on two CPUs; the binary is target/release-profiled/tidegate
#   PROFILE=FILE deploy/release.sh  with counts that were merged before, of the same compiler and source
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
cd "$repository"
PATH=$PATH:/usr/sbin:/sbin

fail() {
  printf 'release: %s\n' "$1" >&2
  exit 1
}

say() {
  printf '== %s\n' "$1" >&2
}

host=$(rustc -vV | sed -n 's/^host: //p')
merge=$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata
# Counts are in a format of the compiler's own LLVM: no other merges them.
[ -x "$merge" ] || fail "llvm-profdata of this compiler is missing: rustup component add llvm-tools"
command -v h2load >/dev/null || fail "h2load is missing, without which HTTP/2 has no load (on Debian: nghttp2-client)"

target=${CARGO_TARGET_DIR:-$repository/target}
[[ $target = /* ]] || target=$repository/$target
folder=$target/release-profiled
mkdir -p "$folder"
# The same flags as of every build (.cargo/config.toml), which RUSTFLAGS would replace.
flags="-C target-feature=+crt-static"
profile=${PROFILE:-$folder/tidegate.profdata}

count() {
  local counts=$folder/counts
  rm -rf "$counts"
  mkdir -p "$counts"
  export RUSTFLAGS="$flags -C profile-generate=$counts" CARGO_TARGET_DIR=$folder/counting
  # What programs of the build itself count is of no use.
  export LLVM_PROFILE_FILE=$counts/ignored-%m.profraw
  # Functions are counted before they are linked together: how that is done does not matter here, and this is quicker.
  export CARGO_PROFILE_QUICK_CODEGEN_UNITS=1
  say "1/4 a binary that counts"
  cargo build --locked --profile quick --target "$host" --bin tidegate --bench versus --bench publish
  local counting=$CARGO_TARGET_DIR/$host/quick/tidegate
  # One file for each program (%m), so that the counts of the load generator can be told from those of the proxy.
  say "2/4 load"
  LLVM_PROFILE_FILE=$counts/proxy-%m.profraw "$counting" version >/dev/null
  local own
  own=$(basename "$(ls "$counts"/proxy-*.profraw)")
  LLVM_PROFILE_FILE=$counts/%m.profraw cargo bench --locked --profile quick --target "$host" --bench versus -- \
    --quick --haproxy none --nginx none --envoy none --traefik none --caddy none
  LLVM_PROFILE_FILE=$counts/publish.profraw cargo bench --locked --profile quick --target "$host" --bench publish -- --quick
  say "3/4 what was counted"
  "$merge" merge -o "$profile" "$counts/${own#proxy-}" "$counts/publish.profraw"
}

[ -n "${PROFILE-}" ] || (count)
say "4/4 the binary that knows"
RUSTFLAGS="$flags -C profile-use=$profile -C link-arg=-Wl,-z,keep-text-section-prefix" CARGO_TARGET_DIR=$folder/knowing \
  cargo build --locked --release --target "$host" --bin tidegate
cp "$folder/knowing/$host/release/tidegate" "$folder/tidegate"
say "made $folder/tidegate; an image of it: deploy/image.sh $folder/tidegate"
