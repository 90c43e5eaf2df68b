"""What the arbiter of a device remembers, one turn at a time."""

import attrs

from actors.domain.holdings import Holding
from actors.messages import Cast, Grant
from actors.runtime.actor import Heard, Record, Turn
from actors.runtime.saga import Progress
from actors.sagas.device import DeviceFacts
from actors.swap_device import SwapDevice
from paging.slots import SlotSet

DEVICE = SwapDevice("san1", "h1", 64)
FIRST = Cast(
    saga="h1-1", opener="h1", number=1, floor=1, vm="web", epoch=1, instance="web@h1.boot-1", source="h1", target="h2",
    devices=("san1",),
)  # fmt: skip


def grant(record: Record, cast: Cast, generation: int, slots: SlotSet) -> None:
    body = Grant(chunk=0, of=1, holdings=(Holding(device="san1", generation=generation, slots=slots),))
    turn = Turn(record, Heard(id="1", source="hypervisor.h1", body=body, cast=cast))
    DEVICE.decide(turn)
    record.apply(turn.decision().changes)


def test_of_a_saga_that_is_over_nothing_is_kept_once_its_opener_has_said_so() -> None:
    record = Record()
    grant(record, FIRST, 1, SlotSet.span(0, 8))

    grant(record, attrs.evolve(FIRST, saga="h1-2", number=2, floor=2), 1, SlotSet.span(8, 8))

    assert set(record.all(Progress)) == {"h1-2"}
    assert set(record.all(DeviceFacts)) == {"h1-2"}
