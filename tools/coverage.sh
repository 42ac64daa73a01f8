#!/usr/bin/env bash
# Branch coverage of the device models, folder by folder: the device tests, the hostile guest at a whole board, and both
# together. Fails below the floor. usage: tools/coverage.sh [FLOOR]   (percent of all branches of src/devices; 80)
set -euo pipefail
cd "$(dirname "$0")/.."
floor=${1:-80}
build=build/coverage
tools/packages.sh build
tools/build.sh coverage kite_devices_test kite_hostile_test

profiles=$build/profiles
rm -rf "$profiles"
mkdir -p "$profiles"
run() {
  LLVM_PROFILE_FILE=$profiles/$1.raw "$2" --gtest_brief=1 >"$profiles/$1.log" 2>&1 ||
    { tail -n 40 "$profiles/$1.log"; echo "coverage: $2 failed" >&2; exit 1; }
  llvm-profdata-19 merge -sparse "$profiles/$1.raw" -o "$profiles/$1.data"
}
run devices "$build/src/kite_devices_test"
run hostile "$build/tests/hostile/kite_hostile_test"
llvm-profdata-19 merge -sparse "$profiles/devices.data" "$profiles/hostile.data" -o "$profiles/both.data"

# export NAME: what the profile reached in the devices' own code, as JSON.
export_profile() {
  llvm-cov-19 export -summary-only -instr-profile "$profiles/$1.data" "$build/src/kite_devices_test" \
    -object "$build/tests/hostile/kite_hostile_test" -ignore-filename-regex '(_test\.cc|/test_[^/]*\.h)$' \
    >"$profiles/$1.json" 2>"$profiles/$1.err" || { cat "$profiles/$1.err" >&2; exit 1; }
}
for name in devices hostile both; do export_profile "$name"; done

python3 - "$floor" "$PWD/src/devices/" "$profiles"/{devices,hostile,both}.json <<'PYTHON'
import collections
import json
import sys

floor, root, *paths = float(sys.argv[1]), *sys.argv[2:]
counts = collections.defaultdict(lambda: [[0, 0] for _ in paths])  # folder -> [reached, branches] of each profile
for column, path in enumerate(paths):
    with open(path) as file:
        report = json.load(file)
    for entry in report["data"][0]["files"]:
        if not entry["filename"].startswith(root):
            continue
        folder = entry["filename"][len(root):].rpartition("/")[0] or "."
        branches = entry["summary"]["branches"]
        for name in (folder, "total"):
            counts[name][column][0] += branches["covered"]
            counts[name][column][1] += branches["count"]

def percent(pair):
    return 100.0 * pair[0] / pair[1] if pair[1] else 100.0

print(f"{'src/devices':14}{'branches':>9}{'tests':>9}{'hostile':>9}{'both':>9}")
for name in sorted(counts, key=lambda name: (name == "total", name)):
    row = counts[name]
    print(f"{name:14}{row[-1][1]:9}" + "".join(f"{percent(pair):8.1f}%" for pair in row))
reached = percent(counts["total"][-1])
if reached < floor:
    sys.exit(f"coverage: {reached:.1f} % of the branches of src/devices, below {floor:g} %")
PYTHON
