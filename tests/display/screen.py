"""What the display suites share: a machine with a screen, what is on it, and the glyphs of its text."""
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "boot"))
from guest import GuestError  # noqa: E402

SEABIOS, VGABIOS = "/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/vgabios-stdvga.bin"
CELL_WIDTH, CELL_HEIGHT = 9, 16
LIMIT = 300


class Picture:
    """A screen, from a PPM file or a VNC client."""

    def __init__(self, width, height, pixels):
        self.width, self.height, self.pixels = width, height, bytes(pixels)

    @classmethod
    def read(cls, path):
        with open(path, "rb") as file:
            magic, size, most, pixels = file.read().split(b"\n", 3)
        width, height = map(int, size.split())
        if magic != b"P6" or most != b"255" or len(pixels) != width * height * 3:
            raise GuestError(f"'{path}' is no PPM of {width} by {height}")
        return cls(width, height, pixels)

    def pixel(self, x, y):
        at = (y * self.width + x) * 3
        return self.pixels[at:at + 3]

    def glyph(self, column, row):
        """A character cell of 9 by 16 as bits: what is not its background, which the ninth dot shows."""
        lines = []
        for y in range(row * CELL_HEIGHT, (row + 1) * CELL_HEIGHT):
            left = column * CELL_WIDTH
            back = self.pixel(left + 8, y)
            lines.append(sum(0x80 >> x for x in range(8) if self.pixel(left + x, y) != back))
        return bytes(lines)

    def text(self, font):
        """The text on the screen, by the glyphs of `font`; a character that is not in it is '?'."""
        if (self.width, self.height) != (720, 400):
            return ""
        return "\n".join("".join(font.get(self.glyph(column, row), "?") for column in range(80)).rstrip()
                         for row in range(25))


class Machine:
    """A machine with a monitor and what `options` say; @VNC, @SPICE and @FOLDER stand for paths of its own."""

    def __init__(self, bench, *options, accel="jit"):
        self.folder = tempfile.mkdtemp(prefix="kite-display-")
        self.vnc, self.spice = f"{self.folder}/vnc.sock", f"{self.folder}/spice.sock"
        self.events = []
        paths = {"@VNC": self.vnc, "@SPICE": self.spice, "@FOLDER": self.folder}
        self.command = [bench.kite, "-accel", accel, "-nodefaults", "-serial", "none", "-m", "256", "-qmp",
                        f"unix:{self.folder}/qmp.sock,server=on,wait=off",
                        *[functools.reduce(lambda text, path: text.replace(*path), paths.items(), o) for o in options]]
        self.deadline = time.monotonic() + LIMIT
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fail(self, why):
        raise GuestError(f"{why}\ncommand: {' '.join(self.command)}")

    def _connect(self):
        while True:
            try:
                connection = socket.socket(socket.AF_UNIX)
                connection.settimeout(LIMIT)
                connection.connect(f"{self.folder}/qmp.sock")
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > self.deadline:
                    self.fail("there is no monitor")
                time.sleep(0.05)
        # A file for either way: one for both would drop what it has read ahead whenever it writes.
        self.requests = connection.makefile("w", encoding="utf-8")
        self.answers = connection.makefile("r", encoding="utf-8")
        self.answers.readline()
        self.qmp("qmp_capabilities")

    def qmp(self, name, **arguments):
        self.requests.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.requests.flush()
        while True:
            answer = json.loads(self.answers.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise GuestError(f"{name}: {answer['error']['desc']}")
            self.events.append(answer)

    def take_event(self, name):
        """The next event of this name, and forgets those before it."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name:
                    return event["data"]
            if time.monotonic() > self.deadline:
                self.fail(f"the event {name} does not come")
            self.qmp("query-status")
            time.sleep(0.02)

    def refused(self, name, **arguments):
        """Why the monitor does not carry out a command."""
        try:
            self.qmp(name, **arguments)
        except GuestError as error:
            return str(error)
        self.fail(f"{name} is not refused")

    def human(self, line):
        return self.qmp("human-monitor-command", **{"command-line": line})

    def dump(self):
        path = f"{self.folder}/screen.ppm"
        self.qmp("screendump", filename=path)
        return Picture.read(path)

    def wait_for(self, text, font):
        """Until `text` is on the screen; answers all that is."""
        shown = ""
        while text not in shown:
            if time.monotonic() > self.deadline:
                self.fail(f"'{text}' did not appear; the screen:\n{shown}")
            if self.process.poll() is not None:
                self.fail(f"the machine ended (status {self.process.returncode}) before '{text}' appeared")
            time.sleep(0.1)
            shown = self.dump().text(font)
        return shown


class Bench:
    """What the tests share."""

    def __init__(self, kite, guests):
        self.kite, self.guests = os.path.abspath(kite), os.path.abspath(guests)
        self.kernel, self.initrd = f"{self.guests}/6.1-cloud/vmlinuz", f"{self.guests}/initrd.gz"
        self.desktop_kernel = f"{self.guests}/6.1/vmlinuz"  # with a console on frame buffers
        self._font = None

    def font(self):
        """The glyphs of the VGA BIOS: 16 bytes a character in its image. Found by those of 'A' and 'B'."""
        if self._font is None:
            with open(VGABIOS, "rb") as file:
                image = file.read()
            letters = bytes.fromhex("000010386cc6c6fec6c6c6c600000000" "0000fc6666667c66666666fc00000000")
            start = image.find(letters) - 65 * 16
            if start < 0:
                raise GuestError(f"{VGABIOS} has no font of 8 by 16")
            glyphs = [image[start + code * 16:start + code * 16 + 16] for code in range(256)]
            self._font = {glyphs[code]: chr(code) for code in range(126, 31, -1)}
        return self._font

    def kernel_options(self, line, kernel=None):
        return "-m", "512", "-kernel", kernel or self.kernel, "-initrd", self.initrd, "-append", line

    def run_cases(self, tally, cases, on_both_boards, only):
        """Those whose label has `only` in it; `cases` are names with a function and whether it wants a kernel."""
        for name, (case, wants_kernel) in cases.items():
            for board in ("pc", "q35") if name in on_both_boards else ("pc",):
                label = f"{name}, {board}"
                if only not in label:
                    continue
                files = [SEABIOS, VGABIOS]
                if wants_kernel:
                    files += [self.kernel, self.desktop_kernel, self.initrd]
                missing = [file for file in files if not os.path.exists(file)]
                if missing:
                    tally.skip(label, f"{missing[0]} is missing")
                    continue
                tally.run(label, self._run, case, board)

    def _run(self, case, board):
        try:
            case(self, board)
        except GuestError:
            raise
        except Exception as error:  # a client's, or a connection's: the other cases still run
            raise GuestError(traceback.format_exc()) from error
