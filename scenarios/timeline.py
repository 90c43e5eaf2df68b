"""The timeline of a run: what the actors' turns came to, as flat entries that may cross a process or lie in a file.

Some entries carry figures that nobody reads line by line (`shown` is False); the report is computed from them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from actors.domain.lifecycle import Level
from actors.messages import Freeze, Grant, Granted, Report
from actors.runtime.actor import Event, Heard, Say
from actors.runtime.observed import Observed
from actors.runtime.values import to_plain
from bus.codec import encode
from bus.envelope import Envelope

SENTENCES: Mapping[str, str] = {
    "row_done": "done",
    "row_refused": "refused: {reason}",
    "undone": "undone: {reason}",
    "verdict": "verdict {outcome}: {reason}",
    "machine": "machine is {level}",
    "machine_failed": "machine cannot be {level}: {reason}",
    "machine_died": "machine died: {reason}",
    "machine_stalled": "guest is held: {reason}",
    "machine_unstalled": "guest goes on",
    "machine_waits": "machine is not yet {level}, told {told} times",
    "saga_waits": "waits for {waits_for}, asked {asked} times",
}
"""Events of the actors that a timeline shows, and how."""


@attrs.frozen(kw_only=True)
class Entry:
    """Something that an actor did. `t` is Unix seconds."""

    t: float
    actor: str
    row: str
    event: str
    detail: Mapping[str, Any] = attrs.field(factory=dict)
    shown: bool = True


def entries_of(seen: Observed) -> list[Entry]:
    """What one turn adds to the timeline."""
    shown = [_shown(seen, event) for event in seen.events if event.name in SENTENCES]
    return [*shown, *_frozen_or_run(seen), *_grants(seen)]


def _shown(seen: Observed, event: Event) -> Entry:
    fields = {"reason": "", **event.fields}
    sentence = SENTENCES[event.name].format_map(fields).removesuffix(": ")
    return Entry(t=seen.t, actor=seen.actor, row=str(fields.get("row", "")), event=sentence)


def _figure(seen: Observed, event: str, **detail: Any) -> Entry:
    return Entry(t=seen.t, actor=seen.actor, row=seen.row or "", event=event, detail=detail, shown=False)


def _frozen_or_run(seen: Observed) -> Iterable[Entry]:
    match seen.heard:
        case Heard(body=Freeze()):
            yield _figure(seen, "halt asked")
        case Heard(body=Report(failed="", level=Level.FROZEN, counts=counts)) if counts is not None:
            yield _figure(seen, "halted", counts=to_plain(counts))
        case Heard(body=Report(failed="", level=Level.SENT, manifest=manifest)) if manifest is not None:
            yield _figure(seen, "sent", manifest=to_plain(manifest))
        case Heard(body=Report(failed="", level=Level.RUNNING)):
            yield _figure(seen, "runs")


def _grants(seen: Observed) -> Iterable[Entry]:
    for index, say in enumerate(seen.says):
        if isinstance(say.body, Grant | Granted):
            name = f"{say.cast.saga}/{type(say.body).__name__}/{getattr(say.body, 'chunk', 0)}/{say.target}/{seen.actor}"
            yield _figure(seen, "grant message", name=name, bytes=_size(seen, say, index))


def _size(seen: Observed, say: Say, index: int) -> int:
    envelope = Envelope(
        id=f"{seen.heard.id}/{index}", type=type(say.body).__name__, source=seen.actor, target=say.target,
        body=to_plain(say.body), cast=to_plain(say.cast), row=say.row,
    )  # fmt: skip
    return len(encode(envelope))
