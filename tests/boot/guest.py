"""Drives a Kite virtual machine over its serial console, for the boot tests and the benchmarks."""
import os
import re
import select
import shutil
import subprocess
import time


class GuestError(Exception):
    """The guest did not do what was expected; the text holds the end of its console."""


class GuestHung(GuestError):
    """The guest said nothing more and did not end; the text holds what its threads were at."""


class Stream:
    """A connection as lines. One file for both directions would drop what it has read ahead whenever it is written to."""

    def __init__(self, connection):
        self.answers = connection.makefile("r", encoding="utf-8")
        self.requests = connection.makefile("w", encoding="utf-8")
        self.readline = self.answers.readline
        self.write, self.flush = self.requests.write, self.requests.flush

    def close(self):
        self.answers.close()
        self.requests.close()


class Tally:
    """Runs the cases of a suite and counts them.

    A machine that hangs is shown with its threads and tried again, once: if that passes, the case counts as skipped,
    since a hang on a host that stood still looks the same as one of ours.
    """

    def __init__(self, suite):
        self.suite = suite
        self.passed = self.failed = self.skipped = 0

    def skip(self, name, why):
        self.skipped += 1
        print(f"SKIP {name}: {why}", flush=True)

    def run(self, name, action, *arguments):
        start = time.monotonic()
        hung = None
        try:
            try:
                action(*arguments)
            except GuestHung as error:
                hung = error
                print(f"HUNG {name}: {error}", flush=True)
                action(*arguments)
        except GuestError as error:
            self.failed += 1
            print(f"FAIL {name}: {error}", flush=True)
            return
        if hung is not None:
            self.skip(name, "it hung (see above) and passed at a second try")
            return
        self.passed += 1
        print(f"PASS {name} ({time.monotonic() - start:.0f} s)", flush=True)

    def finish(self):
        """Prints the summary that ./check reads; answers the exit status."""
        print(f"{self.suite}: {self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed else 0


class Guest:
    """One machine process with its console on pipes.

    The limits are there to end a hung test; no test measures time with them.
    """

    def __init__(self, command, limit=600):
        self.command = command
        self.console = b""
        self.seen = 0
        self.deadline = time.monotonic() + limit
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        os.set_blocking(self.process.stdout.fileno(), False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def threads(self):
        """What every thread of a machine that hangs is at: state, CPU time, and its stack where gdb is installed."""
        lines = []
        base = f"/proc/{self.process.pid}/task"
        for thread in sorted(os.listdir(base), key=int):
            with open(f"{base}/{thread}/stat") as stat:
                name, fields = stat.read().rsplit(")", 1)
            fields = fields.split()
            lines.append(f"{thread} ({name.split('(', 1)[1]}): state {fields[0]}, ticks {fields[11]} user {fields[12]} system")
        if shutil.which("gdb"):
            stacks = subprocess.run(["gdb", "-p", str(self.process.pid), "-batch", "-ex", "thread apply all backtrace 12"],
                                    stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
            lines += [line for line in stacks.stdout.splitlines() if line.startswith(("#", "Thread"))]
        return "\n".join(lines)

    def hung(self, why):
        try:
            threads = self.threads()
        except (OSError, subprocess.TimeoutExpired) as error:
            threads = str(error)
        self.fail(f"{why}\n--- its threads ---\n{threads}\n---", GuestHung)

    def tail(self, count=3000):
        return self.console[-count:].decode(errors="replace")

    def fail(self, why, kind=GuestError):
        raise kind(f"{why}\ncommand: {' '.join(self.command)}\n--- end of the console ---\n{self.tail()}")

    def _read(self):
        """Takes what the console has; False at its end."""
        ready, _, _ = select.select([self.process.stdout], [], [], 0.5)
        if not ready:
            return True
        data = self.process.stdout.read()
        if data:
            self.console += data
        return data != b""

    def expect(self, text):
        """Waits until `text` appears after everything that was expected before; answers what came before it."""
        wanted = text.encode()
        while True:
            at = self.console.find(wanted, self.seen)
            if at >= 0:
                before = self.console[self.seen:at]
                self.seen = at + len(wanted)
                return before.decode(errors="replace")
            if time.monotonic() > self.deadline:
                self.hung(f"'{text}' did not appear in time")
            if not self._read():
                self.fail(f"the machine ended (status {self.process.wait()}) before '{text}' appeared")

    def send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def run(self, command, prompt="kite# "):
        """Runs a shell command in the guest and answers its output. The shell shows `prompt` now."""
        # The echo of the line itself, which a narrow terminal wraps, must not look like the markers.
        self.send(f'echo ==be""gin==; {command}; echo ==d""one==$?\n')
        self.expect("==begin==\r\n")
        output = self.expect("==done==")
        status = re.match(r"\d*", self.expect("\n")).group()  # the kernel may speak before the line ends
        self.expect(prompt)
        if status != "0":
            self.fail(f"'{command}' in the guest ended with status {status}: {output}")
        # What the kernel has to say in between is no part of the output.
        return re.sub(r"(?m)^\[ *\d+\.\d{6}\] .*\n", "", output.replace("\r\n", "\n")).strip()

    def wait_exit(self):
        """Waits for the process to end; answers its exit status."""
        while self._read():
            if time.monotonic() > self.deadline:
                self.hung("the machine did not end in time")
        return self.process.wait()
