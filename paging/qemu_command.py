"""The command line of a guest's QEMU: pure, from a definition and the descriptors that QEMU inherits.

Every file is named by /proc/self/fd, every socket by its descriptor: QEMU runs as a user that may not even pass the
directories in which they lie.
"""

from urllib.parse import parse_qs, urlsplit

import attrs

from paging.device import PAGE_BYTES
from paging.errors import GuestError
from paging.guest import Definition, Disk, Workload

MACHINE = "pc-q35-7.2"
"""Pinned: a guest moves between QEMU versions, and the name q35 means another machine in each"""
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@attrs.frozen(kw_only=True)
class Inherited:
    """Descriptors by use."""

    ram: int
    kernel: int
    qmp: int
    console: int
    initrd: int | None = None
    root: int | None = None
    """of an unpacked QEMU"""
    disk_sockets: tuple[int | None, ...] = ()
    """one a disk: its unix socket, or None for a disk over TCP"""


def command(program: str, definition: Definition, inherited: Inherited, *, accelerator: str, is_incoming: bool) -> list[str]:
    """The arguments, program first. The guest does not run until it is told to."""
    words = [program]
    if inherited.root is not None:
        words += ["-L", f"{_file(inherited.root)}/usr/share/qemu", "-L", f"{_file(inherited.root)}/usr/share/seabios"]
    words += ["-name", f"guest={definition.vm},debug-threads=on", "-nodefaults", "-no-user-config", "-no-reboot", "-S"]
    words += ["-display", "none", "-sandbox", _SANDBOX]
    words += _memory(definition, inherited)
    words += ["-machine", f"{MACHINE},accel={accelerator},memory-backend=ram0", "-smp", str(definition.vcpus)]
    words += _sockets(inherited)
    words += _boot(definition, inherited)
    for number, disk in enumerate(definition.disks):
        words += _disk(number, disk, inherited.disk_sockets[number])
    for number in range(definition.nics):
        words += _nic(number)
    return [*words, "-incoming", "defer"] if is_incoming else words


def _file(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def _memory(definition: Definition, inherited: Inherited) -> list[str]:
    size = definition.memory_bytes
    # A named file, shared: since QEMU 8.1 x-ignore-shared leaves out such blocks only (DATAPLANE 11.2).
    backend = f"memory-backend-file,id=ram0,size={size},mem-path={_file(inherited.ram)},share=on"
    return ["-m", f"{size // 1024}K", "-object", backend]


def _sockets(inherited: Inherited) -> list[str]:
    words = []
    for name, descriptor in (("qmp", inherited.qmp), ("console", inherited.console)):
        words += ["-chardev", f"socket,id={name},fd={descriptor},server=on,wait=off"]
    return [*words, "-mon", "chardev=qmp,mode=control", "-serial", "chardev:console"]


def _boot(definition: Definition, inherited: Inherited) -> list[str]:
    words = ["-kernel", _file(inherited.kernel)]
    if inherited.initrd is not None:
        words += ["-initrd", _file(inherited.initrd)]
    return [*words, "-append", kernel_line(definition)]


def kernel_line(definition: Definition) -> str:
    """A kernel that is named brings its own command line; ours (the test guest and the Linux guest) take the workload's."""
    if definition.kernel is not None:
        return definition.cmdline
    console = "console=ttyS0 quiet panic=-1 " if definition.boot == "linux" else ""
    return f"{console}{workload_line(definition.workload)} {definition.cmdline}".strip()


def workload_line(workload: Workload) -> str:
    """The parameters of our guests (paging/native/guest/main.c, paging/native/linux/init)."""
    fill, hot = workload.fill_bytes // PAGE_BYTES, workload.hot_bytes // PAGE_BYTES
    return f"fill={fill} hot={hot} writes={workload.writes_per_s} checks={workload.checks_per_s} seed={workload.seed}"


def _disk(number: int, disk: Disk, unix_socket: int | None) -> list[str]:
    address = urlsplit(disk.url)
    if unix_socket is not None:
        server = f"server.type=unix,server.path={_file(unix_socket)}"
    else:
        server = f"server.type=inet,server.host={address.hostname},server.port={address.port or 10809}"
    access = "on" if disk.read_only else "off"
    node = f"driver=nbd,node-name=disk{number},{server},export={address.path.lstrip('/')},read-only={access}"
    return ["-blockdev", node, "-device", f"virtio-blk-pci,drive=disk{number},id=vd{number}"]


def disk_socket_path(disk: Disk) -> str | None:
    """The unix socket of a disk's server, None for a server on TCP. Raises `GuestError` for a malformed address."""
    address = urlsplit(disk.url)
    if address.scheme != "nbd+unix":
        return None
    sockets = parse_qs(address.query).get("socket", [])
    if len(sockets) != 1:
        raise GuestError(f"disk {disk.url}: nbd+unix needs ?socket=PATH")
    return sockets[0]


def _nic(number: int) -> list[str]:
    # No network behind it but QEMU's own; without an option ROM, which would only be more RAM to fill at start.
    card = f"virtio-net-pci,netdev=net{number},id=nic{number},romfile="
    return ["-netdev", f"user,id=net{number},restrict=on", "-device", card]
