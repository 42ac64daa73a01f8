"""A SPICE client for tests: main, display and inputs channel, bitmaps as they are. [SPICE] "Spice protocol"."""
import hashlib
import os
import select
import socket
import ssl
import struct
import time

MAIN, DISPLAY, INPUTS, CURSOR, PORT, WEBDAV = 1, 2, 3, 4, 10, 11
SERVER_MOUSE, CLIENT_MOUSE = 1, 2
# The US keyboard's keys in set 1, by what they make without and with Shift.
_ROWS = {0x02: ("1234567890-=", "!@#$%^&*()_+"), 0x10: ("qwertyuiop[]\n", "QWERTYUIOP{}"),
         0x1e: ("asdfghjkl;'`", "ASDFGHJKL:\"~"), 0x2b: ("\\zxcvbnm,./", "|ZXCVBNM<>?"), 0x39: (" ", ""),
         0x01: ("\x1b", ""), 0x0f: ("\t", "")}
KEYS = {letter: (first + index, shift) for first, row in _ROWS.items() for shift in (0, 1)
        for index, letter in enumerate(row[shift])}
SHIFT = 0x2a


class SpiceError(Exception):
    """The server did not do what the protocol says, or has refused."""


class Channel:
    """One connection: the link, and messages with short headers."""

    def __init__(self, address, kind, connection, password, timeout=60, tls=None, number=0):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self.kind, self.number, self.buffer = kind, number, b""
        self.ack_window = self.ack_count = 0
        try:
            if tls:
                self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
            self._link(connection, password)
        except BaseException:
            self.socket.close()
            raise

    def _link(self, connection, password):
        # Capabilities: authentication is chosen, by ticket; short headers.
        message = struct.pack("<IBBIII", connection, self.kind, self.number, 1, 0, 18) + struct.pack("<I", 1 | 2 | 8)
        self.socket.sendall(b"REDQ" + struct.pack("<III", 2, 2, len(message)) + message)
        magic, _major, _minor, size = struct.unpack("<4sIII", self.take(16))
        if magic != b"REDQ":
            raise SpiceError(f"the server begins with {magic}")
        reply = self.take(size)
        self._check(struct.unpack_from("<I", reply)[0])
        self.socket.sendall(struct.pack("<I", 1) + encrypt(password.encode() + b"\0", reply[4:166]))
        self._check(struct.unpack("<I", self.take(4))[0])

    @staticmethod
    def _check(error):
        if error:
            raise SpiceError(f"the server refuses: error {error}")

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def fill(self):
        try:
            part = self.socket.recv(1 << 20)
        except ConnectionError as error:
            raise SpiceError(f"the server has closed the connection: {error}") from error
        if not part:
            raise SpiceError("the server has closed the connection")
        self.buffer += part
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            self.fill()  # what select() knows nothing of

    def send(self, kind, data=b""):
        self.socket.sendall(struct.pack("<HI", kind, len(data)) + data)

    def messages(self):
        """Those that are complete; what all channels have in common is answered here."""
        while len(self.buffer) >= 6:
            kind, size = struct.unpack_from("<HI", self.buffer)
            if len(self.buffer) < 6 + size:
                return
            self.take(6)
            data = self.take(size)
            if kind == 3:  # set ack
                generation, self.ack_window = struct.unpack("<II", data)
                self.ack_count = 0
                self.send(1, struct.pack("<I", generation))
                continue
            if self.ack_window:
                self.ack_count += 1
                if self.ack_count == self.ack_window:
                    self.ack_count = 0
                    self.send(2)
            if kind == 4:  # ping
                self.send(3, data[:12])
            elif kind > 100:
                yield kind, data


class SpiceClient:
    """Keeps the primary surface as rows of 3 bytes a pixel, like a PPM file. Bitmaps that the server has packed are
    counted, not drawn."""

    def __init__(self, address, password="", timeout=60, only_main=False, tls=None):
        self.width = self.height = 0
        self.pixels = bytearray()
        self.session = self.mouse_modes = self.mouse_mode = self.leds = self.name = None
        self.draws = self.packed = self.surfaces = self.motion_acks = 0
        self.agent_there = False
        self.agent_tokens, self.agent_data = 0, b""
        self.channels = [Channel(address, MAIN, 0, password, timeout, tls)]
        self.main = self.channels[0]
        try:
            self.wait(lambda: self.session is not None, "main init", timeout)
            if only_main:
                return
            self.display = Channel(address, DISPLAY, self.session, password, timeout, tls)
            self.channels.append(self.display)
            # At once: the server waits for it, and for nobody else meanwhile.
            self.display.send(101, struct.pack("<BqBi", 1, 1 << 20, 1, 1 << 20))
            self.inputs = Channel(address, INPUTS, self.session, password, timeout, tls)
            self.channels.append(self.inputs)
            # Not before the surface: the library reads freed memory when a client goes while its display channel begins.
            self.wait(lambda: self.leds is not None and self.surfaces, "inputs init or a surface", timeout)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for channel in self.channels:
            channel.socket.close()

    def update(self, timeout=1):
        """Takes what is there, or comes within `timeout`; answers whether something did."""
        ready, _, _ = select.select([channel.socket for channel in self.channels], [], [], timeout)
        for channel in self.channels:
            if channel.socket in ready:
                channel.fill()
            handle = {MAIN: self._main, DISPLAY: self._display, INPUTS: self._inputs}[channel.kind]
            for kind, data in channel.messages():
                handle(kind, data)
        return bool(ready)

    def wait(self, condition, what, timeout=60):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise SpiceError(f"{what} does not come")
            self.update()

    def _main(self, kind, data):
        if kind == 103:
            self.session, _, self.mouse_modes, self.mouse_mode, there, tokens = struct.unpack_from("<IIIIII", data)
            self.agent_there, self.agent_tokens = bool(there), tokens
        elif kind == 105:
            self.mouse_modes, self.mouse_mode = struct.unpack_from("<HH", data)
        elif kind in (107, 115):
            self.agent_there = True
            if kind == 115:
                self.agent_tokens = struct.unpack("<I", data)[0]
        elif kind == 108:
            self.agent_there = False
        elif kind == 109:
            self.agent_data += data
            self.main.send(108, struct.pack("<I", 1))
        elif kind == 110:
            self.agent_tokens += struct.unpack("<I", data)[0]

    # [SPICE] "Agent": messages of the agent in pieces of up to 2048 bytes, one token each.
    def agent_start(self):
        self.wait(lambda: self.agent_there, "the agent")
        self.agent_data = b""
        self.main.send(106, struct.pack("<I", 10))

    def agent_send(self, kind, data):
        message = struct.pack("<IIQI", 1, kind, 0, len(data)) + data
        for at in range(0, len(message), 2048):
            self.wait(lambda: self.agent_tokens > 0, "a token for the agent")
            self.agent_tokens -= 1
            self.main.send(107, message[at:at + 2048])

    def agent_message(self):
        """The kind and the data of the next message that is complete."""
        self.wait(lambda: len(self.agent_data) >= 20, "a message of the agent")
        protocol, kind, _, size = struct.unpack_from("<IIQI", self.agent_data)
        if protocol != 1:
            raise SpiceError(f"a message of the agent's protocol {protocol}")
        self.wait(lambda: len(self.agent_data) >= 20 + size, "the rest of a message of the agent")
        data, self.agent_data = self.agent_data[20:20 + size], self.agent_data[20 + size:]
        return kind, data

    def _inputs(self, kind, data):
        if kind in (101, 102):
            self.leds = struct.unpack_from("<H", data)[0]
        elif kind == 111:
            self.motion_acks += 1

    def _display(self, kind, data):
        if kind == 314:
            surface, self.width, self.height, pixels, flags = struct.unpack_from("<IIIII", data)
            if surface or pixels != 32 or not flags & 1:
                raise SpiceError(f"surface {surface} of format {pixels}")
            self.pixels = bytearray(self.width * self.height * 3)
            self.surfaces += 1
        elif kind == 315:
            self.width = self.height = 0
        elif kind == 304:
            self._draw_copy(data)
        elif 300 < kind < 310 or kind == 122:
            raise SpiceError(f"display message {kind}, which nothing here asks for")

    def _draw_copy(self, data):
        surface, top, left, bottom, right, clip = struct.unpack_from("<IiiiiB", data)
        rects, at = [(top, left, bottom, right)], 21
        if clip == 1:
            count = struct.unpack_from("<I", data, at)[0]
            rects = [struct.unpack_from("<iiii", data, at + 4 + 16 * index) for index in range(count)]
            at += 4 + 16 * count
        image, source_top, source_left, source_bottom, source_right, rop = struct.unpack_from("<IiiiiH", data, at)
        _, image_kind, _, width, height = struct.unpack_from("<QBBII", data, image)
        if surface or rop != 8:
            raise SpiceError(f"a copy to surface {surface} with rop {rop}")
        if image_kind != 0:
            self.packed += 1
            return
        pixels, flags, bitmap_width, bitmap_height, stride, palette = struct.unpack_from("<BBIIII", data, image + 18)
        if pixels not in (8, 9) or palette or (source_bottom - source_top, source_right - source_left) != (
                bottom - top, right - left) or (bitmap_width, bitmap_height) != (width, height):
            raise SpiceError(f"a bitmap of format {pixels}, {width} by {height}")
        start = image + 36
        for rect_top, rect_left, rect_bottom, rect_right in rects:
            for y in range(max(rect_top, top), min(rect_bottom, bottom)):
                source = y - top + source_top
                line = source if flags & 4 else height - 1 - source
                from_left = max(rect_left, left)
                count = min(rect_right, right) - from_left
                row = start + line * stride + (from_left - left + source_left) * 4
                self._put(from_left, y, count, data[row:row + 4 * count])
        self.draws += 1

    def _put(self, x, y, count, row):
        if count <= 0 or x < 0 or x + count > self.width or not 0 <= y < self.height or len(row) != 4 * count:
            raise SpiceError(f"{count} pixels at {x}, {y} of {self.width} by {self.height}")
        rgb = bytearray(count * 3)
        rgb[0::3], rgb[1::3], rgb[2::3] = row[2::4], row[1::4], row[0::4]
        at = (y * self.width + x) * 3
        self.pixels[at:at + count * 3] = rgb

    def key(self, code, down):
        """`code` in set 1; 0xe000 is added for the keys with a prefix."""
        low = code & 0x7f | (0 if down else 0x80)
        self.inputs.send(101 if down else 102, struct.pack("<I", low << 8 | 0xe0 if code & 0xe000 else low))

    def type(self, text):
        for letter in text:
            code, shift = KEYS[letter]
            if shift:
                self.key(SHIFT, True)
            self.key(code, True)
            self.key(code, False)
            if shift:
                self.key(SHIFT, False)

    def move(self, dx, dy, buttons=0):
        self.inputs.send(111, struct.pack("<iiH", dx, dy, buttons))

    def press(self, button, buttons, down=True):
        """Buttons are 1 left, 2 middle, 3 right, 4 and 5 the wheel; `buttons` the mask afterwards."""
        self.inputs.send(113 if down else 114, struct.pack("<BH", button, buttons))


class Port:
    """A port of the guest, found by its name. [SPICE] "Port", on its "Spicevmc"."""

    def __init__(self, address, client, name):
        self.data, self.opened, self.name = b"", None, None
        for number in range(16):
            try:
                self.channel = Channel(address, WEBDAV if "webdav" in name else PORT, client.session, "", number=number)
            except SpiceError:
                continue
            try:
                self.wait(lambda: self.name is not None, "port init")
            except SpiceError:  # one that this client has already
                pass
            if self.name == name:
                return
            self.close()
            self.name = None
        raise SpiceError(f"there is no port '{name}'")

    def close(self):
        self.channel.socket.close()

    def update(self, timeout=1):
        if select.select([self.channel.socket], [], [], timeout)[0]:
            self.channel.fill()
        for kind, data in self.channel.messages():
            if kind == 101:
                self.data += data
            elif kind == 201:
                size, at, self.opened = struct.unpack_from("<IIB", data)
                self.name = data[at:at + size].rstrip(b"\0").decode()
            elif kind == 202:
                self.opened = {0: True, 1: False}.get(data[0], self.opened)

    def wait(self, condition, what, timeout=60):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise SpiceError(f"{what} does not come; there is {self.data[-400:]}")
            self.update()

    def send(self, data):
        self.channel.send(101, data)

    def take_until(self, text):
        """What comes before `text`, which is gone, too."""
        self.wait(lambda: text in self.data, repr(text))
        before, self.data = self.data.split(text, 1)
        return before

    def take(self, count):
        self.wait(lambda: len(self.data) >= count, f"{count} bytes")
        taken, self.data = self.data[:count], self.data[count:]
        return taken


def _der(data, at):
    """The place and the end of the value that begins at `at`."""
    length = data[at + 1]
    if length < 0x80:
        return at + 2, at + 2 + length
    count = length & 0x7f
    return at + 2 + count, at + 2 + count + int.from_bytes(data[at + 2:at + 2 + count], "big")


def encrypt(message, key):
    """RSAES-OAEP with SHA-1 by the key of a SubjectPublicKeyInfo. RFC 8017, 7.1.1."""
    inside, _ = _der(key, 0)
    _, algorithm_end = _der(key, inside)
    bits, _ = _der(key, algorithm_end)
    numbers, _ = _der(key, bits + 1)
    start, end = _der(key, numbers)
    modulus = int.from_bytes(key[start:end], "big")
    start, end = _der(key, end)
    exponent = int.from_bytes(key[start:end], "big")
    size, length = (modulus.bit_length() + 7) // 8, hashlib.sha1().digest_size
    block = hashlib.sha1(b"").digest() + bytes(size - len(message) - 2 * length - 2) + b"\1" + message
    seed = os.urandom(length)
    masked = _xor(block, _mask(seed, len(block)))
    encoded = b"\0" + _xor(seed, _mask(masked, length)) + masked
    return pow(int.from_bytes(encoded, "big"), exponent, modulus).to_bytes(size, "big")


def _xor(one, other):
    return bytes(a ^ b for a, b in zip(one, other))


def _mask(seed, length):
    stream = b"".join(hashlib.sha1(seed + struct.pack(">I", turn)).digest() for turn in range(length // 20 + 1))
    return stream[:length]
