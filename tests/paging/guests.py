"""The guests that the contract of `paging.guest` is held against: one line each."""

from collections.abc import Callable

import attrs

from paging.fake import FakeGuest
from paging.guest import Definition, Guest, Seat, Workload
from paging.native.build import build_shim, build_test_guest
from paging.qemu import QemuGuest

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


def make_qemu_guest(seat: Seat) -> Guest:
    """Under TCG, so that a test takes as long everywhere; KVM has tests of its own."""
    build_shim()
    build_test_guest()
    return QemuGuest(seat, accelerator="tcg")


KINDS = [
    Kind(name="fake", make=FakeGuest, definition=definition(memory_mib=4, resident_mib=1, fill_mib=3, per_s=500)),
    Kind(name="qemu", make=make_qemu_guest, definition=definition(memory_mib=24, resident_mib=5, fill_mib=12, per_s=300)),
]
