#!/usr/bin/env python3
"""Snapshots outside of an image and block jobs, as a client of QMP sees them: the disk of a machine gets overlays, is
committed, streamed and copied while it is written to. Afterwards qemu-img (or kite img where there is none) compares and
checks the images.

usage: block_jobs_test.py KITE
Ends with 'block-jobs: N passed, N failed, N skipped'.
"""
import os
import shutil
import subprocess
import sys
import tempfile

import driven
from driven import Machine, check

MIB = 1 << 20
SIZE = 16 * MIB


class Disks:
    """Images of a test, and a machine that has the last of `names`, each over the one before, as the drive "d"."""

    def __init__(self, *names):
        self.folder = tempfile.TemporaryDirectory()
        self.number = 0
        names = names or ("base.qcow2",)
        self.create(names[0])
        for below, name in zip(names, names[1:]):
            self.img("create", "-q", "-f", "qcow2", "-b", self.path(below), "-F", "qcow2", self.path(name))
        self.machine = Machine("-drive", f"if=none,id=d,file={self.path(names[-1])},format=qcow2,"
                               f"node-name={names[-1].split('.')[0]}", "-device", "virtio-blk-pci,drive=d", qtest=True)
        self.qmp = self.machine.qmp

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.machine.__exit__()
        self.folder.cleanup()

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def img(self, *words):
        tool = ["qemu-img"] if shutil.which("qemu-img") else [driven.KITE, "img"]
        done = subprocess.run([*tool, *words], capture_output=True, text=True, timeout=driven.LIMIT, check=False)
        check(done.returncode == 0, f"img {' '.join(words)}: {done.stdout} {done.stderr}")
        return done.stdout

    def create(self, name, form="qcow2"):
        self.img("create", "-q", "-f", form, self.path(name), str(SIZE))
        return self.path(name)

    def do(self, name, /, **arguments):
        answer = self.qmp.command(name, **arguments)
        check("return" in answer, answer)
        return answer["return"]

    def refused(self, name, /, **arguments):
        answer = self.qmp.command(name, **arguments)
        check("error" in answer, answer)
        return answer["error"]["desc"]

    def write(self, pattern, offset, size):
        said = self.do("human-monitor-command", **{"command-line": f'qemu-io d "write -P {pattern} {offset} {size}"'})
        check("wrote" in said, said)

    def read(self, pattern, offset, size):
        said = self.do("human-monitor-command", **{"command-line": f'qemu-io d "read -P {pattern} {offset} {size}"'})
        check("read" in said and "Pattern verification failed" not in said, said)

    def fill(self):
        """Writes something else each time."""
        self.number += 1
        self.write(self.number, self.number * MIB // 2, MIB)
        return self.number

    def holds(self):
        """What the disk holds when fill() was all that wrote to it."""
        content = bytearray(SIZE)
        for number in range(1, self.number + 1):
            content[number * MIB // 2:number * MIB // 2 + MIB] = bytes([number]) * MIB
        return content

    def content(self, name):
        self.img("convert", "-O", "raw", self.path(name), self.path("content.raw"))
        with open(self.path("content.raw"), "rb") as file:
            return file.read()

    def target(self, name, *words):
        """A new image as a node of its name."""
        self.img("create", "-q", "-f", "qcow2", *words, self.path(name), str(SIZE))
        node = name.split(".")[0]
        self.do("blockdev-add", driver="qcow2", file={"driver": "file", "filename": self.path(name)},
                **{"node-name": node})
        return node

    def verify(self):
        for number in range(1, self.number + 1):
            self.read(number, number * MIB // 2, MIB // 2)

    def snapshot(self, name):
        self.do("blockdev-snapshot-sync", device="d", **{"snapshot-file": self.path(name), "snapshot-node-name":
                                                         name.split(".")[0]})

    def top(self):
        return self.do("query-block")[0]["inserted"]

    def ended(self, job, error=None):
        """Waits for the end of a block job."""
        event = self.qmp.event("BLOCK_JOB_COMPLETED")["data"]
        check(event["device"] == job and event.get("error") == error, event)

    def close(self):
        self.machine.qmp.command("quit")
        check(self.machine.end() == 0, "the machine did not end well")


def overlays():
    with Disks() as disks:
        disks.fill()
        disks.snapshot("one.qcow2")
        disks.fill()
        check("in use" in disks.refused("blockdev-snapshot", node="base", overlay="one"), "an overlay twice")
        for driver in ({"driver": "file", "filename": disks.path("two.qcow2"), "size": 0},
                       {"driver": "qcow2", "file": "two-file", "size": SIZE, "backing-file": disks.path("one.qcow2"),
                        "backing-fmt": "qcow2"}):
            disks.do("blockdev-create", **{"job-id": "make", "options": driver})
            while disks.qmp.event("JOB_STATUS_CHANGE")["data"]["status"] != "concluded":
                pass
            job = disks.do("query-jobs")[0]
            check(job["type"] == "create" and "error" not in job, job)
            disks.do("job-dismiss", id="make")
            if driver["driver"] == "file":
                disks.do("blockdev-add", driver="file", **{"node-name": "two-file", "filename": driver["filename"]})
        disks.do("blockdev-add", driver="qcow2", file="two-file", backing=None, **{"node-name": "two"})
        over = {"type": "blockdev-snapshot", "data": {"node": "one", "overlay": "two"}}
        check("Abort" in disks.refused("transaction", actions=[over, {"type": "abort", "data": {}}]), "abort")
        check(disks.top()["node-name"] == "one", disks.top())
        wrong = disks.refused("transaction", actions=[{"type": "blockdev-snapshots", "data": {}}])
        check("blockdev-snapshot" in wrong, wrong)
        disks.do("transaction", actions=[over])
        disks.fill()
        top = disks.top()
        check(top["node-name"] == "two" and top["backing_file_depth"] == 2, top)
        check(top["image"]["backing-image"]["backing-image"]["filename"] == disks.path("base.qcow2"), top)
        disks.verify()
        disks.close()
        check("qcow2" in disks.img("info", "--backing-chain", disks.path("two.qcow2")), "the chain")
        for name in ("base", "one", "two"):
            disks.img("check", "-q", disks.path(f"{name}.qcow2"))


def chain(disks):
    disks.fill()
    for name in ("one.qcow2", "two.qcow2", "three.qcow2"):
        disks.snapshot(name)
        disks.fill()


def commit_active():
    with Disks() as disks:
        chain(disks)
        disks.do("block-commit", device="d", **{"job-id": "c", "base-node": "base", "speed": MIB // 4})
        disks.fill()
        check("block job" in disks.refused("block_resize", device="d", size=SIZE * 2), "a resize meanwhile")
        check("block job" in disks.refused("migrate", uri="exec:cat >/dev/null"), "a migration meanwhile")
        said = disks.do("human-monitor-command", **{"command-line": "savevm x"})
        check("block job" in said, f"savevm meanwhile: {said}")
        job = disks.do("query-block-jobs")[0]
        check(job["type"] == "commit" and job["device"] == "c" and job["status"] == "running", job)
        check("Type commit, device c" in disks.do("human-monitor-command", **{"command-line": "info block-jobs"}), "info")
        disks.do("block-job-set-speed", device="c", speed=0)
        disks.qmp.event("BLOCK_JOB_READY")
        disks.fill()
        check(disks.top()["node-name"] == "three", disks.top())
        disks.do("block-job-complete", device="c")
        disks.ended("c")
        check(disks.top()["node-name"] == "base", disks.top())
        disks.fill()
        disks.verify()
        disks.close()
        disks.img("check", "-q", disks.path("base.qcow2"))


def commit_between():
    with Disks() as disks:
        chain(disks)
        disks.do("block-commit", device="d", top=disks.path("two.qcow2"), base=disks.path("base.qcow2"))
        disks.fill()
        disks.ended("d")
        disks.verify()
        disks.close()
        check(f"backing file: {disks.path('base.qcow2')}" in disks.img("info", disks.path("three.qcow2")), "its name")
        disks.img("check", "-q", disks.path("three.qcow2"))


def commit_what_was_there():
    """Backing files that were opened for reading alone are written to, and only as long as that takes."""
    with Disks("base.qcow2", "middle.qcow2", "top.qcow2") as disks:
        disks.fill()
        disks.do("block-commit", device="d", top=disks.path("middle.qcow2"))
        disks.ended("d")
        check(disks.top()["backing_file"] == disks.path("base.qcow2"), disks.top())
        disks.img("info", disks.path("base.qcow2"))  # nobody writes to it, so it can be looked at
        disks.do("block-commit", device="d")
        disks.qmp.event("BLOCK_JOB_READY")
        disks.fill()
        disks.do("block-job-complete", device="d")
        disks.ended("d")
        check(disks.top()["file"] == disks.path("base.qcow2"), disks.top())
        disks.verify()
        disks.close()
        disks.img("check", "-q", disks.path("base.qcow2"))


def stream():
    with Disks() as disks:
        chain(disks)
        disks.do("block-stream", device="d", base=disks.path("one.qcow2"))
        disks.fill()
        disks.ended("d")
        check(disks.top()["backing_file"] == disks.path("one.qcow2"), disks.top())
        disks.do("block-stream", device="d", **{"job-id": "s"})
        disks.ended("s")
        check("backing_file" not in disks.top(), disks.top())
        disks.verify()
        disks.close()
        check("backing file" not in disks.img("info", disks.path("three.qcow2")), "a backing file")
        disks.img("check", "-q", disks.path("three.qcow2"))


def mirror(mode):
    with Disks() as disks:
        chain(disks)
        disks.create("copy.raw", "raw")
        disks.do("blockdev-add", driver="raw", file={"driver": "file", "filename": disks.path("copy.raw")},
                 **{"node-name": "copy"})
        disks.do("blockdev-mirror", device="d", target="copy", sync="full", **{"job-id": "m", "copy-mode": mode})
        disks.fill()
        disks.qmp.event("BLOCK_JOB_READY")
        disks.fill()
        check("in use" in disks.refused("blockdev-del", **{"node-name": "copy"}), "the target goes")
        # The copy of this moment; the machine stays with its disk.
        disks.do("block-job-cancel", device="m")
        disks.ended("m")
        before = shutil.copy(disks.path("copy.raw"), disks.path("before.raw"))
        disks.fill()
        check(open(before, "rb").read() == open(disks.path("copy.raw"), "rb").read(), "written to afterwards")
        disks.do("blockdev-mirror", device="d", target="copy", sync="full", **{"job-id": "m", "copy-mode": mode})
        disks.qmp.event("BLOCK_JOB_READY")
        disks.fill()
        disks.do("job-complete", id="m")
        disks.ended("m")
        check(disks.top()["node-name"] == "copy", disks.top())
        disks.verify()
        disks.close()
        for number in range(1, disks.number):
            with open(disks.path("copy.raw"), "rb") as file:
                file.seek(number * MIB // 2)
                check(file.read(MIB // 2) == bytes([number]) * (MIB // 2), f"{number} is not in the copy")


def drive_mirror():
    with Disks() as disks:
        chain(disks)
        for name, sync in (("full.qcow2", "full"), ("top.qcow2", "top")):
            if sync == "top":
                disks.snapshot("over.qcow2")
                disks.fill()
            disks.do("drive-mirror", device="d", target=disks.path(name), sync=sync, format="qcow2")
            disks.qmp.event("BLOCK_JOB_READY")
            disks.fill()
            disks.do("block-job-complete", device="d")
            disks.ended("d")
            check(disks.top()["file"] == disks.path(name), disks.top())
            disks.verify()
        check(disks.top()["backing_file"] == disks.path("full.qcow2"), disks.top())
        disks.close()
        for name in ("full.qcow2", "top.qcow2"):
            disks.img("check", "-q", disks.path(name))


def backup():
    """Copies of a moment while the disk is written to: of all, and then of what a bitmap says has changed."""
    with Disks() as disks:
        chain(disks)
        first = disks.holds()
        full = disks.target("full.qcow2")
        job = {"job-id": "b", "device": "d", "target": full, "sync": "full", "speed": MIB // 4, "auto-finalize": False}
        bitmap = {"node": "d", "name": "since", "persistent": True}
        check("Abort" in disks.refused("transaction", actions=[
            {"type": "block-dirty-bitmap-add", "data": bitmap}, {"type": "blockdev-backup", "data": job},
            {"type": "abort", "data": {}}]), "abort")
        check("dirty-bitmaps" not in disks.top() and not disks.do("query-jobs"), "something is left")
        disks.do("transaction", actions=[{"type": "block-dirty-bitmap-add", "data": bitmap},
                                         {"type": "blockdev-backup", "data": job}])
        for _ in range(4):
            disks.fill()
        check("block job" in disks.refused("block_resize", device="d", size=SIZE * 2), "a resize meanwhile")
        disks.do("block-job-set-speed", device="b", speed=0)
        disks.qmp.event("BLOCK_JOB_PENDING")
        disks.fill()
        disks.do("job-finalize", id="b")
        disks.ended("b")
        disks.do("blockdev-del", **{"node-name": full})
        second = disks.holds()
        state = disks.top()["dirty-bitmaps"]
        check(len(state) == 1 and state[0]["count"] == 3 * MIB and state[0]["persistent"], state)
        some = disks.target("some.qcow2", "-b", disks.path("full.qcow2"), "-F", "qcow2")
        disks.do("blockdev-backup", device="d", target=some, sync="incremental", bitmap="since", speed=MIB // 4,
                 **{"job-id": "b"})
        check(disks.top()["dirty-bitmaps"][0]["busy"], "the bitmap is free")
        disks.fill()
        disks.do("block-job-set-speed", device="b", speed=0)
        disks.ended("b")
        disks.do("drive-backup", device="d", target=disks.path("all.qcow2"), sync="full", compress=True)
        disks.ended("d")
        disks.verify()
        third = disks.holds()
        disks.close()
        check(disks.content("full.qcow2") == first, "the full copy is not of its moment")
        check(disks.content("some.qcow2") == second, "the copy of what had changed is not of its moment")
        check(disks.content("all.qcow2") == third, "the compressed copy is another one")
        for name in ("full", "some", "all", "three"):
            disks.img("check", "-q", disks.path(f"{name}.qcow2"))
        check("since" in disks.img("info", disks.path("three.qcow2")), "the bitmap was not kept")


def backup_ends():
    """A job is cancelled, and the machine ends while another one is under way: neither does harm to the disk."""
    with Disks() as disks:
        disks.fill()
        node = disks.target("full.qcow2")
        disks.do("blockdev-backup", device="d", target=node, sync="none", **{"job-id": "b"})
        disks.fill()
        disks.do("block-job-cancel", device="b")
        check(disks.qmp.event("BLOCK_JOB_CANCELLED")["data"]["type"] == "backup", "cancelled")
        disks.do("blockdev-backup", device="d", target=node, sync="full", speed=MIB // 4, **{"job-id": "b"})
        disks.fill()
        disks.verify()
        wanted = disks.holds()
        disks.close()
        check(disks.content("base.qcow2") == wanted, "the disk is not what was written")
        disks.img("check", "-q", disks.path("base.qcow2"))


def ends_in_the_middle():
    """The machine ends while a job is under way: what is on the disk is a chain with everything in it."""
    with Disks() as disks:
        chain(disks)
        disks.do("block-commit", device="d", **{"job-id": "c", "base-node": "base", "speed": MIB // 4})
        disks.fill()
        disks.close()
        event = disks.path("three.qcow2")
        for number in range(1, disks.number + 1):
            done = subprocess.run([driven.KITE, "io", "-r", "-c",
                                   f"read -P {number} {number * MIB // 2} {MIB // 2}", event],
                                  capture_output=True, text=True, timeout=driven.LIMIT, check=False)
            check("failed" not in done.stdout and done.returncode == 0, done.stdout + done.stderr)
        disks.img("check", "-q", event)


def exports():
    """Clients of an NBD export write to a node while a job copies it and another node takes its place."""
    with Disks() as disks:
        socket = disks.path("nbd.sock")
        disks.do("nbd-server-start", addr={"type": "unix", "data": {"path": socket}})
        shared = {"type": "nbd", "id": "e0", "name": "disk", "writable": True}
        check("'write'" in disks.refused("block-export-add", **shared, **{"node-name": "base"}), "a disk that shares no writes")
        disks.target("second.qcow2")
        disks.do("block-export-add", **shared, **{"node-name": "second"})

        def put(number):
            done = subprocess.run([driven.KITE, "io", "-f", "raw", "-c", f"write -f -P {number} {number * MIB // 2} {MIB}",
                                   f"nbd+unix:///disk?socket={socket}"], capture_output=True, text=True, timeout=driven.LIMIT,
                                  check=False)
            check(done.returncode == 0 and "wrote" in done.stdout, done.stdout + done.stderr)
            disks.number = number

        put(1)
        disks.target("copy.qcow2")
        disks.do("blockdev-mirror", device="second", target="copy", sync="full", speed=MIB * 4, **{"job-id": "m"})
        put(2)
        disks.qmp.event("BLOCK_JOB_READY")
        put(3)
        held = disks.holds()
        disks.do("block-job-complete", device="m")
        disks.ended("m")
        put(4)
        check("e0" in disks.refused("migrate", uri="exec:cat >/dev/null"), "a machine moves that others write for")
        disks.do("block-export-del", id="e0")
        check(disks.qmp.event("BLOCK_EXPORT_DELETED")["data"] == {"id": "e0"}, "another export is gone")
        disks.do("nbd-server-stop")
        check(not os.path.exists(socket), "the socket is still there")
        disks.close()
        check(disks.content("second.qcow2")[:4 * MIB // 2] == held[:4 * MIB // 2], "the node that was copied")
        check(disks.content("copy.qcow2") == disks.holds(), "the copy")
        disks.img("check", "-q", disks.path("copy.qcow2"))


def moved_bitmaps():
    """Dirty bitmaps go with a machine, under other names."""
    with Disks() as disks:
        disks.do("block-dirty-bitmap-add", node="base", name="changes")
        disks.fill()
        road = disks.path("road")
        with Machine("-drive", f"if=none,id=d,file={disks.path('base.qcow2')},format=qcow2,node-name=there", "-device",
                     "virtio-blk-pci,drive=d", "-incoming", f"unix:{road}", qtest=True) as other:
            for qmp, node, bitmap in ((disks.qmp, "base", "changes"), (other.qmp, "there", "arrived")):
                names = {"node-name": node, "alias": "d", "bitmaps": [{"name": bitmap, "alias": "b"}]}
                wanted = [{"capability": name, "state": True} for name in ("events", "dirty-bitmaps")]
                check("return" in qmp.command("migrate-set-capabilities", capabilities=wanted), "capabilities")
                check("return" in qmp.command("migrate-set-parameters", **{"block-bitmap-mapping": [names]}), "mapping")
            disks.do("migrate", uri=f"unix:{road}")
            while (status := disks.qmp.event("MIGRATION")["data"]["status"]) != "completed":
                check(status in ("setup", "active", "device"), f"the migration is {status}")
            while other.qmp.event("MIGRATION")["data"]["status"] != "completed":
                pass
            nodes = other.qmp.command("query-named-block-nodes")["return"]
            bitmaps = {node["node-name"]: node["dirty-bitmaps"] for node in nodes if "dirty-bitmaps" in node}
            check([(each["name"], each["count"]) for each in bitmaps["there"]] == [("arrived", MIB)], bitmaps)
            other.qmp.command("quit")
            check(other.end() == 0, "the other machine did not end well")
        disks.close()


def storage_moves():
    """A machine goes where its disk is not: its writes are mirrored to an export there until the switchover."""
    with Disks() as disks:
        disks.fill()
        road, socket, target = disks.path("road"), disks.path("nbd"), disks.create("there.qcow2")
        with Machine("-drive", f"if=none,id=d,file={target},format=qcow2,node-name=there", "-device",
                     "virtio-blk-pci,drive=d", "-incoming", "defer", "-S", qtest=True) as other:
            def there(name, /, **arguments):
                answer = other.qmp.command(name, **arguments)
                check("return" in answer, answer)
                return answer["return"]
            there("nbd-server-start", addr={"type": "unix", "data": {"path": socket}})
            there("block-export-add", type="nbd", id="e", name="disk", writable=True, **{"node-name": "there"})
            disks.do("blockdev-add", driver="nbd", export="disk", server={"type": "unix", "path": socket},
                     **{"node-name": "far"})
            disks.do("blockdev-mirror", device="base", target="far", sync="full", **{"job-id": "m"})
            disks.qmp.event("BLOCK_JOB_READY")
            check("job 'm'" in disks.refused("migrate", uri="exec:cat >/dev/null"), "a job is no reason to wait")
            wanted = [{"capability": name, "state": True} for name in ("events", "pause-before-switchover")]
            disks.do("migrate-set-capabilities", capabilities=wanted)

            def until(status):
                while (now := disks.qmp.event("MIGRATION")["data"]["status"]) != status:
                    check(now in ("setup", "active", "device", "pre-switchover"), f"the migration is {now}")

            there("migrate-incoming", uri=f"unix:{road}")
            disks.do("migrate", uri=f"exec:cat >{disks.path('lost')}")
            until("pre-switchover")
            check("pre-switchover" in disks.refused("migrate-continue", state="device"), "another state")
            disks.do("migrate-continue", state="pre-switchover")
            until("failed")
            check("job 'm'" in disks.do("query-migrate")["error-desc"], "it does not say why")
            disks.write(0x31, 5 * MIB, MIB)  # it goes on here

            disks.do("migrate", uri=f"unix:{road}")
            until("pre-switchover")
            check(disks.do("query-status")["status"] == "finish-migrate", "it does not stand still")
            disks.do("block-job-cancel", device="m")
            disks.ended("m")
            disks.do("blockdev-del", **{"node-name": "far"})
            disks.do("migrate-continue", state="pre-switchover")
            until("completed")
            check("not 'pre-switchover'" in disks.refused("migrate-continue", state="pre-switchover"), "it goes on twice")
            check("export 'e'" in other.qmp.command("cont")["error"]["desc"], "it runs while others write")
            there("nbd-server-stop")
            there("cont")
            said = there("human-monitor-command", **{"command-line": f'qemu-io d "read -P 0x31 {5 * MIB} {MIB}"'})
            check("read" in said and "failed" not in said, said)
            there("quit")
            check(other.end() == 0, "the other machine did not end well")
        disks.close()
        check(disks.content("there.qcow2") == disks.content("base.qcow2"), "the disk has changed on its way")
        disks.img("check", "-q", target)


CASES = {"overlays": overlays, "commit of the active image": commit_active, "commit of images between": commit_between,
         "commit of a chain that was there": commit_what_was_there, "stream": stream, "mirror, background": lambda: mirror("background"),
         "mirror, write-blocking": lambda: mirror("write-blocking"), "drive-mirror": drive_mirror, "the machine ends": ends_in_the_middle,
         "backup": backup, "a backup that does not end": backup_ends, "exports": exports,
         "bitmaps that move": moved_bitmaps, "storage that moves": storage_moves}


def main():
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    driven.KITE = os.path.abspath(sys.argv[1])
    passed = failed = 0
    for name, case in CASES.items():
        try:
            case()
            passed += 1
        except (AssertionError, OSError, KeyError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"FAILED {name}: {error}")
    print(f"block-jobs: {passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
