"""Starting a VM once: a Boot is answered again, and starts nothing again. Found by the simulator (brutal, seed 2)."""

from actors import machines
from actors.domain.hosting import HostFacts, Instance, found_slots
from actors.messages import Boot, Booted
from actors.runtime.actor import Heard, Record, Turn
from paging.guest import Definition

FACTS = HostFacts(host="h1", memory_bytes=1 << 20, homes={"d1": "h1"}, uuids={"d1": "u"}, slot_counts={"d1": 400})
NAME = "vm1@h1.boot-1"


def boot(record: Record, epoch: int, facts: HostFacts = FACTS) -> list[object]:
    """Hear a Boot; returns what is said."""
    definition = Definition(vm="vm1", memory_bytes=12 * 4096, resident_bytes=4 * 4096)
    turn = Turn(record, Heard(id="m", source="resource-manager", body=None))
    found_slots(turn, facts)
    machines.boot(facts, turn, Boot(vm="vm1", epoch=epoch, definition=definition))
    decision = turn.decision()
    record.apply(decision.changes)
    return [say.body for say in decision.says]


def test_a_boot_that_comes_after_the_vm_has_left_starts_nothing():
    record = Record()
    boot(record, 1)
    assert record.get(Instance, NAME) is not None
    record.apply({(Instance, NAME): None})

    said = boot(record, 1)

    assert record.get(Instance, NAME) is None
    assert said == [Booted(vm="vm1", epoch=1)]


def test_a_boot_that_was_refused_is_refused_again_though_there_is_room_now():
    record = Record()
    full = HostFacts(host="h1", memory_bytes=4096, homes={"d1": "h1"}, uuids={"d1": "u"}, slot_counts={"d1": 400})
    (refused,) = boot(record, 1, full)

    (again,) = boot(record, 1)

    assert isinstance(refused, Booted)
    assert refused.refused
    assert again == refused
    assert not record.all(Instance)


def test_a_boot_of_a_later_epoch_starts_the_vm():
    record = Record()
    boot(record, 1)
    record.apply({(Instance, NAME): None})

    boot(record, 3)

    assert record.get(Instance, "vm1@h1.boot-3") is not None
