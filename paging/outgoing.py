"""What the source of a move puts on the data channel: table runs where the target reaches the slots, contents elsewhere.

A zero page travels as nothing. Nothing of the guest changes here, so a delivery that broke is simply begun again and its
frames are the same bytes.
"""

import hashlib
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from paging import frames
from paging.device import PAGE_BYTES
from paging.errors import TransferError
from paging.frames import Kind
from paging.guest import Manifest
from paging.page_out import split_zero
from paging.pages import Pages
from paging.policy import runs_of
from paging.swap_table import Phase, TableRun

FRAME_BYTES = 256 << 10
"""A frame is closed when it has grown to this"""


class Outgoing:
    """One delivery of a frozen guest. `near` are the names of devices that the target reaches."""

    manifest: Manifest | None = None
    """what was sent, once all frames were taken"""

    def __init__(self, pages: Pages, near: frozenset[str], state: bytes = b"") -> None:
        if pages.table.phase is not Phase.FROZEN:
            raise TransferError(f"{pages.table.instance} is {pages.table.phase.name.lower()}; only a frozen guest can be sent")
        if len(state) > frames.STATE_BYTES_MAX:
            raise TransferError(f"device state of {len(state)} bytes, at most {frames.STATE_BYTES_MAX}: does RAM travel in it?")
        self._pages, self._state = pages, state
        self._near = {uuid for uuid, name in pages.names.items() if name in near}
        self._pages_sent = self._pages_granted = self._bytes_sent = 0
        self._pages_digest = hashlib.blake2b(digest_size=16)
        self._table_digest = hashlib.blake2b(digest_size=16)

    def frames(self) -> Iterator[bytes]:
        """All frames after the hello, in order; to be taken once. Raises `SlotUnreadable` and `TransferError`."""
        for kind, parts in ((Kind.TABLE, self._table()), (Kind.PAGES, self._contents())):
            for body in _bodies(parts):
                yield self._count(frames.encode(kind, body))
        if self._state:
            yield self._count(frames.encode(Kind.STATE, self._state))
        self.manifest = self._make_manifest()
        yield frames.encode_end(self.manifest)

    def _table(self) -> Iterator[bytes]:
        for whole in self._pages.table.runs(self._near):
            for run in _cut(whole):
                part = frames.table_run_bytes(run)
                self._table_digest.update(part)
                self._pages_granted += run.count
                yield part

    def _contents(self) -> Iterator[bytes]:
        swapped = self._pages.table.swapped()
        # A page that came in while the guest stood still is in RAM and in its slot: the table's word counts.
        resident = np.flatnonzero(self._pages.memory.resident() & ~swapped).tolist()
        for first, count in runs_of(resident):
            for start in range(first, first + count, frames.RUN_PAGES_MAX):
                yield from self._runs(self._filled(range(start, min(start + frames.RUN_PAGES_MAX, first + count))))
        for run in self._far():
            contents = [(run.page + index, memoryview(self._far_content(run.page + index))) for index in range(run.count)]
            yield from self._runs(contents)

    def _filled(self, pages: range) -> list[tuple[int, memoryview]]:
        # A fault may send off a zero page meanwhile; one that is not zero and in no slot stays while the guest is frozen.
        with self._pages.lock:
            return split_zero(self._pages.memory, runs_of([page for page in pages if page in self._pages.clock]))[1]

    def _far(self) -> Iterator[TableRun]:
        table = self._pages.table
        for whole in table.runs(set(table.devices) - self._near):
            yield from _cut(whole, frames.RUN_PAGES_MAX)

    def _far_content(self, page: int) -> bytes:
        entry = self._pages.table.at(page)
        assert entry is not None, f"page {page} left the table of a frozen guest"
        return self._pages.content(page, entry)

    def _runs(self, filled: list[tuple[int, memoryview]]) -> Iterator[bytes]:
        """At most `RUN_PAGES_MAX` pages as runs on the wire."""
        contents = dict(filled)
        for first, count in runs_of([page for page, _ in filled]):
            run = [contents[page] for page in range(first, first + count)]
            checksums = np.array([zlib.crc32(data) for data in run], dtype="<u4").tobytes()
            head = frames.page_run_parts(first, checksums)
            self._pages_digest.update(head)
            self._pages_sent += count
            yield b"".join((head, *run))

    def _count(self, frame: bytes) -> bytes:
        self._bytes_sent += len(frame)
        return frame

    def _make_manifest(self) -> Manifest:
        return Manifest(
            pages_sent=self._pages_sent, pages_granted=self._pages_granted,
            pages_zero=self._pages.memory.pages - self._pages_sent - self._pages_granted, bytes_sent=self._bytes_sent,
            pages_digest=self._pages_digest.hexdigest(), table_digest=self._table_digest.hexdigest(),
            state_bytes=len(self._state), state_digest=state_digest(self._state),
        )  # fmt: skip


def state_digest(state: bytes) -> str:
    """The name of a device state: QEMU itself accepts one with flipped bytes (DATAPLANE 10)."""
    return hashlib.blake2b(state, digest_size=16).hexdigest()


def _cut(run: TableRun, pages_max: int = frames.TABLE_RUN_PAGES_MAX) -> Iterator[TableRun]:
    for start in range(0, run.count, pages_max):
        yield TableRun(run.page + start, run.device, run.slot + start, run.checksums[4 * start : 4 * (start + pages_max)])


def _bodies(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Parts joined to frame bodies of about `FRAME_BYTES`; a body never exceeds that by more than one part."""
    body: list[bytes] = []
    size = 0
    for part in parts:
        body.append(part)
        size += len(part)
        if size >= FRAME_BYTES:
            yield b"".join(body)
            body, size = [], 0
    if body:
        yield b"".join(body)


assert FRAME_BYTES + frames.RUN_PAGES_MAX * (PAGE_BYTES + 4) + 64 < frames.FRAME_BYTES_MAX
