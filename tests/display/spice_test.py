#!/usr/bin/env python3
"""Looks at what guests show over SPICE, and types and points to them.

usage: spice_test.py KITE GUESTS [NAME]
GUESTS holds 6.1-cloud/vmlinuz, 6.1/vmlinuz and initrd.gz. A missing package or kernel is a skip with its reason.
Ends with a line 'spice: N passed, N failed, N skipped'.
"""
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "boot"), os.path.join(HERE, "..", "process")]
from certificates import Certificates  # noqa: E402
from guest import Tally  # noqa: E402
from screen import SEABIOS, VGABIOS, Bench, Machine, Picture  # noqa: E402
from spice_client import DISPLAY, MAIN, PORT, SERVER_MOUSE, Channel, Port, SpiceClient, SpiceError  # noqa: E402

TICKETED = "unix=on,addr=@SPICE,image-compression=off,streaming-video=off"
PLAIN = TICKETED + ",disable-ticketing=on"


def wait_client(machine, client, text, font):
    while text not in (shown := Picture(client.width, client.height, client.pixels).text(font)):
        if time.monotonic() > machine.deadline:
            machine.fail(f"the client does not see '{text}':\n{shown}")
        client.update()


def same_picture(machine, client):
    """What a client has and what screendump writes, just after a change: cursor and text may blink."""
    for _ in range(100):
        client.update(0.5)
        while client.update(0.03):
            pass
        picture = machine.dump()
        if (client.width, client.height) == (picture.width, picture.height) and bytes(client.pixels) == picture.pixels:
            return
    machine.fail("a SPICE client sees another picture than screendump")


def menu(bench, board):
    """A client sees what screendump writes; ESC and a number of its keyboard choose in the firmware's menu."""
    font = bench.font()
    with Machine(bench, "-M", board, "-spice", PLAIN, "-vga", "std", "-boot", "menu=on,splash-time=20000",
                 "-drive", "driver=null-co,size=1M,read-zeroes=on,if=ide") as machine:
        machine.wait_for("Press ESC for boot menu.", font)
        with SpiceClient(machine.spice) as client:
            wait_client(machine, client, "Press ESC for boot menu.", font)
            same_picture(machine, client)
            client.type("\x1b")
            wait_client(machine, client, "Select boot device:", font)
            same_picture(machine, client)
            client.type("1")
            wait_client(machine, client, "Booting from", font)


def linux_console(bench, board):
    """Linux on the VGA console: one client types, a second one takes its place."""
    font = bench.font()
    with Machine(bench, "-M", board, "-spice", PLAIN, "-vga", "std",
                 *bench.kernel_options("console=tty0 panic=-1 quiet")) as machine:
        machine.wait_for("kite#", font)
        with SpiceClient(machine.spice) as client:
            client.type("echo Typed-$((6*7))\n")
            wait_client(machine, client, "\nTyped-42", font)
            same_picture(machine, client)
            with SpiceClient(machine.spice) as other:
                wait_client(machine, other, "\nTyped-42", font)
                try:
                    while time.monotonic() < machine.deadline:
                        client.update()
                    machine.fail("the first client is still there")
                except SpiceError:
                    pass
                other.type("echo Second-$((7*7))\n")
                wait_client(machine, other, "\nSecond-49", font)


def frame_buffer(bench, board):
    """Linux goes to 1024 by 768 pixels: the client gets a new surface, and what is on it."""
    with Machine(bench, "-M", board, "-spice", PLAIN, "-vga", "std", "-S",
                 *bench.kernel_options("console=tty0 vga=0x318 panic=-1", bench.desktop_kernel)) as machine:
        with SpiceClient(machine.spice) as client:
            client.wait(lambda: client.width, "a surface")
            machine.qmp("cont")
            client.wait(lambda: (client.width, client.height) == (1024, 768), "the large screen", 300)
            client.wait(lambda: sum(1 for value in client.pixels[::3] if value) > 5000, "a console", 300)
            if client.surfaces < 2:
                machine.fail(f"{client.surfaces} surfaces, where modes have changed")
            same_picture(machine, client)


def compressed(bench, _board):
    """With every kind of compression that the option takes, pictures come by it."""
    for kind in ("auto_glz", "auto_lz", "quic", "glz", "lz"):
        options = PLAIN.replace("image-compression=off", f"image-compression={kind},jpeg-wan-compression=never")
        with Machine(bench, "-spice", options, "-vga", "std", "-S") as machine:
            with SpiceClient(machine.spice) as client:
                client.wait(lambda: client.packed, f"a picture as {kind}")


def password(bench, _board):
    """Nobody gets in without the password; it can be changed, run out, and come from a secret."""
    with Machine(bench, "-spice", TICKETED, "-vga", "std", "-S") as machine:
        def refused(word):
            try:
                SpiceClient(machine.spice, word, timeout=20).close()
            except SpiceError:
                return
            machine.fail(f"the password '{word}' lets in")

        refused("")
        refused("wrong")
        machine.qmp("set_password", protocol="spice", password="sesame")
        refused("wrong")
        refused("")
        with SpiceClient(machine.spice, "sesame") as client:
            client.wait(lambda: client.width, "a surface")
            if "connected" not in machine.refused("set_password", protocol="spice", password="x", connected="fail"):
                machine.fail("connected=fail does not say why")
            machine.human("set_password spice other disconnect")
            try:
                while time.monotonic() < machine.deadline:
                    client.update()
                machine.fail("connected=disconnect lets the client stay")
            except SpiceError:
                pass
        refused("sesame")
        SpiceClient(machine.spice, "other").close()
        machine.qmp("expire_password", protocol="spice", time="now")
        refused("other")
        machine.qmp("expire_password", protocol="spice", time="+600")
        SpiceClient(machine.spice, "other").close()
        if machine.qmp("query-spice")["auth"] != "spice":
            machine.fail("query-spice does not tell of the password")
        if "60" not in machine.refused("set_password", protocol="spice", password="x" * 61):
            machine.fail("a password that SPICE has no room for is not refused")
    with Machine(bench, "-object", "secret,id=s0,data=hushhush", "-spice", TICKETED + ",password-secret=s0", "-vga", "std",
                 "-S") as machine:
        SpiceClient(machine.spice, "hushhush").close()


def monitors(bench, _board):
    """query-spice, info spice and the events tell of a client's channels."""
    with Machine(bench, "-spice", PLAIN, "-vga", "std", "-S") as machine:
        before = machine.qmp("query-spice")
        if (before["enabled"], before["auth"], before["channels"], before["host"]) != (True, "none", [], machine.spice):
            machine.fail(f"query-spice: {before}")
        with SpiceClient(machine.spice) as client:
            machine.take_event("SPICE_CONNECTED")
            data = machine.take_event("SPICE_INITIALIZED")
            if (data["server"]["auth"], data["client"]["channel-type"], data["client"]["tls"],
                    data["client"]["connection-id"]) != ("none", 1, False, client.session):
                machine.fail(f"SPICE_INITIALIZED: {data}")
            kinds = []
            while sorted(kinds) != [1, 2, 3]:
                if time.monotonic() > machine.deadline:
                    machine.fail(f"query-spice has the channels {kinds}")
                kinds = [channel["channel-type"] for channel in machine.qmp("query-spice")["channels"]]
            if f"session: {client.session}" not in machine.human("info spice"):
                machine.fail(machine.human("info spice"))
        machine.take_event("SPICE_DISCONNECTED")
        while machine.qmp("query-spice")["channels"]:
            if time.monotonic() > machine.deadline:
                machine.fail("channels that went are still there")
    with Machine(bench, "-S") as machine:
        if machine.qmp("query-spice")["enabled"]:
            machine.fail("query-spice has a server where there is none")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def tls(bench, _board):
    """A port with TLS beside one without; a channel that is only served with it."""
    with tempfile.TemporaryDirectory() as folder:
        files = Certificates(folder)
        port, tls_port = free_port(), free_port()
        options = f"addr=127.0.0.1,port={port},tls-port={tls_port},x509-dir={folder},tls-channel=main,disable-ticketing=on"
        with Machine(bench, "-spice", options, "-vga", "std", "-S") as machine:
            server = machine.qmp("query-spice")
            if (server["port"], server["tls-port"]) != (port, tls_port):
                machine.fail(f"query-spice: {server}")
            with SpiceClient(("127.0.0.1", tls_port), tls=files.client()) as client:
                client.wait(lambda: client.width, "a surface")
                data = machine.take_event("SPICE_INITIALIZED")
                if not data["client"]["tls"] or "[tls]" not in machine.human("info spice"):
                    machine.fail(f"SPICE_INITIALIZED: {data}")
                for address, context in ((("127.0.0.1", port), None), (("127.0.0.1", tls_port), None)):
                    try:
                        Channel(address, 1, 0, "", tls=context)
                        machine.fail(f"{address} lets in without TLS")
                    except (SpiceError, OSError):
                        pass
                half = socket.create_connection(("127.0.0.1", tls_port))
                half.sendall(b"\x16\x03\x01\x02\x00\x01")
                machine.human("info spice")
                half.close()
            pid = machine.process.pid
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                owners = [f"pid={number}," for number in (str(pid), *file.read().split())]
            listeners = subprocess.run(["ss", "-Hltnp"], stdout=subprocess.PIPE, text=True, check=True).stdout
            sockets = {line.split()[3] for line in listeners.splitlines() if any(owner in line for owner in owners)}
            if sockets != {f"127.0.0.1:{port}", f"127.0.0.1:{tls_port}"}:
                machine.fail(f"it listens at {sockets}")


class Ports:
    """The ports of a machine that no CPU runs, by the qtest protocol."""

    def __init__(self, machine):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(f"{machine.folder}/qtest.sock")
        self.stream = self.socket.makefile("rw")

    def ask(self, line):
        self.stream.write(line + "\n")
        self.stream.flush()
        answer = self.stream.readline().split()
        return int(answer[1], 0) if len(answer) > 1 else None

    def mouse_bytes(self, count, machine):
        """What comes out of the keyboard controller for the mouse."""
        got = []
        while len(got) < count:
            if time.monotonic() > machine.deadline:
                machine.fail(f"the mouse has said {got}, not {count} bytes")
            if self.ask("inb 0x64") & 0x21 == 0x21:
                got.append(self.ask("inb 0x60"))
        return got


def mouse_and_lights(bench, _board):
    """Movement and buttons reach the PS/2 mouse, and the keyboard's lights the client."""
    with Machine(bench, "-spice", PLAIN, "-vga", "std", "-qtest", "unix:@FOLDER/qtest.sock,server=on,wait=off",
                 accel="qtest") as machine:
        ports = Ports(machine)
        ports.ask("outb 0x64 0xd4")
        ports.ask("outb 0x60 0xf4")  # the mouse reports
        if ports.mouse_bytes(1, machine) != [0xfa]:
            machine.fail("the mouse does not acknowledge")
        with SpiceClient(machine.spice) as client:
            if client.mouse_mode != SERVER_MOUSE:
                machine.fail(f"mouse mode {client.mouse_mode} without a tablet")
            client.move(5, 3)
            if ports.mouse_bytes(3, machine) != [0x28, 5, 0xfd]:
                machine.fail("other movement than 5, 3")
            client.press(1, 1)
            if ports.mouse_bytes(3, machine) != [0x09, 0, 0]:
                machine.fail("the left button does not arrive")
            client.press(1, 0, down=False)
            if ports.mouse_bytes(3, machine) != [0x08, 0, 0]:
                machine.fail("the left button is not let go of")
            client.press(3, 4)
            if ports.mouse_bytes(3, machine) != [0x0a, 0, 0]:
                machine.fail("the right button does not arrive")
            for value in (0xed, 4):  # caps lock
                ports.ask(f"outb 0x60 {value:#x}")
                if ports.ask("inb 0x60") != 0xfa:
                    machine.fail("the keyboard does not acknowledge")
            client.wait(lambda: client.leds == 4, "the light")
        if ports.mouse_bytes(3, machine) != [0x08, 0, 0]:
            machine.fail("a client that went still holds the button")


def slow_client(bench, board):
    """A client that reads nothing while the screen changes and its mode as well: the guest and the monitor go on."""
    font = bench.font()
    with Machine(bench, "-M", board, "-spice", PLAIN, "-vga", "std",
                 *bench.kernel_options("console=tty0 panic=-1 quiet")) as machine:
        machine.wait_for("kite#", font)
        with SpiceClient(machine.spice):
            for turn in range(20):
                for key in ("e", "c", "h", "o", "spc", str(turn % 10), "ret"):
                    machine.qmp("send-key", keys=[{"type": "qcode", "data": key}], **{"hold-time": 10})
                machine.wait_for(f"\n{turn % 10}\n", font)
            machine.qmp("system_reset")
            machine.wait_for("SeaBIOS", font)
        with SpiceClient(machine.spice) as client:
            client.wait(lambda: client.width, "a surface")


def garbage(bench, _board):
    """Bytes that are no protocol, links that stop half-way, messages that lie about their size: the server lives."""
    link = b"REDQ" + struct.pack("<III", 2, 2, 22) + struct.pack("<IBBIIII", 0, 1, 0, 1, 0, 18, 11)
    with Machine(bench, "-spice", PLAIN, "-vga", "std", "-S") as machine:
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"REDQ" + b"\xff" * 400, link, link[:20],
                     b"REDQ" + struct.pack("<III", 2, 2, 1 << 31) + b"\0" * 64,
                     link + struct.pack("<I", 1) + b"\xff" * 128, link.replace(b"\x01\0\x01", b"\x63\0\x01")):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(machine.spice)
            try:
                connection.sendall(data)
            except OSError:
                pass  # dropped already
            connection.close()
        for kind, data in ((111, b"\0"), (103, b""), (999, b"\0" * 100), (113, b"\xff\xff\xff"),
                           (112, struct.pack("<IIHB", 1 << 31, 1 << 31, 0xffff, 0xff)), (104, b"\xe0" * 64),
                           (111, struct.pack("<iiH", (1 << 31) - 1, -(1 << 31), 0xffff))):
            with SpiceClient(machine.spice) as client:
                try:
                    client.inputs.send(kind, data)
                    client.inputs.socket.sendall(struct.pack("<HI", kind, 0xffffffff))
                except OSError:
                    pass  # dropped already
        with SpiceClient(machine.spice) as client:
            client.wait(lambda: client.width, "a surface")


def hostile_display(bench, _board):
    """What libspice-server does not live through: a display channel that begins twice, with nonsense, or not at all. The
    machine goes on, and so does the next client."""
    init = struct.pack("<HIBqBi", 101, 14, 1, 1 << 20, 1, 1 << 20)
    # In a sandbox from which no process is started, and the next server all the same.
    with Machine(bench, "-spice", PLAIN, "-vga", "std", "-S", "-sandbox", "on,spawn=deny") as machine:
        for data in (init * 2, struct.pack("<HI", 101, 0xffffffff), struct.pack("<HI", 999, 4) + b"nono", init[:9],
                     struct.pack("<HIBqBi", 101, 14, 1, 1 << 20, 1, 0x7fffffff)):
            try:
                with SpiceClient(machine.spice, only_main=True) as client:
                    display = Channel(machine.spice, DISPLAY, client.session, "")
                    display.socket.sendall(data)
                    time.sleep(0.1)
                    display.socket.close()
            except (SpiceError, OSError):
                pass  # dropped already
            if machine.qmp("query-status")["status"] != "prelaunch":
                machine.fail("the machine is not what it was")
        while True:
            try:
                with SpiceClient(machine.spice) as client:
                    client.wait(lambda: client.width, "a surface")
                    return
            except (SpiceError, OSError):  # the server may be between two processes
                if time.monotonic() > machine.deadline:
                    machine.fail("no client gets in any more")


def ending(bench, _board):
    """The process ends at once with clients connected, one of them in the middle of its link."""
    with Machine(bench, "-spice", PLAIN, "-vga", "std") as machine:
        half = socket.socket(socket.AF_UNIX)
        half.connect(machine.spice)
        with SpiceClient(machine.spice) as client:
            client.wait(lambda: client.width, "a surface")
            machine.qmp("quit")
            if machine.process.wait(60) != 0:
                machine.fail(f"status {machine.process.returncode}")
        half.close()


class Shell:
    """A guest whose console is a SPICE port, and a client's end of that."""

    def __init__(self, machine, client):
        self.port = Port(machine.spice, client, "org.kite.console")

    def run(self, command):
        """What a command says. The end's mark is written otherwise than it is echoed."""
        self.port.send(f"{command}; echo En''d\n".encode())
        said = self.port.take_until(b"End\r\n")
        return said.split(b"\n", 1)[1].decode().strip()


def echo_exactly(machine, port, data):
    """Sends `data` to a port that sends back what it gets, at the same time."""
    sender = threading.Thread(target=lambda: [port.send(data[at:at + 9000]) for at in range(0, len(data), 9000)])
    sender.start()
    got = port.take(len(data))
    sender.join()
    if got != data or port.data:
        machine.fail(f"{len(data)} bytes come back as others, and {len(port.data)} more")


ECHO = "(exec 3<>/dev/virtio-ports/{0}; while :; do cat <&3 >&3; sleep 0.1; done) >/dev/null 2>&1 & sleep 0"


def agent_and_ports(bench, board):
    """A guest that sends back what it gets: by the agent's way, by a port, to clients that come and go."""
    line = "console=ttyS1 panic=-1 quiet"
    with Machine(bench, "-M", board, "-spice", PLAIN + ",disable-copy-paste=on", "-serial", "chardev:console", "-chardev",
                 "spicevmc,id=vdagent,name=vdagent", "-chardev", "spiceport,id=console,name=org.kite.console", "-chardev",
                 "spiceport,id=echo,name=org.kite.echo", "-device", "virtio-serial-pci", "-device",
                 "virtserialport,chardev=vdagent,name=com.redhat.spice.0", "-device",
                 "virtserialport,chardev=echo,name=org.kite.echo", "-m", "512", "-kernel", f"{bench.guests}/6.1-cloud/vmlinuz",
                 "-initrd", f"{bench.guests}/6.1-cloud/initrd-disks.gz", "-append", line, "-S") as machine:
        def frontend_open(name):
            return {one["label"]: one["frontend-open"] for one in machine.qmp("query-chardev")}[name]

        with SpiceClient(machine.spice, only_main=True) as client:
            shell = Shell(machine, client)
            if not shell.port.opened or client.agent_there or frontend_open("vdagent"):
                machine.fail("the guest has the agent's port open, or the console's closed")
            machine.qmp("cont")
            shell.port.take_until(b"kite#")
            shell.run("load-virtio")
            echo = Port(machine.spice, client, "org.kite.echo")
            if echo.opened:
                machine.fail("the guest has opened nothing yet")
            shell.run(ECHO.format("org.kite.echo"))
            echo.wait(lambda: echo.opened, "the guest's opening")
            echo_exactly(machine, echo, os.urandom(700_001))
            shell.run(ECHO.format("com.redhat.spice.0"))
            client.agent_start()
            if not frontend_open("vdagent"):
                machine.fail("query-chardev does not know of the agent")
            screens, files = os.urandom(70_000), os.urandom(5_000)
            client.agent_send(4, b"the clipboard, which is not passed on")
            client.agent_send(2, screens)
            client.agent_send(2, files)
            for data in (screens, files):
                if client.agent_message() != (2, data):
                    machine.fail("the agent gets other bytes")
            # It goes in the middle of things, with all buffers full. Not of a message to the agent: the library cuts that
            # short, and a guest that sends back half a message is no agent any more.
            try:
                echo.channel.socket.settimeout(2)
                for _ in range(2000):
                    echo.send(os.urandom(9000))
                machine.fail("18 MB wait somewhere")
            except TimeoutError:
                echo.close()
        with SpiceClient(machine.spice, only_main=True) as client:
            client.agent_start()
            echo = Port(machine.spice, client, "org.kite.echo")
            mark = os.urandom(32)
            echo.send(mark)
            echo.take_until(mark)
            echo_exactly(machine, echo, os.urandom(300_000))
            client.agent_send(2, files)
            if client.agent_message() != (2, files):
                machine.fail("the agent gets something else from the next client")
            machine.qmp("system_reset")
            client.wait(lambda: not client.agent_there, "the end of the agent")
            echo.wait(lambda: not echo.opened, "the guest's closing")


def hostile_channels(bench, _board):
    """Agent's messages and ports' bytes that lie: the machine goes on, and so does the next client."""
    with Machine(bench, "-chardev", "spicevmc,id=agent,name=vdagent", "-spice", PLAIN, "-serial", "chardev:agent", "-chardev",
                 "spiceport,id=port,name=org.kite.port", "-serial", "chardev:port", "-S") as machine:
        for kind, number, data in ((MAIN, 107, b"\xff" * 4000), (MAIN, 107, struct.pack("<IIQI", 1, 4, 0, 0xffffffff)),
                                   (MAIN, 106, b""), (MAIN, 106, b"\xff" * 4), (MAIN, 108, b"\xff" * 4), (PORT, 101, b""),
                                   (PORT, 102, b"\xff" * 64), (PORT, 201, b"\xff"), (PORT, 999, b"\xff" * 9)):
            while True:
                try:
                    with SpiceClient(machine.spice, only_main=True) as client:
                        channel = client.main if kind == MAIN else Port(machine.spice, client, "org.kite.port").channel
                        channel.send(number, data)
                        channel.socket.sendall(struct.pack("<HI", number, 0xffffffff))
                        break
                except (SpiceError, OSError):  # the server may be between two processes
                    if time.monotonic() > machine.deadline:
                        machine.fail("no client gets in any more")
            if machine.qmp("query-status")["status"] != "prelaunch":
                machine.fail("the machine is not what it was")


CASES = {"agent and ports": (agent_and_ports, True), "hostile channels": (hostile_channels, False), "menu": (menu, False), "password": (password, False), "monitors": (monitors, False),
         "tls": (tls, False), "mouse and lights": (mouse_and_lights, False), "compressed": (compressed, False), "garbage": (garbage, False),
         "hostile display": (hostile_display, False), "ending": (ending, False), "linux console": (linux_console, True), "frame buffer": (frame_buffer, True),
         "slow client": (slow_client, True)}
ON_BOTH_BOARDS = ("menu", "linux console")


def main():
    bench, tally = Bench(sys.argv[1], sys.argv[2]), Tally("spice")
    bench.run_cases(tally, CASES, ON_BOTH_BOARDS, sys.argv[3] if len(sys.argv) > 3 else "")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
