"""Which slots a pager may write: those it was armed with and whose content nothing names.

A slot is *free* when it is armed and no entry of the table points to it. A slot that is in use and not armed is *foreign*:
it is read, and when its page comes in nobody here writes it again (PROTOCOL 13.8).
"""

from collections.abc import Mapping

from pyroaring import BitMap

from paging.slots import SlotSet

_LOOKS = 8
"""How many places are looked at for a run that is long enough before the longest one seen is taken"""


class SlotPool:
    """Free slots by device (uuid), handed out in runs that are as contiguous as can be had cheaply."""

    def __init__(self) -> None:
        self._armed: dict[str, BitMap] = {}
        self._free: dict[str, BitMap] = {}
        self._cursor: dict[str, int] = {}

    def arm(self, armed: Mapping[str, SlotSet], used: Mapping[str, SlotSet]) -> None:
        """From now on these and no others may be written, except for those that are used already."""
        self._armed = {device: slots.bits() for device, slots in armed.items() if slots}
        self._free = {device: bits - used.get(device, SlotSet()).bits() for device, bits in self._armed.items()}
        self._cursor = {device: self._cursor.get(device, 0) for device in self._armed}

    def take(self, count: int) -> tuple[str, int, int] | None:
        """(device, first slot, slots) of a run of at most `count` free slots, now used; None if there is none.

        The device with most free slots is asked. The search goes on where the last one ended: a slot that was given back after
        a failed write is not tried again at once.
        """
        device = max(self._free, key=lambda name: len(self._free[name]), default=None)
        if device is None or not self._free[device]:
            return None
        first, length = self._find(device, count)
        self._free[device].remove_range(first, first + length)
        self._cursor[device] = first + length
        return device, first, length

    def give(self, device: str, slot: int) -> None:
        """This slot's content is not needed any more; it is free again if it is armed."""
        if slot in self._armed.get(device, ()):
            self._free[device].add(slot)

    def use(self, device: str, first: int, count: int) -> None:
        """An entry that came from elsewhere names these slots; they are not free, armed or not."""
        if device in self._free:
            self._free[device].remove_range(first, first + count)

    def free(self) -> int:
        """How many slots are free."""
        return sum(len(bits) for bits in self._free.values())

    def armed(self) -> Mapping[str, SlotSet]:
        """Device uuid -> what may be written here."""
        return {device: SlotSet.of(bits) for device, bits in self._armed.items()}

    def _find(self, device: str, count: int) -> tuple[int, int]:
        free, at = self._free[device], self._cursor[device]
        best = (0, 0)
        for _ in range(_LOOKS):
            first = free.next_set_bit(at) if at <= free.max() else free.min()
            length = _run_length(free, first, count)
            if length == count:
                return first, length
            best = max(best, (first, length), key=lambda run: run[1])
            at = first + length
        return best


def _run_length(bits: BitMap, first: int, count: int) -> int:
    low, high = 1, count
    while low < high:
        middle = (low + high + 1) // 2
        if bits.contains_range(first, first + middle):
            low = middle
        else:
            high = middle - 1
    return low
