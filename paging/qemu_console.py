"""The guest's serial line: messages of the test guest, a line each, with dots between them as signs of life.

Whoever waits for a message gives up only when the guest has been silent for a while: how long filling or checking a memory
takes depends on its size and on the swap device, and as long as dots come it goes on.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from pathlib import Path

from paging.errors import GuestError
from paging.unix_sockets import connect

SILENCE_S = 30.0
LINES_KEPT = 200


class Console:
    """One connection to the serial line. What was said while nobody listened is lost."""

    def __init__(self, vm: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        """the newest messages"""
        self.silence_s_max = 0.0
        """the longest time between two signs of life, as seen from here; set it to 0 to begin anew"""
        self._vm, self._reader, self._writer = vm, reader, writer
        self._said: asyncio.Queue[str | None] = asyncio.Queue()
        self._life = asyncio.Event()
        self._asking = asyncio.Lock()
        self._unwanted: Counter[str] = Counter()
        """answers that nobody waits for any more, by how they begin"""
        self._reading = asyncio.create_task(self._read(), name=f"console of {vm}")

    @classmethod
    async def open(cls, vm: str, path: Path) -> "Console":
        """Raises `GuestError` where QEMU is gone."""
        try:
            reader, writer = await asyncio.open_unix_connection(sock=connect(path))
        except OSError as error:
            raise GuestError(f"{vm}: no serial line: {error}") from error
        return cls(vm, reader, writer)

    async def ask(self, command: str, answer: str, *, silence_s: float = SILENCE_S) -> str:
        """Say a command and wait for the message that begins with `answer`."""
        async with self._asking:
            self._writer.write(command.encode() + b"\n")
            try:
                return await self._hear(answer, silence_s)
            except BaseException:
                # The guest answers in the end, and that is no answer to the next who asks.
                self._unwanted[answer] += 1
                raise

    async def hear(self, beginning: str, *, silence_s: float = SILENCE_S) -> str:
        """Wait for a message that begins so, unless it was said already."""
        async with self._asking:
            for line in self.lines:
                if line.startswith(beginning):
                    return line
            return await self._hear(beginning, silence_s)

    async def _hear(self, beginning: str, silence_s: float) -> str:
        while True:
            line = await self._next(silence_s, beginning)
            if line.startswith(beginning):
                return line

    async def _next(self, silence_s: float, awaited: str) -> str:
        while self._said.empty():
            self._life.clear()
            try:
                await asyncio.wait_for(self._life.wait(), silence_s)
            except TimeoutError as error:
                raise self._error(f"the guest has been silent for {silence_s:g} s", awaited) from error
        line = self._said.get_nowait()
        if line is None:
            self._said.put_nowait(None)
            raise self._error("the serial line has closed", awaited)
        return line

    def _error(self, what: str, awaited: str) -> GuestError:
        return GuestError(f"{self._vm}: {what}, awaited was {awaited!r}; it said {self.last_words()!r}")

    async def _read(self) -> None:
        rest, heard = "", 0.0
        with contextlib.suppress(OSError):
            while data := await self._reader.read(1 << 16):
                now = time.monotonic()
                self.silence_s_max = max(self.silence_s_max, now - heard if heard else 0.0)
                heard = now
                *whole, rest = (rest + data.decode(errors="replace").replace("\r", "")).split("\n")
                for line in whole:
                    self._take(line)
                rest = rest.lstrip(".")
                self._life.set()
        self._said.put_nowait(None)
        self._life.set()

    def _take(self, line: str) -> None:
        message = line.strip(".")
        if message:
            self.lines.append(message)
            late = next((beginning for beginning in +self._unwanted if message.startswith(beginning)), None)
            if late is not None:
                self._unwanted[late] -= 1
            else:
                self._said.put_nowait(message)

    def last_words(self) -> str:
        """The newest message."""
        return self.lines[-1] if self.lines else ""

    async def close(self) -> None:
        """Hang up."""
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def fields(line: str) -> dict[str, int]:
    """The name=number pairs of a message."""
    pairs = (word.split("=", 1) for word in line.split() if "=" in word)
    return {name: int(number) for name, number in pairs if number.isdigit()}
