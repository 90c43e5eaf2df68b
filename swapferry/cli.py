"""The command line. Says what it was told, on stdout what was asked for, on stderr what went wrong.

Exit codes: 0 the expectation held; 1 it did not, or something failed; 2 bad usage or a bad file; 128 + n: signal n.
"""

import json as json_module
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from actors.errors import ActorError
from bus.errors import BusError, Unusable
from bus.url import check_url
from paging.errors import PagingError
from scenarios.check import foresee
from scenarios.errors import BadFile, ScenarioError
from scenarios.load import load
from scenarios.scenario import FAULTS, KILLS
from swapferry import cli_chaos, cli_replay, commands
from swapferry.config import EMBEDDED, BadPlace, default_bus, read_node_file
from swapferry.logs import log_errors_to_stderr, log_for_a_service
from swapferry.node import serve
from swapferry.play import Wish, play
from swapferry.screen import Screen
from swapferry.signals import Told, run_until_told

app = typer.Typer(
    name="swapferry",
    help="Live migration for over-committed virtual machines that leaves swapped-out memory where it is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
FAILED, BAD = 1, 2


class GuestKind(StrEnum):
    """What stands behind a guest."""

    QEMU = "qemu"
    FAKE = "fake"


Record = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write everything that actors hear and decide there, for `swapferry replay`.")
]
ScenarioPath = Annotated[Path, typer.Argument(metavar="SCENARIO.toml", help="The scenario file; scenarios/scenes has some.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]


def main() -> None:
    """Entry point of the command."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"swapferry {version_of('swapferry')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Live migration for over-committed virtual machines that leaves swapped-out memory where it is."""
    log_errors_to_stderr()


@app.command()
def run(  # noqa: PLR0917 - one parameter for each option
    scenario: ScenarioPath,
    bus: Annotated[str, typer.Option(metavar="embedded|amqp://...", help="The bus that the actors talk over.")] = default_bus(),
    guest: Annotated[GuestKind, typer.Option(help="Real machines, or fake ones with real bytes.")] = GuestKind.QEMU,
    json: Json = False,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep stores, slot files and logs there.")] = None,
    processes: Annotated[bool, typer.Option("--processes", help="One process per host; needs an amqp:// bus.")] = False,
    record: Record = None,
) -> None:
    """Play a scenario; exit with 0 only if its expectation held."""
    screen = Screen(Console(stderr=json))
    with _errors_told(json):
        _check_bus(bus)
        wish = Wish(scenario=load(scenario), bus=bus, guest=guest.value, keep=keep, processes=processes, record=record)
        _check_processes(wish)
        report = run_until_told(play(wish, screen))
    if json:
        _print_json(report.to_json())
    else:
        screen.report(report)
    for broken in report.broken:
        _complain(broken)
    raise typer.Exit(FAILED if report.broken else 0)


@app.command()
def check(scenario: ScenarioPath, json: Json = False) -> None:
    """Say whether each migration of a scenario can run and what it would grant, send and skip; move nothing."""
    with _errors_told(json):
        forecast = foresee(load(scenario))
    if json:
        _print_json(forecast.to_json())
    else:
        Screen(Console()).forecast(forecast)
    for problem in forecast.problems:
        _complain(problem)
    raise typer.Exit(FAILED if forecast.problems else 0)


@app.command()
def node(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The node's TOML file.")],
    record: Record = None,
) -> None:
    """Run the actors of one host until told to end (SIGTERM or Ctrl-C)."""
    log_for_a_service()
    with _errors_told(json=False):
        try:
            run_until_told(serve(read_node_file(config), record))
        except Told:
            return


commands.register(app)
cli_chaos.register(app)
cli_replay.register(app)


def _print_json(document: Any) -> None:
    sys.stdout.write(json_module.dumps(document, indent=2) + "\n")


def _complain(sentence: str) -> None:
    sys.stderr.write(f"swapferry: {sentence}\n")


def _check_bus(bus: str) -> None:
    if bus == EMBEDDED:
        return
    try:
        check_url(bus)
    except Unusable as error:
        raise typer.BadParameter(f"{error}; or {EMBEDDED}", param_hint="--bus") from None


def _check_processes(wish: Wish) -> None:
    if not wish.processes:
        if any(isinstance(step, KILLS) for step in wish.scenario.steps):
            raise typer.BadParameter("the scenario kills processes of hosts: --processes --bus amqp://...")
        return
    if wish.bus == EMBEDDED:
        raise typer.BadParameter("processes need a bus between them: --bus amqp://...", param_hint="--processes")
    meddling = [type(step).__name__ for step in wish.scenario.steps if isinstance(step, FAULTS)]
    if meddling:
        raise typer.BadParameter(f"the scenario meddles with its parts ({meddling[0]}), so they must be in one process")


@contextmanager
def _errors_told(json: bool) -> Iterator[None]:
    try:
        yield
    except BadFile as error:
        for problem in error.problems:
            _complain(str(problem))
        raise typer.Exit(BAD) from None
    except Told as told:
        _complain(str(told))
        raise typer.Exit(told.exit_code) from None
    except (BadPlace, ScenarioError, ActorError, BusError, PagingError, OSError) as error:
        _complain(str(error))
        if json:
            _print_json({"outcome": "failed", "verified": None, "reason": str(error)})
        raise typer.Exit(FAILED) from None
