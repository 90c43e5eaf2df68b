"""The supervisor's policy: an actor that met a defect is restarted from the store, unless that happens too often.

An actor that was given up stays stopped until the node is restarted: its messages are acked, dropped and counted, and the
other actors go on. What restarting means is in `roster`.
"""

from collections import deque
from enum import Enum

import attrs

from actors.runtime.clock import Clock


class Verdict(Enum):
    """What shall become of an actor that failed."""

    RESTART = "restart"
    GIVE_UP = "give up"


@attrs.frozen(kw_only=True)
class Policy:
    """Give up at the failure number `failures_max` within `within_s` seconds."""

    failures_max: int = 5
    within_s: float = 60.0


class Supervisor:
    """Counts the failures of each actor."""

    def __init__(self, clock: Clock, policy: Policy) -> None:
        self._clock = clock
        self._policy = policy
        self._failures: dict[str, deque[float]] = {}

    def failed(self, address: str) -> Verdict:
        """This actor failed just now."""
        now = self._clock.now()
        failures = self._failures.setdefault(address, deque())
        failures.append(now)
        while failures[0] < now - self._policy.within_s:
            failures.popleft()
        return Verdict.GIVE_UP if len(failures) >= self._policy.failures_max else Verdict.RESTART

    def forget(self, address: str) -> None:
        """The actor is retired."""
        self._failures.pop(address, None)
