"""QMP with a deadline on every call: a QEMU whose main thread waits for a page answers nothing (DATAPLANE 11.5)."""

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, QMPClient
from qemu.qmp.error import QMPError

from paging.errors import GuestError
from paging.unix_sockets import connect

CALL_S = 10.0
GREETING_S = 30.0


class Qmp:
    """One connection. Every method raises `GuestError` that names the command and what QEMU said."""

    def __init__(self, vm: str) -> None:
        self._vm = vm
        self._client = QMPClient(vm)
        self._events = EventListener()
        self._client.register_listener(self._events)

    async def connect(self, path: Path) -> None:
        """Greeting and capabilities. The pager must be at work already: QEMU writes to its RAM before it greets."""
        try:
            async with asyncio.timeout(GREETING_S):
                await self._client.connect(connect(path))
        except (QMPError, OSError) as error:
            raise GuestError(f"{self._vm}: QEMU does not greet on {path.name}: {_sentence(error)}") from error

    async def call(self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout_s: float = CALL_S) -> Any:
        """One command."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._client.execute(name, dict(arguments) if arguments else None)
        except (QMPError, OSError) as error:
            raise GuestError(f"{self._vm}: QEMU, asked to {name}: {_sentence(error)}") from error

    async def give(self, name: str, descriptor: socket.socket) -> None:
        """Let QEMU have a copy of this socket under `name`."""
        try:
            self._client.send_fd_scm(descriptor.fileno())
        except (QMPError, OSError) as error:
            raise GuestError(f"{self._vm}: QEMU takes no descriptor: {_sentence(error)}") from error
        await self.call("getfd", {"fdname": name})

    def forget_events(self) -> None:
        """What happened so far is of no interest."""
        self._events.clear()

    async def migration_ends(self, *, timeout_s: float = CALL_S) -> None:
        """Wait until saving or loading the machine's state has ended well. Raises `GuestError` with QEMU's reason."""
        try:
            async with asyncio.timeout(timeout_s):
                while (status := await self._next_migration_status()) != "completed":
                    if status in ("failed", "cancelled"):
                        raise GuestError(f"{self._vm}: QEMU's device state: {status}: {await self._migration_error()}")
        except TimeoutError as error:
            raise GuestError(f"{self._vm}: QEMU's device state was not through within {timeout_s:g} s") from error

    async def _next_migration_status(self) -> str:
        while True:
            event: Mapping[str, Any] = await self._events.get()
            if event.get("event") == "MIGRATION":
                return str(event["data"]["status"])

    async def _migration_error(self) -> str:
        told = await self.call("query-migrate")
        return str(told.get("error-desc", "no reason given"))

    async def close(self) -> None:
        """Hang up; QEMU goes on."""
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(CALL_S):
                await self._client.disconnect()


def _sentence(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
