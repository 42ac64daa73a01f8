#!/usr/bin/env bash
# Puts a Debian kernel at FOLDER/FLAVOUR/vmlinuz, from Debian's own package, and its modules for disks, file systems,
# network cards, other virtio devices, USB and the power button at FOLDER/FLAVOUR/modules; keeps what is there already.
# usage: tools/get_kernel.sh 6.1-cloud|6.1|6.12-cloud FOLDER
set -euo pipefail
flavour=$1
folder=$2

case "$flavour" in
  6.1-cloud) meta=linux-image-cloud-amd64 ;;
  6.1) meta=linux-image-amd64 ;;
  6.12-cloud) meta=linux-image-6.12-cloud-amd64 ;;
  *) echo "get_kernel.sh: '$flavour' is not one of 6.1-cloud, 6.1, 6.12-cloud" >&2; exit 2 ;;
esac
modules="ata_piix ata_generic ahci sd_mod sr_mod sg nvme virtio_pci virtio_blk virtio_scsi sym53c8xx floppy crc32c_generic ext4
  isofs vfat nls_ascii nls_cp437 nls_utf8 virtio_net e1000 af_packet virtio_balloon virtio-rng virtio_console
  uhci-hcd xhci-pci usbhid hid-generic evdev usb-storage psmouse button virtio-gpu"
# The list that a folder was made with is in it: a longer one makes it anew.
[ ! -s "$folder/$flavour/vmlinuz" ] || [ "$(cat "$folder/$flavour/modules/wanted" 2>/dev/null)" != "$modules" ] || exit 0

package_of() {  # the kernel package that a meta package stands for
  apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1
}
package=$(package_of "$meta")
if [ -z "$package" ]; then
  [ "$(id -u)" -eq 0 ] && apt-get -qq update
  package=$(package_of "$meta")
fi
[ -n "$package" ] || { echo "get_kernel.sh: Debian offers no package $meta here; run 'apt-get update'" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
(cd "$work" && apt-get -qq download "$package" 2>/dev/null) ||
  { [ "$(id -u)" -eq 0 ] && apt-get -qq update && (cd "$work" && apt-get -qq download "$package"); }
dpkg-deb -x "$work"/*.deb "$work/tree"

# The modules with those that they need, uncompressed, in the layout that modprobe knows.
version=$(ls "$work/tree/lib/modules")
find "$work/tree/lib/modules" -name '*.ko.xz' -exec xz -d {} +
busybox depmod -b "$work/tree" "$version"
needed() {  # paths of a module and of what it needs; none when it is built in
  sed -n "s|^\\(.*/$1\\.ko\\): *\\(.*\\)|\\1 \\2|p" "$work/tree/lib/modules/$version/modules.dep"
}
for module in $modules; do needed "$module"; done | tr ' ' '\n' | sed '/^$/d' | sort -u | while read -r path; do
  install -D -m 644 "$work/tree/lib/modules/$version/$path" "$work/modules/lib/modules/$version/$path"
  if command -v strip >/dev/null; then strip --strip-debug "$work/modules/lib/modules/$version/$path"; fi
done
mkdir -p "$work/modules/lib/modules/$version"
busybox depmod -b "$work/modules" "$version"
echo "$modules" >"$work/modules/wanted"

mkdir -p "$folder/$flavour"
rm -rf "$folder/$flavour/modules" "$folder/$flavour/modules.part"
cp -r "$work/modules" "$folder/$flavour/modules.part"
mv "$folder/$flavour/modules.part" "$folder/$flavour/modules"
cp "$work"/tree/boot/vmlinuz-* "$folder/$flavour/vmlinuz.part"
mv "$folder/$flavour/vmlinuz.part" "$folder/$flavour/vmlinuz"
