#!/usr/bin/env python3
"""Runs QEMU's qtests, from a build directory of theirs, on Kite, one subtest a process.

usage: qtest.py KITE DIR [--only TEST]... [--verbose]
Ends with 'qtest: N passed, N failed, N skipped'.
"""
import os
import subprocess
import sys
import tempfile

TESTS = ["machine-none-test", "rtc-test", "i440fx-test", "fw_cfg-test", "endianness-test", "boot-order-test",
         "boot-serial-test", "q35-test", "lpc-ich9-test", "tco-test", "ioh3420-test", "i82801b11-test", "fuzz-virtio-scsi-test",
         "drive_del-test", "hd-geo-test", "fdc-test", "ide-test", "ahci-test", "cdrom-test", "qos-test"]
# Subtests with one of these words in their path need what Kite does not have yet: migration.
WAITING = ["/ahci/migrate/", "/ahci/flush/migrate"]
# Of qos-test's subtests, those with one of these words in their path: the devices that exist.
QOS = ["/virtio-blk-pci/", "/nvme/", "/virtio-scsi-pci/"]
# Not those that need what is not there: I/O threads as objects.
NOT_QOS = ["/iothread-"]
# Subtests that go on where another one ends: that one is run before, in the same process.
AFTER = {"/fdc/read_no_dma_": "/fdc/media_insert"}


def subtests(program, environment):
    listing = subprocess.run([program, "-l"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             check=False, timeout=120)
    paths = [line for line in listing.stdout.decode().splitlines() if line.startswith("/")]
    if not program.endswith("/qos-test"):
        return paths
    return [path for path in paths if any(word in path for word in QOS)
            and not any(word in path for word in NOT_QOS)]


def selection(path, paths):
    """The arguments that run `path`, and what it goes on from."""
    before = [other for word, first in AFTER.items() if word in path for other in paths if other.endswith(first)]
    return [argument for one in before + [path] for argument in ("-p", one)]


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    only = {sys.argv[at + 1] for at, word in enumerate(sys.argv) if word == "--only"}
    kite, directory = [word for word in words if word not in only][:2]
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as scratch:
        # The harness reads the target from the binary's name.
        link = os.path.join(scratch, "kite-system-x86_64")
        os.symlink(os.path.abspath(kite), link)
        # The harness resolves links of this one, and with them the name that makes it the image tool.
        images = os.path.join(scratch, "kite-img")
        with open(images, "w", encoding="utf-8") as script:
            script.write(f'#!/bin/sh\nexec "{os.path.abspath(kite)}" img "$@"\n')
        os.chmod(images, 0o755)
        environment = dict(os.environ, QTEST_QEMU_BINARY=link, QTEST_QEMU_IMG=images)
        for test in TESTS:
            program = os.path.join(directory, "tests/qtest", test)
            if only and test not in only:
                continue
            if not os.path.exists(program):
                print(f"SKIP {test}: it is not in the build directory")
                skipped += 1
                continue
            paths = subtests(program, environment)
            if not paths:
                print(f"SKIP {test}: it lists no subtests here (cdrom-test wants genisoimage)")
                skipped += 1
            for path in paths:
                if any(word in path for word in WAITING):
                    print(f"SKIP {test} {path}: it needs migration")
                    skipped += 1
                    continue
                try:
                    done = subprocess.run([program, *selection(path, paths)], env=environment, stdout=subprocess.PIPE,
                                          stderr=subprocess.STDOUT, timeout=300, check=False)
                    status, output = done.returncode, done.stdout.decode(errors="replace")
                except subprocess.TimeoutExpired as error:
                    status, output = "time-out", (error.stdout or b"").decode(errors="replace")
                good = status == 0 and "ok 1" in output and "not ok" not in output
                passed, failed = passed + good, failed + (not good)
                print(f"{'PASS' if good else 'FAIL'} {test} {path}", flush=True)
                if not good or "--verbose" in sys.argv:
                    print("\n".join("    " + line for line in output.splitlines()[-15:]))
    print(f"qtest: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
