#!/bin/sh
# What does libFuzzer need to see which branches an input takes? Runs rustc with it (RUSTC_WORKSPACE_WRAPPER, on the stable toolchain),
# so that our own crate is instrumented and what it depends on is built once for all. Linked dynamically, because libFuzzer listens in
# on memcmp and its like by dlsym, which finds nothing in a static program.
for argument; do
  shift
  [ "$argument" = target-feature=+crt-static ] && argument=target-feature=-crt-static
  set -- "$@" "$argument"
done
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
