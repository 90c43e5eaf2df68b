"""Rooms and files for runs of the command."""

from pathlib import Path

import pytest

from tests.swapferry.scenes import SMALL


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """Where the command puts its temporary things."""
    for name in ("ram", "work"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A scenario file that ends quickly with fake guests."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path
