#!/usr/bin/env python3
"""What an exit to user space costs, and a start: Kite beside the installed qemu-system-x86_64, both with -accel kvm, in
one run, turn by turn.

usage: bench/kvm_exits.py [--kite BINARY] [--kut DIR] [--rounds N] [--starts N] [--accel kvm]
DIR is a build of kvm-unit-tests for x86_64. Its vmexit measures in cycles of the host: inl_from_qemu, a port that user
space answers, less outl_to_kernel, one that the kernel does, is what user space costs. The start is that of a guest of
three instructions that ends the machine, from exec to exit; the memory is the peak of one that halts instead. Of
several rounds the least counts: what else the host does only adds.
"""
import argparse
import os
import re
import struct
import subprocess
import sys
import tempfile
import time

TEST_DEVICES = ["-nodefaults", "-display", "none", "-no-reboot", "-m", "128", "-device",
                "isa-debug-exit,iobase=0xf4,iosize=4"]
EXIT_STATUS = 3  # what the tiny guest writes, (1 << 1) | 1


def tiny_guest(path, ends):
    """An ELF32 image for multiboot 1: mov al, 1; out 0xf4, al; hlt. Without the end: cli; hlt."""
    base, header = 0x100000, 84
    magic, flags = 0x1badb002, 0
    text = struct.pack("<III", magic, flags, -(magic + flags) & 0xffffffff)
    text += b"\xb0\x01\xe6\xf4\xf4\xeb\xfd" if ends else b"\xfa\xf4\xeb\xfd"
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
    """Milliseconds from exec to exit."""
    begin = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          timeout=60, check=False)
    elapsed = time.monotonic() - begin
    if done.returncode != EXIT_STATUS:
        sys.exit(f"{command[0]} ended with {done.returncode}:\n{done.stderr.decode(errors='replace')}")
    return elapsed * 1000


def peak_memory(command):
    """MiB, once the process's peak has not moved for a second."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        peaks = []
        while len(peaks) < 5 or peaks[-1] != peaks[-5]:
            time.sleep(0.25)
            with open(f"/proc/{process.pid}/status", encoding="ascii") as file:
                found = re.search(r"VmHWM:\s+(\d+)", file.read())
            if not found:
                sys.exit(f"{command[0]} ended by itself")
            peaks.append(int(found.group(1)))
        process.kill()
    return peaks[-1] / 1024


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
        images = {name: os.path.join(scratch, name) for name in ("ends", "halts")}
        for name, image in images.items():
            tiny_guest(image, name == "ends")
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
            ours, theirs = (min(measured[name]) for name in ("kite", "qemu"))
            print(f"{'exit, user space, cycles':<28} {ours:>8.0f} {theirs:>8.0f} {ours / theirs:>10.2f}", flush=True)
        starts = {name: [] for name in machines}
        for _ in range(options.starts):
            for name, machine in machines.items():
                starts[name].append(start([*machine, "-serial", "none", "-kernel", images["ends"]]))
        ours, theirs = (min(starts[name]) for name in ("kite", "qemu"))
        print(f"{'start to exit, ms':<28} {ours:>8.1f} {theirs:>8.1f} {ours / theirs:>10.2f}", flush=True)
        ours, theirs = (peak_memory([*machines[name], "-serial", "none", "-kernel", images["halts"]])
                        for name in ("kite", "qemu"))
        print(f"{'peak memory, MiB':<28} {ours:>8.1f} {theirs:>8.1f} {ours / theirs:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
