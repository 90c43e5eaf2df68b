"""A process of the simulated world: what it scheduled runs only while it runs.

Everything that a process starts inherits its context, so the loop knows for each callback whose it is. A killed process
never runs another step, not even a `finally`; a frozen one goes on where it was, later.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, NoReturn


class Killed(BaseException):
    """The process dies here, in the middle of a synchronous step. Nobody catches this but the task that it ends."""


class Process:
    """One process: alive, frozen (SIGSTOP) or dead (SIGKILL). `died` is called once."""

    def __init__(self, name: str, died: Callable[["Process"], None] = lambda _: None) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self._died = died
        self._kept: list[asyncio.Handle] = []
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)

    def keep(self, handle: asyncio.Handle) -> None:
        """A callback that may not run now, since the process is frozen."""
        self._kept.append(handle)

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run this inside the process."""
        return asyncio.get_running_loop().create_task(work, context=self.context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> None:
        """Call this inside the process at that time of the loop."""
        asyncio.get_running_loop().call_at(when, callback, *args, context=self.context)

    def freeze(self) -> None:
        """Let time pass it by."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on with what was kept."""
        self.frozen = False
        kept, self._kept = self._kept, []
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        ready.extend(kept)

    def kill(self) -> None:
        """Never run again."""
        if self.alive:
            self.alive = False
            self._died(self)

    def die(self) -> NoReturn:
        """Be killed here, from inside."""
        self.kill()
        raise Killed(self.name)


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""Whose callback this is; None is the world itself"""
