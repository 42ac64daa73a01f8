#!/usr/bin/env python3
"""A Linux guest with virtio's balloon, random number generator, serial ports and graphics card: memory that it gives
back is the host's again, random numbers are those of the file that was named, ports carry bytes both ways, however slowly
one side reads, and come and go, and what it draws is on the screen.

usage: virtio_test.py KITE GUESTS
Ends with 'virtio: N passed, N failed, N skipped'.
"""
import contextlib
import hashlib
import json
import os
import pathlib
import socket
import sys
import tempfile
import time

from guest import Guest, Stream, Tally

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "display"))
import screen  # noqa: E402
from vnc_client import VncClient  # noqa: E402

FLAVOUR, SCREEN_FLAVOUR = "6.1-cloud", "6.1"  # the second has drivers for screens
MIB = 1 << 20
BULK = 4 * MIB  # through a serial port


class Monitor:
    """A QMP client that remembers the events."""

    def __init__(self, guest, path):
        self.guest = guest
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.stream = Stream(self.socket)
        self.events = []
        self.stream.readline()
        self.run("qmp_capabilities")

    def close(self):
        self.stream.close()
        self.socket.close()

    def _line(self):
        line = self.stream.readline()
        if not line:
            self.guest.fail("the monitor's connection ended")
        return json.loads(line)

    def run(self, name, /, **arguments):
        self.stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.stream.flush()
        while True:
            answer = self._line()
            if "error" in answer:
                self.guest.fail(f"{name}: {answer['error']}")
            if "return" in answer:
                return answer["return"]
            self.events.append(answer)

    def wait(self, name, /, **data):
        """The next event of this name and with these data, of those that nobody has waited for."""
        while True:
            for at, event in enumerate(self.events):
                if event["event"] == name and data.items() <= event.get("data", {}).items():
                    del self.events[:at + 1]
                    return event["data"]
            self.events.append(self._line())


class Bench:
    def __init__(self, kite, guests):
        self.kite, self.guests = kite, guests
        self.kernel, self.initrd = self.files(FLAVOUR)
        self.commands = set()  # of the monitor, once a guest has run

    def files(self, flavour):
        return self.guests / flavour / "vmlinuz", self.guests / flavour / "initrd-disks.gz"

    @contextlib.contextmanager
    def start(self, *options, memory=256, flavour=FLAVOUR, load="load-virtio"):
        """A guest that has loaded its drivers, and its monitor."""
        kernel, initrd = self.files(flavour)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "qmp")
            words = [self.kite, "-accel", "jit", "-smp", "2", "-m", str(memory), "-nographic", "-kernel",
                     str(kernel), "-initrd", str(initrd), "-append", "console=ttyS0 quiet", "-qmp",
                     f"unix:{path},server=on,wait=off", *options]
            with Guest(words) as guest:
                guest.expect("kite# ")
                monitor = Monitor(guest, path)
                try:
                    guest.run(load)
                    self.commands = {command["name"] for command in monitor.run("query-commands")}
                    yield guest, monitor
                finally:
                    monitor.close()


def until(guest, what, condition):
    """Waits until `condition()`; a machine of which it never comes true has failed."""
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            guest.fail(f"{what} does not come true")
        time.sleep(0.2)


# --- the balloon

def total_of(guest):
    """MemTotal of the guest, in bytes."""
    return int(guest.run("sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) * 1024


def resident(guest):
    """Bytes of this host's memory that the machine has."""
    status = pathlib.Path(f"/proc/{guest.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def use_memory(guest, mebibytes):
    """The guest writes a file of this size into its memory and deletes it; answers its checksum."""
    said = guest.run(f"dd if=/dev/urandom of=/use bs=1M count={mebibytes} 2>/dev/null && md5sum </use && rm /use")
    return said.split()[0]


def balloon(bench, device):
    with bench.start("-device", device, memory=512) as (guest, monitor):
        total, size = total_of(guest), 512 * MIB
        use_memory(guest, 200)
        before = resident(guest)
        monitor.run("balloon", value=160 * MIB)
        # Several steps, of which the last is told; no more than one a second is.
        until(guest, "the size that was asked for", lambda: monitor.run("query-balloon")["actual"] == 160 * MIB)
        while monitor.wait("BALLOON_CHANGE")["actual"] != 160 * MIB:
            pass
        shrunk = total - total_of(guest)
        if shrunk != size - 160 * MIB:
            guest.fail(f"the guest's memory shrank by {shrunk} bytes")
        if resident(guest) > before - 150 * MIB:
            guest.fail(f"the process had {before} bytes and has {resident(guest)}")
        said = monitor.run("human-monitor-command", **{"command-line": "info balloon"})
        if said != "balloon: actual=160\r\n":
            guest.fail(f"info balloon says {said!r}")
        monitor.run("human-monitor-command", **{"command-line": "balloon 512"})
        until(guest, "all memory", lambda: monitor.run("query-balloon")["actual"] == size)
        if total_of(guest) != total:
            guest.fail("the guest has not all its memory again")
        use_memory(guest, 200)


def balloon_and_reset(bench):
    """A guest that is reset has all its memory, until its driver has seen to it."""
    with bench.start("-device", "virtio-balloon-pci,deflate-on-oom=on") as (guest, monitor):
        monitor.run("balloon", value=128 * MIB)
        until(guest, "the size that was asked for", lambda: monitor.run("query-balloon")["actual"] == 128 * MIB)
        monitor.run("system_reset")
        guest.expect("kite# ")
        if (actual := monitor.run("query-balloon")["actual"]) != 256 * MIB:
            guest.fail(f"after a reset the guest has {actual} bytes")
        guest.run("load-virtio")
        until(guest, "the size once more", lambda: monitor.run("query-balloon")["actual"] == 128 * MIB)
        use_memory(guest, 20)


def reporting(bench):
    """Free memory comes back by itself."""
    with bench.start("-device", "virtio-balloon-pci,free-page-reporting=on", memory=512) as (guest, _):
        guest.run("dd if=/dev/urandom of=/use bs=1M count=200 2>/dev/null")
        used = resident(guest)
        guest.run("rm /use")
        until(guest, "memory that comes back", lambda: resident(guest) < used - 150 * MIB)
        use_memory(guest, 200)


def statistics(bench):
    with bench.start("-device", "virtio-balloon-pci,id=balloon0") as (guest, monitor):
        place = {"path": "/machine/peripheral/balloon0"}
        monitor.run("qom-set", **place, property="guest-stats-polling-interval", value=1)
        until(guest, "the first statistics",
              lambda: monitor.run("qom-get", **place, property="guest-stats")["last-update"] != 0)
        stats = monitor.run("qom-get", **place, property="guest-stats")["stats"]
        if stats["stat-total-memory"] != total_of(guest):
            guest.fail(f"the guest has {total_of(guest)} bytes, but {stats}")


# --- random numbers

def random_numbers(bench, device):
    """The guest gets the numbers of the file that was named, which here is always the same."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"K" * MIB)
        file.flush()
        with bench.start("-object", f"rng-random,id=rng0,filename={file.name}", "-device", device) as (guest, _):
            if "virtio_rng" not in guest.run("cat /sys/class/misc/hw_random/rng_current"):
                guest.fail("the guest does not use the generator")
            said = guest.run("head -c 20000 /dev/hwrng | tr -d K | wc -c")
            if said != "0":
                guest.fail(f"{said} of 20000 bytes are none of the file's")


def generator_comes_and_goes(bench):
    """The host's generator, in small shares, plugged in while the guest runs."""
    with bench.start() as (guest, monitor):
        monitor.run("device_add", driver="virtio-rng-pci", id="rng1", **{"max-bytes": 1024, "period": 200})
        guest.run("load-virtio")
        sums = {guest.run("head -c 4096 /dev/hwrng | md5sum") for _ in range(2)}
        if len(sums) != 2:
            guest.fail("random numbers repeat")
        monitor.run("device_del", id="rng1")
        monitor.wait("DEVICE_DELETED", device="rng1")
        if guest.run("ls /sys/bus/virtio/devices"):
            guest.fail("the generator is gone, but the guest still has it")


# --- serial ports

class Ends:
    """The host's end of a port: a unix socket that Kite listens at."""

    def __init__(self, folder, name):
        self.path = os.path.join(folder, name)

    def chardev(self, name):
        return f"socket,id={name},path={self.path},server=on,wait=off"

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(120)
        connection.connect(self.path)
        return connection


def read_exactly(connection, count, slowly=False):
    content = b""
    while len(content) < count:
        part = connection.recv(min(count - len(content), 16384))
        if not part:
            break
        content += part
        if slowly and len(content) % 7 == 0:
            time.sleep(0.005)
    return content


PORT = "/dev/virtio-ports/org.qemu.guest_agent.0"


def both_ways(guest, ends):
    """Much data in both directions; the guest reads late, and the host slowly."""
    content = os.urandom(BULK)
    with ends.connect() as connection:
        guest.send(f"echo st''arts; sleep 2; head -c {BULK} {PORT} | md5sum\n")
        guest.expect("starts")
        connection.sendall(content)
        guest.expect(hashlib.md5(content).hexdigest())
        guest.expect("kite# ")
        guest.send(f"head -c {BULK} /dev/urandom >/up; echo gi''ves $(md5sum </up); cat /up >{PORT}; rm /up; echo do''ne\n")
        guest.expect("gives ")
        checksum = guest.expect(" -").strip()
        got = read_exactly(connection, BULK, slowly=True)
        if hashlib.md5(got).hexdigest() != checksum:
            guest.fail(f"what came out of the guest, {len(got)} bytes, is something else")
        guest.expect("done")
        guest.expect("kite# ")


def serial_port(bench, controller):
    with tempfile.TemporaryDirectory() as folder:
        ends = Ends(folder, "agent")
        options = ["-device", f"{controller},id=ports", "-chardev", ends.chardev("c0"), "-device",
                   "virtserialport,bus=ports.0,nr=1,chardev=c0,id=channel0,name=org.qemu.guest_agent.0"]
        with bench.start(*options) as (guest, monitor):
            def listens():
                return {entry["label"]: entry["frontend-open"] for entry in monitor.run("query-chardev")}["c0"]

            if listens():
                guest.fail("nobody has opened the port, but the monitor says so")
            guest.run(f"exec 5<>{PORT}")
            monitor.wait("VSERPORT_CHANGE", id="channel0", open=True)
            if not listens():
                guest.fail("the guest has opened the port, but the monitor does not say so")
            guest.run("exec 5>&-")
            monitor.wait("VSERPORT_CHANGE", id="channel0", open=False)
            both_ways(guest, ends)


def stops_on_the_way(bench):
    """Nothing is lost or doubled while the machine stops and goes on."""
    with tempfile.TemporaryDirectory() as folder:
        ends = Ends(folder, "agent")
        options = ["-device", "virtio-serial-pci", "-chardev", ends.chardev("c0"), "-device",
                   "virtserialport,chardev=c0,name=org.qemu.guest_agent.0"]
        with bench.start(*options) as (guest, monitor), ends.connect() as connection:
            content = os.urandom(MIB)
            guest.send(f"head -c {MIB} {PORT} >/in; md5sum </in; cat /in >{PORT}\n")
            connection.setblocking(False)
            sent, got = 0, b""
            deadline = time.monotonic() + 300
            while len(got) < MIB and time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    sent += connection.send(content[sent:sent + 40000])
                monitor.run("stop")
                with contextlib.suppress(BlockingIOError):
                    got += connection.recv(100000)
                monitor.run("cont")
            if got != content:
                guest.fail(f"of {MIB} bytes, {len(got)} came back, or others")
            guest.expect(hashlib.md5(content).hexdigest())


def ports_come_and_go(bench):
    with tempfile.TemporaryDirectory() as folder:
        ends = Ends(folder, "late")
        options = ["-device", "virtio-serial-pci,id=ports", "-chardev", ends.chardev("late")]
        with bench.start(*options) as (guest, monitor):
            for turn in range(3):
                name = f"com.redhat.spice.{turn}"
                monitor.run("device_add", driver="virtserialport", id="port", chardev="late", name=name)
                guest.run(f"for i in $(seq 1 50); do name-ports; [ -e /dev/virtio-ports/{name} ] && break; sleep 0.1; done; "
                          f"[ -e /dev/virtio-ports/{name} ]")
                with ends.connect() as connection:
                    guest.send(f"head -n 1 /dev/virtio-ports/{name}\n")
                    connection.sendall(f"turn {turn} is over\n".encode())
                    guest.expect(f"turn {turn} is over")
                    guest.expect("kite# ")
                monitor.run("device_del", id="port")
                monitor.wait("DEVICE_DELETED", device="port")
                guest.run("for i in $(seq 1 50); do [ -z \"$(ls /sys/class/virtio-ports)\" ] && break; sleep 0.1; done; "
                          "[ -z \"$(ls /sys/class/virtio-ports)\" ]")
            # The controller goes with what is on it.
            monitor.run("device_add", driver="virtserialport", id="port", chardev="late")
            monitor.run("device_del", id="ports")
            monitor.wait("DEVICE_DELETED", device="port")
            monitor.wait("DEVICE_DELETED", device="ports")


def console(bench):
    """A shell on a virtio console."""
    with tempfile.TemporaryDirectory() as folder:
        ends = Ends(folder, "console")
        options = ["-device", "virtio-serial-pci", "-chardev", ends.chardev("c0"), "-device",
                   "virtconsole,chardev=c0,id=hvc"]
        with bench.start(*options) as (guest, monitor), ends.connect() as connection:
            monitor.wait("VSERPORT_CHANGE", id="hvc", open=True)
            guest.send("setsid sh -c 'exec sh -i </dev/hvc0 >/dev/hvc0 2>&1' &\n")
            said = b""
            while b"kite# " not in said:
                said += connection.recv(4096)
            connection.sendall(b"echo se''ven\n")
            while b"seven" not in said:
                said += connection.recv(4096)


# --- the graphics card

def text_line(picture, font, row):
    """A line of Linux's console: white characters of 8 by 16 on black."""
    def glyph(column):
        left, top = column * 8, row * 16
        return bytes(sum(0x80 >> x for x in range(8) if any(picture.pixel(left + x, y))) for y in range(top, top + 16))
    return "".join(font.get(glyph(column), "?") for column in range(picture.width // 8)).rstrip()


def graphics(bench):
    """A VGA until the driver is there; then Linux's console, and what is written to its frame buffer, pixel by pixel. A
    VNC client is told of all that is new."""
    width, height = 640, 480
    font = screen.Bench(bench.kite, bench.guests).font()
    with tempfile.TemporaryDirectory() as folder, \
            bench.start("-device", f"virtio-vga,id=card,xres={width},yres={height}", "-vnc", f"unix:{folder}/vnc",
                        flavour=SCREEN_FLAVOUR, load="true") as (guest, monitor):
        def look():
            path = os.path.join(folder, "screen.ppm")
            monitor.run("screendump", filename=path, device="card")
            return screen.Picture.read(path)

        before = look()
        if (before.width, before.height) != (720, 400):
            guest.fail(f"before the driver is there, the screen is {before.width} by {before.height}")
        guest.run("modprobe virtio_pci; modprobe virtio-gpu; for i in $(seq 1 100); do [ -e /dev/fb0 ] && break; sleep 0.1; done; [ -e /dev/fb0 ]")
        said = "Kite paints the lines that it gets: 123456789"  # Linux's font has another w, x and 0
        guest.run(f"printf '\\033[2J\\033[H\\033[?25l{said}' >/dev/tty0")
        until(guest, "a screen of the driver's", lambda: (look().width, look().height) == (width, height))
        until(guest, f"the console's line, which is '{text_line(look(), font, 0)}'",
              lambda: text_line(look(), font, 0) == said)
        # Blue, green, red and a byte that is not seen, of a text whose length is no power of two.
        pattern = b"A virtio-gpu is a frame buffer that knows what is new.\n"
        size = width * height * 4
        drawn = (pattern * (size // len(pattern) + 1))[:size]
        shown = bytearray(width * height * 3)
        for part, source in enumerate((2, 1, 0)):
            shown[part::3] = drawn[source::4]
        with VncClient(f"{folder}/vnc") as client:
            client.update(incremental=False)
            # In one piece: Linux 6.1 (drm_fb_helper_memory_range_to_clip()) takes a write inside of one row that ends
            # where the row does for one without width, and tells nobody of it.
            guest.run(f"yes '{pattern.decode().strip()}' | head -c {size} >/picture && dd if=/picture of=/dev/fb0 bs={size}")
            try:
                until(guest, "the picture at a client's", lambda: client.update() or client.pixels == shown)
            except OSError as error:
                guest.fail(f"a client is not told of the picture: {error}")
        until(guest, "the picture that was written", lambda: look().pixels == bytes(shown))


def main():
    kite, guests = sys.argv[1], pathlib.Path(sys.argv[2])
    tally = Tally("virtio")
    bench = Bench(kite, guests)
    if not bench.kernel.exists() or not bench.initrd.exists():
        tally.skip("virtio", f"there is no kernel {FLAVOUR} with its initrd in {guests}; tools/get_kernel.sh gets it")
        return tally.finish()
    for name, device in (("", "virtio-balloon-pci"), (", legacy", "virtio-balloon-pci,disable-modern=on"),
                         (", packed rings", "virtio-balloon-pci-non-transitional,packed=on")):
        tally.run(f"a balloon{name}", balloon, bench, device)
    tally.run("a balloon and a reset", balloon_and_reset, bench)
    tally.run("free memory that is reported", reporting, bench)
    if "qom-set" in bench.commands:
        tally.run("statistics of the guest's memory", statistics, bench)
    else:
        tally.skip("statistics of the guest's memory", "the monitor has no qom-set to ask for them with")
    for name, device in (("", "virtio-rng-pci,rng=rng0"), (", legacy", "virtio-rng-pci,rng=rng0,disable-modern=on"),
                         (", packed rings", "virtio-rng-pci-non-transitional,rng=rng0,packed=on")):
        tally.run(f"random numbers{name}", random_numbers, bench, device)
    tally.run("a generator that comes and goes", generator_comes_and_goes, bench)
    for name, device in (("", "virtio-serial-pci"), (", legacy", "virtio-serial-pci,disable-modern=on"),
                         (", packed rings", "virtio-serial-pci-non-transitional,packed=on"),
                         (", no vectors", "virtio-serial-pci,vectors=0,ioeventfd=off")):
        tally.run(f"a serial port{name}", serial_port, bench, device)
    tally.run("a serial port of a machine that stops", stops_on_the_way, bench)
    tally.run("ports that come and go", ports_come_and_go, bench)
    tally.run("a console", console, bench)
    missing = [file for file in (*bench.files(SCREEN_FLAVOUR), screen.SEABIOS, screen.VGABIOS) if not os.path.exists(file)]
    if missing:
        tally.skip("a graphics card", f"{missing[0]} is missing")
    else:
        tally.run("a graphics card", graphics, bench)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
