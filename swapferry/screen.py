"""What people see: what happens now while a scenario runs, then the timeline and a summary."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from paging.device import PAGE_BYTES
from scenarios.check import Forecast
from scenarios.report import Report, milliseconds
from scenarios.rules import size


class Screen:
    """A line that says what is being done; on a terminal it changes in place, elsewhere each new thing is a line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("beginning", total=None)
        self._said = ""

    @contextmanager
    def live(self) -> Iterator[None]:
        """While something is being done."""
        if not self._console.is_terminal:
            yield
            return
        with self._progress:
            yield

    def __call__(self, doing: str, share: float | None = None) -> None:
        """This is being done, so much of it already."""
        if self._console.is_terminal:
            self._progress.update(self._task, description=doing, total=None if share is None else 1.0, completed=share or 0.0)
            return
        topic = doing.partition(":")[0]
        if topic != self._said:
            self._said = topic
            self._console.print(topic, highlight=False, markup=False)

    def report(self, report: Report) -> None:
        """Timeline and summary of a run."""
        self._console.print(_timeline(report))
        self._console.print(_summary(report))

    def forecast(self, forecast: Forecast) -> None:
        """What each migration would come to."""
        table = Table(title="What each migration would come to (pages; before it runs, so from the sizes in the file)")
        for column in ("vm", "from", "to", "can run", "devices both reach", "granted", "sent", "skipped (zero)"):
            table.add_column(column)
        for move in forecast.moves:
            figures = (f"{move.granted:,}", f"{move.sent:,}", f"{move.zero:,}")
            table.add_row(move.vm, move.source, move.target, move.problem or "yes", ", ".join(move.devices) or "none", *figures)
        self._console.print(table)


def _timeline(report: Report) -> Table:
    table = Table(title=f"{report.name}: who did what when")
    table.add_column("ms", justify="right")
    for column in ("actor", "row", "event"):
        table.add_column(column, overflow="fold")
    for entry in report.timeline():
        table.add_row(f"{milliseconds(entry.t - report.started):.1f}", entry.actor, entry.row, entry.event)
    return table


def _summary(report: Report) -> Table:
    table = Table(title="Summary", show_header=False)
    table.add_column("what")
    table.add_column("how much")
    for row in _summary_rows(report):
        table.add_row(*row)
    return table


def _summary_rows(report: Report) -> Iterator[tuple[str, str]]:
    figures, manifest, halted = report.figures, report.figures.manifest, report.figures.halted
    yield "outcome", report.outcome + (f": {report.reason}" if report.reason else "")
    yield "memory verified by the guest", {True: "yes", False: "NO", None: "not asked"}[report.played.verified]
    if halted is not None:
        yield "pages at the halt", f"{halted.resident:,} resident, {halted.swapped:,} swapped, {halted.zero:,} zero"
    if manifest is not None:
        granted = "granted, not moved" if report.outcome == "done" else "granted, and granted back"
        yield granted, f"{manifest.pages_granted:,} pages ({size(manifest.pages_granted * PAGE_BYTES)})"
        yield "sent", f"{manifest.pages_sent:,} pages, {size(manifest.bytes_sent)} in all"
    yield "bus messages for the grant", size(figures.grant_messages_bytes)
    if figures.downtime_ms is not None:
        yield "guest stood still", f"{figures.downtime_ms:.0f} ms"
    if figures.total_ms is not None:
        yield "migration took", f"{figures.total_ms:.0f} ms"
    after = report.last.counts if report.last is not None else None
    if after is not None:
        how_long = f"p50 {after.page_in_us_p50:.0f} us, p99 {after.page_in_us_p99:.0f} us"
        yield "page-ins since", f"{report.faults_after_move:,}, {how_long}"
    yield "most RAM ever taken", size(report.resident_max)
    yield "bus, guest", f"{report.bus}, {report.guest}"
