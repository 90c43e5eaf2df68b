"""The timers of all actors of a node behind one timer of the event loop.

What is here only rings; that a timer exists, when it is due and how often it rang is in the store.
"""

import asyncio
import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from actors.runtime.clock import Clock

T = TypeVar("T")

_SLEEP_S_MAX = 60.0
"""The event loop counts monotonic seconds, a timer is due at a wall-clock time: look again now and then, clocks are set."""


class Alarms(Generic[T]):
    """Rings for each owner and timer name when it is due. A ring that is out of date is the owner's to ignore."""

    def __init__(self, clock: Clock, ring: Callable[[T, str], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._waiting: list[tuple[float, int, T, str]] = []
        self._count = 0
        self._handle: asyncio.TimerHandle | None = None

    def set(self, due: float, owner: T, timer: str) -> None:
        """Ring at this time (Unix seconds)."""
        self._count += 1  # equal times ring in the order in which they were set
        heapq.heappush(self._waiting, (due, self._count, owner, timer))
        if self._waiting[0][1] == self._count:
            self._arm()

    def close(self) -> None:
        """Ring no more."""
        self._waiting.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._waiting:
            after_s = min(max(self._waiting[0][0] - self._clock.now(), 0.0), _SLEEP_S_MAX)
            self._handle = asyncio.get_running_loop().call_later(after_s, self._due)

    def _due(self) -> None:
        self._handle = None
        now = self._clock.now()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, owner, timer = heapq.heappop(self._waiting)
            self._ring(owner, timer)
        self._arm()
