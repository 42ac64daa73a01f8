#!/usr/bin/env python3
"""A Linux guest uses its network card: DHCP, a file from a server on this host through the NAT, and one from the guest's
server through a port forward; for every form of the options that make a card, both interfaces of the card, both kinds of
rings, and cards that come and go. Nothing leaves this host.

usage: network_test.py KITE GUESTS
Ends with 'network: N passed, N failed, N skipped'.
"""
import functools
import hashlib
import http.server
import os
import pathlib
import socket
import sys
import tempfile
import threading
import urllib.request

from guest import Guest, Tally

FLAVOUR = "6.1-cloud"
DOWNLOAD = 8 << 20  # bytes
UPLOAD = 4 << 20
MAC = "52:54:00:ab:cd:ef"


class Server:
    """Serves a folder on the loopback, quietly."""

    def __init__(self, folder):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        handler = functools.partial(Handler, directory=folder)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
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
    def __init__(self, kite, guests):
        self.kite = kite
        self.kernel = guests / FLAVOUR / "vmlinuz"
        self.initrd = guests / FLAVOUR / "initrd-disks.gz"

    def command(self, *options):
        return [self.kite, "-accel", "jit", "-smp", "2", "-m", "256", "-nographic", "-kernel", str(self.kernel),
                "-initrd", str(self.initrd), "-append", "console=ttyS0 quiet", "-no-reboot", *options]

    def start(self, *options):
        guest = Guest(self.command(*options))
        guest.expect("Kite: user space runs")
        guest.expect("kite# ")
        return guest


def lease(guest, wanted="10.0.2.15/24"):
    said = guest.run("load-net 2>&1")
    if f"Kite: network: {wanted}" not in said:
        guest.fail(f"DHCP gave no {wanted}: {said}")


def download(guest, server, folder):
    content = os.urandom(DOWNLOAD)
    pathlib.Path(folder, "down.bin").write_bytes(content)
    said = guest.run(f"wget -q -O - http://10.0.2.2:{server.port}/down.bin | sha256sum")
    if said.split()[0] != hashlib.sha256(content).hexdigest():
        guest.fail(f"what the guest fetched is something else: {said}")


def serve(guest, size):
    """Starts a server in the guest; answers the checksum of /up.bin, its file."""
    said = guest.run(f"mkdir -p /www && head -c {size} /dev/urandom >/www/up.bin && httpd -p 80 -h /www && "
                     "sha256sum /www/up.bin")
    return said.split()[0]


def upload(guest, port, checksum):
    try:
        content = urllib.request.urlopen(f"http://127.0.0.1:{port}/up.bin", timeout=300).read()
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
    """Kinds of the card: name, its -device."""
    return [("legacy", "virtio-net-pci,disable-modern=on"),
            ("legacy without merged buffers", "virtio-net-pci,disable-modern=on,mrg_rxbuf=off"),
            ("modern", "virtio-net-pci-non-transitional"),
            ("packed rings", "virtio-net-pci-non-transitional,packed=on"),
            ("without offers", "virtio-net-pci,mrg_rxbuf=off,csum=off,guest_csum=off,ctrl_vq=off,event_idx=off,"
                               "indirect_desc=off,vectors=0")]


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
        said = guest.run(f"wget -q -T 5 -O - http://10.0.2.2:{server.port}/down.bin || echo refused")
        if said.splitlines()[-1] != "refused":
            guest.fail(f"a restricted guest reached the host: {said}")
        upload(guest, port, serve(guest, 4096))


def main():
    kite, guests = sys.argv[1], pathlib.Path(sys.argv[2])
    tally = Tally("network")
    bench = Bench(kite, guests)
    if not bench.kernel.exists() or not bench.initrd.exists():
        tally.skip("network", f"there is no kernel {FLAVOUR} with its initrd in {guests}; tools/get_kernel.sh gets it")
        return tally.finish()
    port = free_port()
    for name, options in forms(port):
        tally.run(f"both ways with {name}", both_ways, bench, options, port)
    for name, device in cards():
        port = free_port()
        options = ["-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:80", "-device", f"{device},netdev=n0"]
        tally.run(f"both ways, {name}", both_ways, bench, options, port)
    tally.run("addresses and names", settings, bench)
    tally.run("a restricted network", restricted, bench)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
