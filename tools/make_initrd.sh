#!/usr/bin/env bash
# Makes a small initrd: busybox and an /init that mounts the usual file systems and gives a shell on the console.
# Words on the kernel command line that /init knows: kite.once (say that user space runs, then power off), kite.disks (load
# the drivers of all disk controllers first; load-disks does it later). load-net does the same for network cards, and
# asks DHCP for an address; load-virtio for the balloon, the random number generator and the serial ports of virtio; load-usb
# for USB. watch-power makes the power button do what it says.
# usage: tools/make_initrd.sh OUTPUT [FOLDER of a kernel from get_kernel.sh, whose modules go in]
set -euo pipefail
output=$1
kernel=${2:-}
busybox=$(command -v busybox) || { echo "make_initrd.sh: busybox is missing; install busybox-static" >&2; exit 1; }

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,sbin,dev,proc,sys,tmp,etc,root,usr/bin,usr/sbin}
cp "$busybox" "$tree/bin/busybox"
for applet in $("$busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
done
[ -z "$kernel" ] || cp -r "$kernel/modules/lib" "$tree/lib"
cat >"$tree/bin/load-disks" <<'LOAD'
#!/bin/sh
# Loads what this kernel has as modules of drivers for disks and file systems, and waits for the disks to show up.
for module in ata_piix ata_generic ahci virtio_pci virtio_blk virtio_scsi nvme sym53c8xx floppy sd_mod sr_mod sg \
    crc32c_generic ext4 isofs vfat nls_ascii nls_cp437 nls_utf8; do
  modprobe -q "$module"
done
found=
for turn in 1 2 3 4 5 6 7 8 9 10; do
  now=$(ls /sys/block)
  [ "$now" = "$found" ] && [ "$turn" -gt 3 ] && break
  found=$now
  sleep 1
done
echo "Kite: disks:" $(ls /sys/block)
LOAD
chmod 755 "$tree/bin/load-disks"
cat >"$tree/bin/load-net" <<'LOAD'
#!/bin/sh
# Loads the drivers of network cards and asks DHCP for an address of the first one.
for module in af_packet virtio_pci virtio_net e1000; do modprobe -q "$module"; done
for turn in 1 2 3 4 5; do
  [ -e /sys/class/net/eth0 ] && break
  sleep 1
done
ip link set lo up
ip link set eth0 up
udhcpc -i eth0 -q -n -s /bin/take-lease && echo "Kite: network:" $(ip -4 addr show eth0 | sed -n 's/.*inet \([0-9./]*\).*/\1/p')
LOAD
cat >"$tree/bin/load-virtio" <<'LOAD'
#!/bin/sh
# Loads the drivers of the memory balloon, the random number generator and the serial ports; name-ports gives these the
# names that they have in /dev/virtio-ports.
for module in virtio_pci virtio_balloon virtio-rng virtio_console; do modprobe -q "$module"; done
sleep 1
name-ports
echo "Kite: virtio:" $(ls /sys/bus/virtio/devices)
LOAD
cat >"$tree/bin/name-ports" <<'NAMES'
#!/bin/sh
rm -rf /dev/virtio-ports
mkdir /dev/virtio-ports
for port in /sys/class/virtio-ports/*; do
  [ ! -s "$port/name" ] || ln -s "/dev/${port##*/}" "/dev/virtio-ports/$(cat "$port/name")"
done
NAMES
cat >"$tree/bin/load-usb" <<'LOAD'
#!/bin/sh
# Loads the drivers of USB controllers, of keyboards, mice and tablets, and says what input devices there are.
for module in uhci_hcd xhci_pci usbhid hid_generic evdev usb_storage psmouse; do modprobe -q "$module"; done
sleep 2
echo "Kite: input:" $(sed -n 's/^N: Name=//p' /proc/bus/input/devices)
LOAD
cat >"$tree/bin/take-lease" <<'LEASE'
#!/bin/sh
# What udhcpc calls with what it was told.
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev "$interface"
ip addr add "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route add default via "${router%% *}" dev "$interface"
for server in $dns; do echo "nameserver $server"; done >/etc/resolv.conf
[ -z "$hostname" ] || hostname "$hostname"
LEASE
cat >"$tree/bin/watch-power" <<'POWER'
#!/bin/sh
# Powers off when the power button is pressed.
for module in button evdev; do modprobe -q "$module"; done
for turn in 1 2 3 4 5 6 7 8 9 10; do
  [ -e /dev/input/event0 ] && break
  sleep 1
done
acpid -l /dev/null -p /tmp/acpid.pid
until ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q /dev/input/event0; do sleep 0.1; done  # it goes into the background first
echo "Kite: the power button is watched"
POWER
mkdir -p "$tree/etc/acpi/PWRF"
cat >"$tree/etc/acpi/PWRF/00000080" <<'BUTTON'
#!/bin/sh
echo "Kite: the power button was pressed" >/dev/console
poweroff -f
BUTTON
chmod 755 "$tree"/bin/load-* "$tree"/bin/name-ports "$tree"/bin/take-lease "$tree"/bin/watch-power "$tree"/etc/acpi/PWRF/00000080
cat >"$tree/init" <<'INIT'
#!/bin/sh
export PATH=/bin HOME=/root PS1='kite# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
read -r up rest </proc/uptime
echo
echo "Kite: user space runs: Linux $(uname -r), $(grep -c ^processor /proc/cpuinfo) CPU, up $up s"
! grep -qw kite.disks /proc/cmdline || load-disks
if grep -qw kite.once /proc/cmdline; then
  echo "Kite: powering off"
  poweroff -f
fi
cd /root
while :; do
  setsid cttyhack sh
  echo "The shell has ended; 'poweroff -f' turns the machine off."
done
INIT
chmod 755 "$tree/init"
mkdir -p "$(dirname "$output")"
(cd "$tree" && find . -print0 | LC_ALL=C sort -z | cpio --quiet --null --create --format=newc --owner=0:0 | gzip -n -9) >"$output.part"
mv "$output.part" "$output"
