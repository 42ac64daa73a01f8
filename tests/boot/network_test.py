#!/usr/bin/env python3
"""A Linux guest uses its network card: DHCP, a file from a server on this host through the NAT, and one from the guest's
server through a port forward; for every form of the options that make a card, both interfaces of virtio-net, both kinds
of rings, e1000, and cards that come and go. Also on a tap interface, on a bridge, and on a cable between two machines.
Nothing leaves this host.

usage: network_test.py KITE GUESTS
Ends with 'network: N passed, N failed, N skipped'.
"""
import functools
import hashlib
import http.server
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from boot_test import command, wait_event
from guest import Guest, Stream, Tally

FLAVOUR = "6.1-cloud"
E1000_FLAVOUR = "6.1"  # the cloud kernels have no driver for it
DOWNLOAD = 8 << 20  # bytes
UPLOAD = 4 << 20
MAC = "52:54:00:ab:cd:ef"
TAP, TAP_HOST, TAP_GUEST = "kitetest0", "192.168.219.1", "192.168.219.2"


class Server:
    """Serves a folder at an address of this host's, quietly."""

    def __init__(self, folder, host="127.0.0.1"):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        handler = functools.partial(Handler, directory=folder)
        self.server = http.server.ThreadingHTTPServer((host, 0), handler)
        self.server.handle_error = lambda *_: None  # a guest that is reset hangs up
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bench:
    def __init__(self, kite, guests, flavour=FLAVOUR):
        self.kite = kite
        self.kernel = guests / flavour / "vmlinuz"
        self.initrd = guests / flavour / "initrd-disks.gz"

    def missing(self):
        return [path for path in (self.kernel, self.initrd) if not path.exists()]

    def command(self, *options):
        return [self.kite, "-accel", "jit", "-smp", "2", "-m", "256", "-nographic", "-kernel", str(self.kernel),
                "-initrd", str(self.initrd), "-append", "console=ttyS0 quiet", *options]

    def start(self, *options):
        return up(Guest(self.command(*options)))


def up(guest):
    """Waits for the guest's shell."""
    guest.expect("Kite: user space runs")
    guest.expect("kite# ")
    return guest


def set_address(guest, address):
    """Gives the guest's card an address of a network without DHCP."""
    guest.run("modprobe -a virtio_pci virtio_net; i=0; while [ ! -e /sys/class/net/eth0 ] && [ $i -lt 200 ]; do "
              f"sleep 0.1; i=$((i + 1)); done; ip link set eth0 up; ip addr add {address}/24 dev eth0")


def ping(guest, address):
    guest.run(f"ping -c 2 -W 60 {address}")  # it fails when there is no answer


def lease(guest, wanted="10.0.2.15/24"):
    said = guest.run("load-net 2>&1")
    if f"Kite: network: {wanted}" not in said:
        guest.fail(f"DHCP gave no {wanted}: {said}")


def download(guest, server, folder, host="10.0.2.2"):
    content = os.urandom(DOWNLOAD)
    pathlib.Path(folder, "down.bin").write_bytes(content)
    said = guest.run(f"wget -q -O - http://{host}:{server.port}/down.bin | sha256sum")
    if said.split()[0] != hashlib.sha256(content).hexdigest():
        guest.fail(f"what the guest fetched is something else: {said}")


def serve(guest, size):
    """Starts a server in the guest; answers the checksum of /up.bin, its file."""
    said = guest.run(f"mkdir -p /www && head -c {size} /dev/urandom >/www/up.bin && httpd -p 80 -h /www && "
                     "sha256sum /www/up.bin")
    return said.split()[0]


def upload(guest, port, checksum, host="127.0.0.1"):
    try:
        content = urllib.request.urlopen(f"http://{host}:{port}/up.bin", timeout=300).read()
    except OSError as error:
        guest.fail(f"the guest's server does not answer at port {port}: {error}")
    if hashlib.sha256(content).hexdigest() != checksum:
        guest.fail(f"what came out of the guest, {len(content)} bytes, is something else")


def both_ways(bench, options, port, size=UPLOAD):
    with tempfile.TemporaryDirectory() as folder, Server(folder) as server, bench.start(*options) as guest:
        lease(guest)
        download(guest, server, folder)
        upload(guest, port, serve(guest, size))
        guest.send("poweroff -f\n")
        if guest.wait_exit() != 0:
            guest.fail("the machine did not end well")


def forms(port):
    """Every way to ask for a card: name, options."""
    forward = f"tcp:127.0.0.1:{port}-:80"
    json = f'{{"type":"user","id":"n0","hostfwd":[{{"str":"{forward}"}}]}}'
    card = f"virtio-net-pci,netdev=n0,mac={MAC}"
    return [("-nic", ["-nic", f"user,model=virtio-net-pci,hostfwd={forward}"]),
            ("-netdev and -device", ["-netdev", f"user,id=n0,hostfwd={forward}", "-device", card]),
            ("-netdev as JSON", ["-netdev", json, "-device", card]),
            ("-net nic and -net user", ["-net", "nic,model=virtio", "-net", f"user,hostfwd={forward}"]),
            ("-redir", ["-redir", f"tcp:{port}::80"]),
            ("-redir without a protocol", ["-redir", f":{port}::80"])]


def cards():
    """Kinds of the card: name, its -device, options before it."""
    return [("legacy", "virtio-net-pci,disable-modern=on", []),
            ("legacy without merged buffers", "virtio-net-pci,disable-modern=on,mrg_rxbuf=off", []),
            ("modern", "virtio-net-pci-non-transitional", []),
            ("packed rings", "virtio-net-pci-non-transitional,packed=on", []),
            ("without offers", "virtio-net-pci,mrg_rxbuf=off,csum=off,guest_csum=off,ctrl_vq=off,event_idx=off,"
                               "indirect_desc=off,vectors=0,ioeventfd=off", []),
            ("behind a root port of q35", "virtio-net-pci,bus=port",
             ["-machine", "q35", "-device", "pcie-root-port,id=port"])]


def settings(bench):
    """Addresses, names and the MAC are those that the options ask for."""
    options = ["-netdev", "user,id=n0,net=192.168.77.0/24,dhcpstart=192.168.77.40,host=192.168.77.1,dns=192.168.77.9,"
               "hostname=guesthost", "-device", f"virtio-net-pci,netdev=n0,mac={MAC},host_mtu=1400"]
    with bench.start(*options) as guest:
        lease(guest, "192.168.77.40/24")
        for command, wanted in (("cat /sys/class/net/eth0/address", MAC), ("hostname", "guesthost"),
                                ("cat /etc/resolv.conf", "nameserver 192.168.77.9"),
                                ("ip route", "via 192.168.77.1"), ("cat /sys/class/net/eth0/mtu", "1400")):
            said = guest.run(command)
            if wanted not in said:
                guest.fail(f"'{command}' says '{said}', not '{wanted}'")


def restricted(bench):
    """restrict=on keeps the guest from this host's servers; forwards to it go on."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, Server(folder) as server, \
            bench.start("-nic", f"user,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:80") as guest:
        lease(guest)
        pathlib.Path(folder, "down.bin").write_bytes(b"secret")
        said = guest.run(f"wget -q -O - http://10.0.2.2:{server.port}/down.bin || echo refused")
        if said.splitlines()[-1] != "refused":
            guest.fail(f"a restricted guest reached the host: {said}")
        upload(guest, port, serve(guest, 4096))


def tap_refused():
    """Why there can be no tap interface here, or ""."""
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None:
        return "there is no 'ip' (iproute2)"
    made = subprocess.run(["ip", "tuntap", "add", "dev", TAP, "mode", "tap"], capture_output=True, text=True)
    return made.stderr.strip() if made.returncode != 0 else ""


def tap(bench):
    """A tap interface that is there already, by its name: files both ways between the guest and this host's address."""
    for words in (f"addr add {TAP_HOST}/24 dev {TAP}", f"link set {TAP} up"):
        subprocess.run(["ip", *words.split()], check=True)
    card = ["-netdev", f"tap,id=n0,ifname={TAP},script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0"]
    with tempfile.TemporaryDirectory() as folder, Server(folder, TAP_HOST) as server, bench.start(*card) as guest:
        set_address(guest, TAP_GUEST)
        ping(guest, TAP_HOST)
        download(guest, server, folder, TAP_HOST)
        upload(guest, 80, serve(guest, UPLOAD), TAP_GUEST)


def cable(bench):
    """Two machines on one cable over TCP reach each other. Another peer, when one has left, sends nonsense."""
    port = free_port()
    client = f"stream,addr.type=inet,addr.host=127.0.0.1,addr.port={port},reconnect=1"
    ends = [(f"socket,listen=127.0.0.1:{port}", "192.168.218.1", "52:54:00:12:34:56"),
            (client, "192.168.218.2", "52:54:00:12:34:57")]
    commands = [bench.command("-smp", "1", "-nic", f"{kind},mac={mac}") for kind, _, mac in ends]
    with Guest(commands[0]) as first:
        with Guest(commands[1]) as second:
            for guest, (_, address, _) in zip((first, second), ends):
                set_address(up(guest), address)
            ping(first, ends[1][1])
            ping(second, ends[0][1])
        with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
            peer.sendall(b"\xff" * 64)  # the length of no frame, which ends this connection and no more
            try:
                while peer.recv(4096):
                    pass
            except ConnectionError:
                pass
            except TimeoutError:
                first.fail("a peer that sends nonsense is not hung up on")
        if first.run("echo still here") != "still here":
            first.fail("the machine is not what it was")


def bridge_refused():
    """Why there can be no bridge in a network namespace here, or ""."""
    if os.geteuid() != 0:
        return "not root"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "there is no 'ip' (iproute2) or no 'unshare'"
    tried = subprocess.run(["unshare", "-n", "sh", "-c", "ip link add b0 type bridge && ip tuntap add dev t0 mode tap"],
                           capture_output=True, text=True)
    return tried.stderr.strip() if tried.returncode != 0 else ""


def bridge(bench):
    """A guest on a bridge of a network namespace of its own reaches the bridge's address."""
    make = f"ip link add br7 type bridge && ip addr add {TAP_HOST}/24 dev br7 && ip link set br7 up"
    machine = bench.command("-smp", "1", "-nic", "bridge,br=br7")
    with Guest(["unshare", "-n", "sh", "-c", f'{make} && exec "$@"', "sh", *machine]) as guest:
        set_address(up(guest), TAP_GUEST)
        ping(guest, TAP_HOST)


def wait_carrier(guest, up):
    is_there = f"[ $(cat /sys/class/net/eth0/carrier) = {int(up)} ]"
    guest.run(f"for i in $(seq 1 100); do {is_there} && break; sleep 0.1; done; {is_there}")


def e1000(bench):
    """Linux' driver is content with the card: it reads the EEPROM and the PHY, files come both ways with checksums and
    segments of the card's making, also after the interface was down."""
    port = free_port()
    options = ["-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:80", "-device", f"e1000,netdev=n0,mac={MAC}"]
    with tempfile.TemporaryDirectory() as folder, Server(folder) as server, bench.start(*options) as guest:
        lease(guest)
        for asked, wanted in (("cat /sys/class/net/eth0/address", MAC), ("cat /sys/class/net/eth0/speed", "1000"),
                              ("basename $(readlink /sys/class/net/eth0/device/driver)", "e1000")):
            if guest.run(asked).strip() != wanted:
                guest.fail(f"'{asked}' does not say {wanted}")
        download(guest, server, folder)
        checksum = serve(guest, UPLOAD)
        upload(guest, port, checksum)
        guest.run("ip link set eth0 down && ip link set eth0 up")
        wait_carrier(guest, True)
        lease(guest)
        download(guest, server, folder)
        upload(guest, port, checksum)
        said = guest.run("dmesg | grep -E 'e1000.*(Hang|hang|invalid|error|timed out)|NETDEV WATCHDOG' || echo content")
        if said.strip() != "content":
            guest.fail(f"the driver is not content: {said}")


def comes_and_goes(bench, card):
    """A card and its back end are added while the guest runs; its link goes, the machine stops and is reset; it leaves."""
    with tempfile.TemporaryDirectory() as folder, Server(folder) as server:
        path = os.path.join(folder, "qmp")
        with bench.start("-qmp", f"unix:{path},server=on,wait=off") as guest, socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.settimeout(60)
            monitor = Stream(connection)
            monitor.readline()
            command(guest, monitor, "qmp_capabilities", {})
            command(guest, monitor, "netdev_add", {"type": "user", "id": "n0"})
            command(guest, monitor, "device_add", {"driver": card, "id": "card", "netdev": "n0"})
            lease(guest)
            download(guest, server, folder)
            for up in (False, True):
                command(guest, monitor, "set_link", {"name": "card", "up": up})
                wait_carrier(guest, up)
            guest.send(f"wget -q -O - http://10.0.2.2:{server.port}/down.bin | md5sum\n")
            for _ in range(20):
                command(guest, monitor, "stop", {})
                command(guest, monitor, "cont", {})
            guest.expect(hashlib.md5(pathlib.Path(folder, "down.bin").read_bytes()).hexdigest())
            guest.expect("kite# ")
            guest.send(f"while true; do wget -q -O /dev/null http://10.0.2.2:{server.port}/down.bin; done\n")
            time.sleep(1)
            command(guest, monitor, "system_reset", {})
            guest.expect("Kite: user space runs")
            guest.expect("kite# ")
            lease(guest)
            download(guest, server, folder)
            command(guest, monitor, "device_del", {"id": "card"})
            wait_event(monitor, "DEVICE_DELETED")
            if guest.run("ls /sys/class/net") != "lo":
                guest.fail("the card is gone, but the guest still has it")
            command(guest, monitor, "netdev_del", {"id": "n0"})


def main():
    kite, guests = sys.argv[1], pathlib.Path(sys.argv[2])
    tally = Tally("network")
    bench = Bench(kite, guests)
    if bench.missing():
        tally.skip("network", f"there is no kernel {FLAVOUR} with its initrd in {guests}; tools/get_kernel.sh gets it")
        return tally.finish()
    port = free_port()
    for name, options in forms(port):
        tally.run(f"both ways with {name}", both_ways, bench, options, port)
    for name, device, before in cards():
        port = free_port()
        options = [*before, "-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:80", "-device", f"{device},netdev=n0"]
        tally.run(f"both ways, {name}", both_ways, bench, options, port)
    tally.run("addresses and names", settings, bench)
    tally.run("a card that comes and goes", comes_and_goes, bench, "virtio-net-pci")
    other = Bench(kite, guests, E1000_FLAVOUR)
    if other.missing():
        tally.skip("e1000", f"there is no kernel {E1000_FLAVOUR} with its initrd in {guests}; tools/get_kernel.sh")
    else:
        tally.run("e1000", e1000, other)
        port = free_port()
        card = ["-nic", f"user,model=e1000,hostfwd=tcp:127.0.0.1:{port}-:80"]
        tally.run("both ways, e1000 by -nic", both_ways, other, card, port)
        tally.run("an e1000 that comes and goes", comes_and_goes, other, "e1000")
    tally.run("a restricted network", restricted, bench)
    tally.run("a cable between two machines", cable, bench)
    if why := bridge_refused():
        tally.skip("a bridge", why)
    else:
        tally.run("a bridge", bridge, bench)
    if why := tap_refused():
        tally.skip("a tap interface", why)
    else:
        try:
            tally.run("a tap interface", tap, bench)
        finally:
            subprocess.run(["ip", "link", "del", TAP], check=False)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
