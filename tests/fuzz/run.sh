#!/usr/bin/env bash
# Runs every fuzz target of a build for a bounded time from its seeds.
# usage: tests/fuzz/run.sh BUILD SECONDS   ends with 'fuzz: N passed, N failed, N skipped'
set -uo pipefail
build=$1 seconds=$2
here=$(dirname "$0")
passed=0 failed=0
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
for program in "$build"/tests/fuzz/kite_*_fuzz; do
  [ -x "$program" ] || continue
  name=$(basename "$program" | sed 's/^kite_//; s/_fuzz$//')
  work=$(mktemp -d)
  seeds=()
  [ -d "$here/seeds/$name" ] && seeds=("$here/seeds/$name")
  mkdir "$work/corpus"
  if "$program" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 -seed=1 \
      -artifact_prefix="$work/" "$work/corpus" ${seeds[@]+"${seeds[@]}"} >"$work/log" 2>&1; then
    passed=$((passed + 1))
    echo "PASS fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log") runs"
  else
    failed=$((failed + 1))
    echo "FAIL fuzz $name"
    tail -n 40 "$work/log"
    for input in "$work"/{crash,leak,timeout,oom}-*; do
      [ -f "$input" ] && { echo "input, base64:"; base64 -w 0 "$input"; echo; }
    done
  fi
  rm -rf "$work"
done
echo "fuzz: $passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
