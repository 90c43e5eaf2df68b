"""`swapferry node`: the actors of one host in a process of their own, over RabbitMQ.

Ending it ends the guests on it too, in this version.
"""

import asyncio
import json
from pathlib import Path

import attrs

from actors.runtime.observed import Observed
from bus.topology import Topology
from paging.device import DevicePath
from paging.file_device import FileDevice
from paging.superblock import format_device
from scenarios.faults import Faults
from scenarios.host import HostNode, HostPlan, facts_for
from scenarios.timeline import entries_of
from swapferry.config import NodeDevice, NodeFile
from swapferry.fault_door import fault_door
from swapferry.notify import tell_ready
from swapferry.recorded import recorded
from swapferry.trust import trust
from swapferry.wiring import GUESTS, RealParts, Rooms, brokers, locked, private_directory


async def serve(file: NodeFile, record: Path | None = None) -> None:
    """Be this node until cancelled; go on with the recording, if there is to be one. Raises `DeviceError`, `StoreError`,
    `Transient`, `RecordingError` when it cannot begin."""
    node = file.node
    served = [_served(device) for device in file.devices if device.home == node.host]
    rooms = Rooms(work=node.store.parent, ram=private_directory(node.directory))
    parts = RealParts(rooms, brokers(node.bus, Topology(prefix=node.prefix)), GUESTS[node.guest], Faults())
    try:
        await trust(rooms.work / f"{node.host}.db", [path_of(device) for device in file.devices if device.home == node.host])
        with recorded(record, parts.clock) as recorder, fault_door():
            plan = plan_of(file)
            host = HostNode(plan, parts, _Timeline(file), recorder(plan))
            try:
                await host.start()
                tell_ready()
                await asyncio.Event().wait()
            finally:
                await host.stop()
    finally:
        for device in served:
            device.close()


def plan_of(file: NodeFile) -> HostPlan:
    """What the node is."""
    paths = {device.name: path_of(device) for device in file.devices if device.path is not None}
    unreached = {device.name: DevicePath(name=device.name, path=file.node.store, uuid=device.uuid) for device in file.devices}
    placed = {device.name: (device.home, {**unreached, **paths}[device.name], device.slots) for device in file.devices}
    return HostPlan(
        facts=facts_for(file.node.host, file.node.memory, placed, clean_pages_per_s=file.node.clean_pages_per_s),
        paths=tuple(paths.values()),
        hosts=frozenset({file.node.host, *file.node.hosts}),
        manager="resource-manager" in file.node.roles,
    )


def path_of(device: NodeDevice) -> DevicePath:
    """Where this host reaches the device."""
    assert device.path is not None, "asked only for devices that are reached"
    return DevicePath(name=device.name, path=device.path, uuid=device.uuid)


def _served(device: NodeDevice) -> FileDevice:
    """The device whose ledger is kept here, locked; made if there is no such file yet."""
    where = path_of(device)
    if not where.path.exists():
        format_device(where.path, device.slots, device_uuid=device.uuid)
    return locked(where)


class _Timeline:
    """Writes the timeline to the file that the node's configuration names, a JSON object a line."""

    def __init__(self, file: NodeFile) -> None:
        self._lines = file.node.timeline and file.node.timeline.open("a", encoding="utf-8", buffering=1)

    def __call__(self, seen: Observed) -> None:
        if self._lines:
            for entry in entries_of(seen):
                self._lines.write(json.dumps(attrs.asdict(entry)) + "\n")
