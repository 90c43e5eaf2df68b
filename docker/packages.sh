#!/usr/bin/env bash
# Sees to the Debian packages that swapferry needs: "packages.sh run" to run it, "packages.sh test" for its tests too.
# Installs what is missing when it may (root and apt-get); otherwise says exactly what to install and ends with 1.
set -euo pipefail

kind="${1:-run}"

# One line a package: its name and a command that succeeds where it is not needed any more.
needed() {
    cat <<'LIST'
qemu-system-x86   command -v qemu-system-x86_64
ipxe-qemu         test -e /usr/share/qemu/efi-virtio.rom -o -e /usr/lib/ipxe/qemu/efi-virtio.rom
gcc               command -v gcc
libc6-dev         test -e /usr/include/stdio.h
gcc-multilib      test -e "$(gcc -m32 -print-libgcc-file-name)"
busybox-static    test -e /bin/busybox -o -e /usr/bin/busybox
cpio              command -v cpio
nbdkit            command -v nbdkit
iproute2          command -v ip
LIST
    local python="${PYTHON:-$("$(dirname "$0")/python.sh" || echo python3)}"
    echo "python3           $python -c 'import sys; assert sys.version_info >= (3, 11)'"
    echo "python3-venv      $python -c 'import ensurepip, venv'"
    if [ "$kind" = test ]; then
        echo "rabbitmq-server   test -d /usr/lib/rabbitmq"
    fi
}

missing() {
    local package probe
    while read -r package probe; do
        bash -c "$probe" >/dev/null 2>&1 || echo "$package"
    done < <(needed)
}

# A package that brings a service must not start it: the tests start their own broker, and a container has no init.
without_services() {
    local policy="${POLICY_FILE:-/usr/sbin/policy-rc.d}"
    if [ ! -e "$policy" ]; then
        trap "rm -f '$policy'" EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    "$@"
}

install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -o DPkg::Lock::Timeout=300 update
    without_services apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
    if [[ " $* " == *" rabbitmq-server "* ]] && command -v systemctl >/dev/null; then
        systemctl disable rabbitmq-server.service epmd.service epmd.socket >/dev/null 2>&1 || true
    fi
}

packages="$(missing | tr '\n' ' ')"
if [ -z "$packages" ]; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "swapferry needs these Debian packages, and only root with apt-get can install them from here:" >&2
    echo "    $packages" >&2
    echo "Install them (on Debian: sudo apt-get install $packages) and call make again." >&2
    exit 1
fi
echo "installing $packages"
# shellcheck disable=SC2086 - a list of names
install $packages
packages="$(missing | tr '\n' ' ')"
if [ -n "$packages" ]; then
    echo "these packages were installed but what they should bring is not there: $packages" >&2
    exit 1
fi
