#!/usr/bin/env python3
"""The program from outside: command line, process, QMP, qtest.

usage: process_test.py KITE
Ends with 'process: N passed, N failed, N skipped'.
"""
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import driven  # noqa: E402
from certificates import Certificates  # noqa: E402
from driven import LIMIT, Machine, Qmp, check, connect, run  # noqa: E402

# A wrong command line and what its one or two lines must name: the fault, and the remedy.
WRONG = [
    (["-memory", "512"], ["-memory", "no such option"]),
    (["-kernal", "x"], ["-kernal", "-kernel"]),
    (["-m"], ["-m", "wants a value"]),
    (["-m", "lots"], ["-m", "lots"]),
    (["-m", "0"], ["-m 0", "between"]),
    (["-m", "512,slots=2"], ["slots", "hot-plug"]),
    (["-smp", "0"], ["-smp", "1 to 255"]),
    (["-smp", "4,maxcpus=2"], ["maxcpus=2", "cpus=4"]),
    (["-smp", "2,core=2"], ["core", "cores"]),
    (["-machine", "pcc"], ["pcc", "pc"]),
    (["-machine", "pc,acel=jit"], ["acel", "accel"]),
    (["-accel", "jti"], ["jti", "jit"]),
    (["-accel", "xen"], ["xen", "jit"]),
    (["-cpu", "qemu46"], ["qemu46", "qemu64"]),
    (["-cpu", "qemu64,+ssse33"], ["ssse33", "ssse3"]),
    (["-cpu", "qemu64,+vmx,enforce"], ["vmx", "enforce"]),
    (["-drive", "file=/nonexistent/x"], ["-drive", "/nonexistent/x", "No such file"]),
    (["-hda", "/nonexistent/x"], ["/nonexistent/x", "No such file"]),
    (["-hda", "/dev/null", "-drive", "index=0"], ["index=0", "exists"]),
    (["-drive", "if=virtoi,file=x"], ["virtoi", "virtio"]),
    (["-drive", "if=sd,file=x"], ["if=sd", "no such interface"]),
    (["-drive", "file=x,format=qcow3"], ["qcow3", "qcow2"]),
    (["-drive", "file=x,cache=non"], ["non", "none"]),
    (["-drive", "file=x,aio=native"], ["aio=native", "cache.direct=on"]),
    (["-drive", "file=x,media=disc"], ["disc", "cdrom"]),
    (["-drive", "driver=null-co,if=none,id=d,siez=1M"], ["siez", "size"]),
    (["-drive", "driver=null-co,if=none,id=d,bps=1,bps_rd=1"], ["total", "at the same time"]),
    (["-drive", "driver=null-co,if=none,id=d", "-drive", "driver=null-co,if=none,id=d"], ["'d'", "taken"]),
    (["-drive", "driver=null-co,if=ide,index=9"], ["bus=4", "ide.4"]),
    (["-drive", f"if=none,id=d,file={os.path.abspath(__file__)}"], ["process_test.py", "format=raw"]),
    (["-blockdev", "driver=null-co"], ["-blockdev", "node-name"]),
    (["-blockdev", "driver=nul-co,node-name=n"], ["nul-co", "null-co"]),
    (["-device", "virtio-blk-pci,drive=nix"], ["nix", "-drive"]),
    (["-device", "virtio-blk-pci"], ["virtio-blk-pci", "drive=ID"]),
    (["-blockdev", "driver=null-co,node-name=n", "-device", "ide-hd,drive=n,bus=ide.7"], ["ide.7", "ide.1"]),
    (["-blockdev", "driver=null-co,node-name=n", "-device", "ide-hd,drive=n,bootindex=1",
      "-device", "virtio-blk-pci,drive=n,bootindex=2"], ["'n'", "write"]),
    (["-vnc", "localhost"], ["localhost", "127.0.0.1:0"]),
    (["-vnc", ":x"], ["'x'", "5900"]),
    (["-vnc", ":0,to=nix"], ["nix", "display number"]),
    (["-vnc", ":0,tls-authz=t"], ["tls-authz", "leave it out"]),
    (["-vnc", "unix:/tmp/kite-no.sock,tls-creds=nix"], ["-vnc", "nix", "tls-creds-x509"]),
    (["-object", "tls-creds-anon,id=t", "-vnc", "unix:/tmp/kite-no.sock,tls-creds=t"], ["-vnc", "endpoint=server"]),
    (["-object", "tls-creds-x509,id=t,dir=/nonexistent,endpoint=server"], ["id=t", "/nonexistent/ca-cert.pem"]),
    (["-object", "tls-creds-x509,id=t,dir=/x,passwordid=nix"], ["id=t", "passwordid=nix", "-object secret"]),
    (["-object", "tls-creds-psk,id=t"], ["id=t", "dir=", "keys.psk"]),
    (["-object", "tls-creds-anon,id=t,priority=NORMAL:+NIX"], ["id=t", "NIX"]),
    (["-chardev", "socket,id=c,path=/tmp/kite-no.sock,tls-creds=nix"], ["tls-creds=nix", "tls-creds-x509"]),
    (["-chardev", "socket,id=c,path=/tmp/kite-no.sock,tls-authz=nix"], ["tls-authz=nix", "authority"]),
    (["-vnc", ":0,sasl=on"], ["sasl", "leave it out"]),
    (["-vnc", ":0,websocket=on"], ["websocket", "leave it out"]),
    (["-vnc", ":0,pasword=on"], ["pasword", "password"]),
    (["-vnc", "unix:/nonexistent/vnc.sock"], ["-vnc", "/nonexistent/vnc.sock"]),
    (["-vnc", "unix:/tmp/kite-no.sock,password-secret=nix"], ["nix", "-object secret"]),
    (["-spice", "addr=::1"], ["-spice", "port=5930"]),
    (["-spice", "port=nix"], ["nix", "65535"]),
    (["-spice", "tls-port=0"], ["tls-port=0", "65535"]),
    (["-spice", "port=5930,x509-dir=/x"], ["x509-dir", "tls-port="]),
    (["-spice", "unix=on,addr=/tmp/kite-no.sock,plaintext-channel=nix"], ["plaintext-channel=nix", "display"]),
    (["-spice", "port=5930,sasl=on"], ["sasl", "leave it out"]),
    (["-spice", "port=5930,image-compression=quick"], ["quick", "quic"]),
    (["-spice", "port=5930,stream-video=off"], ["stream-video", "streaming-video"]),
    (["-spice", "unix=on"], ["unix", "addr="]),
    (["-spice", "unix=on,addr=/nonexistent/s.sock"], ["-spice", "/nonexistent/s.sock"]),
    (["-spice", "unix=on,addr=/tmp/kite-no.sock,password-secret=nix"], ["nix", "-object secret"]),
    (["-vga", "cirrus"], ["cirrus", "-vga std, virtio"]),
    (["-vga", "qxl"], ["qxl", "-vga std, virtio"]),
    (["-vga", "std", "-device", "VGA"], ["VGA", "-vga none"]),
    (["-device", "VGA,romfile=/nonexistent.rom"], ["/nonexistent.rom"]),
    (["-vga", "virtio", "-device", "VGA"], ["VGA", "-vga none"]),
    (["-device", "virtio-vga,romfile=/nonexistent.rom"], ["/nonexistent.rom"]),
    (["-device", "virtio-gpu-pci,max_outputs=2"], ["max_outputs=2", "one screen"]),
    (["-device", "virtio-gpu-pci,max_hostmem=4G"], ["max_hostmem", "512M"]),
    (["-device", "virtio-gpu-pci,disable-legacy=off"], ["disable-legacy=off", "leave it out"]),
    (["-device", "virtio-vga,disable-modern=on"], ["disable-modern=on", "no other"]),
    (["-device", "virtio-gpu-pci,blob=on"], ["blob=on", "leave it out"]),
    (["-netdev", "user"], ["-netdev user", "id=ID"]),
    (["-netdev", "usr,id=n"], ["usr", "user"]),
    (["-netdev", "vhost-user,id=n"], ["vhost-user", "yet"]),
    (["-netdev", "bridge,id=n,br=nosuchbridge"], ["nosuchbridge", "no such interface"]),
    (["-netdev", "bridge,id=n,br=lo"], ["br=lo", "is no bridge"]),
    (["-netdev", "bridge,id=n,helper=/bin/false"], ["/bin/false", "status 1"]),
    (["-sandbox", "on,spawn=deny", "-netdev", "bridge,id=n,helper=/bin/false"], ["/bin/false", "-sandbox"]),
    (["-netdev", "tap,id=n,vhostforce=on"], ["vhostforce", "vhost-net"]),
    (["-netdev", "tap,id=n,queues=4"], ["queues=4", "one pair"]),
    (["-netdev", "socket,id=n"], ["listen=", "connect="]),
    (["-netdev", "socket,id=n,connect=:1"], ["connect=:1", "no host"]),
    (["-nic", "socket,mcast=10.0.0.1:1"], ["10.0.0.1", "multicast"]),
    (["-netdev", "stream,id=n,addr.type=unix,addr.path=/nonexistent/s"], ["/nonexistent/s", "No such file"]),
    (["-netdev", "dgram,id=n,local.type=inet,local.port=1"], ["-netdev dgram", "remote"]),
    (["-netdev", "user,id=n,hostfwd=tcp::80:80"], ["tcp::80:80", "HOSTPORT-[GUESTADDR]"]),
    (["-netdev", "user,id=n,hostfw=tcp::80-:80"], ["hostfw", "hostfwd"]),
    (["-netdev", '{"type":"user","id":"n","net":"10.0.0"}'], ["net=10.0.0", "IPv4"]),
    (["-device", "virtio-net-pci,netdev=nix"], ["nix", "-netdev"]),
    (["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,mac=1:2"], ["1:2", "52:54:00:12:34:56"]),
    (["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n", "-device", "virtio-net-pci,netdev=n"],
     ["'n'", "in use"]),
    (["-device", "virtio-balloon-pci,free-page-hint=on"], ["free-page-hint", "free-page-reporting"]),
    (["-device", "virtio-balloon-pci", "-device", "virtio-balloon-pci"], ["virtio-balloon-pci", "only one"]),
    (["-device", "virtio-rng-pci,rng=nix"], ["rng=nix", "rng-random"]),
    (["-object", "rng-random,id=r,filename=/nonexistent"], ["rng-random", "/nonexistent"]),
    (["-object", "rng-egd,id=r"], ["rng-egd"]),
    (["-device", "virtserialport"], ["virtserialport", "virtio-serial-pci"]),
    (["-device", "virtio-serial-pci,id=vs", "-device", "virtserialport,bus=vt.0"], ["vt.0", "vs.0"]),
    (["-device", "virtio-serial-pci", "-device", "virtserialport,nr=0"], ["nr=0", "virtconsole"]),
    (["-device", "virtio-serial-pci", "-device", "virtserialport,nr=31"], ["nr=31", "0 to 30"]),
    (["-device", "virtio-serial-pci", "-device", "virtserialport,nr=2,id=a", "-device", "virtconsole,nr=2"],
     ["nr=2", "'a'"]),
    (["-device", "virtio-serial-pci", "-device", "virtserialport,name=a", "-device", "virtserialport,name=a"],
     ["name=a", "already"]),
    (["-nic", "user,model=rtl8139"], ["rtl8139", "virtio-net-pci"]),
    (["-nic", "user,model=virtio-nett"], ["virtio-nett", "virtio-net"]),
    (["-net", "nic,modl=virtio"], ["modl", "model"]),
    (["-net", "nic", "-net", "nic", "-net", "user"], ["-netdev user,id=n0"]),
    (["-display", "gtk"], ["-display", "-nographic"]),
    (["-bios", "x"], ["'x'", "seabios"]),
    (["-pflash", "/nonexistent.fd"], ["/nonexistent.fd", "No such file"]),
    (["-drive", "if=pflash,fil=x"], ["fil", "file"]),
    (["-machine", "q53"], ["q53", "q35"]),
    (["-readconfig", "/nonexistent.cfg"], ["/nonexistent.cfg", "No such file"]),
    (["-smbios", "type=999"], ["type=999", "type=0"]),
    (["-smbios", "type=1,manufaturer=x"], ["manufaturer", "manufacturer"]),
    (["-acpitable", "file=/nonexistent"], ["/nonexistent", "No such file"]),
    (["-boot", "once=z"], ["once=z", "floppy"]),
    (["-boot", "ordr=c"], ["ordr", "order"]),
    (["-fw_cfg", "name=opt/x"], ["opt/x", "file=PATH"]),
    (["-fw_cfg", "nam=opt/x,string=y"], ["nam", "name"]),
    (["-cpu", "host,famly=3"], ["famly", "family"]),
    (["-cpu", "qemu64,family=99999"], ["family=99999", "0x10e"]),
    (["-accel", "jit,translate=maybe"], ["maybe", "off"]),
    (["-accel", "jit,threshold=0"], ["threshold=0", "1000000"]),
    (["-accel", "jit,profile=yes"], ["profile=yes", "off"]),
    (["-accel", "kvm,kernel-irqchip=maybe"], ["maybe", "split"]),
    (["-machine", "q35", "-device", "pcie-root-port,bus=nowhere"], ["nowhere", "pcie.0"]),
    (["-machine", "q35", "-device", "pcie-root-port,addr=99.1"], ["99.1", "1c.0"]),
    (["-device", "pci-testdev,addr=0"], ["00.0", "i440fx"]),
    (["-device", "pci-testdev,id=a", "-device", "pci-testdev,id=a"], ["'a'", "taken"]),
    (["-incoming", "tpc:127.0.0.1:1"], ["tpc", "tcp"]),
    (["-incoming", "tcp:1"], ["tcp:1", "HOST:PORT"]),
    (["-incoming", "unix:/nonexistent/x"], ["-incoming", "/nonexistent/x"]),
    (["-incoming", "file:/nonexistent/x"], ["-incoming", "/nonexistent/x"]),
    (["-incoming", "fd:99"], ["-incoming", "fd:99"]),
    (["-loadvm", "x"], ["-loadvm", "disk"]),
    (["-loadvm", "x", "-incoming", "defer"], ["-loadvm", "-incoming"]),
    (["-watchdog-action", "reste"], ["reste", "reset"]),
    (["-global", "nosuch.x=1"], ["nosuch"]),
    (["-global", "mch.x=1"], ["mch", "extended-tseg-mbytes"]),
    (["-device"], ["-device", "wants a value"]),
    (["-rtc", "clok=vm"], ["clok", "clock"]),
    (["-redir", "tcp:80:80"], ["-redir", "tcp:80:80", "HOSTPORT"]),
    (["/nonexistent/disk.img"], ["/nonexistent/disk.img", "No such file"]),
    (["-device", "isa-debug-exitt"], ["isa-debug-exitt", "isa-debug-exit"]),
    (["-device", "isa-debug-exit,iobas=1"], ["iobas", "iobase"]),
    (["-device", "isa-debug-exit,iobase=x"], ["iobase", "x"]),
    (["-device", "isa-debug-exit,iobase=0x10000"], ["iobase", "0xfff8"]),
    (["-global", "isa-debug-exit"], ["-global", "isa-debug-exit"]),
    (["-object", "rng"], ["rng"]),
    (["-serial", "strio"], ["strio", "stdio"]),
    (["-serial", "unix:"], ["unix", "path"]),
    (["-chardev", "stdio"], ["id"]),
    (["-chardev", "sockt,id=a"], ["sockt", "socket"]),
    (["-chardev", "null,id=a", "-chardev", "null,id=a"], ["'a'"]),
    (["-chardev", "null,id=a,muxx=on"], ["muxx", "mux"]),
    (["-mon", "chardev=nowhere,mode=control"], ["nowhere"]),
    (["-mon", "chardev=a,mode=contrl"], ["contrl", "control"]),
    (["-qmp", "tcp:nohost"], ["HOST:PORT"]),
    (["-rtc", "base=tomorrow"], ["tomorrow", "utc"]),
    (["-uuid", "123"], ["123", "550e8400"]),
    (["-boot", "order=z9"], ["z9"]),
    (["-d", "interrupts"], ["interrupts", "int"]),
    (["-kernel", "/nonexistent/vmlinuz"], ["/nonexistent/vmlinuz", "No such file"]),
    (["-kernel", "/dev/null"], ["/dev/null"]),
    (["-initrd", "x", "-kernel", "/nonexistent/k"], ["/nonexistent/k"]),
    (["-pidfile", "/nonexistent/dir/pid"], ["/nonexistent/dir/pid"]),
    (["-daemonize", "-nographic"], ["-daemonize", "-nographic"]),
]


# --- tests: functions named test_..., an assertion fails them -----------------------------------------------------------

def test_version_names_kite():
    done = run("--version")
    check(done.returncode == 0 and re.match(r"Kite \d+\.\d+", done.stdout), done.stdout)


def test_help_lists_every_option_it_takes():
    done = run("-help")
    check(done.returncode == 0 and "-kernel FILE" in done.stdout and "-smp" in done.stdout, done.stdout)


def test_device_help_lists_types_and_properties():
    check("isa-debug-exit" in run("-device", "help").stdout, "the type is not listed")
    check("iobase" in run("-device", "isa-debug-exit,help").stdout, "the property is not listed")


def test_cpu_and_machine_help():
    check("qemu64" in run("-cpu", "help").stdout, "no model")
    check("(default)" in run("-machine", "help").stdout, "no default board")


def refused(address, context):
    """Connects, with TLS if there is a context; the server ends that without a word of its own."""
    try:
        with socket.create_connection(address, LIMIT) as connection:
            if context is None:
                connection.sendall(b'{"execute": "qmp_capabilities"}\r\n' * 4)
            else:
                connection = context.wrap_socket(connection, server_hostname="localhost")
            while data := connection.recv(4096):
                check(b"QMP" not in data, "it is let in")
    except OSError:
        pass


def test_a_monitor_over_tls_knows_its_clients():
    with tempfile.TemporaryDirectory() as folder:
        files = Certificates(folder)
        with Machine("-S", "-object", f"tls-creds-x509,id=tls0,dir={folder},endpoint=server", "-chardev",
                     "socket,id=far,host=127.0.0.1,port=0,server=on,wait=off,tls-creds=tls0", "-mon",
                     "chardev=far,mode=control") as machine:
            def place():
                return next(device["filename"] for device in machine.qmp.command("query-chardev")["return"]
                            if device["label"] == "far")

            address = ("127.0.0.1", int(re.search(r"tcp:127.0.0.1:(\d+)", place())[1]))
            for context in (None, files.client(), files.client(files.stranger)):
                refused(address, context)
            for _ in range(2):
                with files.client(folder).wrap_socket(socket.create_connection(address, LIMIT),
                                                      server_hostname="localhost") as connection:
                    far = Qmp(connection)
                    check("return" in far.command("qmp_capabilities"), "negotiation failed")
                    # More than any buffer on the way holds.
                    for _ in range(10):
                        check(len(far.command("query-qmp-schema")["return"]) > 100, "the schema is cut short")
                    check("<-> 127.0.0.1:" in place(), place())
            check("return" in machine.qmp.command("quit"), "quit failed")
            check(machine.end() == 0, "it did not end well")


def test_a_client_over_tls_knows_its_server():
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        files = Certificates(folder)
        listener.settimeout(LIMIT)
        with Machine("-S", "-object", f"tls-creds-x509,id=tls0,dir={folder}", "-chardev",
                     f"socket,id=far,host=127.0.0.1,port={listener.getsockname()[1]},reconnect=1,tls-creds=tls0", "-mon",
                     "chardev=far,mode=control"):
            # One that another authority vouches for, then the right one.
            wrong = Certificates(f"{folder}/wrong").server()
            try:
                wrong.wrap_socket(listener.accept()[0], server_side=True).recv(1)
            except OSError:
                pass
            with files.server().wrap_socket(listener.accept()[0], server_side=True) as connection:
                check(dict(part[0] for part in connection.getpeercert()["subject"])["commonName"] == "client", "its name")
                check("return" in Qmp(connection).command("qmp_capabilities"), "negotiation failed")


def test_a_server_waits_for_a_client_with_tls():
    with tempfile.TemporaryDirectory() as folder:
        files = Certificates(folder)
        path = f"{folder}/far"
        with subprocess.Popen([driven.KITE, "-accel", "jit", "-display", "none", "-serial", "none", "-S", "-object",
                               f"tls-creds-x509,id=tls0,dir={folder},endpoint=server", "-chardev",
                               f"socket,id=far,path={path},server=on,wait=on,tls-creds=tls0", "-mon",
                               "chardev=far,mode=control"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                check(b"waits" in process.stderr.readline(), "it does not wait")
                with socket.socket(socket.AF_UNIX) as stranger:
                    stranger.connect(path)
                    stranger.sendall(b"hello")
                check(b"no TLS" in process.stderr.readline(), "it does not say whom it has refused")
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.settimeout(LIMIT)
                    connection.connect(path)
                    far = Qmp(files.client(folder).wrap_socket(connection, server_hostname="localhost"))
                    check("return" in far.command("qmp_capabilities"), "negotiation failed")
                    check("return" in far.command("quit"), "the last answer is lost")
                check(process.wait(LIMIT) == 0, "it did not end well")
            finally:
                process.kill()


def test_qmp_greeting_and_basic_queries():
    with Machine("-S", "-name", "kite-test") as machine:
        check("version" in machine.qmp.greeting["QMP"], "no version in the greeting")
        status = machine.qmp.command("query-status")["return"]
        check(status["status"] == "prelaunch" and not status["running"], status)
        check(machine.qmp.command("query-name")["return"]["name"] == "kite-test", "wrong name")
        check({"name": "query-status"} in machine.qmp.command("query-commands")["return"], "not listed")
        check("return" in machine.qmp.command("quit"), "quit failed")
        event = machine.qmp.event("SHUTDOWN")
        check(event["data"] == {"guest": False, "reason": "host-qmp-quit"}, event)
        check(machine.end() == 0, "quit did not end with 0")


def test_qmp_stop_and_cont_send_events():
    with Machine("-accel", "qtest") as machine:
        machine.qmp.command("stop")
        machine.qmp.event("STOP")
        check(machine.qmp.command("query-status")["return"]["status"] == "paused", "not paused")
        machine.qmp.command("cont")
        machine.qmp.event("RESUME")
        check(machine.qmp.command("query-status")["return"]["running"], "not running")
        machine.qmp.command("system_reset")
        check(machine.qmp.event("RESET")["data"]["guest"] is False, "reset is not the host's")


def test_qmp_commands_find_the_reset_before_them_done():
    with Machine("-no-shutdown", qtest=True) as machine:
        for line in ("outl 0xcf8 0x80000b40", "outl 0xcfc 0xb001", "outl 0xcf8 0x80000b80", "outb 0xcfc 1"):  # PMBA, PMREGMISC
            check(machine.ask(line) == "OK", line)
        check(machine.ask("outw 0xb004 0x2000") == "OK", "PMCNTRL: S5")
        machine.qmp.event("SHUTDOWN")
        check("reset it first" in machine.qmp.command("cont")["error"]["desc"], "it goes on although it is off")
        machine.qmp.send('{"execute": "system_reset", "id": 1} {"execute": "cont", "id": 2}')
        replies = [message for message in (machine.qmp.message() for _ in range(4)) if "id" in message]  # and RESET, RESUME
        check(len(replies) == 2 and all("return" in reply for reply in replies), f"{replies}")
        check(machine.qmp.command("query-status")["return"]["running"], "not running")


def test_flash_chips_move_with_their_machine():
    """Both ends with one file for the variables, as on shared storage, and each with its own."""
    base = (1 << 32) - (2 << 17)  # unit 1, below unit 0
    for own in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            files = [f"{folder}/{name}" for name in ("code", "vars", "other")]
            for file in files:
                with open(file, "wb") as out:
                    out.write(b"\xff" * (1 << 17))
            def chips(variables):
                return ("-drive", f"if=pflash,readonly=on,format=raw,file={files[0]}",
                        "-drive", f"if=pflash,format=raw,file={variables}")
            target = files[2] if own else files[1]
            with Machine(*chips(files[1]), qtest=True) as source:
                for value in (0x40, 0x5a):  # program a byte
                    check(source.ask(f"writeb {base + 0x1234:#x} {value:#x}") == "OK", "not written")
                with Machine("-incoming", f"unix:{folder}/way", *chips(target), qtest=True) as there:
                    check("return" in source.qmp.command("migrate", uri=f"unix:{folder}/way"), "migrate")
                    there.qmp.event("RESUME")
                    check(there.ask(f"writeb {base:#x} 0xff") == "OK", "read array")
                    check(there.ask(f"readb {base + 0x1234:#x}") == "OK 0x000000000000005a", "it does not hold what it held")
                    with open(target, "rb") as out:
                        check(out.read()[0x1234] == 0x5a, "the file does not hold it")
                    for line in (f"writeb {base + 0x4321:#x} 0x40", f"writeb {base + 0x4321:#x} 0"):
                        check(there.ask(line) == "OK", line)
                    with open(target, "rb") as out:
                        check(out.read()[0x4321] == 0, "nothing is written any more")
                    if not own:
                        check("in use" in source.qmp.command("cont")["error"]["desc"], "both ends write the file")


def test_qmp_refuses_what_is_wrong():
    with Machine("-S") as machine:
        check(machine.qmp.command("qyery-status")["error"]["class"] == "CommandNotFound", "class")
        check("'x' is unexpected" in machine.qmp.command("stop", x=1)["error"]["desc"], "unexpected argument")
        check("missing" in machine.qmp.command("device-list-properties")["error"]["desc"], "missing argument")
        check(machine.qmp.command("device-list-properties", typename="nix")["error"]["class"] == "DeviceNotFound", "class")
        for nonsense in ('{"execute": }\n', "[1, 2]\n", '{"execute": 1}', '{"exec": "stop"}', '{"a": "\\ud800"}'):
            machine.qmp.send(nonsense)
            check("error" in machine.qmp.message(), f"{nonsense} was taken")
        check("return" in machine.qmp.command("query-status"), "the session did not survive")


def test_qmp_before_negotiation():
    with Machine("-S") as machine:
        machine.qmp.command("quit")
        machine.end()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        process = subprocess.Popen([driven.KITE, "-S", "-display", "none", "-qmp", f"unix:{path},server=on,wait=off"])
        try:
            qmp = Qmp(connect(path))
            check(qmp.command("query-status")["error"]["class"] == "CommandNotFound", "answered before negotiation")
            qmp.command("qmp_capabilities")
            check("return" in qmp.command("query-status"), "not answered after negotiation")
            qmp.connection.close()
            again = Qmp(connect(path))  # a new connection starts over
            check(again.command("query-status")["error"]["class"] == "CommandNotFound", "still negotiated")
        finally:
            process.kill()
            process.wait()


def test_human_monitor_over_qmp():
    with Machine("-S") as machine:
        def human(line):
            return machine.qmp.command("human-monitor-command", **{"command-line": line})["return"]
        check("prelaunch" in human("info status"), "status")
        check("pc.ram" in human("info mtree"), "memory tree")
        check("RIP=" in human("info registers"), "registers")
        check("did you mean" in human("inffo status"), "suggestion")


def qcow2(folder, name="disk.qcow2"):
    path = f"{folder}/{name}"
    check(run("img", "create", "-q", "-f", "qcow2", path, "16M").returncode == 0, "no image was made")
    return path


def test_a_disk_is_shown_and_closed_cleanly():
    with tempfile.TemporaryDirectory() as folder:
        path = qcow2(folder)
        with Machine("-drive", f"if=virtio,file={path},id=d0", qtest=True) as machine:
            blocks = {entry["device"]: entry for entry in machine.qmp.command("query-block")["return"]}
            check(blocks["d0"]["inserted"]["drv"] == "qcow2", blocks)
            check(blocks["d0"]["inserted"]["image"]["virtual-size"] == 16 << 20, blocks)
            check({"ide1-cd0", "floppy0"} <= set(blocks), f"no empty drives: {list(blocks)}")
            stats = {entry["device"]: entry for entry in machine.qmp.command("query-blockstats")["return"]}
            check(stats["d0"]["stats"]["rd_operations"] == 0, stats["d0"])
            again = run("-accel", "qtest", "-display", "none", "-serial", "none", "-monitor", "none", "-hda", path)
            check(again.returncode == 1 and "lock" in again.stderr, f"two machines write one image: {again.stderr}")
            machine.process.send_signal(signal.SIGTERM)
            check(machine.end() == 0, "SIGTERM")
        checked = run("img", "check", path)
        check(checked.returncode == 0 and "No errors" in checked.stdout, checked.stdout)


def test_nodefaults_has_no_drives():
    with Machine("-nodefaults", "-S") as machine:
        check(machine.qmp.command("query-block")["return"] == [], "drives")


def test_q35_has_its_cdrom_at_port_2():
    with Machine("-M", "q35", qtest=True) as machine:
        check([entry["device"] for entry in machine.qmp.command("query-block")["return"]] == ["ide2-cd0"], "drives")


def test_nodes_come_and_go():
    with Machine(qtest=True) as machine:
        qmp = machine.qmp
        check("return" in qmp.command("blockdev-add", driver="null-co", size=1 << 20, **{"node-name": "n"}), "add")
        check("n" in [node["node-name"] for node in qmp.command("query-named-block-nodes")["return"]], "not listed")
        check("Duplicate" in qmp.command("blockdev-add", driver="null-co", **{"node-name": "n"})["error"]["desc"], "twice")
        check("return" in qmp.command("device_add", driver="virtio-blk-pci", id="d", drive="n"), "device_add")
        check("in use" in qmp.command("blockdev-del", **{"node-name": "n"})["error"]["desc"], "taken from its device")
        check("return" in qmp.command("device_del", id="d"), "device_del")
        qmp.command("system_reset")
        check(qmp.event("DEVICE_DELETED")["data"]["device"] == "d", "not deleted")
        check("return" in qmp.command("blockdev-del", **{"node-name": "n"}), "del")


def human(qmp, line):
    return qmp.command("human-monitor-command", **{"command-line": line})["return"].replace("\r\n", "\n")


def test_networks_come_and_go():
    with Machine("-nic", "user,mac=52:54:00:aa:bb:cc", qtest=True) as machine:
        qmp = machine.qmp
        check("return" in qmp.command("netdev_add", type="user", id="n", hostfwd=[{"str": "tcp:127.0.0.1:0-:22"}]), "add")
        check("already" in qmp.command("netdev_add", type="user", id="n")["error"]["desc"], "added twice")
        check("user" in qmp.command("netdev_add", type="usr", id="m")["error"]["desc"], "an unknown type")
        check("return" in qmp.command("device_add", driver="virtio-net-pci", id="d", netdev="n"), "device_add")
        check("in use" in qmp.command("device_add", driver="virtio-net-pci", netdev="n")["error"]["desc"], "shared")
        shown = human(qmp, "info network")
        check("macaddr=52:54:00:aa:bb:cc" in shown, shown)
        check("d: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\n \\ n: index=0,type=user,net=10.0.2.0"
              in shown, shown)
        check("22" in human(qmp, "info usernet"), "the forward is not shown")
        check("return" in qmp.command("set_link", name="d", up=False), "set_link")
        check("link=down" in human(qmp, "info network"), "the link is up")
        check(qmp.command("set_link", name="x", up=True)["error"]["class"] == "DeviceNotFound", "set_link of nothing")
        check("return" in qmp.command("device_del", id="d"), "device_del")
        qmp.command("system_reset")
        check(qmp.event("DEVICE_DELETED")["data"]["device"] == "d", "not deleted")
        check("return" in qmp.command("netdev_del", id="n"), "netdev_del")
        check(qmp.command("netdev_del", id="n")["error"]["class"] == "DeviceNotFound", "netdev_del of nothing")
        check("return" in qmp.command("netdev_del", id="nic0"), "a back end is taken from its card")
        check(human(qmp, "info network") == "", "something is left")


def test_a_balloon_is_spoken_to():
    with Machine("-m", "64", qtest=True) as machine:
        qmp = machine.qmp
        check(qmp.command("query-balloon")["error"]["class"] == "DeviceNotActive", "a balloon without a balloon")
        check(qmp.command("balloon", value=1 << 25)["error"]["class"] == "DeviceNotActive", "the same")
        check("return" in qmp.command("device_add", driver="virtio-balloon-pci", id="b"), "device_add")
        check("size" in qmp.command("balloon", value=0)["error"]["desc"], "no memory at all")
        check("return" in qmp.command("balloon", value=1 << 25), "balloon")
        check(qmp.command("query-balloon")["return"] == {"actual": 64 << 20}, "there is no driver to do it")
        check(human(qmp, "info balloon") == "balloon: actual=64\n", "info balloon")
        check("usage" in human(qmp, "balloon"), "balloon without a number")
        check(human(qmp, "balloon 32") == "", "balloon")


def test_serial_ports_come_and_go():
    with Machine("-device", "virtio-serial-pci,id=vs", "-chardev", "null,id=c", qtest=True) as machine:
        qmp = machine.qmp

        def listens():
            return [entry["frontend-open"] for entry in qmp.command("query-chardev")["return"] if entry["label"] == "c"]

        for _ in range(2):
            check("return" in qmp.command("device_add", driver="virtserialport", id="p", chardev="c", name="n"), "add")
            check(listens() == [False], "no guest has opened it")
            check("in use" in qmp.command("device_add", driver="virtserialport", chardev="c")["error"]["desc"], "shared")
            check("already" in qmp.command("device_add", driver="virtserialport", name="n")["error"]["desc"], "twice")
            check("return" in qmp.command("device_del", id="p"), "device_del")
            check(qmp.event("DEVICE_DELETED")["data"]["device"] == "p", "not deleted")
        check("return" in qmp.command("device_add", driver="virtconsole", id="p", chardev="c"), "a console")
        check("return" in qmp.command("device_del", id="vs"), "device_del")
        qmp.command("system_reset")
        check([qmp.event("DEVICE_DELETED")["data"]["device"] for _ in range(2)] == ["p", "vs"], "the port goes first")


def test_forwards_in_the_human_monitor():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Machine("-nic", "user") as machine:
        qmp = machine.qmp
        check(human(qmp, f"hostfwd_add tcp:127.0.0.1:{port}-:22") == "", "not added")
        socket.create_connection(("127.0.0.1", port)).close()
        check("in use" in human(qmp, f"hostfwd_add nic0 tcp:127.0.0.1:{port}-:22"), "added twice")
        check(human(qmp, f"hostfwd_remove nic0 tcp:127.0.0.1:{port}") == "", "not removed")
        check("no forward" in human(qmp, f"hostfwd_remove tcp:127.0.0.1:{port}"), "removed twice")
        check("usage" in human(qmp, "hostfwd_add"), "no usage")
        check("HOSTPORT" in human(qmp, "hostfwd_add tcp:1:2"), "no form")
        check("no -netdev user" in human(qmp, "hostfwd_add other tcp::1-:2"), "another back end")
        check(human(qmp, "netdev_add user,id=n") == human(qmp, "netdev_del n") == "", "netdev_add, netdev_del")
        check(human(qmp, "set_link nic0 off") == "" and "usage" in human(qmp, "set_link nic0"), "set_link")


def test_a_function_comes_and_goes_by_acpi():
    up, down, eject, bus, events = 0xae00, 0xae04, 0xae08, 0xae10, 0xafe0
    with Machine("-device", "pci-bridge,id=br,addr=4", qtest=True) as machine:
        qmp = machine.qmp
        for number, name in enumerate(["pci.0", "br"]):
            machine.ask(f"outl {bus} {number}")
            machine.ask(f"outb {events} 2")
            check("return" in qmp.command("device_add", driver="pci-testdev", id="d", bus=name, addr="1e"), "device_add")
            check(int(machine.ask(f"inb {events}").split()[1], 0) & 2 == 2, f"{name}: no event")
            check(int(machine.ask(f"inl {up}").split()[1], 0) == 1 << 30, f"{name}: not told of the slot")
            for _ in range(2):  # a guest that was not up yet is asked again
                check("return" in qmp.command("device_del", id="d"), "device_del")
                check(int(machine.ask(f"inl {down}").split()[1], 0) == 1 << 30, f"{name}: not asked to let go")
            machine.ask(f"outl {eject} {1 << 30}")
            check(qmp.event("DEVICE_DELETED")["data"]["device"] == "d", "not deleted")
            check(int(machine.ask(f"inl {down}").split()[1], 0) == 0, f"{name}: asked for what is gone")
        machine.ask(f"outl {bus} 0")
        machine.ask(f"outl {eject} {0xffffffff}")
        check("stays" in qmp.command("device_del", id="br")["error"]["desc"], "a bridge was ejected")


def test_a_medium_is_changed():
    with tempfile.TemporaryDirectory() as folder, Machine(qtest=True) as machine:
        with open(f"{folder}/x.iso", "wb") as file:
            file.truncate(1 << 20)
        qmp = machine.qmp
        check("return" in qmp.command("blockdev-change-medium", device="ide1-cd0", filename=f"{folder}/x.iso"), "change")
        check([qmp.event("DEVICE_TRAY_MOVED")["data"]["tray-open"] for _ in range(2)] == [True, False], "trays")
        cdrom = [entry for entry in qmp.command("query-block")["return"] if entry["device"] == "ide1-cd0"][0]
        check(cdrom["inserted"]["ro"] and not cdrom["tray_open"], cdrom)
        check("not open" in qmp.command("blockdev-remove-medium", id=cdrom["qdev"])["error"]["desc"], "through the tray")
        check("return" in qmp.command("eject", device="ide1-cd0"), "eject")
        cdrom = [entry for entry in qmp.command("query-block")["return"] if entry["device"] == "ide1-cd0"][0]
        check("inserted" not in cdrom and cdrom["tray_open"], cdrom)
        check("not removable" not in qmp.command("eject", device="nix")["error"]["desc"], "eject of nothing")


def test_disks_in_the_human_monitor():
    with tempfile.TemporaryDirectory() as folder, Machine(qtest=True) as machine:
        def human(line):
            return machine.qmp.command("human-monitor-command", **{"command-line": line})["return"]
        check(human(f"drive_add 0 if=none,id=d,file={qcow2(folder)}") == "OK\r\n", "drive_add")
        check("disk.qcow2 (qcow2)" in human("info block d"), human("info block"))
        check(human("block_resize d 32M") == "", "block_resize")
        check("33554432" in human("info block -v d"), "size")
        check(human("drive_del d") == "", "drive_del")
        check("not found" in human("drive_del d"), "deleted twice")


def test_limits_are_set_and_shown():
    with Machine("-drive", "if=none,id=d,driver=null-co", qtest=True) as machine:
        limits = {"bps": 0, "bps_rd": 1000, "bps_wr": 0, "iops": 7, "iops_rd": 0, "iops_wr": 0}
        check("return" in machine.qmp.command("block_set_io_throttle", device="d", iops_max=70, **limits), "set")
        shown = [entry for entry in machine.qmp.command("query-block")["return"] if entry["device"] == "d"][0]["inserted"]
        check(shown["bps_rd"] == 1000 and shown["iops"] == 7 and shown["iops_max"] == 70, shown)
        limits["bps"] = 5
        check("same time" in machine.qmp.command("block_set_io_throttle", device="d", **limits)["error"]["desc"], "both")


def test_qtest_ports_memory_and_clock():
    with Machine(qtest=True) as machine:
        check(machine.ask("endianness") == "OK little", "endianness")
        check(machine.ask("writel 0x100000 0x12345678") == "OK", "write")
        check(machine.ask("readw 0x100002") == "OK 0x0000000000001234", "read")
        check(machine.ask("memset 0x2000 4 0xa5") == "OK", "memset")
        check(machine.ask("read 0x1fff 0x6") == "OK 0x00a5a5a5a500", "read bytes")
        check(machine.ask("write 0x2000 0x4 0x0102") == "OK", "short write")
        check(machine.ask("b64read 0x2000 4") == "OK AQIAAA==", "base64")
        check(machine.ask("b64write 0x2000 3 AQID") == "OK", "base64 write")
        check(machine.ask("clock_step 1000") == "OK 1000", "step")
        check(machine.ask("clock_set 5000") == "OK 5000", "set")
        check(machine.ask("inb 0x3ff0") == "OK 0x00ff", "an empty port")
        check(machine.ask("nonsense").startswith("FAIL"), "unknown command")
        check(machine.ask("read 0 0").startswith("FAIL"), "length 0")
        machine.process.send_signal(signal.SIGTERM)
        check(machine.end() == 0, "SIGTERM")


def test_qtest_interrupt_lines():
    with Machine(qtest=True) as machine:
        check(machine.ask("irq_intercept_in ioapic") == "OK", "intercept")
        check(machine.ask("irq_intercept_in ioapic") == "OK", "a repeat is harmless")
        machine.ask("outb 0x43 0x34")  # counter 0, mode 2
        machine.ask("outb 0x40 0xff")
        machine.qtest.send("outb 0x40 0xff\n")
        lines = [machine.qtest.line()]
        machine.qtest.send("clock_step 200000000\n")
        while not lines[-1].startswith("OK 2"):
            lines.append(machine.qtest.line())
        check("IRQ raise 0" in lines and "IRQ lower 0" in lines, lines)


def test_debug_exit_gives_its_status():
    with Machine("-device", "isa-debug-exit,iobase=0xf4,iosize=4", qtest=True) as machine:
        machine.qtest.send("outb 0xf4 0x15\n")
        check(machine.end() == 0x15 * 2 + 1, "wrong status")


def test_sigterm_ends_cleanly():
    with Machine("-S") as machine:
        machine.process.send_signal(signal.SIGTERM)
        check(machine.qmp.event("SHUTDOWN")["data"]["reason"] == "host-signal", "reason")
        check(machine.end() == 0, "status")


def test_daemonize_pidfile():
    with tempfile.TemporaryDirectory() as folder:
        done = run("-S", "-display", "none", "-daemonize", "-pidfile", f"{folder}/pid",
                   "-qmp", f"unix:{folder}/qmp,server=on,wait=off")
        check(done.returncode == 0, done.stderr)
        with open(f"{folder}/pid", encoding="ascii") as file:
            pid = int(file.read())
        second = run("-S", "-display", "none", "-pidfile", f"{folder}/pid")
        check(second.returncode == 1 and "another process holds it" in second.stderr, second.stderr)
        qmp = Qmp(connect(f"{folder}/qmp"))
        qmp.command("qmp_capabilities")
        qmp.command("quit")
        for _ in range(LIMIT * 20):
            if not os.path.exists(f"/proc/{pid}") or not os.path.exists(f"{folder}/pid"):
                break
            time.sleep(0.05)
        check(not os.path.exists(f"{folder}/pid"), "the pid file stays behind")


def test_daemonize_keeps_relative_paths():
    with tempfile.TemporaryDirectory() as folder:
        done = run("-S", "-display", "none", "-daemonize", "-pidfile", "pid", "-qmp", "unix:qmp,server=on,wait=off",
                   cwd=folder)
        check(done.returncode == 0, done.stderr)
        check(os.path.exists(f"{folder}/pid"), "the pid file is not where it was asked for")
        qmp = Qmp(connect(f"{folder}/qmp"))
        qmp.command("qmp_capabilities")
        qmp.command("quit")


def test_daemonize_without_defaults_needs_no_terminal():
    """As libvirt asks what there is."""
    with tempfile.TemporaryDirectory() as folder:
        done = run("-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=tcg", "-qmp",
                   f"unix:{folder}/qmp,server=on,wait=off", "-pidfile", f"{folder}/pid", "-daemonize")
        check(done.returncode == 0, done.stderr)
        qmp = Qmp(connect(f"{folder}/qmp"))
        qmp.command("qmp_capabilities")
        for name in ("query-qmp-schema", "query-machines", "query-cpu-definitions", "query-command-line-options"):
            check(qmp.command(name)["return"], f"{name} says nothing")
        check(qmp.command("query-tpm-models")["error"]["class"] == "CommandNotFound", "there is a TPM")
        qmp.command("quit")


def test_daemonize_reports_failure():
    done = run("-daemonize", "-display", "none", "-kernel", "/nonexistent/vmlinuz")
    check(done.returncode == 1 and "/nonexistent/vmlinuz" in done.stderr, done.stderr)


def test_vcpu_threads_are_named():
    with Machine("-S", "-smp", "3") as machine:
        tasks = f"/proc/{machine.process.pid}/task"
        names = set()
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/comm", encoding="ascii") as file:
                names.add(file.read().strip())
        check({"vcpu 0", "vcpu 1", "vcpu 2"} <= names, names)
        reported = {cpu["thread-id"] for cpu in machine.qmp.command("query-cpus-fast")["return"]}
        check(len(reported) == 3 and reported <= set(map(int, os.listdir(tasks))), reported)


def test_missing_flag_is_a_warning():
    with Machine("-S", "-cpu", "qemu64,+vmx") as machine:
        check("return" in machine.qmp.command("query-status"), "did not start")


def wrong_command_line(arguments, wanted):
    def test():
        before = [] if {"-accel", "-machine"} & set(arguments) else ["-accel", "jit"]
        before += [] if arguments[0] == "-daemonize" else ["-display", "none"]
        done = run(*before, *arguments)
        check(done.returncode == 1, f"status {done.returncode}: {done.stderr}")
        lines = done.stderr.strip().splitlines()
        check(1 <= len(lines) <= 2, f"{len(lines)} lines: {done.stderr}")
        for word in wanted:
            check(word in done.stderr, f"'{word}' is not named: {done.stderr}")
    test.__name__ = "wrong: " + " ".join(arguments)
    return test


def main():
    driven.KITE = os.path.abspath(sys.argv[1])
    tests = [value for name, value in sorted(globals().items()) if name.startswith("test_")]
    tests += [wrong_command_line(*row) for row in WRONG]
    passed = failed = 0
    for test in tests:
        if len(sys.argv) > 2 and sys.argv[2] not in test.__name__:
            continue
        try:
            test()
            passed += 1
        except (AssertionError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"FAIL {test.__name__}: {error!r}", flush=True)
    print(f"process: {passed} passed, {failed} failed, 0 skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
