#!/usr/bin/env python3
"""Writes the inputs that the fuzz targets start from. usage: make_seeds.py DIRECTORY   (one folder a target)"""
import json
import pathlib
import random
import struct
import sys


def board():
    """Random choices: tests/hostile/hostile_board.cc makes sequences of any bytes."""
    chosen = random.Random(1)
    for number in range(16):
        yield f"random{number}", chosen.randbytes(2048)


# Instruction bytes worth starting from, as they read in 32- and 64-bit code.
SNIPPETS = {
    "arithmetic": "4801d8 4829c3 48f7e1 48f7f3 480fafc3 48d3e0 4813d0 99 f7fb",
    "strings": "b910000000 f3aa f3a5 f2ae f3a6 fd f3a4",
    "stack": "50 53 6a01 9c 9d 8f00 60 61 c8100002 c9",
    "branches": "eb00 7400 e800000000 e2fe ff20 ff6002 cf",
    "segments": "8ed8 8ee8 8cd0 0fb410 c500 c400 9a00000100080 ea0000010008000 cb",
    "system": "0f01f8 0f20c0 0f22c0 0f20e0 0f22e0 0f2100 0f23c7 0f01d9 0f0110 0f0118 0f00d8 0f00d0 0f06 0f08 0f0138",
    "msr": "b9800000c0 0f32 0f30 b91b000000 0f32 0f30 0f31 0fa2 0f01d0 0f01d1",
    "interrupts": "cc cd80 ce f1 fb f4 fa 0f05 0f07 0f34 0f35 0f0b",
    "ports": "e460 e660 ec ed ee ef 6c 6d 6e f36f f36c",
    "x87": "d9eb d9e8 d8c1 dec9 d9fa d930 dd00 dd18 9bd930 dfe0 dbe3 d9fe d9c9 dd20 db28",
    "sse": "0f2800 0f58c1 660f58c1 f20f5ec1 0f2900 660fefc0 0f5bc0 0fae10 0fae18 0fae00 0fae08 660f6fc1 f30f7e00",
    "mmx": "0f6f00 0ffec1 0f7f00 0f77 0f60c1 0fd7c0",
    "locked": "f00fb10b f00fc10b f00fc70b f0480fc70b 8700 f0ff00 0fba2b05",
    "avx": "c5f858c1 c5fc1000 c4e27918c0 c5f877 c4e2f9f7c3 0fae20 0fc720 0fae28",
    "own_code": "c6050000000090 c60590000000f4 668905000000009090",
}


def code_of(text):
    digits = text.replace(" ", "")
    return bytes.fromhex(digits[: len(digits) & ~1])


def cpu():
    registers = bytes([0x07, 0x11, 0x28, 0x09, 0x10, 0x07, 0x17, 0x08, 0x00, 0x01, 0x02, 0x03, 0x0c, 0x0d, 0x0e, 0x04])
    for mode in range(6):
        for switches in (0x00, 0x08, 0x60):  # as booted, user code, more control bits
            code = b"".join(code_of(text) for name, text in sorted(SNIPPETS.items()) if switches or name != "avx")
            yield f"all-{mode}-{switches:02x}", bytes([mode | switches]) + registers + b"\0\0\xff\0" + code
    for name, text in SNIPPETS.items():
        for mode in (0, 2, 4):
            yield f"{name}-{mode}", bytes([mode | 0x80]) + registers + b"\0\0\0\0" + code_of(text)


def decoder():
    for name, text in SNIPPETS.items():
        for width in range(3):
            code = code_of(text)
            for at in range(0, len(code), 8):
                yield f"{name}-{width}-{at}", bytes([width]) + code[at : at + 15]


def linux():
    image = bytearray(0x400 + 512)
    struct.pack_into("<BHI", image, 0x1F1, 1, 0, 32)
    struct.pack_into("<HH4sH", image, 0x1FE, 0xAA55, 0x66EB, b"HdrS", 0x020F)
    image[0x211] = 1  # loaded high
    struct.pack_into("<I", image, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<IBBHI", image, 0x230, 0x200000, 1, 21, 3, 2047)
    struct.pack_into("<QI", image, 0x258, 0x1000000, 0x100000)
    return bytes(image)


def elf64(note):
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0x100000, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0x1000, 0x100000, 0x100000, 64, 4096, 4096)
    notes = struct.pack("<IIQQQQQQ", 4, 4, 176, 0, 0, len(note), len(note), 4)
    return (head + load + notes + note).ljust(0x1000, b"\0") + b"\xf4" * 64


def multiboot(flags, *fields):
    magic = 0x1BADB002
    return struct.pack("<III", magic, flags, -(magic + flags) & 0xFFFFFFFF) + struct.pack(f"<{len(fields)}I", *fields)


def elf32(body):
    head = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 3, 1, 0x100000, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    load = struct.pack("<IIIIIIII", 1, 128, 0x100000, 0x100000, len(body), 4096, 7, 4096)
    return (head + load).ljust(128, b"\0") + body


def kernel():
    yield "linux", linux()
    yield "linux-unaligned", linux()[:-5]
    yield "pvh", elf64(struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x100000))
    yield "pvh-two-notes", elf64(struct.pack("<III4sI", 4, 4, 6, b"Xen\0", 1) + struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x100000))
    yield "multiboot-elf", elf32(multiboot(3) + b"\xf4" * 64)
    yield "multiboot-flat", multiboot(0x10003, 0x100000, 0x100000, 0x100040, 0x100080, 0x100020) + b"\xf4" * 64


def monitor():
    def lines(*each):
        return "\n".join(each).encode()

    yield "json", b"\0" + b'{"a": [1, -2.5e3, true, null, "\\u00e9\\\\"], "b": {"c": {}}} [] "x" 12 {]'
    yield "options", b"\1" + lines("-m", "64M", "-smp", "2,maxcpus=4", "-machine", "pc", "-accel", "qtest", "-nographic")
    yield "devices", b"\1" + lines("-chardev", "null,id=c0", "-device", "isa-serial,chardev=c0,iobase=0x2f8,irq=3",
                                   "-device", '{"driver": "isa-debug-exit", "iobase": 244}', "-global", "isa-serial.irq=5")
    yield "process", b"\1" + lines("-rtc", "base=2020-01-01T00:00:00,clock=vm", "-boot", "order=cd,menu=on", "-cpu",
                                   "qemu64,+aes,-sse2,enforce", "-name", "a,process=b", "-uuid",
                                   "12345678-1234-1234-1234-123456789abc", "-serial", "mon:stdio", "-qmp", "unix:/x,server=on")
    section = struct.pack("<H6sII", 6, b"device", 1, 14 + 11) + struct.pack("<HIQ", 1, 8, 7) + struct.pack("<HI5s", 2, 5, b"hello")
    yield "state", b"\2" + section
    commands = ["query-status", "query-version", "query-commands", "query-cpus-fast", "query-machines", "query-chardev",
                "qom-list-types", "stop", "cont", "system_reset", "system_powerdown", "inject-nmi", "nonsense", "quit"]
    yield "qmp", b"\3" + lines(*(json.dumps({"execute": name, "id": number}) for number, name in enumerate(commands)))
    human = ["info registers", "info mtree", "info status", "info cpus", "info chardev", "help", "help info", "stop", "c"]
    yield "qmp-human", b"\3" + lines(*(json.dumps({"execute": "human-monitor-command", "arguments": {"command-line": line}})
                                       for line in human))
    yield "qmp-properties", b"\3" + lines('{"execute":"device-list-properties","arguments":{"typename":"isa-serial"}}',
                                          '{"execute":"qom-list-types","arguments":{"implements":"device","abstract":true}}')
    yield "qmp-objects", b"\3" + lines(*(json.dumps({"execute": name, "arguments": arguments}) for name, arguments in (
        ("query-qmp-schema", {}), ("query-cpu-definitions", {}), ("query-command-line-options", {}), ("qom-list", {"path": "/machine"}),
        ("qom-get", {"path": "/machine/unattached/device[0]", "property": "type"}),
        ("qom-set", {"path": "/machine", "property": "accel", "value": [1]}), ("getfd", {"fdname": "a"}), ("closefd", {"fdname": "a"}),
        ("qom-list-properties", {"typename": "none-machine"}),
        ("query-cpu-model-expansion", {"type": "full", "model": {"name": "qemu64", "props": {"sse2": False}}}),
        ("migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]}))))
    yield "qtest", b"\4" + lines("outb 0x43 0x34", "outb 0x40 0x10", "outl 0xcf8 0x80000000", "inl 0xcfc", "inw 0x510",
                                 "writeq 0x1000 0x1122334455667788", "readb 0x1000", "read 0x1000 8", "write 0x2000 4 0x01020304",
                                 "memset 0x3000 16 0xff", "b64read 0x1000 8", "b64write 0x1000 3 AQID", "clock_step",
                                 "clock_step 1000000", "clock_set 2000000", "endianness")
    yield "qtest-lines", b"\4" + lines("irq_intercept_in ioapic", "set_irq_in ioapic unnamed 4 1", "outb 0x20 0x11",
                                       "irq_intercept_out ioapic", "module_load a b", "clock_step 50000000", "inb", "outb 1 2 3")


def image():
    # Images of our own writers, unchanged and with a few patches; fuzz/image_fuzz.cc says what the bytes mean.
    chosen = random.Random(2)
    for how in range(1, 128):
        if how & 3:
            yield f"own-{how:02x}", bytes([how])
            yield f"patched-{how:02x}", bytes([how]) + b"".join(
                struct.pack("<HB", chosen.choice([chosen.randrange(112), chosen.randrange(16384)]), chosen.choice([0, 1, 0x80, 0xFF]))
                for _ in range(4))
    for version in (2, 3):
        # header, refcount table, refcount block, L1 table, L2 table, one cluster of data: 512 bytes each
        head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, 9, 65536, 0, 2, 3 * 512, 512, 1, 0, 0)
        head += struct.pack(">QQQII8s", 0, 0, 0, 4, 112, b"") if version == 3 else b""
        table = struct.pack(">Q", 2 * 512).ljust(512, b"\0")
        counts = struct.pack(">6H", *[1] * 6).ljust(512, b"\0")
        l1 = struct.pack(">Q", 1 << 63 | 4 * 512).ljust(512, b"\0")
        l2 = struct.pack(">QQ", 1 << 63 | 5 * 512, 1 if version == 3 else 0).ljust(512, b"\0")
        for mode in (0, 0x40):
            yield f"qcow2-{version}-{mode}", bytes([mode]) + head.ljust(512, b"\0") + table + counts + l1 + l2 + b"d" * 512
    qed = struct.pack("<4sIIIQQQQQII", b"QED\0", 4096, 1, 1, 2, 0, 0, 4096, 65536, 0, 0).ljust(4096, b"\0")
    l1, l2 = struct.pack("<Q", 8192).ljust(4096, b"\0"), struct.pack("<QQ", 12288, 1).ljust(4096, b"\0")
    for mode in (0, 0x40):
        yield f"qed-{mode}", bytes([mode]) + qed + l1 + l2 + b"d" * 4096


def block():
    for number, text in enumerate((
            "driver=qcow2,file.driver=memory,file.growable=on", '{"driver":"raw","file":{"driver":"null-co"},"offset":512}',
            "driver=blkdebug,image.driver=null-co,inject-error.0.event=none,inject-error.0.errno=5", "nbd://[::1]:10809/a%20b",
            "nbd+unix:///x?socket=/tmp/a", "nbd:unix:/a:exportname=b", "driver=copy-on-read,file.driver=raw,file.file.driver=memory",
            "writethrough", "falloc", "a,,b=c,d=1G")):
        yield f"options{number}", b"\0" + text.encode()

    def option(number, kind, data=b""):
        return struct.pack(">QIII", 0x3E889045565A9, number, kind, len(data)) + data

    def chunk(cookie, kind, data=b"", done=1):
        return struct.pack(">IHHQI", 0x668E33EF, done, kind, cookie, len(data)) + data

    hello = b"\1NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
    go = option(7, 3, struct.pack(">HQH", 0, 8192, 0x86D)) + option(7, 3, struct.pack(">HIII", 3, 1, 4096, 65536)) + option(7, 1)
    simple = b"".join(struct.pack(">IIQ", 0x67446698, 0, cookie) + (b"r" * 8192 if cookie == 1 else b"") for cookie in range(1, 4))
    yield "nbd-simple", hello + option(8, 1 << 31 | 1) + go + simple
    context = option(10, 4, struct.pack(">I", 1) + b"base:allocation") + option(10, 1)
    read = chunk(1, 1, struct.pack(">Q", 0) + b"r" * 4096, 0) + chunk(1, 2, struct.pack(">QI", 4096, 4096))
    status = chunk(2, 5, struct.pack(">III", 1, 4096, 3))
    rest = b"".join(struct.pack(">IIQ", 0x67446698, 0, cookie) for cookie in range(3, 9))
    yield "nbd-structured", hello + option(8, 1) + context + go + read + status + rest
    yield "nbd-errors", hello + option(8, 1) + context + go + chunk(1, 0x8002, struct.pack(">IH2sQ", 28, 2, b"no", 512)) + rest
    yield "nbd-refused", hello + option(8, 1 << 31 | 5)
    yield "nbd-oldstyle", b"\1NBDMAGIC" + struct.pack(">QQI", 0x420281861253, 8192, 1) + bytes(124) + simple

    def asked(number, data=b""):
        return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data

    def request(kind, offset=0, size=0, flags=0, data=b""):
        return struct.pack(">IHHQQI", 0x25609513, flags, kind, 1, offset, size) + data

    said = b"\2" + struct.pack(">I", 3)
    name, chosen = struct.pack(">I", 1) + b"x", b"qemu:dirty-bitmap:b"
    context = name + struct.pack(">II", 2, 15) + b"base:allocation" + struct.pack(">I", len(chosen)) + chosen
    work = request(1, 512, 1000, 1, b"w" * 1000) + request(0, 0, 4096) + request(6, 2048, 4096, 2) + request(4, 0, 65536)
    more = request(5, 0, 8192) + request(3) + request(7, 0, 1 << 17) + request(7, 512, 4096, 8) + request(0, 0, 4096, 4) + request(2)
    yield "client-simple", said + asked(1, b"x") + work + more
    yield "client-structured", said + asked(8) + asked(10, context) + asked(7, name + struct.pack(">HHH", 2, 1, 3)) + work + more
    yield "client-asks", said + asked(3) + asked(8) + asked(9, name + bytes(4)) + asked(6, name + bytes(2)) + asked(99) + asked(2)


def main():
    root = pathlib.Path(sys.argv[1])
    for target in (block, board, cpu, decoder, image, kernel, monitor):
        folder = root / target.__name__
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in target():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
