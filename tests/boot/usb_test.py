#!/usr/bin/env python3
"""USB as guests see it: Linux finds a tablet and a keyboard on each controller, reads what is typed and pointed at by the
monitor and over VNC, and sees them come and go; it reads and writes a stick, and one that is pulled out; SeaBIOS takes
keys from a USB keyboard.

usage: usb_test.py KITE GUESTS
GUESTS holds 6.1/vmlinuz and 6.1/initrd-disks.gz. Ends with 'usb: N passed, N failed, N skipped'.
"""
import json
import os
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, "..", "display"))
from boot_test import wait_event  # noqa: E402
from guest import Guest, Stream, Tally  # noqa: E402
from vnc_client import VncClient  # noqa: E402

FLAVOUR = "6.1"
SEABIOS, VGABIOS = "/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/vgabios-stdvga.bin"
KEY, REL, ABS = 1, 2, 3  # Linux' event types
BUTTON_LEFT, KEY_A, KEY_LEFTSHIFT = 0x110, 30, 42


class UsbGuest(Guest):
    """A guest with QMP on a socket."""

    def __init__(self, bench, *options):
        self.folder = tempfile.mkdtemp(prefix="kite-usb-")
        self.vnc = f"{self.folder}/vnc.sock"
        super().__init__(bench.command(f"{self.folder}/qmp.sock", *[o.replace("@VNC", self.vnc) for o in options]),
                         limit=300)
        self.events = []
        while True:
            try:
                connection = socket.socket(socket.AF_UNIX)
                connection.settimeout(120)
                connection.connect(f"{self.folder}/qmp.sock")
                break
            except OSError:
                if self.process.poll() is not None:
                    self._read()
                    self.fail("there is no monitor")
                time.sleep(0.05)
        self.monitor = Stream(connection)
        self.monitor.readline()
        self.qmp("qmp_capabilities")

    def __exit__(self, *reason):
        super().__exit__(*reason)
        shutil.rmtree(self.folder, ignore_errors=True)

    def qmp(self, name, **arguments):
        self.monitor.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.monitor.flush()
        while True:
            answer = json.loads(self.monitor.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                self.fail(f"{name}: {answer['error']['desc']}")
            self.events.append(answer)

    def human(self, line):
        return self.qmp("human-monitor-command", **{"command-line": line})

    def wait_event(self, name, **data):
        while True:
            for event in self.events:
                if event["event"] == name and all(event["data"].get(key) == value for key, value in data.items()):
                    return
            self.events.append(json.loads(self.monitor.readline()))

    def user_space(self):
        self.expect("Kite: user space runs")
        self.expect("kite# ")
        return self

    def input_names(self):
        return re.findall(r'Name="([^"]*)"', self.run("cat /proc/bus/input/devices"))

    def wait_names(self, names, there=True):
        for _ in range(60):
            found = self.input_names()
            if all((name in found) == there for name in names):
                return
            self.run("sleep 0.5")
        self.fail(f"{names} did not {'come' if there else 'go'}; there are {found}")

    def event_file(self, name):
        """/dev/input/eventN of a device."""
        text = self.run("cat /proc/bus/input/devices")
        for block in text.split("\n\n"):
            if f'Name="{name}"' in block:
                return "/dev/input/" + re.search(r"event\d+", block).group()
        self.fail(f"there is no input device '{name}':\n{text}")

    def watch(self, name):
        self.run(f"cat {self.event_file(name)} >/tmp/events & sleep 0.3")

    def wait_input(self, *wanted):
        """Until these (type, code, value) have come, in their order."""
        for _ in range(40):
            text = self.run("hexdump -v -e '24/1 \"%02x\" \"\\n\"' /tmp/events")
            seen = [struct.unpack("<HHi", bytes.fromhex(line)[16:]) for line in text.split() if len(line) == 48]
            left = iter(seen)
            if all(event in left for event in wanted):
                self.run("kill %1; wait; rm /tmp/events")
                return
            self.run("sleep 0.2")
        self.fail(f"the guest read {seen}, where {wanted} was due")


class Bench:
    def __init__(self, kite, guests):
        self.kite = str(kite)
        self.kernel, self.initrd = guests / FLAVOUR / "vmlinuz", guests / FLAVOUR / "initrd-disks.gz"

    def command(self, qmp, *options):
        return [self.kite, "-accel", "jit", "-m", "256", "-display", "none", "-nodefaults", "-qmp",
                f"unix:{qmp},server=on,wait=off", *options]

    def linux(self, *options):
        return ["-serial", "stdio", "-kernel", str(self.kernel), "-initrd", str(self.initrd), "-append", "console=ttyS0 quiet", *options]


def button(name, down):
    return {"type": "btn", "data": {"button": name, "down": down}}


def key(name, down):
    return {"type": "key", "data": {"key": {"type": "qcode", "data": name}, "down": down}}


def axis(kind, name, value):
    return {"type": kind, "data": {"axis": name, "value": value}}


def linux_input(bench, *options):
    """Keys, places and buttons from input-send-event, by the names of the devices."""
    with UsbGuest(bench, *bench.linux(*options, "-device", "usb-tablet,id=tab", "-device", "usb-kbd,id=kbd", "-device",
                                      "usb-mouse")) as guest:
        guest.user_space()
        guest.run("load-usb")
        guest.wait_names(["Kite USB Tablet", "Kite USB Keyboard", "Kite USB Mouse"])
        if guest.human("info usb").count("Product USB") != 3:
            guest.fail("'info usb' does not show the devices")

        guest.watch("Kite USB Keyboard")
        guest.qmp("input-send-event", events=[key("shift", True), key("a", True), key("a", False), key("shift", False)])
        guest.wait_input((KEY, KEY_LEFTSHIFT, 1), (KEY, KEY_A, 1), (KEY, KEY_A, 0), (KEY, KEY_LEFTSHIFT, 0))

        mice = {mouse["name"]: mouse for mouse in guest.qmp("query-mice")}
        guest.human(f"mouse_set {mice['USB Tablet']['index']}")
        guest.watch("Kite USB Tablet")
        guest.qmp("input-send-event", events=[axis("abs", "x", 0x1234), axis("abs", "y", 0x4321)])
        guest.qmp("input-send-event", events=[button("left", True)])
        guest.qmp("input-send-event", events=[button("left", False), button("wheel-up", True)])
        guest.wait_input((ABS, 0, 0x1234), (ABS, 1, 0x4321), (KEY, BUTTON_LEFT, 1), (KEY, BUTTON_LEFT, 0), (REL, 8, -1))

        guest.human(f"mouse_set {mice['USB Mouse']['index']}")
        if "* Mouse #%d: USB Mouse" % mice["USB Mouse"]["index"] not in guest.human("info mice"):
            guest.fail("'mouse_set' does not choose the mouse")
        guest.watch("Kite USB Mouse")
        guest.human("mouse_move 5 -300")
        guest.human("mouse_button 1")
        guest.human("mouse_button 0")
        guest.wait_input((REL, 0, 5), (REL, 1, -127), (REL, 1, -127), (REL, 1, -46), (KEY, BUTTON_LEFT, 1),
                         (KEY, BUTTON_LEFT, 0))
        guest.send("poweroff -f\n")
        guest.wait_exit()


def vnc_pointer(bench, *options):
    """A VNC client's pointer is where it points at."""
    with UsbGuest(bench, *bench.linux("-vga", "std", "-vnc", "unix:@VNC", *options, "-device", "usb-tablet")) as guest:
        guest.user_space()
        guest.run("load-usb")
        guest.wait_names(["Kite USB Tablet"])
        guest.watch("Kite USB Tablet")
        with VncClient(guest.vnc) as client:
            client.update(incremental=False)
            client.pointer(client.width - 1, client.height - 1)
            guest.wait_input((ABS, 0, 0x7fff), (ABS, 1, 0x7fff))
            guest.watch("Kite USB Tablet")
            client.pointer(0, 0, 1)
            client.pointer(0, 0, 0)
            guest.wait_input((KEY, BUTTON_LEFT, 1), (ABS, 0, 0), (ABS, 1, 0), (KEY, BUTTON_LEFT, 0))


def wake_up(bench, *options):
    """A tablet that the guest has put to sleep, with its bus, wakes it up."""
    with UsbGuest(bench, *bench.linux(*options, "-device", "usb-tablet")) as guest:
        guest.user_space()
        guest.run("load-usb")
        guest.wait_names(["Kite USB Tablet"])
        guest.watch("Kite USB Tablet")
        guest.run("echo enabled >/sys/bus/usb/devices/1-1/power/wakeup")
        guest.run("for d in /sys/bus/usb/devices/*/power; do echo 100 >$d/autosuspend_delay_ms; echo auto >$d/control; done")
        for _ in range(60):
            if guest.run("cat /sys/bus/usb/devices/usb1/power/runtime_status") == "suspended":
                break
            guest.run("sleep 0.5")
        else:
            guest.fail("the bus does not go to sleep")
        guest.qmp("input-send-event", events=[axis("abs", "x", 0x1111)])
        guest.wait_input((ABS, 0, 0x1111))


def hotplug(bench, *options):
    """Devices come and go while the guest runs; a name that goes can come again."""
    with UsbGuest(bench, *bench.linux(*options)) as guest:
        guest.user_space()
        guest.run("load-usb")
        for _ in range(2):
            guest.qmp("device_add", driver="usb-tablet", id="tab")
            guest.qmp("device_add", driver="usb-kbd", id="kbd")
            guest.wait_names(["Kite USB Tablet", "Kite USB Keyboard"])
            guest.qmp("device_del", id="tab")
            guest.wait_event("DEVICE_DELETED", device="tab")
            guest.wait_names(["Kite USB Tablet"], there=False)
            guest.qmp("device_del", id="kbd")
            guest.wait_event("DEVICE_DELETED", device="kbd")
            guest.wait_names(["Kite USB Keyboard"], there=False)
            guest.events.clear()
        guest.qmp("device_add", driver="usb-tablet", id="tab")
        guest.wait_names(["Kite USB Tablet"])
        guest.run("rmmod uhci_hcd; rmmod xhci_pci; true")
        guest.run("load-usb")
        guest.wait_names(["Kite USB Tablet"])


def plug_controller(bench, *_):
    """A controller with a tablet on it comes and goes."""
    with UsbGuest(bench, *bench.linux()) as guest:
        guest.user_space()
        guest.run("modprobe -q acpiphp; load-usb")
        guest.qmp("device_add", driver="qemu-xhci", id="xhci")
        guest.qmp("device_add", driver="usb-tablet", id="tab", bus="xhci.0")
        guest.wait_names(["Kite USB Tablet"])
        guest.qmp("device_del", id="xhci")
        guest.wait_event("DEVICE_DELETED", device="tab")
        guest.wait_event("DEVICE_DELETED", device="xhci")
        guest.wait_names(["Kite USB Tablet"], there=False)


STICK_MIB = 4


class Stick:
    """An image, plugged into a guest that has booted, and pulled out."""

    def __init__(self, bench, guest, form="raw"):
        self.guest, self.form, self.path = guest, form, f"{guest.folder}/stick.img"
        subprocess.run([bench.kite, "img", "create", "-q", "-f", form, self.path, f"{STICK_MIB}M"], check=True)
        guest.user_space()
        guest.run("load-usb; modprobe -q sd_mod")

    def plug(self, **properties):
        self.guest.qmp("blockdev-add", **{"driver": self.form, "node-name": "stick",
                                          "file": {"driver": "file", "filename": self.path}})
        self.guest.qmp("device_add", driver="usb-storage", id="st", drive="stick", **properties)
        self.wait()

    def pull(self, meanwhile="true"):
        self.guest.qmp("device_del", id="st")
        self.guest.wait_event("DEVICE_DELETED", device="st")
        self.guest.run(meanwhile)
        self.wait(there=False)
        self.guest.qmp("blockdev-del", **{"node-name": "stick"})
        self.guest.events.clear()

    def wait(self, there=True):
        for _ in range(120):
            if (self.guest.run("cat /sys/block/sda/size 2>/dev/null || true") == str(STICK_MIB * 2048)) == there:
                return
            self.guest.run("sleep 0.5")
        self.guest.fail(f"the disk does not {'come' if there else 'go'}: {self.guest.run('dmesg | tail -n 20')}")

    def make_data(self):
        """Fills /tmp/data with as much as the stick holds; answers its sum."""
        self.guest.run(f"dd if=/dev/urandom of=/tmp/data bs=64k count={STICK_MIB * 16} 2>/dev/null")
        return self.checksum("/tmp/data")

    def checksum(self, where="/dev/sda"):
        self.guest.run("echo 3 >/proc/sys/vm/drop_caches")
        return self.guest.run(f"dd if={where} bs=64k count={STICK_MIB * 16} 2>/dev/null | md5sum").split()[0]


def storage(bench, *options):
    """A stick comes, is written, read, pulled out, and plugged in again with what was written; its image has it."""
    with UsbGuest(bench, *bench.linux(*options)) as guest:
        stick = Stick(bench, guest, "qcow2")
        wanted = stick.make_data()
        for turn in range(2):
            stick.plug(serial="KITE4711", removable=turn == 1)
            if guest.run("cat /sys/block/sda/removable") != str(turn):
                guest.fail("the disk is not as removable as it was to be")
            if guest.run("cat /sys/bus/usb/devices/*/serial | grep -c KITE4711 || true") != "1":
                guest.fail("the serial number is another one")
            if turn == 0:
                guest.run("dd if=/tmp/data of=/dev/sda bs=64k conv=fsync 2>/dev/null")
            if stick.checksum() != wanted:
                guest.fail(f"what was read is not what was written, in turn {turn}: {guest.run('dmesg | tail -n 20')}")
            shown = guest.qmp("query-block")
            if [block["qdev"] for block in shown] != ["/machine/peripheral/st/st.0/legacy[0]"]:
                guest.fail(f"query-block shows {shown}")
            stick.pull()


def pull_under_load(bench, *options):
    """A stick that is pulled out while it is written to ends the writing, and another one works."""
    with UsbGuest(bench, *bench.linux(*options)) as guest:
        stick = Stick(bench, guest)
        for _ in range(2):
            stick.plug()
            guest.run("(while dd if=/dev/zero of=/dev/sda bs=64k oflag=direct; do :; done) 2>/dev/null & sleep 1")
            stick.pull(meanwhile="wait")


def saved(bench, *options):
    """A machine that is kept while its stick is written to goes on with the writing."""
    with UsbGuest(bench, *bench.linux(*options)) as guest:
        stick = Stick(bench, guest, "qcow2")
        stick.plug()
        wanted = stick.make_data()
        guest.run("(dd if=/tmp/data of=/dev/sda bs=64k oflag=direct; echo status $? >/tmp/done) 2>/dev/null & true")
        said = guest.human("savevm one")
        for turn in range(2):
            for _ in range(240):
                if "status 0" in guest.run("cat /tmp/done 2>/dev/null || true"):
                    break
                guest.run("sleep 0.5")
            else:
                guest.fail(f"the writing does not end: {guest.run('dmesg | tail -n 20')}")
            if stick.checksum() != wanted:
                guest.fail(f"the stick has not what was written to it, in turn {turn}")
            if turn == 0 and (said or guest.human("loadvm one")):
                guest.fail(f"savevm or loadvm: {said}")


def speeds(bench, *_):
    """On a connector with both sides a stick runs at its fastest, and at USB 2's where there is no other."""
    buses = ("-device", "qemu-xhci,id=three", "-device", "qemu-xhci,id=two,p3=0", "-usb")
    with UsbGuest(bench, *bench.linux(*buses)) as guest:
        stick = Stick(bench, guest)
        for bus, speed in (("three.0", "5000"), ("two.0", "480"), ("usb-bus.0", "12")):
            stick.plug(bus=bus)
            if guest.run("cat $(dirname $(grep -l 46f4 /sys/bus/usb/devices/*/idVendor))/speed") != speed:
                guest.fail(f"on {bus} the stick does not run at {speed} Mb/s")
            if f"Speed {speed} Mb/s, Product USB Storage, ID: st" not in guest.human("info usb"):
                guest.fail(f"'info usb' shows {guest.human('info usb')}")
            stick.pull()


def seabios_keyboard(bench, *options):
    """SeaBIOS gives the keyboard an address, and its key opens the boot menu."""
    with UsbGuest(bench, "-vga", "std", "-boot", "menu=on,splash-time=60000", "-chardev",
                  "stdio,id=log", "-device", "isa-debugcon,iobase=0x402,chardev=log", *options,
                  "-device", "usb-kbd") as guest:
        guest.expect("USB keyboard initialized")
        guest.expect("Press ESC for boot menu")
        if not re.search(r"Device 0\.[1-9]\d*, .*USB Keyboard", guest.human("info usb")):
            guest.fail(f"SeaBIOS does not use the keyboard: {guest.human('info usb')}")
        guest.qmp("send-key", keys=[{"type": "qcode", "data": "esc"}])
        guest.expect("Select boot device")


def command_line(bench, *_):
    """What cannot be is refused with its reason."""
    cases = {("-device", "usb-tablet"): "has no USB",
             ("-usb", "-device", "usb-tablet,bus=usb-bus.1"): "no USB bus 'usb-bus.1'",
             ("-usb", "-device", "usb-tablet,port=3"): "no port '3'",
             ("-usb", "-device", "usb-tablet,port=1", "-device", "usb-kbd,port=1"): "is taken",
             ("-usb", *(["-device", "usb-kbd"] * 3)): "no USB port is free",
             ("-usb", "-device", "usb-storage"): "no drive",
             ("-device", "usb-storage,drive=x"): "can't find value 'x'",
             ("-drive", "if=none,id=x,driver=null-co,size=1M", "-device", "usb-storage,drive=x"): "has no USB",
             ("-usb", "-drive", "if=none,id=x,driver=null-co,size=1M", "-device", "usb-storage,drive=x,removeable=on"):
             "removable",
             ("-usbdevice", "disk:x"): "no such device",
             ("-device", "qemu-xhci,p2=0,p3=0"): "needs a port",
             ("-M", "none", "-usb"): "no place"}
    for options, reason in cases.items():
        done = subprocess.run([bench.kite, "-accel", "qtest", "-display", "none", *options], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)
        if done.returncode == 0 or reason not in done.stderr:
            raise_error(f"{' '.join(options)}: status {done.returncode}, {done.stderr!r}, where '{reason}' was due")
    with UsbGuest(bench, "-S", "-usbdevice", "tablet", "-usbdevice", "keyboard") as guest:
        if guest.human("info usb").count("Speed 12 Mb/s") != 2:
            guest.fail("-usbdevice adds no devices")


def raise_error(text):
    from guest import GuestError
    raise GuestError(text)


UHCI, XHCI = ("-usb",), ("-device", "qemu-xhci")
CASES = [("command line", command_line, (), False)]
for board in ("pc", "q35"):
    for kind, controller in (("uhci", UHCI), ("xhci", XHCI)):
        machine = ("-M", board, *controller)
        CASES += [(f"seabios, {board}, {kind}", seabios_keyboard, machine, False),
                  (f"input, {board}, {kind}", linux_input,
                   machine if kind == "xhci" or board == "q35" else (*machine, "-device", "piix4-usb-uhci"), True)]
CASES += [("input, pc, nec-usb-xhci", linux_input, ("-device", "nec-usb-xhci"), True),
          ("vnc pointer, uhci", vnc_pointer, UHCI, True), ("vnc pointer, xhci", vnc_pointer, XHCI, True),
          ("wake-up, uhci", wake_up, UHCI, True), ("wake-up, xhci", wake_up, XHCI, True),
          ("hot-plug, uhci", hotplug, UHCI, True), ("hot-plug, xhci", hotplug, XHCI, True),
          ("hot-plug of a controller", plug_controller, (), True),
          ("storage, uhci", storage, UHCI, True), ("storage, xhci", storage, XHCI, True),
          ("storage, speeds", speeds, (), True),
          ("storage, saved, uhci", saved, UHCI, True), ("storage, saved, xhci", saved, XHCI, True),
          ("storage, pulled out, uhci", pull_under_load, UHCI, True),
          ("storage, pulled out, xhci", pull_under_load, XHCI, True)]


def main():
    bench, tally = Bench(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()), Tally("usb")
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    for name, case, options, wants_kernel in CASES:
        if only not in name:
            continue
        needed = [bench.kernel, bench.initrd] if wants_kernel else [SEABIOS, VGABIOS]
        missing = [str(file) for file in needed if not os.path.exists(file)]
        if missing:
            tally.skip(name, f"{missing[0]} is missing")
        else:
            tally.run(name, case, bench, *options)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
