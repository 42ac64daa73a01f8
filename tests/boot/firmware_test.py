#!/usr/bin/env python3
"""Starts Debian's firmware and memtest86+ on Kite and reads what they say on the serial line.

usage: firmware_test.py KITE GUESTS
GUESTS holds 6.1-cloud/vmlinuz and initrd.gz. A missing package or kernel is a skip with its reason.
Ends with a line 'firmware: N passed, N failed, N skipped'.
"""
import os
import re
import shutil
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import Guest, Tally  # noqa: E402

SEABIOS = "/usr/share/seabios/bios-256k.bin"
OVMF = "/usr/share/ovmf/OVMF.fd"
OVMF_CODE, OVMF_VARS = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"
SECURE_CODE, SECURE_VARS = "/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"
MEMTEST = "/boot/memtest86+x64.bin"
BOARDS = ("pc", "q35")


class Bench:
    """What the tests share."""

    def __init__(self, kite, guests, scratch):
        self.kite, self.guests, self.scratch = kite, guests, scratch
        self.kernel, self.initrd = f"{guests}/6.1-cloud/vmlinuz", f"{guests}/initrd.gz"

    def start(self, *options, board="pc", limit=300):
        return Guest([self.kite, "-accel", "jit", "-M", board, "-nodefaults", "-nographic", "-serial", "stdio",
                      "-m", "256", *options], limit=limit)


def seabios_menu(bench, board):
    """Its banner, and its boot menu on ESC; nothing is there to boot."""
    with bench.start("-boot", "menu=on,splash-time=5000", board=board) as guest:
        guest.expect("SeaBIOS (version ")
        guest.expect("Press ESC for boot menu.")
        guest.send("\x1b")
        guest.expect("Select boot device:")


def seabios_resets(bench, board):
    """A reset starts the firmware anew, from ROM as it was: twice through its reboot after a failed boot."""
    with bench.start("-boot", "reboot-timeout=100", board=board) as guest:
        for _ in range(3):
            guest.expect("SeaBIOS (version ")
            guest.expect("No bootable device.")


def seabios_kernel(bench, board):
    """A kernel given by -kernel, through the option ROM; the firmware's own tables are what the kernel finds."""
    with bench.start("-bios", SEABIOS, "-smp", "2", "-kernel", bench.kernel, "-initrd", bench.initrd, "-append",
                     "console=ttyS0 panic=-1", "-smbios", "type=1,serial=kite-4711", board=board, limit=600) as guest:
        guest.expect("Booting from ROM")
        guest.expect("Linux version")
        guest.expect("kite# ")
        if guest.run("cat /sys/class/dmi/id/bios_vendor /sys/class/dmi/id/product_serial") != "SeaBIOS\nkite-4711":
            guest.fail("SMBIOS is not what SeaBIOS and -smbios say")
        if guest.run("grep -c ^processor /proc/cpuinfo") != "2":
            guest.fail("the kernel did not find two CPUs")
        if guest.run("ls /sys/firmware/acpi/tables | grep -cx -e DSDT -e APIC -e HPET -e FACP") != "4":
            guest.fail("the kernel did not find the ACPI tables")
        guest.send("poweroff -f\n")
        if guest.wait_exit() != 0:
            guest.fail("power off did not end the machine")


def suspend(bench, board, *firmware):
    """Suspend to RAM and a wake-up by the RTC's alarm: memory is as it was, and the kernel goes on."""
    with bench.start(*firmware, "-smp", "2", "-kernel", bench.kernel, "-initrd", bench.initrd, "-append",
                     "console=ttyS0 panic=-1 no_console_suspend", board=board, limit=600) as guest:
        guest.expect("kite# ")
        if "mem" not in guest.run("cat /sys/power/state").split():
            guest.fail("the kernel does not offer suspend to RAM")
        guest.run("mount -t tmpfs none /tmp; dd if=/dev/urandom of=/tmp/a bs=64k count=8 2>/dev/null; md5sum /tmp/a >/tmp/b")
        guest.run("echo +2 > /sys/class/rtc/rtc0/wakealarm; echo mem > /sys/power/state")
        guest.run("md5sum -c /tmp/b")
        if guest.run("cat /sys/power/suspend_stats/success") != "1":
            guest.fail("the kernel does not count a suspend")


def ovmf_shell(bench, board):
    with bench.start("-bios", OVMF, board=board, limit=600) as guest:
        guest.expect("UEFI Interactive Shell")
        guest.expect("Shell> ")
        guest.send("ver\r")
        guest.expect("EDK II")
        guest.send("reset -s\r")
        if guest.wait_exit() != 0:
            guest.fail("the shell's reset -s did not end the machine")


def ovmf_variables(bench, board):
    """A variable that the shell sets is in the flash file, and there again in the next machine."""
    variables = f"{bench.scratch}/vars-{board}.fd"
    shutil.copy(OVMF_VARS, variables)
    flash = ("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}",
             "-drive", f"if=pflash,format=raw,unit=1,file={variables}")
    with bench.start(*flash, board=board, limit=600) as guest:
        guest.expect("Shell> ")
        guest.send("set kiteproof remembered\r")
        guest.expect("Shell> ")
        guest.send("reset -s\r")
        guest.wait_exit()
    with open(variables, "rb") as file:
        if "kiteproof".encode("utf-16-le") not in file.read():
            guest.fail("the variable is not in the flash file")
    with bench.start(*flash, board=board, limit=600) as guest:
        guest.expect("Shell> ")
        guest.send("set kiteproof\r")
        guest.expect("remembered")


def ovmf_kernel(bench, board):
    """OVMF takes the kernel from fw_cfg by itself."""
    with bench.start("-bios", OVMF, "-kernel", bench.kernel, "-initrd", bench.initrd, "-append",
                     "console=ttyS0 panic=-1", board=board, limit=600) as guest:
        guest.expect("kite# ")
        if guest.run("test -d /sys/firmware/efi && echo efi") != "efi":
            guest.fail("the kernel was not started by UEFI")
        guest.send("poweroff -f\n")
        guest.wait_exit()


def ovmf_secure(bench, board):
    """Secure boot: the variables are written in system management mode alone, by all CPUs' leave."""
    variables = f"{bench.scratch}/vars-secure.fd"
    shutil.copy(SECURE_VARS, variables)
    with bench.start("-smp", "2", "-cpu", "max", "-global", "driver=cfi.pflash01,property=secure,value=on", "-drive",
                     f"if=pflash,format=raw,unit=0,readonly=on,file={SECURE_CODE}", "-drive",
                     f"if=pflash,format=raw,unit=1,file={variables}", "-kernel", bench.kernel, "-initrd", bench.initrd,
                     "-append", "console=ttyS0 panic=-1", board=board, limit=600) as guest:
        guest.expect("kite# ")
        if "Secure boot enabled" not in guest.run("dmesg | grep -i 'secure boot' | cut -d] -f2"):
            guest.fail("the kernel was not started by secure boot")
        if guest.run("nproc") != "2":
            guest.fail("a CPU is missing")
        guest.send("poweroff -f\n")
        guest.wait_exit()
    with open(variables, "rb") as after, open(SECURE_VARS, "rb") as before:
        if after.read() == before.read():
            guest.fail("the firmware has written no variable")


# A boot sector that reads sector 2 of its disk, writes it to sector 3, and prints it.
BOOT_SECTOR = bytes.fromhex(
    "31c0 8ed8 8ec0 8ed0 bc007c"  # xor ax, ax; ds = es = ss = 0; mov sp, 0x7c00
    "b80102 bb007e b90200 b600 cd13"  # int 0x13 with ax = 0x0201, bx = 0x7e00, cx = 2, dh = 0: read
    "b80103 b90300 b600 cd13"  # ax = 0x0301, cx = 3: write
    "be007e ac 84c0 7406 baf803 ee ebf5"  # every byte up to a zero to port 0x3f8
    "f4 ebfd")  # hlt


FIRST_DISK = {"floppy": ["-device", "floppy,drive=d,bootindex=0"],
              "nvme": ["-device", "nvme,drive=d,serial=boot,bootindex=0"],
              "usb-uhci": ["-usb", "-device", "usb-storage,drive=d,bootindex=0"],
              "usb-xhci": ["-device", "qemu-xhci", "-device", "usb-storage,drive=d,bootindex=0"]}


def seabios_disk(bench, device):
    """Firmware boots from the disk, and reads and writes it."""
    image = os.path.join(bench.scratch, f"{device}.img")
    text = f"booted from {device}\n".encode().ljust(512, b"\0")
    with open(image, "wb") as file:
        file.write(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + text)
        file.truncate(1440 * 1024)
    with bench.start("-drive", f"if=none,id=d,format=raw,file={image}", *FIRST_DISK[device]) as guest:
        guest.expect(f"booted from {device}")
        with open(image, "rb") as file:
            if file.read(3 * 512)[1024:] != text:
                guest.fail("what the guest wrote is not in the image")


def memtest(bench, _board):
    """memtest86+ in 16 MiB: it comes to its test 10, so tests 0 to 9 have run, without an error.

    The screen on the serial line shows one moment every two seconds; only the last test is sure to be seen.
    """
    with bench.start("-m", "16", "-kernel", MEMTEST, "-append", "console=ttyS0,115200", limit=600) as guest:
        guest.expect("#10 ")
        guest.expect("Errors:")
        guest.expect("Errors:")  # the count drawn after that
        counts = re.findall(r"Errors: *(\d+)", re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", guest.console.decode("latin-1")))
        if not counts or any(int(count) for count in counts):
            guest.fail(f"memtest86+ counts errors: {counts[-1:]}")


def cases(bench):
    """(name, the files it wants, function, board)"""
    kernel = [bench.kernel]
    for board in BOARDS:
        yield f"SeaBIOS menu on {board}", [SEABIOS], seabios_menu, board
        yield f"SeaBIOS hands over to -kernel on {board}", [SEABIOS, *kernel], seabios_kernel, board
        yield f"OVMF shell on {board}", [OVMF], ovmf_shell, board
    yield "SeaBIOS resets", [SEABIOS], seabios_resets, "pc"
    for device in FIRST_DISK:
        yield f"SeaBIOS boots from {device}", [SEABIOS], seabios_disk, device
    yield "OVMF variables in flash", [OVMF_CODE], ovmf_variables, "pc"
    yield "OVMF starts -kernel", [OVMF, *kernel], ovmf_kernel, "pc"
    yield "OVMF with secure boot", [SECURE_CODE, *kernel], ovmf_secure, "q35"
    yield "suspend to RAM without firmware", kernel, suspend, "pc"
    yield "suspend to RAM under SeaBIOS", [SEABIOS, *kernel], lambda b, board: suspend(b, board, "-bios", SEABIOS), "pc"
    yield "memtest86+ tests 0 to 9 in 16 MiB", [MEMTEST], memtest, "pc"


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    only = [sys.argv[at + 1] for at, word in enumerate(sys.argv) if word == "--only"]
    kite, guests = [word for word in words if word not in only][:2]
    tally = Tally("firmware")
    with tempfile.TemporaryDirectory() as scratch:
        for name, wants, function, board in cases(Bench(kite, guests, scratch)):
            if only and not any(text in name for text in only):
                continue
            missing = [path for path in wants if not os.path.exists(path)]
            if missing:
                tally.skip(name, f"there is no {missing[0]}")
            else:
                tally.run(name, function, Bench(kite, guests, scratch), board)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
