"""Plays one scenario from the command line: makes its rooms and parts, runs it, leaves nothing behind."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import structlog

from actors.runtime.clock import RealClock
from bus.errors import Transient
from bus.rabbit_removal import remove
from bus.topology import Topology
from scenarios.faults import Faults
from scenarios.parts import Parts
from scenarios.report import Report
from scenarios.runner import Runner
from scenarios.scenario import Scenario
from scenarios.world import MakeRecorder, OneProcess, World
from swapferry.config import EMBEDDED, Places, need_tmpfs, places
from swapferry.logs import log_everything_to
from swapferry.processes import ManyProcesses
from swapferry.recorded import need_new, recorded
from swapferry.screen import Screen
from swapferry.wiring import GUESTS, RealParts, Rooms, brokers

log = structlog.get_logger("swapferry.play")


@attrs.frozen(kw_only=True)
class Wish:
    """What the command line asks for."""

    scenario: Scenario
    bus: str
    guest: str
    keep: Path | None
    processes: bool
    record: Path | None = None


async def play(wish: Wish, screen: Screen) -> Report:
    """Run the scenario and return what it came to. Whatever happens, no guest and no temporary file is left."""
    run = uuid.uuid4().hex[:8]
    topology = Topology(prefix=f"swapferry-{run}")
    where = places()
    if wish.guest == "qemu":
        need_tmpfs(where.ram)
    if wish.record is not None:
        need_new(wish.record, wish.scenario, processes=wish.processes)
    own = None if wish.processes else wish.record
    with rooms(where, wish.keep) as directories, recorded(own, RealClock()) as recorder, screen.live():
        if wish.keep is not None:
            log_everything_to(wish.keep / "log.jsonl")
        faults = Faults()
        parts = RealParts(directories, brokers(wish.bus, topology), GUESTS[wish.guest], faults)
        try:
            world = _world(wish, parts, faults, directories, topology, recorder, user=run)
            runner = Runner(wish.scenario, world, RealClock(), screen)
            return await runner.run("embedded" if wish.bus == EMBEDDED else "rabbitmq", wish.guest)
        finally:
            parts.close()
            await _remove_queues(wish, topology)


async def _remove_queues(wish: Wish, topology: Topology) -> None:
    if wish.bus == EMBEDDED:
        return
    try:
        await remove(wish.bus, topology, [host.name for host in wish.scenario.hosts])
    except Transient as error:
        log.error("queues_left", error=str(error))


def _world(  # noqa: PLR0917 - everything that a world is made of
    wish: Wish, parts: Parts, faults: Faults, directories: Rooms, topology: Topology, recorder: MakeRecorder, *, user: str
) -> World:
    if wish.processes:
        return ManyProcesses(
            wish.scenario, parts, directories, bus=wish.bus, guest=wish.guest, topology=topology, user=user,
            record=wish.record,
        )
    return OneProcess(wish.scenario, parts, faults, user=user, recorder=recorder)


@contextmanager
def rooms(where: Places, keep: Path | None) -> Iterator[Rooms]:
    """The directories of one run; removed afterwards, but for what is to be kept."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    work = keep or Path(tempfile.mkdtemp(prefix="swapferry-", dir=where.work))
    ram = Path(tempfile.mkdtemp(prefix="swapferry-", dir=where.ram))
    try:
        yield Rooms(work=work, ram=ram)
    finally:
        shutil.rmtree(ram, ignore_errors=True)
        if keep is None:
            shutil.rmtree(work, ignore_errors=True)
