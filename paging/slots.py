"""Sets of slots (or of pages): roaring bitmaps in memory, ranges on the wire.

A `SlotSet` is a frozen value. Its wire form is little-endian u32 pairs (first, count), ascending and not touching, 8 bytes
a range: it grows with the number of ranges, never with the number of slots. Slot numbers are below 2**32 (16 TiB a device).
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap, FrozenBitMap

RANGE_BYTES = 8
_RANGE = struct.Struct("<II")


class SlotSet:
    """An immutable set of slot numbers."""

    __slots__ = ("_bits",)

    def __init__(self, slots: Iterable[int] = ()) -> None:
        self._bits = FrozenBitMap(slots)

    @classmethod
    def of(cls, bits: Any) -> "SlotSet":
        """Wrap a bitmap that nobody changes any more."""
        made = cls.__new__(cls)
        made._bits = FrozenBitMap(bits)
        return made

    @classmethod
    def span(cls, first: int, count: int) -> "SlotSet":
        """The slots first .. first + count - 1."""
        return cls.of_ranges([(first, count)])

    @classmethod
    def of_ranges(cls, ranges: Iterable[tuple[int, int]]) -> "SlotSet":
        """From (first, count) pairs."""
        bits = BitMap()
        for first, count in ranges:
            bits.add_range(first, first + count)
        return cls.of(bits)

    @classmethod
    def of_array(cls, slots: NDArray[Any]) -> "SlotSet":
        """From an array of slot numbers, in any order."""
        return cls.of(BitMap(np.ascontiguousarray(slots, dtype=np.uint32)))

    @classmethod
    def from_wire(cls, data: bytes) -> "SlotSet":
        """Read the wire form. Raises `ValueError` for anything but ascending, non-empty, non-touching ranges."""
        if len(data) % RANGE_BYTES:
            raise ValueError(f"slot ranges: {len(data)} bytes is no multiple of {RANGE_BYTES}")
        pairs = np.frombuffer(data, dtype="<u4").astype(np.uint64).reshape(-1, 2)
        firsts, counts = pairs[:, 0], pairs[:, 1]
        ends = firsts + counts
        if (counts == 0).any() or (ends > 1 << 32).any() or (firsts[1:] <= ends[:-1]).any():
            raise ValueError("slot ranges: empty, overlapping, touching or out of bounds")
        return cls.of_ranges(zip(firsts.tolist(), counts.tolist(), strict=True))

    def ranges(self) -> list[tuple[int, int]]:
        """The (first, count) pairs, ascending, not touching."""
        slots = self.array()
        if not len(slots):
            return []
        breaks = np.flatnonzero(np.diff(slots.astype(np.int64)) != 1) + 1
        starts = np.concatenate(([0], breaks))
        counts = np.diff(np.concatenate((starts, [len(slots)])))
        return list(zip(slots[starts].tolist(), counts.tolist(), strict=True))

    def to_wire(self) -> bytes:
        """The wire form (see the module)."""
        return b"".join(_RANGE.pack(first, count) for first, count in self.ranges())

    def chunks(self, ranges_max: int) -> list["SlotSet"]:
        """The set in pieces of at most so many ranges; at least one piece."""
        ranges = self.ranges()
        pieces = [ranges[start : start + ranges_max] for start in range(0, len(ranges), ranges_max)]
        return [SlotSet.of_ranges(piece) for piece in pieces] or [SlotSet()]

    def array(self) -> NDArray[np.uint32]:
        """The slots as an ascending array."""
        return np.asarray(self._bits.to_array(), dtype=np.uint32)

    def bits(self) -> BitMap:
        """The set as a bitmap of the caller's own, to be changed."""
        return BitMap(self._bits)

    def digest(self) -> str:
        """A short name for exactly this set (BLAKE2b-64 of the wire form)."""
        return hashlib.blake2b(self.to_wire(), digest_size=8).hexdigest()

    def first(self, count: int) -> "SlotSet":
        """The lowest `count` slots (fewer where there are fewer)."""
        return SlotSet.of(self._bits[:count]) if self._bits else self

    def __or__(self, other: "SlotSet") -> "SlotSet":
        return SlotSet.of(self._bits | other._bits)

    def __and__(self, other: "SlotSet") -> "SlotSet":
        return SlotSet.of(self._bits & other._bits)

    def __sub__(self, other: "SlotSet") -> "SlotSet":
        return SlotSet.of(self._bits - other._bits)

    def __le__(self, other: "SlotSet") -> bool:
        return bool(self._bits <= other._bits)

    def __contains__(self, slot: int) -> bool:
        return slot in self._bits

    def __len__(self) -> int:
        return len(self._bits)

    def __bool__(self) -> bool:
        return bool(self._bits)

    def __iter__(self) -> Iterator[int]:
        return iter(self._bits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotSet) and self._bits == other._bits

    def __hash__(self) -> int:
        return hash(self._bits)

    def __repr__(self) -> str:
        ranges: Sequence[tuple[int, int]] = self.ranges()
        shown = ", ".join(f"{first}-{first + count - 1}" if count > 1 else str(first) for first, count in ranges[:4])
        return f"SlotSet({shown}{', ...' if len(ranges) > 4 else ''}; {len(self)} slots)"


def union(sets: Iterable[SlotSet]) -> SlotSet:
    """All of them together."""
    bits = BitMap()
    for one in sets:
        bits |= one._bits
    return SlotSet.of(bits)
