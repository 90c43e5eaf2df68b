#!/bin/sh
# Kernel and initramfs of the Linux guest: Debian's cloud kernel, a static busybox, the modules for virtio, and `init`.
#
#   build.sh DIRECTORY
#
# Makes DIRECTORY/vmlinuz and DIRECTORY/initrd.gz. Nothing is installed: see ../private_apt.sh.
set -eu

target=$1
here=$(cd "$(dirname "$0")" && pwd)
# In the order in which they are loaded; those that this kernel has built in are left out.
modules="virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net"

mkdir -p "$target"
if [ ! -e "$target/vmlinuz" ] || [ ! -d "$target/unpacked" ]; then
    . "$here/../private_apt.sh"
    rm -rf "$target/unpacked" "$target/apt"
    private_apt_begin "$target/apt" bookworm bookworm-updates
    kernel=$(apt-cache $private_apt depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    private_apt_fetch "$kernel"
    private_apt_fetch busybox-static
    for archive in "$target"/apt/archives/*.deb; do dpkg-deb -x "$archive" "$target/unpacked"; done
    rm -rf "$target/apt"
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/bin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" "$root/memory"
cp "$target/unpacked/bin/busybox" "$root/bin/busybox"
install -m 755 "$here/init" "$root/init"
: > "$root/modules/order"
for module in $modules; do
    file=$(find "$target/unpacked/lib/modules" "$target/unpacked/usr/lib/modules" -name "$module.ko*" 2>/dev/null | head -n 1)
    [ -n "$file" ] || continue
    case $file in *.xz) xz -dc "$file" > "$root/modules/$module.ko" ;; *) cp "$file" "$root/modules/$module.ko" ;; esac
    echo "$module" >> "$root/modules/order"
done
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc | gzip -n9) > "$target/initrd.new"
mv "$target/initrd.new" "$target/initrd.gz"
cp "$(find "$target/unpacked/boot" -name 'vmlinuz-*' | head -n 1)" "$target/vmlinuz"
chmod 644 "$target/vmlinuz" "$target/initrd.gz"
