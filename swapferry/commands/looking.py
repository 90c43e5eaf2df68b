"""Commands that only look: `sagas`, `devices`, `slots`, `depends`. They work while nodes run, and on what nodes have left."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from swapferry.commands import common, sagas, space
from swapferry.commands.books import Cluster, read_cluster, read_with_tables
from swapferry.commands.common import BUS, PREFIX, Bus, Dirs, Json, Patience, Prefix, age, duration, show, table_of


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("sagas")(sagas_command)
    app.command("devices")(devices_command)
    app.command("slots")(slots_command)
    app.command("depends")(depends_command)


def sagas_command(  # noqa: PLR0917 - one parameter for each option
    saga: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this one, with each row.")] = None,
    bus: Bus = BUS,
    prefix: Prefix = PREFIX,
    dirs: Dirs = None,
    timeout: Patience = 5.0,
    json: Json = False,
) -> None:
    """Show what open migrations are waiting for: for whom, since when, how often it was asked."""
    cluster = common.play(read_cluster(common.where(bus, prefix, dirs, timeout)), json=json)
    found = [one for one in sagas.sagas_of(cluster) if saga in (None, one.cast.saga)]
    if json:
        common.print_json({"at": cluster.at, "sagas": [one.to_json() for one in found], "unread": list(cluster.unread)})
    elif saga is not None and found:
        _show_saga(cluster, found[0])
    else:
        _show_sagas(cluster, found)
    if saga is not None and not found:
        common.complain(f"saga {saga} is not open; `swapferry sagas` lists those that are")
        raise typer.Exit(common.FAILED)
    _end(cluster)


def _show_sagas(cluster: Cluster, found: Sequence[sagas.SagaView]) -> None:
    rows = [
        (
            one.cast.saga, one.cast.vm, f"{one.cast.source} -> {one.cast.target}", one.stage, one.done, one.row,
            ", ".join(one.waits_for), age(one.since, cluster.at), one.asked, one.because,
        )
        for one in found
    ]  # fmt: skip
    title = f"{len(rows)} open sagas" if rows else "No saga is open"
    show(table_of(title, ("saga", "vm", "move", "stage", "done", "next", "waits for", "since", "asked", "because"), rows))


def _show_saga(cluster: Cluster, one: sagas.SagaView) -> None:
    rows = [
        (player.actor, player.role, player.done, player.begun, player.undone, age(player.since, cluster.at))
        for player in one.players
    ]
    title = f"{one.cast.saga}: {one.cast.vm} from {one.cast.source} to {one.cast.target}, {one.stage}"
    show(table_of(title, ("actor", "role", "last row done", "begun, waits", "undone", "since"), rows))
    asks = f"asked {one.asked} times, next in {duration(max(0.0, one.due - cluster.at))}" if one.due else "asked by nobody"
    typer.echo(f"row {one.row} waits for {', '.join(one.waits_for)} since {age(one.since, cluster.at)}; {asks}")
    if one.because:
        typer.echo(f"because: {one.because}")


def devices_command(  # noqa: PLR0917 - one parameter for each option
    device: Annotated[str | None, typer.Argument(metavar="[DEVICE]", help="Only this one, with its ranges.")] = None,
    bus: Bus = BUS,
    prefix: Prefix = PREFIX,
    dirs: Dirs = None,
    timeout: Patience = 5.0,
    json: Json = False,
) -> None:
    """Show who owns the slots of each swap device: granted, free, lent; whether it is shared, and for which sagas."""
    cluster = common.play(read_cluster(common.where(bus, prefix, dirs, timeout)), json=json)
    found = [one for one in space.devices_of(cluster) if device in (None, one.device)]
    if json:
        common.print_json({"at": cluster.at, "devices": [one.to_json() for one in found], "unread": list(cluster.unread)})
    elif device is None:
        _show_devices(found)
    elif found:
        _show_owners(found[0])
    if device is not None and not found:
        common.complain(f"no device {device}; known are {', '.join(cluster.homes) or 'none'}")
        raise typer.Exit(common.FAILED)
    _end(cluster)


def _show_devices(found: Sequence[space.DeviceView]) -> None:
    rows = []
    for one in found:
        owners: dict[str, int] = {}
        for share in one.shares:
            owners[share.owner] = owners.get(share.owner, 0) + len(share.slots)
        shared = {True: "shared", False: "no", None: "?"}[one.shared]
        owned = ", ".join(f"{host} {count:,}" for host, count in sorted(owners.items()))
        rows.append(
            (one.device, one.home, one.slots, owned, one.granted, _or(one.free), _or(one.lent), shared, ", ".join(one.pending))
        )
    columns = ("device", "home", "slots", "owners", "granted", "free", "lent", "sharing table", "pending sagas")
    show(table_of(f"{len(rows)} swap devices", columns, rows))


def _show_owners(one: space.DeviceView) -> None:
    rows = [
        (share.generation, share.owner, len(share.slots), "returned" if share.returned else "", _ranges(share.slots.ranges()))
        for share in one.shares
    ]
    show(table_of(f"{one.device} of {one.home}: {one.slots:,} slots", ("generation", "owner", "slots", "how", "ranges"), rows))


def slots_command(  # noqa: PLR0917 - one parameter for each option
    vm: Annotated[str, typer.Argument(metavar="VM")],
    bus: Bus = BUS,
    prefix: Prefix = PREFIX,
    dirs: Dirs = None,
    timeout: Patience = 5.0,
    json: Json = False,
) -> None:
    """Show which slots of which device a VM has, by generation: its host's own, or granted and on their way home."""

    async def look() -> tuple[Cluster, list[space.Hold]]:
        cluster = await read_with_tables(common.where(bus, prefix, dirs, timeout))
        return cluster, space.slots_of(cluster, vm)

    cluster, found = common.play(look(), json=json)
    if json:
        common.print_json({"at": cluster.at, "vm": vm, "slots": [one.to_json() for one in found], "unread": list(cluster.unread)})
    else:
        rows = [
            (
                one.instance, one.device, one.home, one.kind, one.generation, len(one.slots), _or(one.named),
                _ranges(one.slots.ranges()),
            )
            for one in found
        ]  # fmt: skip
        columns = ("instance", "device", "home", "kind", "generation", "slots", "hold pages", "ranges")
        show(table_of(f"Slots of {vm}", columns, rows))
    _end(cluster)


def depends_command(  # noqa: PLR0917 - one parameter for each option
    name: Annotated[str, typer.Argument(metavar="HOST|DEVICE|VM")],
    bus: Bus = BUS,
    prefix: Prefix = PREFIX,
    dirs: Dirs = None,
    timeout: Patience = 5.0,
    json: Json = False,
) -> None:
    """Show which guests still hang on a host or device (or what a VM hangs on), and how long until cleanup ends that."""

    async def look() -> tuple[Cluster, list[space.Dependency]]:
        cluster = await read_cluster(common.where(bus, prefix, dirs, timeout))
        return cluster, space.hanging_on(cluster, name)

    cluster, found = common.play(look(), json=json)
    if json:
        common.print_json(
            {"at": cluster.at, "name": name, "depends": [one.to_json() for one in found], "unread": list(cluster.unread)}
        )
    else:
        show_dependencies(f"{name}: {len(found)} dependencies" if found else f"Nothing hangs on {name}", found)
    _end(cluster)


def show_dependencies(title: str, found: Sequence[space.Dependency]) -> None:
    """As a table."""
    rows = [
        (one.vm, one.host, one.device, one.home, one.kind, one.slots, one.pages_per_s or "-", _left(one)) for one in found
    ]
    columns = ("vm", "runs on", "device", "home", "kind", "slots left", "pages/s", "time left")
    show(table_of(title, columns, rows))


def _left(one: space.Dependency) -> str:
    if one.kind == "own":
        return "while it runs there"
    return duration(one.seconds_left) if one.pages_per_s else f"not cleaned up: swapferry clean {one.vm} --rate N"


def _ranges(ranges: Sequence[tuple[int, int]], most: int = 4) -> str:
    shown = ", ".join(f"{first}-{first + count - 1}" if count > 1 else str(first) for first, count in ranges[:most])
    return shown + (f", ... ({len(ranges):,} ranges)" if len(ranges) > most else "")


def _or(count: int | None) -> Any:
    return "?" if count is None else count


def _end(cluster: Cluster) -> None:
    """What could not be read makes the answer incomplete."""
    for sentence in cluster.unread:
        common.complain(sentence)
    if cluster.unread:
        raise typer.Exit(common.FAILED)
