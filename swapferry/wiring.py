"""Where ports meet adapters: which broker, store, device and guest stand behind the parts of a run."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from actors.runtime.clock import RealClock
from actors.runtime.sqlite import SqliteStore, read_store
from actors.runtime.store import Store
from bus.broker import Broker
from bus.memory import MemoryBroker, MemoryBus
from bus.rabbit import RabbitBroker
from bus.topology import Topology
from paging.device import DevicePath
from paging.errors import DeviceError
from paging.file_device import FileDevice
from paging.guest import Definition, Guest, Seat
from paging.superblock import format_device, read_superblock
from scenarios.faults import Faults, HoldingBroker, RefusingGuest
from scenarios.parts import Parts
from scenarios.scenario import DeviceSpec
from swapferry.config import EMBEDDED, qemu_choice

MakeBroker = Callable[[], Broker]
MakeGuest = Callable[[Seat], Guest]


@attrs.frozen(kw_only=True)
class Rooms:
    """Directories of one run."""

    work: Path
    """stores and slot files, on a disk"""
    ram: Path
    """RAM files, swap tables and sockets, on a tmpfs"""


class RealParts(Parts):
    """Parts of a run on this machine."""

    def __init__(self, rooms: Rooms, make_broker: MakeBroker, make_guest: MakeGuest, faults: Faults) -> None:
        self.clock = RealClock()
        self.random = random.Random()
        self._rooms, self._make_broker, self._make_guest, self._faults = rooms, make_broker, make_guest, faults
        self._locked: list[FileDevice] = []

    def broker(self) -> Broker:  # noqa: D102 - see the port
        return HoldingBroker(self._make_broker(), self._faults)

    def store(self, node: str) -> Store:  # noqa: D102
        return SqliteStore(self._rooms.work / f"{node}.db")

    def records(self, node: str) -> Mapping[str, Mapping[tuple[str, str], Any]]:  # noqa: D102
        return read_store(self._rooms.work / f"{node}.db")

    def device(self, spec: DeviceSpec) -> DevicePath:  # noqa: D102
        where = made_device(spec, self._rooms.work) if spec.path is None else found_device(spec, spec.path)
        self._locked.append(locked(where))
        return where

    def guest(self, host: str, instance: str, definition: Definition, devices: Sequence[DevicePath]) -> Guest:  # noqa: D102
        seat = Seat(
            instance=instance,
            definition=definition,
            directory=private_directory(self._rooms.ram / host / instance),
            devices=tuple(devices),
        )
        return RefusingGuest(self._make_guest(seat), lambda: host in self._faults.refusing)

    def close(self) -> None:  # noqa: D102
        for device in self._locked:
            device.close()
        self._locked.clear()


def made_device(spec: DeviceSpec, directory: Path) -> DevicePath:
    """A new slot file for this device. Raises `DeviceError`."""
    path = directory / f"{spec.name}.slots"
    return DevicePath(name=spec.name, path=path, uuid=format_device(path, spec.slots).uuid)


def found_device(spec: DeviceSpec, path: Path) -> DevicePath:
    """The device that lies at this path already. Raises `DeviceError` (missing, foreign, truncated, too small)."""
    identity = read_superblock(path)
    if identity.slot_count < spec.slots:
        raise DeviceError(
            f"swap device {spec.name}: {path} has {identity.slot_count} slots, the scenario wants {spec.slots}; make size smaller"
        )
    return DevicePath(name=spec.name, path=path, uuid=identity.uuid)


def locked(where: DevicePath) -> FileDevice:
    """The device, served by nobody else as long as it is open. Raises `DeviceError`."""
    device = FileDevice.open(where)
    try:
        device.lock()
    except DeviceError:
        device.close()
        raise
    return device


def private_directory(path: Path) -> Path:
    """This directory, made for nobody else to look into."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def brokers(bus: str, topology: Topology) -> MakeBroker:
    """What makes connections to the bus that the command line or a node file names."""
    if bus == EMBEDDED:
        shared = MemoryBus(topology)
        return lambda: MemoryBroker(shared)
    return lambda: RabbitBroker(bus, topology=topology)


def _qemu(seat: Seat) -> Guest:
    from paging.qemu import QemuGuest  # noqa: PLC0415 - a fake world needs nothing of it
    from paging.qemu_build import QemuBuild  # noqa: PLC0415

    choice = qemu_choice()
    build = QemuBuild.unpacked(choice.root) if choice.root is not None else QemuBuild.system()
    return QemuGuest(seat, build=build, accelerator=choice.accelerator)


def _fake(seat: Seat) -> Guest:
    from paging.fake import FakeGuest  # noqa: PLC0415 - a real world needs nothing of it

    return FakeGuest(seat)


GUESTS: Mapping[str, MakeGuest] = {"qemu": _qemu, "fake": _fake}
