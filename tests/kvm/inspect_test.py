#!/usr/bin/env python3
"""What a running Kite on /dev/kvm looks like from outside: its descriptors and its threads.

usage: inspect_test.py KITE
Ends with 'kvm-inspection: N passed, N failed, N skipped'.
"""
import os
import subprocess
import sys
import time

CPUS = 3
LIMIT = 20  # seconds that end a hung test; none measures time


def descriptors(pid):
    names = []
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
        except FileNotFoundError:  # closed meanwhile
            pass
    return names


def threads(pid):
    names = []
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as file:
            names.append(file.read().strip())
    return names


def inspect(kite, irqchip):
    """Answers what is wrong, or nothing."""
    command = [kite, "-accel", f"kvm,kernel-irqchip={irqchip}", "-S", "-nodefaults", "-display", "none", "-smp", str(CPUS)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + LIMIT
        while True:
            files, names = descriptors(process.pid), threads(process.pid)
            vcpus = {f"anon_inode:kvm-vcpu:{index}" for index in range(CPUS)}
            wanted = {f"vcpu {index}" for index in range(CPUS)}
            if files.count("anon_inode:kvm-vm") == 1 and vcpus <= set(files) and wanted <= set(names):
                return ""
            if process.poll() is not None:
                return f"it ended: {process.stdout.read().decode(errors='replace')}"
            if time.monotonic() > end:
                return f"descriptors {sorted(files)}, threads {sorted(names)}"
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()


def main():
    kite = sys.argv[1]
    passed = failed = skipped = 0
    for irqchip in ("on", "split", "off"):
        name = f"one VM, {CPUS} vCPUs and their named threads with kernel-irqchip={irqchip}"
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            print(f"SKIP {name}: /dev/kvm cannot be opened")
            skipped += 1
            continue
        wrong = inspect(kite, irqchip)
        print(f"FAIL {name}: {wrong}" if wrong else f"PASS {name}")
        passed, failed = passed + (not wrong), failed + bool(wrong)
    print(f"kvm-inspection: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
