"""`swapferry replay`: decides again what was recorded, and lets one look around in it."""

import json as json_module
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer

from bus.errors import RecordingError
from scenarios.recording.as_scenario import script_of
from scenarios.recording.difference import shown
from scenarios.recording.replay import Divergence
from scenarios.recording.views import DIVERGED, IDENTICAL, Message, Seen, see
from scenarios.sim.script import to_toml
from scenarios.timeline import Entry

FAILED = 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="replay")(command)


def command(  # noqa: PLR0917 - one parameter for each option
    recording: Annotated[Path, typer.Argument(metavar="FILE", help="What `run --record` or `node --record` wrote.")],
    until: Annotated[int | None, typer.Option(metavar="N", min=0, help="Play no record after this number.")] = None,
    show: Annotated[str | None, typer.Option(metavar="ACTOR", help="Show what this actor knows where the replay ends.")] = None,
    timeline: Annotated[bool, typer.Option("--timeline", help="Show what the actors did.")] = False,
    messages: Annotated[bool, typer.Option("--messages", help="Show every message and timer, with its record's number.")] = False,
    as_scenario: Annotated[
        bool, typer.Option("--as-scenario", help="Print it as a scenario for `swapferry chaos --scenario`, and replay nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")] = False,
) -> None:
    """Decide again everything that was recorded; exit with 0 only if every decision is identical.

    A truncated tail (its program was killed) is reported, and no failure: what is whole is replayed.
    """
    try:
        if as_scenario:
            _write([to_toml(*script_of(recording)).rstrip()])
            return
        seen = see(recording, version("swapferry"), until)
    except RecordingError as error:
        sys.stderr.write(f"swapferry: {error}\n")
        if json:
            _write_json({"outcome": "unreadable", "reason": str(error)})
        raise typer.Exit(FAILED) from None
    if show is not None and show not in seen.actors:
        sys.stderr.write(f"swapferry: no actor {show} was loaded; there are {', '.join(seen.actors) or 'none'}\n")
        raise typer.Exit(FAILED)
    views = [name for name, wanted in (("timeline", timeline), ("messages", messages), ("show", show is not None)) if wanted]
    if json:
        _write_json(seen.to_json() | {name: _JSON[name](seen, show or "") for name in views})
    else:
        for name in views:
            _write(_TEXT[name](seen, show or ""))
        _write(_result(seen))
    raise typer.Exit(0 if seen.outcome == IDENTICAL else FAILED)


def _write(lines: Sequence[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def _write_json(document: Any) -> None:
    sys.stdout.write(json_module.dumps(document, indent=2) + "\n")


def _result(seen: Seen) -> list[str]:
    replay = seen.replay
    nodes = {node for node, _ in replay.players}
    played = f"{replay.decisions} decisions of {len(seen.actors)} actors on {len(nodes)} nodes, {replay.records} records"
    if seen.outcome == DIVERGED and replay.divergence is not None:
        return [*_divergence(replay.divergence), f"played until then: {played}", *seen.notes]
    upto = "" if seen.outcome == IDENTICAL else f"; identical up to record {replay.records - 1}"
    return [f"{seen.outcome}: {played}{upto}", *seen.notes]


def _divergence(found: Divergence) -> list[str]:
    heard = f"heard {found.message} {found.message_id}".rstrip()
    return [
        f"diverged: record {found.number}, {found.actor} on {found.node} {heard}",
        *(f"  {difference}" for difference in found.differences),
    ]


def _timeline(seen: Seen, _actor: str) -> list[str]:
    start = _start(seen)
    return [f"{entry.t - start:10.3f} s  {entry.actor:32} {entry.row:10} {entry.event}" for entry in _visible(seen)]


def _messages(seen: Seen, _actor: str) -> list[str]:
    start = _start(seen)
    return [_line(message, start) for message in seen.messages]


def _line(message: Message, start: float) -> str:
    begins = f"{message.number:6} {message.t - start:10.3f} s  {message.actor:32} {message.type:22}"
    source = f" from {message.source}" if message.source and message.source != message.actor else ""
    saga = f" in saga {message.saga}" if message.saga else ""
    said = f"; says {', '.join(message.said)}" if message.said else ""
    failed = f"; failed: {message.failed}" if message.failed else ""
    return f"{begins}{source}{saga}{said}{failed}".rstrip()


def _show(seen: Seen, actor: str) -> list[str]:
    record = seen.record(actor) or {}
    lines = [f"{actor} after record {seen.replay.records - 1} knows {len(record)} values"]
    for name, value in record.items():
        lines.append(f"  {name}")
        fields = value if isinstance(value, dict) else {"": value}
        lines += [f"    {field}: {shown(one)}" for field, one in fields.items()]
    return lines


def _start(seen: Seen) -> float:
    return seen.messages[0].t if seen.messages else 0.0


def _visible(seen: Seen) -> list[Entry]:
    return [entry for entry in seen.timeline if entry.shown]


_TEXT: dict[str, Callable[[Seen, str], list[str]]] = {"timeline": _timeline, "messages": _messages, "show": _show}
_JSON: dict[str, Callable[[Seen, str], Any]] = {
    "timeline": lambda seen, _: [attrs.asdict(entry) for entry in _visible(seen)],
    "messages": lambda seen, _: [attrs.asdict(message) for message in seen.messages],
    "show": lambda seen, actor: {"actor": actor, "record": seen.record(actor)},
}
