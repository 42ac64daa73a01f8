#!/usr/bin/env python3
"""libvirt, unmodified, drives machines of Kite's: it asks what the binary can do, defines domains, starts them, and does
with virsh what its users do, while a Linux guest on the serial console says what it sees.

usage: libvirt_test.py KITE GUESTS
GUESTS holds 6.1-cloud/vmlinuz and 6.1-cloud/initrd-disks.gz, and for USB the same of 6.1. Ends with 'libvirt: N passed,
N failed, N skipped'.
"""
import json
import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE] + [os.path.join(HERE, "..", folder) for folder in ("boot", "display", "process")]
from guest import GuestError, Tally  # noqa: E402
import host as libvirt  # noqa: E402
from spice_client import Port, SpiceClient  # noqa: E402
from vnc_client import VncClient  # noqa: E402

FLAVOUR, USB_FLAVOUR = "6.1-cloud", "6.1"  # the second has drivers for USB
LIMIT = 200
DISK_BYTES = 64 << 20


def wanted(condition, why):
    if not condition:
        raise GuestError(why)


class Console:
    """The guest's serial console as `virsh console` gives it."""

    def __init__(self, domain):
        self.domain = domain
        self.text = b""
        self.seen = 0
        self.deadline = time.monotonic() + LIMIT
        pid, self.master = pty.fork()
        if pid == 0:
            os.environ["LC_ALL"] = "C"
            os.execvp("virsh", ["virsh", "-c", "qemu:///system", "console", "--force", domain.name])
        self.pid = pid
        self.expect("Escape character is")  # what is typed before goes nowhere

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self.master < 0:
            return
        os.close(self.master)
        self.master = -1
        os.waitpid(self.pid, 0)

    def fail(self, why):
        raise GuestError(f"{why}\n--- end of the console ---\n{self.text[-2500:].decode(errors='replace')}\n"
                         f"--- the machine's log ---\n{self.domain.host.machine_log(self.domain.name)}")

    def expect(self, text):
        needle = text.encode()
        while (at := self.text.find(needle, self.seen)) < 0:
            if time.monotonic() > self.deadline:
                self.fail(f"'{text}' did not appear in time")
            ready, _, _ = select.select([self.master], [], [], 0.5)
            if not ready:
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            if not data:
                self.fail(f"the console ended before '{text}' appeared")
            self.text += data
        before = self.text[self.seen:at]
        self.seen = at + len(needle)
        return before.decode(errors="replace")

    def send(self, text):
        os.write(self.master, text.encode())

    def wake(self):
        """Gets a prompt of a shell that waits. What is typed while virsh still sets its terminal up is lost, so more than once."""
        start = self.seen
        while b"kite# " not in self.text[start:]:
            if time.monotonic() > self.deadline:
                self.fail("the shell does not answer")
            self.send("\n")
            if select.select([self.master], [], [], 1)[0]:
                self.text += os.read(self.master, 65536)
        self.expect("kite# ")

    def run(self, command):
        """Runs a shell command in the guest and answers its output. The shell shows its prompt now."""
        self.send(f'echo ==be""gin==; {command}; echo ==d""one==\n')
        self.expect("==begin==\r\n")
        output = self.expect("==done==")
        self.expect("kite# ")
        return output.replace("\r", "").strip()


class Domain:
    """A domain that is defined for the length of a test."""

    def __init__(self, bench, name, kind="qemu", board="pc", extra="", devices="", firmware="", memory=256,
                 cpus=2, flavour=FLAVOUR, features="", os_kind=""):
        self.bench, self.host, self.name = bench, bench.host, name
        self.disk = f"{bench.host.folder}/{name}.qcow2"
        subprocess.run([bench.kite, "img", "create", "-q", "-f", "qcow2", self.disk, str(DISK_BYTES)], check=True)
        self.xml = f"""<domain type='{kind}'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>{cpus}</vcpu>
  <os {os_kind}>
    <type arch='x86_64' machine='{board}'>hvm</type>
    {firmware}
    <kernel>{bench.guests / flavour}/vmlinuz</kernel>
    <initrd>{bench.guests / flavour}/initrd-disks.gz</initrd>
    <cmdline>console=ttyS0 quiet panic=-1</cmdline>
  </os>
  <features><acpi/><apic/>{features}</features>
  {extra}
  <devices>
    <emulator>{bench.kite}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='{self.disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='ethernet'>
      <mac address='52:54:00:11:22:33'/>
      <target dev='kite0'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'><target port='0'/></serial>
    {devices}
  </devices>
</domain>
"""

    def __enter__(self):
        path = f"{self.host.folder}/{self.name}.xml"
        libvirt.Host.write(path, self.xml)
        self.virsh_plain("define", path)
        return self

    def __exit__(self, *_):
        self.host.try_virsh("destroy", self.name)
        self.host.try_virsh("undefine", "--nvram", "--snapshots-metadata", self.name)

    def virsh_plain(self, *words):
        return self.host.virsh(*words)

    def virsh(self, command, *words):
        return self.host.virsh(command, self.name, *words)

    def start(self):
        try:
            self.virsh("start")
        except GuestError as error:
            raise GuestError(f"{error}\n--- the machine's log ---\n{self.host.machine_log(self.name)}") from error

    def state(self, reason=False):
        return self.virsh("domstate", *(["--reason"] if reason else []))

    def await_state(self, state):
        deadline = time.monotonic() + LIMIT
        while (now := self.state(reason=True)) != state:
            if time.monotonic() > deadline:
                raise GuestError(f"the domain is '{now}', not '{state}'\n{self.host.machine_log(self.name)}")
            time.sleep(0.2)

    def stats(self, *groups):
        lines = self.virsh("domstats", *groups).splitlines()
        return dict(line.strip().split("=", 1) for line in lines if "=" in line)

    def qmp(self, command, **arguments):
        text = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(self.virsh("qemu-monitor-command", text))

    def boot(self):
        """Starts it and answers its console, at the shell."""
        self.start()
        console = Console(self)
        console.expect("kite# ")
        return console


class Bench:
    def __init__(self, kite, guests, host):
        self.kite, self.guests, self.host = kite, guests, host

    def domain(self, name, **options):
        return Domain(self, name, **options)


def probe(bench):
    """What libvirt found out: boards, CPUs, devices."""
    for kind in ("qemu", "kvm") if os.access("/dev/kvm", os.R_OK | os.W_OK) else ("qemu",):
        text = bench.host.virsh("domcapabilities", "--emulatorbin", bench.kite, "--virttype", kind, "--machine", "pc")
        wanted("<machine>pc-i440fx-7.2</machine>" in text, f"{kind}: 'pc' has no canonical name: {text[:400]}")
        wanted(f"<domain>{kind}</domain>" in text, f"{kind}: it is no domain type")
        usable = re.search(r"<model usable='yes'[^>]*>qemu64</model>", text)
        wanted(usable or kind == "kvm", f"{kind}: qemu64 is not usable")  # a KVM may give less than that
        wanted("<mode name='host-passthrough' supported='yes'>" in text or kind == "qemu", f"{kind}: no host-passthrough")
        for part in ("<value>vnc</value>", "<value>virtio</value>", "<value>vga</value>"):
            wanted(part in text, f"{kind}: {part} is not offered: {text}")
    text = bench.host.virsh("domcapabilities", "--emulatorbin", bench.kite, "--virttype", "qemu", "--machine", "q35")
    wanted("<machine>pc-q35-7.2</machine>" in text, f"'q35' has no canonical name: {text[:400]}")


def watch(bench, board):
    """Start, and what can be seen of it: state, CPUs, memory, disk and network counters."""
    with bench.domain("watch", board=board) as domain, domain.boot() as console:
        wanted(domain.state() == "running", f"the domain is {domain.state()}")
        wanted(re.search(r"\bwatch +running\b", bench.host.virsh("list")), "it is not in the list")
        info = domain.virsh("dominfo")
        wanted(re.search(r"CPU\(s\): +2\b", info), f"dominfo: {info}")
        vcpus = domain.virsh("vcpuinfo")
        wanted(vcpus.count("State:          running") == 2 and "CPU time:" in vcpus, f"vcpuinfo: {vcpus}")
        said = console.run("load-disks 2>&1; dd if=/dev/vda of=/dev/null bs=1M count=8 iflag=direct 2>&1 | tail -n 1;"
                           "dd if=/dev/zero of=/dev/vda bs=1M count=4 oflag=direct conv=fsync 2>&1 | tail -n 1")
        wanted("vda" in said, f"the guest has no disk: {said}")
        console.run("modprobe af_packet; modprobe virtio_pci; modprobe virtio_net; ip addr add 192.168.77.2/24 dev eth0;"
                    "ip link set eth0 up")
        subprocess.run(["ip", "addr", "add", "192.168.77.1/24", "dev", "kite0"], check=True)
        subprocess.run(["ip", "link", "set", "kite0", "up"], check=True)
        said = console.run("ping -c 3 -w 20 192.168.77.1")
        wanted(" 0% packet loss" in said, f"the guest does not reach its host: {said}")
        stats = domain.stats()
        wanted(int(stats["block.0.rd.bytes"]) >= 8 << 20 and int(stats["block.0.wr.bytes"]) >= 4 << 20,
               f"counters of the disk: {stats}")
        wanted(int(stats["net.0.rx.pkts"]) >= 3 and int(stats["net.0.tx.pkts"]) >= 3, f"of the network: {stats}")
        wanted(int(stats["cpu.time"]) > 0 and int(stats["vcpu.0.time"]) > 0, f"of the CPUs: {stats}")
        wanted(stats["balloon.current"] == stats["balloon.maximum"] == str(256 << 10), f"of memory: {stats}")
        wanted(re.search(r"vda rd_bytes [1-9]", domain.virsh("domblkstat", "vda")), "domblkstat has no reads")
        wanted(re.search(r"kite0 rx_packets [1-9]", domain.virsh("domifstat", "kite0")), "domifstat has no packets")
        wanted("/dev/pts/" in domain.virsh("ttyconsole"), "it has no console")
        wanted("deep" in console.run("cat /sys/power/mem_sleep"), "the guest cannot suspend to RAM")


def run_state(bench):
    """Paused, running, reset; the guest that reboots and is rebooted; the power button; the guest that powers off."""
    cells = """<cpu><topology sockets='2' dies='1' cores='1' threads='1'/><numa>
      <cell id='0' cpus='0' memory='160' unit='MiB'/><cell id='1' cpus='1' memory='96' unit='MiB'/></numa></cpu>"""
    with bench.domain("states", extra=cells) as domain, domain.boot() as console:
        said = console.run("cat /sys/devices/system/node/node*/cpulist /sys/devices/system/cpu/cpu1/topology/physical_package_id")
        wanted(said.split() == ["0", "1", "1"], f"the guest sees other cells and sockets: {said}")
        console.run("watch-power")
        domain.virsh("suspend")
        wanted(domain.state(reason=True) == "paused (user)", f"it is {domain.state(reason=True)}")
        domain.virsh("resume")
        wanted(domain.state() == "running", f"it is {domain.state()}")
        wanted(console.run("echo still here") == "still here", "the guest has gone")
        domain.virsh("reset")
        console.expect("kite# ")
        console.send("reboot -f\n")
        console.expect("kite# ")
        console.run("watch-power")
        domain.virsh("reboot", "--mode", "acpi")
        console.expect("the power button was pressed")
        console.expect("kite# ")
        wanted(domain.state(reason=True).startswith("running"), f"it is {domain.state(reason=True)}")
        console.run("watch-power")
        domain.virsh("shutdown", "--mode", "acpi")
        domain.await_state("shut off (shutdown)")
    with bench.domain("states") as domain:
        with domain.boot() as console:
            console.send("poweroff -f\n")
            domain.await_state("shut off (shutdown)")
        domain.start()
        domain.virsh("destroy")
        wanted(domain.state(reason=True) == "shut off (destroyed)", f"it is {domain.state(reason=True)}")


def disks(bench):
    """A disk that grows, is limited, comes and goes."""
    extra = f"{bench.host.folder}/extra.img"
    pathlib.Path(extra).write_bytes(b"hot-plugged!".ljust(1 << 20, b"\0"))
    with bench.domain("disks") as domain, domain.boot() as console:
        console.run("load-disks 2>&1")
        domain.virsh("blockresize", "vda", "96M")
        size = console.run("for i in $(seq 1 100); do [ $(cat /sys/block/vda/size) = 196608 ] && break; sleep 0.1; done;"
                           "cat /sys/block/vda/size")
        wanted(size == "196608", f"the guest's disk has {size} sectors after the resize")
        domain.virsh("blkdeviotune", "vda", "--total-bytes-sec", "10485760")
        wanted(re.search(r"total_bytes_sec: +10485760", domain.virsh("blkdeviotune", "vda")), "the limit is not there")
        limits = domain.qmp("query-block")["return"][0]["inserted"]
        wanted(limits["bps"] == 10485760, f"the machine does not know the limit: {limits}")
        for _ in range(2):
            domain.virsh("attach-disk", extra, "vdb", "--targetbus", "virtio", "--subdriver", "raw", "--live")
            said = console.run("for i in $(seq 1 100); do [ -b /dev/vdb ] && break; sleep 0.1; done; head -c 12 /dev/vdb")
            wanted(said == "hot-plugged!", f"the guest reads '{said}' from the new disk")
            domain.virsh("detach-disk", "vdb", "--live")
            said = console.run("for i in $(seq 1 100); do [ -b /dev/vdb ] || break; sleep 0.1; done; ls /sys/block")
            wanted("vdb" not in said, f"the guest still has the disk: {said}")
            wanted("vdb" not in domain.virsh("domblklist"), "libvirt still has the disk")


def media(bench, board, bus, target):
    """A CD drive without a medium gets one, which the guest reads, and loses it."""
    image = f"{bench.host.folder}/cd.iso"
    pathlib.Path(image).write_bytes(b"on the compact disc".ljust(1 << 20, b"\0"))
    drive = f"<disk type='file' device='cdrom'><target dev='{target}' bus='{bus}'/><readonly/></disk>"
    controller = "<controller type='scsi' model='virtio-scsi'/>" if bus == "scsi" else ""
    with bench.domain("media", board=board, devices=drive + controller) as domain, domain.boot() as console:
        wanted("sr0" in console.run("dmesg -n 1; load-disks 2>&1"), "the guest has no CD drive")
        domain.virsh("change-media", target, image, "--insert", "--live")
        said = console.run("for i in $(seq 1 50); do head -c 19 /dev/sr0 2>/dev/null && break; sleep 0.1; done")
        wanted(said == "on the compact disc", f"the guest reads '{said}'")
        wanted(re.search(r"rd_bytes [1-9]", domain.virsh("domblkstat", target)), "domblkstat has no reads")
        domain.virsh("change-media", target, "--eject", "--live", "--force")
        wanted(re.search(rf"{target} +-", domain.virsh("domblklist")), "libvirt still has the medium")
        said = console.run("head -c 19 /dev/sr0 2>&1")
        wanted("compact" not in said, f"the guest still reads '{said}'")


def sticks(bench, controller):
    """A USB stick from the start, and one that comes and goes."""
    image, second = f"{bench.host.folder}/stick.img", f"{bench.host.folder}/second.img"
    pathlib.Path(image).write_bytes(b"on the stick".ljust(1 << 20, b"\0"))
    pathlib.Path(second).write_bytes(b"the second one".ljust(1 << 20, b"\0"))
    devices = f"""<controller type='usb' index='0' model='{controller}'/>
    <disk type='file' device='disk'><driver name='qemu' type='raw' error_policy='report'/><source file='{image}'/>
      <target dev='sda' bus='usb' removable='on'/><serial>KITE4711</serial></disk>"""
    with bench.domain("sticks", devices=devices, flavour=USB_FLAVOUR) as domain, domain.boot() as console:
        console.run("dmesg -n 1; load-usb 2>&1; modprobe sd_mod")
        look = "for i in $(seq 1 100); do [ -b /dev/{0} ] && break; sleep 0.1; done; head -c {1} /dev/{0}"
        said = console.run(look.format("sda", 12) + "; cat /sys/block/sda/removable")
        wanted(said == "on the stick1", f"the guest reads '{said}'")
        wanted(re.search(r"rd_bytes [1-9]", domain.virsh("domblkstat", "sda")), "domblkstat has no reads")
        domain.virsh("attach-disk", second, "sdb", "--targetbus", "usb", "--subdriver", "raw", "--live")
        said = console.run(look.format("sdb", 14))
        wanted(said == "the second one", f"the guest reads '{said}' from the new stick")
        domain.virsh("detach-disk", "sdb", "--live")
        said = console.run("for i in $(seq 1 100); do [ -b /dev/sdb ] || break; sleep 0.1; done; ls /sys/block")
        wanted("sdb" not in said and "sda" in said, f"the guest has the disks {said}")


def efi(bench):
    """Firmware in flash chips that the domain names, and that libvirt chooses: OVMF, the second time with secure boot."""
    named = {"firmware": "<loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"
                         "<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>"}
    chosen = {"os_kind": "firmware='efi'", "features": "<smm state='on'/>",
              "firmware": "<firmware><feature enabled='yes' name='secure-boot'/><feature enabled='yes' name='enrolled-keys'/></firmware>"}
    for secure, parts in (("0", named), ("1", chosen)):
        with bench.domain("efi", board="q35", **parts) as domain, domain.boot() as console:
            wanted(console.run("ls -d /sys/firmware/efi") == "/sys/firmware/efi", "the guest was not started by EFI")
            said = console.run("dmesg | grep -c 'Secure boot enabled'")
            wanted(said == secure, f"secure boot: {said}")


def network(bench):
    """A link that goes down and up; a card that comes and goes."""
    card = f"{bench.host.folder}/card.xml"
    libvirt.Host.write(card, "<interface type='ethernet'><mac address='52:54:00:11:22:44'/><target dev='kite1'/>"
                             "<model type='virtio'/></interface>")
    with bench.domain("network") as domain, domain.boot() as console:
        console.run("modprobe af_packet; modprobe virtio_pci; modprobe virtio_net; ip link set eth0 up")
        for state, carrier in (("down", "0"), ("up", "1")):
            domain.virsh("domif-setlink", "kite0", state)
            wanted(f"kite0 {state}" in domain.virsh("domif-getlink", "kite0"), f"the link is not {state}")
            said = console.run("for i in $(seq 1 100); do [ $(cat /sys/class/net/eth0/carrier) = %s ] && break; sleep 0.1;"
                               "done; cat /sys/class/net/eth0/carrier" % carrier)
            wanted(said == carrier, f"the guest's carrier is {said} with the link {state}")
        domain.virsh("attach-device", card, "--live")
        said = console.run("for i in $(seq 1 100); do [ -e /sys/class/net/eth1 ] && break; sleep 0.1; done;"
                           "cat /sys/class/net/eth1/address")
        wanted(said == "52:54:00:11:22:44", f"the guest's second card has the address '{said}'")
        domain.virsh("detach-device", card, "--live")
        said = console.run("for i in $(seq 1 100); do [ -e /sys/class/net/eth1 ] || break; sleep 0.1; done;"
                           "ls /sys/class/net")
        wanted("eth1" not in said, f"the guest still has the card: {said}")


def screen(bench):
    """A picture of the screen, by VNC with TLS, too; keys, VNC's place and the monitor's own words."""
    devices = ("<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>"
               "<video><model type='vga' vram='16384' heads='1'/></video>")
    with bench.domain("screen", devices=devices) as domain, domain.boot() as console:
        wanted(domain.virsh("vncdisplay") == "127.0.0.1:0", "the VNC server has no place")
        picture = f"{bench.host.folder}/screen.png"
        domain.virsh("screenshot", picture)
        data = pathlib.Path(picture).read_bytes()
        wanted(data.startswith(b"\x89PNG") or data.startswith(b"P6"), f"the picture begins with {data[:8]}")
        with VncClient(("127.0.0.1", 5900), tls=bench.host.certificates.client()) as client:
            client.update(incremental=False)
        wanted(domain.qmp("query-vnc")["return"]["auth"] == "vencrypt+x509+none", "VNC has no TLS")
        before = console.run("grep i8042 /proc/interrupts | head -n 1")
        domain.virsh("send-key", "KEY_LEFTCTRL", "KEY_A")
        after = console.run("for i in $(seq 1 50); do now=$(grep i8042 /proc/interrupts | head -n 1);"
                            f'[ "$now" != "{before}" ] && break; sleep 0.1; done; echo "$now"')
        wanted(before and after != before, f"no key arrived: '{before}', '{after}'")
        said = domain.virsh("qemu-monitor-command", "--hmp", "info status")
        wanted("running" in said, f"info status: {said}")
        wanted(domain.qmp("query-status")["return"]["status"] == "running", "query-status")


def spice_channels(bench):
    """A SPICE client reaches the guest by the agent's channel and by a port of its own, where what is said comes back."""
    devices = """<graphics type='spice' port='-1' autoport='yes' listen='127.0.0.1'><filetransfer enable='no'/></graphics>
    <video><model type='vga' vram='16384' heads='1'/></video>
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <channel type='spiceport'><source channel='org.kite.port'/><target type='virtio' name='org.kite.port'/></channel>"""
    with bench.domain("channels", devices=devices) as domain, domain.boot() as console:
        place = re.fullmatch(r"spice://([0-9.]+):(\d+)", domain.virsh("domdisplay"))
        wanted(place, "the SPICE server has no place")
        console.run("dmesg -n 1; load-virtio")
        for name in ("com.redhat.spice.0", "org.kite.port"):
            console.run(f"{{ (exec 3<>/dev/virtio-ports/{name}; while :; do cat <&3 >&3; sleep 0.1; done) >/dev/null 2>&1 & }}")
        address = (place[1], int(place[2]))
        with SpiceClient(address, only_main=True) as client:
            client.agent_start()
            message = bytes(range(256)) * 40
            client.agent_send(2, message)
            wanted(client.agent_message() == (2, message), "the agent says something else")
            port = Port(address, client, "org.kite.port")
            port.send(message)
            wanted(port.take(len(message)) == message, "the port says something else")
        wanted(domain.virsh("dumpxml").count("state='connected'") >= 2, "libvirt does not know that the guest listens")


def drawn_screen(bench):
    """A virtio graphics card with a size of its own, whose screen is the firmware's until a driver is there."""
    devices = ("<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>"
               "<video><model type='virtio' heads='1' primary='yes'><resolution x='1024' y='600'/></model></video>")
    with bench.domain("drawn", board="q35", devices=devices) as domain:
        domain.start()
        card = {"path": "/machine/peripheral/video0"}
        size = [domain.qmp("qom-get", **card, property=name)["return"] for name in ("xres", "yres")]
        wanted(size == [1024, 600], f"the card's size is {size}")
        wanted(domain.qmp("qom-get", **card, property="type")["return"] == "virtio-vga", "it is another card")
        picture = f"{bench.host.folder}/drawn.png"
        domain.virsh("screenshot", picture)
        wanted(pathlib.Path(picture).read_bytes()[:2] in (b"\x89P", b"P6"), "there is no picture")


def reconnect(bench):
    """libvirtd ends and starts again while the machine runs."""
    with bench.domain("again") as domain:
        domain.boot().close()
        before = domain.qmp("query-cpus-fast")["return"]
        bench.host.restart_libvirtd()
        wanted(domain.state() == "running", f"after the restart it is {domain.state(reason=True)}")
        wanted(domain.qmp("query-cpus-fast")["return"] == before, "it is another machine")
        domain.virsh("suspend")
        bench.host.restart_libvirtd()
        wanted(domain.state().startswith("paused"), f"after the second restart it is {domain.state(reason=True)}")
        domain.virsh("resume")
        with Console(domain) as console:
            console.wake()
            console.send("poweroff -f\n")
            domain.await_state("shut off (shutdown)")


def passthrough(bench):
    """What virt-install asks for: the host's CPU, its clock, no S3, firmware without a kernel."""
    extra = ("<cpu mode='maximum'/><clock offset='utc'><timer name='rtc' tickpolicy='catchup'/>"
             "<timer name='pit' tickpolicy='delay'/><timer name='hpet' present='no'/></clock>"
             "<pm><suspend-to-mem enabled='no'/><suspend-to-disk enabled='no'/></pm>")
    with bench.domain("like-install", board="q35", extra=extra) as domain, domain.boot() as console:
        wanted("deep" not in console.run("cat /sys/power/mem_sleep"), "the guest can suspend to RAM")
        wanted("hpet" not in console.run("cat /sys/devices/system/clocksource/clocksource0/available_clocksource"),
               "the guest has an HPET")
        wanted(domain.state() == "running", "it does not run")


def file_memory(bench):
    """RAM that is a file, and a serial port whose output libvirt's log daemon writes."""
    extra = "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>"
    log = f"{bench.host.folder}/serial.log"
    devices = f"<serial type='file'><source path='{log}'/><target port='1'/></serial>"
    with bench.domain("filed", extra=extra, devices=devices) as domain, domain.boot() as console:
        console.run("echo out of the second port >/dev/ttyS1")
        deadline = time.monotonic() + LIMIT
        while b"out of the second port" not in pathlib.Path(log).read_bytes():
            wanted(time.monotonic() < deadline, "the second port's output is not in its file")
            time.sleep(0.1)
        maps = pathlib.Path(f"/proc/{pid_of(domain)}/maps").read_text()
        wanted("/var/lib/libvirt/qemu/ram/" in maps, "RAM is no file")


def pid_of(domain):
    return int(pathlib.Path(f"/run/libvirt/qemu/{domain.name}.pid").read_text())


def sandboxed(bench):
    """The machine gives up system calls and works, also where a host insists."""
    libvirt.Host.write("/etc/libvirt/qemu.conf", libvirt.QEMU_CONF + "seccomp_sandbox = 1\n")
    bench.host.restart_libvirtd()
    try:
        with bench.domain("boxed") as domain, domain.boot() as console:
            status = pathlib.Path(f"/proc/{pid_of(domain)}/status").read_text()
            wanted(re.search(r"^Seccomp:\t2$", status, re.M), f"there is no filter: {status}")
            wanted("vda" in console.run("load-disks 2>&1"), "the guest has no disk")
    finally:
        libvirt.Host.write("/etc/libvirt/qemu.conf", libvirt.QEMU_CONF)
        bench.host.restart_libvirtd()


def kvm(bench):
    """A domain on /dev/kvm starts, tells what it does, and ends."""
    with bench.domain("hardware", kind="kvm", cpus=1) as domain:
        domain.start()
        wanted(domain.state() == "running", f"it is {domain.state()}")
        wanted(domain.qmp("query-kvm")["return"]["enabled"], "it does not run on KVM")
        domain.virsh("suspend")
        domain.virsh("resume")
        domain.virsh("destroy")


def memory(bench):
    """The balloon: the guest's own numbers, and memory that it gives back."""
    with bench.domain("memory") as domain, domain.boot() as console:
        console.run("load-virtio 2>&1")
        domain.virsh("dommemstat", "--period", "1", "--live")
        deadline = time.monotonic() + LIMIT
        while "unused" not in (said := domain.virsh("dommemstat")):
            wanted(time.monotonic() < deadline, f"the guest tells nothing of its memory: {said}")
            time.sleep(0.2)
        numbers = dict(line.split() for line in said.splitlines())
        wanted(0 < int(numbers["unused"]) < int(numbers["available"]) <= 256 << 10, f"its numbers: {numbers}")
        domain.virsh("setmem", "192M", "--live")
        while f"actual {192 << 10}" not in (said := domain.virsh("dommemstat")):
            wanted(time.monotonic() < deadline, f"the guest gives nothing back: {said}")
            time.sleep(0.2)


def saved(bench):
    """Into a file and back, as it was while it ran; the same where libvirt keeps the file; and snapshots in the image."""
    with bench.domain("saved") as domain:
        def look(word):
            with Console(domain) as console:
                console.wake()
                said = console.run("cat /tmp/word")
                wanted(said == word, f"the guest remembers '{said}' instead of '{word}'")
                console.run("echo later >/tmp/word")

        with domain.boot() as console:
            console.run("echo before >/tmp/word")
        path = f"{bench.host.folder}/saved.state"
        domain.virsh("save", path)
        wanted(domain.state() == "shut off", f"after save it is {domain.state()}")
        domain.virsh_plain("restore", path)
        domain.await_state("running (restored)")
        look("before")
        domain.virsh("managedsave")
        domain.start()
        look("later")
        domain.virsh("snapshot-create-as", "first")
        with Console(domain) as console:
            console.wake()
            console.run("echo lost >/tmp/word")
        domain.virsh("snapshot-revert", "first")
        look("later")
        domain.virsh("snapshot-delete", "first")


def block_jobs(bench):
    """Snapshots outside of the image, and what makes of them one image again; a disk that moves to another file. The guest
    has written before each, and finds everything afterwards."""
    with bench.domain("jobs") as domain, domain.boot() as console:
        console.run("load-disks 2>&1")

        def put(number):
            console.run(f"yes part{number} | dd of=/dev/vda bs=1M seek={number} count=1 iflag=fullblock oflag=direct 2>&1")

        def look(most):
            for number in range(1, most + 1):
                said = console.run(f"dd if=/dev/vda bs=1M skip={number} count=1 iflag=direct 2>/dev/null | tail -n +2 | head -n 1")
                wanted(said == f"part{number}", f"part {number} of the disk is '{said}'")

        def source():
            return domain.virsh("domblklist", "--details").split()[-1]

        put(1)
        domain.virsh("snapshot-create-as", "one", "--disk-only", "--no-metadata")
        wanted(source().endswith("jobs.one"), f"after the snapshot the disk is {source()}")
        put(2)
        domain.virsh("snapshot-create-as", "two", "--disk-only", "--no-metadata")
        put(3)
        look(3)
        domain.virsh("blockcommit", "vda", "--active", "--pivot", "--wait")
        wanted(source() == domain.disk, f"after the commit the disk is {source()}")
        put(4)
        look(4)
        domain.virsh("snapshot-create-as", "three", "--disk-only", "--no-metadata")
        put(5)
        domain.virsh("blockpull", "vda", "--wait")
        wanted("backingStore" not in domain.virsh("dumpxml") or "<backingStore/>" in domain.virsh("dumpxml"),
               "it still has a backing file")
        look(5)
        copy = f"{bench.host.folder}/copy.qcow2"
        domain.virsh("blockcopy", "vda", "--dest", copy, "--format", "qcow2", "--transient-job", "--wait", "--pivot")
        wanted(source() == copy, f"after the copy the disk is {source()}")
        put(6)
        look(6)
        subprocess.run([bench.kite, "img", "check", "-q", "--force-share", copy], check=True)


def backup(bench):
    """A copy of the disk of one moment, while the guest writes on."""
    with bench.domain("backup") as domain, domain.boot() as console:
        console.run("load-disks 2>&1")

        def put(number):
            console.run(f"yes part{number} | dd of=/dev/vda bs=1M seek={number} count=1 iflag=fullblock oflag=direct 2>&1")

        put(1)
        put(2)
        copy, order = f"{bench.host.folder}/backup-copy.qcow2", f"{bench.host.folder}/backup.xml"
        bench.host.write(order, f"""<domainbackup mode='push'><disks><disk name='vda' type='file'>
            <target file='{copy}'/><driver type='qcow2'/></disk></disks></domainbackup>""")
        domain.virsh("backup-begin", "--backupxml", order)
        put(2)
        put(3)
        deadline = time.monotonic() + LIMIT
        while "None" not in domain.virsh("domjobinfo").splitlines()[0]:
            wanted(time.monotonic() < deadline, "the backup does not end")
        wanted("Completed" in domain.virsh("domjobinfo", "--completed"), "the backup did not end well")
        parts = [b"\0", b"part1\n", b"part2\n", b"\0"]
        raw = f"{copy}.raw"
        subprocess.run([bench.kite, "img", "convert", "-O", "raw", copy, raw], check=True)
        with open(raw, "rb") as file:
            for number, part in enumerate(parts):
                expected = (part * (1 << 20))[:1 << 20]
                wanted(file.read(1 << 20) == expected, f"part {number} of the copy is not what it was")
        subprocess.run([bench.kite, "img", "check", "-q", copy], check=True)


def checkpoints(bench):
    """What has changed since a checkpoint: pushed into an image, and pulled over NBD with the disk as it was then."""
    with bench.domain("points") as domain, domain.boot() as console:
        console.run("load-disks 2>&1")

        def put(number, word="part"):
            console.run(f"yes {word}{number} | dd of=/dev/vda bs=1M seek={number} count=1 iflag=fullblock oflag=direct 2>&1")

        def begin(text):
            order = f"{bench.host.folder}/order.xml"
            bench.host.write(order, f"<domainbackup {text}</domainbackup>")
            domain.virsh("backup-begin", "--backupxml", order)

        def block(word, number):
            return (f"{word}{number}\n".encode() * (1 << 20))[:1 << 20]

        put(1)
        put(2)
        domain.virsh("checkpoint-create-as", "one")
        put(2, "newer")
        copy = f"{bench.host.folder}/since-one.qcow2"
        begin(f"""mode='push'><incremental>one</incremental><disks><disk name='vda' type='file'>
              <target file='{copy}'/><driver type='qcow2'/></disk></disks>""")
        deadline = time.monotonic() + LIMIT
        while "None" not in domain.virsh("domjobinfo").splitlines()[0]:
            wanted(time.monotonic() < deadline, "the backup does not end")
        wanted("Completed" in domain.virsh("domjobinfo", "--completed"), "the backup did not end well")
        shown = subprocess.run([bench.kite, "img", "map", "-U", "--output=json", copy], check=True, capture_output=True)
        own = [(part["start"], part["length"]) for part in json.loads(shown.stdout) if part["depth"] == 0 and part["data"]]
        wanted(own == [(2 << 20, 1 << 20)], f"the copy of what has changed since then has {own}")

        socket, scratch = f"{bench.host.folder}/pull.sock", f"{bench.host.folder}/scratch.qcow2"
        begin(f"""mode='pull'><incremental>one</incremental><server transport='unix' socket='{socket}'/>
              <disks><disk name='vda' backup='yes' type='file' exportname='vda' exportbitmap='since'>
              <scratch file='{scratch}'/></disk></disks>""")
        put(1, "later")
        put(2, "later")
        pulled = f"{bench.host.folder}/pulled.raw"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", f"nbd+unix:///vda?socket={socket}", pulled], check=True)
        with open(pulled, "rb") as file:
            file.seek(1 << 20)
            wanted(file.read(1 << 20) == block("part", 1), "what is pulled is not the disk of then")
            wanted(file.read(1 << 20) == block("newer", 2), "what is pulled is not the disk of then")
        options = f"driver=nbd,path={socket},export=vda,x-dirty-bitmap=qemu:dirty-bitmap:since"
        shown = subprocess.run(["qemu-img", "map", "--output=json", "--image-opts", options], check=True, capture_output=True)
        dirty = [(part["start"], part["length"]) for part in json.loads(shown.stdout) if not part["data"]]
        wanted(dirty == [(2 << 20, 1 << 20)], f"clients are told that {dirty} has changed")
        domain.virsh("domjobabort")
        deadline = time.monotonic() + LIMIT
        while os.path.exists(socket):  # libvirt stops the server when the job has told of its end
            wanted(time.monotonic() < deadline, "the socket is still there")
            time.sleep(0.1)
        wanted(console.run("dd if=/dev/vda bs=1M skip=2 count=1 iflag=direct 2>/dev/null | head -n 1") == "later2",
               "the guest's disk is not what the guest wrote")
        domain.virsh("checkpoint-create-as", "two")
        domain.virsh("snapshot-create-as", "above", "--disk-only", "--no-metadata")
        domain.virsh("checkpoint-delete", "one")
        domain.virsh("checkpoint-delete", "two")
        wanted(not domain.virsh("checkpoint-list", "--name").strip(), "there are checkpoints left")
        console.send("poweroff -f\n")
        domain.await_state("shut off (shutdown)")
        shown = subprocess.run([bench.kite, "img", "info", domain.disk], check=True, capture_output=True, text=True).stdout
        wanted("name: one" not in shown and "name: two" not in shown, f"the image keeps their bitmaps: {shown}")


def not_there(bench):
    """What Kite does not have is refused, and the machine goes on."""
    with bench.domain("refusals") as domain:
        domain.start()
        wanted(domain.host.refused("migrate", "--live", "refusals", "qemu+unix:///system"), "virsh migrate says nothing")
        wanted(domain.state() == "running", f"after migrate the domain is {domain.state(reason=True)}")


def cases(bench):
    yield "what the binary can do", probe, ()
    yield "states and counters, pc", watch, ("pc",)
    yield "states and counters, q35", watch, ("q35",)
    yield "run states", run_state, ()
    yield "disks", disks, ()
    for board, bus, target in (("pc", "ide", "hdc"), ("q35", "scsi", "sdc")):
        yield f"media, {bus}", media, (board, bus, target)
    if (bench.guests / USB_FLAVOUR / "initrd-disks.gz").exists():
        yield "sticks, uhci", sticks, ("piix3-uhci",)
        yield "sticks, xhci", sticks, ("qemu-xhci",)
    if os.path.exists("/usr/share/OVMF/OVMF_CODE_4M.fd"):
        yield "EFI", efi, ()
    yield "network", network, ()
    yield "screen and keys", screen, ()
    yield "SPICE channels", spice_channels, ()
    yield "a virtio screen", drawn_screen, ()
    yield "libvirtd restarts", reconnect, ()
    yield "what virt-install asks for", passthrough, ()
    yield "memory and output in files", file_memory, ()
    yield "sandbox", sandboxed, ()
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        yield "kvm", kvm, ()
    yield "memory", memory, ()
    yield "saved and restored", saved, ()
    yield "block jobs", block_jobs, ()
    yield "backup", backup, ()
    yield "checkpoints", checkpoints, ()
    yield "what is not there", not_there, ()


def main():
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    tally = Tally("libvirt")
    guests = pathlib.Path(sys.argv[2]).resolve()
    reason = libvirt.why_not()
    for name in ("vmlinuz", "initrd-disks.gz"):
        if not reason and not (guests / FLAVOUR / name).exists():
            reason = f"{guests / FLAVOUR / name} is missing; tools/get_kernel.sh and tools/make_initrd.sh make it"
    if reason:
        tally.skip("libvirt", reason)
        return tally.finish()
    libvirt.enter()
    only = sys.argv[3:]
    with libvirt.Host() as host:
        bench = Bench(os.path.abspath(sys.argv[1]), guests, host)
        for name, action, arguments in cases(bench):
            if not only or any(word in name for word in only):
                tally.run(name, action, bench, *arguments)
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            tally.skip("kvm", "/dev/kvm cannot be opened")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
