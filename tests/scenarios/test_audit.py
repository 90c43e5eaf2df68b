"""The comparison at the end finds every kind of disagreement; so here each is planted."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from actors.domain.hosting import Instance, Lent, Owned
from actors.domain.ledger import Right
from actors.domain.placement import Placement
from actors.domain.sharing import Assigned, Shared
from actors.runtime.actor import Record
from paging.slots import SlotSet
from scenarios.audit import Kept, Tables, compare, read_kept
from tests.scenarios.test_worlds import migrated
from tests.scenarios.worlds import small_world

MOVED = "web1@h2.h1-1"


@attrs.frozen(kw_only=True)
class Settled:
    """What the hosts kept after a migration that went well; h1 is the source and keeps the manager."""

    source: Kept
    target: Kept
    tables: Tables

    def problems(self) -> list[str]:
        return compare([self.source, self.target], self.tables)

    @property
    def granted(self) -> Lent:
        """The slots of san0 that are away."""
        return next(iter(self.source.hypervisor.all(Lent).values()))


@pytest.fixture
async def settled(tmp_path: Path) -> Settled:
    async with small_world(tmp_path) as small:
        await migrated(small)
        target_guests = small.world.hosts[1].guests
        tables = {MOVED: await target_guests[MOVED].swapped()}
        plans = [host.plan for host in small.world.hosts]
    source, target = [await read_kept(plan, small.parts.store(plan.facts.host)) for plan in plans]
    return Settled(source=source, target=target, tables=tables)


def test_after_a_migration_that_went_well_nothing_differs(settled: Settled) -> None:
    assert settled.problems() == []
    assert len(settled.granted.slots) > 0


def forget_loan(settled: Settled) -> str:
    settled.source.hypervisor.apply({(Lent, settled.granted.key): None})
    return "ledger and the loans of h1 differ"


def own_more(settled: Settled) -> str:
    more = Owned(device="san0", generation=settled.granted.generation, slots=SlotSet([0, 1, 2]))
    settled.source.hypervisor.apply({(Owned, more.key): more})
    return "ledger and h1 differ about"


def lose_at_target(settled: Settled) -> str:
    settled.target.hypervisor.apply({(Owned, settled.granted.key): None})
    return "ledger and h2 differ about"


def unlist(settled: Settled) -> str:
    manager(settled).apply({(Shared, "san0"): None})
    return "sharing table and ledger of san0 differ"


def leave_pending(settled: Settled) -> str:
    shared = Shared(away={settled.granted.generation: Assigned(host="h2", slots=settled.granted.slots)}, pending=("h1-1",))
    manager(settled).apply({(Shared, "san0"): shared})
    return "san0 still waits for saga h1-1"


def place_elsewhere(settled: Settled) -> str:
    place = manager(settled).get(Placement, "web1")
    assert place is not None
    manager(settled).apply({(Placement, "web1"): attrs.evolve(place, host="h1")})
    return "web1 is placed on h1 in epoch 2; instances are at [('h2', 2)]"


def leave_locked(settled: Settled) -> str:
    place = manager(settled).get(Placement, "web1")
    assert place is not None
    manager(settled).apply({(Placement, "web1"): attrs.evolve(place, lock="h1-1")})
    return "still locked by saga h1-1"


def run_twice(settled: Settled) -> str:
    instance = settled.target.hypervisor.get(Instance, MOVED)
    assert instance is not None
    settled.source.hypervisor.apply({(Instance, "web1@h1.boot-1"): attrs.evolve(instance, id="web1@h1.boot-1", epoch=1)})
    return "instances are at [('h1', 1), ('h2', 2)]"


def manager(settled: Settled) -> Record:
    assert settled.source.manager is not None
    return settled.source.manager


PLANTED = [forget_loan, own_more, lose_at_target, unlist, leave_pending, place_elsewhere, leave_locked, run_twice]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_disagreement_is_found(settled: Settled, plant: Callable[[Settled], str]) -> None:
    expected = plant(settled)

    assert any(expected in problem for problem in settled.problems()), settled.problems()


def test_a_slot_without_owner_is_found(settled: Settled) -> None:
    ledger = dict(settled.source.ledgers["san0"])
    generation, right = next(iter(ledger.items()))
    ledger[generation] = Right(owner=right.owner, slots=right.slots - right.slots.first(1))
    damaged = attrs.evolve(settled, source=attrs.evolve(settled.source, ledgers={"san0": ledger}))

    assert "ledger of san0: not every slot has exactly one owner" in damaged.problems()


def test_a_swap_table_that_names_foreign_slots_is_found(settled: Settled) -> None:
    named = dict(settled.tables[MOVED])
    foreign = SlotSet.span(0, 8192) - settled.granted.slots
    damaged = attrs.evolve(settled, tables={MOVED: {**named, "san0": foreign}})

    assert any(f"swap table of {MOVED} names slots of san0" in problem for problem in damaged.problems())
