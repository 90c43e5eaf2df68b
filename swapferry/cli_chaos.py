"""`swapferry chaos`: worlds from seeds, many at once, and what they broke, covered and missed."""

import json as json_module
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import attrs
import structlog
import typer
from rich.console import Console
from rich.table import Table

from scenarios.errors import BadFile
from scenarios.sim.chaos import Broken, History, Report, Spread, Wish, chaos, one_by_one, play
from scenarios.sim.faults import CRASH_POINTS, FATES, MISHAPS
from scenarios.sim.script import Script, load_script
from scenarios.sim.shrink import shrink
from scenarios.sim.turns import LABELS
from scenarios.sim.world import Limits, Size

CHUNK_SEEDS = 8
PROGRESS_S = 2.0


class ProfileName(StrEnum):
    """How rough a world is."""

    CALM = "calm"
    ROUGH = "rough"
    BRUTAL = "brutal"


Count = Annotated[int, typer.Option(min=1)]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="chaos")(command)


def command(  # noqa: PLR0917 - one parameter for each option
    seeds: Annotated[int, typer.Option(min=1, help="How many worlds.")] = 100,
    start: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    profile: Annotated[ProfileName, typer.Option(help="How rough the worlds are.")] = ProfileName.ROUGH,
    hosts: Annotated[int, typer.Option(min=1, max=64, help="Hosts in each world.")] = 3,
    vms: Annotated[int, typer.Option(min=1, max=64, help="VMs in each world.")] = 4,
    devices: Annotated[int, typer.Option(min=1, max=64, help="Swap devices in each world.")] = 2,
    jobs: Annotated[int, typer.Option(min=1, help="Processes to play them in.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="Play this one seed, twice, and compare.")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="With --seed: tell its story.")] = False,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Play what `replay --as-scenario` wrote, in place of worlds from seeds.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")] = False,
) -> None:
    """Play simulated worlds full of faults; exit with 0 only if no rule was broken in any of them."""
    be_quiet()
    script = None if scenario is None else _script(scenario)
    wish = Wish(profile=profile.value, size=Size(hosts=hosts, vms=vms, devices=devices), script=script)
    if seed is not None:
        _again(seed, wish, trace)
        return
    console = Console(stderr=json)
    report = chaos(seeds, wish, start=start, spread=spread_over(jobs), now=time.perf_counter, progress=_Progress(console, seeds))
    if json:
        sys.stdout.write(json_module.dumps(report.to_json(), indent=2) + "\n")
    else:
        show(console, report)
    if report.broken:
        _tell(console, report.broken[0], wish)
    raise typer.Exit(1 if report.broken else 0)


def _script(path: Path) -> Script:
    try:
        return load_script(path)
    except BadFile as error:
        for problem in error.problems:
            sys.stderr.write(f"swapferry: {problem}\n")
        raise typer.Exit(2) from None


def be_quiet() -> None:
    """What actors log in a simulated world is nobody's business: the story tells it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    structlog.configure(processors=[_drop])


def _drop(_logger: object, _name: str, _event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    raise structlog.DropEvent


def spread_over(jobs: int) -> Spread:
    """Seeds over so many processes; the histories come in the order of seeds all the same."""
    return one_by_one if jobs == 1 else partial(_spread, jobs)


def _spread(jobs: int, seeds: Iterable[int], wish: Wish) -> Iterator[History]:
    with ProcessPoolExecutor(jobs, initializer=be_quiet) as pool:
        yield from pool.map(partial(play, wish=wish), seeds, chunksize=CHUNK_SEEDS)


class _Progress:
    """A line now and then: how many, how fast."""

    def __init__(self, console: Console, seeds: int) -> None:
        self._console, self._seeds, self._told = console, seeds, 0.0

    def __call__(self, report: Report) -> None:
        if report.seconds - self._told < PROGRESS_S and not (report.broken and report.broken[-1].seed == _last(report)):
            return
        self._told = report.seconds
        broken = f", {len(report.broken)} broke a rule" if report.broken else ""
        self._console.print(f"{report.seeds} of {self._seeds} seeds, {report.seeds_per_s:.1f} seeds/s{broken}", highlight=False)


def _last(report: Report) -> int:
    return report.start + report.seeds - 1


def show(console: Console, report: Report) -> None:
    """The coverage and what was broken."""
    console.print(_crashes(report))
    console.print(_faults(report))
    for broken in report.broken:
        console.print(f"seed {broken.seed} broke the rule [bold]{broken.checker}[/bold]: {broken.sentence}", highlight=False)
    holes = report.coverage.holes()
    if holes:
        console.print(f"{len(holes)} crash points were never hit, among them {', '.join(holes[:4])}", highlight=False)
    console.print(
        f"{report.seeds} seeds of profile {report.profile} from {report.start} on: {len(report.broken)} broke a rule; "
        f"{report.steps} steps, {report.seeds_per_s:.1f} seeds/s; digest {report.digest}",
        highlight=False,
    )


def _crashes(report: Report) -> Table:
    table = Table(title="How often a row was done, and a node died in it")
    table.add_column("row")
    table.add_column("done", justify="right")
    for point in CRASH_POINTS:
        table.add_column(point, justify="right")
    for label in LABELS:
        hits = [report.coverage.crashes[label, point] for point in CRASH_POINTS]
        table.add_row(label, str(report.coverage.rows[label]), *(str(hit or "-") for hit in hits))
    return table


def _faults(report: Report) -> Table:
    table = Table(title="What went wrong")
    table.add_column("fault")
    table.add_column("times", justify="right")
    table.add_column("what it is")
    for kind, sentence in {**MISHAPS, **FATES}.items():
        table.add_row(kind, str(report.coverage.kinds[kind] or "-"), sentence)
    return table


def _again(seed: int, wish: Wish, trace: bool) -> None:
    wish = attrs.evolve(wish, limits=Limits(story=trace))
    first, second = play(seed, wish), play(seed, wish)
    sys.stdout.writelines(f"{line}\n" for line in first.story)
    for history in (first, second):
        sys.stdout.write(f"digest {history.digest}\n")
    if first.broken is not None:
        sys.stderr.write(f"swapferry: seed {seed} broke the rule {first.broken.checker}: {first.broken.sentence}\n")
    raise typer.Exit(1 if first.broken or first.digest != second.digest else 0)


def _tell(console: Console, broken: Broken, wish: Wish) -> None:
    """The shortest history of the first seed that broke a rule."""
    console.print(f"looking for the shortest history of seed {broken.seed} ...", highlight=False)
    smaller, history = shrink(play(broken.seed, wish), wish)
    size, limits = smaller.size, smaller.limits
    console.print(
        f"with {size.hosts} hosts, {size.vms} VMs, {size.devices} devices, the first {limits.faults_max} faults "
        f"and {limits.steps_max} steps it still breaks:",
        highlight=False,
    )
    for line in history.story:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
