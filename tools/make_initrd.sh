#!/usr/bin/env bash
# Makes a small initrd: busybox and an /init that mounts the usual file systems and gives a shell on the console.
# Words on the kernel command line that /init knows: kite.once (say that user space runs, then power off).
# usage: tools/make_initrd.sh OUTPUT
set -euo pipefail
output=$1
busybox=$(command -v busybox) || { echo "make_initrd.sh: busybox is missing; install busybox-static" >&2; exit 1; }

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,sbin,dev,proc,sys,tmp,etc,root,usr/bin,usr/sbin}
cp "$busybox" "$tree/bin/busybox"
for applet in $("$busybox" --list); do
  [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"
done
cat >"$tree/init" <<'INIT'
#!/bin/sh
export PATH=/bin HOME=/root PS1='kite# '
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
read -r up rest </proc/uptime
echo
echo "Kite: user space runs: Linux $(uname -r), $(grep -c ^processor /proc/cpuinfo) CPU, up $up s"
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
