#!/usr/bin/env python3
"""Image tools side by side: `kite img` and the installed qemu-img in one run, alternating, best of several.

usage: img.py KITE [--directory DIR] [--size MIB] [--rounds N]
Prints a table: the peer's seconds, ours, and how many times faster ours is.
"""
import argparse
import os
import pathlib
import subprocess
import tempfile
import time


def timed(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def compressible(path: pathlib.Path, mib: int) -> None:
    """Half noise, half text-like: what a system's disk holds."""
    with path.open("wb") as file:
        for number in range(mib):
            file.write(os.urandom(1 << 19) + (b"line %d of a log file\n" % number * 40000)[:1 << 19])


def prepare(target: pathlib.Path, title: str) -> None:
    """Each run starts from the same: without a target, or with an old one as large as the new."""
    if not title.endswith("over an old file"):
        target.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kite")
    parser.add_argument("--directory", default="/dev/shm")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kite-img-", dir=options.directory) as name:
        directory = pathlib.Path(name)
        raw, qcow2, target = directory / "a.raw", directory / "a.qcow2", directory / "target"
        compressible(raw, options.size)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2], check=True)
        cases = [("convert raw -> qcow2", ["convert", "-f", "raw", "-O", "qcow2", raw, target]),
                 ("convert qcow2 -> raw", ["convert", "-f", "qcow2", "-O", "raw", qcow2, target]),
                 ("convert qcow2 -> raw, over an old file", ["convert", "-f", "qcow2", "-O", "raw", qcow2, target]),
                 ("convert raw -> qcow2, compressed", ["convert", "-c", "-f", "raw", "-O", "qcow2", raw, target])]
        for fmt, image in (("raw", raw), ("qcow2", qcow2)):
            for write in ([], ["-w"]):
                for size in ("4k", "64k"):
                    for depth in (1, 16, 64):
                        title = f"bench {fmt} {'write' if write else 'read'} {size} depth {depth}"
                        cases.append((title, ["bench", "-f", fmt, "-c", "40000" if size == "4k" else "10000", "-s", size,
                                              "-d", str(depth), *write, image]))
        print(f"{'case':45} {'qemu-img':>9} {'kite':>9} {'times':>6}")
        for title, arguments in cases:
            arguments = [str(argument) for argument in arguments]
            best = {"qemu-img": float("inf"), "kite": float("inf")}
            sizes = {}
            for _ in range(options.rounds):
                for tool, command in (("qemu-img", ["qemu-img"]), ("kite", [options.kite, "img"])):
                    prepare(target, title)
                    best[tool] = min(best[tool], timed([*command, *arguments]))
                    if "-c" in arguments[:2]:
                        sizes[tool] = target.stat().st_size
            note = f"  {sizes['qemu-img']} / {sizes['kite']} bytes" if sizes else ""
            print(f"{title:45} {best['qemu-img']:9.3f} {best['kite']:9.3f} {best['qemu-img'] / best['kite']:6.2f}{note}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
