"""The sharing table: which devices are shared, and which of their slots are assigned to hosts other than their home.

Kept by the resource manager. A device is listed before any of its slots is granted, and leaves when none is away and no
saga may take one away: listed is never less than the truth, and equal to it at rest (PROTOCOL 5).
"""

from collections.abc import Mapping

import attrs

from paging.slots import SlotSet


@attrs.frozen(kw_only=True)
class Assigned:
    """Slots of the device that belong to this host."""

    host: str
    slots: SlotSet


@attrs.frozen(kw_only=True)
class Shared:
    """A device in the sharing table: what is away (generation -> assignment), and the sagas that may take more away."""

    away: Mapping[int, Assigned] = attrs.field(factory=dict)
    pending: tuple[str, ...] = ()

    def expecting(self, saga: str) -> "Shared":
        """This saga may take slots away."""
        return self if saga in self.pending else attrs.evolve(self, pending=(*self.pending, saga))

    def relieved(self, saga: str) -> "Shared":
        """This saga is over."""
        return attrs.evolve(self, pending=tuple(name for name in self.pending if name != saga))

    def assigned(self, generation: int, host: str, slots: SlotSet, home: str) -> "Shared":
        """These slots belong to this host now. A higher generation wins slot by slot; what is home is not listed."""
        fresh = slots
        away: dict[int, Assigned] = {}
        for listed, assignment in self.away.items():
            if listed >= generation:
                fresh = fresh - assignment.slots
            left = assignment.slots if listed >= generation else assignment.slots - slots
            if left:
                away[listed] = attrs.evolve(assignment, slots=left)
        if host != home and fresh:
            away[generation] = Assigned(host=host, slots=fresh)
        return attrs.evolve(self, away=dict(sorted(away.items())))

    @property
    def empty(self) -> bool:
        """True if the device may leave the table."""
        return not self.away and not self.pending
