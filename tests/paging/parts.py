"""Real devices, tables and pages in a directory of a test, and a device that fails when it is told to."""

import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path

from paging.device import PAGE_BYTES, DevicePath, SlotDevice
from paging.fake_memory import FakeMemory, PageMissing
from paging.file_device import FileDevice, format_device
from paging.pages import Pages
from paging.slots import SlotSet
from paging.superblock import slot_offset
from paging.swap_table import SwapTable

BOOT_ID = "00000000-0000-4000-8000-000000000001"


def make_device(directory: Path, name: str, slot_count: int) -> DevicePath:
    path = directory / f"{name}.swap"
    return DevicePath(name=name, path=path, uuid=format_device(path, slot_count).uuid)


def overwrite_slot(where: DevicePath, slot: int, content: bytes, at: int = 0) -> bytes:
    """Change a slot behind everybody's back; returns what stood there."""
    with where.path.open("r+b", buffering=0) as file:
        before = os.pread(file.fileno(), len(content), slot_offset(slot) + at)
        os.pwrite(file.fileno(), content, slot_offset(slot) + at)
        os.fsync(file.fileno())
    return before


class FaultyDevice(SlotDevice):
    """A file device that fails as it is told, and remembers which slots were written."""

    def __init__(self, inner: FileDevice) -> None:
        self.inner, self.identity = inner, inner.identity
        self.read_errno: int | None = None
        self.write_errno: int | None = None
        self.torn_bytes: int | None = None
        """a write that fails leaves so many bytes of its first page behind"""
        self.slots_written: set[int] = set()

    def read(self, slot: int) -> bytes:
        if self.read_errno:
            raise OSError(self.read_errno, os.strerror(self.read_errno))
        return self.inner.read(slot)

    def write(self, slot: int, pages: Sequence[bytes | memoryview]) -> None:
        self.slots_written.update(range(slot, slot + len(pages)))
        if self.torn_bytes is not None:
            torn = bytes(pages[0][: self.torn_bytes]).ljust(PAGE_BYTES, b"\xee")
            self.inner.write(slot, [torn])
        if self.write_errno:
            raise OSError(self.write_errno, os.strerror(self.write_errno))
        self.inner.write(slot, pages)

    def flush(self) -> None:
        self.inner.flush()

    def close(self) -> None:
        self.inner.close()


class Desk:
    """One guest's pages over real devices, with a hand that touches memory as a guest does."""

    def __init__(
        self, directory: Path, devices: Sequence[DevicePath], *, pages: int = 200, limit: int = 50, batch: int = 8
    ) -> None:
        self.directory, self.limit, self.batch = directory, limit, batch
        directory.mkdir(exist_ok=True)
        self.devices = {where.name: FaultyDevice(FileDevice.open(where)) for where in devices}
        self.table = SwapTable.create(directory / "table", pages=pages, instance="vm.a@h.1", boot_id=BOOT_ID, devices=[])
        self.memory = FakeMemory(pages)
        self.pages = Pages(self.memory, self.table, self.devices, limit=limit, batch=batch)
        self.random = random.Random(1)
        self.truth: dict[int, bytes] = {}

    def restart(self) -> Pages:
        """The pager was killed: a new one finds RAM and table as they are."""
        armed = {self.pages.names[uuid]: slots for uuid, slots in self.pages.pool.armed().items()}
        self.table = SwapTable.open(self.directory / "table")
        self.pages = Pages(self.memory, self.table, self.devices, limit=self.limit, batch=self.batch)
        self.pages.arm(armed)
        return self.pages

    def run(self, filled: int, **armed: SlotSet) -> "Desk":
        """Armed, running, with so many pages written and no more resident than the limit."""
        self.pages.arm(armed)
        self.pages.start()
        for page in range(filled):
            self.write(page)
        self.evict()
        return self

    def write(self, page: int, content: bytes | None = None) -> None:
        content = content or self.random.randbytes(PAGE_BYTES)
        self.touch(page)
        self.memory.poke(page, 0, content)
        self.truth[page] = content

    def read(self, page: int) -> bytes:
        self.touch(page)
        return bytes(self.memory.peek(page))

    def touch(self, page: int) -> None:
        try:
            self.memory.peek(page)
        except PageMissing:
            self.pages.fault(page)

    def evict(self) -> None:
        while self.pages.over and self.pages.evict():
            pass

    def wrong_pages(self) -> list[int]:
        """Pages that do not read as they were written."""
        return [page for page in range(self.memory.pages) if self.read(page) != self.truth.get(page, bytes(PAGE_BYTES))]

    def swapped_page(self) -> int:
        return int(self.table.swapped().nonzero()[0][0])


EIO, ENOSPC = errno.EIO, errno.ENOSPC
