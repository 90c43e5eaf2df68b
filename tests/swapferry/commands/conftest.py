"""One run that was kept, copied for each test that damages it; and one cluster of nodes on a real broker."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rabbitmq import RabbitMQ
from tests.swapferry.commands.clusters import LiveCluster
from tests.swapferry.scenes import SMALL, swapferry


@pytest.fixture(scope="session")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small scene, played to its end by the command; web1 has moved from h1 to h2."""
    rooms = tmp_path_factory.mktemp("run")
    for name in ("ram", "work"):
        (rooms / name).mkdir()
    verify = '[[step]]\ndo = "verify"\nvm = "web1"\n'  # it would fetch every page, and no granted slot would be left
    assert verify in SMALL
    (rooms / "small.toml").write_text(SMALL.replace(verify, "").replace("verified = true\n", ""))
    ended = swapferry(rooms, "run", rooms / "small.toml", "--guest", "fake", "--json", "--keep", rooms / "kept")
    assert ended.returncode == 0, ended.stderr
    return rooms / "kept"


@pytest.fixture
def kept(run_once: Path, tmp_path: Path) -> Path:
    """A copy of what the run kept."""
    return Path(shutil.copytree(run_once, tmp_path / "kept", ignore=shutil.ignore_patterns("*.slots", "log.jsonl")))


@pytest.fixture(scope="module")
def live(rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Two nodes that run, web1 on h1."""
    with LiveCluster(rabbitmq.url, tmp_path_factory.mktemp("live")) as cluster:
        yield cluster
