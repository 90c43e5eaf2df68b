"""What can be seen of a recording: how the replay went, its timeline, its messages, what an actor knew at some point."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from actors.messages import Cast
from actors.runtime.observed import observed, type_name
from bus.recording import Kind
from scenarios.recording.difference import readable
from scenarios.recording.entries import Decided, Failed, Loaded, Retired, Started
from scenarios.recording.replay import Replay, Step
from scenarios.timeline import Entry, entries_of

IDENTICAL, DIVERGED, DAMAGED = "identical", "diverged", "damaged"


@attrs.frozen(kw_only=True)
class Message:
    """A message (or a timer, a start, an end) as its actor met it. `t` is Unix seconds."""

    number: int
    t: float
    node: str
    source: str
    actor: str
    type: str
    saga: str = ""
    said: tuple[str, ...] = ()
    """what was said then: type -> target"""
    failed: str = ""


@attrs.frozen(kw_only=True)
class Seen:
    """A recording that was replayed."""

    outcome: str
    replay: Replay
    timeline: tuple[Entry, ...]
    messages: tuple[Message, ...]
    notes: tuple[str, ...]

    def record(self, actor: str) -> Mapping[str, Any] | None:
        """What this actor knew in the end, by name, as readable data. None: nobody of this name was loaded."""
        found = [player for (_, address), player in self.replay.players.items() if address == actor]
        return readable(dict(sorted(found[-1].filed.items()))) if found else None

    @property
    def actors(self) -> list[str]:
        """Who was loaded."""
        return sorted({address for _, address in self.replay.players})

    def to_json(self) -> dict[str, Any]:
        """The result alone, as one JSON object."""
        replay = self.replay
        return {
            "outcome": self.outcome,
            "records": replay.records,
            "decisions": replay.decisions,
            "actors": self.actors,
            "nodes": sorted({node for node, _ in replay.players}),
            "program": replay.begun.program if replay.begun else None,
            "format": replay.begun.format if replay.begun else None,
            "divergence": attrs.asdict(replay.divergence) if replay.divergence else None,
            "damage": attrs.asdict(replay.damage) if replay.damage else None,
            "notes": list(self.notes),
        }


def see(path: Path, program: str, until: int | None = None) -> Seen:
    """Replay a recording as far as it goes. Raises `RecordingError` for what is none, or cannot be played by this version."""
    replay = Replay(path, until)
    timeline: list[Entry] = []
    messages: list[Message] = []
    for step in replay.steps():
        timeline += _entries(step)
        messages += _messages(step)
    return Seen(
        outcome=_outcome(replay),
        replay=replay,
        timeline=tuple(sorted(timeline, key=lambda entry: entry.t)),
        messages=tuple(messages),
        notes=tuple(_notes(replay, program, until)),
    )


def _outcome(replay: Replay) -> str:
    if replay.divergence is not None:
        return DIVERGED
    if replay.damage is not None and (replay.damage.kind is not Kind.TRUNCATED or not replay.records):
        return DAMAGED
    return IDENTICAL


def _notes(replay: Replay, program: str, until: int | None) -> list[str]:
    notes = []
    if replay.begun is None and replay.damage is None:
        notes.append("it holds no record")
    if replay.begun is not None and replay.begun.program != program:
        notes.append(f"recorded by swapferry {replay.begun.program}, replayed by {program}: another version may decide otherwise")
    if replay.damage is not None:
        notes.append(replay.damage.sentence)
    elif not replay.ended and until is None and replay.divergence is None:
        notes.append("it was not ended in order: its program was killed, or still records")
    return notes


def _entries(step: Step) -> list[Entry]:
    if step.heard is None or step.decision is None or not isinstance(step.entry, Decided):
        return []
    decision = step.decision
    return entries_of(observed(step.entry.t, step.entry.actor, step.heard, decision.events, decision.says))


def _messages(step: Step) -> list[Message]:
    entry = step.entry
    match entry:
        case Decided() | Failed() if step.heard is not None:
            cast = step.heard.cast
            says = step.decision.says if step.decision is not None else ()
            return [
                Message(
                    number=step.number, t=entry.t, node=entry.node, source=entry.heard.source, actor=entry.actor,
                    type=type_name(step.heard), saga=cast.saga if isinstance(cast, Cast) else "",
                    said=tuple(f"{type(say.body).__name__} -> {say.target}" for say in says),
                    failed=entry.error if isinstance(entry, Failed) else "",
                )
            ]  # fmt: skip
        case Loaded() | Retired():
            what = type(entry).__name__.lower()
            return [Message(number=step.number, t=entry.t, node=entry.node, source="", actor=entry.actor, type=f"({what})")]
        case Started():
            return [Message(number=step.number, t=entry.t, node=entry.node, source="", actor=entry.node, type="(node starts)")]
    return []
