#!/usr/bin/env python3
"""A guest of ours reads and writes a virtio-blk disk: on the software CPU, and on /dev/kvm with its interrupt
controllers in the kernel, split and in Kite, with and without ioeventfd; and where the kernel offers no io_uring.

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

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "kvm/guests/virtio_disk.S"
MAGIC, TIMES = 0x6B697465, 16
GOOD_STATUS = 3  # 1 written to isa-debug-exit
LIMIT = 120  # seconds that end a hung guest

CASES = [("jit", ["-accel", "jit"], "on"), ("jit without doorbells", ["-accel", "jit"], "off")]
CASES += [(f"kvm irqchip {chip} ioeventfd {bells}", ["-accel", f"kvm,kernel-irqchip={chip}"], bells)
          for chip in ("on", "split", "off") for bells in ("on", "off")]


def run(kite, kernel, folder, arguments, bells, start=None):
    """Why the guest failed, or ""; `start` prepares Kite's process."""
    image = os.path.join(folder, "disk.raw")
    words = [MAGIC + at for at in range(128)]
    with open(image, "wb") as file:
        file.write(struct.pack("<128I", *words) + bytes(64 * 512))
    done = subprocess.run([kite, *arguments, "-nodefaults", "-display", "none", "-serial", "none", "-m", "16", "-device",
                           "isa-debug-exit,iobase=0xf4,iosize=1", "-kernel", kernel, "-drive",
                           f"if=none,id=d,format=raw,file={image}", "-device",
                           f"virtio-blk-pci,drive=d,ioeventfd={bells}"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT, check=False, text=True, preexec_fn=start)
    if done.returncode != GOOD_STATUS:
        return f"status {done.returncode}: {done.stdout}"
    with open(image, "rb") as file:
        file.seek(512)
        written = list(struct.unpack("<128I", file.read(512)))
    return "" if written == [word + 1 for word in words] else "sector 1 holds something else"


def no_uring_guest(kite, kernel, folder):
    return run(kite, kernel, folder, ["-accel", "jit"], "on", refuse(IO_URING_SETUP))


def no_uring_tool(kite, _, folder):
    """The tool's asynchronous requests go through threads instead."""
    image = os.path.join(folder, "tool.raw")
    with open(image, "wb") as file:
        file.truncate(1 << 20)
    command = [kite, "io", "-n", "-f", "raw", "-c", "aio_write -P 7 4096 8192", "-c", "aio_flush", "-c", "read -P 7 4096 8192", image]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT, check=False, text=True,
                          preexec_fn=refuse(IO_URING_SETUP))
    return "" if done.returncode == 0 and "read 8192/8192" in done.stdout and "failed" not in done.stdout else done.stdout


def no_uring_by_name(kite, _, folder):
    """Who asks for io_uring by name is told what to ask for instead, by the tool and by the machine."""
    image = os.path.join(folder, "named.raw")
    with open(image, "wb") as file:
        file.truncate(1 << 20)
    for command in ([kite, "io", "-i", "io_uring", "-f", "raw", "-c", "read 0 512", image],
                    [kite, "-display", "none", "-drive", f"if=ide,format=raw,aio=io_uring,file={image}"]):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT,
                              check=False, text=True, preexec_fn=refuse(IO_URING_SETUP))
        if done.returncode != 1 or "io_uring" not in done.stdout or "aio=threads" not in done.stdout:
            return f"status {done.returncode}: {done.stdout}"
    return ""


def main():
    kite = os.path.abspath(sys.argv[1])
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        kernel = os.path.join(folder, "guest.elf")
        subprocess.run(["clang-19", "-m32", "-nostdlib", "-static", "-fuse-ld=bfd", "-Wl,-Ttext=0x100000,-N,--build-id=none,--no-warn-rwx-segments",
                        str(SOURCE), "-o", kernel], check=True)
        cases = [(name, lambda *where, a=arguments, b=bells: run(*where, a, b)) for name, arguments, bells in CASES]
        cases += [("jit without io_uring", no_uring_guest), ("tool without io_uring", no_uring_tool),
                  ("io_uring by name where there is none", no_uring_by_name)]
        for name, case in cases:
            if "kvm" in name and not os.access("/dev/kvm", os.R_OK | os.W_OK):
                print(f"SKIP {name}: there is no /dev/kvm that this user may open")
                skipped += 1
                continue
            try:
                why = case(kite, kernel, folder)
            except subprocess.TimeoutExpired:
                why = f"the guest did not end within {LIMIT} s"
            passed, failed = passed + (not why), failed + bool(why)
            print(f"{'FAIL' if why else 'PASS'} {name}{': ' + why if why else ''}", flush=True)
    print(f"disk-guest: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
