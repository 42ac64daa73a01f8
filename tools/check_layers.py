#!/usr/bin/env python3
"""Holds the includes under src/ to the layering of docs/architecture.md.

Each room lists the rooms it may include. Exit status 1 names every include that breaks the rule.
"""
import pathlib
import re
import sys

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "src"

# room: rooms whose headers it may include (itself apart)
ALLOWED = {
    "support": "",
    "metrics": "support",
    "async": "support metrics",
    "memory": "support metrics",
    "x86": "support",
    "object": "support",
    "state": "support",
    "accel": "support metrics memory x86 async",
    "cpu": "support metrics async accel memory x86",
    "accel/jit": "support metrics async accel cpu memory x86",
    "accel/kvm": "support metrics async accel cpu memory x86",
    "accel/qtest": "support metrics async accel memory x86",
    "bus": "support metrics memory async object state",
    "block": "support metrics async object",
    "img": "support metrics async object block",
    "tls": "support metrics async object",
    "chardev": "support metrics async object tls",
    "display": "support metrics async object tls",
    "net": "support metrics async object chardev",
    "entropy": "support metrics async object",
    "devices": "support metrics async memory object state bus chardev block display net entropy x86",
    "boot": "support memory x86",
    "snapshot": "support metrics async memory state chardev",
    "machine": "support metrics async memory x86 object state accel accel/jit accel/kvm accel/qtest bus chardev block display net entropy devices boot snapshot",
    "monitor": "support metrics async memory x86 object state accel bus chardev block display net entropy devices snapshot machine",
    "gdb": "support metrics async memory x86 object accel chardev machine monitor",
    "main": "img support metrics async memory x86 object state accel bus tls chardev block display net entropy devices boot snapshot machine monitor gdb",
}
# Single headers that a room may see although their room is closed to it.
EXTRA = {"devices": {"accel/local_apic.h"}, "main": {"accel/kvm/kvm_accelerator.h", "accel/kvm/kvm_system.h"}}
BANNED_NAMES = re.compile(r"^(utils?|common|base|misc|helpers?)$")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def room_of(path: str) -> str:
    """The room of a path relative to src/."""
    parts = path.split("/")
    if parts[0] == "accel" and len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0]


def main() -> int:
    faults = []
    for file in sorted(SOURCE.rglob("*")):
        if file.suffix not in (".h", ".cc"):
            continue
        relative = file.relative_to(SOURCE).as_posix()
        room = room_of(relative)
        if any(BANNED_NAMES.match(part) for part in (*file.relative_to(SOURCE).parent.parts, file.stem)):
            faults.append(f"{relative}: nothing is called util, common or base")
        if room not in ALLOWED:
            faults.append(f"{relative}: room '{room}' is not in the plan")
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match.group(1)
            other = room_of(target)
            if other == room or other in ALLOWED[room].split() or target in EXTRA.get(room, ()):
                continue
            faults.append(f"{relative}:{number}: {room} may not include {target}")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
