"""A bounded mailbox: what waits for one actor, in order.

Timers that rang wait here too, but each at most once and beside the bound: a ring that was dropped would never come again,
while a message that was dropped is asked again by its saga.
"""

from collections import deque

import attrs

from actors.runtime.actor import Heard
from bus.broker import Delivery


@attrs.frozen(kw_only=True, eq=False)
class Parcel:
    """One message in a mailbox: from the bus (a delivery, not decoded yet) or from this node (`heard`)."""

    delivery: Delivery | None = None
    heard: Heard | None = None


class Mailbox:
    """What waits for one actor."""

    def __init__(self, parcels_max: int) -> None:
        self._parcels: deque[Parcel] = deque()
        self._parcels_max = parcels_max
        self._rung: dict[str, None] = {}

    def put(self, parcel: Parcel) -> bool:
        """Let it wait at the end; False when the mailbox is full, then it was not taken."""
        if len(self._parcels) >= self._parcels_max:
            return False
        self._parcels.append(parcel)
        return True

    def put_back(self, parcel: Parcel) -> None:
        """Let it be the next one again: its turn could not be stored."""
        self._parcels.appendleft(parcel)

    def take(self) -> Parcel | None:
        """The next message."""
        return self._parcels.popleft() if self._parcels else None

    def ring(self, timer: str) -> None:
        """A timer of the actor is due."""
        self._rung[timer] = None

    def silence(self, timer: str) -> None:
        """The timer was stopped or set anew before its ring was heard."""
        self._rung.pop(timer, None)

    def take_ring(self) -> str | None:
        """The name of the next timer that rang."""
        if not self._rung:
            return None
        timer = next(iter(self._rung))
        del self._rung[timer]
        return timer

    def drain(self) -> list[Parcel]:
        """Take everything out."""
        parcels = list(self._parcels)
        self._parcels.clear()
        self._rung.clear()
        return parcels

    def __len__(self) -> int:
        return len(self._parcels) + len(self._rung)
