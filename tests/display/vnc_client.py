"""A VNC client for tests: RFB 3.8 with raw and DesktopSize, VNC authentication, and VeNCrypt. RFC 6143 and the RFB
community specification."""
import socket
import struct
import subprocess

RAW, DESKTOP_SIZE = 0, -223
NONE, VNC_AUTHENTICATION, VENCRYPT = 1, 2, 19
X509_NONE, X509_VNC = 260, 261


class VncError(Exception):
    """The server did not do what the protocol says."""


class VncClient:
    """Keeps the screen as rows of 3 bytes a pixel, like a PPM file."""

    def __init__(self, address, password=None, shared=True, timeout=60, tls=None):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.connect(address)
        self.socket.settimeout(timeout)
        self.buffer = b""
        try:
            self._handshake(password, tls)
        except BaseException:
            self.socket.close()
            raise
        self.socket.sendall(bytes([1 if shared else 0]))
        self.width, self.height = struct.unpack(">HH", self._take(4))
        self._take(16)
        self.name = self._take(struct.unpack(">I", self._take(4))[0]).decode()
        self.pixels = bytearray(self.width * self.height * 3)
        # 32 bits, depth 24, little-endian, true color, red at bit 16.
        self.socket.sendall(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        self.socket.sendall(struct.pack(">BxHii", 2, 2, RAW, DESKTOP_SIZE))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def _take(self, count):
        while len(self.buffer) < count:
            part = self.socket.recv(1 << 20)
            if not part:
                raise VncError("the server has closed the connection")
            self.buffer += part
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _handshake(self, password, tls):
        version = self._take(12)
        if version != b"RFB 003.008\n":
            raise VncError(f"the server speaks {version}")
        self.socket.sendall(version)
        types = self._take(self._take(1)[0])
        wanted = VENCRYPT if tls else NONE if password is None else VNC_AUTHENTICATION
        if wanted not in types:
            raise VncError(f"security types {list(types)}, not {wanted}")
        self.socket.sendall(bytes([wanted]))
        if tls:
            self._vencrypt(X509_NONE if password is None else X509_VNC, tls)
        if password is not None:
            self.socket.sendall(des_response(self._take(16), password))
        if struct.unpack(">I", self._take(4))[0] != 0:
            raise VncError("refused")

    def _vencrypt(self, subtype, tls):
        if self._take(2) != b"\x00\x02":
            raise VncError("another VeNCrypt than 0.2")
        self.socket.sendall(b"\x00\x02")
        if self._take(1) != b"\0":
            raise VncError("VeNCrypt 0.2 is refused")
        subtypes = struct.unpack(f">{(count := self._take(1)[0])}I", self._take(4 * count))
        if subtype not in subtypes:
            raise VncError(f"VeNCrypt's subtypes {subtypes}, not {subtype}")
        self.socket.sendall(struct.pack(">I", subtype))
        if self._take(1) != b"\x01" or self.buffer:
            raise VncError("the subtype is refused")
        self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")

    def update(self, incremental=True):
        """Asks for the screen and takes one update."""
        self.socket.sendall(struct.pack(">BBHHHH", 3, int(incremental), 0, 0, self.width, self.height))
        if self._take(2)[0] != 0:
            raise VncError("a message that is no update")
        for _ in range(struct.unpack(">H", self._take(2))[0]):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self._take(12))
            if encoding == DESKTOP_SIZE:
                self.width, self.height = width, height
                self.pixels = bytearray(width * height * 3)
            elif encoding == RAW:
                self._put(x, y, width, height, self._take(width * height * 4))
            else:
                raise VncError(f"encoding {encoding} was not asked for")

    def _put(self, x, y, width, height, data):
        if x + width > self.width or y + height > self.height:
            raise VncError("a rectangle outside of the screen")
        rgb = bytearray(width * height * 3)
        rgb[0::3], rgb[1::3], rgb[2::3] = data[2::4], data[1::4], data[0::4]
        for row in range(height):
            at = ((y + row) * self.width + x) * 3
            self.pixels[at:at + width * 3] = rgb[row * width * 3:(row + 1) * width * 3]

    def key(self, keysym, down):
        self.socket.sendall(struct.pack(">BBxxI", 4, int(down), keysym))

    def type(self, text):
        for letter in text:
            keysym = {"\n": 0xff0d, "\t": 0xff09, "\x1b": 0xff1b}.get(letter, ord(letter))
            self.key(keysym, True)
            self.key(keysym, False)

    def pointer(self, x, y, buttons=0):
        self.socket.sendall(struct.pack(">BBHH", 5, buttons, x, y))


def des_response(challenge, password):
    """What a client answers: the challenge encrypted by DES, the password's bits the other way round as its key."""
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode()[:8].ljust(8, b"\0"))
    # Three times with one key is once.
    return subprocess.run(["openssl", "enc", "-des-ede3", "-nopad", "-K", (key * 3).hex()], input=challenge,
                          stdout=subprocess.PIPE, check=True).stdout
