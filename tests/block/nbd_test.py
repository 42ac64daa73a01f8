#!/usr/bin/env python3
"""Our NBD client against the servers that others wrote (qemu-nbd and nbdkit), and our server against the clients that others
wrote (qemu-img, qemu-io, libnbd's tools).

usage: nbd_test.py KITE [--only NAME]
The last line is 'nbd: N passed, N failed, N skipped'.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import tempfile
import time

from images import Counter, Disk, same, tools

MIB = 1 << 20
PATIENCE = 60  # seconds, for what takes none


@contextlib.contextmanager
def serving(command: list, ready: pathlib.Path | int):
    """The server while it listens on a socket or a port."""
    process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE
        while not listens(ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{command[0]} does not serve: {process.stdout.read().decode(errors='replace') if process.poll() is not None else ''}")
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


def listens(ready: pathlib.Path | int) -> bool:
    with socket.socket(socket.AF_INET if isinstance(ready, int) else socket.AF_UNIX) as probe:
        try:
            probe.connect(("127.0.0.1", ready) if isinstance(ready, int) else str(ready))
            return True
        except OSError:
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def qemu_nbd(path: pathlib.Path, image: pathlib.Path, *more) -> list:
    return ["qemu-nbd", "--persistent", "--shared=16", "--socket", path, *more, image]


def nbdkit(path: pathlib.Path, *more) -> list:
    return ["nbdkit", "--foreground", "--exit-with-parent", "--unix", path, *more]


class Case:
    def __init__(self, ours, peers, directory: pathlib.Path):
        self.ours, self.peers, self.directory = ours, peers, directory
        self.socket = directory / "socket"
        self.image = directory / "image.raw"

    def make_image(self, size: int = 8 * MIB) -> None:
        with self.image.open("wb") as file:
            file.truncate(size)

    def uri(self, name: str = "") -> str:
        return f"nbd+unix:///{name}?socket={self.socket}"

    def kite_nbd(self, *more) -> list:
        return [self.ours.img_command[0], "nbd", "-k", self.socket, *more]

    def work(self, where, size: int, seed: str, options=("-f", "raw"), tools=None) -> Disk:
        """Random commands; the model they lead to."""
        rng, disk = random.Random(seed), Disk(size)
        commands = []
        for _ in range(60):
            length = min(rng.choice([512, 3000, 4096, 65536, 200000, rng.randrange(1, 1 << 20)]), size)
            offset, value = rng.randrange(0, size - length + 1), rng.randrange(1, 256)
            kind = rng.random()
            if kind < 0.6:
                commands.append(f"{'aio_write' if kind < 0.1 else 'write'} {'-f ' if 0.5 < kind else ''}-P {value} {offset} {length}")
                if kind < 0.1:
                    commands.append("aio_flush")
                disk.write(offset, length, value)
            elif kind < 0.75:
                commands.append(f"write -z {'-u ' if kind < 0.7 else ''}{offset} {length}")
                disk.write(offset, length, 0)
            elif kind < 0.8:
                commands += [f"discard {offset} {length}", f"write -P {value} {offset} {length}"]
                disk.write(offset, length, value)
            elif kind < 0.95:
                start = min(offset, size - 512)
                if len(set(disk.data[start:start + 512])) == 1:
                    commands.append(f"read -P {disk.data[start]} {start} 512")
            else:
                commands.append("flush")
        (tools or self.ours).io(where, *commands, options=options)
        return disk

    def compare(self, where: str, disk: Disk, what: str) -> None:
        same(self.ours.content(where, "raw", self.directory), bytes(disk.data), f"{what}, read back")


def random_work(case: Case, *server) -> None:
    case.make_image()
    with serving(qemu_nbd(case.socket, case.image, "-f", "raw", "--discard=unmap", *server), case.socket):
        disk = case.work(case.uri(), 8 * MIB, str(server))
        case.compare(case.uri(), disk, "qemu-nbd")
    same(case.image.read_bytes(), bytes(disk.data), "what the server stored")


def inet(case: Case) -> None:
    case.make_image()
    port = free_port()
    with serving(["qemu-nbd", "--persistent", "--bind=127.0.0.1", f"--port={port}", "-x", "a disk", "-f", "raw", case.image], port):
        disk = case.work(f"nbd://127.0.0.1:{port}/a%20disk", 8 * MIB, "inet")
        case.compare(f"nbd:127.0.0.1:{port}:exportname=a disk", disk, "over TCP")
        shown = case.ours.img("info", f"nbd://localhost:{port}/a%20disk").stdout
        assert "8 MiB" in shown, shown


def holes(case: Case) -> None:
    case.make_image()
    with case.image.open("r+b") as file:
        file.seek(MIB)
        file.write(b"x" * 65536)
    with serving(qemu_nbd(case.socket, case.image, "-f", "raw"), case.socket):
        shown = case.ours.img("map", "--output=json", "-f", "raw", case.uri()).stdout
    assert '"start": 1048576, "length": 65536, "depth": 0, "present": true, "zero": false, "data": true' in shown, shown
    assert '"start": 0, "length": 1048576, "depth": 0, "present": true, "zero": true, "data": false' in shown, shown


def format_inside(case: Case) -> None:
    """A qcow2 image on the server's disk: the client interprets it."""
    case.ours.img("create", "-q", "-f", "qcow2", case.image, "8M")
    with case.image.open("r+b") as file:
        file.truncate(32 * MIB)
    with serving(qemu_nbd(case.socket, case.image, "-f", "raw"), case.socket):
        disk = case.work(case.uri(), 8 * MIB, "qcow2", options=("-f", "qcow2"))
        case.ours.checked(case.uri(), "qcow2")
        same(case.ours.content(case.uri(), "qcow2", case.directory), bytes(disk.data), "qcow2 over NBD")


def chain(case: Case) -> None:
    """A local overlay over a disk that a server exports."""
    case.image.write_bytes(bytes([9]) * MIB)
    overlay = case.directory / "overlay.qcow2"
    with serving(qemu_nbd(case.socket, case.image, "-f", "raw", "-r"), case.socket):
        case.ours.img("create", "-q", "-f", "qcow2", "-b", case.uri(), "-F", "raw", overlay)
        case.ours.io(overlay, "write -P 5 4096 512", "read -P 5 4096 512", "read -P 9 4608 65536")


def options_form(case: Case) -> None:
    case.make_image()
    with serving(qemu_nbd(case.socket, case.image, "-f", "raw", "-x", "it"), case.socket):
        for options in (f"driver=nbd,server.type=unix,server.path={case.socket},export=it", f"driver=nbd,path={case.socket},export=it",
                        f"driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={case.socket},file.export=it"):
            case.ours.io(options, "write -P 1 0 4k", "read -P 1 0 4k", options=("--image-opts",))


def refusals(case: Case) -> None:
    def refused(name: str, text: str, *options) -> None:
        result = case.ours.img("info", *options, name, check=False)
        if result.returncode == 0 or text not in result.stderr:
            raise AssertionError(f"{name}: {result.stdout}{result.stderr}; '{text}' expected")

    case.make_image()
    refused(case.uri(), "Failed to connect")
    refused("driver=nbd,path=/x,tls-creds=tls0", "not supported", "--image-opts")
    refused("driver=nbd,server.type=vsock", "inet or unix", "--image-opts")
    refused("driver=nbd,path=/x,exprot=a", "export", "--image-opts")
    with serving(qemu_nbd(case.socket, case.image, "-f", "raw", "-r", "-x", "here"), case.socket):
        refused(case.uri("there"), "no export 'there'")
        result = case.ours.io(case.uri("here"), "write 0 512", options=("-f", "raw"), check=False)
        assert "read-only" in result, result


def server_errors(case: Case) -> None:
    with serving(nbdkit(case.socket, "--filter=error", "memory", "1M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"), case.socket):
        result = case.ours.io(case.uri(), "read -P 0 0 64k", "write 0 512", "flush", options=("-f", "raw"), check=False)
    assert "No space left" in result and "read 65536/65536" in result, result


def open_timeout(case: Case) -> None:
    """The server comes while the client waits for it."""
    case.make_image()
    client = subprocess.Popen([*case.ours.io_command, "--image-opts", "-c", "write -P 3 0 512",
                               f"driver=nbd,path={case.socket},open-timeout={PATIENCE}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    time.sleep(0.2)
    with serving(qemu_nbd(case.socket, case.image, "-f", "raw"), case.socket):
        output = client.communicate(timeout=2 * PATIENCE)[0].decode()
    assert "wrote 512/512" in output, output


def answer_of(client: subprocess.Popen, line: str) -> str:
    client.stdin.write(line + "\n")
    client.stdin.flush()
    said = ""
    while "wrote" not in said and "read" not in said and "failed" not in said and "error" not in said.lower():
        more = client.stdout.readline()
        if not more:
            break
        said += more
    return said


def reconnect(case: Case) -> None:
    """The server is killed and started again: requests go on; the first flush tells that unflushed writes may be gone."""
    case.make_image()
    command = qemu_nbd(case.socket, case.image, "-f", "raw")
    with serving(command, case.socket):
        client = subprocess.Popen([*case.ours.io_command, "--image-opts", f"driver=nbd,path={case.socket},reconnect-delay={PATIENCE}"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = answer_of(client, "write -P 7 0 4096")
        assert "wrote 4096" in said, said
    try:
        with serving(command, case.socket):
            said = answer_of(client, "read -P 7 0 4096")
            assert "read 4096" in said, said
            output = client.communicate("flush\nwrite -P 8 4096 512\nflush\nquit\n", timeout=2 * PATIENCE)[0]
    finally:
        client.kill()
        client.wait()
    assert "flush failed: Input/output error" in output or "Input/output error" in output, output
    assert output.count("Input/output error") == 1 and "wrote 512/512" in output, output


def lost(case: Case) -> None:
    """Without reconnect-delay a lost server is an error at once."""
    case.make_image()
    with serving(qemu_nbd(case.socket, case.image, "-f", "raw"), case.socket):
        client = subprocess.Popen([*case.ours.io_command, "--image-opts", f"driver=nbd,path={case.socket}"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = answer_of(client, "write -P 7 0 4096")
        assert "wrote 4096" in said, said
    output = client.communicate("read 0 4096\nread 0 4096\nquit\n", timeout=2 * PATIENCE)[0]
    assert output.count("Input/output error") == 2, output


def with_nbdkit(case: Case, *server) -> None:
    with serving(nbdkit(case.socket, *server), case.socket):
        disk = case.work(case.uri(), 4 * MIB, str(server))
        case.compare(case.uri(), disk, f"nbdkit {server}")


def oldstyle(case: Case) -> None:
    """The handshake without options. This server then refuses to flush and to zero, though it says it can."""
    with serving(nbdkit(case.socket, "--oldstyle", "memory", "4M"), case.socket):
        output = case.ours.io(case.uri(), "write -P 5 1000 70000", "read -P 5 1000 70000", "read -P 0 100k 1M", options=("-f", "raw"), check=False)
    assert output.count("bytes at offset") == 3 and "verification failed" not in output, output


# --- our server


def work_of_peers(case: Case, fmt: str, *server) -> None:
    """Random work of qemu-io at our server, looked at through the server and in the image."""
    case.ours.img("create", "-q", "-f", fmt, case.image, "8M")
    with serving(case.kite_nbd("-t", "-e", "4", "-f", fmt, "--discard=unmap", *server, case.image), case.socket):
        disk = case.work(case.uri(), 8 * MIB, f"{fmt} {server}", tools=case.peers)
        same(case.peers.content(case.uri(), "raw", case.directory), bytes(disk.data), "read back by qemu-img")
        case.compare(case.uri(), disk, "by our own client")
    if fmt != "raw":
        case.ours.checked(case.image, fmt)
    same(case.ours.content(case.image, fmt, case.directory), bytes(disk.data), "what the server stored")


def ends_with_its_client(case: Case) -> None:
    case.make_image()
    pid_file = case.directory / "pid"
    subprocess.run([*map(str, case.kite_nbd("--fork", "--pid-file", pid_file, "-f", "raw", case.image))], check=True, timeout=PATIENCE)
    pid = int(pid_file.read_text())
    case.peers.io(case.uri(), "write -P 5 0 64k", options=("-f", "raw"))
    deadline = time.monotonic() + PATIENCE
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}"), "it stays when its client has left"
    assert not case.socket.exists() and not pid_file.exists(), "it leaves files behind"
    assert case.image.read_bytes()[:65536] == b"\5" * 65536, "what was written is not there"


def over_tcp(case: Case) -> None:
    case.make_image()
    port = free_port()
    command = [case.ours.img_command[0], "nbd", "-t", "-b", "127.0.0.1", "-p", port, "-x", "a disk", "-D", "what it is", "-r", "-f", "raw", case.image]
    with serving(command, port):
        listed = subprocess.run(["qemu-nbd", "-L", "-b", "127.0.0.1", "-p", str(port)], capture_output=True, text=True, timeout=PATIENCE).stdout
        for text in ("export: 'a disk'", "description: what it is", "size:  8388608", "readonly", "multi", "base:allocation"):
            assert text in listed, f"'{text}' is missing: {listed}"
        refused = case.peers.io(f"nbd://127.0.0.1:{port}/a%20disk", "write 0 512", options=("-f", "raw"), check=False)
        assert "Permission denied" in refused, refused


def map_of_chain(case: Case) -> None:
    """What peers find out about holes and depth of an overlay."""
    case.ours.img("create", "-q", "-f", "raw", case.image, "4M")
    case.ours.io(case.image, "write -P 1 1M 64k", options=("-f", "raw"))
    overlay = case.directory / "overlay.qcow2"
    case.ours.img("create", "-q", "-f", "qcow2", "-b", case.image, "-F", "raw", overlay)
    case.ours.io(overlay, "write -P 2 2M 64k", options=("-f", "qcow2"))
    with serving(case.kite_nbd("-t", "-A", "-r", "-f", "qcow2", overlay), case.socket):
        shown = json.loads(case.peers.img("map", "--output=json", "-f", "raw", case.uri()).stdout)
        data = [(part["start"], part["length"]) for part in shown if part["data"]]
        assert data == [(MIB, 65536), (2 * MIB, 65536)], shown
        if shutil.which("nbdinfo") is not None:
            text = subprocess.run(["nbdinfo", "--json", "--map=qemu:allocation-depth", case.uri()], capture_output=True, text=True, timeout=PATIENCE).stdout
            depth = {part["offset"]: part["type"] for part in json.loads(text)}
            assert depth.get(0) == 2 and depth.get(2 * MIB) == 1, text


def bitmap_of_image(case: Case) -> None:
    case.ours.img("create", "-q", "-f", "qcow2", case.image, "4M")
    case.ours.img("bitmap", "--add", case.image, "changes")
    case.ours.io(case.image, "write 1M 64k", options=("-f", "qcow2"))
    with serving(case.kite_nbd("-t", "-r", "-f", "qcow2", "-B", "changes", case.image), case.socket):
        options = f"driver=nbd,path={case.socket},x-dirty-bitmap=qemu:dirty-bitmap:changes"
        shown = json.loads(case.peers.img("map", "--output=json", "--image-opts", options).stdout)
        dirty = [(part["start"], part["length"]) for part in shown if not part["data"]]  # how qemu-img shows it
        assert dirty == [(MIB, 65536)], shown
    refused = subprocess.run([*map(str, case.kite_nbd("-r", "-B", "nothing", case.image))], capture_output=True, text=True, timeout=PATIENCE)
    assert refused.returncode == 1 and "'nothing' is not found" in refused.stderr, refused.stderr


def snapshot_is_lost(case: Case) -> None:
    case.make_image()
    with serving(case.kite_nbd("-t", "-s", "-f", "raw", case.image), case.socket):
        case.peers.io(case.uri(), "write -P 5 4k 64k", options=("-f", "raw"))
        case.peers.io(case.uri(), "read -P 5 4k 64k", options=("-f", "raw"))
    assert not any(case.image.read_bytes()), "the image has changed"


def from_an_offset(case: Case) -> None:
    case.make_image()
    with serving(case.kite_nbd("-t", "-o", "1M", "-f", "raw", case.image), case.socket):
        case.peers.io(case.uri(), "write -P 5 0 64k", options=("-f", "raw"))
        assert "7 MiB" in case.peers.img("info", case.uri()).stdout
    data = case.image.read_bytes()
    assert data[MIB:MIB + 65536] == b"\5" * 65536 and not any(data[:MIB]), "it is not there"


def server_refusals(case: Case) -> None:
    case.make_image()
    for words, text in ((["-c", "/dev/nbd0"], "nbd-client"), (["-p", "1", case.image], "neither -p"), (["-e", "x", case.image], "-e"),
                        (["-o", "9M", case.image], "behind the end"), (["--frok", case.image], "unknown"), ([], "one image"),
                        (["--discard=maybe", case.image], "discard"), ([case.directory / "none"], "none")):
        result = subprocess.run([*map(str, case.kite_nbd(*words))], capture_output=True, text=True, timeout=PATIENCE)
        assert result.returncode == 1 and text in result.stderr, f"{words}: {result.stderr}; '{text}' expected"


def copied_by_nbdcopy(case: Case) -> None:
    """Several connections at once, in both directions, holes kept."""
    if shutil.which("nbdcopy") is None:
        raise AssertionError("nbdcopy (libnbd-bin) is not installed")
    size, rng = 64 * MIB, random.Random("nbdcopy")
    source = case.directory / "source"
    with source.open("wb") as file:
        file.truncate(size)
        for _ in range(40):
            file.seek(rng.randrange(0, size - MIB))
            file.write(rng.randbytes(rng.randrange(1, MIB)))
    case.make_image(size)
    back = case.directory / "back"
    with serving(case.kite_nbd("-t", "-e", "0", "-f", "raw", "--discard=unmap", case.image), case.socket):
        subprocess.run(["nbdcopy", source, case.uri()], check=True, timeout=PATIENCE)
        subprocess.run(["nbdcopy", case.uri(), back], check=True, timeout=PATIENCE)
    expected = source.read_bytes()
    same(case.image.read_bytes(), expected, "what nbdcopy wrote")
    same(back.read_bytes(), expected, "what nbdcopy read")
    assert back.stat().st_blocks * 512 < size * 3 // 4, "holes were sent as data"


CASES = {
    "qemu-img": {
        "serve-raw": (work_of_peers, "raw"), "serve-qcow2": (work_of_peers, "qcow2"), "serve-direct": (work_of_peers, "raw", "--cache=none"),
        "serve-durable": (work_of_peers, "qcow2", "--cache=writethrough", "--aio=threads"), "serve-once": (ends_with_its_client,),
        "serve-tcp": (over_tcp,), "serve-chain": (map_of_chain,), "serve-bitmap": (bitmap_of_image,),
        "serve-snapshot": (snapshot_is_lost,), "serve-offset": (from_an_offset,), "serve-refusals": (server_refusals,),
        "serve-copies": (copied_by_nbdcopy,),
    },
    "qemu-nbd": {
        "work": (random_work,), "work-direct": (random_work, "--cache=none"), "inet": (inet,), "holes": (holes,),
        "format": (format_inside,), "chain": (chain,), "options": (options_form,), "refusals": (refusals,),
        "open-timeout": (open_timeout,), "reconnect": (reconnect,), "lost": (lost,),
    },
    "nbdkit": {
        "memory": (with_nbdkit, "memory", "4M"),
        "blocks": (with_nbdkit, "--filter=blocksize-policy", "memory", "4M", "blocksize-minimum=4096", "blocksize-maximum=65536",
                   "blocksize-error-policy=error"),
        "simple": (with_nbdkit, "--no-sr", "memory", "4M"),
        "oldstyle": (oldstyle,),
        "no-zero": (with_nbdkit, "--filter=nozero", "memory", "4M"),
        "no-fua": (with_nbdkit, "--filter=fua", "memory", "4M", "fuamode=emulate"),
        "slow-zeroes": (with_nbdkit, "--filter=nozero", "memory", "4M", "zeromode=emulate"),
        "no-extents": (with_nbdkit, "--filter=noextents", "memory", "4M"),
        "errors": (server_errors,),
    },
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("kite")
    parser.add_argument("--only")
    arguments = parser.parse_args()
    ours, peers = tools(arguments.kite)
    counter = Counter("nbd")
    for server, cases in CASES.items():
        if shutil.which(server) is None:
            counter.skip(server, f"{server} is not installed")
            continue
        for name, (case, *words) in cases.items():
            if arguments.only is not None and arguments.only != name:
                continue
            with tempfile.TemporaryDirectory(prefix="kite-nbd-") as directory:
                counter.run(name, case, Case(ours, peers, pathlib.Path(directory)), *words)
    return counter.finish()


if __name__ == "__main__":
    raise SystemExit(main())
