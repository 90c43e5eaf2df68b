"""The pager's end of the preload library in QEMU (`native/shim.c`): hello, and the descriptors that come with it."""

import os
import socket
import struct
from pathlib import Path

import attrs

from paging.errors import GuestError
from paging.unix_sockets import connect

VERSION = 1
HELLO = 1
ZAP = 2
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


@attrs.frozen(kw_only=True)
class Reply:
    """The fixed part of an answer."""

    version: int
    error: str | None
    pid: int
    block_count: int
    features: int
    ioctls: int


def request(*, kind: int, start: int = 0, length: int = 0, version: int = VERSION) -> bytes:
    """A request on the wire (`struct shim_request`)."""
    return _REQUEST.pack(version, kind, start, length)


def parse_reply(data: bytes) -> Reply:
    """The beginning of an answer (`struct shim_reply`). Raises `GuestError` for one that is cut off."""
    if len(data) < _REPLY.size:
        raise GuestError("QEMU ended before it had mapped its memory")
    version, error, pid, count, features, ioctls = _REPLY.unpack_from(data)
    why = os.strerror(error) if error else None
    return Reply(version=version, error=why, pid=pid, block_count=count, features=features, ioctls=ioctls)


def greet(path: Path, *, timeout_s: float) -> Hello:
    """Ask for the userfaultfd and the RAM blocks; waits until QEMU has mapped them all.

    Raises `GuestError` where QEMU is gone, does not answer in time, or carries another version of the library.
    """
    try:
        with connect(path, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(timeout_s)
            connection.send(request(kind=HELLO))
            size = _REPLY.size + _BLOCKS_MAX * _BLOCK.size
            data, descriptors, _, _ = socket.recv_fds(connection, size, _BLOCKS_MAX + 1)
    except OSError as error:
        raise GuestError(f"the preload library of QEMU does not answer on {path}: {error}") from error
    try:
        return _hello(data, descriptors)
    except GuestError:
        _close(descriptors)
        raise


def _hello(data: bytes, descriptors: list[int]) -> Hello:
    reply = parse_reply(data)
    if reply.version != VERSION:
        raise GuestError(f"the preload library in QEMU speaks version {reply.version}, this pager {VERSION}: build it again")
    if reply.error or reply.block_count != len(descriptors) - 1 or len(data) != _REPLY.size + reply.block_count * _BLOCK.size:
        raise GuestError(f"the preload library in QEMU refused hello: {reply.error or 'malformed answer'}")
    blocks = tuple(
        RamBlock(address=address, length=length, file_offset=offset, descriptor=file)
        for file, (address, length, offset, _, _) in zip(descriptors[1:], _BLOCK.iter_unpack(data[_REPLY.size :]), strict=True)
    )
    return Hello(pid=reply.pid, features=reply.features, ioctls=reply.ioctls, uffd=descriptors[0], blocks=blocks)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
