#!/usr/bin/env python3
"""GDB at a machine: the real program in batch mode, and clients that speak its protocol badly.

usage: gdb_test.py KITE
Ends with 'gdb: N passed, N failed, N skipped'.
"""
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback

KITE = ""
LIMIT = 120  # seconds that end a hung test; none measures time
HERE = os.path.dirname(os.path.abspath(__file__))


class Skip(Exception):
    pass


def check(condition, why):
    if not condition:
        raise AssertionError(why)


def build_guest(folder):
    guest = f"{folder}/guest.elf"
    subprocess.run(["clang-19", "--target=x86_64-unknown-none-elf", "-nostdlib", "-static", "-fuse-ld=lld",
                    "-Wl,--image-base=0x100000,-z,max-page-size=4096,-e,start32,--build-id=none", "-o", guest,
                    f"{HERE}/guest.S"], check=True, timeout=LIMIT)
    symbols = {}
    for line in subprocess.run(["nm-19" if shutil.which("nm-19") else "llvm-nm-19", guest], check=True, timeout=LIMIT,
                               stdout=subprocess.PIPE, text=True).stdout.splitlines():
        address, _, name = line.split()
        symbols[name] = int(address, 16)
    return guest, symbols


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rw")
        self.lines.readline()
        self.events = []
        self.ask("qmp_capabilities")

    def read(self):
        line = self.lines.readline()
        check(line, "the monitor ended")
        return json.loads(line)

    def ask(self, command, **arguments):
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            answer = self.read()
            if "event" in answer:
                self.events.append(answer["event"])
                continue
            check("return" in answer, f"{command}: {answer}")
            return answer["return"]

    def event(self, name):
        """Waits for an event, which may have come already."""
        while name not in self.events:
            answer = self.read()
            if "event" in answer:
                self.events.append(answer["event"])
        self.events.remove(name)

    def status(self):
        return self.ask("query-status")["status"]

    def human(self, line):
        return self.ask("human-monitor-command", **{"command-line": line})


class Machine:
    """Kite with the guest, a monitor, and a debugger's socket."""

    def __init__(self, folder, *arguments, gdb=True):
        self.gdb_path, qmp_path = f"{folder}/gdb", f"{folder}/qmp"
        self.guest, self.symbols = GUEST
        command = [KITE, "-accel", "jit", "-nodefaults", "-display", "none", "-serial", "none", "-m", "16", "-kernel",
                   self.guest, "-qmp", f"unix:{qmp_path},server=on,wait=off", *arguments]
        if gdb:
            command += ["-gdb", f"unix:{self.gdb_path},server=on,wait=off"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        while not os.path.exists(qmp_path):
            if self.process.poll() is not None:
                raise AssertionError("Kite ended: " + self.process.stdout.read())
        self.qmp = self.connect_monitor(qmp_path)

    @staticmethod
    def connect_monitor(path):
        for _ in range(100_000):
            try:
                return Qmp(path)
            except ConnectionRefusedError:  # bound, and not listening yet
                continue
        raise AssertionError("the monitor does not listen")

    def close(self):
        self.process.kill()
        self.process.wait()

    def gdb(self, *commands, target=None):
        """What gdb says to these commands, once it is connected."""
        words = ["gdb", "--batch", "-nx", "-ex", "set confirm off", "-ex", "set pagination off", "-ex",
                 "set width 0", "-ex", f"target remote {target or self.gdb_path}"]
        for command in commands:
            words += ["-ex", command]
        done = subprocess.run([*words, self.guest], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=LIMIT, check=False, text=True)
        return done.stdout

    def raw(self):
        return Raw(self.gdb_path)


class Raw:
    """A client that says what a test wants."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT)
        self.socket.connect(path)
        self.bytes = b""

    def send(self, data):
        self.socket.sendall(data)

    @staticmethod
    def frame(text):
        data = text.encode("latin-1") if isinstance(text, str) else text
        return b"$" + data + b"#%02x" % (sum(data) & 255)

    def packet(self):
        """The next packet that comes, acknowledged."""
        while True:
            match = re.search(rb"\$([^#]*)#..", self.bytes, re.DOTALL)
            if match:
                self.bytes = self.bytes[match.end():]
                with contextlib.suppress(BrokenPipeError):  # it said the last that it has to say
                    self.send(b"+")
                return re.sub(rb"}(.)", lambda m: bytes([m[1][0] ^ 0x20]), match[1], flags=re.DOTALL).decode("latin-1")
            data = self.socket.recv(65536)
            check(data, "the stub closed the connection")
            self.bytes += data

    def ask(self, text):
        self.send(self.frame(text))
        return self.packet()

    def close(self):
        self.socket.close()


@contextlib.contextmanager
def machine(*arguments, **options):
    with tempfile.TemporaryDirectory() as folder:
        made = Machine(folder, *arguments, **options)
        try:
            yield made
        except BaseException:
            made.process.kill()
            print(made.process.stdout.read())
            raise
        finally:
            made.close()


def number(text, name):
    """The value that `printf "NAME %x"` has printed."""
    match = re.search(rf"^{name} (?:0x)?([0-9a-f]+)$", text, re.MULTILINE)
    check(match, f"no '{name}' in:\n{text}")
    return int(match[1], 16)


def show(name, expression):
    return f'printf "{name} %lx\\n", {expression}'


# --- tests: functions named test_..., an assertion fails them -----------------------------------------------------------

def test_a_waiting_machine_runs_to_a_hardware_breakpoint():
    with machine("-S") as m:
        check(m.qmp.status() == "prelaunch", m.qmp.status())
        said = m.gdb("hbreak start64", "continue", show("rip", "$rip"), "stepi", show("next", "$rip"), show("cr0", "$cr0"),
                     show("efer", "$efer"), "info registers eflags cs")
        check(number(said, "rip") == m.symbols["start64"], said)
        check(number(said, "next") == m.symbols["start64"] + 5, said)
        check(number(said, "cr0") & 0x80000001 == 0x80000001 and number(said, "efer") & 0x500 == 0x500, said)
        check("Breakpoint 1, 0x" in said and re.search(r"^cs +0x8 ", said, re.MULTILINE), said)
        check("warning" not in said.lower() and "error" not in said.lower(), said)


def test_breakpoints_in_code_that_is_hot():
    with machine() as m:
        while not re.search(r"blocks-translated\D+[1-9]", m.qmp.human("info stats vcpu")):
            pass
        said = m.gdb("break work", "continue", show("first", "$rbx"), "continue", show("second", "$rbx"), "tbreak round_stores", "continue",
                     show("rip", "$rip"), "delete", "break round_ends if $rbx % 8 == 0", "continue", show("third", "$rbx"),
                     show("stored", "*(long*)&counter"))
        check(number(said, "second") == number(said, "first") + 1, said)
        check(number(said, "rip") == m.symbols["round_stores"], said)
        check(number(said, "third") % 8 == 0 and number(said, "stored") == number(said, "third"), said)


def test_steps_are_exact():
    with machine("-S") as m:
        steps = [command for i in range(20) for command in ("stepi", show(f"at{i}", "$rip"))]
        said = m.gdb("hbreak fill", "continue", show("rcx", "$rcx"), *steps)
        check(number(said, "rcx") == 16, said)
        places = [number(said, f"at{i}") for i in range(20)]
        fill = m.symbols["fill"]
        check(places == [fill] * 15 + [fill + 2, m.symbols["round_stores"], m.symbols["round_ends"],
                                       m.symbols["round_begins"], m.symbols["round_begins"] + 3], f"{places}")


def test_registers_and_memory_are_read_and_written():
    with machine("-S") as m:
        said = m.gdb("hbreak round_begins", "continue", show("r12", "$r12"), show("xmm", "$xmm1.v2_int64[0]"),
                     "set $r13 = 0x1234567890", "set $xmm1.v2_int64[1] = 77", "set var *(long*)&buffer = 0x5152535455565758",
                     "set $fs_base = 0x123000", "flushregs", show("r13", "$r13"), show("high", "$xmm1.v2_int64[1]"),
                     show("memory", "*(long*)&buffer"), show("fs", "$fs_base"), show("mxcsr", "$mxcsr"),
                     "info registers st0 fctrl", "x/s 0x7fff000000")
        check(number(said, "r12") == number(said, "xmm") == 0x1122334455667788, said)
        check(number(said, "r13") == 0x1234567890 and number(said, "high") == 77, said)
        check(number(said, "memory") == 0x5152535455565758 and number(said, "fs") == 0x123000, said)
        check(number(said, "mxcsr") == 0x1f80 and "fctrl" in said, said)
        check("Cannot access memory at address 0x7fff000000" in said, said)


def test_watchpoints_tell_their_address():
    with machine("-S") as m:
        said = m.gdb("hbreak main", "continue", "delete", "watch *(long*)&counter", "continue", show("behind", "$rip"),
                     "continue", "delete", "awatch *(char*)((long)&buffer + 3)", "continue", show("rdi", "$rdi"))
        check(number(said, "behind") == m.symbols["round_ends"], said)
        check(said.count("Hardware watchpoint 2: *(long*)&counter") == 3, said)
        check("Old value = 1\nNew value = 2" in said, said)
        check(number(said, "rdi") == m.symbols["buffer"] + 4, said)


def test_the_client_interrupts():
    with machine() as m:
        client = m.raw()
        client.ask("?")
        m.qmp.event("STOP")
        client.send(Raw.frame("c"))
        m.qmp.event("RESUME")
        check(m.qmp.status() == "running", m.qmp.status())
        client.send(b"\x03")
        check(client.packet().startswith("T02thread:"), "no stop")
        check(m.qmp.status() == "paused", m.qmp.status())
        client.close()


def test_two_cpus_are_threads():
    with machine("-smp", "2") as m:
        said = m.gdb("info threads", "thread 2", "set $seen = *(int*)0x9000", "stepi", "stepi",
                     show("moved", "*(int*)0x9000 - $seen"), "thread 1", "break round_stores thread 1", "continue",
                     "info threads")
        check("Thread 1 (CPU#0 [running])" in said and "Thread 2 (CPU#1 [" in said, said)
        check(number(said, "moved") >= 1, said)
        check(re.search(r"^\* 1 +Thread 1 .*round_stores", said, re.MULTILINE), said)


def test_one_cpu_runs_while_the_other_is_held():
    with machine("-smp", "2") as m:
        said = m.gdb("hbreak round_begins", "continue", "set scheduler-locking on", "set $seen = *(int*)0x9000", "delete",
                     *["stepi"] * 8, show("moved", "*(int*)0x9000 - $seen"), "set scheduler-locking off")
        check(number(said, "moved") == 0, said)


def test_status_and_events_are_those_of_a_debugged_machine():
    with machine("-S") as m:
        client = m.raw()
        check(client.ask("?") == "T05thread:01;", "how it begins")
        check(client.ask(f"Z1,{m.symbols['work']:x},1") == "OK", "no breakpoint")
        client.send(Raw.frame("vCont;c"))
        check(client.packet() == "T05thread:01;", "no stop")
        m.qmp.event("RESUME")
        m.qmp.event("STOP")
        check(m.qmp.status() == "debug", m.qmp.status())
        client.ask("qSupported:hwbreak+;swbreak+")
        client.send(Raw.frame("c"))
        check(client.packet() == "T05thread:01;hwbreak:;", "the same breakpoint, and why")
        # The monitor lets it go on, and stops it.
        check(client.ask(f"z1,{m.symbols['work']:x},1") == "OK", "it stays")
        client.send(Raw.frame("c"))
        m.qmp.ask("stop")
        check(client.packet() == "T02thread:01;", "a stop by the monitor")
        client.close()


def test_it_runs_on_when_gdb_detaches_and_another_comes():
    with machine("-S") as m:
        said = m.gdb("break work", "continue", "detach")
        check("detached" in said, said)
        check(m.qmp.status() == "running", m.qmp.status())
        said = m.gdb(show("first", "$rip"), "detach")
        check(m.qmp.status() == "running", m.qmp.status())
        client = m.raw()
        client.ask("?")
        client.close()
        check("CPU#0" in m.gdb("info threads"), "a third client")


def test_a_client_that_is_lost_leaves_nothing():
    with machine("-S") as m:
        client = m.raw()
        client.ask("?")
        check(client.ask(f"Z0,{m.symbols['work']:x},1") == "OK", "no breakpoint")
        check(client.ask(f"Z2,{m.symbols['counter']:x},8") == "OK", "no watchpoint")
        client.close()
        client = m.raw()  # is let in once the first is gone
        check(client.ask(f"z0,{m.symbols['work']:x},1") == "E22", "its breakpoint is there")
        check(client.ask(f"z2,{m.symbols['counter']:x},8") == "E22", "its watchpoint is there")
        check(m.qmp.status() == "prelaunch", m.qmp.status())
        client.send(Raw.frame("c"))
        m.qmp.event("RESUME")
        client.close()
        client = m.raw()
        client.ask("qC")
        m.qmp.event("STOP")
        client.close()


def test_the_monitor_through_gdb():
    with machine("-S") as m:
        said = m.gdb("monitor info registers", "monitor nonsense", "monitor gdbserver none", "monitor info version")
        check("CPU#0" in said and "RIP=" in said and "unknown command: 'nonsense'" in said, said)
        check("use a monitor" in said and "Kite " in said, said)


def test_gdbserver_of_the_monitor():
    with machine("-S", gdb=False) as m:
        text = m.qmp.human(f"gdbserver unix:{m.gdb_path},server=on,wait=off")
        check(text.startswith("Waiting for gdb connection on device"), text)
        check("CPU#0" in m.gdb("info threads"), "no client")
        check("Disabled" in m.qmp.human("gdbserver none"), "it goes on")
        check(not os.path.exists(m.gdb_path) or "refused" in m.gdb().lower(), "it listens still")
        check("Error" in m.qmp.human("gdbserver nowhere"), "no error")


def test_gdb_starts_kite_and_talks_through_its_pipe():
    with tempfile.TemporaryDirectory() as folder:
        guest, symbols = GUEST
        command = f"{KITE} -accel jit -nodefaults -display none -m 16 -kernel {guest} -S -gdb stdio"
        done = subprocess.run(["gdb", "--batch", "-nx", "-ex", "set confirm off", "-ex", "set remotetimeout 60", "-ex",
                               f"target remote | exec {command}",
                               "-ex", "hbreak work", "-ex", "continue", "-ex", show("rip", "$rip"), "-ex", "kill", guest],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT,
                              check=False, text=True, cwd=folder)
        check(number(done.stdout, "rip") == symbols["work"], done.stdout)


def test_kill_ends_the_machine():
    with machine("-S") as m:
        client = m.raw()
        client.ask("?")
        client.send(Raw.frame("k"))
        check(m.process.wait(timeout=LIMIT) == 0, "its status")


def test_the_end_of_the_machine_is_told():
    with machine() as m:
        client = m.raw()
        client.ask("?")
        client.send(Raw.frame("c"))
        m.qmp.event("RESUME")
        m.qmp.ask("quit")
        check(client.packet() == "W00", "the end")
        check(m.process.wait(timeout=LIMIT) == 0, "its status")


def test_breakpoints_outlive_a_reset():
    with machine("-S") as m:
        client = m.raw()
        client.ask("?")
        client.ask(f"Z1,{m.symbols['start64']:x},1")
        client.send(Raw.frame("c"))
        client.packet()
        client.ask(f"z1,{m.symbols['start64']:x},1")
        client.ask(f"Z1,{m.symbols['main']:x},1")
        client.send(Raw.frame("c"))
        check(client.packet().startswith("T05"), "no stop")
        m.qmp.ask("system_reset")
        client.send(Raw.frame("c"))
        check(client.packet().startswith("T05"), "no stop after a reset")
        check(int(client.ask("p10")[:16][::-1] or "0", 16) != 0, "no rip")
        client.close()


def test_physical_memory():
    with machine("-S") as m:
        client = m.raw()
        client.ask("?")
        check(client.ask("qqemu.PhyMemMode") == "0", "the mode")
        check(client.ask("Qqemu.PhyMemMode:1") == "OK", "refused")
        check(client.ask("M8000,2:abcd") == "OK" and client.ask("m8000,2") == "abcd", "memory")
        check(client.ask("mf000000000,4") == "E14", "there is no memory")
        client.close()


def test_nonsense_is_refused():
    with machine("-S", "-smp", "2") as m:
        client = m.raw()
        client.ask("?")
        for packet, answer in (("m0", "E22"), ("m0,ffffffffffffffff", "E22"), ("mfffffffffffffff0,20", "E14"),
                               ("M0,4:00", "E22"), ("M0,1:zz", "E22"), ("X0,5:abc", "E22"), ("p999", "E14"),
                               ("P10=00", "E22"), ("Pfff=00", "E22"), ("G00112", "E22"), ("Z0", "E22"), ("Z9,0,1", ""),
                               ("Z2,0,ffffffffffffffff", "E22"), ("Z2,0,0", "E22"), ("z1,5,1", "E22"), ("Hg9", "E22"),
                               ("Hx1", ""), ("T9", "E22"), ("T-5", "E22"), ("vCont;", "E22"), ("vCont;c:9", "E22"),
                               ("vCont;t", ""), ("cxyz", "E22"), ("Czz", "E22"), ("qRcmd,zz", "E22"), ("qCRC:0,1", ""),
                               ("qXfer:features:read:other.xml:0,10", "E00"), ("vMustReplyEmpty", ""),
                               ("qXfer:features:read:target.xml:ffffffff,10", "E00"), ("qThreadExtraInfo,77", "E22"),
                               ("Qqemu.sstep=0", "E22"), ("\x01\x02\xff", "")):
            got = client.ask(packet)
            check(got == answer, f"{packet}: {got}")
        # A control register that no processor can have.
        xml = client.ask("qXfer:features:read:target.xml:0,4000")
        cr0 = int(re.search(r'name="cr0"[^>]*regnum="(\d+)"', xml)[1])
        check(client.ask(f"P{cr0:x}=00000080ffffffff") == "E22", "an impossible CR0")
        client.close()
        check(m.qmp.status() == "prelaunch", m.qmp.status())


def test_noise_and_packets_without_an_end():
    with machine("-S") as m:
        client = m.raw()
        client.send(b"#$#}*" + bytes(range(256)) * 64 + b"$" + b"m" * 300_000 + b"#00" + Raw.frame("?"))
        while not client.packet().startswith("T05"):
            pass
        client.send(b"$m0,4#00")
        client.ask("qC")
        client.close()
        client = m.raw()
        client.send(Raw.frame("qC") * 20_000)  # and reads nothing of what is said
        client.close()
        client = m.raw()
        check(client.ask("qC") == "QC01", "a client after it")
        client.ask("QStartNoAckMode")
        client.send(Raw.frame("qC"))
        check(client.packet() == "QC01", "without acknowledgements")
        client.close()


def main():
    global KITE, GUEST  # pylint: disable=global-statement
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    KITE = os.path.abspath(sys.argv[1])
    wanted = sys.argv[2:]
    tests = [(name, function) for name, function in sorted(globals().items())
             if name.startswith("test_") and (not wanted or name in wanted)]
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as folder:
        GUEST = build_guest(folder)
        for name, function in tests:
            try:
                function()
                passed += 1
                print(f"PASS {name}")
            except Skip as reason:
                skipped += 1
                print(f"SKIP {name}: {reason}")
            except Exception:  # pylint: disable=broad-except
                failed += 1
                print(f"FAIL {name}")
                traceback.print_exc(file=sys.stdout)
    print(f"gdb: {passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
