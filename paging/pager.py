"""The pager: one process a guest, which answers the guest's faults and keeps its memory within the limit.

    python -m paging.pager CONTROL-DESCRIPTOR

One loop, one thread: faults before evictions, evictions before requests that can wait. What a request does stands in
`paging.pager_requests`. The pager outlives whoever started it as long as QEMU lives, because a guest without a pager stands
still; it ends with QEMU.
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
    """The loop over the userfaultfd, QEMU's end, and the control socket."""

    def __init__(self, control: socket.socket) -> None:
        self._control, self._decoder = control, Decoder()
        self._requests = Requests(self._attach, self._tell)
        self._attached: Attached | None = None
        # Not the selectors module: it costs as much as placing a page.
        self._ready = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._handle(control.fileno(), self._read_control)
        self._retry_at = 0.0
        self._told: str | None = None
        self._ends = False
        self._sending = threading.Lock()
        """answers of long requests come from their own threads"""

    def run(self) -> None:
        """Serve until QEMU ends, or until there is neither QEMU nor anybody who could start one."""
        while not self._ends:
            for descriptor, _ in self._ready.poll(self._timeout_s()):
                self._handlers[descriptor]()
            if self._attached is not None:
                self._keep_limit(self._attached.pages)

    def _handle(self, descriptor: int, handler: Callable[[], None]) -> None:
        self._ready.register(descriptor, select.EPOLLIN)
        self._handlers[descriptor] = handler

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
        # What is here now stays: a collection that walks it again and again would only delay faults.
        gc.collect()
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
            self._tell("stalled", reason)
        else:
            self._tell("unstalled", "all faults are answered again")
        self._told = reason

    def _machine_ended(self) -> None:
        self._ends = True

    def _tell(self, what: str, sentence: str) -> None:
        self._send([0, what, sentence])

    def _send(self, value: Any) -> None:
        with self._sending, contextlib.suppress(OSError):
            # Nobody there: the loop notices by itself when it reads.
            self._control.sendall(encode(value))

    def _lose_control(self) -> None:
        if self._control.fileno() >= 0:
            self._ready.unregister(self._control)
            self._control.close()
        self._ends = self._ends or self._attached is None

    def _read_control(self) -> None:
        try:
            data = self._control.recv(_RECEIVE_BYTES)
        except OSError:
            data = b""
        if not data:
            self._lose_control()
            return
        for number, name, arguments in self._decoder.feed(data):
            self._answer(number, name, arguments)

    def _answer(self, number: int, name: str, arguments: dict[str, Any]) -> None:
        def done(answer: Any) -> None:
            self._send([number, "done", answer])

        def failed(error: BaseException) -> None:
            self._send([number, "failed", encode_error(error)])

        self._requests.obey(name, arguments, done, failed)


def main() -> None:
    """The process: its one argument is the inherited control socket."""
    # The terminal's Ctrl-C goes to the whole group; a guest needs its pager until it has been destroyed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A transfer shares the interpreter with the fault loop: it may hold it for half a millisecond at a time.
    sys.setswitchinterval(0.0005)
    os.umask(0o077)
    # A processor of the guest stands still while the pager waits for one of the host's.
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    Pager(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
