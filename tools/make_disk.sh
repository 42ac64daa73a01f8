#!/usr/bin/env bash
# Makes a disk with an installed Debian on it, out of Debian's packages alone and without loop devices.
# usage: tools/make_disk.sh bios|efi|cd FOLDER
#   FOLDER/debian-bios.img  MBR, GRUB between it and the one ext4 partition
#   FOLDER/debian-efi.img   GPT, EFI system partition with GRUB, ext4 partition
#   FOLDER/rescue.iso       grub-mkrescue's CD with a kernel and the busybox initrd of FOLDER
# What is there already is kept. The system logs in on ttyS0 (root, password kite), and has /root/*.deb to install.
set -euo pipefail
kind=$1
folder=$2
export LC_ALL=C SOURCE_DATE_EPOCH=1700000000
disk_mib=1536 boot_mib=64
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the customize hooks do inside of the new system; $1 is its root.
configure() {
  local root=$1
  echo "kite-guest" >"$root/etc/hostname"
  echo "LABEL=kite-root / ext4 defaults,errors=remount-ro 0 1" >"$root/etc/fstab"
  echo "root:kite" | chroot "$root" chpasswd
  mkdir -p "$root/boot/grub"
  cat >"$root/boot/grub/grub.cfg" <<'CONFIG'
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=1
menuentry "Debian" {
  search --no-floppy --label kite-root --set=root
  linux /vmlinuz root=LABEL=kite-root ro console=ttyS0 panic=-1 quiet
  initrd /initrd.img
}
CONFIG
  chroot "$root" sh -c "cd /root && apt-get -qq -o APT::Sandbox::User=root download bc libreadline8 readline-common hello"
  # Boots on software CPUs wait for nothing that this guest does not need.
  ln -sf /dev/null "$root/etc/systemd/system/apt-daily.timer"
  ln -sf /dev/null "$root/etc/systemd/system/apt-daily-upgrade.timer"
}

make_root() {  # FOLDER/debian.tar: the system as files
  [ -s "$folder/debian.tar" ] && return 0
  declare -f configure >"$work/configure.sh"
  echo 'configure "$1"' >>"$work/configure.sh"
  chmod 755 "$work"
  mmdebstrap --quiet --variant=minbase --format=tar \
    --include=systemd-sysv,udev,linux-image-amd64,initramfs-tools,zstd,e2fsprogs,procps,kmod,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook="bash $work/configure.sh \"\$1\"" \
    bookworm "$folder/debian.tar.part"
  mv "$folder/debian.tar.part" "$folder/debian.tar"
}

make_filesystem() {  # IMAGE OFFSET_MIB SIZE_MIB
  mkdir "$work/root"
  tar -C "$work/root" --numeric-owner -xf "$folder/debian.tar"
  mke2fs -q -F -t ext4 -L kite-root -d "$work/root" -E "offset=$(($2 << 20))" "$1" "${3}M"
}

case "$kind" in
  bios)
    [ ! -s "$folder/debian-bios.img" ] || exit 0
    make_root
    image=$work/disk.img
    truncate -s "${disk_mib}M" "$image"
    echo "start=2048, type=83, bootable" | sfdisk --quiet "$image"
    make_filesystem "$image" 1 $((disk_mib - 1))
    modules=/usr/lib/grub/i386-pc
    cat >"$work/early.cfg" <<'CONFIG'
search --no-floppy --label kite-root --set=root
set prefix=($root)/boot/grub
CONFIG
    grub-mkimage --format i386-pc --directory "$modules" --config "$work/early.cfg" --prefix "(hd0,msdos1)/boot/grub" \
      --output "$work/core.img" biosdisk part_msdos ext2 search search_label normal linux serial terminal configfile echo
    # [MBR] the boot code ends before the disk's signature and table; core.img follows in the gap before sector 2048.
    dd if="$modules/boot.img" of="$image" bs=440 count=1 conv=notrunc status=none
    dd if="$work/core.img" of="$image" bs=512 seek=1 conv=notrunc status=none
    mv "$image" "$folder/debian-bios.img"
    ;;
  efi)
    [ ! -s "$folder/debian-efi.img" ] || exit 0
    make_root
    image=$work/disk.img
    truncate -s "${disk_mib}M" "$image"
    printf 'label: gpt\nstart=2048, size=%s, type=U\nstart=%s, type=L\n' $((boot_mib * 2048)) $(((boot_mib + 1) * 2048)) |
      sfdisk --quiet "$image"
    make_filesystem "$image" $((boot_mib + 1)) $((disk_mib - boot_mib - 2))
    cat >"$work/early.cfg" <<'CONFIG'
search --no-floppy --label kite-root --set=root
set prefix=($root)/boot/grub
configfile ($root)/boot/grub/grub.cfg
CONFIG
    grub-mkimage --format x86_64-efi --config "$work/early.cfg" --prefix /boot/grub --output "$work/bootx64.efi" \
      part_gpt part_msdos ext2 fat search search_label normal linux serial terminal configfile echo
    mkfs.vfat -n KITE-EFI -C "$work/esp.img" $((boot_mib * 1024)) >/dev/null
    mmd -i "$work/esp.img" ::/EFI ::/EFI/BOOT
    mcopy -i "$work/esp.img" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
    dd if="$work/esp.img" of="$image" bs=1M seek=1 conv=notrunc status=none
    mv "$image" "$folder/debian-efi.img"
    ;;
  cd)
    [ ! -s "$folder/rescue.iso" ] || exit 0
    mkdir -p "$work/tree/boot/grub"
    cp "$folder/6.1/vmlinuz" "$work/tree/boot/vmlinuz"
    cp "$folder/initrd.gz" "$work/tree/boot/initrd.gz"
    cat >"$work/tree/boot/grub/grub.cfg" <<'CONFIG'
serial --unit=0 --speed=115200
terminal_output serial console
set timeout=1
menuentry "Rescue" {
  linux /boot/vmlinuz console=ttyS0 panic=-1 quiet
  initrd /boot/initrd.gz
}
CONFIG
    grub-mkrescue --quiet -o "$work/rescue.iso" "$work/tree" >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    mv "$work/rescue.iso" "$folder/rescue.iso"
    ;;
  *) echo "make_disk.sh: '$kind' is not one of bios, efi, cd" >&2; exit 2 ;;
esac
