#!/usr/bin/env python3
"""Runs QEMU's image tests (tests/qemu-iotests of its source tree) with our image and I/O tools.

usage: iotests.py [--named] KITE DIRECTORY [FORMAT [TEST...]]
DIRECTORY is qemu-iotests. The other programs that its `check` wants are the installed ones. Without tests, those of the quick group
that need only the two tools are run, for raw, qcow2 and qed; with --named instead all of 001 to 040 that need no more, quick or not:
14 for raw, 34 for qcow2, 23 for qed. The last line is 'iotests: N passed, N failed, N skipped'.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

NEEDS_MORE = re.compile(r"_launch_|launch_qemu|QMP|iotests\.VM|import iotests|_send_qemu_cmd|qemu_comm|QEMU_NBD|run_qemu|\$QEMU\b|QEMU_PROG|QSD|"
                        r"common\.nbd|\$\{?QEMU_STGD")


LAST_NAMED = "040"


def selected(directory: pathlib.Path, fmt: str, named: bool) -> list[str]:
    """The tests for a format over plain files: the first forty, or the quick ones."""
    names = []
    for path in sorted(directory.glob("[0-9][0-9][0-9]")):
        text = path.read_text(errors="replace")

        def words(what: str, text: str = text) -> list[str]:
            found = re.search(rf"^{what} (.*)$", text, re.M)
            return found.group(1).split() if found else []

        formats, protocols = words("_supported_fmt"), words("_supported_proto") or ["file"]
        if (path.name <= LAST_NAMED if named else "quick" in words("# group:")) and not NEEDS_MORE.search(text) and {"file", "generic"} & set(protocols) and \
                {fmt, "generic"} & set(formats) and fmt not in words("_unsupported_fmt"):
            names.append(path.name)
    return names


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--named"]
    named = len(arguments) != len(sys.argv) - 1
    kite, directory = pathlib.Path(arguments[0]).resolve(), pathlib.Path(arguments[1])
    formats = arguments[2:3] or ["raw", "qcow2", "qed"]
    counts = {"pass": 0, "fail": 0, "not run": 0}
    with tempfile.TemporaryDirectory(prefix="kite-iotests-") as name:
        for tool in ("qemu-img", "qemu-io"):
            (pathlib.Path(name) / tool).symlink_to(kite)
        environment = dict(os.environ, QEMU_IMG_PROG=f"{name}/qemu-img", QEMU_IO_PROG=f"{name}/qemu-io", TEST_DIR=f"{name}/scratch")
        for variable, program in (("QEMU_PROG", "qemu-system-x86_64"), ("QEMU_NBD_PROG", "qemu-nbd"), ("QSD_PROG", "qemu-storage-daemon")):
            found = shutil.which(program)
            if found is None:
                print(f"iotests: {program} is not installed\niotests: 0 passed, 0 failed, 1 skipped")
                return 0
            environment[variable] = found
        for fmt in formats:
            for test in arguments[3:] or selected(directory, fmt, named):
                shutil.rmtree(f"{name}/scratch", ignore_errors=True)
                os.mkdir(f"{name}/scratch")
                result = subprocess.run(["./check", f"-{fmt}", test], cwd=directory, env=environment, capture_output=True, text=True,
                                        errors="replace", timeout=300)
                match = re.search(rf"^{test} +(pass|fail|not run)", result.stdout.replace("\r", "\n"), re.M) or \
                    re.search(r"\s(pass|fail|not run)\s", result.stdout)
                outcome = match.group(1) if match else "fail"
                counts[outcome] += 1
                if outcome != "pass":
                    print(f"{fmt} {test}: {outcome}", flush=True)
    print(f"iotests: {counts['pass']} passed, {counts['fail']} failed, {counts['not run']} skipped")
    return 1 if counts["fail"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
