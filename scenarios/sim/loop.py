"""An event loop whose time is a number: nothing waits, the clock jumps to whatever is due next.

Two things asyncio's own loop does not promise hold here: timers of one deadline ring in the order in which they were set, and
what belongs to a process that is frozen or dead does not run (`scenarios.sim.process`). No selector, no thread, no socket.
"""

import asyncio
import heapq
import inspect
from asyncio.base_events import BaseEventLoop
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any

from scenarios.sim.process import PROCESS


class Deadlock(Exception):
    """Somebody waits, nothing is scheduled, nothing is due: it would wait for ever."""


class VirtualLoop(BaseEventLoop):
    """Time stands still while anything is ready to run."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._due: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._ends = False
        self._buried: list[asyncio.Handle] = []
        """what dead processes would have done next; kept, so that nothing of them is collected while the world goes on"""
        self._halted: Exception | None = None
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        """Seconds since the world began."""
        return self._now

    def call_at(  # type: ignore[override]  # typeshed has *args of a type variable tuple
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio. Equal deadlines ring first-in-first-out."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._due, (when, self._count, handle))
        return handle

    def halt(self, error: Exception) -> None:
        """Let the run end with this error before anything else happens."""
        self._halted = self._halted or error

    def finish(self) -> None:
        """The world is over: cancel what is left, dead or alive, without letting time go on; then close."""
        self._ends, self._halted = True, None
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            task.cancel()
        while self._ready:  # type: ignore[attr-defined]
            self._run_once()
        for task in tasks:
            coroutine = task.get_coro()
            if not task.done() and inspect.iscoroutine(coroutine):
                with suppress(RuntimeError):
                    coroutine.close()  # killed before its first step
        self._buried.clear()
        self.close()

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            self._advance()
        for _ in range(len(ready)):
            if self._halted is not None:
                raise self._halted
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is None or (process.alive and not process.frozen) or self._ends:
                handle._run()
            elif process.alive:
                process.keep(handle)
            else:
                self._buried.append(handle)

    def _advance(self) -> None:
        due = self._due
        while due and due[0][2].cancelled():
            heapq.heappop(due)
        if not due:
            raise Deadlock("nothing is scheduled and nothing is due: somebody waits for what will never come")
        self._now = max(self._now, due[0][0])
        while due and due[0][0] <= self._now:
            handle = heapq.heappop(due)[2]
            if not handle.cancelled():
                self._ready.append(handle)  # type: ignore[attr-defined]

    def _process_events(self, event_list: Any) -> None:
        raise NotImplementedError("a virtual loop has no events but its own")

    def _write_to_self(self) -> None:
        raise NotImplementedError("nothing may reach a virtual loop from another thread")


def run(main: Callable[[VirtualLoop], Any]) -> Any:
    """Run a coroutine function on a new virtual loop to its end, and leave nothing behind."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.finish()
