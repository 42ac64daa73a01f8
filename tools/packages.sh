#!/usr/bin/env bash
# Installs the Debian packages that Kite needs, and says nothing when all are there.
# usage: tools/packages.sh build|guest|test...
set -euo pipefail

build=(clang-19 lld-19 llvm-19 libclang-rt-19-dev cmake ninja-build pkg-config git libfmt-dev nlohmann-json3-dev
       libgtest-dev libgmock-dev libzydis-dev libtomlplusplus-dev liburing-dev zlib1g-dev libzstd-dev
       libvncserver-dev libspice-server-dev libslirp-dev libgnutls28-dev)
guest=(busybox-static cpio gzip xz-utils ca-certificates)
test=(clang-format-19 python3 gdb acpica-tools procps stress-ng openssl 7zip qemu-utils nbdkit libnbd-bin
      seabios ovmf memtest86+
      libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-clients iproute2
      mmdebstrap e2fsprogs fdisk mtools dosfstools xorriso grub-common grub-pc-bin grub-efi-amd64-bin)

wanted=()
for set in "$@"; do
  case "$set" in
    build) wanted+=("${build[@]}") ;;
    guest) wanted+=("${guest[@]}") ;;
    test) wanted+=("${test[@]}") ;;
    *) echo "packages.sh: '$set' is not one of build, guest, test" >&2; exit 2 ;;
  esac
done

missing=()
for package in "${wanted[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "These Debian packages are missing: ${missing[*]}" >&2
  echo "Run this as root, or install them: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
echo "Installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
