"""Where two decisions differ, field by field."""

from collections.abc import Iterator
from typing import Any

import attrs

from paging.slots import SlotSet

SHOWN_CHARACTERS_MAX = 160
ABSENT = "nothing"


@attrs.frozen(kw_only=True)
class Difference:
    """One field: what was recorded, and what came out now, as words."""

    field: str
    recorded: str
    replayed: str

    def __str__(self) -> str:
        return f"{self.field}: recorded {self.recorded}, replayed {self.replayed}"


def of_decisions(recorded: dict[str, Any], replayed: dict[str, Any]) -> list[Difference]:
    """Between two decisions as plain data."""
    return [
        *between("record", filing(recorded["changes"]), filing(replayed["changes"])),
        *between("says", _named(recorded["says"]), _named(replayed["says"])),
        *between("timers", recorded["timers"], replayed["timers"]),
        *between("events", recorded["events"], replayed["events"]),
    ]


def filing(filed: list[list[Any]]) -> dict[str, Any]:
    """Filed values by a name for each: Kind[key]."""
    return {f"{kind}[{key}]" if key else kind: value for kind, key, value in filed}


def _named(says: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"{index}:{say['type']}": say for index, say in enumerate(says)}


def between(path: str, recorded: Any, replayed: Any) -> Iterator[Difference]:
    """All leaves that differ."""
    if isinstance(recorded, dict) and isinstance(replayed, dict):
        for key in sorted({*recorded, *replayed}, key=str):
            yield from between(f"{path}.{key}", recorded.get(key, _Absent), replayed.get(key, _Absent))
    elif isinstance(recorded, list | tuple) and isinstance(replayed, list | tuple):
        for index in range(max(len(recorded), len(replayed))):
            yield from between(f"{path}[{index}]", _at(recorded, index), _at(replayed, index))
    elif recorded is not replayed and (type(recorded) is not type(replayed) or recorded != replayed):
        yield Difference(field=path, recorded=shown(recorded), replayed=shown(replayed))


class _Absent:
    """Stands for what is not there; None is a value."""


def _at(items: Any, index: int) -> Any:
    return items[index] if index < len(items) else _Absent


def shown(value: Any) -> str:
    """A plain value for a line of text; slot sets as ranges."""
    if value is _Absent:
        return ABSENT
    text = repr(readable(value))
    return text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}..."


def readable(value: Any) -> Any:
    """Plain data with words in place of bytes, as JSON can have it."""
    if isinstance(value, dict):
        return {str(key): readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [readable(item) for item in value]
    return _slots(value) if isinstance(value, bytes) else value


def _slots(raw: bytes) -> str:
    """All bytes in messages and records are slot sets."""
    try:
        return str(SlotSet.from_wire(raw))
    except ValueError:
        return raw.hex()
