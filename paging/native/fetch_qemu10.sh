#!/bin/sh
# Unpack QEMU 10 (Debian bookworm-backports) into a directory of its own, beside the system's QEMU.
#
#   fetch_qemu10.sh DIRECTORY
#
# Nothing is installed and no package source is added: see private_apt.sh.
set -eu

target=$1
suite=bookworm-backports
packages="qemu-system-x86 qemu-system-common qemu-system-data seabios"

if [ -e "$target/.complete" ]; then exit 0; fi
. "$(dirname "$0")/private_apt.sh"
rm -rf "$target"
mkdir -p "$target/root"
private_apt_begin "$target/apt" bookworm "$suite"

for package in $packages; do private_apt_fetch "$package/$suite"; done
for archive in "$target"/apt/archives/*.deb; do dpkg-deb -x "$archive" "$target/root"; done

# Libraries that only the newer QEMU needs come with it; those that the system has are the system's.
libraries="$target/root/usr/lib/x86_64-linux-gnu"
binary="$target/root/usr/bin/qemu-system-x86_64"
for name in $(LD_LIBRARY_PATH=$libraries ldd "$binary" | awk '/not found/ { print $1 }'); do
    # A library's package is named after its soname: libfoo.so.1 -> libfoo1, libfoo2.so.1 -> libfoo2-1.
    stem=${name%%.so*} number=${name##*.so.}
    case $stem in *[0-9]) guess="$stem-$number" ;; *) guess="$stem$number" ;; esac
    guess=$(echo "$guess" | tr 'A-Z_' 'a-z-')
    private_apt_fetch "$guess" || { echo "QEMU 10 needs $name, and no package $guess brings it" >&2; exit 1; }
    dpkg-deb -x "$target/apt/archives/$guess"_*.deb "$target/root"
done

LD_LIBRARY_PATH=$libraries "$binary" -L "$target/root/usr/share/qemu" -L "$target/root/usr/share/seabios" -version
rm -rf "$target/apt"
touch "$target/.complete"
