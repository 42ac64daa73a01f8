"""The program as its users drive it: run to its end, or as a machine with a QMP socket and perhaps a qtest one."""
import json
import socket
import subprocess
import tempfile
import time

LIMIT = 60  # seconds that end a hung test; none measures time
KITE = ""   # the program; whoever imports this sets it


def check(condition, why):
    if not condition:
        raise AssertionError(why)


def run(*arguments, **options):
    return subprocess.run([KITE, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=LIMIT, check=False, text=True, **options)


class Lines:
    """A socket as a sequence of lines."""

    def __init__(self, connection):
        connection.settimeout(LIMIT)
        self.connection = connection
        self.buffer = b""

    def line(self):
        while b"\n" not in self.buffer:
            data = self.connection.recv(65536)
            check(data, "the connection ended")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def send(self, text):
        self.connection.sendall(text.encode())


class Qmp(Lines):
    def __init__(self, connection):
        super().__init__(connection)
        self.events = []
        self.greeting = self.message()

    def message(self):
        line = self.line()
        check(line.endswith("\r"), "a QMP line does not end with CR LF")
        return json.loads(line)

    def command(self, name, /, **arguments):
        request = {"execute": name, "id": f"t-{name}"}
        if arguments:
            request["arguments"] = arguments
        self.send(json.dumps(request))
        while True:
            message = self.message()
            if "event" in message:
                self.events.append(message)
                continue
            check(message.get("id") == f"t-{name}", f"the id did not come back: {message}")
            return message

    def event(self, name):
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event
            self.events.append(self.message())


class Machine:
    """Kite with a QMP socket that it connects to, and perhaps a qtest one; on the software CPU if nothing else is said."""

    def __init__(self, *arguments, qtest=False):
        self.folder = tempfile.TemporaryDirectory()
        self.listeners = {name: self.listen(name) for name in (["qtest"] if qtest else []) + ["qmp"]}
        command = [KITE, "-display", "none", "-chardev", f"socket,path={self.folder.name}/qmp,id=m",
                   "-mon", "chardev=m,mode=control", *arguments]
        if not qtest and "-accel" not in arguments:
            command += ["-accel", "jit"]
        if qtest:
            command += ["-accel", "qtest", "-qtest", f"unix:{self.folder.name}/qtest", "-qtest-log", "/dev/null"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        if qtest:
            self.qtest = Lines(self.accept("qtest"))
        self.qmp = Qmp(self.accept("qmp"))
        check("return" in self.qmp.command("qmp_capabilities"), "negotiation failed")

    def listen(self, name):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self.folder.name}/{name}")
        listener.listen(1)
        listener.settimeout(LIMIT)
        return listener

    def accept(self, name):
        return self.listeners[name].accept()[0]

    def ask(self, line):
        self.qtest.send(line + "\n")
        return self.qtest.line()

    def end(self):
        return self.process.wait(LIMIT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def connect(path):
    for _ in range(LIMIT * 20):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(path)
            return connection
        except OSError:
            connection.close()
            time.sleep(0.05)
    raise AssertionError(f"nobody listens at {path}")
