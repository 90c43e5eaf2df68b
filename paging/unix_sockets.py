"""Unix sockets under paths of any length: an address holds 107 bytes, a private directory may be deeper than that.

The last step of the path goes through a descriptor of its directory. QEMU inherits listening sockets and needs no right to
the directory.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def listen(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A listening socket at `path`, which must not exist."""
    made = socket.socket(socket.AF_UNIX, kind)
    with _address(path) as address:
        made.bind(address)
    path.chmod(0o600)
    made.listen(4)
    return made


def connect(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A connection to whoever listens at `path`; raises `OSError` where nobody does."""
    made = socket.socket(socket.AF_UNIX, kind)
    try:
        with _address(path) as address:
            made.connect(address)
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def _address(path: Path) -> Iterator[str]:
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
