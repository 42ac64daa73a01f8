#!/usr/bin/env python3
"""Boot to /init and power off: Kite beside the installed qemu-system-x86_64 -accel tcg, in one run, turn by turn.

usage: bench/boot.py [--kite BINARY] [--guests DIR] [--kernel 6.1-cloud]... [--smp N]... [--rounds N] [--memory MIB]
                     [--cpu MODEL]
Prints for each machine the median time of the whole process and its ratio to QEMU's.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time


def once(command):
    start = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=1800, check=False)
    seconds = time.monotonic() - start
    if b"user space runs" not in done.stdout:
        sys.exit(f"{command[0]} did not reach user space:\n{done.stdout[-2000:].decode(errors='replace')}")
    return seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kite", default="build/release/kite")
    parser.add_argument("--guests", default="build/guests")
    parser.add_argument("--kernel", action="append")
    parser.add_argument("--smp", action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="512")
    parser.add_argument("--cpu", default="max")
    options = parser.parse_args()
    print(f"{'kernel':<12} {'smp':>3} {'kite s':>8} {'qemu tcg s':>11} {'kite/qemu':>10}")
    for kernel in options.kernel or ["6.1-cloud"]:
        image = os.path.join(options.guests, kernel, "vmlinuz")
        for cpus in options.smp or ["1", "2"]:
            guest = ["-cpu", options.cpu, "-m", options.memory, "-smp", cpus, "-nographic", "-no-reboot", "-kernel",
                     image, "-initrd", os.path.join(options.guests, "initrd.gz"), "-append", "console=ttyS0 kite.once"]
            kite = [options.kite, "-accel", "jit", *guest]
            qemu = ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-serial", "mon:stdio", *guest]
            times = {"kite": [], "qemu": []}
            for _ in range(options.rounds):
                times["kite"].append(once(kite))
                times["qemu"].append(once(qemu))
            ours, theirs = (statistics.median(times[name]) for name in ("kite", "qemu"))
            print(f"{kernel:<12} {cpus:>3} {ours:>8.2f} {theirs:>11.2f} {ours / theirs:>10.2f}", flush=True)


if __name__ == "__main__":
    main()
