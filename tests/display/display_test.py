#!/usr/bin/env python3
"""Looks at what guests show, by screenshot and over VNC, and types to them.

usage: display_test.py KITE GUESTS
GUESTS holds 6.1-cloud/vmlinuz, 6.1/vmlinuz and initrd.gz. A missing package or kernel is a skip with its reason.
Ends with a line 'display: N passed, N failed, N skipped'.
"""
import os
import socket
import struct
import sys
import tempfile
import time
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "boot"), os.path.join(HERE, "..", "process")]
from certificates import Certificates  # noqa: E402
from guest import Tally  # noqa: E402
from screen import SEABIOS, VGABIOS, Bench, Machine, Picture  # noqa: E402
from vnc_client import VncClient, VncError  # noqa: E402


def client_text(client, font):
    return Picture(client.width, client.height, client.pixels).text(font)


def wait_client(machine, client, text, font):
    client.update(incremental=False)
    while text not in client_text(client, font):
        if time.monotonic() > machine.deadline:
            machine.fail(f"the client does not see '{text}':\n{client_text(client, font)}")
        client.update()


def same_picture(machine, client):
    """What a client has and what screendump writes, once both stand still; cursor and text may blink in between."""
    for _ in range(50):
        client.update(incremental=False)
        picture = machine.dump()
        if (client.width, client.height) == (picture.width, picture.height) and bytes(client.pixels) == picture.pixels:
            return
        time.sleep(0.05)
    machine.fail("a VNC client sees another picture than screendump")


def seabios_banner(bench, board):
    """The firmware's text screen, glyph by glyph, and the same as PNG."""
    with Machine(bench, "-M", board, "-vga", "std", "-display", "none") as machine:
        shown = machine.wait_for("No bootable device.", bench.font())
        if not shown.startswith("SeaBIOS (version "):
            machine.fail(f"the banner is not in the first line:\n{shown}")
        path = f"{machine.folder}/screen.png"
        machine.qmp("screendump", filename=path, format="png")
        with open(path, "rb") as file:
            data = file.read()
        width, height = struct.unpack(">II", data[16:24])
        length = struct.unpack(">I", data[33:37])[0]
        if (width, height) != (720, 400) or len(zlib.decompress(data[41:41 + length])) != 400 * (720 * 3 + 1):
            machine.fail("the PNG has other sizes")


def vnc_menu(bench, board):
    """A client sees what screendump writes; ESC and a number of its keyboard choose in the firmware's menu."""
    font = bench.font()
    with Machine(bench, "-M", board, "-vnc", "unix:@VNC", "-vga", "std", "-boot", "menu=on,splash-time=20000",
                 "-drive", "driver=null-co,size=1M,read-zeroes=on,if=ide") as machine:
        machine.wait_for("Press ESC for boot menu.", font)
        with VncClient(machine.vnc) as client:
            wait_client(machine, client, "Press ESC for boot menu.", font)
            same_picture(machine, client)
            client.type("\x1b")
            wait_client(machine, client, "Select boot device:", font)
            same_picture(machine, client)
            client.type("1")
            wait_client(machine, client, "Booting from", font)


def linux_console(bench, board):
    """Linux on the VGA console: two clients watch, one types, and the monitor's keys arrive as well."""
    font = bench.font()
    with Machine(bench, "-M", board, "-vnc", "unix:@VNC,share=force-shared", "-vga", "std",
                 *bench.kernel_options("console=tty0 panic=-1 quiet")) as machine:
        machine.wait_for("kite#", font)
        with VncClient(machine.vnc) as client, VncClient(machine.vnc, shared=False) as other:
            for name in ("VNC_CONNECTED", "VNC_INITIALIZED"):
                data = machine.take_event(name)
                if data["client"]["family"] != "unix" or data["server"]["auth"] != "none":
                    machine.fail(f"{name}: {data}")
            if len(machine.qmp("query-vnc")["clients"]) != 2:
                machine.fail(f"query-vnc does not know both clients: {machine.qmp('query-vnc')}")
            client.type("echo Typed-$((6*7)); clear_me=1\n")
            wait_client(machine, client, "\nTyped-42", font)
            wait_client(machine, other, "\nTyped-42", font)
            for key in ("e", "c", "h", "o", "spc", "q", "m", "p", "ret"):
                machine.qmp("send-key", keys=[{"type": "qcode", "data": key}], **{"hold-time": 20})
            wait_client(machine, client, "\nqmp", font)
            machine.human("sendkey shift-a 20")
            wait_client(machine, other, "kite# A", font)
            same_picture(machine, other)
        for _ in range(100):
            if not machine.qmp("query-vnc")["clients"]:
                break
            time.sleep(0.05)
        else:
            machine.fail("clients that went are still there")
        machine.take_event("VNC_DISCONNECTED")


def linux_frame_buffer(bench, board):
    """Linux in 1024 by 768 pixels: the client is told of the size, and sees the linear frame buffer's console."""
    with Machine(bench, "-M", board, "-vnc", "unix:@VNC", "-vga", "std",
                 *bench.kernel_options("console=tty0 vga=0x318 panic=-1", bench.desktop_kernel)) as machine:
        with VncClient(machine.vnc) as client:
            client.update(incremental=False)
            while client.width != 1024:
                if time.monotonic() > machine.deadline:
                    machine.fail(f"the screen stays {client.width} by {client.height}")
                client.update()
            if client.height != 768:
                machine.fail(f"the height is {client.height}")
            lit = 0
            while lit < 5000:
                if time.monotonic() > machine.deadline:
                    machine.fail("nothing is on the frame buffer's console")
                client.update()
                lit = sum(1 for value in client.pixels[::3] if value)
            time.sleep(3)
            same_picture(machine, client)


def vnc_password(bench, _board):
    """Nobody gets in without the password; it can be changed, and come from a secret."""
    with Machine(bench, "-display", "vnc=unix:@VNC,password=on", "-vga", "std", "-S") as machine:
        for password in (None, "", "wrong"):
            try:
                VncClient(machine.vnc, password)
            except VncError:
                continue
            machine.fail(f"the password '{password}' lets in where none is set")
        machine.qmp("set_password", protocol="vnc", password="sesame")
        with VncClient(machine.vnc, "sesame") as client:
            client.update(incremental=False)
        machine.human("change vnc password other")
        try:
            VncClient(machine.vnc, "sesame")
            machine.fail("the old password lets in")
        except VncError:
            pass
        VncClient(machine.vnc, "other").socket.close()
        machine.qmp("expire_password", protocol="vnc", time="now")
        try:
            VncClient(machine.vnc, "other")
            machine.fail("a password that has run out lets in")
        except VncError:
            pass
        machine.qmp("expire_password", protocol="vnc", time="never")
        VncClient(machine.vnc, "other").socket.close()
        if machine.qmp("query-vnc")["auth"] != "vnc":
            machine.fail("query-vnc does not tell of the password")
    with Machine(bench, "-object", "secret,id=s0,data=hushhush", "-vnc", "unix:@VNC,password-secret=s0", "-vga", "std",
                 "-S") as machine:
        VncClient(machine.vnc, "hushhush").socket.close()


def slow_client(bench, board):
    """A client that asks for everything and reads nothing, and one that stops in the middle: the guest goes on."""
    font = bench.font()
    with Machine(bench, "-M", board, "-vnc", "unix:@VNC", "-vga", "std",
                 *bench.kernel_options("console=tty0 panic=-1 quiet")) as machine:
        machine.wait_for("kite#", font)
        with VncClient(machine.vnc) as slow, VncClient(machine.vnc) as half:
            for _ in range(20):
                slow.socket.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, 720, 400))
            half.socket.sendall(b"\x05\x00")
            begin = time.monotonic()
            for turn in range(5):
                for key in ("e", "c", "h", "o", "spc", str(turn), "ret"):
                    machine.qmp("send-key", keys=[{"type": "qcode", "data": key}], **{"hold-time": 10})
                machine.wait_for(f"\n{turn}\n", font)
            if time.monotonic() - begin > 20:
                machine.fail("the guest waited for the client")


def garbage_clients(bench, _board):
    """Bytes that are no protocol, and connections that say nothing: the server lives."""
    with Machine(bench, "-vnc", "unix:@VNC", "-vga", "std", "-S") as machine:
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"RFB 999.999\n\xff\xff\xff", b"\x00" * 4096,
                     b"RFB 003.008\n\x01\x01\x02" + b"\xff" * 400, b"RFB 003.003\n\x01" + bytes(range(256)) * 4):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(machine.vnc)
            try:
                connection.sendall(data)
            except OSError:
                pass  # dropped already
            connection.close()
        with VncClient(machine.vnc) as client:
            client.update(incremental=False)


def vnc_tls(bench, _board):
    """With TLS and certificates only those get in whom the authority vouches for, and who know the password, too."""
    with tempfile.TemporaryDirectory() as folder:
        files = Certificates(folder)
        with Machine(bench, "-object", f"tls-creds-x509,id=tls0,dir={folder},endpoint=server", "-object",
                     "secret,id=s0,data=sesame", "-vnc", "unix:@VNC,tls-creds=tls0,password-secret=s0", "-vga", "std",
                     "-S") as machine:
            known = files.client(folder)
            with VncClient(machine.vnc, "sesame", tls=known) as client:
                same_picture(machine, client)
                server = machine.qmp("query-vnc-servers")[0]
                if (server["auth"], server["vencrypt"], server["server"][0]["vencrypt"],
                        server["clients"][0]["x509_dname"]) != ("vencrypt", "x509-vnc", "x509-vnc", "CN=client"):
                    machine.fail(f"query-vnc-servers: {server}")
                data = machine.take_event("VNC_INITIALIZED")
                if (data["server"]["auth"], data["client"]["x509_dname"]) != ("vencrypt+x509+vnc", "CN=client"):
                    machine.fail(f"VNC_INITIALIZED: {data}")
                # Who is in the middle of it holds up nobody.
                for data in (b"", b"RFB 003.008\n", b"RFB 003.008\n\x13\0\x02\0\0\1\5",
                             b"RFB 003.008\n\x13\0\x02\0\0\1\5\x16\x03\x01\x02\x00\x01\x00"):
                    half = socket.socket(socket.AF_UNIX)
                    half.connect(machine.vnc)
                    half.sendall(data)
                    client.update(incremental=False)
                    half.close()
            for password, tls in ((None, None), ("sesame", None), ("wrong", known), (None, known),
                                  ("sesame", files.client()), ("sesame", files.client(files.stranger))):
                try:
                    VncClient(machine.vnc, password, tls=tls)
                except (VncError, OSError):
                    continue
                machine.fail(f"the password '{password}' with {tls} lets in")
            VncClient(machine.vnc, "sesame", tls=known).socket.close()


CASES = {"seabios banner": (seabios_banner, False), "vnc menu": (vnc_menu, False), "password": (vnc_password, False),
         "tls": (vnc_tls, False), "garbage": (garbage_clients, False), "linux console": (linux_console, True),
         "linux frame buffer": (linux_frame_buffer, True), "slow client": (slow_client, True)}
ON_BOTH_BOARDS = ("seabios banner", "linux console")


def main():
    bench, tally = Bench(sys.argv[1], sys.argv[2]), Tally("display")
    bench.run_cases(tally, CASES, ON_BOTH_BOARDS, sys.argv[3] if len(sys.argv) > 3 else "")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
