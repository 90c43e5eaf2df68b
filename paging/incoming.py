"""What the target of a move makes of the data channel: contents into RAM up to the resident limit, the rest into own slots.

Everything that arrives is checked before it is believed: bounds, pages or slots named twice, devices that are not here,
checksums, and at the end the manifest. A delivery that broke leaves a staged guest that the next one begins to fill anew.
"""

import hashlib
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from pyroaring import BitMap

from paging import frames
from paging.device import PAGE_BYTES
from paging.errors import TransferError
from paging.frames import Frame, Kind, PageRun
from paging.guest import Manifest
from paging.outgoing import state_digest
from paging.pages import Pages
from paging.policy import runs_of
from paging.slots import SlotSet
from paging.swap_table import TableRun


class Incoming:
    """The receiving side of one staged guest, over any number of attempts."""

    manifest: Manifest | None = None
    """what was delivered, completely; None before and during an attempt"""
    state: bytes = b""
    """the machine's device state"""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._taken = False
        self._take: Mapping[Kind, Callable[[bytes], None]] = {
            Kind.TABLE: self._take_table, Kind.PAGES: self._take_pages, Kind.STATE: self._take_state, Kind.END: self._take_end
        }  # fmt: skip

    def begin(self) -> None:
        """Forget what an earlier attempt brought. Raises `TransferError` once the delivery was taken over."""
        with self._pages.lock:
            if self._taken:
                raise TransferError(f"{self._pages.table.instance} was delivered and loaded already")
            self._pages.clear()
            self.manifest, self.state = None, b""
            self._granted: dict[str, BitMap] = {}
            self._spilled: dict[str, BitMap] = {}
            self._named, self._contents = BitMap(), BitMap()
            self._bytes = 0
            self._pages_digest = hashlib.blake2b(digest_size=16)
            self._table_digest = hashlib.blake2b(digest_size=16)

    def take(self, frame: Frame) -> None:
        """One frame of the delivery. Raises `TransferError`; then the attempt is over."""
        if frame.kind not in self._take or self.manifest is not None:
            raise TransferError(f"the data channel brought {frame.kind.name} where it has no place")
        with self._pages.lock:
            self._take[frame.kind](frame.body)
            self._bytes += frame.wire_bytes

    def accept(self, manifest: Manifest, granted: Mapping[str, SlotSet]) -> None:
        """Take the delivery over (phase `loaded`): it is exactly this manifest, its table names exactly these slots.

        Raises `TransferError` on any difference and if nothing was delivered (yet).
        """
        with self._pages.lock:
            if self._taken and manifest == self.manifest:
                return
            if self.manifest is None:
                raise TransferError(f"{self._pages.table.instance}: the data channel has not delivered the guest")
            if manifest != self.manifest:
                raise TransferError(f"the channel delivered {self.manifest}, announced was {manifest}")
            self._compare_grants(granted)
            self._pages.settle()
            self._taken = True

    def _compare_grants(self, granted: Mapping[str, SlotSet]) -> None:
        named = {self._pages.names[device]: SlotSet.of(bits) for device, bits in self._granted.items()}
        for device in sorted(named.keys() | granted.keys()):
            here, there = named.get(device, SlotSet()), granted.get(device, SlotSet())
            if here != there:
                raise TransferError(
                    f"device {device}: the table names {here - there} without a grant; granted and in no table: {there - here}"
                )

    def _take_table(self, body: bytes) -> None:
        for run in frames.parse_table_runs(body):
            self._check_table_run(run)
            self._forget_contents(run)
            self._pages.pool.use(run.device, run.slot, run.count)
            self._named.add_range(run.page, run.page + run.count)
            self._granted.setdefault(run.device, BitMap()).add_range(run.slot, run.slot + run.count)
            steps = np.arange(run.count)
            checksums = np.frombuffer(run.checksums, dtype="<u4")
            self._pages.table.enter_slots(run.page + steps, run.device, run.slot + steps, checksums)
            self._table_digest.update(frames.table_run_bytes(run))

    def _check_table_run(self, run: TableRun) -> None:
        device, end = self._pages.devices.get(run.device), run.slot + run.count
        if device is None:
            raise TransferError(f"the table names device {run.device}, which this host does not reach")
        if end > device.identity.slot_count or run.page + run.count > self._pages.memory.pages:
            raise TransferError(f"the table names slots {run.slot}+{run.count} or pages {run.page}+{run.count} that do not exist")
        taken = (self._granted, self._spilled)
        if any(slots.get(run.device, BitMap()).range_cardinality(run.slot, end) for slots in taken):
            raise TransferError(f"the table names slots in {run.slot}+{run.count} of device {run.device} that hold other pages")
        if self._named.range_cardinality(run.page, run.page + run.count):
            raise TransferError(f"the table names pages in {run.page}+{run.count} twice")

    def _forget_contents(self, run: TableRun) -> None:
        """The table wins (DATAPLANE 5): what came before for the same pages goes, from RAM and from own slots."""
        # Nearly always there is nothing to forget, and the guest stands still meanwhile: no loop over pages then.
        for page in (run.page + np.flatnonzero(self._pages.table.entries[run.page : run.page + run.count])).tolist():
            entry = self._pages.table.at(page)
            if entry is not None:
                self._pages.table.clear(page)
                self._spilled[entry.device].discard(entry.slot)
                self._pages.pool.give(entry.device, entry.slot)
        resident = self._pages.clock.resident_in((run.page, run.count))
        self._pages.forget((run.page + np.flatnonzero(resident)).tolist())

    def _take_pages(self, body: bytes) -> None:
        for run in frames.parse_page_runs(body):
            end = run.page + run.count
            if end > self._pages.memory.pages or self._contents.range_cardinality(run.page, end):
                raise TransferError(f"the contents of pages {run.page}+{run.count} came twice or do not exist")
            expected = np.frombuffer(run.checksums, dtype="<u4").tolist()
            if [zlib.crc32(run.content(page)) for page in range(run.page, end)] != expected:
                raise TransferError(f"the contents of pages {run.page}+{run.count} came with a wrong checksum")
            self._contents.add_range(run.page, end)
            self._pages_digest.update(frames.page_run_parts(run.page, run.checksums))
            self._install(run)

    def _install(self, run: PageRun) -> None:
        clock = self._pages.clock
        room = self._pages.limit - clock.count
        pages = [page for page in range(run.page, run.page + run.count) if page not in self._named]
        new = [page for page in pages if page not in clock]
        spilled = set(new[max(room, 0) :])
        for first, count in runs_of([page for page in pages if page not in spilled]):
            at = (first - run.page) * PAGE_BYTES
            self._pages.memory.fill(first, run.contents[at : at + count * PAGE_BYTES])
        clock.placed_all(np.array(new[: max(room, 0)], dtype=np.int64))
        self._spill(run, sorted(spilled))

    def _spill(self, run: PageRun, pages: list[int]) -> None:
        """RAM is full up to the limit: these go straight into armed slots of this host."""
        while pages:
            taken = self._pages.pool.take(len(pages))
            if taken is None:
                raise TransferError(f"{len(pages)} more pages do not fit: RAM is full and no armed slot is free here")
            device, slot, count = taken
            part, pages = np.array(pages[:count]), pages[count:]
            contents = [run.content(page) for page in part.tolist()]
            try:
                self._pages.devices[device].write(slot, contents)
            except OSError as error:
                raise TransferError(f"slots {slot}+{count} of device {device} cannot be written: {error.strerror}") from error
            self._spilled.setdefault(device, BitMap()).add_range(slot, slot + count)
            checksums = np.array([zlib.crc32(content) for content in contents], dtype=np.uint32)
            self._pages.table.enter_slots(part, device, np.arange(slot, slot + count), checksums)

    def _take_state(self, body: bytes) -> None:
        if self.state:
            raise TransferError("the data channel brought the device state twice")
        self.state = body

    def _take_end(self, body: bytes) -> None:
        announced = frames.parse_end(body)
        sent, granted = len(self._contents), len(self._named)
        found = Manifest(
            pages_sent=sent, pages_granted=granted, pages_zero=self._pages.memory.pages - sent - granted, bytes_sent=self._bytes,
            pages_digest=self._pages_digest.hexdigest(), table_digest=self._table_digest.hexdigest(),
            state_bytes=len(self.state), state_digest=state_digest(self.state),
        )  # fmt: skip
        if found != announced:
            raise TransferError(f"the data channel delivered {found}, its end says {announced}")
        self.manifest = found
