#!/usr/bin/env bash
# Which functions does a gate run from its start to its first requests, over HTTP/1, TLS and HTTP/2? Writes start.txt, which build.rs
# reads. `make layout` calls it with a release, and a test says when it is time to.
#
# usage: deploy/layout/record.sh BINARY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=${1:?the binary of a release}
for tool in valgrind curl openssl nm; do
  command -v "$tool" >/dev/null || { echo "layout: $tool is missing (on Debian: valgrind curl openssl binutils)" >&2; exit 1; }
done

folder=$(mktemp -d)
gate=
trap '[ -z "$gate" ] || kill "$gate" 2>/dev/null || true; rm -rf "$folder"' EXIT
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=start.test \
  -addext subjectAltName=DNS:start.test -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null
http=18080 https=18443
cat >"$folder/http.yaml" <<Y
workers: 1
listeners:
  http: { address: "127.0.0.1:$http" }
sources: { routes: [$folder/routes.yaml] }
admin: { address: "127.0.0.1:18081" }
telemetry: { access_log: { path: $folder/access.log } }
Y
cat >"$folder/https.yaml" <<Y
workers: 1
listeners:
  http: { address: "127.0.0.1:$http" }
  https: { address: "127.0.0.1:$https", protocol: https }
certificates: { start: { certificate: $folder/cert.pem, key: $folder/key.pem } }
sources: { routes: [$folder/routes.yaml, $folder/tls.yaml] }
admin: { address: "127.0.0.1:18081" }
Y
echo '{ hosts: [start.test], tls: start, routes: [{ path: /tls/, to: self, rewrite: { path: /end/ } }] }' >"$folder/tls.yaml"
# The gate is its own upstream, so that nothing else is needed.
cat >"$folder/routes.yaml" <<Y
hosts: [start.test]
routes:
  - { path: /end/, respond: { status: 200, body: ok } }
  - { path: /, to: self, rewrite: { path: /end/ } }
---
clusters:
  self: { endpoints: ["127.0.0.1:$http"] }
Y

# start NAME URL ARGUMENTS...: a gate that answers there; what it runs is in $folder/NAME when it has ended.
start() {
  local name=$1 url=$2
  shift 2
  valgrind --tool=callgrind --demangle=no --compress-strings=no --callgrind-out-file="$folder/$name" "$binary" run "$@" >"$folder/log" 2>&1 &
  gate=$!
  for _ in $(seq 100); do ask "$url" 2>/dev/null && return; sleep 0.2; done
  cat "$folder/log" >&2
  exit 1
}
stop() {
  kill "$gate"
  wait "$gate" || true
  gate=
}
ask() {
  curl --silent --show-error --fail --output /dev/null --max-time 20 --cacert "$folder/cert.pem" \
    --resolve "start.test:$http:127.0.0.1" --resolve "start.test:$https:127.0.0.1" "$@"
}

start cleartext "http://start.test:$http/a" --config "$folder/http.yaml"
sleep 1 # a connection at rest, a tick of the timers
ask "http://start.test:$http/a"
stop
start tls "https://start.test:$https/tls/a" --config "$folder/https.yaml"
ask --http1.1 "https://start.test:$https/tls/a"
ask --http2 "https://start.test:$https/tls/a"
ask --data body "http://start.test:$http/a"
stop

# The names of what ran. A hash of the compiler ends each (and the letters after `Cs` are one);
# it changes with every version, so that it is left out. So is a name that has a thousand copies, of which three are run.
names() {
  nm --defined-only "$binary" | awk 'NR == FNR { ran[$1] = 1; next } $3 in ran { print $3 }' \
    <(sed -n "s/^fn=//p" "$1" | sed "s/'[0-9]*\$//" | sort -u) - |
    grep -E '^_(ZN|R)' |
    sed -E 's/\.llvm\.[0-9]+$//; s/\.[0-9]+$//; s/17h[0-9a-f]{16}E$/17h*/; s/Cs[0-9A-Za-z]{5,13}_/Cs*_/g' |
    grep -vF 'RF$T$u20$as$u20$core..fmt..Debug' | LC_ALL=C sort -u
}
{
  echo "# Functions that run from a start to the first requests, then those of TLS and HTTP/2. Made by record.sh; see build.rs."
  { names "$folder/cleartext"; names "$folder/tls"; } | awk '!seen[$0]++'
} >"$folder/start.txt"
[ "$(wc -l <"$folder/start.txt")" -gt 500 ] || { echo "layout: hardly any function was seen" >&2; exit 1; }
mv "$folder/start.txt" "$here/start.txt"
echo "layout: $(grep -vc '^#' "$here/start.txt") names in deploy/layout/start.txt"
