"""The swap table of one guest: where each page that is not in RAM lies, in a file that outlives the pager.

The file is mapped shared: what the pager wrote before it was killed is there when its successor opens it (DATAPLANE 4.6).
It does not outlive the host, and neither does the guest. One process writes it, its pager; any other may open it to look.

Layout, little-endian: a header of 4096 bytes (`paging.table_header`), then one u64 entry a page, then one u32 CRC-32 a page.
An entry is kind (4 bits) | device index (12 bits) | slot (48 bits); 0 means that the page lies in no slot. The checksum is
written before the entry and cleared after it, so an entry that is seen always has its checksum.
"""

import enum
import hashlib
import mmap
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from paging.slots import SlotSet
from paging.table_header import HEADER_BYTES, Header, Phase, Process, TableUnusable, decode_header, encode_header

__all__ = ["Entry", "Kind", "Phase", "Process", "SwapTable", "TableRun", "TableUnusable"]

ENTRY_BYTES = 8
CHECKSUM_BYTES = 4
_KIND_SHIFT, _DEVICE_SHIFT = 60, 48
_SLOT_MASK = (1 << _DEVICE_SHIFT) - 1
_DEVICE_MASK = (1 << (_KIND_SHIFT - _DEVICE_SHIFT)) - 1


class Kind(enum.IntEnum):
    """How a slot holds its page. More kinds (encrypted, compressed) have room up to 15."""

    NONE = 0
    PLAIN = 1


@attrs.frozen
class Entry:
    """Where one page lies."""

    device: str
    """uuid of the device"""
    slot: int
    checksum: int
    """CRC-32 of the page's 4096 bytes"""
    kind: Kind = Kind.PLAIN


@attrs.frozen
class TableRun:
    """Consecutive pages in consecutive slots of one device: what a table looks like on the wire."""

    page: int
    device: str
    slot: int
    checksums: bytes
    """little-endian u32, one a page"""

    @property
    def count(self) -> int:
        """Pages in this run."""
        return len(self.checksums) // CHECKSUM_BYTES


class SwapTable:
    """A mapped table. Made by `create` or `open`; every error is a `PagingError` that names the file and the remedy."""

    def __init__(self, path: Path, mapped: mmap.mmap, header: Header, *, writable: bool) -> None:
        self.path, self._mapped, self._header, self._writable = path, mapped, header, writable
        count = header.pages
        checksums_at = HEADER_BYTES + count * ENTRY_BYTES
        self.entries: NDArray[np.uint64] = np.frombuffer(mapped, dtype="<u8", count=count, offset=HEADER_BYTES)
        self.checksums: NDArray[np.uint32] = np.frombuffer(mapped, dtype="<u4", count=count, offset=checksums_at)
        # Scalar access through a memoryview costs a third of that through numpy, and the fault path lives on it.
        self._entry = memoryview(mapped)[HEADER_BYTES:checksums_at].cast("Q")
        self._checksum = memoryview(mapped)[checksums_at : checksums_at + count * CHECKSUM_BYTES].cast("I")

    @classmethod
    def create(
        cls, path: Path, *, pages: int, instance: str, boot_id: str, devices: Collection[str], process: Process | None = None
    ) -> "SwapTable":
        """A new table in phase `empty` for so many pages. Raises `PagingError` if there is a file already."""
        header = Header(pages=pages, instance=instance, boot_id=boot_id, devices=tuple(devices), process=process or Process())
        first_page = encode_header(header)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise TableUnusable(path, f"cannot be created: {error.strerror}", "remove the old instance first") from error
        try:
            # The whole length first: a crash before the header is written leaves no magic, and such a file is refused.
            os.truncate(descriptor, table_bytes(pages))
            os.pwrite(descriptor, first_page, 0)
            mapped = mmap.mmap(descriptor, table_bytes(pages))
        finally:
            os.close(descriptor)
        return cls(path, mapped, header, writable=True)

    @classmethod
    def open(cls, path: Path) -> "SwapTable":
        """An existing table, to write it: for its pager alone."""
        return cls._map(path, os.O_RDWR, mmap.PROT_READ | mmap.PROT_WRITE)

    @classmethod
    def inspect(cls, path: Path) -> "SwapTable":
        """An existing table, only to look (`check`, fsck); the pager may be changing it meanwhile."""
        return cls._map(path, os.O_RDONLY, mmap.PROT_READ)

    @classmethod
    def _map(cls, path: Path, flags: int, protection: int) -> "SwapTable":
        try:
            descriptor = os.open(path, flags | os.O_CLOEXEC)
        except OSError as error:
            raise TableUnusable(path, f"cannot be opened: {error.strerror}", "destroy the instance and start it anew") from error
        try:
            header = decode_header(path, os.pread(descriptor, HEADER_BYTES, 0))
            size = os.fstat(descriptor).st_size
            if size != table_bytes(header.pages):
                found = f"has {size} bytes, {header.pages} pages need {table_bytes(header.pages)}"
                raise TableUnusable(path, found, "it is truncated: destroy the instance and start it anew")
            mapped = mmap.mmap(descriptor, size, prot=protection)
        finally:
            os.close(descriptor)
        return cls(path, mapped, header, writable=bool(protection & mmap.PROT_WRITE))

    @property
    def pages(self) -> int:
        """Guest memory in pages."""
        return self._header.pages

    @property
    def instance(self) -> str:
        """The instance whose memory this is."""
        return self._header.instance

    @property
    def boot_id(self) -> str:
        """The host's boot in which this table was made; another boot means that the guest is lost."""
        return self._header.boot_id

    @property
    def devices(self) -> tuple[str, ...]:
        """Device uuids, by device index."""
        return self._header.devices

    @property
    def process(self) -> Process:
        """The machine's process."""
        return self._header.process

    @property
    def phase(self) -> Phase:
        """What the table means now; for one that only looks, read again from the file."""
        return self._header.phase if self._writable else decode_header(self.path, self._mapped[:HEADER_BYTES]).phase

    def enter(self, phase: Phase) -> None:
        """Write the phase. The guest's machine is told afterwards, so that a restarted pager knows at least as much."""
        self._rewrite(attrs.evolve(self._header, phase=phase))

    def belong_to(self, process: Process) -> None:
        """Write down whose memory this is, to be told from a process that reuses the pid."""
        self._rewrite(attrs.evolve(self._header, process=process))

    def device_index(self, uuid: str) -> int:
        """The index of a device; a device that is new here is appended to the header first."""
        if uuid not in self._header.devices:
            self._rewrite(attrs.evolve(self._header, devices=(*self._header.devices, uuid)))
        return self._header.devices.index(uuid)

    def at(self, page: int) -> Entry | None:
        """Where this page lies, or None."""
        entry = self._entry[page]
        if not entry:
            return None
        device = self._header.devices[entry >> _DEVICE_SHIFT & _DEVICE_MASK]
        return Entry(device, entry & _SLOT_MASK, self._checksum[page], Kind(entry >> _KIND_SHIFT))

    def enter_slots(self, pages: NDArray[Any], device: str, slots: NDArray[Any], checksums: NDArray[Any]) -> None:
        """These pages lie in these slots of one device (arrays of one length). The slots are written already."""
        high = np.uint64(Kind.PLAIN << _KIND_SHIFT | self.device_index(device) << _DEVICE_SHIFT)
        self.checksums[pages] = checksums
        self.entries[pages] = np.asarray(slots, dtype=np.uint64) | high

    def clear(self, page: int) -> None:
        """The page is in RAM now."""
        self._entry[page] = 0
        self._checksum[page] = 0

    def clear_pages(self, pages: NDArray[Any]) -> None:
        """These pages are in RAM (or zero) now."""
        self.entries[pages] = 0
        self.checksums[pages] = 0

    def swapped(self) -> NDArray[np.bool_]:
        """Which pages have an entry."""
        return self.entries.astype(np.bool_)

    def slots(self) -> Mapping[str, SlotSet]:
        """Device uuid -> the slots named here; devices without a slot are left out."""
        return {uuid: SlotSet.of_array(slots) for uuid, _, slots in self._by_device()}

    def pages_in(self, device: str, slots: SlotSet) -> NDArray[np.int64]:
        """The pages that lie in these slots of a device (uuid), ascending."""
        for uuid, pages, found in self._by_device():
            if uuid == device:
                return pages[np.isin(found, slots.array())]
        return np.zeros(0, dtype=np.int64)

    def runs(self, devices: Collection[str]) -> Iterator[TableRun]:
        """The entries on these devices (uuids), in runs, ascending by page within a device."""
        for uuid, pages, slots in self._by_device():
            if uuid not in devices:
                continue
            apart = np.flatnonzero((np.diff(pages) != 1) | (np.diff(slots) != 1)) + 1
            starts = np.concatenate(([0], apart)).tolist()
            for start, end in zip(starts, [*starts[1:], len(pages)], strict=True):
                checksums = self.checksums[pages[start:end]].tobytes()
                yield TableRun(int(pages[start]), uuid, int(slots[start]), checksums)

    def digest(self) -> str:
        """A short name for exactly these entries and checksums, whatever the order of devices in the header."""
        hashed = hashlib.blake2b(digest_size=16)
        for uuid, pages, slots in sorted(self._by_device(), key=lambda part: part[0]):
            for part in (uuid.encode(), pages.tobytes(), slots.tobytes(), self.checksums[pages].tobytes()):
                hashed.update(part)
        return hashed.hexdigest()

    def close(self) -> None:
        """Unmap. Arrays that somebody still holds keep the mapping until they go."""
        self._entry.release()
        self._checksum.release()
        self.entries = np.zeros(0, dtype=np.uint64)
        self.checksums = np.zeros(0, dtype=np.uint32)
        try:
            self._mapped.close()
        except BufferError:
            return

    def _by_device(self) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
        # One look for a table that its pager changes meanwhile: numpy counts entries before it lists them.
        now = self.entries if self._writable else self.entries.copy()
        pages = np.flatnonzero(now).astype(np.int64)
        entries = now[pages]
        indexes = entries >> np.uint64(_DEVICE_SHIFT) & np.uint64(_DEVICE_MASK)
        slots = (entries & np.uint64(_SLOT_MASK)).astype(np.int64)
        # Not np.unique: its first call imports for 50 ms, and a guest waits while its next pager looks at the table.
        for index in np.flatnonzero(np.bincount(indexes.astype(np.int64))).tolist():
            chosen = indexes == index
            yield self.devices[index], pages[chosen], slots[chosen]

    def _rewrite(self, header: Header) -> None:
        assert self._writable, f"{self.path} is open only to look"
        self._mapped[:HEADER_BYTES] = encode_header(header)
        self._header = header


def table_bytes(pages: int) -> int:
    """The size of the file of a table for so many pages."""
    return HEADER_BYTES + pages * (ENTRY_BYTES + CHECKSUM_BYTES)
