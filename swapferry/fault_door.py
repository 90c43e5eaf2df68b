"""Lets tests arm fault points (`paging.fault_points`) in a node: when it starts, and while it runs.

    SWAPFERRY_FAULTS         what is armed from the start
    SWAPFERRY_FAULTS_SOCKET  a Unix datagram socket (@ for the abstract name space); each datagram arms anew, an empty one disarms

Nothing of this exists in a node whose environment names neither.
"""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from paging import fault_points
from paging.errors import PagingError

AT_START = "SWAPFERRY_FAULTS"
DOOR = "SWAPFERRY_FAULTS_SOCKET"
_LONGEST_BYTES = 4096

log = structlog.get_logger("swapferry.faults")


@contextmanager
def fault_door() -> Iterator[None]:
    """Arm what the environment says, and listen for more while the body runs. Raises `PagingError` for a name that does
    not exist."""
    fault_points.arm(os.environ.get(AT_START, ""))
    address = os.environ.get(DOOR, "")
    if not address:
        yield
        return
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.setblocking(False)
        door.bind(_path(address))
        loop.add_reader(door, _hear, door)
        try:
            yield
        finally:
            loop.remove_reader(door)


def arm(address: str, specification: str) -> None:
    """Arm these points in the node that listens there, and no others. Raises `OSError` where nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.sendto(specification.encode(), _path(address))


def _hear(door: socket.socket) -> None:
    specification = door.recv(_LONGEST_BYTES).decode()
    try:
        fault_points.arm(specification)
    except PagingError as error:
        log.error("not_armed", specification=specification, error=str(error))
    else:
        log.warning("faults_armed", specification=specification)


def _path(address: str) -> str:
    return "\0" + address[1:] if address.startswith("@") else address
