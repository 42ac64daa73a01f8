#!/usr/bin/env python3
"""Guests of ours read and write their disks: a kernel a virtio-blk disk, with and without ioeventfd; a boot sector the IDE
disk that firmware started it from, by PIO and by DMA. On the software CPU, and on /dev/kvm with its interrupt controllers
in the kernel, split and in Kite; and where the kernel offers no io_uring.

usage: disk_guest_test.py KITE
Ends with 'disk-guest: N passed, N failed, N skipped'.
"""
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

from refused_call import IO_URING_SETUP, refuse

GUESTS = pathlib.Path(__file__).resolve().parent.parent / "kvm/guests"
MAGIC = 0x6B697465
GOOD_STATUS = 3  # 1 written to isa-debug-exit
LIMIT = 120  # seconds that end a hung guest
SECTOR = 512
SOURCE = 64  # where the boot sector finds what it reads
WAYS = {"pio": (1, 96, 2), "dma": (2, 128, 16)}  # the byte that asks for it and is added; the target; sectors

ACCELERATORS = [("jit", ["-accel", "jit"])]
ACCELERATORS += [(f"kvm irqchip {chip}", ["-accel", f"kvm,kernel-irqchip={chip}"]) for chip in ("on", "split", "off")]


def build(source, output, *flags):
    subprocess.run(["clang-19", "-m32", "-nostdlib", "-static", "-fuse-ld=bfd",
                    "-Wl,--build-id=none,--no-warn-rwx-segments", *flags, str(GUESTS / source), "-o", output], check=True)


def words(first, count):
    return struct.pack(f"<{count}I", *range(first, first + count))


def run(kite, arguments, start=None):
    """Why the guest failed, or ""; `start` prepares Kite's process."""
    done = subprocess.run([kite, *arguments, "-nodefaults", "-display", "none", "-serial", "none", "-m", "16", "-device",
                           "isa-debug-exit,iobase=0xf4,iosize=1"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=LIMIT, check=False, text=True, preexec_fn=start)
    return "" if done.returncode == GOOD_STATUS else f"status {done.returncode}: {done.stdout}"


def content(image, sector, count):
    with open(image, "rb") as file:
        file.seek(sector * SECTOR)
        return file.read(count * SECTOR)


def virtio(kite, arguments, folder, bells, start=None):
    """Why the guest failed, or ""."""
    kernel, image = os.path.join(folder, "virtio.elf"), os.path.join(folder, "virtio.raw")
    build("virtio_disk.S", kernel, "-Wl,-Ttext=0x100000,-N")
    with open(image, "wb") as file:
        file.write(words(MAGIC, 128) + bytes(64 * SECTOR))
    why = run(kite, [*arguments, "-kernel", kernel, "-drive", f"if=none,id=d,format=raw,file={image}", "-device",
                     f"virtio-blk-pci,drive=d,ioeventfd={bells}"], start)
    return why or ("" if content(image, 1, 1) == words(MAGIC + 1, 128) else "sector 1 holds something else")


def ide(kite, arguments, folder, way):
    added, target, count = WAYS[way]
    boot, image = os.path.join(folder, "boot.bin"), os.path.join(folder, "ide.raw")
    build("ide_disk.S", boot, "-Wl,-Ttext=0x7c00,--oformat=binary")
    disk = bytearray(1 << 20)
    code = pathlib.Path(boot).read_bytes()
    disk[:len(code)] = code
    disk[509] = added
    size = count * SECTOR
    disk[SOURCE * SECTOR:SOURCE * SECTOR + size] = words(MAGIC, size // 4)
    pathlib.Path(image).write_bytes(disk)
    why = run(kite, [*arguments, "-drive", f"if=ide,format=raw,file={image}"])
    if why:
        return why
    disk[target * SECTOR:target * SECTOR + size] = words(MAGIC + added, size // 4)
    return "" if content(image, 0, 2048) == bytes(disk) else "the disk does not hold what the guest wrote, and only that"


def virtio_without_uring(kite, arguments, folder, bells):
    return virtio(kite, arguments, folder, bells, refuse(IO_URING_SETUP))


def blank(folder):
    image = os.path.join(folder, "blank.raw")
    pathlib.Path(image).write_bytes(bytes(1 << 20))
    return image


def tool_without_uring(kite, _, folder, how):
    """The tool's asynchronous requests go through threads instead."""
    done = subprocess.run([kite, "io", "-n", "-f", "raw", *how, blank(folder)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=LIMIT, check=False, text=True, preexec_fn=refuse(IO_URING_SETUP))
    return "" if done.returncode == 0 and "read 8192/8192" in done.stdout and "failed" not in done.stdout else done.stdout


def uring_by_name(kite, _, folder, how):
    """Who asks for io_uring by name is told what to ask for instead."""
    command = [kite, *(word.format(image=blank(folder)) for word in how)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT,
                          check=False, text=True, preexec_fn=refuse(IO_URING_SETUP))
    told = done.returncode == 1 and "io_uring" in done.stdout and "aio=threads" in done.stdout
    return "" if told else f"status {done.returncode}: {done.stdout}"


def plan():
    for name, arguments in ACCELERATORS:
        for bells in ("on", "off"):
            yield f"{name}: virtio-blk ioeventfd {bells}", arguments, virtio, bells
        for way in WAYS:
            yield f"{name}: ide {way}", arguments, ide, way
    yield "jit without io_uring", ["-accel", "jit"], virtio_without_uring, "on"
    yield ("tool without io_uring", [], tool_without_uring,
           ["-c", "aio_write -P 7 4096 8192", "-c", "aio_flush", "-c", "read -P 7 4096 8192"])
    yield ("tool, io_uring by name where there is none", [], uring_by_name,
           ["io", "-i", "io_uring", "-f", "raw", "-c", "read 0 512", "{image}"])
    yield ("machine, io_uring by name where there is none", [], uring_by_name,
           ["-display", "none", "-drive", "if=ide,format=raw,aio=io_uring,file={image}"])


def main():
    kite = os.path.abspath(sys.argv[1])
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments, guest, how in plan():
            if "kvm" in name and not os.access("/dev/kvm", os.R_OK | os.W_OK):
                print(f"SKIP {name}: there is no /dev/kvm that this user may open")
                skipped += 1
                continue
            try:
                why = guest(kite, arguments, folder, how)
            except subprocess.TimeoutExpired:
                why = f"the guest did not end within {LIMIT} s"
            passed, failed = passed + (not why), failed + bool(why)
            print(f"{'FAIL' if why else 'PASS'} {name}{': ' + why if why else ''}", flush=True)
    print(f"disk-guest: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
