"""Tasks that a node has under way and must not lose: asyncio itself keeps only weak references to tasks."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger("swapferry.node")


class Errands:
    """A bag of running tasks."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run it beside everything else. An error that it does not handle itself is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._done)
        return task

    async def wait(self) -> None:
        """Until nothing is under way any more, also what was started meanwhile."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))  # unlike gather it leaves them alone when the waiting is cancelled

    async def cancel(self) -> None:
        """Stop everything where it stands."""
        for task in list(self._tasks):
            task.cancel()
        await self.wait()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("errand_failed", error=repr(error), exc_info=error)
