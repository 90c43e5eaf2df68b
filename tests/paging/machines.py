"""Real machines for tests: small guests under QEMU, two hosts in one directory, and a device that both reach."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from paging.device import DevicePath
from paging.guest import Definition, Endpoint, Halted, Manifest, Seat, Workload
from paging.native import QEMU10
from paging.native.build import build_linux, build_shim, build_test_guest, fetch_qemu10
from paging.qemu import QemuGuest
from paging.qemu_build import QemuBuild
from paging.slots import SlotSet
from paging.swap_table import SwapTable
from tests.paging.parts import make_device

MIB = 1 << 20
SLOTS = 16384
BUILDS = ("qemu 7.2", "qemu 10.0")

SMALL = Definition(
    vm="web",
    memory_bytes=48 * MIB,
    resident_bytes=8 * MIB,
    workload=Workload(fill_bytes=20 * MIB, hot_bytes=4 * MIB, writes_per_s=500, checks_per_s=200, seed=11),
)
"""Fills two and a half times what it may keep in RAM"""


def build(name: str) -> QemuBuild:
    """QEMU by the names in `BUILDS`; fetches 10.0 where it is not there yet."""
    if name == "qemu 7.2":
        return QemuBuild.system()
    fetch_qemu10()
    return QemuBuild.unpacked(QEMU10)


@attrs.define
class Hosts:
    """Two hosts that reach one device. Guests are destroyed with it."""

    directory: Path
    device: DevicePath
    guests: list[QemuGuest] = attrs.Factory(list)

    def guest(self, host: str, definition: Definition = SMALL, qemu: str = "qemu 7.2") -> QemuGuest:
        private = self.directory / f"{host}-{len(self.guests)}"
        seat = Seat(instance=f"vm.{definition.vm}@{host}.1", definition=definition, directory=private, devices=(self.device,))
        self.guests.append(QemuGuest(seat, build=build(qemu), accelerator="tcg"))
        return self.guests[-1]

    async def booted(self, definition: Definition = SMALL, qemu: str = "qemu 7.2") -> QemuGuest:
        """A guest on host a that has filled its memory."""
        guest = self.guest("a", definition, qemu)
        await guest.arm({self.device.name: SlotSet.span(0, SLOTS // 2)})
        await guest.boot()
        await guest.ask("counters", "counters")
        return guest

    async def staged(self, definition: Definition = SMALL, qemu: str = "qemu 7.2") -> tuple[QemuGuest, Endpoint]:
        """A guest on host b that waits for its memory."""
        guest = self.guest("b", definition, qemu)
        await guest.arm({self.device.name: SlotSet.span(SLOTS // 2, SLOTS // 4)})
        return guest, await guest.stage()

    async def delivered(self, source: QemuGuest, endpoint: Endpoint) -> tuple[Halted, Manifest]:
        """Halt the source and deliver it."""
        halted = await source.halt()
        return halted, await source.send(endpoint, frozenset({self.device.name}))


@contextlib.asynccontextmanager
async def two_hosts(tmp_path: Path, shared_memory: Path = Path("/dev/shm")) -> AsyncIterator[Hosts]:
    """Guests lie on tmpfs, as they must; their device on the disk."""
    build_shim()
    build_test_guest()
    directory = shared_memory / f"swapferry-test-{os.getpid()}-{tmp_path.name}"
    directory.mkdir(mode=0o700)
    hosts = Hosts(directory, make_device(tmp_path, "cold", SLOTS))
    try:
        yield hosts
    finally:
        for guest in hosts.guests:
            await guest.destroy()
            guest.seat.directory.rmdir()
        directory.rmdir()


def linux_images() -> None:
    """Kernel and initramfs of the Linux guest are there."""
    build_linux()


def table_of(guest: QemuGuest) -> SwapTable:
    """A guest's swap table, to look at."""
    return SwapTable.inspect(guest.seat.directory / "table")
