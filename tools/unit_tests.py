#!/usr/bin/env python3
"""Runs the GoogleTest programs of a build, in as many processes at a time as there are CPUs, or PROCESSES. CTest starts a
process for each test, which takes longer than most of them, above all with sanitizers.

usage: unit_tests.py BUILD [PROCESSES]
Ends with 'unit-NAME: N passed, N failed, N skipped', where NAME is the last part of BUILD.
"""
import collections
import concurrent.futures
import os
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

TESTS_A_PROCESS = 150
LIMIT = 1800  # seconds a process


def parts(program):
    """How many processes it is divided among."""
    listed = subprocess.run([program, "--gtest_list_tests"], capture_output=True, text=True, timeout=LIMIT, check=True)
    tests = sum(line.startswith("  ") for line in listed.stdout.splitlines())
    return -(-tests // TESTS_A_PROCESS)


def run(program, part, total):
    """Answers the <testcase> elements of its report, or what it said and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        report = f"{folder}/report.xml"
        environment = dict(os.environ, GTEST_TOTAL_SHARDS=str(total), GTEST_SHARD_INDEX=str(part))
        try:
            done = subprocess.run([program, f"--gtest_output=xml:{report}", "--gtest_color=no"], env=environment,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=LIMIT, check=False)
        except subprocess.TimeoutExpired as error:
            return [], (error.stdout or b"").decode(errors="replace"), f"did not end in {LIMIT} s"
        said = done.stdout.decode(errors="replace")
        try:
            cases = list(xml.etree.ElementTree.parse(report).iter("testcase"))
        except (OSError, xml.etree.ElementTree.ParseError):
            return [], said, f"ended with status {done.returncode} in the middle"
        failed = any(case.find("failure") is not None for case in cases)
        return cases, said, f"ended with status {done.returncode}" if done.returncode and not failed else ""


def main():
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    build = pathlib.Path(sys.argv[1]).resolve()
    programs = [path for path in sorted(build.rglob("kite_*_test")) if path.is_file() and os.access(path, os.X_OK)]
    passed, failed, skipped = 0, 0 if programs else 1, collections.Counter()
    processes = int(sys.argv[2]) if len(sys.argv) == 3 else os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        totals = list(pool.map(parts, programs))
        runs = [(program, part, total) for program, total in zip(programs, totals) for part in range(total)]
        results = pool.map(run, *zip(*runs)) if runs else []
        for (program, _, _), (cases, said, ending) in zip(runs, results):
            room = program.name.removeprefix("kite_").removesuffix("_test")
            if ending:
                failed += 1
                print(f"FAIL {room}: {ending}\n" + "\n".join(said.splitlines()[-60:]))
            for case in cases:
                name = f"{room}.{case.get('classname')}.{case.get('name')}"
                if (failure := case.find("failure")) is not None:
                    failed += 1
                    print(f"FAIL {name}: {failure.text}")
                elif (skip := case.find("skipped")) is not None:
                    skipped[room, skip.get("message").split("\n", 1)[-1].strip()] += 1
                elif case.get("status") == "run":
                    passed += 1
    for (room, reason), count in sorted(skipped.items()):
        print(f"SKIP {count} of {room}: {reason}")
    print(f"unit-{build.name}: {passed} passed, {failed} failed, {sum(skipped.values())} skipped")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
