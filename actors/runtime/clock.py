"""The ports `Clock` and `Random`, and the real clock. Waiting is done with timers of the event loop, which may be virtual too."""

import time
from abc import ABC, abstractmethod
from typing import Protocol


class Clock(ABC):
    """What time it is."""

    @abstractmethod
    def now(self) -> float:
        """Unix seconds."""


class Random(Protocol):
    """Where jitter comes from; `random.Random` is one."""

    def random(self) -> float:
        """A number of [0, 1)."""


class RealClock(Clock):
    """The clock of this machine."""

    def now(self) -> float:  # noqa: D102 - see the port
        return time.time()
