"""What the tests of disk images share: the tools under test, a flat model of a disk, counting."""
import json
import os
import pathlib
import random
import subprocess
import sys


class Tools:
    """One pair of image and I/O tools: ours, or the installed peers."""

    def __init__(self, name: str, img: list[str], io: list[str]):
        self.name, self.img_command, self.io_command = name, img, io

    def img(self, *arguments, check: bool = True) -> subprocess.CompletedProcess:
        result = subprocess.run([*self.img_command, *map(str, arguments)], capture_output=True, text=True, timeout=300)
        if check and result.returncode != 0:
            raise AssertionError(f"{self.name} img {' '.join(map(str, arguments))}: {result.returncode}\n"
                                 f"{result.stdout}{result.stderr}")
        return result

    def io(self, image, *commands: str, options=(), check: bool = True) -> str:
        arguments = [*self.io_command, *options]
        for command in commands:
            arguments += ["-c", command]
        result = subprocess.run([*arguments, str(image)], capture_output=True, text=True, timeout=300)
        text = result.stdout + result.stderr
        if check and (result.returncode != 0 or "failed" in text):
            raise AssertionError(f"{self.name} io {commands}: {result.returncode}\n{text}")
        return text

    def checked(self, image, fmt: str) -> None:
        """The image has neither errors nor leaks."""
        result = self.img("check", "-f", fmt, image, check=False)
        if result.returncode != 0:
            raise AssertionError(f"{self.name} check of {image}: {result.returncode}\n{result.stdout}{result.stderr}")

    def content(self, image, fmt: str, scratch: pathlib.Path, *more) -> bytes:
        """All bytes of the disk."""
        raw = scratch / "content.raw"
        self.img("convert", "-f", fmt, *more, "-O", "raw", image, raw)
        return raw.read_bytes()


def tools(kite: str) -> tuple[Tools, Tools | None]:
    """Ours, and the peers' when they are installed."""
    ours = Tools("kite", [kite, "img"], [kite, "io"])
    found = subprocess.run(["sh", "-c", "command -v qemu-img && command -v qemu-io"], capture_output=True)
    return ours, Tools("qemu", ["qemu-img"], ["qemu-io"]) if found.returncode == 0 else None


class Disk:
    """What the content of an image has to be."""

    def __init__(self, size: int):
        self.data = bytearray(size)
        self.snapshots: dict[str, bytes] = {}

    def write(self, offset: int, size: int, value: int) -> None:
        self.data[offset:offset + size] = bytes([value]) * size


class Counter:
    """Runs cases and prints the summary that ./check reads."""

    def __init__(self, name: str):
        self.name, self.passed, self.failed, self.skipped = name, 0, 0, 0

    def run(self, title: str, case, *arguments) -> None:
        try:
            case(*arguments)
            self.passed += 1
        except (AssertionError, subprocess.TimeoutExpired, OSError) as error:
            self.failed += 1
            print(f"FAIL {self.name} {title}: {error}", flush=True)

    def skip(self, title: str, reason: str) -> None:
        self.skipped += 1
        print(f"SKIP {self.name} {title}: {reason}")

    def finish(self) -> int:
        print(f"{self.name}: {self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed else 0


def same(left: bytes, right: bytes, what: str) -> None:
    """Fails with the first difference."""
    if left == right:
        return
    if len(left) != len(right):
        raise AssertionError(f"{what}: {len(left)} bytes, {len(right)} expected")
    at = next(i for i in range(len(left)) if left[i] != right[i])
    raise AssertionError(f"{what}: byte {at} is {left[at]}, {right[at]} expected")
