"""The guests that the contract of `paging.guest` is held against: one line each."""

from collections.abc import Callable

import attrs

from paging.fake import FakeGuest
from paging.guest import Definition, Guest, Seat, Workload

MIB = 1 << 20


@attrs.frozen(kw_only=True)
class Kind:
    """How to make a guest, and how large it has to be to show what it can."""

    name: str
    make: Callable[[Seat], Guest]
    definition: Definition

    def __str__(self) -> str:
        return self.name


def definition(*, memory_mib: int, resident_mib: int, fill_mib: int, per_s: int) -> Definition:
    """A test guest that is filled to more than may be resident and works on all of it."""
    workload = Workload(fill_bytes=fill_mib * MIB, writes_per_s=per_s, checks_per_s=per_s, seed=7)
    return Definition(vm="a", memory_bytes=memory_mib * MIB, resident_bytes=resident_mib * MIB, workload=workload)


KINDS = [
    Kind(name="fake", make=FakeGuest, definition=definition(memory_mib=4, resident_mib=1, fill_mib=3, per_s=500)),
]
