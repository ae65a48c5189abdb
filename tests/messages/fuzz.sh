#!/usr/bin/env bash
# Which inputs reach what no other did, and does all that must hold of any input hold of them?
# fuzz.sh TARGET SECONDS [INPUT]: builds the targets, instrumented, and runs one or `all` for so long each, from what earlier runs
# kept; with an input, runs that alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$1 seconds=$2 input=${3:-}
kept=target/fuzz-corpus
known=$(sed -n 's/.*Target { name: "\([a-z0-9]*\)".*/\1/p' tests/messages/targets.rs)

# Optimized, because inputs count; overflows and assertions are seen all the same.
build() {
  RUSTC_WORKSPACE_WRAPPER=$PWD/tests/messages/instrumented.sh cargo --config profile.dev.opt-level=2 build --locked \
    --features fuzz --example fuzz --message-format=json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

run() {
  local name=$1 seeds=$kept/seeds/$1
  rm -rf "$seeds" && mkdir -p "$seeds" "$kept/$name" "$kept/failed"
  echo "== $name"
  TIDEGATE_FUZZ_TARGET=$name TIDEGATE_FUZZ_SEEDS=$seeds "$binary" -max_total_time="$seconds" -max_len=16384 -timeout=10 \
    -rss_limit_mb=2048 -print_final_stats=1 -dict="$seeds.words" -artifact_prefix="$kept/failed/$name-" "$kept/$name" "$seeds" \
    2>&1 | grep --line-buffered -Ev 'NEW_FUNC|NEW  |REDUCE|^INFO: ' && return
  echo "$name failed. Again:"
  for file in $(ls -t "$kept/failed/$name"-* 2>/dev/null | head -n 1); do
    echo "  make fuzz TARGET=$name INPUT=$file"
    echo "mend it, and add this line to tests/messages/found/$name:"
    TIDEGATE_FUZZ_SHOW=$file "$binary"
  done
  return 1
}

binary=$(build)
if [ -n "$input" ]; then
  TIDEGATE_FUZZ_TARGET=$target exec "$binary" "$input"
fi
[ "$target" = all ] || known=$target
failed=0
for name in $known; do run "$name" || failed=1; done
exit $failed
