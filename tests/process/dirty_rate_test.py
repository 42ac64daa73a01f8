#!/usr/bin/env python3
"""calc-dirty-rate and query-dirty-rate: memory that qtest writes, and a guest that writes the same 64 MiB of its 128 over and
over, on the software CPU and on /dev/kvm. A measurement takes a second at least, so that rates have an upper bound on any
host; a busy one measures longer, which lowers them.

usage: dirty_rate_test.py KITE
Ends with 'dirty-rate: N passed, N failed, N skipped'.
"""
import os
import subprocess
import sys
import tempfile
import time

import driven
from disk_guest_test import build
from driven import Machine, check

MEMORY, WRITTEN = 128, 64  # MiB
ACCELERATORS = ["jit", "kvm"]
MODES = {"samples": {"sample-pages": 16384}, "dirty log": {"mode": "dirty-bitmap"}}


def start(qmp, **arguments):
    answer = qmp.command("calc-dirty-rate", **{"calc-time": 1, **arguments})
    check(answer.get("return") == {}, answer)


def result(qmp):
    """The report of the measurement under way, once it is complete."""
    limit = time.monotonic() + driven.LIMIT
    while (report := qmp.command("query-dirty-rate")["return"])["status"] == "measuring":
        check("dirty-rate" not in report, report)
        check(time.monotonic() < limit, "the measurement does not end")
        time.sleep(0.05)
    check(report["status"] == "measured", report)
    return report


def rate(qmp, **arguments):
    start(qmp, **arguments)
    return result(qmp)["dirty-rate"]


def qtest_writes(mode):
    with Machine("-m", str(MEMORY), qtest=True) as machine:
        start(machine.qmp, **mode)
        check(machine.ask(f"memset {16 << 20} {WRITTEN << 20} 0x5a") == "OK", "memset")
        # Half of it: samples hit more or less of it.
        highest = MEMORY * 3 // 4 if "sample-pages" in mode else WRITTEN
        measured = result(machine.qmp)["dirty-rate"]
        check(0 < measured <= highest, f"{measured} MiB/s")
        check(rate(machine.qmp, **mode) == 0, "memory that nobody writes")


def commands():
    with Machine("-m", str(MEMORY), qtest=True) as machine:
        qmp = machine.qmp
        listed = [entry["name"] for entry in qmp.command("query-commands")["return"]]
        check({"calc-dirty-rate", "query-dirty-rate"} <= set(listed), "not listed")
        check(qmp.command("query-dirty-rate")["return"]["status"] == "unstarted", "started")
        before = int(time.monotonic())
        start(qmp, mode="dirty-bitmap")
        check("already" in qmp.command("calc-dirty-rate", **{"calc-time": 1})["error"]["desc"], "two at once")
        report = result(qmp)
        check(before <= report["start-time"] <= time.monotonic() and report["calc-time"] == 1, report)
        check("1 to 60" in qmp.command("calc-dirty-rate", **{"calc-time": 61})["error"]["desc"], "61 seconds")
        check("missing" in qmp.command("calc-dirty-rate")["error"]["desc"], "no time")
        wrong = qmp.command("calc-dirty-rate", **{"calc-time": 1, "mode": "dirty-ring"})["error"]["desc"]
        check("dirty-ring" in wrong and "dirty-bitmap" in wrong, wrong)
        shown = qmp.command("human-monitor-command", **{"command-line": "info dirty_rate"})["return"]
        check("Status: measured" in shown and "Dirty rate: 0 (MB/s)" in shown, shown)


def guest(accelerator, mode):
    """The guest runs, is stopped, reset while it is measured, and ended so."""
    with tempfile.TemporaryDirectory() as folder:
        build("rewrite.S", f"{folder}/rewrite.elf", "-Wl,-Ttext=0x100000,-N")
        with Machine("-accel", accelerator, "-m", str(MEMORY), "-nodefaults", "-kernel", f"{folder}/rewrite.elf") as machine:
            qmp = machine.qmp
            limit = time.monotonic() + driven.LIMIT
            while (running := rate(qmp, **mode)) == 0:  # the first may have seen only how the guest starts
                check(time.monotonic() < limit, "no writes are seen")
            # The guest writes pages of its stack and of firmware besides, which make less than a MiB.
            check(running <= (MEMORY * 3 // 4 if "sample-pages" in mode else WRITTEN), f"{running} MiB/s")
            qmp.command("stop")
            check(rate(qmp, **mode) == 0, "writes of a machine that is stopped")
            qmp.command("cont")
            start(qmp, **mode)
            qmp.command("system_reset")
            qmp.event("RESET")
            result(qmp)
            start(qmp, **mode)
            qmp.command("quit")
            check(machine.end() == 0, "quit")


def plan():
    yield "commands", None, commands, ()
    for name, mode in MODES.items():
        yield f"qtest: {name}", None, qtest_writes, (mode,)
    for accelerator in ACCELERATORS:
        for name, mode in MODES.items():
            yield f"{accelerator}: {name}", accelerator, guest, (accelerator, mode)


def main():
    driven.KITE = os.path.abspath(sys.argv[1])
    passed = failed = skipped = 0
    for name, accelerator, test, arguments in plan():
        if accelerator == "kvm" and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            print(f"SKIP {name}: there is no /dev/kvm that this user may open")
            skipped += 1
            continue
        try:
            test(*arguments)
            why = ""
        except (AssertionError, OSError, KeyError, subprocess.SubprocessError) as error:
            why = repr(error)
        passed, failed = passed + (not why), failed + bool(why)
        print(f"{'FAIL' if why else 'PASS'} {name}{': ' + why if why else ''}", flush=True)
    print(f"dirty-rate: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
