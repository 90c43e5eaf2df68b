"""Commands that ask the resource manager for something: `migrate`, `cancel`, `clean`, `declare-dead`."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import attrs
import typer

from actors.client import NoAnswer
from actors.domain.lifecycle import Outcome
from actors.fencing import DeadHost
from actors.messages import Cancel, Clean, Dead, Migrate, Verdict
from swapferry.commands import common, sagas, space
from swapferry.commands.books import BusLibrary, Cluster, Missing
from swapferry.commands.common import BUS, PREFIX, Bus, Json, Patience, Prefix, Where, client_of, duration
from swapferry.commands.looking import show_dependencies

Request = Annotated[
    str | None, typer.Option("--request", metavar="ID", help="Ask under this id; asking twice with one id is asking once.")
]
WATCH_S = 1.0


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("migrate")(migrate_command)
    app.command("cancel")(cancel_command)
    app.command("clean")(clean_command)
    app.command("declare-dead")(declare_dead_command)


async def _ask(place: Where, make: Any, request: str | None) -> Verdict:
    async with client_of(place) as client:
        body = make(request or client.new_request(), client.address)
        try:
            answer = await client.ask(body, place.patience_s)
        except NoAnswer as error:
            again = f"ask again with --request {body.request}, or look with `swapferry sagas`"
            raise NoAnswer(f"{error}; it may still be carried out: {again}") from None
    assert isinstance(answer, Verdict), "a wish is answered by a verdict"
    return answer


def _tell(verdict: Verdict, good: Sequence[Outcome], *, json: bool) -> None:
    if json:
        common.print_json({**attrs.asdict(verdict), "outcome": verdict.outcome.value})
    elif verdict.outcome in good:
        typer.echo(f"{verdict.outcome.value}: {verdict.reason}")
    if verdict.outcome not in good:
        common.complain(f"{verdict.outcome.value}: {verdict.reason}")
        raise typer.Exit(common.FAILED)


def migrate_command(  # noqa: PLR0917 - one parameter for each option
    vm: Annotated[str, typer.Argument(metavar="VM")],
    target: Annotated[str, typer.Option(metavar="HOST", help="Where to.")],
    bus: Bus = BUS,
    prefix: Prefix = PREFIX,
    request: Request = None,
    timeout: Patience = 600.0,
    json: Json = False,
) -> None:
    """Move a VM to another host; its swapped-out pages stay where they are. Ends with 0 when it runs there."""
    place = common.where(bus, prefix, patience_s=timeout)
    asking = _ask(place, lambda name, address: Migrate(request=name, vm=vm, target=target, reply_to=address), request)
    _tell(common.play(asking, json=json), [Outcome.DONE], json=json)


def cancel_command(  # noqa: PLR0917 - one parameter for each option
    vm: Annotated[str, typer.Argument(metavar="VM")],
    bus: Bus = BUS,
    prefix: Prefix = PREFIX,
    request: Request = None,
    timeout: Patience = 600.0,
    json: Json = False,
) -> None:
    """Undo the migration of a VM if it has not committed yet. Ends with 0 when it was undone."""
    place = common.where(bus, prefix, patience_s=timeout)
    asking = _ask(place, lambda name, address: Cancel(request=name, vm=vm, reply_to=address), request)
    _tell(common.play(asking, json=json), [Outcome.UNDONE], json=json)


def clean_command(  # noqa: PLR0917 - one parameter for each option
    vm: Annotated[str, typer.Argument(metavar="VM")],
    rate: Annotated[int | None, typer.Option(metavar="N", min=1, help="Copy so many pages a second.")] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Copy none until further notice.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show what is left until nothing is.")] = False,
    bus: Bus = BUS,
    prefix: Prefix = PREFIX,
    request: Request = None,
    timeout: Patience = 30.0,
    json: Json = False,
) -> None:
    """Bring the granted slots of a VM home: copy their pages to its host's own devices. Without options: show what is left."""
    if pause and (rate is not None or watch):
        raise typer.BadParameter("--pause goes with neither --rate nor --watch: nothing would happen")
    place = common.where(bus, prefix, patience_s=timeout)
    if rate is not None or pause:
        speed = 0 if pause else rate or 0
        verdict = common.play(
            _ask(place, lambda name, address: Clean(request=name, vm=vm, pages_per_s=speed, reply_to=address), request), json=json
        )
        if verdict.outcome is not Outcome.DONE or not (json and watch):
            _tell(verdict, [Outcome.DONE], json=json)
    if watch or (rate is None and not pause):
        left = common.play(_left(place, vm, watch=watch, json=json), json=json)
        if json:
            common.print_json({"vm": vm, "left": [one.to_json() for one in left]})
        else:
            show_dependencies(f"{vm} still hangs on" if left else f"{vm} hangs on no granted slot any more", left)


async def _left(place: Where, vm: str, *, watch: bool, json: bool) -> list[space.Dependency]:
    async with client_of(place) as client:
        library = BusLibrary(client, place.patience_s)
        while True:
            left = [one for one in space.hanging_on(await library.read(), vm) if one.kind == "granted"]
            if not (watch and left):
                return left
            if not json:
                slots, rates = sum(one.slots for one in left), {one.pages_per_s for one in left}
                ends = duration(max((one.seconds_left or 0.0) for one in left)) if all(rates) else "never: it is paused"
                typer.echo(f"{slots:,} slots left, {max(rates)} pages/s, ends in {ends}")
            await asyncio.sleep(WATCH_S)


def declare_dead_command(  # noqa: PLR0917 - one parameter for each option
    host: Annotated[str, typer.Argument(metavar="HOST")],
    yes: Annotated[bool, typer.Option("--yes", help="The host is off; do not ask.")] = False,
    bus: Bus = BUS,
    prefix: Prefix = PREFIX,
    request: Request = None,
    timeout: Patience = 120.0,
    json: Json = False,
) -> None:
    """State that a host is switched off for good: its sagas end, its slots go home, its VMs boot elsewhere."""
    place = common.where(bus, prefix, patience_s=timeout)
    if not yes:
        question = f"Nothing can stop {host} from running its VMs a second time unless it is off. Is {host} switched off?"
        if not typer.confirm(question, err=True):
            common.complain(f"{host} was not declared dead: switch it off first")
            raise typer.Exit(common.FAILED)
    verdict = common.play(_bury(place, host, request), json=json)
    _tell(verdict, [Outcome.DONE], json=json)


async def _bury(place: Where, host: str, request: str | None) -> Verdict:
    """Say it until it is recorded, and wait until the host is buried."""
    async with client_of(place) as client:
        body = Dead(request=request or client.new_request(), host=host, reply_to=client.address)
        try:
            answer = await client.ask(body, place.patience_s)
        except NoAnswer:
            raise NoAnswer(await _how_far(BusLibrary(client, 5.0), host)) from None
    assert isinstance(answer, Verdict), "a statement is answered by a verdict"
    return answer


async def _how_far(library: BusLibrary, host: str) -> str:
    try:
        cluster = await library.read()
    except Missing as error:
        return f"{error} Whether {host} is recorded as dead is not known: say it again"
    assert cluster.manager is not None, "who answers the bus is read first"
    known = cluster.manager.record.get(DeadHost, host)
    if known is None:
        return f"{host} is not recorded as dead yet: say it again"
    return f"{host} is recorded as dead and being buried; {_what_is_left(cluster, host, known)}"


def _what_is_left(cluster: Cluster, host: str, known: DeadHost) -> str:
    opened = [one.cast.saga for one in sagas.sagas_of(cluster) if host in (one.cast.source, one.cast.target)]
    dead = set(cluster.manager.record.all(DeadHost)) if cluster.manager else set()
    unfenced = sorted(device for device in set(cluster.homes) - known.fenced if cluster.homes[device] not in dead)
    left = [f"saga {saga} is open" for saga in opened] + [f"{device} has not taken its slots back" for device in unfenced]
    return "; ".join(left) or "its VMs are being placed"
