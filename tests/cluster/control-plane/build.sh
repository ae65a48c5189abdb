#!/usr/bin/env bash
# Where do the programs of a Kubernetes cluster, and h2spec, come from? Builds them from pinned Go modules into target/cluster/KEY/bin, once;
# KEY says which modules. `--where` prints that folder and builds nothing.
set -euo pipefail
cd "$(dirname "$0")"
repository=$(cd ../../.. && pwd)
target=${CARGO_TARGET_DIR:-target}
[[ $target = /* ]] || target=$repository/$target
home=$target/cluster/$(sha256sum go.sum | cut -c 1-16)

# program, package that has its main
programs='etcd go.etcd.io/etcd/server/v3
kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler
kubectl k8s.io/kubernetes/cmd/kubectl
kwok sigs.k8s.io/kwok/cmd/kwok
helm helm.sh/helm/v4/cmd/helm
h2spec github.com/summerwind/h2spec/cmd/h2spec'

# The folder gets its name when all of it is there; a file missing from it was taken away since.
built() {
  local name
  while read -r name _; do
    [ -x "$home/bin/$name" ] || return 1
  done <<<"$programs"
}

# A linked worktree takes what its repository has built already.
repositorys=$(git rev-parse --path-format=absolute --git-common-dir 2>/dev/null || true)
elsewhere=${repositorys%/.git}/target/cluster/${home##*/}
[ -d "$home/bin" ] || [ ! -d "$elsewhere/bin" ] || home=$elsewhere

case ${1:-} in
--where)
  echo "$home/bin"
  exit
  ;;
--built)
  built
  exit
  ;;
'') ;;
*)
  echo "usage: build.sh [--where | --built]" >&2
  exit 2
  ;;
esac

if built; then
  echo "control plane: $home/bin is here"
  exit
fi

go=$("$repository/tests/prerequisites.sh" --go)
mkdir -p "$home"
# Two at a time would only slow each other down; the second finds what the first has built.
exec 9>"$home/lock"
flock -n 9 || {
  echo "control plane: another build is under way, waiting for it"
  flock 9
}
built && exit

version=$(sed -n 's/^\tk8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' go.mod)
IFS=. read -r major minor _ <<<"${version#v}"
# Without these kubectl cannot read the version of the API server.
stamp=k8s.io/component-base/version
flags="-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor -X $stamp.gitTreeState=clean"

elapsed() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }
part=$(mktemp -d "$home/part.XXXXXX")
trap 'rm -rf "$part"; [ -z "${ticker:-}" ] || kill "$ticker" 2>/dev/null || true' EXIT
count=$(wc -l <<<"$programs")
number=0
echo "control plane: building Kubernetes $version, $count programs, once: about 10 minutes on 2 cores, 4 GiB in Go's cache"
while read -r name package; do
  number=$((number + 1))
  if [ -t 1 ]; then
    (while :; do
      printf '\r  %d/%d %-24s %s ' "$number" "$count" "$name" "$(elapsed)"
      sleep 1
    done) &
    ticker=$!
  else
    printf '  %d/%d %-24s begun at %s\n' "$number" "$count" "$name" "$(elapsed)"
  fi
  GOTOOLCHAIN=local GOFLAGS=-mod=readonly "$go" build -trimpath -ldflags "$flags" -o "$part/$name" "$package"
  if [ -t 1 ]; then
    kill "$ticker"
    wait "$ticker" 2>/dev/null || true
    ticker=
    printf '\r  %d/%d %-24s done at %s\n' "$number" "$count" "$name" "$(elapsed)"
  fi
done <<<"$programs"
rm -rf "$home/bin"
chmod 755 "$part"
mv "$part" "$home/bin"
echo "control plane: $home/bin is built, $(elapsed)"
