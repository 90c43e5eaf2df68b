"""The clocks of the simulated world: virtual seconds, each node's clock with an error of its own."""

import asyncio

from actors.runtime.clock import Clock

BEGIN_S = 1_700_000_000.0
"""Unix time at which every world begins"""


class SimClock(Clock):
    """A clock that is off by `error_s`."""

    def __init__(self, error_s: float = 0.0) -> None:
        self.error_s = error_s

    def now(self) -> float:
        """See `Clock.now`."""
        return BEGIN_S + asyncio.get_running_loop().time() + self.error_s
