"""Compares, without changing anything, what the actors of a world have kept: every slot has one owner, and all agree on it.

Read from the stores of nodes that have stopped, and from the swap tables as they were just before.
"""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from actors.domain.hosting import Armed, Brought, HostFacts, Instance, Lent, Owned, Regained
from actors.domain.ledger import Right, covers
from actors.domain.lifecycle import State
from actors.domain.placement import Placement
from actors.domain.sharing import Shared
from actors.hypervisor import Hypervisor
from actors.messages import MANAGER, hypervisor, swap_device
from actors.resource_manager import ResourceManager
from actors.runtime.actor import Record
from actors.runtime.store import Store
from actors.swap_device import SwapDevice, rights_of
from paging.slots import SlotSet, union
from scenarios.host import HostPlan

Tables = Mapping[str, Mapping[str, SlotSet]]
"""instance -> device -> slots that its swap table names"""


@attrs.frozen(kw_only=True)
class Kept:
    """What one node kept."""

    facts: HostFacts
    hypervisor: Record
    ledgers: Mapping[str, Mapping[int, Right]]
    manager: Record | None


async def read_kept(plan: HostPlan, store: Store) -> Kept:
    """Read the records of a node that does not run. Raises `StoreError`."""
    facts = plan.facts
    await store.open()
    try:
        hypervisor_record, _ = await store.load(hypervisor(facts.host), Hypervisor.kinds)
        ledgers = {}
        for device in (name for name, home in facts.homes.items() if home == facts.host):
            values, _ = await store.load(swap_device(device), SwapDevice.kinds)
            ledgers[device] = rights_of(Record(values).all(Right))
        manager, _ = await store.load(MANAGER, ResourceManager.kinds) if plan.manager else ({}, {})
    finally:
        await store.close()
    return Kept(
        facts=facts, hypervisor=Record(hypervisor_record), ledgers=ledgers, manager=Record(manager) if plan.manager else None
    )


def compare(kept: Sequence[Kept], tables: Tables) -> list[str]:
    """What they disagree about, in sentences; empty where all is well."""
    problems: list[str] = []
    for rule in (_ledgers_cover, _owners_agree, _lent_agree, _sharing_agrees, _placements_agree):
        problems += rule(kept)
    for one in kept:
        problems += _tables_are_owned(one, tables)
    return problems


def _ledgers(kept: Sequence[Kept]) -> dict[str, Mapping[int, Right]]:
    """Device -> ledger, for those devices that a grant was ever asked of."""
    return {device: ledger for one in kept for device, ledger in one.ledgers.items() if ledger}


def _on_the_way(kept: Sequence[Kept]) -> dict[str, SlotSet]:
    """Slots that were given back and of which not all have heard: their owner, their home, or the manager. Nobody uses
    them, and the housekeeping of owner and home goes on until all agree (PROTOCOL 5)."""
    found: dict[str, SlotSet] = {}
    for device, ledger in _ledgers(kept).items():
        back = union(right.slots for right in ledger.values() if right.returned)
        unheard = []
        for one in kept:
            holders = [one.hypervisor.all(Regained).values()]
            if one.facts.homes[device] == one.facts.host:
                holders.append(one.hypervisor.all(Lent).values())
            else:
                holders.append(one.hypervisor.all(Owned).values())
            unheard += [held.slots for group in holders for held in group if held.device == device]
        found[device] = back & union(unheard)
    return found


def _ledgers_cover(kept: Sequence[Kept]) -> Iterable[str]:
    counts = {device: count for one in kept for device, count in one.facts.slot_counts.items()}
    for device, ledger in _ledgers(kept).items():
        if not covers(ledger, counts[device]):
            yield f"ledger of {device}: not every slot has exactly one owner"


def _owners_agree(kept: Sequence[Kept]) -> Iterable[str]:
    """A host owns what the ledger says, in the generation that it says."""
    way = _on_the_way(kept)
    for device, ledger in _ledgers(kept).items():
        for one in kept:
            host = one.facts.host
            granted = {generation: right.slots for generation, right in ledger.items() if right.owner == host}
            owned = {own.generation: own.slots for own in one.hypervisor.all(Owned).values() if own.device == device}
            for generation in sorted(granted.keys() | owned.keys()):
                says, has = (one.get(generation, SlotSet()) - way[device] for one in (granted, owned))
                differ = _difference(says, has)
                if differ:
                    yield f"{device}, generation {generation}: ledger and {host} differ about {differ}"


def _lent_agree(kept: Sequence[Kept]) -> Iterable[str]:
    """What a home has lent is what the ledger says others own."""
    way = _on_the_way(kept)
    for one in kept:
        for device, ledger in one.ledgers.items():
            away = union(right.slots for right in ledger.values() if right.owner != one.facts.host)
            lent = union(loan.slots for loan in one.hypervisor.all(Lent).values() if loan.device == device)
            on_the_way = way.get(device, SlotSet())
            if differ := _difference(away - on_the_way, lent - on_the_way):
                yield f"{device}: ledger and the loans of {one.facts.host} differ about {differ}"


def _sharing_agrees(kept: Sequence[Kept]) -> Iterable[str]:
    """At rest the sharing table lists exactly the slots that are away from home."""
    manager = next((one.manager for one in kept if one.manager is not None), None)
    if manager is None:
        return
    shared, way = manager.all(Shared), _on_the_way(kept)
    for one in kept:
        for device, ledger in one.ledgers.items():
            listed = shared.get(device, Shared())
            if listed.pending:
                yield f"sharing table: {device} still waits for saga {', '.join(listed.pending)}"
            on_the_way = way.get(device, SlotSet())
            truth = _by_host((right.owner, right.slots - on_the_way) for right in ledger.values())
            truth.pop(one.facts.host, None)
            told = _by_host((assigned.host, assigned.slots - on_the_way) for assigned in listed.away.values())
            if truth != told:
                yield f"sharing table and ledger of {device} differ: {told} and {truth}"


def _by_host(pairs: Iterable[tuple[str, SlotSet]]) -> dict[str, SlotSet]:
    found: dict[str, SlotSet] = {}
    for host, slots in pairs:
        if slots:
            found[host] = found.get(host, SlotSet()) | slots
    return found


def _placements_agree(kept: Sequence[Kept]) -> Iterable[str]:
    """A placed VM has one instance, on the host and in the epoch that the placement says."""
    manager = next((one.manager for one in kept if one.manager is not None), None)
    if manager is None:
        return
    places = {vm: place for vm, place in manager.all(Placement).items() if not place.failed}
    found = {
        vm: sorted((one.facts.host, instance.epoch) for one in kept for instance in _of(one, vm)) for vm in places
    }
    for vm, place in places.items():
        if found[vm] != [(place.host, place.epoch)]:
            yield f"{vm} is placed on {place.host} in epoch {place.epoch}; instances are at {found[vm]}"
        if place.lock:
            yield f"the placement of {vm} is still locked by saga {place.lock}"


def _of(one: Kept, vm: str) -> list[Instance]:
    """The instances of a VM, without those that were told to go."""
    found = [instance for instance in one.hypervisor.all(Instance).values() if instance.vm == vm]
    return [instance for instance in found if instance.state is not State.ENDING]


def _tables_are_owned(one: Kept, tables: Tables) -> Iterable[str]:
    """An instance's swap table names only slots that it was armed with or that came with it, and no other names them."""
    taken: dict[str, SlotSet] = {}
    for name in one.hypervisor.all(Instance):
        armed, brought = one.hypervisor.get(Armed, name), one.hypervisor.get(Brought, name)
        for device, slots in tables.get(name, {}).items():
            mine = union(holder.slots.get(device, SlotSet()) for holder in (armed, brought) if holder is not None)
            owned = union(own.slots for own in one.hypervisor.all(Owned).values() if own.device == device)
            if slots - (mine & owned):
                yield f"swap table of {name} names slots of {device} that are not its own: {slots - (mine & owned)!r}"
            if slots & taken.get(device, SlotSet()):
                yield f"swap tables of {one.facts.host}: two name {slots & taken[device]!r} of {device}"
            taken[device] = taken.get(device, SlotSet()) | slots


def _difference(one: SlotSet, other: SlotSet) -> str:
    differ = (one - other) | (other - one)
    return repr(differ) if differ else ""
