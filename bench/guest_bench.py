#!/usr/bin/env python3
"""Fixed-work cases inside a Linux guest: Kite's software CPU beside the installed qemu-system-x86_64 -accel tcg, in one
run, and the same static program on the host.

usage: bench/guest_bench.py [--case NAME|CLASS]... [--kite BINARY] [--rounds N] [--accel jit,...] [--no-qemu] ...
Prints for every case the times in milliseconds, how many times slower than the host Kite is, and how many times faster
than QEMU; then the geometric means by class. A case whose checksum differs from the host's is an error.
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


def main():
    parser = argparse.ArgumentParser()
    side_by_side.add_arguments(parser, "512")
    parser.add_argument("--case", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = build(folder)
        side_by_side.compare(options, make_initrd(folder, program, options.case), [program, *options.case])


if __name__ == "__main__":
    main()
