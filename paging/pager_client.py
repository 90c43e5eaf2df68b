"""A guest's end of its pager: starts the process, asks it, and hears what it says unasked."""

import asyncio
import contextlib
import itertools
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paging.errors import GuestError
from paging.pager_wire import Decoder, decode_error, encode

ASK_S = 30.0
_RECEIVE_BYTES = 1 << 20


class PagerProcess:
    """One pager. `told` hears (what, sentence) of what it says unasked."""

    def __init__(self, process: asyncio.subprocess.Process, control: socket.socket, told: Callable[[str, str], None]) -> None:
        self.pid = process.pid
        self._process, self._control, self._told = process, control, told
        self._numbers = itertools.count(1)
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._decoder = Decoder()
        self._sending = asyncio.Lock()
        self._listening = asyncio.create_task(self._listen(), name=f"pager {self.pid}")

    @classmethod
    async def spawn(cls, log: Path, told: Callable[[str, str], None]) -> "PagerProcess":
        """Start the process; its errors go into the log."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs, log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "paging.pager", str(theirs.fileno()), pass_fds=(theirs.fileno(),), start_new_session=True,
                stdin=asyncio.subprocess.DEVNULL, stdout=errors, stderr=errors,
            )  # fmt: skip
        return cls(process, ours, told)

    @property
    def is_alive(self) -> bool:
        """The process has not been seen to end."""
        return self._process.returncode is None

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

    async def wait(self) -> int:
        """Until the process has ended; its exit code."""
        return await self._process.wait()

    async def kill(self) -> None:
        """End the process and await it: nothing of it writes a slot afterwards."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self.hang_up()

    async def hang_up(self) -> None:
        """Close the control socket; the pager goes on as long as QEMU does."""
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening
        self._fail_all()
        self._control.close()

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
