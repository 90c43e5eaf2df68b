"""What all commands share: their options, how they print, and how they say what went wrong.

Exit codes: 0 it is as it should be; 1 it is not, or something failed; 2 bad usage.
"""

import asyncio
import json as json_module
import os
import sys
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import attrs
import typer
from rich.console import Console
from rich.table import Table

from actors.client import Client
from actors.errors import ActorError
from actors.runtime.clock import RealClock
from bus.broker import Broker
from bus.errors import BusError, Unusable
from bus.topology import Topology
from bus.url import check_url
from paging.errors import PagingError
from swapferry.config import EMBEDDED, default_bus, default_prefix
from swapferry.wiring import brokers

T = TypeVar("T")
FAILED = 1
BUS, PREFIX = default_bus(), default_prefix()
"""what the environment says, where the command line says nothing"""

Bus = Annotated[
    str,
    typer.Option(metavar="amqp://...", help="The broker of the cluster (default: SWAPFERRY_BUS).", show_default=False),
]
Prefix = Annotated[str, typer.Option(metavar="NAME", help="How the cluster's queues begin (default: SWAPFERRY_PREFIX).")]
Dirs = Annotated[
    list[Path] | None,
    typer.Option("--dir", metavar="DIR", help="Read stores kept there instead of asking nodes; may be given for each host."),
]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
Patience = Annotated[float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="How long to wait for an answer.")]


@attrs.frozen(kw_only=True)
class Where:
    """Which cluster a command is about."""

    bus: str = attrs.field(factory=default_bus)
    prefix: str = attrs.field(factory=default_prefix)
    dirs: tuple[Path, ...] = ()
    patience_s: float = 5.0

    @property
    def topology(self) -> Topology:
        """The names on its broker."""
        return Topology(prefix=self.prefix)


def where(bus: str, prefix: str, dirs: Sequence[Path] | None = None, patience_s: float = 5.0) -> Where:
    """Checked options. Raises typer's usage errors."""
    for path in dirs or ():
        if not path.is_dir():
            raise typer.BadParameter(f"{path} is no directory; name the one where the stores (*.db) lie", param_hint="--dir")
    if not dirs:
        _check_bus(bus)
    return Where(bus=bus, prefix=prefix, dirs=tuple(dirs or ()), patience_s=patience_s)


def _check_bus(bus: str) -> None:
    if bus == EMBEDDED:
        raise typer.BadParameter(
            "an embedded bus ends with its run; name the cluster's broker (--bus amqp://... or SWAPFERRY_BUS)", param_hint="--bus"
        )
    try:
        check_url(bus)
    except Unusable as error:
        raise typer.BadParameter(str(error), param_hint="--bus") from None


@asynccontextmanager
async def client_of(place: Where) -> AsyncIterator[Client]:
    """A user on the cluster's bus. Raises `BusError`."""
    client = Client(brokers(place.bus, place.topology)(), f"cli-{os.getpid()}-{uuid.uuid4().hex[:8]}", RealClock())
    await client.open()
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def broker_of(place: Where) -> AsyncIterator[Broker]:
    """A connection to the cluster's bus that hears nothing. Raises `BusError`."""
    broker = brokers(place.bus, place.topology)()
    await broker.open(f"user.cli-{os.getpid()}-{uuid.uuid4().hex[:8]}", lambda _: None)
    try:
        yield broker
    finally:
        await broker.close()


def play(work: Coroutine[Any, Any, T], *, json: bool) -> T:
    """Run it; errors become a sentence on stderr and exit code 1."""
    with errors_told(json=json):
        return asyncio.run(work)


@contextmanager
def errors_told(*, json: bool) -> Iterator[None]:
    """Errors that have a remedy are told in a sentence, not in a traceback."""
    try:
        yield
    except (ActorError, BusError, PagingError, OSError) as error:
        complain(str(error))
        if json:
            print_json({"outcome": "failed", "reason": str(error)})
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def print_json(document: Any) -> None:
    """The one JSON object."""
    sys.stdout.write(json_module.dumps(document, indent=2, default=str) + "\n")


def complain(sentence: str) -> None:
    """Say what is wrong, on stderr."""
    sys.stderr.write(f"swapferry: {sentence}\n")


def table_of(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Rows under columns."""
    filled = [[_shown(cell) for cell in row] for row in rows]
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in filled:
        table.add_row(*row)
    return table


def show(table: Table) -> None:
    """On stdout; of an empty one its title."""
    console = Console()
    if table.row_count:
        console.print(table)
    else:
        console.print(str(table.title), highlight=False, markup=False)


def _shown(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def age(since: float, now: float) -> str:
    """How long ago, for people."""
    if not since:
        return "?"
    seconds = max(0.0, now - since)
    return duration(seconds)


def duration(seconds: float | None) -> str:
    """So long, for people."""
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
