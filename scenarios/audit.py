"""Reads what a node that has stopped has kept; `actors.audit` compares it."""

from actors.audit import Kept, Tables, compare
from actors.domain.ledger import Right
from actors.hypervisor import Hypervisor
from actors.messages import MANAGER, hypervisor, swap_device
from actors.resource_manager import ResourceManager
from actors.runtime.actor import Record
from actors.runtime.store import Store
from actors.swap_device import SwapDevice, rights_of
from scenarios.host import HostPlan

__all__ = ["Kept", "Tables", "compare", "read_kept"]


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
