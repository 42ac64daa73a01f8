#!/usr/bin/env python3
"""Kills the I/O tool in the middle of a write load: what was acknowledged after a flush is there, the image opens, and
nothing but leaks is wrong with it.

usage: kill_test.py KITE [--kills N] [--seed N]
The last line is 'kill: N passed, N failed, N skipped'.
"""
import argparse
import pathlib
import random
import subprocess
import tempfile
import time

from images import Counter, tools

SIZE = 4 << 20
SECTOR = 512


def one(kite: str, ours, directory: pathlib.Path, fmt: str, options: str, seed: int) -> None:
    rng = random.Random(f"{fmt} {options} {seed}")
    image = directory / f"{seed}.img"
    ours.img("create", "-q", "-f", fmt, *(["-o", options] if options else []), image, SIZE)
    process = subprocess.Popen([kite, "io", "-f", fmt, str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, bufsize=0)
    durable: dict[int, set[int]] = {}  # sector: what it may be
    lines, script = [], []
    for _ in range(200):
        if rng.random() < 0.15:
            lines.append("flush")
            script.append(None)
        else:
            offset = rng.randrange(SIZE // SECTOR - 400)
            count, value = rng.randrange(1, 400 if rng.random() < 0.2 else 40), rng.randrange(1, 256)
            lines.append(f"write -q -P {value} {offset * SECTOR} {count * SECTOR}")
            script.append((offset, count, value))
        lines.append("length")  # answers: what came before it is done
    process.stdin.write(("\n".join(lines) + "\n").encode())
    time.sleep(rng.random() * 0.03)
    process.kill()
    output = process.stdout.read().decode(errors="replace")
    process.wait()
    acknowledged = output.count("4 MiB")
    last: dict[int, int] = {}
    for number, step in enumerate(script):
        if step is None:
            if number < acknowledged:
                durable = {sector: {value} for sector, value in last.items()}
            continue
        offset, count, value = step
        for sector in range(offset, offset + count):
            durable.setdefault(sector, {last.get(sector, 0)}).add(value)
            last[sector] = value
    result = ours.img("check", "-f", fmt, image, check=False)
    # With lazy refcounts these are behind until the image is repaired, and the header says so.
    if result.returncode not in (0, 3) and "lazy" not in options:
        raise AssertionError(f"check says {result.returncode}: {result.stdout}{result.stderr}")
    ours.img("check", "-q", "-f", fmt, "-r", "all", image, check=False)
    if fmt != "qed":  # which never gives leaked clusters back
        ours.checked(image, fmt)
    content = ours.content(image, fmt, directory)
    for sector, allowed in durable.items():
        if content[sector * SECTOR] not in allowed:
            raise AssertionError(f"sector {sector} is {content[sector * SECTOR]}, one of {sorted(allowed)} expected "
                                 f"({acknowledged} steps were acknowledged)")
    image.unlink()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kite")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    ours, _ = tools(arguments.kite)
    counter = Counter("kill")
    variants = [("qcow2", ""), ("qcow2", "cluster_size=512"), ("qcow2", "lazy_refcounts=on"), ("qcow2", "extended_l2=on"), ("qed", ""),
                ("qcow2", "refcount_bits=64,cluster_size=4k"), ("qcow2", "compat=0.10"), ("qed", "cluster_size=4k,table_size=1")]
    with tempfile.TemporaryDirectory(prefix="kite-kill-") as name:
        for number in range(arguments.kills):
            fmt, options = variants[number % len(variants)]
            counter.run(f"{fmt} {options} {number}", one, arguments.kite, ours, pathlib.Path(name), fmt, options,
                        arguments.seed * 1000 + number)
    return counter.finish()


if __name__ == "__main__":
    raise SystemExit(main())
