"""The pager's end of the preload library in QEMU (`native/shim.c`): hello, and the descriptors that come with it."""

import os
import socket
import struct
from pathlib import Path

import attrs

from paging.errors import GuestError
from paging.unix_sockets import connect

VERSION = 1
_HELLO = 1
_BLOCKS_MAX = 16
_REQUEST = struct.Struct("<IIQQ")
_REPLY = struct.Struct("<IiIIQQ")
_BLOCK = struct.Struct("<QQQQQ")


@attrs.frozen(kw_only=True)
class RamBlock:
    """One mapping of guest RAM in QEMU."""

    address: int
    length: int
    file_offset: int
    descriptor: int
    """the RAM file, open for reading and writing"""


@attrs.frozen(kw_only=True)
class Hello:
    """What the library says of itself. The descriptors are the receiver's to close."""

    pid: int
    features: int
    ioctls: int
    uffd: int
    blocks: tuple[RamBlock, ...]


def greet(path: Path, *, timeout_s: float) -> Hello:
    """Ask for the userfaultfd and the RAM blocks; waits until QEMU has mapped them all.

    Raises `GuestError` where QEMU is gone, does not answer in time, or carries another version of the library.
    """
    try:
        with connect(path, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(timeout_s)
            connection.send(_REQUEST.pack(VERSION, _HELLO, 0, 0))
            return _receive(connection)
    except OSError as error:
        raise GuestError(f"the preload library of QEMU does not answer on {path}: {error}") from error


def _receive(connection: socket.socket) -> Hello:
    size = _REPLY.size + _BLOCKS_MAX * _BLOCK.size
    data, descriptors, _, _ = socket.recv_fds(connection, size, _BLOCKS_MAX + 1)
    if len(data) < _REPLY.size:
        raise GuestError("QEMU ended before it had mapped its memory")
    version, error, pid, count, features, ioctls = _REPLY.unpack_from(data)
    if version != VERSION:
        _close(descriptors)
        raise GuestError(f"the preload library in QEMU speaks version {version}, this pager {VERSION}: build it again")
    if error or count != len(descriptors) - 1 or len(data) != _REPLY.size + count * _BLOCK.size:
        _close(descriptors)
        raise GuestError(f"the preload library in QEMU refused hello: {os.strerror(error) if error else 'malformed answer'}")
    uffd, files = descriptors[0], descriptors[1:]
    blocks = tuple(
        RamBlock(address=address, length=length, file_offset=offset, descriptor=file)
        for file, (address, length, offset, _, _) in zip(files, _BLOCK.iter_unpack(data[_REPLY.size :]), strict=True)
    )
    return Hello(pid=pid, features=features, ioctls=ioctls, uffd=uffd, blocks=blocks)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
