"""What an onlooker gets to see of a turn: for the timeline, the recording, and the log."""

from typing import Any

import attrs
import structlog

from actors.runtime.actor import Event, Heard, Say, Tick
from actors.runtime.catalogue import correlation

_log = structlog.get_logger("swapferry.turns")


@attrs.frozen(kw_only=True)
class Observed:
    """One turn, after it was stored. `t` is Unix seconds, `type` the name of what was heard, `row` the row it came to."""

    t: float
    actor: str
    heard: Heard
    type: str
    row: str | None
    events: tuple[Event, ...]
    says: tuple[Say, ...]


def observed(t: float, actor: str, heard: Heard, events: tuple[Event, ...], says: tuple[Say, ...]) -> Observed:
    """What this turn looks like from outside."""
    return Observed(t=t, actor=actor, heard=heard, type=type_name(heard), row=_row(events, says), events=events, says=says)


def type_name(heard: Heard) -> str:
    """The name of what was heard; a tick is named after its timer."""
    return f"Tick({heard.body.timer})" if isinstance(heard.body, Tick) else type(heard.body).__name__


def what_it_was(heard: Heard, events: tuple[Event, ...]) -> str:
    """A turn in a word: the row it did, "undo" and the role that undid, or the name of what was heard."""
    for event in events:
        if event.name == "row_done":
            return str(event.fields["row"])
        if event.name == "undone":
            return f"undo {event.fields['role']}"
    return type_name(heard)


def log(seen: Observed) -> None:
    """Write the events of a turn, each with the saga and the VM it belongs to."""
    for event in seen.events:
        cast = seen.heard.cast or next((say.cast for say in seen.says if say.cast is not None), None)
        fields: dict[str, Any] = {"actor": seen.actor, "heard": seen.type, **about(cast), **event.fields}
        _log.info(event.name, **{f"{name}_" if name == "event" else name: value for name, value in fields.items()})


def about(cast: Any) -> dict[str, Any]:
    """The saga and the VM of a cast, as fields of a log line."""
    if cast is None:
        return {}
    return {"saga": correlation(cast, None), "vm": getattr(cast, "vm", None), "epoch": getattr(cast, "epoch", None)}


def _row(events: tuple[Event, ...], says: tuple[Say, ...]) -> str | None:
    told = next((event.fields["row"] for event in events if "row" in event.fields), None)
    return told or next((say.row for say in says if say.row is not None), None)
