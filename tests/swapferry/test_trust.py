"""A store or a device from an old backup is told from the real one, and refused."""

import shutil
from pathlib import Path

import pytest

from actors.errors import StoreError
from actors.runtime.sqlite import SqliteStore
from paging.device import DevicePath
from paging.errors import DeviceError
from paging.superblock import format_device, read_superblock, stamp
from swapferry.config import NodeDevice, NodeFile, NodeSection, write_node_file
from swapferry.trust import introduce, trust
from tests.swapferry.scenes import swapferry


@pytest.fixture
def device(tmp_path: Path) -> DevicePath:
    path = tmp_path / "san0.slots"
    return DevicePath(name="san0", path=path, uuid=format_device(path, 64).uuid)


def copy_of(path: Path) -> Path:
    return Path(shutil.copy(path, path.with_name(f"{path.name}.backup")))


async def test_a_node_that_starts_again_and_again_is_trusted(tmp_path: Path, device: DevicePath) -> None:
    for _ in range(3):
        await trust(tmp_path / "h1.db", [device])

    assert read_superblock(device.path).incarnation == 4


async def test_an_old_store_is_refused(tmp_path: Path, device: DevicePath) -> None:
    store = tmp_path / "h1.db"
    await trust(store, [device])
    backup = copy_of(store)
    await trust(store, [device])

    with pytest.raises(StoreError, match="restored from an old backup"):
        await trust(backup, [device])


async def test_a_new_store_for_a_device_that_was_in_use_is_refused(tmp_path: Path, device: DevicePath) -> None:
    await trust(tmp_path / "h1.db", [device])

    with pytest.raises(StoreError, match="or is a new one"):
        await trust(tmp_path / "other.db", [device])


async def test_an_old_device_is_refused(tmp_path: Path, device: DevicePath) -> None:
    store = tmp_path / "h1.db"
    await trust(store, [device])
    backup = copy_of(device.path)
    await trust(store, [device])
    shutil.copy(backup, device.path)

    with pytest.raises(DeviceError, match="restored from an old backup or formatted anew"):
        await trust(store, [device])


@pytest.mark.parametrize("stamped", [False, True], ids=["before the stamp", "after it"])
async def test_a_crash_while_the_device_is_stamped_harms_nobody(tmp_path: Path, device: DevicePath, stamped: bool) -> None:
    store = SqliteStore(tmp_path / "h1.db")
    await store.open()
    await store.set_note(f"stamp:{device.uuid}", 1)
    await store.set_note(f"stamping:{device.uuid}", 2)
    await store.close()
    if stamped:
        stamp(device.path, 2)

    await trust(tmp_path / "h1.db", [device])
    await trust(tmp_path / "h1.db", [device])


async def test_a_device_is_introduced_to_a_new_cluster(tmp_path: Path, device: DevicePath) -> None:
    await trust(tmp_path / "h1.db", [device])

    await introduce(tmp_path / "new.db", device)

    await trust(tmp_path / "new.db", [device])


def test_a_stamp_only_grows(device: DevicePath) -> None:
    stamp(device.path, 7)

    with pytest.raises(DeviceError, match="in incarnation 7 already"):
        stamp(device.path, 7)


def test_a_damaged_stamp_is_refused(device: DevicePath) -> None:
    stamp(device.path, 7)
    with device.path.open("r+b") as file:
        file.seek(2050)
        file.write(b"\xff")

    with pytest.raises(DeviceError, match="damaged stamp"):
        read_superblock(device.path)


def test_a_node_with_a_store_that_does_not_know_its_device_does_not_start(rooms: Path, device: DevicePath) -> None:
    stamp(device.path, 5)
    node = NodeSection(
        host="h1", bus="amqp://guest:guest@127.0.0.1:9/", store=rooms / "h1.db", directory=rooms / "ram" / "h1", memory=1 << 26,
        guest="fake",
    )  # fmt: skip
    known = NodeDevice(name="san0", home="h1", uuid=device.uuid, slots=64, path=device.path)
    write_node_file(NodeFile(node=node, devices=(known,)), rooms / "h1.toml")

    ended = swapferry(rooms, "node", "--config", rooms / "h1.toml")

    assert ended.returncode == 1
    assert "would give slots out twice" in ended.stderr
