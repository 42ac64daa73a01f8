#!/usr/bin/env bash
# Runs every fuzz target of a build for a bounded time from its seeds, after the inputs that once broke something.
# usage: tests/fuzz/run.sh BUILD SECONDS [TARGET...]   ends with 'fuzz: N passed, N failed, N skipped'
# A failing input is kept in BUILD/fuzz-failures and printed.
set -uo pipefail
build=$1 seconds=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(block board cpu decoder image kernel monitor scsi)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 "$here/make_seeds.py" "$work/seeds" || { echo "fuzz: 0 passed, 1 failed, 0 skipped"; exit 1; }
declare -A longest=([block]=32768 [board]=4096 [cpu]=512 [decoder]=16 [image]=20000 [kernel]=8192 [monitor]=4096)
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
passed=0 failed=0
for name in "${targets[@]}"; do
  program=$build/tests/fuzz/kite_${name}_fuzz
  mkdir -p "$work/$name/corpus" "$work/$name/found" "$work/seeds/$name"
  inputs=("$work/$name/corpus" "$work/seeds/$name")
  [ -d "$here/seeds/$name" ] && inputs+=("$here/seeds/$name")
  options=(-max_len="${longest[$name]:-4096}" -len_control=0)
  [ -f "$here/$name.dict" ] && options+=(-dict="$here/$name.dict")
  if "$program" "${options[@]}" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=4096 -print_final_stats=1 -seed=1 \
      -artifact_prefix="$work/$name/found/" "${inputs[@]}" >"$work/$name/log" 2>&1; then
    passed=$((passed + 1))
    echo "PASS fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name/log") runs"
  else
    failed=$((failed + 1))
    echo "FAIL fuzz $name"
    grep -vE '^#[0-9]+.*(NEW|REDUCE|pulse)|NEW_FUNC' "$work/$name/log" | tail -n 60
    mkdir -p "$build/fuzz-failures"
    for input in "$work/$name/found"/*; do
      [ -f "$input" ] || continue
      cp "$input" "$build/fuzz-failures/$name-$(basename "$input")"
      echo "input in $build/fuzz-failures/$name-$(basename "$input"), base64:"
      base64 -w 0 "$input"
      echo
    done
  fi
done
echo "fuzz: $passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
