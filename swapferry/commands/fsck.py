"""`swapferry fsck`: stores, swap tables, ledgers and sharing table compared; mends what can be proven.

While nodes run, each is read at a moment of its own: a difference counts only if it is seen twice and named by no open saga.
Mending needs the records to stand still, so it works on stores whose nodes are stopped, under their locks.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer

from actors.audit import TROUBLES, Finding, Kept, examine, open_sagas, settled
from actors.mending import Mending, Unproven, mend
from actors.runtime.actor import Record
from actors.runtime.sqlite import SqliteStore
from actors.runtime.store import Change
from swapferry.commands import common
from swapferry.commands.books import Cluster, FileLibrary, Library, Open
from swapferry.commands.common import BUS, PREFIX, Bus, Dirs, Json, Patience, Prefix, Where, show, table_of

Settle = Annotated[float, typer.Option(metavar="SECONDS", min=0.0, help="Between the two looks while nodes run.")]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("fsck")(fsck_command)


@attrs.frozen(kw_only=True)
class Checked:
    """What was found, and what became of it."""

    live: bool
    unread: tuple[str, ...]
    findings: Sequence[Finding]
    sagas: frozenset[str]
    mendings: Sequence[Mending] = ()
    unproven: Sequence[Unproven] = ()
    mended: bool = False

    def to_json(self) -> Mapping[str, Any]:
        """For machines; ranges are (first, count)."""
        left = self.unproven if self.mended else ()
        return {
            "live": self.live, "clean": not (left if self.mended else self.findings), "mended": self.mended,
            "findings": [_finding_json(one) for one in self.findings],
            "repairs": [{"actor": one.actor, "does": one.sentence, "for": one.finding.sentence} for one in self.mendings],
            "unproven": [{"finding": one.finding.sentence, "remedy": one.remedy} for one in self.unproven],
            "open_sagas": sorted(self.sagas), "unread": list(self.unread),
        }  # fmt: skip


def fsck_command(  # noqa: PLR0917 - one parameter for each option
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be proven; needs --dir and stopped nodes.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --repair: only say what it would do.")] = False,
    settle: Settle = 2.0,
    bus: Bus = BUS,
    prefix: Prefix = PREFIX,
    dirs: Dirs = None,
    timeout: Patience = 5.0,
    json: Json = False,
) -> None:
    """Find slots that are leaked, doubled or orphaned, and records that disagree. Ends with 0 if all is well."""
    if repair and not dirs:
        raise typer.BadParameter("only records that stand still can be mended: stop the nodes and name their stores with --dir")
    if dry_run and not repair:
        raise typer.BadParameter("--dry-run goes with --repair")
    place = common.where(bus, prefix, dirs, timeout)
    checked = common.play(_repair(place, dry_run=dry_run) if repair else check(place, settle), json=json)
    if json:
        common.print_json(checked.to_json())
    else:
        _show(checked)
    for sentence in checked.unread:
        common.complain(sentence)
    bad = checked.unproven if checked.mended else checked.findings
    if bad or checked.unread:
        raise typer.Exit(common.FAILED)


# -- looking


def kept_of(cluster: Cluster) -> list[Kept]:
    """As the comparison wants it: one for each host that was read."""
    return [
        Kept(
            facts=cluster.facts(host),
            hypervisor=known.record,
            ledgers={device: cluster.rights(device) for device, home in cluster.homes.items() if home == host},
            manager=cluster.manager.record if cluster.manager and index == 0 else None,
        )
        for index, (host, known) in enumerate(cluster.hosts.items())
    ]


async def check(place: Where, settle_s: float) -> Checked:
    """Look twice while nodes run, once where they are down."""
    async with Open(place) as library:
        cluster, found = await _look(library)
        before = found
        if cluster.live:
            await asyncio.sleep(settle_s)
            cluster, found = await _look(library)
    kept = kept_of(cluster)
    findings = settled(before, found, kept)
    return Checked(live=cluster.live, unread=cluster.unread, findings=findings, sagas=open_sagas(kept))


async def _look(library: Library) -> tuple[Cluster, list[Finding]]:
    cluster = await library.with_tables(await library.read())
    found = examine(kept_of(cluster), cluster.tables)
    return cluster, [one for one in found if one.rule != "stranger" or one.host not in cluster.members]


# -- mending


async def _repair(place: Where, *, dry_run: bool) -> Checked:
    library = FileLibrary(place.dirs)
    async with AsyncExitStack() as locks:
        stores = await locks.enter_async_context(locked((await library.read()).paths.values(), dry_run=dry_run))
        cluster, found = await _look(library)
        kept = kept_of(cluster)
        findings = settled(found, found, kept)
        mendings, unproven = mend(findings, kept, _records(cluster), cluster.tables)
        checked = Checked(
            live=False, unread=cluster.unread, findings=findings, sagas=open_sagas(kept), mendings=mendings, unproven=unproven
        )
        if dry_run or not mendings:
            return checked
        await _commit(mendings, cluster.paths, stores)
        cluster, found = await _look(library)
        left = settled(found, found, kept_of(cluster))
    return attrs.evolve(checked, mended=True, unproven=[*unproven, *_unexpected(left, unproven)])


def _unexpected(left: Iterable[Finding], unproven: Iterable[Unproven]) -> list[Unproven]:
    """What is still wrong after mending although something was done about it."""
    known = {one.finding.key for one in unproven}
    remedy = "was mended, and is wrong again: run fsck again"
    return [Unproven(finding=one, remedy=remedy) for one in left if one.key not in known]


def _records(cluster: Cluster) -> dict[str, Record]:
    return {known.book.actor: known.record for known in cluster.everybody()}


@asynccontextmanager
async def locked(paths: Iterable[Path], *, dry_run: bool) -> AsyncIterator[Mapping[Path, SqliteStore]]:
    """All stores, so that no node works on them. Raises `StoreError` where one does. Nobody opens them only to look."""
    async with AsyncExitStack() as opened:
        stores: dict[Path, SqliteStore] = {}
        for path in sorted(set(paths)) if not dry_run else []:
            stores[path] = SqliteStore(path)
            await stores[path].open()
            opened.push_async_callback(stores[path].close)
        yield stores


async def _commit(mendings: Iterable[Mending], paths: Mapping[str, Path], stores: Mapping[Path, SqliteStore]) -> None:
    """The ledgers first: until the rest is mended too, the next fsck finds what is left and mends it from them."""
    at = time.time()
    for one in mendings:
        await stores[paths[one.actor]].commit([Change(actor=one.actor, values=one.changes, at=at)])


# -- showing


def _finding_json(one: Finding) -> Mapping[str, Any]:
    return {
        "trouble": one.trouble.value, "meaning": TROUBLES[one.trouble], "sentence": one.sentence, "device": one.device,
        "generation": one.generation, "host": one.host, "vm": one.vm, "sagas": list(one.sagas), "slots": len(one.slots),
        "ranges": one.slots.ranges(),
    }  # fmt: skip


def _show(checked: Checked) -> None:
    how = "while nodes run; each difference was seen twice" if checked.live else "in the stores of nodes that are down"
    rows = [(one.trouble.value, one.device, one.host, one.vm, len(one.slots) or "", one.sentence) for one in checked.findings]
    title = f"{len(rows)} findings {how}" if rows else f"Nothing is wrong ({how})"
    show(table_of(title, ("trouble", "device", "host", "vm", "slots", "what"), rows))
    if checked.mendings:
        done = "Mended" if checked.mended else "Can be mended (swapferry fsck --repair without --dry-run does)"
        does = [(one.actor, one.sentence, one.finding.sentence) for one in checked.mendings]
        show(table_of(done, ("record of", "does", "because"), does))
    if checked.unproven:
        rows_left = [(one.finding.sentence, one.remedy) for one in checked.unproven]
        show(table_of("Cannot be proven, and was not touched", ("what", "what a person can do"), rows_left))
    if checked.sagas:
        typer.echo(f"not judged: what the open sagas {', '.join(sorted(checked.sagas))} name")
