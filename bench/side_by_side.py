"""What the guest benchmarks share: running a case list on the host, in Kite and in QEMU, and the table.

A program under test prints, one line a case:  case NAME CLASS MICROSECONDS CHECKSUM   (or ... skipped FLAG).
"""
import gzip
import math
import os
import pathlib
import statistics
import subprocess
import sys

CLASSES = ("alu", "integer", "vector", "system")


def pack(tree, path, level=1):
    """Makes an initrd of a directory."""
    names = subprocess.run(["find", ".", "-print0"], cwd=tree, check=True, stdout=subprocess.PIPE).stdout
    archive = subprocess.run(["cpio", "--quiet", "--null", "--create", "--format=newc", "--owner=0:0"], cwd=tree,
                             input=names, check=True, stdout=subprocess.PIPE).stdout
    pathlib.Path(path).write_bytes(gzip.compress(archive, level))
    return path


def add_arguments(parser, memory):
    parser.add_argument("--kite", default="build/release/kite")
    parser.add_argument("--guests", default="build/guests")
    parser.add_argument("--kernel", default="6.1-cloud")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--accel", default="jit")
    parser.add_argument("--cpu", default="max")
    parser.add_argument("--smp", default="1")
    parser.add_argument("--memory", default=memory)
    parser.add_argument("--limit", type=int, default=900, help="seconds for one machine")
    parser.add_argument("--no-qemu", action="store_true")


def results(command, limit, inside_guest):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=limit, check=False)
    text = done.stdout.decode(errors="replace")
    if inside_guest and "bench: done" not in text:
        sys.exit(f"{command[0]} did not finish:\n{text[-3000:]}")
    found = {}
    for line in text.splitlines():
        words = line.strip().split()
        if len(words) == 5 and words[0] == "case" and words[3] != "skipped":
            found[words[1]] = (words[2], float(words[3]) / 1000, words[4])
    return found


def medians(runs):
    return {name: (runs[0][name][0], statistics.median(run[name][1] for run in runs), runs[0][name][2])
            for name in runs[0]}


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def commands(options, initrd):
    """How Kite and QEMU are started with the same machine."""
    machine = ["-m", options.memory, "-smp", options.smp, "-cpu", options.cpu, "-nographic", "-no-reboot", "-kernel",
               os.path.join(options.guests, options.kernel, "vmlinuz"), "-initrd", initrd, "-append",
               "console=ttyS0 quiet"]
    return {"kite": [options.kite, "-accel", options.accel, *machine],
            "qemu": ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-serial", "mon:stdio", *machine]}


def compare(options, initrd, host_command):
    """Runs host, Kite and QEMU turn by turn and prints the table."""
    command = commands(options, initrd)
    runs = {"host": [], "kite": [], "qemu": []}
    for _ in range(options.rounds):
        runs["host"].append(results(host_command, options.limit, False))
        runs["kite"].append(results(command["kite"], options.limit, True))
        if not options.no_qemu:
            runs["qemu"].append(results(command["qemu"], options.limit, True))
    report({name: medians(run) for name, run in runs.items() if run})


def report(found):
    host, kite, qemu = found["host"], found["kite"], found.get("qemu", {})
    wrong = [name for side in (kite, qemu) for name in side if name in host and side[name][2] != host[name][2]]
    faster = {kind: [] for kind in CLASSES}
    slower = {kind: [] for kind in CLASSES}
    print(f"{'case':<16} {'class':<8} {'host ms':>9} {'kite ms':>9} {'qemu ms':>9} {'kite/host':>9} {'qemu/kite':>9}")
    for name, (kind, time, _) in kite.items():
        host_time = host[name][1] if name in host else math.nan
        qemu_time = qemu[name][1] if name in qemu else math.nan
        if not math.isnan(qemu_time):
            faster[kind].append(qemu_time / time)
        if not math.isnan(host_time):
            slower[kind].append(time / host_time)
        print(f"{name:<16} {kind:<8} {host_time:>9.1f} {time:>9.1f} {qemu_time:>9.1f} {time / host_time:>9.2f} "
              f"{qemu_time / time:>9.2f}")
    for kind in CLASSES:
        if slower[kind]:
            print(f"mean {kind:<30} {'':>19} {mean(slower[kind]):>9.2f} {mean(faster[kind]):>9.2f}")
    everything = [value for kind in CLASSES for value in slower[kind]]
    ratios = [value for kind in CLASSES for value in faster[kind]]
    print(f"mean {'all':<30} {'':>19} {mean(everything):>9.2f} {mean(ratios):>9.2f}")
    for name in host:
        if name not in kite or (qemu and name not in qemu):
            print(f"not on every side: {name} (kite: {name in kite}, qemu: {name in qemu})")
    if wrong:
        sys.exit(f"wrong checksums: {' '.join(sorted(set(wrong)))}")
