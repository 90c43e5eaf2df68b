"""Clusters for tests of commands: stores of a kept run that can be damaged, and nodes that run on a broker."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from actors.domain.lifecycle import Outcome
from actors.hypervisor import Hypervisor
from actors.messages import MANAGER, Define
from actors.resource_manager import ResourceManager
from actors.runtime.actor import Heard, Record, Turn
from actors.runtime.sqlite import SqliteStore
from actors.runtime.store import Change
from actors.swap_device import SwapDevice
from paging.guest import Definition, Workload
from swapferry.cli import app
from swapferry.commands.common import Where, client_of
from swapferry.config import NodeDevice, NodeFile, NodeSection, write_node_file

MOVED = "web1@h2.h1-1"
KINDS = {"hypervisor": Hypervisor.kinds, "swap-device": SwapDevice.kinds, MANAGER: ResourceManager.kinds}


def command(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Run the command in this process; its exit code and its JSON."""
    ended = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, json.loads(ended.stdout) if ended.stdout.strip() else {}


def damage(store: Path, actor: str, change: Callable[[Turn], None]) -> None:
    """Change the record of an actor behind its back."""

    async def work() -> None:
        opened = SqliteStore(store)
        await opened.open()
        try:
            values, _ = await opened.load(actor, KINDS[actor.partition(".")[0]])
            turn = Turn(Record(values), Heard(id="damage", source="", body=None))
            change(turn)
            await opened.commit([Change(actor=actor, values=turn.decision().changes)])
        finally:
            await opened.close()

    asyncio.run(work())


class LiveCluster:
    """Two nodes as processes, fake guests, one VM."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url, self.directory, self.prefix = url, directory, "live"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._rooms = ExitStack()

    def __enter__(self) -> "LiveCluster":
        self._ram = Path(self._rooms.enter_context(tempfile.TemporaryDirectory(prefix="swapferry-test-", dir="/dev/shm")))
        for host in ("h1", "h2"):
            self.start(host)
        asyncio.run(self._define())
        return self

    def __exit__(self, *_: object) -> None:
        for host in list(self._processes):
            self.stop(host)
        self._rooms.close()

    def start(self, host: str) -> None:
        path = self.directory / f"{host}.toml"
        write_node_file(self._file(host), path)
        with (self.directory / f"{host}.log").open("ab") as log:
            command = [sys.executable, "-m", "swapferry", "node", "--config", str(path)]
            self._processes[host] = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, host: str) -> None:
        process = self._processes.pop(host)
        process.terminate()
        process.wait(timeout=60)

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The command as an operator runs it."""
        environment = {**os.environ, "SWAPFERRY_BUS": self.url, "SWAPFERRY_PREFIX": self.prefix, "COLUMNS": "200"}
        command = [sys.executable, "-m", "swapferry", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=environment, input=stdin
        )

    def here(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """The same in this process, which saves its start."""
        return command(*arguments, "--bus", self.url, "--prefix", self.prefix)

    def json(self, *arguments: str) -> dict[str, Any]:
        """What it says, where it succeeds."""
        code, told = self.here(*arguments)
        assert code == 0, told
        return told

    async def _define(self) -> None:
        work = Workload(fill_bytes=12 << 20, hot_bytes=1 << 20, writes_per_s=50, checks_per_s=50)
        definition = Definition(vm="web1", memory_bytes=16 << 20, resident_bytes=4 << 20, workload=work)
        async with client_of(Where(bus=self.url, prefix=self.prefix)) as client:
            answer = await client.ask(Define(request=client.new_request(), host="h1", definition=definition), 60)
        assert answer.outcome is Outcome.DONE, answer

    def _file(self, host: str) -> NodeFile:
        devices = (
            self._device("san0", "h1", "5d3c0b0e-6a51-4f0e-9f35-0c4c3a1d7e10", reached=True),
            self._device("local2", "h2", "a4f7c7c2-0b57-4b5b-8a35-2f1f6f0f9b22", reached=host == "h2"),
        )
        node = NodeSection(
            host=host, hosts=("h1", "h2"), bus=self.url, prefix=self.prefix, store=self.directory / f"{host}.db",
            directory=self._ram / host, memory=32 << 20, guest="fake", roles=("resource-manager",) if host == "h1" else (),
        )  # fmt: skip
        return NodeFile(node=node, devices=devices)

    def _device(self, name: str, home: str, uuid: str, *, reached: bool) -> NodeDevice:
        path = self.directory / f"{name}.slots" if reached else None
        return NodeDevice(name=name, home=home, uuid=uuid, slots=8192, path=path)
