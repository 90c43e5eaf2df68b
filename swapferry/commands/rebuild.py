"""`swapferry rebuild-manager`: the resource manager's record from hosts and ledgers, when its store was lost.

Nodes are stopped meanwhile: their stores are read under their locks, and the record is written into the one of the node that is
to be the manager from then on.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from actors.domain.placement import Placement
from actors.messages import MANAGER, swap_device
from actors.rebuilding import CannotRebuild, Rebuilt, rebuild
from actors.runtime.store import Change
from swapferry.commands import common
from swapferry.commands.books import Cluster, FileLibrary
from swapferry.commands.common import Json, show, table_of
from swapferry.commands.fsck import kept_of, locked


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("rebuild-manager")(rebuild_command)


def rebuild_command(  # noqa: PLR0917 - one parameter for each option
    dirs: Annotated[list[Path], typer.Option("--dir", metavar="DIR", help="Where the hosts' stores lie; may be given for each.")],
    store: Annotated[Path, typer.Option(metavar="FILE", help="The store (*.db) of the node that is the manager from now on.")],
    without: Annotated[list[str] | None, typer.Option(metavar="HOST", help="A host that is switched off for good.")] = None,
    undo_undecided: Annotated[bool, typer.Option("--undo-undecided", help="The nodes' queues are empty.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be written.")] = False,
    json: Json = False,
) -> None:
    """Make placements and sharing table again from hosts and ledgers. Stop all nodes first."""
    place = common.where("", "", dirs)
    lost = frozenset(without or ())
    rebuilt = common.play(_rebuild(place.dirs, store, lost, undo_undecided=undo_undecided, dry_run=dry_run), json=json)
    if json:
        common.print_json({**_to_json(rebuilt), "written": not dry_run, "declare_dead": sorted(lost)})
    else:
        _show(rebuilt, dry_run=dry_run)
    for host in sorted(lost):
        common.complain(f"start the nodes, then: swapferry declare-dead {host}")


async def _rebuild(
    dirs: tuple[Path, ...], store: Path, lost: frozenset[str], *, undo_undecided: bool, dry_run: bool
) -> Rebuilt:
    library = FileLibrary(dirs)
    before = await library.read()
    if dry_run and before.live:
        raise CannotRebuild("a node works on one of these stores; stop all nodes first")
    path = _chosen(store, before)
    async with locked(before.paths.values(), dry_run=dry_run) as stores:
        cluster = await library.read()
        _check_lost(cluster)
        arbiters = {swap_device(device): known.record for device, known in cluster.devices.items()}
        rebuilt = rebuild(kept_of(cluster), arbiters, lost=lost, undo_undecided=undo_undecided)
        if not dry_run:
            await stores[path].commit([Change(actor=MANAGER, values=rebuilt.values(), at=time.time())])
    return rebuilt


def _chosen(store: Path, cluster: Cluster) -> Path:
    """That store among those that were read."""
    paths = sorted(set(cluster.paths.values()))
    found = next((path for path in paths if path.resolve() == store.resolve()), None)
    if found is None:
        raise CannotRebuild(f"{store} is none of the stores that were read; name one of {', '.join(map(str, paths))}")
    return found


def _check_lost(cluster: Cluster) -> None:
    """A manager's record that is there is worth more than one made of hints."""
    if cluster.manager is not None and cluster.manager.record.all(Placement):
        path = cluster.paths[MANAGER]
        raise CannotRebuild(f"{path} holds the manager's record: there is nothing to rebuild; swapferry fsck checks and mends it")


def _to_json(rebuilt: Rebuilt) -> Mapping[str, Any]:
    return {
        "placements": [{"vm": vm, "host": one.host, "epoch": one.epoch} for vm, one in rebuilt.placements.items()],
        "shared": [
            {"device": device, "away": sum(len(a.slots) for a in one.away.values()), "pending": list(one.pending)}
            for device, one in rebuilt.shared.items()
        ],
        "sagas": [{"saga": saga, "stage": _stage(one.undone)} for saga, one in rebuilt.sagas.items()],
    }


def _stage(undone: bool) -> str:
    return "undone" if undone else "committed"


def _show(rebuilt: Rebuilt, *, dry_run: bool) -> None:
    would = "Would be" if dry_run else "Was"
    places = [(vm, one.host, one.epoch) for vm, one in rebuilt.placements.items()]
    show(table_of(f"{would} placed", ("vm", "host", "epoch"), places))
    plain = _to_json(rebuilt)
    shared = [(one["device"], one["away"], ", ".join(one["pending"])) for one in plain["shared"]]
    show(table_of(f"{would} listed as shared", ("device", "slots away", "pending sagas"), shared))
    show(table_of(f"{would} decided", ("saga", "stage"), [(one["saga"], one["stage"]) for one in plain["sagas"]]))
