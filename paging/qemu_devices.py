"""Devices that a paged guest must not have, each with its reason: tables, and the two places where they are applied.

The fence of an eviction acts on page tables. Memory that the kernel has pinned for a device is written through the pin, past
the fence: reading a file with O_DIRECT under eviction lost 8979 of 12288 pages where buffered reads lost none (DATAPLANE
11.1). A process that maps guest RAM itself bypasses the userfaultfd. A balloon punches holes behind the swap table.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from paging.errors import DeviceRefused
from paging.guest import Definition

_PINS = "it reads and writes guest memory through pages that the kernel pins, which eviction cannot fence"
_BYPASSES = "another process maps the guest's memory and would see pages that are swapped out as zeros"
_PUNCHES = "it gives guest memory back behind the swap table"

SCHEMES_ALLOWED = ("nbd", "nbd+unix")
SCHEMES_REFUSED: Mapping[str, str] = {
    "file": _PINS, "host_device": _PINS, "nvme": _PINS, "iscsi": _PINS, "io_uring": _PINS, "vfio": _PINS, "vdpa": _PINS,
    "rdma": _PINS, "vhost-user": _BYPASSES, "virtiofs": _BYPASSES, "vhost": _BYPASSES,
}  # fmt: skip
"""Kinds of disk, by the scheme of their address"""

TYPES_REFUSED: Mapping[str, str] = {
    "vfio-": _PINS, "vhost-vdpa": _PINS, "pvrdma": _PINS, "rdma": _PINS, "vhost-user": _BYPASSES, "vhost-scsi": _BYPASSES,
    "vhost-vsock": _BYPASSES, "ivshmem": _BYPASSES, "virtio-balloon": _PUNCHES, "virtio-mem": _PUNCHES, "virtio-pmem": _BYPASSES,
}  # fmt: skip
"""QEMU's device types, by how their names begin"""

DRIVERS_REFUSED: Mapping[str, str] = {
    "host_device": _PINS, "host_cdrom": _PINS, "nvme": _PINS, "io_uring": _PINS, "nvme-io_uring": _PINS,
    "virtio-blk-vfio-pci": _PINS, "virtio-blk-vhost-vdpa": _PINS, "virtio-blk-vhost-user": _BYPASSES,
}  # fmt: skip
"""QEMU's block drivers"""


@attrs.frozen
class BlockNode:
    """A block node as QMP reports it."""

    name: str
    driver: str
    is_direct: bool
    """O_DIRECT (cache.direct=on)"""
    asynchronous: str = "threads"


def check_definition(definition: Definition) -> None:
    """Refuse what a definition asks for, before anything is started. Raises `DeviceRefused`."""
    for number, disk in enumerate(definition.disks):
        scheme = urlsplit(disk.url).scheme or "file"
        if scheme in SCHEMES_ALLOWED:
            continue
        reason = SCHEMES_REFUSED.get(scheme, "only disks over NBD are known not to pin guest memory")
        raise DeviceRefused(f"{definition.vm}: disk {number} ({disk.url}) is refused: {reason}; attach it over NBD")


def check_machine(vm: str, types: Iterable[str], nodes: Iterable[BlockNode]) -> None:
    """Refuse what QEMU really has. Raises `DeviceRefused`."""
    for kind in types:
        for beginning, reason in TYPES_REFUSED.items():
            if kind.startswith(beginning):
                raise DeviceRefused(f"{vm}: device {kind} is refused: {reason}")
    for node in nodes:
        if node.driver in DRIVERS_REFUSED:
            raise DeviceRefused(f"{vm}: disk {node.name} is refused: driver {node.driver}: {DRIVERS_REFUSED[node.driver]}")
        if node.driver == "file" and (node.is_direct or node.asynchronous != "threads"):
            raise DeviceRefused(f"{vm}: disk {node.name} is refused: a file with direct I/O: {_PINS}")


def block_node(reported: Mapping[str, Any]) -> BlockNode:
    """One entry of query-named-block-nodes."""
    cache = reported.get("cache", {})
    return BlockNode(str(reported.get("node-name", "")), str(reported.get("drv", "")), bool(cache.get("direct", False)))
