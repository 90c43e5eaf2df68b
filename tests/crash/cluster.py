"""Hosts that are real processes, on a real RabbitMQ, with a user and everything that a strike needs."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from actors.domain.lifecycle import Outcome
from actors.messages import Cancel, Define, Inspect, Inspected, Migrate, Verdict
from actors.runtime.actor import Record
from bus.broker import DeadLetter
from bus.rabbit import RabbitBroker
from bus.rabbit_removal import remove
from bus.topology import Topology
from paging.errors import PagingError
from paging.guest import PageCounts
from paging.process_identity import is_running
from paging.swap_table import Phase, SwapTable
from scenarios.audit import Kept
from scenarios.faults import Faults
from scenarios.runner import definition_of
from scenarios.scenario import About, DeviceSpec, Expect, HostSpec, Scenario, VmSpec
from scenarios.timeline import Entry
from swapferry.processes import ManyProcesses
from swapferry.wiring import GUESTS, RealParts, Rooms, brokers
from tests.support.rabbitmq import RabbitMQ

MIB = 1 << 20
HOSTS = ("h1", "h2", "h3")
VM = "web"
SIZES = {"fake": (8 * MIB, 2 * MIB, 6 * MIB), "qemu": (24 * MIB, 8 * MIB, 12 * MIB)}
"""memory, resident limit, filled"""
CLEAN_PAGES_PER_S = 20_000
START_S = 60.0
LOOK_S = 30.0

__all__ = ["HOSTS", "VM", "Cluster", "Record"]


def scenario_of(guest: str, clean_pages_per_s: int) -> Scenario:
    """Three hosts that reach each other's devices, and one guest."""
    memory, resident, fill = SIZES[guest]
    return Scenario(
        about=About(name="crash"),
        expect=Expect(outcome="done"),
        hosts=tuple(HostSpec(name=host, memory=4 * memory, clean_pages_per_s=clean_pages_per_s) for host in HOSTS),
        devices=tuple(DeviceSpec(name=f"d{host}", home=host, size=3 * memory, reach=HOSTS) for host in HOSTS),
        vms=(
            VmSpec(
                name=VM, host="h1", memory=memory, resident=resident, fill=fill, hot=fill // 2, writes_per_s=300, checks_per_s=100
            ),
        ),
        steps=(),
    )


class Cluster:
    """Its processes go on from round to round."""

    def __init__(self, rabbitmq: RabbitMQ, guest: str, clean_pages_per_s: int = CLEAN_PAGES_PER_S) -> None:
        self.rabbitmq, self.guest = rabbitmq, guest
        self.scenario = scenario_of(guest, clean_pages_per_s)
        run = uuid.uuid4().hex[:8]
        self.topology = Topology(prefix=f"crash-{run}")
        self.rooms = Rooms(
            work=Path(tempfile.mkdtemp(prefix="swapferry-crash-")),
            ram=Path(tempfile.mkdtemp(prefix="swapferry-crash-", dir="/dev/shm")),
        )
        self.parts = RealParts(self.rooms, brokers(rabbitmq.url, self.topology), GUESTS[guest], Faults())
        self.world = ManyProcesses(
            self.scenario, self.parts, self.rooms, bus=rabbitmq.url, guest=guest, topology=self.topology, user=run,
            fault_doors=True,
        )  # fmt: skip
        self._offsets: dict[Path, int] = {}

    # -- life

    async def start(self) -> None:
        """All nodes run, and the guest does."""
        await self.world.start()
        self.rabbitmq.write_names()
        client = self.world.client
        body = Define(request=client.new_request(), definition=definition_of(self.scenario.vms[0]), host="h1")
        answer = await client.ask(body, START_S)
        assert isinstance(answer, Verdict)
        assert answer.outcome is Outcome.DONE, answer.reason

    async def stop(self) -> list[str]:
        """End everything; what was left or is not as it should be."""
        try:
            return await self.world.stop()
        finally:
            with contextlib.suppress(Exception):
                await remove(self.rabbitmq.url, self.topology, HOSTS)
            shutil.rmtree(self.rooms.ram, ignore_errors=True)
            shutil.rmtree(self.rooms.work, ignore_errors=True)

    def keep(self, where: Path) -> Path:
        """A copy of everything that the nodes wrote, for a look at leisure."""
        shutil.copytree(self.rooms.work, where / "work", ignore=shutil.ignore_patterns("*.slots", "*.lock"))
        shutil.copytree(self.rooms.ram, where / "ram", ignore=shutil.ignore_patterns("ram", "*.sock", "qmp", "*.socket"))
        return where

    # -- the user

    async def migrate(self, target: str, deadline_s: float) -> Verdict:
        """Ask until there is a verdict. Raises `NoAnswer`."""
        client = self.world.client
        body = Migrate(request=client.new_request(), vm=VM, target=target, reply_to=client.address)
        verdict = await client.ask(body, deadline_s)
        assert isinstance(verdict, Verdict)
        return verdict

    async def cancel(self, deadline_s: float) -> Verdict:
        """Ask that the migration be undone. Raises `NoAnswer`."""
        client = self.world.client
        verdict = await client.ask(Cancel(request=client.new_request(), vm=VM, reply_to=client.address), deadline_s)
        assert isinstance(verdict, Verdict)
        return verdict

    async def verify(self, deadline_s: float) -> Inspected:
        """Let the guest check all of its memory. Raises `NoAnswer`."""
        client = self.world.client
        body = Inspect(request=client.new_request(), vm=VM, verify=True, reply_to=client.address)
        answer = await client.ask(body, deadline_s)
        assert isinstance(answer, Inspected)
        return answer

    async def look(self) -> PageCounts:
        """How the guest's memory lies. Raises `NoAnswer`."""
        client = self.world.client
        body = Inspect(request=client.new_request(), vm=VM, verify=False, reply_to=client.address)
        answer = await client.ask(body, LOOK_S)
        assert isinstance(answer, Inspected)
        assert answer.counts is not None, answer.words
        return answer.counts

    async def dead_letters(self) -> list[DeadLetter]:
        """What the bus could not bring to anybody, or an actor refused."""
        broker = RabbitBroker(self.rabbitmq.url, topology=self.topology)
        await broker.open("looker", lambda _delivery: None)
        try:
            return list(await broker.dead_letters(1000))
        finally:
            await broker.close()
            await remove(self.rabbitmq.url, self.topology, ["looker"])

    # -- striking

    def node(self, host: str) -> None:
        """Kill it."""
        self.world.nodes[host].kill()

    async def arm(self, host: str, *faults: str) -> None:
        """These faults ("point=action"), and no others, in the node of this host, when it works. Raises `Failed`."""
        node = self.world.nodes[host]
        while True:
            await node.ready()
            try:
                return node.arm(",".join(faults))
            except OSError:  # it died just now; its supervisor is about to notice
                await asyncio.sleep(0.05)

    async def disarm(self) -> None:
        """No more faults."""
        for host in HOSTS:
            await self.arm(host)

    def pagers(self, host: str) -> None:
        """Kill all of this host."""
        for process in self.world.processes("pager", host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    async def broker(self, away_s: float = 0.0) -> None:
        """Kill it, and have it back after so long (and the seconds that it takes to start)."""
        await asyncio.to_thread(self.rabbitmq.kill)
        await asyncio.sleep(away_s)
        await asyncio.to_thread(self.rabbitmq.restart)

    async def stopped(self, host: str, lasts_s: float) -> None:
        """The node stands still so long."""
        node = self.world.nodes[host]
        node.signal(signal.SIGSTOP)
        await asyncio.sleep(lasts_s)
        node.signal(signal.SIGCONT)

    def starts(self) -> int:
        """How many node processes were started until now."""
        return sum(node.starts for node in self.world.nodes.values())

    async def all_ready(self) -> None:
        """Until every node works. Raises `Failed`."""
        await asyncio.gather(*(node.ready() for node in self.world.nodes.values()))

    # -- looking

    def kept(self) -> list[Kept]:
        """What all actors have kept until now."""
        return self.world.kept()

    def running(self) -> list[str]:
        """Hosts on which a machine of the guest runs (swap table in phase `running`, its process alive)."""
        found = []
        for host in HOSTS:
            for path in (self.rooms.ram / host).glob(f"*/{VM}@*/swap-table"):
                with contextlib.suppress(PagingError):
                    table = SwapTable.inspect(path)
                    if table.phase is Phase.RUNNING and is_running(table.process):
                        found.append(host)
                    table.close()
        return found

    def entries(self) -> list[Entry]:
        """The timeline."""
        return self.world.entries()

    def news(self, name: str) -> Iterator[str]:
        """What was written since last time into the files of this name (logs, timelines)."""
        for path in sorted(self.rooms.work.glob(name)):
            with path.open(encoding="utf-8", errors="replace") as file:
                file.seek(self._offsets.get(path, 0))
                text = file.read()
            whole = text[: text.rfind("\n") + 1]
            self._offsets[path] = self._offsets.get(path, 0) + len(whole.encode("utf-8", "replace"))
            yield from whole.splitlines()
