"""File devices: slots keep what was written; whatever is not this device is refused, and nothing is damaged by a refusal."""

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from paging.device import PAGE_BYTES, DevicePath
from paging.errors import DeviceError
from paging.file_device import FileDevice, format_device, read_superblock
from paging.superblock import slot_offset
from tests.paging.parts import make_device

SLOTS = 200


@pytest.fixture
def where(tmp_path: Path) -> DevicePath:
    return make_device(tmp_path, "a", SLOTS)


@pytest.fixture
def device(where: DevicePath) -> Iterator[FileDevice]:
    device = FileDevice.open(where)
    yield device
    device.close()
    device.close()


def page(number: int) -> bytes:
    return bytes([number % 251 + 1]) * PAGE_BYTES


def test_slots_keep_what_was_written(device: FileDevice):
    device.write(3, [page(number) for number in range(100)])
    device.write(50, [memoryview(page(7))])
    device.flush()

    assert device.read(3) == page(0)
    assert device.read(102) == page(99)
    assert device.read(50) == page(7)
    assert device.read(2) == bytes(PAGE_BYTES)


def test_two_pagers_share_a_device(where: DevicePath, device: FileDevice):
    other = FileDevice.open(where)
    other.write(5, [page(5)])

    assert device.read(5) == page(5)
    other.close()


@pytest.mark.parametrize("slot", [-1, SLOTS, SLOTS + 5])
def test_there_is_nothing_beyond_the_last_slot(device: FileDevice, slot: int):
    with pytest.raises(ValueError, match="beyond"):
        device.read(slot)
    with pytest.raises(ValueError, match="beyond"):
        device.write(slot, [page(1)])


def test_a_write_may_not_run_over_the_end(device: FileDevice):
    with pytest.raises(ValueError, match="beyond"):
        device.write(SLOTS - 1, [page(1), page(2)])
    assert device.read(SLOTS - 1) == bytes(PAGE_BYTES)


def test_a_device_that_shrinks_while_open_gives_an_error_and_no_zeros(where: DevicePath, device: FileDevice):
    os.truncate(where.path, slot_offset(10))

    with pytest.raises(OSError, match="truncated"):
        device.read(20)


def test_a_superblock_says_what_was_formatted(tmp_path: Path):
    made = format_device(tmp_path / "b", 12, incarnation=3)

    assert read_superblock(tmp_path / "b") == made
    assert (made.slot_count, made.incarnation, made.slot_bytes) == (12, 3, PAGE_BYTES)


def test_a_file_that_holds_something_is_not_formatted_unless_told(tmp_path: Path):
    path = tmp_path / "precious"
    path.write_bytes(b"x" * 10_000)

    with pytest.raises(DeviceError, match="holds something already"):
        format_device(path, 10)
    assert path.read_bytes() == b"x" * 10_000

    format_device(path, 10, overwrite=True)
    assert read_superblock(path).slot_count == 10


def test_a_device_in_use_is_not_formatted_again(where: DevicePath):
    before = where.path.read_bytes()

    with pytest.raises(DeviceError, match="holds something already"):
        format_device(where.path, SLOTS)
    assert where.path.read_bytes() == before


def test_a_missing_device_is_refused_with_its_path(tmp_path: Path):
    nowhere = DevicePath(name="a", path=tmp_path / "nowhere", uuid="u")

    with pytest.raises(DeviceError, match=r"nowhere cannot be opened.*format it first"):
        FileDevice.open(nowhere)
    assert not nowhere.path.exists()


def spoil(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


@pytest.mark.parametrize(
    ("at", "content", "complaint"),
    [
        pytest.param(0, b"SWAPSPACE2", "foreign superblock", id="foreign"),
        pytest.param(8, b"\x07", "version 7", id="other version"),
        pytest.param(33, b"\xff", "damaged superblock", id="flipped bit"),
    ],
)
def test_a_foreign_superblock_is_refused_and_not_touched(where: DevicePath, at: int, content: bytes, complaint: str):
    spoil(where.path, at, content)
    before = where.path.read_bytes()

    with pytest.raises(DeviceError, match=complaint) as refusal:
        FileDevice.open(where)

    assert str(where.path) in str(refusal.value)
    assert where.path.read_bytes() == before


@pytest.mark.parametrize("size", [0, 100, 4096, slot_offset(SLOTS) - 1])
def test_a_truncated_device_is_refused_and_not_touched(where: DevicePath, size: int):
    os.truncate(where.path, size)

    with pytest.raises(DeviceError, match=r"truncated|foreign superblock or none"):
        FileDevice.open(where)
    assert where.path.stat().st_size == size


def test_a_device_with_another_uuid_is_refused(where: DevicePath, tmp_path: Path):
    other = make_device(tmp_path, "b", SLOTS)

    with pytest.raises(DeviceError, match=f"is device {other.uuid}, not {where.uuid}"):
        FileDevice.open(attrs.evolve(where, path=other.path))


def test_directories_and_pipes_are_no_devices(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(DeviceError, match="name a file or a block device"):
            FileDevice.open(DevicePath(name="a", path=path, uuid="u"))


def test_a_device_that_is_served_already_is_busy(where: DevicePath, device: FileDevice):
    device.lock()
    second = FileDevice.open(where)

    with pytest.raises(DeviceError, match=r"is busy, another swapferry serves it"):
        second.lock()
    second.write(1, [page(1)])

    device.close()
    second.lock()
    second.close()


def test_a_device_that_was_exchanged_is_noticed(where: DevicePath, device: FileDevice, tmp_path: Path):
    assert device.check() == device.identity

    make_device(tmp_path, "b", SLOTS).path.replace(where.path)

    with pytest.raises(DeviceError, match="put the old one back"):
        device.check()
