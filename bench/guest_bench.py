#!/usr/bin/env python3
"""Fixed-work cases inside a Linux guest: Kite's software CPU beside the installed qemu-system-x86_64 -accel tcg, in one
run, and the same static program on the host.

usage: bench/guest_bench.py [--case NAME|CLASS]... [--kite BINARY] [--rounds N] [--accel jit,...] [--no-qemu] ...
Prints for every case the times in milliseconds, how many times slower than the host Kite is, and how many times faster
than QEMU; then the geometric means by class. A case whose checksum differs from the host's is an error.

       bench/guest_bench.py --scaling [--case NAME|CLASS]... ...
Runs every case in two processes at once, with one CPU and with two: how many times as much gets done with the second,
in Kite, in QEMU and on the host itself.
"""
import argparse
import glob
import os
import pathlib
import shutil
import subprocess
import tempfile

import side_by_side

HERE = pathlib.Path(__file__).resolve().parent
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /tmp
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t tmpfs tmp /tmp
echo
/kbench {cases}
echo "bench: done"
/bin/busybox poweroff -f
"""


def build(folder):
    program = os.path.join(folder, "kbench")
    sources = sorted(glob.glob(str(HERE / "guest" / "*.c")))
    subprocess.run(["clang-19", "-O2", "-static", "-pthread", "-o", program, *sources, "-lm"], check=True)
    return program


def make_initrd(folder, program, cases):
    tree = pathlib.Path(folder) / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "dev").mkdir()
    shutil.copy(shutil.which("busybox"), tree / "bin" / "busybox")
    shutil.copy(program, tree / "kbench")
    (tree / "init").write_text(INIT.format(cases=" ".join(cases)))
    (tree / "init").chmod(0o755)
    return side_by_side.pack(tree, os.path.join(folder, "initrd.gz"))


PARALLEL = ["--parallel", "2"]


def compare_scaling(options, initrd, program):
    """The same work in two processes, on one CPU and on two."""
    times = {}
    for _ in range(options.rounds):
        for cpus in ("1", "2"):
            options.smp = cpus
            for side, command in side_by_side.commands(options, initrd).items():
                if side == "kite" or not options.no_qemu:
                    times.setdefault((side, cpus), []).append(side_by_side.results(command, options.limit, True))
            host = ["taskset", "-c", "0" if cpus == "1" else "0,1", program, *PARALLEL, *options.case]
            times.setdefault(("host", cpus), []).append(side_by_side.results(host, options.limit, False))
    found = {key: side_by_side.medians(runs) for key, runs in times.items()}
    sides = [side for side in ("host", "kite", "qemu") if (side, "1") in found]
    print(f"{'case':<16} {'class':<8} " + " ".join(f"{side + ' x':>9}" for side in sides))
    ratios = {side: [] for side in sides}
    for name, (kind, _, _) in found["kite", "1"].items():
        line = []
        for side in sides:
            one, two = found[side, "1"], found[side, "2"]
            if name in one and name in two:
                ratios[side].append(one[name][1] / two[name][1])
                line.append(f"{ratios[side][-1]:>9.2f}")
            else:
                line.append(f"{'-':>9}")
        print(f"{name:<16} {kind:<8} {' '.join(line)}")
    print(f"{'mean':<25} " + " ".join(f"{side_by_side.mean(ratios[side]):>9.2f}" for side in sides))


def main():
    parser = argparse.ArgumentParser()
    side_by_side.add_arguments(parser, "512")
    parser.add_argument("--case", action="append", default=[])
    parser.add_argument("--scaling", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        if options.scaling:
            initrd = make_initrd(folder, program, [*PARALLEL, *options.case])
            return compare_scaling(options, initrd, program)
        side_by_side.compare(options, make_initrd(folder, program, options.case), [program, *options.case])


if __name__ == "__main__":
    main()
