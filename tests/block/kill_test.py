#!/usr/bin/env python3
"""Kills the I/O tool, or a machine whose guest writes, in the middle of a write load: what was acknowledged after a flush
is there, the image opens, and nothing but leaks is wrong with it.

usage: kill_test.py KITE [--kills N] [--seed N]
The last line is 'kill: N passed, N failed, N skipped'.
"""
import argparse
import pathlib
import random
import subprocess
import tempfile
import threading
import time

from images import Counter, tools

SIZE = 4 << 20
SECTOR = 512


class Load:
    """What a writer did to a disk: what each sector may hold after the kill."""

    def __init__(self):
        self.durable: dict[int, set[int]] = {}  # sector: what it may be
        self.last: dict[int, int] = {}

    def write(self, offset: int, count: int, value: int) -> None:
        for sector in range(offset, offset + count):
            self.durable.setdefault(sector, {self.last.get(sector, 0)}).add(value)
            self.last[sector] = value

    def flushed(self) -> None:
        self.durable = {sector: {value} for sector, value in self.last.items()}


def tool_load(kite: str, image: pathlib.Path, fmt: str, rng: random.Random) -> Load:
    """Writes of the I/O tool, all asked for at once."""
    process = subprocess.Popen([kite, "io", "-f", fmt, str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, bufsize=0)
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
    load = Load()
    for number, step in enumerate(script):
        if step is not None:
            load.write(*step)
        elif number < acknowledged:
            load.flushed()
    return load


class Ide:
    """The first IDE disk of a machine without a guest, by its ports: [ATA-4] WRITE SECTORS and FLUSH CACHE."""
    BUSY, REQUEST, FAULT = 0x80, 0x08, 0x21

    def __init__(self, kite: str, image: pathlib.Path, fmt: str):
        self.process = subprocess.Popen([kite, "-accel", "qtest", "-qtest", "stdio", "-qtest-log", "/dev/null", "-nodefaults", "-display",
                                         "none", "-drive", f"if=ide,format={fmt},file={image}"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def ask(self, *lines: str) -> str:
        """Sends commands; the last one's answer. ConnectionError when the machine is gone."""
        try:
            self.process.stdin.write("".join(line + "\n" for line in lines))
            self.process.stdin.flush()
            answer = "".join(self.process.stdout.readline() for _ in lines)
        except (BrokenPipeError, ValueError) as error:
            raise ConnectionError from error
        if answer.count("\n") != len(lines):
            raise ConnectionError
        return answer.split("\n")[-2]

    def wait(self, wanted: int) -> None:
        while True:
            status = int(self.ask("inb 0x1f7").split()[1], 16)
            if status & self.BUSY:
                continue
            if status & self.FAULT:
                raise AssertionError(f"the disk's status is {status:#x}")
            if status & self.REQUEST == wanted:
                return

    def write(self, sector: int, value: int) -> None:
        self.ask("outb 0x1f6 0xe0", "outb 0x1f2 1", f"outb 0x1f3 {sector & 0xff}", f"outb 0x1f4 {sector >> 8 & 0xff}",
                 f"outb 0x1f5 {sector >> 16}", "outb 0x1f7 0x30")
        self.wait(self.REQUEST)
        self.ask(*[f"outw 0x1f0 {value * 0x101}"] * 256)
        self.wait(0)

    def flush(self) -> None:
        self.ask("outb 0x1f7 0xe7")
        self.wait(0)


def machine_load(kite: str, image: pathlib.Path, fmt: str, rng: random.Random) -> Load:
    """A guest's writes, one after the other; the machine is killed in one of them."""
    disk, load, killed = Ide(kite, image, fmt), Load(), threading.Event()

    def kill() -> None:
        time.sleep(rng.random() * 0.3)
        killed.set()
        disk.process.kill()

    disk.flush()  # the machine is there
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        while True:
            if rng.random() < 0.15:
                disk.flush()
                load.flushed()
            else:
                sector, value = rng.randrange(SIZE // SECTOR), rng.randrange(1, 256)
                load.write(sector, 1, value)
                disk.write(sector, value)
    except ConnectionError as error:
        if not killed.is_set():
            raise AssertionError("the machine ended by itself") from error
    finally:
        killer.join()
        disk.process.wait()
    return load


def one(kite: str, ours, directory: pathlib.Path, fmt: str, options: str, writer, seed: int) -> None:
    rng = random.Random(f"{fmt} {options} {seed}")
    image = directory / f"{seed}.img"
    ours.img("create", "-q", "-f", fmt, *(["-o", options] if options else []), image, SIZE)
    load = writer(kite, image, fmt, rng)
    # The kernel lets go of the files of a killed process's io_uring, and with them of the image's locks, after the process is gone.
    for _ in range(200):
        if "lock" not in ours.img("check", "-f", fmt, image, check=False).stderr:
            break
        time.sleep(0.05)
    result = ours.img("check", "-f", fmt, image, check=False)
    # With lazy refcounts these are behind until the image is repaired, and the header says so.
    if result.returncode not in (0, 3) and "lazy" not in options:
        raise AssertionError(f"check says {result.returncode}: {result.stdout}{result.stderr}")
    ours.img("check", "-q", "-f", fmt, "-r", "all", image, check=False)
    if fmt != "qed":  # which never gives leaked clusters back
        ours.checked(image, fmt)
    content = ours.content(image, fmt, directory)
    for sector, allowed in load.durable.items():
        if content[sector * SECTOR] not in allowed:
            raise AssertionError(f"sector {sector} is {content[sector * SECTOR]}, one of {sorted(allowed)} expected")
    image.unlink()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kite")
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    ours, _ = tools(arguments.kite)
    counter = Counter("kill")
    variants = [("qcow2", ""), ("qcow2", "cluster_size=512"), ("qcow2", "lazy_refcounts=on"), ("qcow2", "extended_l2=on"), ("qed", ""),
                ("qcow2", "refcount_bits=64,cluster_size=4k"), ("qcow2", "compat=0.10"), ("qed", "cluster_size=4k,table_size=1")]
    with tempfile.TemporaryDirectory(prefix="kite-kill-") as name:
        for number in range(arguments.kills):
            fmt, options = variants[number // 2 % len(variants)]
            writer = (tool_load, machine_load)[number % 2]
            counter.run(f"{writer.__name__} {fmt} {options} {number}", one, arguments.kite, ours, pathlib.Path(name), fmt, options, writer,
                        arguments.seed * 1000 + number)
    return counter.finish()


if __name__ == "__main__":
    raise SystemExit(main())
