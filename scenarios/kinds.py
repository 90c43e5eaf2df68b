"""Kinds of values that a file may hold: each reads what TOML gives and says in words what is allowed."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@attrs.frozen
class Kind:
    """A kind of value. `read` raises `ValueError` for what it does not allow (an empty reason means: not this type)."""

    allowed: str
    read: Callable[[Any], Any]


def _checked(allowed: str, is_allowed: Callable[[Any], bool], convert: Callable[[Any], Any] = lambda value: value) -> Kind:
    def read(value: Any) -> Any:
        if not is_allowed(value):
            raise ValueError(allowed)
        return convert(value)

    return Kind(allowed, read)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_size(value: Any) -> int:
    if _is_whole(value) and value >= 0:
        return int(value)
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    return int(match[1]) * _UNITS[match[2].upper()]


NAME = _checked(
    "a name of up to 32 lower-case letters, digits and dashes, beginning with a letter or digit",
    lambda value: isinstance(value, str) and _NAME.fullmatch(value) is not None,
)
TEXT = _checked("a text", lambda value: isinstance(value, str))
FLAG = _checked("true or false", lambda value: isinstance(value, bool))
SIZE = Kind('a size in bytes or with a unit: 4096, "64K", "512M", "1GiB"', _read_size)
PATH = _checked("the path of a file, as a text", lambda value: isinstance(value, str) and bool(value), Path)


def whole(lowest: int, highest: int) -> Kind:
    """A whole number in these bounds, both included."""
    return _checked(
        f"a whole number from {lowest} to {highest}", lambda value: _is_whole(value) and lowest <= value <= highest
    )


def number(lowest: float, highest: float) -> Kind:
    """A number in these bounds, both included."""
    return _checked(
        f"a number from {lowest:g} to {highest:g}", lambda value: _is_number(value) and lowest <= value <= highest, float
    )


def choice(*values: str) -> Kind:
    """One of these words."""
    return _checked(" or ".join(f'"{value}"' for value in values), lambda value: isinstance(value, str) and value in values)


def several(kind: Kind, allowed: str) -> Kind:
    """A list of values of a kind, as a tuple."""

    def read(values: Any) -> Sequence[Any]:
        if not isinstance(values, list):
            raise ValueError
        return tuple(kind.read(value) for value in values)

    return Kind(allowed, read)


RATE = whole(0, 10_000_000)
