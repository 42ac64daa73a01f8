#!/usr/bin/env python3
"""Stresses the software CPU with stress-ng inside a Debian kernel: cpu, vm, fork, signal and context switch classes, with
stress-ng checking its own results.

usage: stress_test.py KITE GUESTS [--seconds N] [--smp N] [--accel jit]
Passes when stress-ng finds no wrong result, the kernel has nothing to complain about, and Kite's own memory stays
bounded. Ends with a line 'stress: N passed, N failed, N skipped'.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from boot_test import check_log  # noqa: E402
from guest import Guest, Tally  # noqa: E402

GUEST_MIB = 512
OWN_MIB = 384  # what Kite may take beyond the guest's memory: translations, tables, stacks
STRESSORS = ["--cpu", "1", "--cpu-method", "all", "--vm", "1", "--vm-bytes", "48m", "--fork", "1", "--sigq", "1",
             "--context", "1", "--switch", "1"]
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /tmp /dev/shm
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t tmpfs tmp /tmp
cd /tmp
echo
/bin/stress-ng --verify --metrics-brief --timeout {seconds}s {stressors}
echo "stress: status $?"
/bin/busybox poweroff -f
"""


def copy_program(tree, program):
    """The program and the shared libraries that it loads."""
    listed = subprocess.run(["ldd", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    for path in [*re.findall(r"(/\S+) \(0x", listed)]:
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), target)
    shutil.copy(program, tree / "bin" / os.path.basename(program))


def make_initrd(folder, seconds):
    tree = pathlib.Path(folder) / "tree"
    for name in ("bin", "dev"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
    copy_program(tree, shutil.which("stress-ng"))
    (tree / "init").write_text(INIT.format(seconds=seconds, stressors=" ".join(STRESSORS)))
    (tree / "init").chmod(0o755)
    path = os.path.join(folder, "initrd.gz")
    names = subprocess.run(["find", ".", "-print0"], cwd=tree, check=True, stdout=subprocess.PIPE).stdout
    with open(path, "wb") as output:
        packer = subprocess.run(["cpio", "--quiet", "--null", "--create", "--format=newc", "--owner=0:0"], cwd=tree,
                                input=names, check=True, stdout=subprocess.PIPE)
        subprocess.run(["gzip", "-n", "-1"], input=packer.stdout, stdout=output, check=True)
    return path


def peak_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmHWM:\s+(\d+) kB", file.read())[1]) // 1024


def stress(options, initrd):
    command = [options.kite, "-accel", options.accel, "-nodefaults", "-nographic", "-serial", "stdio", "-no-reboot",
               "-m", str(GUEST_MIB), "-smp", str(options.smp), "-cpu", "max", "-kernel",
               f"{options.guests}/6.1-cloud/vmlinuz", "-initrd", initrd, "-append", "console=ttyS0 panic=-1"]
    with Guest(command, limit=options.seconds * 3 + 600) as guest:
        guest.expect("stress: status ")
        peak = peak_mib(guest.process.pid)
        if guest.expect("\n").strip() != "0":
            guest.fail("stress-ng found an error")
        if guest.wait_exit() != 0:
            guest.fail("the machine did not power off")
        console = guest.console.decode(errors="replace")
        check_log(guest, console)
        if peak > GUEST_MIB + OWN_MIB:
            guest.fail(f"Kite took {peak} MiB for a guest of {GUEST_MIB} MiB")
        for line in re.findall(r"stress-ng: (?:metrc|info):.*?(\w+ +\d+ +\d+\.\d+ .*)\r", console):
            print(f"  {line}")
        print(f"  peak memory of the process: {peak} MiB")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kite")
    parser.add_argument("guests")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--smp", type=int, default=2)
    parser.add_argument("--accel", default="jit")
    options = parser.parse_args()
    name = f"stress-ng for {options.seconds} s, -smp {options.smp}, {options.accel}"
    missing = [what for what in ("stress-ng", "busybox") if shutil.which(what) is None]
    if not os.path.exists(f"{options.guests}/6.1-cloud/vmlinuz"):
        missing.append("Debian's kernel")
    tally = Tally("stress")
    if missing:
        tally.skip(name, f"missing: {', '.join(missing)}")
    else:
        with tempfile.TemporaryDirectory() as folder:
            tally.run(name, stress, options, make_initrd(folder, options.seconds))
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
