"""Rooms and files for runs of the command."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.swapferry.scenes import SMALL


@pytest.fixture
def rooms(tmp_path: Path) -> Iterator[Path]:
    """Where the command puts its temporary things: ram on a tmpfs, work on whatever temporary directories are on."""
    (tmp_path / "work").mkdir()
    with tempfile.TemporaryDirectory(prefix="swapferry-test-", dir="/dev/shm") as ram:
        (tmp_path / "ram").symlink_to(ram)
        yield tmp_path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A scenario file that ends quickly with fake guests."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path
