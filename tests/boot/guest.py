"""Drives a Kite virtual machine over its serial console, for the boot tests and the benchmarks."""
import os
import select
import subprocess
import time


class GuestError(Exception):
    """The guest did not do what was expected; the text holds the end of its console."""


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

    def tail(self, count=3000):
        return self.console[-count:].decode(errors="replace")

    def fail(self, why):
        raise GuestError(f"{why}\ncommand: {' '.join(self.command)}\n--- end of the console ---\n{self.tail()}")

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
                self.fail(f"'{text}' did not appear in time")
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
        status = self.expect("\n").strip()
        self.expect(prompt)
        if status != "0":
            self.fail(f"'{command}' in the guest ended with status {status}: {output}")
        return output.replace("\r\n", "\n").strip()

    def wait_exit(self):
        """Waits for the process to end; answers its exit status."""
        while self._read():
            if time.monotonic() > self.deadline:
                self.fail("the machine did not end in time")
        return self.process.wait()
