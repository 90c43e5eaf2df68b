"""The pager: one process a guest, which answers the guest's faults and keeps its memory within the limit.

    python -m paging.pager CONTROL-DESCRIPTOR [FAULTS]

One loop, one thread: faults before evictions, evictions before requests that can wait. What a request does stands in
`paging.pager_requests`. The pager outlives whoever started it as long as QEMU lives, because a guest without a pager stands
still; it ends with QEMU. Until it is given a guest it is a spare one: everything imported, waiting for a predecessor's death.
Who comes later (a node that was restarted) finds its control socket in the guest's directory.

FAULTS: see `paging.fault_points`.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from paging import fault_points
from paging.device import PAGE_BYTES
from paging.errors import PagingError
from paging.pager_requests import Attached, Requests
from paging.pager_wire import Decoder, encode, encode_error
from paging.pages import Pages

RETRY_S = 0.5
"""How often a fault that could not be answered, and an eviction that could not go on, are tried again unasked"""
PRIORITY = -10
"""Nice value"""
_RECEIVE_BYTES = 1 << 20


class Pager:
    """The loop over the userfaultfd, QEMU's end, and whoever is connected."""

    def __init__(self, control: socket.socket) -> None:
        self._requests = Requests(self._attach, self._tell_all)
        self._attached: Attached | None = None
        # Not the selectors module: it costs as much as placing a page.
        self._ready = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._masters: list[_Master] = []
        self._admit(control)
        self._retry_at = 0.0
        self._told: str | None = None
        self._ends = False

    def run(self) -> None:
        """Serve until QEMU ends, or until there is neither QEMU nor anybody who could start one."""
        while not self._ends:
            for descriptor, _ in self._ready.poll(self._timeout_s()):
                if descriptor in self._handlers:
                    self._handlers[descriptor]()
            if self._attached is not None:
                self._keep_limit(self._attached.pages)

    def _handle(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._handlers[descriptor] = handler
        self._ready.register(descriptor, select.EPOLLIN)

    def _timeout_s(self) -> float | None:
        if self._attached is None:
            return None
        pages = self._attached.pages
        is_over = pages.over
        if is_over and pages.trouble is None:
            return 0
        return max(self._retry_at - time.monotonic(), 0) if pages.stalled or is_over else None

    def _keep_limit(self, pages: Pages) -> None:
        if pages.over and pages.trouble is None:
            pages.evict()
        elif (pages.stalled or pages.over) and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + RETRY_S
            pages.evict()
            pages.retry()
        if pages.stalled or self._told is not None:
            self._tell_stall(pages)

    def _attach(self, attached: Attached) -> None:
        self._attached = attached
        self._handle(attached.memory.uffd.fileno(), self._serve_faults)
        self._handle(attached.machine, self._machine_ended)
        self._handle(attached.door.fileno(), self._welcome)
        # What is here now stays: a collection that walks it again and again would only delay faults.
        gc.freeze()

    def _serve_faults(self) -> None:
        assert self._attached is not None
        memory, pages = self._attached.memory, self._attached.pages
        for address in memory.uffd.faults():
            try:
                pages.fault((address - memory.address) // PAGE_BYTES)
            except PagingError:
                # Unanswered and remembered in `stalled`: the thread waits, which is safe; wrong bytes would not be.
                continue

    def _tell_stall(self, pages: Pages) -> None:
        reason = str(next(iter(pages.stalled.values()))) if pages.stalled else None
        if reason == self._told:
            return
        if reason is not None:
            self._tell_all("stalled", reason)
        else:
            self._tell_all("unstalled", "all faults are answered again")
        self._told = reason

    def _machine_ended(self) -> None:
        self._ends = True

    def _tell_all(self, what: str, sentence: str) -> None:
        for master in list(self._masters):
            master.send([0, what, sentence])

    # Who asks

    def _welcome(self) -> None:
        assert self._attached is not None, "the door opens when there is a guest"
        with contextlib.suppress(OSError):
            connection, _ = self._attached.door.accept()
            master = self._admit(connection)
            if self._told is not None:
                master.send([0, "stalled", self._told])

    def _admit(self, connection: socket.socket) -> "_Master":
        master = _Master(connection)
        self._masters.append(master)
        self._handle(connection.fileno(), lambda: self._hear(master))
        return master

    def _hear(self, master: "_Master") -> None:
        asked = master.receive()
        if asked is None:
            self._dismiss(master)
            return
        for number, name, arguments in asked:
            self._requests.obey(name, arguments, *master.answers(number))

    def _dismiss(self, master: "_Master") -> None:
        self._masters.remove(master)
        self._ready.unregister(master.connection)
        del self._handlers[master.connection.fileno()]
        master.connection.close()
        self._ends = self._ends or (self._attached is None and not self._masters)


class _Master:
    """Somebody who asks, and is answered."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self._decoder = connection, Decoder()
        self._sending = threading.Lock()
        """answers of long requests come from their own threads"""

    def receive(self) -> list[Any] | None:
        """Requests; None when nobody is there any more."""
        try:
            data = self.connection.recv(_RECEIVE_BYTES)
        except OSError:
            return None
        return list(self._decoder.feed(data)) if data else None

    def answers(self, number: int) -> tuple[Callable[[Any], None], Callable[[BaseException], None]]:
        """How to say that this request was done, and that it failed."""
        return (
            lambda answer: self.send([number, "done", answer]),
            lambda error: self.send([number, "failed", encode_error(error)]),
        )

    def send(self, value: Any) -> None:
        """Nobody there: the loop notices by itself when it reads."""
        with self._sending, contextlib.suppress(OSError):
            self.connection.sendall(encode(value))


def main() -> None:
    """The process: its arguments are the inherited control socket and the faults that it is to have."""
    # The terminal's Ctrl-C goes to the whole group; a guest needs its pager until it has been destroyed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A transfer shares the interpreter with the fault loop: it may hold it for half a millisecond at a time.
    sys.setswitchinterval(0.0005)
    os.umask(0o077)
    # A processor of the guest stands still while the pager waits for one of the host's.
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    fault_points.arm(sys.argv[2] if len(sys.argv) > 2 else "")
    # Once, here: a spare one has the time.
    gc.collect()
    Pager(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
