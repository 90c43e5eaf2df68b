"""Runs a coroutine until it ends or the process is told to end; then it is cancelled and may clean up."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Told(Exception):
    """The process was told to end and has cleaned up."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(f"ended by {signal.Signals(number).name}")


def run_until_told(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns. Raises `Told` if a signal came first; a second signal does not cut the cleaning short."""
    told: list[int] = []

    async def main() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def tell(number: int) -> None:
            if not told:
                task.cancel()
            told.append(number)

        for number in SIGNALS:
            loop.add_signal_handler(number, tell, number)
        return await task

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if not told:
            raise
        raise Told(told[0]) from None
