"""Refuses a store or a device that was restored from an old backup: it would bring generations back that were given out since.

Each start of a node stamps its home devices with a number that only grows, and keeps the number in its store; the two must know
the same one. The store is told before the stamp and after it, so a crash between leaves both numbers known.
A store and its devices that were restored together, from one moment, are not told from the real ones here: what other hosts know
of later generations does (`swapferry fsck`).
"""

from collections.abc import Iterable
from pathlib import Path

from actors.errors import StoreError
from actors.runtime.sqlite import SqliteStore
from paging.device import DevicePath
from paging.errors import DeviceError
from paging.superblock import read_superblock, stamp

FIRST = 1
"""the incarnation of a device that was just formatted"""
REMEDY = "put the newest one back, or declare this host dead and bring it back under a new name with devices formatted anew"


async def trust(store_path: Path, devices: Iterable[DevicePath]) -> None:
    """Check the devices whose ledgers this store keeps, and stamp them anew. Raises `DeviceError` and `StoreError`."""
    devices = list(devices)
    store = SqliteStore(store_path)
    await store.open()
    try:
        known = {device.name: await _known(store, device) for device in devices}
        for device in devices:
            _check(store_path, device, read_superblock(device.path).incarnation, known[device.name])
        for device in devices:
            await _stamp(store, device)
    finally:
        await store.close()


async def introduce(store_path: Path, device: DevicePath) -> None:
    """Begin anew with a device that other stores have known: nothing on it is of use to anybody any more."""
    store = SqliteStore(store_path)
    await store.open()
    try:
        await store.set_note(f"stamp:{device.uuid}", read_superblock(device.path).incarnation)
    finally:
        await store.close()


async def _known(store: SqliteStore, device: DevicePath) -> frozenset[int]:
    """The incarnations that the device may be in, as the store knows; empty: it never had this device."""
    notes = [await store.note(f"stamp:{device.uuid}"), await store.note(f"stamping:{device.uuid}")]
    return frozenset(note for note in notes if note is not None)


def _check(store: Path, device: DevicePath, found: int, known: frozenset[int]) -> None:
    if found in known or (not known and found == FIRST):
        return
    if known and found < min(known):
        raise DeviceError(
            f"swap device {device.name}: {device.path} is in incarnation {found}, its store {store} has seen {max(known)}: "
            f"it was restored from an old backup or formatted anew, and has lost pages; {REMEDY}"
        )
    raise StoreError(
        f"{store}: it knows device {device.name} in incarnation {max(known, default=0)}, {device.path} is in {found}: "
        f"the store was restored from an old backup or is a new one, and would give slots out twice; {REMEDY}"
    )


async def _stamp(store: SqliteStore, device: DevicePath) -> None:
    found = read_superblock(device.path).incarnation
    await store.set_note(f"stamp:{device.uuid}", found)
    await store.set_note(f"stamping:{device.uuid}", found + 1)
    stamp(device.path, found + 1)
    await store.set_note(f"stamp:{device.uuid}", found + 1)
