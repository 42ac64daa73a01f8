#!/usr/bin/env python3
"""Random sequences of operations on images, by our tools and the installed peers in turn, against a flat model.

usage: interchange_test.py KITE [--seed N] [--rounds N] [--only NAME]
The last line is 'interchange: N passed, N failed, N skipped'.
"""
import argparse
import json
import pathlib
import random
import shutil
import subprocess
import tempfile

from images import Counter, Disk, Tools, same, tools

MIB = 1 << 20

# name: format, options of create, size, operations that it has
VARIANTS = {
    "qcow2": ("qcow2", "", 8 * MIB, "wzdsrc"),
    "qcow2-v2": ("qcow2", "compat=0.10", 8 * MIB, "wzdsc"),
    "qcow2-512": ("qcow2", "cluster_size=512", 2 * MIB, "wzdsrc"),
    "qcow2-4k": ("qcow2", "cluster_size=4k", 4 * MIB, "wzdsrc"),
    "qcow2-2m": ("qcow2", "cluster_size=2M", 24 * MIB, "wzdsr"),
    "qcow2-lazy": ("qcow2", "lazy_refcounts=on", 8 * MIB, "wzdsr"),
    "qcow2-extended": ("qcow2", "extended_l2=on", 8 * MIB, "wzdsrc"),
    "qcow2-extended-16k": ("qcow2", "extended_l2=on,cluster_size=16k", 4 * MIB, "wzdsrc"),
    "qcow2-zstd": ("qcow2", "compression_type=zstd", 8 * MIB, "wzdsrc"),
    "qcow2-refcount1": ("qcow2", "refcount_bits=1", 8 * MIB, "wzdr"),
    "qcow2-refcount2": ("qcow2", "refcount_bits=2,cluster_size=2k", 4 * MIB, "wzdrc"),
    "qcow2-refcount4": ("qcow2", "refcount_bits=4", 8 * MIB, "wzdsrc"),
    "qcow2-refcount32": ("qcow2", "refcount_bits=32,cluster_size=8k", 4 * MIB, "wzdsrc"),
    "qcow2-extended-zstd": ("qcow2", "extended_l2=on,cluster_size=128k,compression_type=zstd", 8 * MIB, "wzdsr"),
    "qcow2-refcount8": ("qcow2", "refcount_bits=8,cluster_size=1k", 4 * MIB, "wzdsrc"),
    "qcow2-refcount64": ("qcow2", "refcount_bits=64,cluster_size=512", 2 * MIB, "wzdsrc"),
    "qcow2-prealloc": ("qcow2", "preallocation=metadata", 8 * MIB, "wzdsr"),
    "qcow2-falloc": ("qcow2", "preallocation=falloc", 4 * MIB, "wzd"),
    "qed": ("qed", "", 8 * MIB, "wzr"),
    "qed-4k": ("qed", "cluster_size=4k,table_size=2", 4 * MIB, "wzr"),
    "raw": ("raw", "", 4 * MIB, "wzdr"),
}


def span(rng: random.Random, size: int, unit: int) -> tuple[int, int]:
    """A range inside the disk: often small and odd, sometimes large or aligned."""
    length = rng.choice([512, 1024, 4096, 65536, 3 * 512, 200 * 1024, 1 << rng.randrange(9, 21)])
    offset = rng.randrange(0, size // unit) * unit
    length = min(length, size - offset)
    return offset, max(length // 512 * 512, 512)


def batch(rng: random.Random, disk: Disk, operations: str, cluster: int) -> list[str]:
    """Some I/O commands, done to the model as well."""
    commands = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.choice([o for o in operations if o in "wzdc"] + ["w"])
        size = len(disk.data)
        offset, length = span(rng, size, 512 if kind == "w" else 4096)
        value = rng.randrange(1, 256)
        if kind == "w":
            commands.append(f"write -P {value} {offset} {length}")
            disk.write(offset, length, value)
        elif kind == "z":
            commands.append(f"write -z {'-u ' if rng.random() < 0.5 else ''}{offset} {length}")
            disk.write(offset, length, 0)
        elif kind == "c":
            offset = offset // cluster * cluster
            if offset + cluster <= size:
                commands.append(f"write -c -P {value} {offset} {cluster}")
                disk.write(offset, cluster, value)
        else:
            # A discard may leave anything: it is followed by a write, so that the model knows the content.
            commands += [f"discard {offset} {length}", f"write -P {value} {offset} {length}"]
            disk.write(offset, length, value)
    return commands


def snapshots(rng: random.Random, tool: Tools, image: pathlib.Path, disk: Disk) -> None:
    action = rng.choice(["create", "create", "apply", "delete"])
    if action == "create" and len(disk.snapshots) < 4:
        name = f"s{rng.randrange(10 ** 9)}"
        tool.img("snapshot", "-c", name, image)
        disk.snapshots[name] = bytes(disk.data)
    elif disk.snapshots:
        name = rng.choice(sorted(disk.snapshots))
        if action == "apply":
            tool.img("snapshot", "-a", name, image)
            disk.data = bytearray(disk.snapshots[name])
        else:
            tool.img("snapshot", "-d", name, image)
            del disk.snapshots[name]


def resize(rng: random.Random, tool: Tools, image: pathlib.Path, fmt: str, disk: Disk) -> None:
    size = len(disk.data)
    new = max(size + rng.choice([-1, 1, 1, 2]) * rng.choice([512, 65536, MIB]), MIB)
    if fmt == "qed":
        new = max(new, size)
    tool.img("resize", "-q", "-f", fmt, "--shrink", image, new)
    disk.data = disk.data[:new] + bytearray(max(new - size, 0))


def sequence(directory: pathlib.Path, pair: list[Tools], name: str, seed: int, rounds: int) -> None:
    """One image through its life, each step by one of the tools."""
    fmt, options, size, operations = VARIANTS[name]
    rng = random.Random(f"{name} {seed}")
    image = directory / f"{name}-{seed}.img"
    arguments = ["create", "-q", "-f", fmt] + (["-o", options] if options else [])
    rng.choice(pair).img(*arguments, image, size)
    disk = Disk(size)
    cluster = 65536
    for word in options.split(","):
        if word.startswith("cluster_size="):
            cluster = int(word[13:].replace("k", "")) * (1024 if word.endswith("k") else 1) if "M" not in word else 2 * MIB
    for _ in range(rounds):
        tool = rng.choice(pair)
        kind = rng.choice("iiii" + "".join(o for o in operations if o in "sr"))
        try:
            if kind == "i":
                # The peers refuse to store compressed what is there already.
                own = operations if tool is pair[0] else operations.replace("c", "")
                tool.io(image, *batch(rng, disk, own, cluster), options=["-f", fmt])
            elif kind == "s":
                snapshots(rng, tool, image, disk)
            else:
                resize(rng, tool, image, fmt, disk)
            for checker in pair:
                if fmt != "raw":
                    checker.checked(image, fmt)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, by {tool.name}: {error}") from error
    for reader in pair:
        same(reader.content(image, fmt, directory), bytes(disk.data), f"seed {seed}: {name} read by {reader.name}")
        for snapshot, content in disk.snapshots.items():
            # The peers show a snapshot in the size that the image has now.
            shown = reader.content(image, fmt, directory, "-l", snapshot)
            same(shown[:len(content)], content[:len(shown)],
                 f"seed {seed}: snapshot {snapshot} of {name} read by {reader.name}")
    image.unlink()


def chain(directory: pathlib.Path, pair: list[Tools], formats: list[str], seed: int) -> None:
    """A backing chain, written, rebased and committed."""
    rng = random.Random(f"chain {formats} {seed}")
    folder = pathlib.Path(tempfile.mkdtemp(dir=directory))
    size = 4 * MIB
    disk = Disk(size)
    images = []
    states = []
    for depth, fmt in enumerate(formats):
        image = folder / f"{depth}.{fmt}"
        backing = ["-b", images[-1].name, "-F", formats[depth - 1]] if images else []
        rng.choice(pair).img("create", "-q", "-f", fmt, *backing, image, size)
        images.append(image)
        for _ in range(3):
            rng.choice(pair).io(image, *batch(rng, disk, "wz", 65536), options=["-f", fmt])
        states.append(bytes(disk.data))
    top, fmt = images[-1], formats[-1]
    for reader in pair:
        same(reader.content(top, fmt, folder), states[-1], f"seed {seed}: chain {formats} read by {reader.name}")
    if len(formats) > 2:
        rng.choice(pair).img("rebase", "-f", fmt, "-b", images[0].name, "-F", formats[0], top)
        for reader in pair:
            same(reader.content(top, fmt, folder), states[-1], f"seed {seed}: rebased chain {formats} read by {reader.name}")
        rng.choice(pair).img("commit", "-q", "-f", fmt, top)
        for reader in pair:
            same(reader.content(images[0], formats[0], folder), states[-1], f"seed {seed}: committed {formats} read by {reader.name}")
            same(reader.content(top, fmt, folder), states[-1], f"seed {seed}: emptied {formats} read by {reader.name}")
    for image, of in zip(images, formats):
        for checker in pair:
            if of != "raw":
                checker.checked(image, of)
    shutil.rmtree(folder)


def conversion(directory: pathlib.Path, pair: list[Tools], target: str, options: list[str]) -> None:
    """The same content through every pair of converter and reader."""
    rng = random.Random(f"convert {target} {options}")
    source = directory / "source.raw"
    data = bytearray(6 * MIB + 512 * 3)
    for _ in range(40):
        offset, length = span(rng, len(data), 512)
        data[offset:offset + length] = rng.choice([rng.randbytes(length), bytes([7]) * length])
    source.write_bytes(data)
    for writer in pair:
        image = directory / "target.img"
        writer.img("convert", "-f", "raw", "-O", target, *options, source, image)
        for reader in pair:
            if target != "raw":
                reader.checked(image, target)
            content = reader.content(image, target, directory)[:len(data)]
            same(content, bytes(data), f"{target} {options} written by {writer.name}, read by {reader.name}")
            result = reader.img("compare", "-f", "raw", "-F", target, source, image, check=False)
            if result.returncode != 0:
                raise AssertionError(f"{reader.name} compare: {result.stdout}{result.stderr}")
        image.unlink()


def vm_state(directory: pathlib.Path, writer: Tools, reader: Tools, options: str) -> None:
    """A machine's state beside the disk, in and out of snapshots."""
    image = directory / "state.qcow2"
    writer.img("create", "-q", "-f", "qcow2", *(["-o", options] if options else []), image, 2 * MIB)
    writer.io(image, "write -P 1 0 64k", "write -b -P 2 0 100352", "write -b -P 3 50176 512", options=["-f", "qcow2"])
    reader.io(image, "read -b -P 2 0 50176", "read -b -P 3 50176 512", "read -b -P 2 50688 49664", options=["-f", "qcow2"])
    reader.img("snapshot", "-c", "s", image)
    writer.io(image, "write -b -P 4 0 100352", "write -P 5 0 64k", options=["-f", "qcow2"])
    for tool in (writer, reader):
        tool.checked(image, "qcow2")
    reader.io(image, "read -b -P 4 0 100352", options=["-f", "qcow2"])
    writer.img("snapshot", "-a", "s", image)
    reader.io(image, "read -b -P 3 50176 512", "read -P 1 0 64k", options=["-f", "qcow2"])
    writer.img("snapshot", "-d", "s", image)
    for tool in (writer, reader):
        tool.checked(image, "qcow2")
    image.unlink()


def dirty(directory: pathlib.Path, image: pathlib.Path, bitmap: str, granularity: int) -> set[int]:
    """What a bitmap in the image has, as the peers see it: numbers of its bits."""
    socket = directory / "bitmap.sock"
    subprocess.run(["qemu-nbd", "--fork", "-r", "-f", "qcow2", "-B", bitmap, "-k", str(socket), str(image)], check=True,
                   timeout=60)
    server = f"driver=nbd,server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}"
    said = subprocess.run(["qemu-img", "map", "--output=json", "--image-opts", server], check=True, capture_output=True,
                          timeout=60).stdout
    return {bit for part in json.loads(said) if not part["data"]
            for bit in range(part["start"] // granularity, -(-(part["start"] + part["length"]) // granularity))}


def bitmaps(directory: pathlib.Path, pair: list[Tools], options: str, seed: int) -> None:
    """Dirty bitmaps that each tool keeps up, and that each changes."""
    rng = random.Random(f"bitmaps {options} {seed}")
    size, granularity = 8 * MIB, 4096
    image = directory / "bitmaps.qcow2"
    rng.choice(pair).img("create", "-q", "-f", "qcow2", "-o", options, image, size)
    pair[0].img("bitmap", "--add", "-g", granularity, image, "ours")
    pair[1].img("bitmap", "--add", "-g", granularity, "--disable", image, "theirs")
    bits: dict[str, set[int]] = {"ours": set(), "theirs": set()}
    on = {"ours"}
    for _ in range(6):
        tool = rng.choice(pair)
        name = rng.choice(sorted(bits))
        other = {"ours": "theirs", "theirs": "ours"}[name]
        kind = rng.choice(["write", "write", "write", "clear", "merge", "switch"])
        if kind == "write":
            offset, length = span(rng, size, 512)
            tool.io(image, f"write {'-z ' if rng.random() < 0.3 else ''}{offset} {length}", options=["-f", "qcow2"])
            for each in on:
                bits[each].update(range(offset // granularity, -(-(offset + length) // granularity)))
        elif kind == "clear":
            tool.img("bitmap", "--clear", "-f", "qcow2", image, name)
            bits[name] = set()
        elif kind == "merge":
            tool.img("bitmap", "--merge", other, image, name)
            bits[name] |= bits[other]
        else:
            tool.img("bitmap", "--disable" if name in on else "--enable", image, name)
            on ^= {name}
        for checker in pair:
            checker.checked(image, "qcow2")
        told = [json.loads(reader.img("info", "--output=json", image).stdout)["format-specific"] for reader in pair]
        if told[0] != told[1]:
            raise AssertionError(f"seed {seed}: after {kind} by {tool.name} {told[0]} and {told[1]}")
        if dirty(directory, image, name, granularity) != bits[name]:
            raise AssertionError(f"seed {seed}: after {kind} by {tool.name} the bitmap '{name}' is wrong")
    for tool, name in zip(pair, bits):
        tool.img("bitmap", "--remove", image, name)
    for checker in pair:
        checker.checked(image, "qcow2")
    image.unlink()


def in_use(directory: pathlib.Path, holder: Tools, other: Tools, fmt: str) -> None:
    """An image that somebody has open is neither made anew nor converted over."""
    image, source = directory / "used.img", directory / "unused.raw"
    source.write_bytes(bytes([9]) * MIB)
    holder.img("create", "-q", "-f", fmt, image, MIB)
    holder.io(image, "write -P 6 0 1M", options=["-f", fmt])
    process = subprocess.Popen([*holder.io_command, "-f", fmt, str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write("length\n")
    process.stdin.flush()
    while "MiB" not in process.stdout.readline():
        pass
    for command in (["create", "-f", fmt, image, MIB], ["convert", "-f", "raw", "-O", fmt, source, image],
                    ["convert", "-f", "raw", "-O", "raw", source, image]):
        result = other.img(*command, check=False)
        if result.returncode == 0 or "lock" not in result.stderr:
            raise AssertionError(f"{other.name} {command[0]} over an open image: {result.returncode} {result.stderr}")
    process.communicate("quit\n", timeout=60)
    holder.io(image, "read -P 6 0 1M", options=["-f", fmt])


def overwritten(directory: pathlib.Path, converter: Tools) -> None:
    """A raw target that was there: nothing of it is left, and what is zero takes no space."""
    target, source = directory / "old.raw", directory / "new.raw"
    for old_size in (MIB // 2, 2 * MIB, 5 * MIB + 512):
        data = bytearray(2 * MIB)
        data[4096:8192], data[MIB:MIB + 70000] = b"a" * 4096, b"b" * 70000
        source.write_bytes(data)
        target.write_bytes(b"x" * old_size)
        converter.img("convert", "-f", "raw", "-O", "raw", source, target)
        same(target.read_bytes(), bytes(data), f"over {old_size} old bytes")
        if target.stat().st_blocks * 512 > MIB:
            raise AssertionError(f"{target.stat().st_blocks * 512} bytes are in use for 74096 of data")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only")
    options = parser.parse_args()
    ours, peers = tools(options.kite)
    pair = [ours] if peers is None else [ours, peers]
    counter = Counter("interchange")
    if peers is None:
        counter.skip("with qemu-img", "qemu-img and qemu-io are not installed; only our own tools are compared")
    with tempfile.TemporaryDirectory(prefix="kite-interchange-") as name:
        directory = pathlib.Path(name)
        for variant in VARIANTS:
            if options.only is None or options.only in variant:
                counter.run(variant, sequence, directory, pair, variant, options.seed, options.rounds)
        for formats in (["qcow2", "qcow2"], ["raw", "qcow2", "qcow2"], ["qcow2", "qed", "qcow2"], ["qed", "qcow2", "qed"]):
            if options.only is None or options.only in "chain":
                counter.run(f"chain {formats}", chain, directory, pair, formats, options.seed)
        for target, how in (("qcow2", []), ("qcow2", ["-c"]), ("qcow2", ["-c", "-o", "compression_type=zstd"]),
                            ("qcow2", ["-o", "cluster_size=512"]), ("qcow2", ["-c", "-o", "cluster_size=2M"]),
                            ("qcow2", ["-o", "extended_l2=on"]), ("qcow2", ["-S", "0"]), ("qcow2", ["-m", "1", "-W"]),
                            ("qcow2", ["-o", "compat=0.10"]), ("qed", []), ("raw", []), ("raw", ["-S", "0"])):
            if options.only is None or options.only in "convert":
                counter.run(f"convert {target} {how}", conversion, directory, pair, target, how)
        for writer, reader in {(a.name, b.name): (a, b) for a in pair for b in pair}.values():
            title = f"by {writer.name}, then {reader.name}"
            for how in ("", "cluster_size=512", "extended_l2=on"):
                if options.only is None or options.only in "vm state":
                    counter.run(f"vm state {how} {title}", vm_state, directory, writer, reader, how)
            for fmt in ("qcow2", "qed", "raw") if writer is ours else ("qcow2", "qed"):
                if (options.only is None or options.only in "in use") and reader is ours:
                    counter.run(f"in use {fmt} {title}", in_use, directory, writer, reader, fmt)
        if peers is not None and shutil.which("qemu-nbd") and (options.only is None or options.only in "bitmaps"):
            for how in ("cluster_size=64k", "cluster_size=1k"):
                counter.run(f"bitmaps {how}", bitmaps, directory, pair, how, options.seed)
        if options.only is None or options.only in "overwritten":
            counter.run("overwritten", overwritten, directory, ours)
    return counter.finish()


if __name__ == "__main__":
    raise SystemExit(main())
