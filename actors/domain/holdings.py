"""Slots of one device in one generation: the unit in which rights are granted, named and compared.

A device numbers its changes with one counter, so all slots that one saga passes share a generation and a holding is one
set however many slots it has (PROTOCOL 2, "Ranges"). On the bus holdings travel in pieces that stay under the message limit.
"""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from paging.slots import SlotSet, union

RANGES_PER_MESSAGE = 20_000
"""8 bytes a range on the wire: 160 KiB, under the bus's 256 KiB with room for the envelope"""


@attrs.frozen(kw_only=True)
class Holding:
    """Slots of a device that share a generation (and hence an owner)."""

    device: str
    generation: int
    slots: SlotSet

    @property
    def key(self) -> str:
        """Under which it is filed in a record."""
        return f"{self.device}/{self.generation}"


def pieces(holdings: Iterable[Holding], ranges_max: int = RANGES_PER_MESSAGE) -> list[tuple[Holding, ...]]:
    """The holdings in pieces of at most so many ranges; at least one piece, perhaps an empty one."""
    result: list[tuple[Holding, ...]] = []
    piece: list[Holding] = []
    room = ranges_max
    for holding in holdings:
        ranges = holding.slots.ranges()
        while ranges:
            now, ranges = ranges[:room], ranges[room:]
            piece.append(attrs.evolve(holding, slots=SlotSet.of_ranges(now)))
            room -= len(now)
            if room == 0:
                result.append(tuple(piece))
                piece, room = [], ranges_max
    if piece or not result:
        result.append(tuple(piece))
    return result


def joined(parts: Iterable[Sequence[Holding]]) -> tuple[Holding, ...]:
    """Pieces put together again: one holding for each device and generation, in a fixed order."""
    sets: dict[tuple[str, int], list[SlotSet]] = {}
    for part in parts:
        for holding in part:
            sets.setdefault((holding.device, holding.generation), []).append(holding.slots)
    return tuple(
        Holding(device=device, generation=generation, slots=union(slots)) for (device, generation), slots in sorted(sets.items())
    )


def by_device(holdings: Iterable[Holding]) -> dict[str, SlotSet]:
    """All slots of each device, whatever their generation."""
    sets: dict[str, list[SlotSet]] = {}
    for holding in holdings:
        sets.setdefault(holding.device, []).append(holding.slots)
    return {device: union(slots) for device, slots in sorted(sets.items())}


def cut(holdings: Iterable[Holding], wanted: Mapping[str, SlotSet]) -> tuple[Holding, ...]:
    """What of the wanted slots (device name -> set) lies in these holdings, with the generations."""
    result = []
    for holding in holdings:
        slots = holding.slots & wanted.get(holding.device, SlotSet())
        if slots:
            result.append(Holding(device=holding.device, generation=holding.generation, slots=slots))
    return joined([result])


def digest(holdings: Iterable[Holding]) -> str:
    """A short name for exactly these slots of each device, whatever their generation."""
    return "+".join(f"{device}:{slots.digest()}" for device, slots in by_device(holdings).items())
