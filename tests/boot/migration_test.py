#!/usr/bin/env python3
"""Machines move while they work: a Linux guest with disks on every controller and format goes from one process to another
through sockets, files and programs, comes back from snapshots in its image, and stays where it is when the other end cannot
have it. A small guest that counts does the same on /dev/kvm with its interrupt controllers in the kernel, split and in
Kite.

usage: migration_test.py KITE GUESTS
Ends with 'migration: N passed, N failed, N skipped'.
"""
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "process"))
from disk_guest_test import build  # noqa: E402
from guest import Guest, Tally  # noqa: E402
from driven import Qmp, connect  # noqa: E402

FLAVOUR = "6.1-cloud"
E1000_FLAVOUR = "6.1"  # the cloud kernels have no driver for it
FILE = 24 << 20  # bytes of random contents that the guest keeps in memory

# name, image format, the options that make it /dev/NAME
DISKS = [
    ("vda", "qcow2", ["-device", "virtio-blk-pci,drive={node}"]),
    ("sda", "qcow2", ["-device", "ide-hd,drive={node},bus=ide.0"]),
    ("sdb", "raw", ["-device", "virtio-scsi-pci", "-device", "scsi-hd,drive={node}"]),
    ("nvme0n1", "qed", ["-device", "nvme,serial=1,drive={node}"]),
]


def monitored(guest, path):
    """The guest, with the client of its monitor."""
    guest.monitor = Qmp(connect(path))
    guest.monitor.command("qmp_capabilities")
    return guest


class Bench:
    def __init__(self, kite, guests):
        self.kite, self.guests = kite, guests

    def linux(self, folder, name, *options, memory=256, cpus=2, flavour=FLAVOUR):
        """A guest of the Debian kernel, with its monitor."""
        base = self.guests / flavour
        guest = Guest([self.kite, "-accel", "jit", "-smp", str(cpus), "-m", str(memory), "-nographic",
                       "-kernel", str(base / "vmlinuz"), "-initrd", str(base / "initrd-disks.gz"),
                       "-append", "console=ttyS0 quiet", "-qmp", f"unix:{folder}/{name}.qmp,server=on,wait=off", *options])
        return monitored(guest, f"{folder}/{name}.qmp")

    def image(self, folder, name, form):
        path = f"{folder}/{name}.{form}"
        subprocess.run([self.kite, "img", "create", "-q", "-f", form, path, "64M"], check=True)
        return path

    def check_image(self, guest, path, form):
        """Nothing is wrong with the image, and nothing has leaked."""
        if form == "raw":
            return
        done = subprocess.run([self.kite, "img", "check", "-f", form, path], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            guest.fail(f"{path}: {done.stdout}{done.stderr}")


def disk_options(folder, bench):
    options = []
    for name, form, device in DISKS:
        path = f"{folder}/{name}.{form}"
        if not os.path.exists(path):
            bench.image(folder, name, form)
        options += ["-drive", f"if=none,id=d-{name},file={path},format={form},cache=none"]
        options += [part.format(node=f"d-{name}") for part in device]
    return options


def tell_raw(guest, name, arguments=None):
    """The whole answer, errors too."""
    return guest.monitor.command(name, **(arguments or {}))


def tell(guest, name, arguments=None):
    answer = tell_raw(guest, name, arguments)
    if "error" in answer:
        guest.fail(f"{name}: {answer['error']}")
    return answer["return"]


def status(guest):
    return tell(guest, "query-status")["status"]


def outcome(guest):
    """What became of the migration, once it is over."""
    while (report := tell(guest, "query-migrate"))["status"] not in ("completed", "failed", "cancelled"):
        if time.monotonic() > guest.deadline:
            guest.hung(f"the migration does not end: {report}")
        time.sleep(0.05)
    return report


def move(guest, uri):
    tell(guest, "migrate", {"uri": uri})
    report = outcome(guest)
    if report["status"] != "completed":
        guest.fail(f"it has not moved: {report}")
    if status(guest) != "postmigrate":
        guest.fail(f"a machine that has gone is {status(guest)}")
    return report


def end(guest):
    guest.send("poweroff -f\n")
    if guest.wait_exit() != 0:
        guest.fail("the machine did not end well")


# Counts in the shell without end, keeps a file's checksum, and writes to what it is told, all at once.
WORK = (f"head -c {FILE} /dev/urandom >/tmp/kept; sha256sum /tmp/kept >/tmp/sum; "
        "(i=0; while :; do i=$((i+1)); echo $i >/tmp/n.new; mv /tmp/n.new /tmp/n; done) & "
        "(while :; do sha256sum -c -s /tmp/sum 2>/dev/null || echo broken >>/tmp/broken; done) & true")
WRITE = ("mke2fs -q /dev/{name} >/dev/null && mkdir -p /mnt/{name} && mount -t ext4 /dev/{name} /mnt/{name} && "
         "(i=0; while :; do i=$((i+1)); head -c 300000 /dev/urandom >/mnt/{name}/new && "
         "sha256sum </mnt/{name}/new >/mnt/{name}/sum.new && sync && mv /mnt/{name}/new /mnt/{name}/data && "
         "mv /mnt/{name}/sum.new /mnt/{name}/sum && [ \"$(sha256sum </mnt/{name}/data)\" = \"$(cat /mnt/{name}/sum)\" ] && "
         "echo $i >/tmp/w.{name}.new && mv /tmp/w.{name}.new /tmp/w.{name} || echo disk {name} >>/tmp/broken; done) & true")


def begin_work(guest, disks=()):
    guest.expect("kite# ")
    if disks:
        guest.run("load-disks")
    guest.run(WORK)
    for name in disks:
        guest.run(WRITE.format(name=name))
        guest.run(f"until [ -s /tmp/w.{name} ]; do sleep 0.1; done")
    return float(guest.run("until [ -s /tmp/n ]; do sleep 0.1; done; cat /proc/uptime").split()[0])


def check_work(guest, before, disks=()):
    """It goes on with what it did; nothing was lost. `before`: how long it had been up then."""
    guest.send("\n")
    guest.expect("kite# ")
    now = float(guest.run("cat /proc/uptime").split()[0])
    if not before <= now < before + 600:
        guest.fail(f"it was up {before} s, and is now {now}")
    for counter in ["n"] + [f"w.{name}" for name in disks]:
        guest.run(f"a=$(cat /tmp/{counter}); until [ $(cat /tmp/{counter}) -gt $a ]; do sleep 0.1; done")
    said = guest.run("sha256sum -c /tmp/sum; cat /tmp/broken 2>/dev/null; true")
    if "kept: OK" not in said or "broken" in said or "disk" in said:
        guest.fail(f"something was lost: {said}")
    said = guest.run("dmesg | grep -E 'I/O error|BUG|WARNING|Oops|stall|lockup|hung|timeout' | sed 's/^/kernel: /'")
    if said:
        guest.fail(f"the kernel complained: {said}")


def stop_writers(guest, disks):
    guest.run("kill $(jobs -p) 2>/dev/null; killall sh 2>/dev/null; sleep 1; " +
              "".join(f"umount /mnt/{name}; " for name in disks) + "sync")


def unix_socket(bench, folder):
    """Through a socket, with every kind of disk in use; there and back again."""
    names = [name for name, _, _ in DISKS]
    options = disk_options(folder, bench)
    with bench.linux(folder, "a", *options) as first:
        before = begin_work(first, names)
        with bench.linux(folder, "b", *options, "-incoming", f"unix:{folder}/move") as second:
            if status(second) != "inmigrate" or "error" not in tell_raw(second, "cont"):
                second.fail(f"it runs before it is there: {status(second)}")
            tell(first, "migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]})
            report = move(first, f"unix:{folder}/move")
            for wanted in ("setup", "active", "device", "completed"):
                if (said := first.monitor.event("MIGRATION")["data"]["status"]) != wanted:
                    first.fail(f"the status became {said} where it becomes {wanted}")
            if report["ram"]["total"] != 256 << 20 or report["ram"]["remaining"] != 0 or "downtime" not in report:
                first.fail(f"the report says {report}")
            check_work(second, before, names)
            # Who has gone cannot have the disks back while the other one has them.
            if "error" not in tell_raw(first, "cont"):
                first.fail("two machines have the same disks")
            tell(first, "quit")
            if first.wait_exit() != 0:
                first.fail("it did not end well")
            with bench.linux(folder, "c", *options, "-incoming", f"unix:{folder}/back") as third:
                move(second, f"unix:{folder}/back")
                tell(second, "quit")
                check_work(third, before, names)
                end(third)
    for name, form, _ in DISKS:
        bench.check_image(first, f"{folder}/{name}.{form}", form)


def tcp(bench, folder, board, card="virtio-net-pci", flavour=FLAVOUR):
    """Through TCP, to a machine that is told where to listen by its monitor."""
    options = ["-machine", board, "-netdev", "user,id=n", "-device", f"{card},netdev=n", "-vga", "std"]
    with bench.linux(folder, "a", *options, flavour=flavour) as first:
        before = begin_work(first)
        first.run("load-net")
        with bench.linux(folder, "b", *options, "-incoming", "defer", flavour=flavour) as second:
            port = free_port()
            tell(second, "migrate-incoming", {"uri": f"tcp:127.0.0.1:{port}"})
            move(first, f"tcp:127.0.0.1:{port}")
            check_work(second, before)
            second.run("ip addr | grep -q 10.0.2.15 && ping -c 1 -W 5 10.0.2.2")
            end(second)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def through_file(bench, folder, out, back):
    """Into a file; the process ends; another one goes on from there."""
    image = bench.image(folder, "disk", "qcow2")
    options = ["-drive", f"if=virtio,file={image}"]
    with bench.linux(folder, "a", *options) as first:
        before = begin_work(first, ["vda"])
        tell(first, "stop")
        move(first, out.format(file=f"{folder}/saved"))
        tell(first, "quit")
        if first.wait_exit() != 0:
            first.fail("it did not end well")
    with bench.linux(folder, "b", *options, "-S", "-incoming", back.format(file=f"{folder}/saved")) as second:
        while status(second) == "inmigrate":
            time.sleep(0.05)
        if status(second) != "paused":
            second.fail(f"-S: it is {status(second)}")
        tell(second, "cont")
        check_work(second, before, ["vda"])
        end(second)
    bench.check_image(second, image, "qcow2")


def refused(bench, folder):
    """The other end has another machine: this one goes on, with its disk, and the other one says why it ends."""
    image = bench.image(folder, "disk", "qcow2")
    options = ["-drive", f"if=virtio,file={image}"]
    with bench.linux(folder, "a", *options) as first:
        before = begin_work(first, ["vda"])
        for name, change, why in (("memory", {"memory": 192}, "same -m"), ("cpus", {"cpus": 1}, "CPUs"),
                                  ("devices", {"extra": ["-device", "virtio-scsi-pci"]}, "section")):
            extra = change.pop("extra", [])
            with bench.linux(folder, name, *options, *extra, "-incoming", f"unix:{folder}/{name}", **change) as second:
                tell(first, "migrate", {"uri": f"unix:{folder}/{name}"})
                report = outcome(first)
                if report["status"] != "failed" or "error-desc" not in report or status(first) != "running":
                    first.fail(f"{name}: {report}, {status(first)}")
                if second.wait_exit() != 1 or why not in second.tail():
                    second.fail(f"{name}: it does not say '{why}'")
        tell(first, "migrate", {"uri": f"unix:{folder}/nobody"})
        if outcome(first)["status"] != "failed":
            first.fail("it has moved to nobody")
        check_work(first, before, ["vda"])
        stop_writers(first, ["vda"])
        end(first)
    bench.check_image(first, image, "qcow2")


def cancelled(bench, folder):
    with bench.linux(folder, "a") as first:
        before = begin_work(first)
        with bench.linux(folder, "b", "-incoming", f"unix:{folder}/move") as second:
            tell(first, "migrate-set-parameters", {"max-bandwidth": 2 << 20})
            tell(first, "migrate", {"uri": f"unix:{folder}/move"})
            while (report := tell(first, "query-migrate"))["status"] != "active" or report["ram"]["transferred"] == 0:
                time.sleep(0.05)
                if report["status"] == "active":
                    break
            if "error" not in tell_raw(first, "device_add", {"driver": "virtio-scsi-pci", "id": "late"}):
                first.fail("a device came while the machine was going")
            tell(first, "migrate_cancel")
            if outcome(first)["status"] != "cancelled" or status(first) != "running":
                first.fail(f"it was not called back: {tell(first, 'query-migrate')}")
            if second.wait_exit() != 1:
                second.fail("half a machine was taken")
        check_work(first, before)
        with bench.linux(folder, "c", "-incoming", f"unix:{folder}/again") as third:
            tell(first, "migrate-set-parameters", {"max-bandwidth": 0})
            move(first, f"unix:{folder}/again")
            check_work(third, before)
            end(third)


def human(guest, line):
    return tell(guest, "human-monitor-command", {"command-line": line}).replace("\r\n", "\n")


def snapshots(bench, folder):
    """savevm, loadvm, info snapshots, delvm, -loadvm."""
    image, other = bench.image(folder, "disk", "qcow2"), bench.image(folder, "other", "qcow2")
    options = ["-drive", f"if=virtio,file={image}", "-drive", f"if=virtio,file={other}"]
    with bench.linux(folder, "a", *options) as guest:
        begin_work(guest)
        guest.run("load-disks; mke2fs -q /dev/vda >/dev/null && mkdir -p /mnt/a && mount -t ext4 /dev/vda /mnt/a && echo one >/mnt/a/word && "
                  "echo one >/tmp/word && sync")
        for line in ("savevm first", "info snapshots"):
            said = human(guest, line)
        if not re.search(r"(?m)^1 +first +[\d.]+ [MG]iB \d{4}-", said):
            guest.fail(f"info snapshots says: {said}")
        before = float(guest.run("cat /proc/uptime").split()[0])
        guest.run("echo two >/mnt/a/word; echo two >/tmp/word; sync; head -c 20000000 /dev/urandom >/mnt/a/big; sync; "
                  "rm /tmp/kept; sleep 2")
        if (said := human(guest, "loadvm first")):
            guest.fail(f"loadvm says: {said}")
        guest.send("\n")
        guest.expect("kite# ")
        if guest.run("cat /mnt/a/word /tmp/word; ls -1 /mnt/a") != "one\none\nlost+found\nword":
            guest.fail("it is not what it was")
        if not float(guest.run("cat /proc/uptime").split()[0]) < before + 2:
            guest.fail("its time has not gone back")
        check_work(guest, 0)
        guest.run("echo three >/tmp/word")
        human(guest, 'savevm "second"')
        if "no snapshot" not in human(guest, "delvm nix") or "'nix'" not in human(guest, "loadvm nix"):
            guest.fail("what is not there was deleted or gone back to")
        human(guest, "savevm first")  # replaces it
        human(guest, "delvm first")
        if re.findall(r"(?m)^\d+ +(\w+)", human(guest, "info snapshots")) != ["second"]:
            guest.fail(human(guest, "info snapshots"))
        tell(guest, "quit")
        guest.wait_exit()
    for path in (image, other):
        bench.check_image(guest, path, "qcow2")
    with bench.linux(folder, "b", *options, "-loadvm", "second") as guest:
        guest.send("\n")
        guest.expect("kite# ")
        if guest.run("cat /tmp/word") != "three":
            guest.fail("-loadvm gives something else")
        check_work(guest, 0)
        end(guest)
    raw = bench.image(folder, "plain", "raw")
    with bench.linux(folder, "c", "-drive", f"if=virtio,format=raw,file={raw}") as guest:
        if "does not support snapshots" not in human(guest, "savevm x"):
            guest.fail("a raw image holds a snapshot")


def counting(bench, folder, accelerator):
    """The small guest: its numbers go on without a gap, whatever has its interrupt controllers."""
    build("tick.S", f"{folder}/tick.elf", "-Wl,-Ttext=0x100000,-N")
    base = [bench.kite, "-accel", accelerator, "-cpu", "host", "-m", "16", "-nodefaults", "-display", "none", "-serial", "stdio", "-kernel",
            f"{folder}/tick.elf"]

    def start(name, *more):
        guest = Guest([*base, "-qmp", f"unix:{folder}/{name}.qmp,server=on,wait=off", *more], limit=200)
        return monitored(guest, f"{folder}/{name}.qmp")

    def number(guest):
        return int(guest.expect("\n").strip())

    def count(guest, last, more):
        for _ in range(more):
            if (now := number(guest)) != last + 1:
                guest.fail(f"{now} follows {last}")
            last = now
        return last

    with start("a") as first:
        last = count(first, 0, 5)
        move(first, f"file:{folder}/saved")
        while b"\n" in first.console[first.seen:] or first._read() and b"\n" in first.console[first.seen:]:
            last = count(first, last, 1)  # what it said before it went
        part = first.console[first.seen:].decode()
        tell(first, "quit")
        first.wait_exit()
    with start("b", "-incoming", f"file:{folder}/saved") as second:
        rest = second.expect("\n").strip()
        if int(part + rest) != last + 1:
            second.fail(f"'{part}{rest}' follows {last}")
        last = count(second, last + 1, 5)
        tell(second, "system_reset")
        second.monitor.event("RESET")
        while second.expect("\n").strip() != "2":  # the first may stand behind half a line from before
            pass
        count(second, 2, 2)


def main():
    bench = Bench(os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2]).absolute())
    tally = Tally("migration")
    cases = [("unix socket, all disks, there and back", unix_socket, ()),
             ("tcp, pc", tcp, ("pc",)), ("tcp, q35", tcp, ("q35",)),
             ("tcp, e1000", tcp, ("pc", "e1000", E1000_FLAVOUR)),
             ("a file", through_file, ("file:{file}", "file:{file}")),
             ("programs", through_file, ("exec:gzip -1 >{file}", "exec:gzip -d <{file}")),
             ("refused", refused, ()), ("called back", cancelled, ()), ("snapshots", snapshots, ()),
             ("a guest that counts, jit", counting, ("jit",))]
    cases += [(f"a guest that counts, kvm irqchip {chip}", counting, (f"kvm,kernel-irqchip={chip}",))
              for chip in ("on", "split", "off")]
    for name, action, arguments in cases:
        flavour = E1000_FLAVOUR if E1000_FLAVOUR in arguments else FLAVOUR
        if action is not counting and not (bench.guests / flavour / "initrd-disks.gz").exists():
            tally.skip(name, f"there is no kernel {flavour}; tools/get_kernel.sh fetches it")
            continue
        if "kvm" in name and not os.access("/dev/kvm", os.R_OK | os.W_OK):
            tally.skip(name, "there is no /dev/kvm that this user may open")
            continue
        with tempfile.TemporaryDirectory() as folder:
            tally.run(name, action, bench, folder, *arguments)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
