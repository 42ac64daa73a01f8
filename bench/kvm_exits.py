#!/usr/bin/env python3
"""What an exit to user space costs, and a start: Kite beside the installed qemu-system-x86_64, both with -accel kvm, in
one run, turn by turn.

usage: bench/kvm_exits.py [--kite BINARY] [--kut DIR] [--rounds N] [--starts N] [--accel kvm]
DIR is a build of kvm-unit-tests for x86_64. Its vmexit measures in cycles of the host: inl_from_qemu, a port that user
space answers, less outl_to_kernel, one that the kernel does, is what user space costs. The start is that of a guest of
three instructions that ends the machine, from exec to exit, with the peak of the process's memory.
"""
import argparse
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time

TEST_DEVICES = ["-nodefaults", "-display", "none", "-no-reboot", "-m", "128", "-device",
                "isa-debug-exit,iobase=0xf4,iosize=4"]
EXIT_STATUS = 3  # what the tiny guest writes, (1 << 1) | 1


def tiny_guest(path):
    """An ELF32 image for multiboot 1: mov al, 1; out 0xf4, al; hlt."""
    base, header = 0x100000, 84
    magic, flags = 0x1badb002, 0
    text = struct.pack("<III", magic, flags, -(magic + flags) & 0xffffffff) + b"\xb0\x01\xe6\xf4\xf4\xeb\xfd"
    entry = base + header + 12
    size = header + len(text)
    elf = struct.pack("<4s4B8xHHIIIIIHHHHHH", b"\x7fELF", 1, 1, 1, 0, 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack("<8I", 1, 0, base, base, size, size, 7, 0x1000)
    with open(path, "wb") as file:
        file.write(elf + segment + text)


def cycles(command, case):
    done = subprocess.run([*command, "-append", case], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=300, check=False)
    found = re.search(rf"^{case} (\d+)", done.stdout.decode(errors="replace"), re.M)
    if not found:
        sys.exit(f"{command[0]}: {case} measured nothing:\n{done.stdout[-2000:].decode(errors='replace')}")
    return int(found.group(1))


def start(command):
    """Answers (milliseconds from exec to exit, MiB at the peak)."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != EXIT_STATUS:
        sys.exit(f"{command[0]} ended with {process.returncode}:\n{process.stderr.read().decode(errors='replace')}")
    process.stderr.close()
    return elapsed * 1000, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kite", default="build/release/kite")
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    parser.add_argument("--kut")
    parser.add_argument("--accel", default="kvm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        image = os.path.join(scratch, "tiny.elf")
        tiny_guest(image)
        machines = {"kite": [options.kite, "-accel", options.accel, *TEST_DEVICES],
                    "qemu": [options.qemu, "-accel", "kvm", *TEST_DEVICES]}
        print(f"{'':<28} {'kite':>8} {'qemu':>8} {'kite/qemu':>10}")
        if options.kut:
            measured = {name: [] for name in machines}
            guest = ["-serial", "stdio", "-device", "pc-testdev", "-kernel",
                     os.path.join(options.kut, "x86/vmexit.flat")]
            for _ in range(options.rounds):
                for name, machine in machines.items():
                    through, inside = (cycles([*machine, *guest], case) for case in ("inl_from_qemu", "outl_to_kernel"))
                    measured[name].append(through - inside)
            ours, theirs = (statistics.median(measured[name]) for name in ("kite", "qemu"))
            print(f"{'exit, user space, cycles':<28} {ours:>8.0f} {theirs:>8.0f} {ours / theirs:>10.2f}", flush=True)
        starts = {name: [] for name in machines}
        for _ in range(options.starts):
            for name, machine in machines.items():
                starts[name].append(start([*machine, "-serial", "none", "-kernel", image]))
        for at, what in enumerate(("start to exit, ms", "peak memory, MiB")):
            ours, theirs = (statistics.median(one[at] for one in starts[name]) for name in ("kite", "qemu"))
            print(f"{what:<28} {ours:>8.1f} {theirs:>8.1f} {ours / theirs:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
