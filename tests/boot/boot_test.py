#!/usr/bin/env python3
"""Boots Debian's kernels to a busybox shell, works there, reboots and powers off.

usage: boot_test.py KITE GUESTS [--long]
GUESTS holds 6.1-cloud/vmlinuz, 6.1/vmlinuz, 6.12-cloud/vmlinuz and initrd.gz, and with each kernel an initrd-disks.gz that
has its modules. A missing kernel is a skip with its reason.
Ends with a line 'boot: N passed, N failed, N skipped'.
"""
import itertools
import json
import os
import re
import socket
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from guest import Guest, Stream, Tally  # noqa: E402

# kernel, -smp, -m (MiB): the few of every run; each value appears at least once
SHORT = [("6.1-cloud", 1, 128), ("6.1-cloud", 2, 1024), ("6.1", 1, 1024), ("6.12-cloud", 4, 6144)]
# The same on the q35 board, with root ports as libvirt lays them out.
Q35 = [("6.1-cloud", 2, 512), ("6.12-cloud", 1, 3072)]
HOTPLUG = [("6.1-cloud", 2, 256), ("6.1", 1, 256), ("6.12-cloud", 2, 256)]
LONG = list(itertools.product(("6.1-cloud", "6.1", "6.12-cloud"), (1, 2, 4), (128, 1024, 6144)))


def check_shell(guest, kernel, cpus, memory):
    """Works in the shell as a user would; every answer is one the guest computed."""
    version = kernel.split("-")[0]
    if not guest.run("uname -r").startswith(version + "."):
        guest.fail(f"the kernel is not a {version}")
    if guest.run("grep -c ^processor /proc/cpuinfo") != str(cpus):
        guest.fail(f"the guest does not have {cpus} CPUs")
    total = int(guest.run("awk '/MemTotal/ {print $2}' /proc/meminfo")) // 1024
    if not memory * 0.65 - 16 < total <= memory:
        guest.fail(f"the guest sees {total} MiB of {memory}")
    if guest.run("seq 1 20000 | awk '{s+=$1} END {print s}'") != "200010000":
        guest.fail("wrong sum")
    text = guest.run("dd if=/dev/urandom of=/tmp/a bs=64k count=4 2>/dev/null; gzip -c /tmp/a | gunzip | cmp - /tmp/a && echo same")
    if text != "same":
        guest.fail(f"gzip does not give back what it took: {text}")
    if guest.run("for i in $(seq 1 20); do (echo $i) & done | awk '{s+=$1} END {print s}'") != "210":
        guest.fail("forked children lost their output")
    if guest.run("awk 'BEGIN {printf \"%.6f\", 355/113*2.5+0.125}'") != "7.978982":
        guest.fail("floating point gives a wrong result")


def check_log(guest, console):
    """The kernel found nothing to complain about."""
    for line in console.splitlines():
        if re.search(r"\b(BUG|WARNING|Oops|Call Trace|soft lockup|rcu.*stall|unable to handle)\b", line):
            guest.fail(f"the kernel complained: {line.strip()}")


def check_hotplug(guest, monitor):
    """Plugs a device into a root port and takes it out again; the guest's pciehp sees both."""
    count = "ls /sys/bus/pci/devices | wc -l"
    before = int(guest.run(count))
    if not re.search(rb"PCI: (MMCONFIG|ECAM) (at )?\[mem 0x", guest.console):
        guest.fail("the kernel does not use memory-mapped configuration space")
    command(guest, monitor, "device_add", {"driver": "pci-testdev", "id": "hot", "bus": "pci.2"})
    guest.run("for i in $(seq 1 100); do [ $(%s) = %d ] && break; sleep 0.1; done" % (count, before + 1))
    if int(guest.run(count)) != before + 1:
        guest.fail("the guest does not see the plugged device")
    command(guest, monitor, "device_del", {"id": "hot"})
    wait_event(monitor, "DEVICE_DELETED")
    if int(guest.run(count)) != before:
        guest.fail("the device is gone, but the guest still has it")


def check_disk_hotplug(guest, monitor, image, bus):
    """A virtio-blk disk comes to a conventional bus and goes again; the guest's acpiphp sees both, and works meanwhile."""
    command(guest, monitor, "blockdev-add", {"driver": "raw", "node-name": "hot-disk",
                                             "file": {"driver": "file", "filename": image}})
    command(guest, monitor, "device_add", {"driver": "virtio-blk-pci", "id": "hot", "drive": "hot-disk", "bus": bus})
    guest.run("for i in $(seq 1 100); do [ -b /dev/vda ] && break; sleep 0.1; done")
    word = guest.run("dd if=/dev/vda bs=512 count=1 2>/dev/null | head -c 12; "
                     "dd if=/dev/vda of=/dev/vda bs=512 count=1 seek=9 conv=fsync 2>/dev/null")
    if word != "hot-plugged!":
        guest.fail(f"on bus {bus} the guest reads '{word}' from the plugged disk")
    with open(image, "rb") as file:
        if file.read(10 * 512)[9 * 512:][:12] != b"hot-plugged!":
            guest.fail(f"on bus {bus} the guest's write did not arrive on the plugged disk")
    command(guest, monitor, "device_del", {"id": "hot"})
    wait_event(monitor, "DEVICE_DELETED")
    if guest.run("ls /sys/block | grep vda | wc -l") != "0":
        guest.fail(f"the disk is gone from bus {bus}, but the guest still has it")
    command(guest, monitor, "blockdev-del", {"node-name": "hot-disk"})


def boot_hotplug(kite, guests, kernel, cpus, memory):
    """The pc board without firmware: disks come and go by ACPI, on the root bus and behind a bridge."""
    with tempfile.TemporaryDirectory() as scratch:
        path, image = os.path.join(scratch, "qmp"), os.path.join(scratch, "disk.raw")
        words = [kite, "-accel", "jit", "-nodefaults", "-nographic", "-serial", "stdio", "-m", str(memory),
                 "-smp", str(cpus), "-qmp", f"unix:{path},server=on,wait=off", "-device", "pci-bridge,id=bridge",
                 "-kernel", f"{guests}/{kernel}/vmlinuz", "-initrd", f"{guests}/{kernel}/initrd-disks.gz",
                 "-append", "console=ttyS0 panic=-1 kite.disks"]
        with Guest(words, limit=450) as guest, socket.socket(socket.AF_UNIX) as connection:
            guest.expect("kite# ")
            connection.connect(path)
            connection.settimeout(60)
            monitor = Stream(connection)
            monitor.readline()
            command(guest, monitor, "qmp_capabilities", {})
            for bus in ("pci.0", "bridge", "pci.0"):
                with open(image, "wb") as file:
                    file.write(b"hot-plugged!".ljust(1 << 20, b"\0"))
                check_disk_hotplug(guest, monitor, image, bus)
            if "acpi" not in guest.run("grep acpi /proc/interrupts"):
                guest.fail("the guest has no ACPI interrupt")
            # What the guest is asked for and has not let go of, a reset takes.
            command(guest, monitor, "device_add", {"driver": "pci-testdev", "id": "gone", "addr": "1f"})
            command(guest, monitor, "stop", {})
            command(guest, monitor, "device_del", {"id": "gone"})
            command(guest, monitor, "system_reset", {})
            wait_event(monitor, "DEVICE_DELETED")
            command(guest, monitor, "cont", {})
            guest.expect("kite# ")
            if guest.run("ls /sys/bus/pci/devices | grep :1f.0 | wc -l") != "0":
                guest.fail("the device is still there after the reset")
            guest.send("poweroff -f\n")
            if (status := guest.wait_exit()) != 0:
                guest.fail(f"power off ended with status {status}")
            check_log(guest, guest.console.decode(errors="replace"))


def wait_event(monitor, name):
    while json.loads(monitor.readline()).get("event") != name:
        pass


def command(guest, monitor, name, arguments):
    monitor.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
    monitor.flush()
    while True:
        answer = json.loads(monitor.readline())
        if "error" in answer:
            guest.fail(f"{name}: {answer['error']}")
        if "return" in answer:
            return


def boot_q35(kite, guests, kernel, cpus, memory):
    """The q35 board with root ports in multifunction slots, as libvirt lays them out."""
    ports = []
    for number in range(10):
        ports += ["-device", json.dumps({"driver": "pcie-root-port", "port": 16 + number, "chassis": number + 1,
                                         "id": f"pci.{number + 1}", "bus": "pcie.0", "multifunction": number % 8 == 0,
                                         "addr": f"0x{2 + number // 8}.0x{number % 8}"})]
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "qmp")
        words = [kite, "-machine", "q35", "-accel", "jit", "-nodefaults", "-nographic", "-serial", "stdio",
                 "-m", str(memory), "-smp", str(cpus), "-qmp", f"unix:{path},server=on,wait=off", *ports,
                 "-device", "pci-testdev,bus=pci.1", "-kernel", f"{guests}/{kernel}/vmlinuz",
                 "-initrd", f"{guests}/initrd.gz", "-append", "console=ttyS0 panic=-1"]
        with Guest(words, limit=450) as guest, socket.socket(socket.AF_UNIX) as connection:
            guest.expect("kite# ")
            connection.connect(path)
            connection.settimeout(60)
            monitor = Stream(connection)
            monitor.readline()
            command(guest, monitor, "qmp_capabilities", {})
            check_shell(guest, kernel, cpus, memory)
            check_hotplug(guest, monitor)
            guest.send("reboot -f\n")
            guest.expect("Kite: user space runs")
            guest.expect("kite# ")
            guest.send("poweroff -f\n")
            if (status := guest.wait_exit()) != 0:
                guest.fail(f"power off ended with status {status}")
            check_log(guest, guest.console.decode(errors="replace"))


def boot_nodes(kite, guests, kernel, cpus, memory):
    """Sockets, cores and NUMA nodes as they were asked for; an odd number of cores leaves gaps in the APIC ids."""
    low = memory // 4
    words = [kite, "-accel", "jit", "-nodefaults", "-nographic", "-serial", "stdio", "-m", str(memory),
             "-smp", f"{cpus},sockets=2", "-object", f"memory-backend-ram,id=low,size={low}M",
             "-object", f"memory-backend-ram,id=high,size={memory - low}M", "-numa", "node,memdev=low",
             "-numa", "node,memdev=high", "-numa", "dist,src=0,dst=1,val=33",
             "-kernel", f"{guests}/{kernel}/vmlinuz", "-initrd", f"{guests}/initrd.gz", "-append", "console=ttyS0 panic=-1"]
    with Guest(words, limit=450) as guest:
        guest.expect("kite# ")
        check_shell(guest, kernel, cpus, memory)
        half = cpus // 2
        for path, expected in (("node/node0/cpulist", f"0-{half - 1}"), ("node/node1/cpulist", f"{half}-{cpus - 1}"),
                               ("node/node0/distance", "10 33"), ("node/node1/distance", "33 10"),
                               (f"cpu/cpu{half}/topology/package_cpus_list", f"{half}-{cpus - 1}"),
                               ("cpu/cpu0/cache/index3/shared_cpu_list", f"0-{half - 1}"),
                               (f"cpu/cpu{half - 1}/topology/core_cpus_list", str(half - 1))):
            if (seen := guest.run(f"cat /sys/devices/system/{path}")) != expected:
                guest.fail(f"{path} is {seen}, not {expected}")
        total = int(guest.run("awk '/MemTotal/ {print $4}' /sys/devices/system/node/node1/meminfo")) // 1024
        if not memory - low - 64 < total <= memory - low:
            guest.fail(f"node 1 has {total} MiB of {memory - low}")
        guest.send("poweroff -f\n")
        if (status := guest.wait_exit()) != 0:
            guest.fail(f"power off ended with status {status}")
        check_log(guest, guest.console.decode(errors="replace"))


def boot_interpreted(kite, guests, kernel, cpus, memory):
    """Without the translator: everything is interpreted."""
    boot(kite, guests, kernel, cpus, memory, "jit,translate=off")


def boot(kite, guests, kernel, cpus, memory, accel="jit"):
    command = [kite, "-accel", accel, "-nodefaults", "-nographic", "-serial", "stdio", "-m", str(memory),
               "-smp", str(cpus), "-kernel", f"{guests}/{kernel}/vmlinuz", "-initrd", f"{guests}/initrd.gz",
               "-append", "console=ttyS0 panic=-1"]
    with Guest(command, limit=450) as guest:
        guest.expect("Kite: user space runs")
        guest.expect("kite# ")
        check_shell(guest, kernel, cpus, memory)
        guest.send("reboot -f\n")
        guest.expect("Kite: user space runs")
        guest.expect("kite# ")
        guest.run("test -d /proc/1")
        guest.send("poweroff -f\n")
        status = guest.wait_exit()
        if status != 0:
            guest.fail(f"power off ended with status {status}")
        check_log(guest, guest.console.decode(errors="replace"))


def main():
    kite, guests = sys.argv[1:3]
    tally = Tally("boot")
    plan = [(boot, "boot", *one) for one in (LONG if "--long" in sys.argv else SHORT)]
    plan.append((boot_nodes, "boot nodes", "6.1-cloud", 6, 1024))
    plan.append((boot_interpreted, "boot interpreted", "6.1-cloud", 2, 512))
    plan += [(boot_q35, "boot q35", *one) for one in (Q35 if "--long" in sys.argv else Q35[:1])]
    plan += [(boot_hotplug, "boot hotplug", *one) for one in (HOTPLUG if "--long" in sys.argv else HOTPLUG[:1])]
    for how, what, kernel, cpus, memory in plan:
        name = f"{what} {kernel} -smp {cpus} -m {memory}"
        if how is boot_hotplug and not os.path.exists(f"{guests}/{kernel}/initrd-disks.gz"):
            tally.skip(name, "there is no initrd with the kernel's modules")
        elif os.path.exists(f"{guests}/{kernel}/vmlinuz"):
            tally.run(name, how, kite, guests, kernel, cpus, memory)
        else:
            tally.skip(name, "Debian's kernel could not be had")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
