"""Keeps one process running, as a service manager would: whenever it ends without having been told to, it is started again."""

import asyncio
import os
import signal
import socket
import uuid
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from scenarios.errors import Failed
from swapferry.fault_door import DOOR, arm
from swapferry.notify import READY, VARIABLE

READY_S = 60.0
STOP_S = 60.0
PAUSE_FIRST_S = 0.05
PAUSE_LAST_S = 5.0
LASTED_S = 5.0
"""a process that ran so long did not end because of how it was started: the next one need not wait"""

log = structlog.get_logger("swapferry.supervised")


class Supervised:
    """One process, or the one after it. It must tell when it is ready (`swapferry.notify`)."""

    def __init__(self, name: str, command: Sequence[str], output: Path, more: Mapping[str, str] | None = None) -> None:
        """`more` is added to the environment; `output` takes stdout and stderr."""
        self.name, self._command, self._output, self.more = name, command, output, dict(more or {})
        self._process: Process | None = None
        self._keeper: asyncio.Task[int] | None = None
        self._ready = asyncio.Event()
        self._ending = False
        self.starts = 0
        self._address = f"@swapferry-{uuid.uuid4().hex}"
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.setblocking(False)
        self._notified.bind("\0" + self._address[1:])

    @property
    def pid(self) -> int:
        """The process that runs now. Raises `Failed` between two of them."""
        if self._process is None or self._process.returncode is not None:
            raise Failed(f"node {self.name} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it and keep it running. Does not wait."""
        self._keeper = asyncio.create_task(self._keep())

    async def ready(self, within_s: float = READY_S) -> None:
        """Until the process that runs does its work. Raises `Failed` where it does not in this time."""
        try:
            async with asyncio.timeout(within_s):
                await self._ready.wait()
        except TimeoutError:
            raise Failed(f"node {self.name} was not ready in {within_s:g} s; {self._output} says why") from None

    def kill(self) -> None:
        """SIGKILL; another one is started. Does not wait. Nothing where none runs at the moment."""
        self._ready.clear()
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send it a signal; nothing where none runs at the moment."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def arm(self, specification: str) -> None:
        """Arm these fault points in the process that runs, and no others; its successor has none. Raises `OSError` where
        nobody listens."""
        arm(self.more[DOOR], specification)

    async def end(self) -> str:
        """Tell it to end and wait; returns what is wrong with how it ended, or nothing."""
        self._ending = True
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                code = await self._keeper if self._keeper is not None else 0
        except TimeoutError:
            self.signal(signal.SIGKILL)
            return f"node {self.name} did not end in {STOP_S:g} s and was killed"
        finally:
            self._notified.close()
        return f"node {self.name} ended with {code}; {self._output} says why" if code else ""

    async def _keep(self) -> int:
        pause_s, now = PAUSE_FIRST_S, asyncio.get_running_loop().time
        while True:
            begun = now()
            code = await self._live()
            if self._ending:
                return code
            pause_s = PAUSE_FIRST_S if now() - begun >= LASTED_S else min(PAUSE_LAST_S, pause_s * 2)
            log.warning("node_ended", node=self.name, code=code, starts=self.starts, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            if self._ending:
                return 0

    async def _live(self) -> int:
        """From the start of one process to its end."""
        environment = {**os.environ, **self.more, VARIABLE: self._address}
        with self._output.open("ab") as output:
            # A process group of its own: Ctrl-C is for us, who end the nodes in order.
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        self.starts += 1
        listening = asyncio.create_task(self._listen())
        try:
            return await process.wait()
        finally:
            self._ready.clear()
            listening.cancel()

    async def _listen(self) -> None:
        while await asyncio.get_running_loop().sock_recv(self._notified, 256) != READY:
            pass
        self._ready.set()
