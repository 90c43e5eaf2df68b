#!/bin/sh
# Unpack QEMU 10 (Debian bookworm-backports) into a directory of its own, beside the system's QEMU.
#
#   fetch_qemu10.sh DIRECTORY
#
# Nothing of the system's package state changes: apt works on private lists, and the packages are downloaded and
# unpacked, not installed. The mirror is the one that this machine uses already for its own suite.
set -eu

target=$1
suite=bookworm-backports
packages="qemu-system-x86 qemu-system-common qemu-system-data seabios ipxe-qemu"

if [ -e "$target/.complete" ]; then exit 0; fi
rm -rf "$target"
mkdir -p "$target/apt/lists/partial" "$target/apt/archives/partial" "$target/root"

mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    awk '$1 == "URIs:" { print $2 } $1 == "deb" { for (i = 2; i < NF; i++) if ($i ~ /:\/\//) print $i }' |
    grep -v -- security | grep '/debian/*$' | head -n 1)
if [ -z "$mirror" ]; then
    echo "no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d: add one, then run this again" >&2
    exit 1
fi
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror bookworm main" > "$target/apt/sources.list"
echo "deb [signed-by=$keys] $mirror $suite main" >> "$target/apt/sources.list"

private="-o Dir::Etc::sourcelist=$target/apt/sources.list -o Dir::Etc::sourceparts=/dev/null
    -o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists=$target/apt/lists -o Dir::Cache=$target/apt
    -o APT::Sandbox::User=root -o Acquire::Languages=none"
apt-get $private -qq update

cd "$target/apt/archives"
# The libraries that only the newer QEMU needs come with it; those that the system has are the system's.
for package in $packages; do
    apt-get $private -qq download "$package/$suite" || apt-get $private -qq download "$package"
done
for archive in *.deb; do dpkg-deb -x "$archive" "$target/root"; done

libraries="$target/root/usr/lib/x86_64-linux-gnu"
binary="$target/root/usr/bin/qemu-system-x86_64"
for name in $(LD_LIBRARY_PATH=$libraries ldd "$binary" | awk '/not found/ { print $1 }'); do
    # A library's package is named after its soname: libfoo.so.1 -> libfoo1, libfoo-2.0.so.0 -> libfoo-2.0-0.
    stem=${name%%.so*} number=${name##*.so.}
    case $stem in *[0-9]) guess="$stem-$number" ;; *) guess="$stem$number" ;; esac
    guess=$(echo "$guess" | tr 'A-Z_' 'a-z-')
    apt-get $private -qq download "$guess" || { echo "QEMU 10 needs $name; no package $guess has it" >&2; exit 1; }
    dpkg-deb -x "$guess"_*.deb "$target/root"
done

LD_LIBRARY_PATH=$libraries "$binary" -L "$target/root/usr/share/qemu" -version
rm -rf "$target/apt"
touch "$target/.complete"
