"""Tells the service manager that this process is ready, as sd_notify(3) does: a datagram to the socket in NOTIFY_SOCKET.

Where nobody asked to be told (the variable is not set), nothing happens.
"""

import os
import socket
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"
READY = b"READY=1"


def tell_ready() -> None:
    """The process does its work from here on. A manager that has gone meanwhile is no error."""
    address = os.environ.get(VARIABLE, "")
    if not address:
        return
    path = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
        way.sendto(READY, path)
