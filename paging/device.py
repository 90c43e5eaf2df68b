"""The port `SlotDevice`: a swap device as a host's pager sees it. Adapters: `paging.file_device` (later: NBD).

A device knows nothing of rights: the ledger (the swap-device actor) decides who owns a slot, a pager writes only slots
that it was armed with (PROTOCOL 12, 13.8).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import attrs

PAGE_BYTES = 4096
"""Slot size = page size, everywhere."""


@attrs.frozen(kw_only=True)
class DeviceId:
    """What the superblock says: this, not a path, is the device's identity."""

    uuid: str
    slot_count: int
    slot_bytes: int = PAGE_BYTES
    version: int = 1
    incarnation: int = 1


@attrs.frozen(kw_only=True)
class DevicePath:
    """A device by name and the path under which this host reaches it; `uuid` is what the superblock there must say."""

    name: str
    path: Path
    uuid: str


class SlotDevice(ABC):
    """Page-sized slots, numbered from 0. All calls block; buffers are whole pages."""

    identity: DeviceId

    @abstractmethod
    def read(self, slot: int) -> bytes:
        """One slot's content (4096 bytes). Raises `OSError` (EIO, ...) and `ValueError` out of bounds."""

    @abstractmethod
    def write(self, slot: int, pages: Sequence[bytes | memoryview]) -> None:
        """Write consecutive slots from `slot` on, durable against a crash of this process (not of the host)."""

    @abstractmethod
    def flush(self) -> None:
        """Make what was written durable against power loss."""

    @abstractmethod
    def close(self) -> None:
        """Give the descriptor back. Idempotent."""
