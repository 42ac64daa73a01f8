#!/usr/bin/env python3
"""Boots an installed Debian through its own boot loader from every controller, works there, reboots, shuts down.

usage: installed_test.py KITE GUESTS [--long] [--only NAME] [--accel WORDS]
GUESTS holds debian-bios.img, debian-efi.img and rescue.iso of tools/make_disk.sh. Afterwards e2fsck judges the disk.
Ends with a line 'installed: N passed, N failed, N skipped'.
"""
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import Guest, GuestError, Tally  # noqa: E402

ROOT_OFFSET = {"bios": 1 << 20, "efi": 65 << 20}  # of the ext4 partition in tools/make_disk.sh's images
OVMF_CODE, OVMF_VARS = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"

# How the disk `file=X,format=F` is given on each controller.
CONTROLLERS = {
    "ide": ["-drive", "if=ide,{disk}"],
    "virtio-blk": ["-drive", "if=virtio,{disk}"],
    "ahci": ["-machine", "q35", "-drive", "if=ide,{disk}"],
    "nvme": ["-drive", "if=none,id=d0,{disk}", "-device", "nvme,drive=d0,serial=kite0,bootindex=0"],
    "virtio-scsi": ["-device", "virtio-scsi-pci,id=scsi0", "-drive", "if=none,id=d0,{disk}",
                    "-device", "scsi-hd,drive=d0,bus=scsi0.0,bootindex=0"],
}
# What every run does: each controller, format and firmware at least once.
SHORT = [("ide", "raw", "bios"), ("virtio-blk", "qcow2", "bios"), ("ahci", "qed", "bios"), ("nvme", "raw", "efi"),
         ("virtio-scsi", "qcow2", "bios")]
LONG = [(controller, form, "bios") for controller in CONTROLLERS for form in ("raw", "qcow2", "qed")]
LONG += [("ahci", "qcow2", "efi"), ("virtio-blk", "raw", "efi"), ("nvme", "raw", "efi")]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GuestError(f"'{' '.join(command)}' ended with status {done.returncode}: {done.stdout}{done.stderr}")


def make_image(kite, base, form, folder):
    """A disk of that format with the content of `base`: qcow2 and qed leave it where it is, as their backing file."""
    image = os.path.join(folder, f"disk.{form}")
    if form == "raw":
        shutil.copyfile(base, image)
    else:
        run(kite, "img", "create", "-q", "-f", form, "-b", base, "-F", "raw", image)
    return image


def log_in(guest):
    guest.expect("login: ")
    guest.send("root\n")
    guest.expect("Password: ")
    guest.send("kite\n")
    guest.expect("# ")
    guest.send("export TERM=dumb; bind 'set enable-bracketed-paste off'; PS1='ki''te# '\n")
    guest.expect("kite# ")


def work(guest):
    """What installing software does to a disk: many small files, renames, syncs."""
    guest.run("cd /root && dpkg -i *.deb >/root/dpkg.log 2>&1 || { cat /root/dpkg.log; false; }")
    guest.run("hello")
    if guest.run("echo '2^200' | bc") != str(2 ** 200):
        guest.fail("the installed bc computes nonsense")
    guest.run("mkdir /root/t && tar -C /usr/lib -cf - systemd udev | tar -C /root/t -xf - && sync")
    guest.run("(cd /usr/lib && find systemd udev -type f -print0 | sort -z | xargs -0 sha256sum) >/root/sums && sync")


def check_work(guest):
    guest.run("hello && cd /root/t && sha256sum --quiet -c /root/sums")


def check_file_system(kite, image, form, firmware, folder):
    raw = image
    if form != "raw":
        run(kite, "img", "check", "-q", "-f", form, image)
        raw = os.path.join(folder, "after.raw")
        run(kite, "img", "convert", "-f", form, "-O", "raw", image, raw)
    done = subprocess.run(["e2fsck", "-fn", f"{raw}?offset={ROOT_OFFSET[firmware]}"], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise GuestError(f"e2fsck finds (status {done.returncode}): {done.stdout[-2000:]}{done.stderr[-500:]}")


def boot_disk(kite, guests, accel, controller, form, firmware):
    with tempfile.TemporaryDirectory(dir=os.environ.get("KITE_TMP")) as folder:
        image = make_image(kite, os.path.abspath(f"{guests}/debian-{firmware}.img"), form, folder)
        words = [kite, *accel, "-m", "512", "-smp", "2", "-nographic", "-nodefaults", "-serial", "stdio"]
        if firmware == "efi":
            variables = shutil.copyfile(OVMF_VARS, os.path.join(folder, "vars.fd"))
            words += ["-drive", f"if=pflash,unit=0,readonly=on,format=raw,file={OVMF_CODE}",
                      "-drive", f"if=pflash,unit=1,format=raw,file={variables}"]
        words += [word.format(disk=f"file={image},format={form}") for word in CONTROLLERS[controller]]
        with Guest(words, limit=900) as guest:
            log_in(guest)
            work(guest)
            guest.send("reboot\n")
            log_in(guest)
            check_work(guest)
            guest.send("poweroff\n")
            if (status := guest.wait_exit()) != 0:
                guest.fail(f"power off ended with status {status}")
        check_file_system(kite, image, form, firmware, folder)


def boot_cd(kite, guests, accel, _controller, _form, _firmware):
    words = [kite, *accel, "-m", "256", "-nographic", "-nodefaults", "-serial", "stdio",
             "-cdrom", f"{guests}/rescue.iso", "-boot", "d"]
    with Guest(words, limit=450) as guest:
        guest.expect("Kite: user space runs")
        guest.expect("kite# ")
        guest.send("poweroff -f\n")
        if (status := guest.wait_exit()) != 0:
            guest.fail(f"power off ended with status {status}")


def option(name, otherwise):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else otherwise


def main():
    kite, guests = os.path.abspath(sys.argv[1]), sys.argv[2]
    only = option("--only", "")
    accel = ["-accel", *option("--accel", "jit").split()]
    plan = [(boot_disk, f"{guests}/debian-{one[2]}.img", *one) for one in (LONG if "--long" in sys.argv else SHORT)]
    plan.append((boot_cd, f"{guests}/rescue.iso", "cd", "iso", "bios"))
    tally = Tally("installed")
    for how, needs, *one in plan:
        name = " ".join(one)
        if only not in name:
            continue
        if os.path.exists(needs):
            tally.run(name, how, kite, guests, accel, *one)
        else:
            tally.skip(name, f"tools/make_disk.sh could not make {needs}")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
