"""Where a run's recording lies: one file, or one for each node that is a process of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from actors.runtime.clock import Clock
from actors.runtime.recorder import NOBODY
from bus.errors import RecordingError
from scenarios.recording.recorder import Recording
from scenarios.scenario import Scenario
from scenarios.world import MakeRecorder


@contextmanager
def recorded(path: Path | None, clock: Clock) -> Iterator[MakeRecorder]:
    """Who is told of the turns of nodes, until the recording ends. Raises `RecordingError` for a path that is of no use."""
    if path is None:
        yield lambda _: NOBODY
        return
    recording = Recording(path, clock, version("swapferry"))
    try:
        yield recording.node
    finally:
        recording.close()


def recording_of(path: Path, node: str) -> Path:
    """The file of a node in a process of its own."""
    return path.with_name(f"{path.name}.{node}").absolute()


def need_new(path: Path, scenario: Scenario, *, processes: bool) -> None:
    """A run is recorded in a file of its own: another run's actors are others. Raises `RecordingError`."""
    paths = [recording_of(path, host.name) for host in scenario.hosts] if processes else [path]
    for one in paths:
        if one.exists():
            raise RecordingError(f"{one} is there already; give another path, or remove it")
