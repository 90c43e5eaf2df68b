"""A guest's end of its pager: starts the process, asks it, and hears what it says unasked."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paging.errors import GuestError
from paging.pager_wire import Decoder, decode_error, encode
from paging.process_identity import ended, open_exactly, open_process
from paging.table_header import Process
from paging.unix_sockets import connect

ASK_S = 30.0
_RECEIVE_BYTES = 1 << 20

Told = Callable[[str, str], None]


class PagerProcess:
    """One pager, started here or by an earlier process. `told` hears (what, sentence) of what it says unasked."""

    def __init__(
        self, pid: int, descriptor: int, control: socket.socket, told: Told, child: asyncio.subprocess.Process | None = None
    ) -> None:
        """`descriptor` is the process's pidfd and belongs to this object."""
        self.pid = pid
        self._descriptor, self._control, self._told, self._child = descriptor, control, told, child
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._decoder = Decoder()
        self._sending = asyncio.Lock()
        control.setblocking(False)
        self._listening = asyncio.create_task(self._listen(), name=f"pager {pid}")
        self._ending = asyncio.create_task(ended(descriptor), name=f"end of pager {pid}")

    @classmethod
    async def spawn(cls, log: Path, told: Told, faults: str = "") -> "PagerProcess":
        """Start a process that has no guest yet; its errors go into the log."""
        ours, theirs = socket.socketpair()
        with theirs, log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "paging.pager", str(theirs.fileno()), faults, pass_fds=(theirs.fileno(),),
                start_new_session=True, stdin=asyncio.subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip
        return cls(process.pid, open_process(process.pid), ours, told, process)

    @classmethod
    def adopt(cls, process: Process, control: Path, told: Told) -> "PagerProcess | None":
        """A running pager that an earlier process started; None where it has ended or does not listen (it never began)."""
        descriptor = open_exactly(process)
        if descriptor is None:
            return None
        try:
            return cls(process.pid, descriptor, connect(control), told)
        except OSError:
            os.close(descriptor)
            return None

    @property
    def is_alive(self) -> bool:
        """The process has not been seen to end."""
        return not self._ending.done()

    async def ask(self, name: str, *, timeout_s: float = ASK_S, **arguments: Any) -> Any:
        """One request. Raises the error that the pager met, or `GuestError` where it ended or does not answer in time."""
        number = next(self._numbers)
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                async with self._sending:
                    await asyncio.get_running_loop().sock_sendall(self._control, encode([number, name, arguments]))
                return await answer
        except TimeoutError as error:
            raise GuestError(f"the pager (pid {self.pid}) has not answered {name!r} within {timeout_s:g} s") from error
        except OSError as error:
            raise GuestError(f"the pager (pid {self.pid}) has ended: {error}") from error
        finally:
            self._open.pop(number, None)

    async def wait(self) -> None:
        """Until the process has ended: nothing of it writes a slot any more."""
        await asyncio.wait([self._ending])

    async def ends_within(self, seconds: float) -> bool:
        """Whether it ends so soon."""
        await asyncio.wait([self._ending], timeout=seconds)
        return not self.is_alive

    async def kill(self) -> None:
        """End the process and await it."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
        await self.wait()
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close the control socket; a pager that has a guest goes on as long as QEMU does."""
        self._listening.cancel()
        self._ending.cancel()
        await asyncio.wait([self._listening, self._ending])
        self._fail_all()
        self._control.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._control, _RECEIVE_BYTES):
                for number, what, value in self._decoder.feed(data):
                    self._hear(number, what, value)
        self._fail_all()

    def _hear(self, number: int, what: str, value: Any) -> None:
        if not number:
            self._told(what, value)
            return
        answer = self._open.get(number)
        if answer is None or answer.done():
            return
        if what == "done":
            answer.set_result(value)
        else:
            answer.set_exception(decode_error(*value))

    def _fail_all(self) -> None:
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(GuestError(f"the pager (pid {self.pid}) has ended"))
