"""What the actors of a world have kept, read while their nodes run: one consistent state of each store, not of all together."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from actors.domain.hosting import Brought, Instance, Owned
from actors.domain.ledger import Right
from actors.domain.sharing import Shared
from actors.hypervisor import Hypervisor
from actors.messages import MANAGER, hypervisor, swap_device
from actors.resource_manager import ResourceManager
from actors.runtime.actor import Record
from actors.runtime.saga import Progress
from actors.runtime.values import from_plain
from actors.swap_device import SwapDevice, rights_of
from scenarios.audit import Kept
from scenarios.host import HostPlan

T = TypeVar("T")
Records = Mapping[str, Mapping[tuple[str, str], Any]]
"""actor -> (kind, key) -> value, as `read_store` reads them"""


def kept_of(plan: HostPlan, records: Records) -> Kept:
    """The records of one node. Raises `Malformed` for what this program does not know."""
    facts = plan.facts
    home = [device for device, host in facts.homes.items() if host == facts.host]
    return Kept(
        facts=facts,
        hypervisor=_record(records, hypervisor(facts.host), Hypervisor.kinds),
        ledgers={device: rights_of(_record(records, swap_device(device), SwapDevice.kinds).all(Right)) for device in home},
        manager=_record(records, MANAGER, ResourceManager.kinds) if plan.manager else None,
    )


def _record(records: Records, actor: str, kinds: Iterable[type]) -> Record:
    known = {kind.__name__: kind for kind in kinds}
    filed = records.get(actor, {})
    return Record({(known[kind], key): from_plain(known[kind], value) for (kind, key), value in filed.items()})


def open_sagas(kept: Sequence[Kept]) -> list[str]:
    """Sagas whose opener has not closed them."""
    return sorted(
        saga
        for one in kept
        for saga, progress in one.hypervisor.all(Progress).items()
        if progress.cast.opener == one.facts.host
    )


def abroad(kept: Sequence[Kept], vm: str) -> int:
    """How many slots of other hosts a guest still hangs on. Slots that no guest hangs on any more, and devices that are
    shared without need, count as this guest's if no other guest hangs on any."""
    own, others = _brought(kept, vm), sum(_brought(kept, other) for other in _vms(kept) - {vm})
    if own or others:
        return own
    return slots_away(kept)


def slots_away(kept: Sequence[Kept]) -> int:
    """How many slots belong to another host than their home; where all are home, how many devices are still listed as shared."""
    foreign = sum(
        len(owned.slots)
        for one in kept
        for owned in one.hypervisor.all(Owned).values()
        if one.facts.homes[owned.device] != one.facts.host
    )
    return foreign or sum(len(one.manager.all(Shared)) for one in kept if one.manager is not None)


def _vms(kept: Sequence[Kept]) -> set[str]:
    return {instance.vm for one in kept for instance in one.hypervisor.all(Instance).values()}


def _brought(kept: Sequence[Kept], vm: str) -> int:
    return sum(
        len(slots)
        for one in kept
        for name, brought in one.hypervisor.all(Brought).items()
        if (instance := one.hypervisor.get(Instance, name)) is not None and instance.vm == vm
        for slots in brought.slots.values()
    )
