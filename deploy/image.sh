#!/usr/bin/env bash
# What is in the image, and how is it made without a container engine? One static binary, nothing else: target/image/tidegate-VERSION.tar,
# an OCI image layout (for `skopeo copy oci-archive:...`, `podman load`, `ctr -n k8s.io images import`). The same binary makes the
# same bytes.
#
# usage: deploy/image.sh [BINARY [ARCHIVE [LIMIT]]]
#   BINARY  one that was built before, instead of building it
#   LIMIT   the most bytes that a node may have to pull, compressed as registries keep and count it: manifest, configuration, layer
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C

fail() {
  printf 'image: %s\n' "$1" >&2
  exit 1
}

for tool in cargo readelf strip setcap tar gzip sha256sum; do
  command -v "$tool" >/dev/null || fail "$tool is missing (on Debian: binutils, libcap2-bin)"
done

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$repository/Cargo.toml" | head -n 1)
host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
x86_64-*) architecture=amd64 ;;
aarch64-*) architecture=arm64 ;;
*) fail "no image for $host yet: name its architecture as OCI does, here" ;;
esac
target=${CARGO_TARGET_DIR:-$repository/target}
[[ $target = /* ]] || target=$repository/$target

if [ $# -gt 0 ]; then
  binary=$1
else
  # The target is named, and the flags with it, whatever configuration of Cargo is in force.
  (cd "$repository" && RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static" \
    cargo build --release --locked --bin tidegate --target "$host")
  binary=$target/$host/release/tidegate
fi
archive=${2:-$target/image/tidegate-$version.tar}
# A binary that was given may be one for tests, which is larger.
limit=${3:-$([ $# -gt 0 ] && echo 1000000000 || echo 15000000)}
if readelf -lW "$binary" | grep -q INTERP; then
  fail "$binary needs a dynamic linker, which is not in an image made from nothing: link it with -C target-feature=+crt-static"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root" "$work/layout/blobs/sha256"
strip --strip-all -o "$work/root/tidegate" "$binary"
chmod 0755 "$work/root/tidegate"

# Sorted, without times and names: nothing of the machine it is made on.
pack() {
  tar --format=posix --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime,delete=mtime' --sort=name \
    --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX "$@"
}

# The file capability is how a process that is not root comes to ports below 1024. Whoever is not root may set it in a user
# namespace of his own, and reads it back there as it would be without one.
capable() {
  setcap cap_net_bind_service=ep "$work/root/tidegate"
  pack --xattrs --xattrs-include=security.capability -cf "$work/layer.tar" -C "$work/root" tidegate
}
if [ "$(id -u)" = 0 ]; then
  capable
else
  export -f capable pack
  export work
  unshare --map-root-user bash -euc capable || fail "a file capability cannot be set here: run it as root"
fi

digest() { sha256sum "$1" | cut -c 1-64; }
# Puts a file among the blobs and prints its descriptor.
blob() {
  local sum
  sum=$(digest "$1")
  printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' "$2" "$sum" "$(stat -c %s "$1")"
  mv "$1" "$work/layout/blobs/sha256/$sum"
}

diff=$(digest "$work/layer.tar")
gzip -6n "$work/layer.tar"
layer=$(blob "$work/layer.tar.gz" application/vnd.oci.image.layer.v1.tar+gzip)
labels=$(printf '"org.opencontainers.image.title":"tidegate","org.opencontainers.image.version":"%s",
  "org.opencontainers.image.licenses":"Apache-2.0","org.opencontainers.image.description":"%s"' "$version" \
  "$(sed -n 's/^description = "\(.*\)"$/\1/p' "$repository/Cargo.toml")")
cat >"$work/config" <<JSON
{"architecture":"$architecture","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"User":"65532:65532","WorkingDir":"/","Entrypoint":["/tidegate"],"StopSignal":"SIGTERM","Labels":{$labels}},
 "rootfs":{"type":"layers","diff_ids":["sha256:$diff"]},
 "history":[{"created":"1970-01-01T00:00:00Z","created_by":"make image","comment":"one static binary"}]}
JSON
config=$(blob "$work/config" application/vnd.oci.image.config.v1+json)
cat >"$work/manifest" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":$config,"layers":[$layer]}
JSON
manifest=$(blob "$work/manifest" application/vnd.oci.image.manifest.v1+json)
# The name under which containerd imports it: what `image: tidegate:$version` means on a node.
cat >"$work/layout/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[${manifest%\}},
 "platform":{"architecture":"$architecture","os":"linux"},
 "annotations":{"org.opencontainers.image.ref.name":"$version","io.containerd.image.name":"docker.io/library/tidegate:$version"}}]}
JSON
printf '{"imageLayoutVersion":"1.0.0"}\n' >"$work/layout/oci-layout"

pulled=$(cat "$work"/layout/blobs/sha256/* | wc -c)
[ "$pulled" -lt "$limit" ] || fail "each node would pull $pulled bytes, and less than $limit is wanted: what has grown?"
mkdir -p "$(dirname "$archive")"
pack -cf "$archive.new" -C "$work/layout" blobs index.json oci-layout
mv "$archive.new" "$archive"
printf 'image: %s for %s: %s bytes to pull, as registries count it; unpacked, the binary is %s bytes\n' "$archive" "$architecture" \
  "$pulled" "$(stat -c %s "$work/root/tidegate")"
