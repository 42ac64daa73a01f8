#!/usr/bin/env bash
# Puts a Debian kernel at FOLDER/FLAVOUR/vmlinuz, from Debian's own package; keeps what is there already.
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
[ ! -s "$folder/$flavour/vmlinuz" ] || exit 0

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
mkdir -p "$folder/$flavour"
cp "$work"/tree/boot/vmlinuz-* "$folder/$flavour/vmlinuz.part"
mv "$folder/$flavour/vmlinuz.part" "$folder/$flavour/vmlinuz"
