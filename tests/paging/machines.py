"""Real machines for tests: small guests under QEMU, two hosts in one directory, and a device that both reach."""

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import attrs

from paging.device import PAGE_BYTES, DevicePath
from paging.guest import Definition, Endpoint, Halted, Manifest, Seat, Workload
from paging.native import QEMU10
from paging.native.build import build_shim, build_test_guest, fetch_qemu10
from paging.qemu import QemuGuest
from paging.qemu_build import QemuBuild
from paging.slots import SlotSet
from paging.swap_table import Entry, SwapTable
from tests.paging.parts import make_device

MIB = 1 << 20
SLOTS = 65536
PATTERN_AT = 8 * MIB
"""Where the test guest's pattern begins (paging/native/guest/pattern.h)"""
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

    def successor(self, guest: QemuGuest) -> QemuGuest:
        """What the next process makes for the same seat."""
        self.guests.append(QemuGuest(guest.seat, accelerator="tcg"))
        return self.guests[-1]

    async def lose(self, guest: QemuGuest) -> None:
        """As if the process that made this guest had been killed: all its connections close, what it started goes on."""
        self.guests.remove(guest)
        await guest.let_go()

    async def booted(self, definition: Definition = SMALL, qemu: str = "qemu 7.2", command: str = "counters") -> QemuGuest:
        """A guest on host a that has filled its memory: it answers a command only then."""
        guest = self.guest("a", definition, qemu)
        await guest.arm({self.device.name: SlotSet.span(0, SLOTS // 2)})
        await guest.boot()
        await guest.ask(command, command)
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
async def two_hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    """Guests lie on tmpfs, as they must; their device on the disk."""
    build_shim()
    build_test_guest()
    with tempfile.TemporaryDirectory(prefix="swapferry-", dir="/dev/shm") as directory:
        hosts = Hosts(Path(directory), make_device(tmp_path, "cold", SLOTS))
        try:
            yield hosts
        finally:
            for guest in hosts.guests:
                await guest.destroy()


def swapped_pattern_page(guest: QemuGuest) -> tuple[int, Entry]:
    """The last page of the test guest's pattern that lies in a slot."""
    table = SwapTable.inspect(guest.seat.directory / "swap-table")
    first = PATTERN_AT // PAGE_BYTES
    pattern = table.swapped()[first : first + guest.seat.definition.workload.fill_bytes // PAGE_BYTES]
    page = first + int(pattern.nonzero()[0][-1])
    entry = table.at(page)
    assert entry is not None
    return page, entry


def process_exists(pid: int | None) -> bool:
    """It has not ended. This process may not have asked yet how (a zombie)."""
    return Path(f"/proc/{pid}").exists() and not process_status(pid)["State"].startswith("Z")


def process_status(pid: int | None) -> dict[str, str]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
