"""The port `Guest`: one instance of a VM on this host, its machine and its pager. Adapters: `paging.qemu`, `paging.fake`.

The hypervisor's record says what an instance should be; the VM-instance actor makes a `Guest` follow. Each method brings
the guest from one phase to the next and is safe to call again. Nothing here decides anything.

    boot ------------------------> running -- halt --> frozen -- send --> (bytes delivered)
    stage -> staged -- load -----> loaded --- run ---> running            frozen -- run --> running (thaw)
    destroy: from any phase to nothing
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from paging.device import PAGE_BYTES, DevicePath
from paging.slots import SlotSet


@attrs.frozen(kw_only=True)
class Workload:
    """What the bare-metal test guest (or the fake guest) does with its memory."""

    fill_bytes: int = 0
    """verifiable, incompressible pattern"""
    hot_bytes: int = 0
    """the part that is written and checked at random while it runs (0: all that is filled)"""
    writes_per_s: int = 0
    checks_per_s: int = 0
    seed: int = 1


@attrs.frozen(kw_only=True)
class Disk:
    """A disk over a user-space protocol driver of QEMU (DATAPLANE 11.1: nothing that pins memory)."""

    url: str
    """nbd+unix:///?socket=PATH or nbd://host:port/export"""
    read_only: bool = False


@attrs.frozen(kw_only=True)
class Definition:
    """A VM as the resource manager keeps it. Typed fields only: raw QEMU arguments would be root on every host."""

    vm: str
    memory_bytes: int
    resident_bytes: int
    """the memory budget: what of the guest may be in RAM at a time"""
    vcpus: int = 1
    boot: str = "test"
    """"test" (the bare-metal test guest) or "linux" (kernel, initrd and cmdline below)"""
    workload: Workload = Workload()
    kernel: str | None = None
    initrd: str | None = None
    cmdline: str = ""
    disks: tuple[Disk, ...] = ()
    nics: int = 0

    @property
    def pages(self) -> int:
        """Guest memory in pages."""
        return self.memory_bytes // PAGE_BYTES

    @property
    def resident_pages(self) -> int:
        """The resident limit in pages."""
        return self.resident_bytes // PAGE_BYTES


@attrs.frozen(kw_only=True)
class Endpoint:
    """Where a staged instance listens for its pages. The token opens it once; it is redacted in every log."""

    host: str
    port: int
    token: str = attrs.field(repr=lambda _: "<redacted>")


@attrs.frozen(kw_only=True)
class PageCounts:
    """How the guest's memory lies: total = resident + swapped + zero (holes without an entry)."""

    total: int
    resident: int
    swapped: int
    zero: int
    faults: int = 0
    """page-ins answered since the instance began"""
    evicted: int = 0
    resident_bytes_max: int = 0
    """largest allocated memory of the RAM file seen so far"""
    page_in_us_p50: float = 0.0
    page_in_us_p99: float = 0.0
    stalled: str | None = None
    """the page, slot and device of a fault that cannot be answered (`SlotUnreadable`)"""
    foreign: int = 0
    """pages that the cleanup has still to copy, as far as it has looked"""
    copy_trouble: str | None = None
    """why some of them are not copied for now; tried again from time to time"""


@attrs.frozen(kw_only=True)
class Halted:
    """The guest stands still and its table is settled: which slots of which device hold its pages."""

    swapped: Mapping[str, SlotSet]
    """device name -> slots named by the table"""
    counts: PageCounts


@attrs.frozen(kw_only=True)
class Manifest:
    """What a transfer delivers, so that the receiver can tell that it got exactly that."""

    pages_sent: int
    """contents that travelled (resident pages that are not zero, and pages on devices the target cannot reach)"""
    pages_granted: int
    """table entries that travelled instead"""
    pages_zero: int
    bytes_sent: int
    pages_digest: str
    table_digest: str
    state_bytes: int
    """device state of the machine (0 for the fake guest)"""
    state_digest: str


@attrs.frozen(kw_only=True)
class Seat:
    """Where an instance lives on this host, handed to a guest when it is made."""

    instance: str
    definition: Definition
    directory: Path
    """private (0700), on tmpfs: RAM file, swap table, sockets"""
    devices: tuple[DevicePath, ...]
    """all devices that this host reaches"""
    listen_host: str = "127.0.0.1"


Watcher = Callable[[str, str], None]
"""(what, sentence): what is "stalled", "unstalled" or "died"."""


class Guest(ABC):
    """One instance. Every method raises `GuestError` (or another `PagingError`) that names step and reason."""

    seat: Seat

    @abstractmethod
    async def boot(self) -> None:
        """From nothing to running, with empty memory. Raises `DeviceRefused` for a virtual device that pins memory."""

    @abstractmethod
    async def stage(self) -> Endpoint:
        """From nothing to staged: machine waiting for its state, pager serving, listener open. Again: same endpoint."""

    @abstractmethod
    async def arm(self, slots: Mapping[str, SlotSet]) -> None:
        """These slots (device name -> set) and no others are this guest's to write. Replaces what was armed before;
        a slot in use stays in use."""

    @abstractmethod
    async def halt(self) -> Halted:
        """Stop the machine while faults are still served, save its device state, stop eviction, settle the table.
        Refuses (`GuestError`) while a fault is stalled: a halt would hang (PROTOCOL 13.7)."""

    @abstractmethod
    async def send(self, endpoint: Endpoint, near: frozenset[str]) -> Manifest:
        """Deliver the frozen guest to a staged one: contents, table entries of the devices in `near`, device state.
        Pages on other devices are read from their slots and travel as contents. Nothing changes here."""

    @abstractmethod
    async def load(self, manifest: Manifest, granted: Mapping[str, SlotSet]) -> None:
        """Wait until the channel has delivered exactly this manifest, check that table and grants name the same slots,
        load the device state. The guest stands still and can run. Raises `TransferError` on any difference."""

    @abstractmethod
    async def run(self) -> None:
        """Let a loaded or a frozen guest run; eviction goes on, the network is told where it is."""

    @abstractmethod
    async def adopt(self) -> bool:
        """A node that was restarted takes over what its predecessor left in this seat, in whatever phase it is: what is told
        again is answered as before. False: there is no machine, and what was left of one is cleared away."""

    @abstractmethod
    async def clean(self, granted: Mapping[str, SlotSet], pages_per_s: int) -> None:
        """Copy pages that lie in these slots (which came with the guest) to armed slots, in the background, this fast;
        0 stops it. A page that the guest fetches, rewrites or drops meanwhile is not copied. Told again, it goes on."""

    @abstractmethod
    async def destroy(self) -> None:
        """Machine and pager are gone and awaited, files removed. Their slots are no longer written by anybody."""

    @abstractmethod
    async def counts(self) -> PageCounts:
        """How its memory lies now."""

    @abstractmethod
    async def swapped(self) -> Mapping[str, SlotSet]:
        """Which slots its table names now (device name -> slots)."""

    @abstractmethod
    async def verify(self) -> str | None:
        """Let the guest check all of its memory. None: every byte is as written; else its own words."""

    @abstractmethod
    def watch(self, watcher: Watcher) -> None:
        """Be told of stalls and of the machine's death."""
