#!/usr/bin/env bash
# Runs clang-tidy (Debian: clang-tidy-19) over the sources of the release build, two files at a time. usage: tools/tidy.sh [FILE...]
set -euo pipefail
cd "$(dirname "$0")/.."
[ -f build/release/compile_commands.json ] || tools/build.sh release
files=("$@")
[ ${#files[@]} -gt 0 ] || mapfile -t files < <(git ls-files 'src/*.cc' | grep -v '_test\.cc$')
printf '%s\0' "${files[@]}" | xargs -0 -n 4 -P "$(nproc)" clang-tidy-19 --quiet -p build/release 2>/dev/null
