"""`swapferry dead-letters`: messages that nobody could be given. List them, read one, send it again, or drop it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import attrs
import typer

from bus.broker import DeadLetter
from swapferry.commands import common
from swapferry.commands.common import BUS, PREFIX, Bus, Json, Prefix, Where, show, table_of

LIMIT = 100

letters = typer.Typer(
    help="Messages that nobody could be given: list them, read one, send it again, or drop it.", no_args_is_help=True
)
LetterId = Annotated[str, typer.Argument(metavar="ID", help="As `dead-letters list` shows it.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, the oldest first.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(letters, name="dead-letters")


@letters.command("list")
def list_command(bus: Bus = BUS, prefix: Prefix = PREFIX, limit: Limit = LIMIT, json: Json = False) -> None:
    """List the oldest dead letters; taking none away."""
    found = common.play(_look(common.where(bus, prefix), limit), json=json)
    if json:
        common.print_json({"dead_letters": [_to_json(letter) for letter in found]})
        return
    rows = [_row(letter) for letter in found]
    show(table_of(f"{len(rows)} dead letters", ("id", "reason", "type", "from", "to", "saga or request", "sent"), rows))


@letters.command("show")
def show_command(
    letter: LetterId, bus: Bus = BUS, prefix: Prefix = PREFIX, limit: Limit = 100_000, json: Json = False
) -> None:
    """Show one dead letter with its body."""
    found = [one for one in common.play(_look(common.where(bus, prefix), limit), json=json) if one.id == letter]
    if not found:
        common.complain(f"there is no dead letter {letter}; list them again")
        raise typer.Exit(common.FAILED)
    if json:
        common.print_json({**_to_json(found[0]), "body": _body(found[0])})
        return
    plain = {**_to_json(found[0]), **_body(found[0])}
    show(table_of(f"Dead letter {letter}", ("what", "is"), [(name, value) for name, value in plain.items() if value is not None]))


@letters.command("redrive")
def redrive_command(letter: LetterId, bus: Bus = BUS, prefix: Prefix = PREFIX, json: Json = False) -> None:
    """Send a dead letter again to whom it was for; what cannot be delivered stays where it is."""
    common.play(_redrive(common.where(bus, prefix), letter), json=json)
    _done(letter, "sent again", json=json)


@letters.command("drop")
def drop_command(letter: LetterId, bus: Bus = BUS, prefix: Prefix = PREFIX, json: Json = False) -> None:
    """Take a dead letter away for good. The protocol does not need it: what must be heard is said again."""
    common.play(_drop(common.where(bus, prefix), letter), json=json)
    _done(letter, "dropped", json=json)


def _done(letter: str, what: str, *, json: bool) -> None:
    if json:
        common.print_json({"id": letter, "outcome": what})
    else:
        typer.echo(f"{letter}: {what}")


async def _look(place: Where, limit: int) -> Sequence[DeadLetter]:
    async with common.broker_of(place) as broker:
        return await broker.dead_letters(limit)


async def _redrive(place: Where, letter: str) -> None:
    async with common.broker_of(place) as broker:
        await broker.redrive(letter)


async def _drop(place: Where, letter: str) -> None:
    async with common.broker_of(place) as broker:
        await broker.drop(letter)


def _row(letter: DeadLetter) -> Sequence[object]:
    envelope = letter.envelope
    if envelope is None:
        return letter.id, letter.reason, f"{len(letter.raw):,} bytes", "?", "?", "", ""
    sent = datetime.fromtimestamp(envelope.sent_at, UTC).isoformat(" ", "seconds") if envelope.sent_at else ""
    return letter.id, letter.reason, envelope.type, envelope.source, envelope.target, envelope.correlation or "", sent


def _to_json(letter: DeadLetter) -> Mapping[str, Any]:
    envelope = letter.envelope
    plain: dict[str, Any] = {"id": letter.id, "reason": letter.reason, "bytes": len(letter.raw), "readable": envelope is not None}
    if envelope is not None:
        header = attrs.asdict(envelope, filter=lambda field, _: field.name not in ("body", "cast", "id", "v"))
        plain |= {**header, "message": envelope.id, "saga": (envelope.cast or {}).get("saga")}
    return plain


def _body(letter: DeadLetter) -> Mapping[str, Any]:
    if letter.envelope is None:
        return {"raw": letter.raw[:256].hex()}
    return {"body": _readable(dict(letter.envelope.body)), "cast": _readable(letter.envelope.cast)}


def _readable(plain: Any) -> Any:
    """Secrets struck out, bytes as hex."""
    if isinstance(plain, Mapping):
        return {name: "<redacted>" if name == "token" else _readable(one) for name, one in plain.items()}
    if isinstance(plain, list | tuple):
        return [_readable(one) for one in plain]
    return plain.hex() if isinstance(plain, bytes) else plain
