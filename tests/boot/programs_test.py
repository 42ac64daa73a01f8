#!/usr/bin/env python3
"""Programs that choose their code by CPUID, inside a guest with -cpu max: what they compute must be what the host computes.

usage: programs_test.py KITE GUESTS PROBE [--long]
GUESTS holds a kernel (6.1/vmlinuz or another) and initrd.gz; PROBE is the program made of libc_probe.cc. OpenSSL
(digests, ciphers, MACs, signatures and key agreement, with several masks over its view of the CPU), 7-Zip (hashes, self
test, compression, an encrypted archive of the host's) and the C library's string, memory and math functions.
Ends with a line 'programs: N passed, N failed, N skipped'.
"""
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import Guest, GuestError, GuestHung  # noqa: E402

# What OpenSSL is told to leave unused (OPENSSL_ia32cap(3)): nothing; SHA; AVX-512, VAES as well; AVX2, BMI and ADX as
# well; AVX and FMA as well; AES, PCLMULQDQ and SSSE3 as well.
MASKS = ["", "~0x0:~0x20000000", "~0x0:~0x600f0230000", "~0x0:~0x600f02b0128", "~0x1000100000000000:~0x600f02b0128",
         "~0x1200120200000000:~0x600f02b0128"]
KEY, IV = "00112233445566778899aabbccddeeff" * 2, "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
DIGESTS = ["md5", "sha1", "sha256", "sha512", "sha3-256", "blake2b512", "ripemd160"]
CIPHERS = ["aes-128-cbc", "aes-256-ctr", "aes-192-cfb", "aes-256-ofb", "chacha20", "camellia-128-cbc"]


def openssl_commands():
    """Shell commands whose output is the same wherever they run."""
    fast = " ; ".join(f"openssl dgst -{d} data" for d in DIGESTS)
    ciphers = " ; ".join(f"openssl enc -{c} -K {KEY[:{'128': 32, '192': 48}.get(re.sub('[^0-9]', '', c)[:3], 64)]} "
                         f"-iv {IV} -in data | openssl dgst -sha256" for c in CIPHERS)
    back = (f"openssl enc -aes-256-cbc -K {KEY} -iv {IV} -in data -out data.aes && "
            f"openssl enc -d -aes-256-cbc -K {KEY} -iv {IV} -in data.aes | cmp - data && echo same")
    macs = (f"openssl mac -cipher AES-256-CBC -macopt hexkey:{KEY} -in data CMAC ; "
            f"openssl mac -cipher AES-256-GCM -macopt hexkey:{KEY} -macopt hexiv:{IV} -in data GMAC ; "
            f"openssl mac -macopt hexkey:{KEY} -in data POLY1305 ; "
            f"openssl mac -digest SHA256 -macopt hexkey:{KEY} -in data HMAC ; "
            f"openssl mac -macopt hexkey:{KEY} -in data KMAC256")
    keys = ("openssl dgst -sha256 -sign rsa.pem data | openssl dgst -sha256 ; "
            "openssl dgst -sha256 -sign rsa.pem -out sig data && openssl dgst -sha256 -verify rsa.pub -signature sig data ; "
            "for k in x25519 p256 p384; do "
            "openssl pkeyutl -derive -inkey $k.a -peerkey $k.b | openssl dgst -sha256 ; done ; "
            "openssl pkeyutl -sign -rawin -inkey ed25519.pem -in small | openssl dgst -sha256 ; "
            "openssl kdf -keylen 32 -kdfopt pass:secret -kdfopt hexsalt:0011 -kdfopt n:1024 -kdfopt r:8 -kdfopt p:1 SCRYPT")
    return [("openssl digests", fast), ("openssl ciphers", ciphers), ("openssl round trip", back), ("openssl MACs", macs),
            ("openssl keys", keys)]


SEVEN_ZIP = [
    ("7-Zip hashes", "7zz h -bd -scrc'*' data | grep -E '^(CRC|SHA|XXH|BLAKE|MD5|SHA3)[^ ]* *for data'"),
    ("7-Zip compression", "for f in xz gzip bzip2; do 7zz a -bd -t$f -mx=3 -mmt1 -si out.$f <part >/dev/null && "
                          "7zz x -bd -so out.$f | openssl dgst -sha256; rm -f out.$f; done"),
    ("7-Zip encrypted archive of the host", "7zz t -bd -psecret host.7z | grep Everything && "
                                            "7zz x -bd -so -psecret host.7z part | openssl dgst -sha256"),
    ("7-Zip own archive", "7zz a -bd -psecret -mhe=on -mx=3 -mmt1 own.7z part >/dev/null && "
                          "7zz t -bd -psecret own.7z | grep Everything ; rm -f own.7z"),
    # Its benchmark checks its own results; a second for each size of the data.
    ("7-Zip self test", "for m in AES256CBC SHA256; do 7zz b 1 -mmt1 -md18 -mtime=1 -mm=$m >bench.txt 2>&1; "
                        "echo $? $(grep -c -i error bench.txt) $(grep -c ^Avg: bench.txt); done"),
]


# Checks its own results; some minutes in a guest.
SEVEN_ZIP_LONG = [("7-Zip benchmark", "7zz b 1 -mmt1 -md18 >bench.txt 2>&1; echo $?; grep -c -i error bench.txt")]


def prepare(folder):
    """The files that the commands work on, the same for host and guest."""
    def run(*command, **kwargs):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs)

    with open(f"{folder}/data", "wb") as out:
        zeroes = subprocess.run(["openssl", "enc", "-aes-256-ctr", "-K", KEY, "-iv", IV], input=bytes(1 << 20),
                                stdout=subprocess.PIPE, check=True)
        out.write(zeroes.stdout)
    with open(f"{folder}/data", "rb") as whole, open(f"{folder}/part", "wb") as part, open(f"{folder}/small", "wb") as small:
        text = b"".join(b"%d %x\n" % (i, i * i) for i in range(9000))
        part.write(text + whole.read(60000))
        small.write(text[:333])
    run("openssl", "genrsa", "-out", "rsa.pem", "2048")
    run("openssl", "rsa", "-in", "rsa.pem", "-pubout", "-out", "rsa.pub")
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", "ed25519.pem")
    for name, options in (("x25519", ["-algorithm", "x25519"]), ("p256", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
                          ("p384", ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"])):
        run("openssl", "genpkey", *options, "-out", f"{name}.a")
        run("openssl", "genpkey", *options, "-out", "other.pem")
        run("openssl", "pkey", "-in", "other.pem", "-pubout", "-out", f"{name}.b")
        os.remove(f"{folder}/other.pem")
    run("7zz", "a", "-bd", "-psecret", "-mhe=on", "-mx=3", "host.7z", "part")


def libraries(program):
    """The shared libraries of a program, its interpreter among them."""
    text = subprocess.run(["ldd", program], stdout=subprocess.PIPE, check=True, text=True).stdout
    return sorted(set(re.findall(r"(/[^ ]+) \(0x", text)))


class Archive:
    """A cpio archive ("newc") that is put together in memory."""

    def __init__(self):
        self.parts = []
        self.known = set()

    def add(self, name, mode, content=b""):
        name = name.lstrip("/")
        if name in self.known:
            return
        parent = os.path.dirname(name)
        if parent:
            self.add(parent, 0o040755)
        self.known.add(name)
        self._entry(name, mode, content)

    def _entry(self, name, mode, content):
        raw = name.encode() + b"\0"
        fields = [len(self.parts) + 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(raw), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + raw
        self.parts.append(head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4))

    def add_program(self, path, name):
        for library in libraries(path):
            with open(library, "rb") as file:
                self.add(library, 0o100755, file.read())
        with open(path, "rb") as file:
            self.add(name, 0o100755, file.read())

    def finish(self):
        self._entry("TRAILER!!!", 0, b"")
        return gzip.compress(b"".join(self.parts), 1)


def make_initrd(base, probe, folder, output):
    """The base and behind it an archive with the programs and their data: the kernel unpacks both."""
    archive = Archive()
    for path, name in ((shutil.which("openssl"), "bin/openssl"), (shutil.which("7zz"), "bin/7zz"), (probe, "bin/libc_probe")):
        archive.add_program(os.path.realpath(path), name)
    archive.add("usr/lib/ssl/openssl.cnf", 0o100644)
    for name in sorted(os.listdir(folder)):
        with open(f"{folder}/{name}", "rb") as file:
            archive.add(f"root/{name}", 0o100644, file.read())
    with open(output, "wb") as out, open(base, "rb") as first:
        out.write(first.read())
        out.write(archive.finish())


def on_host(command, folder, probe):
    environment = dict(os.environ, LC_ALL="C", PATH=f"{os.path.dirname(os.path.abspath(probe))}:{os.environ['PATH']}")
    result = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    return result.stdout.strip()


class Report:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def compare(self, name, host, guest):
        if host == guest and host:
            self.passed += 1
            print(f"PASS {name}", flush=True)
            return
        self.failed += 1
        print(f"FAIL {name}", flush=True)
        for side, text in (("host", host), ("guest", guest)):
            print("\n".join(f"  {side:5} {line}" for line in text.splitlines()[:40]), flush=True)


def check(guest, folder, probe, report):
    flags = guest.run("grep -m1 ^flags /proc/cpuinfo")
    log = guest.run("dmesg | grep -o x86/fpu.*")
    enabled = re.search(r"Enabled xstate features (0x[0-9a-f]+)", log)
    with open("/proc/cpuinfo", encoding="ascii") as file:
        host_flags = re.search(r"^flags\s*: (.*)", file.read(), re.M).group(1).split()
    wanted = [f for f in ("aes", "avx", "avx2", "fma", "bmi2", "sha_ni", "vaes", "xsaves") if f in host_flags]
    report.compare("the guest has what the host offers", " ".join(wanted), " ".join(f for f in wanted if f in flags.split()))
    if "avx" in wanted:
        report.compare("the kernel keeps AVX state", "4", str(int(enabled.group(1), 16) & 4) if enabled else "")
    report.compare("C library", on_host("kite_libc_probe", folder, probe), guest.run("libc_probe"))
    for mask in MASKS:
        commands = openssl_commands()
        for name, command in commands if mask in ("", MASKS[2]) else commands[:2]:
            setting = f"export OPENSSL_ia32cap='{mask}'; " if mask else ""
            report.compare(f"{name} {mask}".strip(), on_host(f"({setting}{command}) 2>&1", folder, probe),
                           guest.run(f"({setting}{command}) 2>&1"))
    for name, command in SEVEN_ZIP + (SEVEN_ZIP_LONG if "--long" in sys.argv else []):
        report.compare(name, on_host(command, folder, probe), guest.run(command))


def run_guest(command, limit, folder, probe, report):
    with Guest(command, limit=limit) as guest:
        guest.expect("kite# ")
        check(guest, folder, probe, report)
        guest.send("poweroff -f\n")
        guest.wait_exit()


def main():
    kite, guests, probe = sys.argv[1:4]
    kernels = [k for k in ("6.1", "6.1-cloud", "6.12-cloud") if os.path.exists(f"{guests}/{k}/vmlinuz")]
    missing = [p for p in ("openssl", "7zz") if shutil.which(p) is None]
    if not kernels or missing:
        print(f"SKIP programs: {'no kernel could be had' if not kernels else 'missing: ' + ', '.join(missing)}")
        print("programs: 0 passed, 0 failed, 1 skipped")
        return 0
    report = Report()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        folder = f"{work}/data"
        os.mkdir(folder)
        prepare(folder)
        make_initrd(f"{guests}/initrd.gz", probe, folder, f"{work}/initrd.gz")
        command = [kite, "-accel", "jit", "-cpu", "max", "-nodefaults", "-nographic", "-serial", "stdio", "-m", "512",
                   "-kernel", f"{guests}/{kernels[0]}/vmlinuz", "-initrd", f"{work}/initrd.gz",
                   "-append", "console=ttyS0 panic=-1 quiet"]
        limit = 1800 if "--long" in sys.argv else 600
        try:
            try:
                run_guest(command, limit, folder, probe, report)
            except GuestHung as error:
                print(f"HUNG programs: {error}", flush=True)
                report = Report()
                report.skipped = 1
                print("SKIP programs: it hung (see above); what follows is a second try", flush=True)
                run_guest(command, limit, folder, probe, report)
        except GuestError as error:
            report.failed += 1
            print(f"FAIL programs: {error}", flush=True)
    print(f"({time.monotonic() - start:.0f} s)")
    print(f"programs: {report.passed} passed, {report.failed} failed, {report.skipped} skipped")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
