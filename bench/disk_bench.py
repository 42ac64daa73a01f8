#!/usr/bin/env python3
"""Debian's fio inside a Linux guest, on a virtio-blk disk (or another controller's): Kite's software CPU beside the
installed qemu-system-x86_64 -accel tcg, in one run.

usage: bench/disk_bench.py [--root DIR] [--kite BINARY] [--rounds N] [--device virtio-blk-pci] [--pio] [--seconds N]
                           [--case NAME]... [--directory DIR] [--no-qemu]
--device ide-hd is a disk of the board's IDE controller, by DMA as Linux drives it; with --pio as it does without.
The disk is a raw file in the host's page cache, so that the way through guest and monitor is what is measured. fio and
its libraries are put into DIR (kept, and used again) by mmdebstrap; the guest's drivers come with its kernel
(tools/get_kernel.sh). Prints requests a second, the median of the rounds; for large requests also what this host does with
the same file and no guest (one thread, one request after the other), which no monitor can exceed by much.

The file system that DIR is on counts: tmpfs has pages of 4 KiB unless told otherwise, and is slower than ext4 with its
large folios. Before each machine the file is brought to the host's disk, or else the host writes back what the last one
left, in the middle of the next one's turn.
"""
import argparse
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import side_by_side

COMMON = "--filename=/dev/{disk} --direct=1 --ioengine=libaio --time_based --runtime={seconds} --ramp_time=1 --norandommap"
CASES = {
    "randread-4k-qd1": "--rw=randread --bs=4k --iodepth=1",
    "randread-4k-qd32": "--rw=randread --bs=4k --iodepth=32",
    "randwrite-4k-qd1": "--rw=randwrite --bs=4k --iodepth=1",
    "randwrite-4k-qd32": "--rw=randwrite --bs=4k --iodepth=32",
    "read-1m-qd1": "--rw=read --bs=1m --iodepth=1",
    "write-1m-qd1": "--rw=write --bs=1m --iodepth=1",
    "read-1m-qd4": "--rw=read --bs=1m --iodepth=4",
    "write-1m-qd4": "--rw=write --bs=1m --iodepth=4",
}
INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /tmp /dev/shm
modprobe libata {libata}
for module in ata_piix ahci virtio_pci virtio_blk virtio_scsi nvme sd_mod; do modprobe -q $module; done
for turn in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/{disk} ] && break; sleep 1; done
echo none >/sys/block/{disk}/queue/scheduler
echo
{cases}
echo "bench: done"
poweroff -f
"""
# Fields of fio's terse format, version 3.
READ_RATE, WRITE_RATE = 8, 49


def fio_tree(root, guests, kernel, tree):
    """fio, the libraries it names, busybox and the kernel's modules."""
    if not (root / "usr/bin/fio").exists():
        subprocess.run(["mmdebstrap", "--variant=extract", "--include=fio", "bookworm", str(root)], check=True)
    paths = ":".join(str(root / part) for part in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu",
                                                   "usr/lib/x86_64-linux-gnu/ceph"))
    listing = subprocess.run(["ldd", str(root / "usr/bin/fio")], env={"LD_LIBRARY_PATH": paths}, check=True,
                             stdout=subprocess.PIPE).stdout.decode()
    (tree / "bin").mkdir()
    (tree / "lib64").mkdir()
    for folder in ("dev", "proc", "sys", "tmp"):
        (tree / folder).mkdir()
    shutil.copytree(pathlib.Path(guests) / kernel / "modules/lib", tree / "lib", symlinks=True)
    shutil.copy(root / "usr/bin/fio", tree / "bin/fio")
    shutil.copy(shutil.which("busybox"), tree / "bin/busybox")
    for applet in ("sh", "mount", "mkdir", "modprobe", "sleep", "echo", "poweroff", "cut", "tail", "grep"):
        (tree / "bin" / applet).symlink_to("busybox")
    for path in re.findall(r"=> (/\S+)", listing):
        shutil.copy(path, tree / "lib64" / os.path.basename(path))
    loader = next((root / "lib/x86_64-linux-gnu").glob("ld-linux-x86-64.so.2"))
    shutil.copy(loader, tree / "lib64" / "ld-linux-x86-64.so.2")


def init_text(options, disk):
    lines = []
    for name, arguments in CASES.items():
        if options.case and name not in options.case:
            continue
        common = COMMON.format(disk=disk, seconds=options.seconds)
        field = WRITE_RATE if "write" in name else READ_RATE
        lines.append(f"echo case {name} $(LD_LIBRARY_PATH=/lib64 fio --name=x --minimal {common} {arguments} | "
                     f"grep '^3;' | cut -d';' -f{field})")
    return INIT.format(disk=disk, libata="force=pio4" if options.pio else "", cases="\n".join(lines))


class Unfinished(Exception):
    """A machine that did not come to the end of its cases, with what it said."""


def run(command, image, limit):
    print(f"{os.path.basename(command[0])} runs ...", file=sys.stderr, flush=True)
    with open(image, "rb") as disk:
        os.fsync(disk)
    try:
        output = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                timeout=limit, check=False).stdout
    except subprocess.TimeoutExpired as late:
        output = late.stdout or b""
    text = output.decode(errors="replace")
    rates = {name: float(rate) for name, rate in re.findall(r"case (\S+) ([0-9.]+)", text)}
    if "bench: done" not in text or not rates:
        raise Unfinished(f"{' '.join(command)} did not finish (limit {limit} s):\n{text[-3000:]}")
    return rates


def run_peer(command, image, limit):
    """QEMU 7.2 was seen to stop in the middle of a case, its guest waiting for ever: such a run does not count."""
    for _ in range(2):
        try:
            return run(command, image, limit)
        except Unfinished as hung:
            print(f"run again: {hung}", file=sys.stderr)
    return run(command, image, limit)


def host_rate(image, case, seconds):
    """Requests of 1 MiB a second, done by a loop of plain system calls; for small ones the loop would be the measure."""
    if "-1m-" not in case:
        return float("nan")
    size = 1 << 20
    blocks = os.path.getsize(image) // size
    buffers, count = [bytearray(b"\1" * size) for _ in range(4)], 0
    with open(image, "r+b", buffering=0) as disk:
        transfer = os.pwritev if "write" in case else os.preadv
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            transfer(disk.fileno(), [buffers[count % 4]], count % blocks * size)
            count += 1
        return count / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser()
    side_by_side.add_arguments(parser, "1024")
    parser.add_argument("--root", default="build/guests/fio")
    parser.add_argument("--device", default="virtio-blk-pci")
    parser.add_argument("--pio", action="store_true", help="the guest uses no DMA (ide-hd)")
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--drive", default="cache=writeback", help="what both sides' -drive is told")
    parser.add_argument("--size", type=int, default=512, help="of the disk, MiB")
    parser.add_argument("--directory", help="where the disk's file lies; otherwise where temporary files do")
    options = parser.parse_args()
    disk = "vda" if "virtio-blk" in options.device else "nvme0n1" if options.device == "nvme" else "sda"
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        tree = pathlib.Path(folder) / "tree"
        tree.mkdir()
        fio_tree(pathlib.Path(options.root).resolve(), options.guests, options.kernel, tree)
        (tree / "init").write_text(init_text(options, disk))
        (tree / "init").chmod(0o755)
        initrd = side_by_side.pack(tree, os.path.join(folder, "initrd.gz"))
        image = os.path.join(folder, "disk.raw")
        with open(image, "wb") as out:
            for _ in range(options.size):
                out.write(os.urandom(1 << 20))
        machine = ["-nodefaults", "-display", "none", "-serial", "stdio", "-m", options.memory, "-smp", options.smp, "-no-reboot", "-kernel",
                   os.path.join(options.guests, options.kernel, "vmlinuz"), "-initrd", initrd, "-append",
                   "console=ttyS0 quiet", "-drive", f"if=none,id=d,file={image},format=raw,{options.drive}",
                   "-device", f"{options.device},drive=d" + (",serial=x" if options.device == "nvme" else "")]
        kite = [options.kite, "-accel", options.accel, "-cpu", options.cpu, *machine]
        qemu = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", options.cpu, *machine]
        runs = {"kite": [], "qemu": [], "host": []}
        for _ in range(options.rounds):
            runs["kite"].append(run(kite, image, options.limit))
            if not options.no_qemu:
                runs["qemu"].append(run_peer(qemu, image, options.limit))
            runs["host"].append({name: host_rate(image, name, 1) for name in runs["kite"][0]})
    print(f"{'case':<20} {'kite/s':>10} {'qemu/s':>10} {'host/s':>10} {'kite/qemu':>10}")
    ratios = []
    for name in runs["kite"][0]:
        ours = statistics.median(one[name] for one in runs["kite"])
        theirs = statistics.median(one[name] for one in runs["qemu"]) if runs["qemu"] else float("nan")
        alone = statistics.median(one[name] for one in runs["host"])
        ratios.append(ours / theirs)
        print(f"{name:<20} {ours:>10.0f} {theirs:>10.0f} {alone:>10.0f} {ours / theirs:>10.2f}")
    if runs["qemu"]:
        print(f"{'mean':<20} {'':>10} {'':>10} {'':>10} {side_by_side.mean(ratios):>10.2f}")


if __name__ == "__main__":
    try:
        main()
    except Unfinished as unfinished:
        sys.exit(str(unfinished))
