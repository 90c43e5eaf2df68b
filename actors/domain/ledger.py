"""Rights on the slots of one device, as its arbiter keeps them: who owns which slots in which generation.

Every change of owner gives the slots that change a new generation, the next of one counter per device. A right is named by
its generation alone, so what a saga was granted is one entry, and everything said in an older generation is refused.
"""

from collections.abc import Iterable, Mapping

import attrs

from actors.domain.holdings import Holding
from paging.slots import SlotSet, union


@attrs.frozen(kw_only=True)
class Right:
    """These slots belong to this host. `returned`: given back to their home, not granted to it (PROTOCOL 5)."""

    owner: str
    slots: SlotSet
    returned: bool = False


Rights = Mapping[int, Right]
"""generation -> right; together they cover each slot of the device once"""


def holds(rights: Rights, owner: str, holdings: Iterable[Holding]) -> bool:
    """True if every one of these slots belongs to the owner in just that generation."""
    for holding in holdings:
        right = rights.get(holding.generation)
        if right is None or right.owner != owner or not holding.slots <= right.slots:
            return False
    return True


def given(
    rights: Rights, holdings: Iterable[Holding], owner: str, generation: int, *, returned: bool = False
) -> dict[int, Right | None]:
    """The changes that pass these slots to a new owner in a new generation (None: the entry is empty now).

    The caller has checked with `holds`; a new generation that is not higher than all others is a mistake of the caller.
    """
    assert generation > max(rights, default=0), f"generation {generation} is not new"
    held = list(holdings)
    changes: dict[int, Right | None] = {}
    for holding in held:
        right = changes.get(holding.generation) or rights[holding.generation]
        left = right.slots - holding.slots
        changes[holding.generation] = attrs.evolve(right, slots=left) if left else None
    slots = union(holding.slots for holding in held)
    if slots:
        changes[generation] = Right(owner=owner, slots=slots, returned=returned)
    return changes


def covers(rights: Rights, slot_count: int) -> bool:
    """True if each slot of the device belongs to exactly one owner."""
    everything = union(right.slots for right in rights.values())
    return everything == SlotSet.span(0, slot_count) and sum(len(right.slots) for right in rights.values()) == slot_count


def given_back(rights: Rights, home: str, since: int) -> list[tuple[int, SlotSet]]:
    """What was given back to its home in generations above `since`, ascending. What came home by a grant is not listed:
    it may hold a guest's pages (PROTOCOL 5)."""
    return [
        (generation, right.slots)
        for generation, right in sorted(rights.items())
        if generation > since and right.owner == home and right.returned
    ]
