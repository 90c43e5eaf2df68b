"""Typed values <-> plain msgpack data: one converter for message bodies, casts and stored records.

`to_plain` makes dicts, lists and scalars of an attrs value; `from_plain` makes the value again and believes nothing: a field
that is missing, unknown or of another type is `Malformed`, with the path of the field and what was found there. Nothing is
coerced, but an int where a float is asked for (a whole number of seconds travels as an int).

| Python | plain |
|---|---|
| attrs class | map of its fields |
| int, str, bool, float, bytes, None, Any | itself |
| Enum | its value |
| Path | str |
| SlotSet | its wire bytes |
| tuple, Sequence, list | list |
| frozenset, set | ascending list |
| Mapping with str keys | map |
| Mapping with other keys | list of [key, value] pairs (a map on the wire has str keys only) |
"""

import operator
from collections.abc import Callable, Mapping
from enum import Enum, StrEnum
from pathlib import Path, PosixPath
from typing import Any, TypeVar

import attrs
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from actors.errors import Malformed
from actors.runtime import containers
from actors.runtime.containers import Structure, wrong
from paging.slots import SlotSet

T = TypeVar("T")


def to_plain(value: object) -> Any:
    """The plain data of a value: what goes to the codec of the bus and into the store."""
    return _CONVERTER.unstructure(value)


def to_plain_with(hooks: Mapping[type, Callable[[Any], Any]]) -> Callable[[object], Any]:
    """Another `to_plain`, which asks these hooks for the plain data of these attrs classes, wherever in a value they are."""
    converter = _made()
    for kind, hook in hooks.items():
        converter.register_unstructure_hook(kind, hook)
    return converter.unstructure


def from_plain(kind: type[T], data: Any) -> T:
    """The value of this kind that the data stands for. Raises `Malformed`."""
    try:
        return _CONVERTER.structure(data, kind)
    except Exception as error:
        raise Malformed(_sentence(error, getattr(kind, "__name__", str(kind)))) from error


def prepare(kind: type) -> None:
    """Build the hooks of a kind now, so that a class that cannot travel is found at start. Raises cattrs' own errors."""
    _CONVERTER.get_structure_hook(kind)
    _CONVERTER.get_unstructure_hook(kind)


def _sentence(error: BaseException, path: str) -> str:
    """Where the first thing is wrong, and what was found there."""
    while isinstance(error, ClassValidationError | IterableValidationError):
        placed, unplaced = error.group_exceptions()
        if not placed:
            error = unplaced[0]
            continue
        error, note = placed[0]
        path += f"[{note.index!r}]" if isinstance(note, IterableValidationNote) else f".{note.name}"
    match error:
        case ForbiddenExtraKeysError():
            return f"{path}: unknown field {', '.join(sorted(repr(name) for name in error.extra_fields))}"
        case KeyError():
            return f"{path}: missing"
        case _:
            return f"{path}: {error}"


# scalars


def _scalar(kind: type) -> Structure:
    def structure(data: Any, asked: Any) -> Any:
        if asked is not kind and _is_enum(asked):  # cattrs dispatches by class first, and a StrEnum is a str there
            return _enum(data, asked)
        if type(data) is not kind:  # a bool is an int for isinstance, and must not be one here
            raise wrong(kind.__name__, data)
        return data

    return structure


def _float(data: Any, _: Any) -> float:
    if type(data) is float:
        return data
    if type(data) is int:
        return float(data)
    raise wrong("float", data)


def _path(data: Any, _: Any) -> Path:
    if type(data) is not str:
        raise wrong("a path as str", data)
    return Path(data)


def _slots(data: Any, _: Any) -> SlotSet:
    if type(data) is not bytes:
        raise wrong("slot ranges as bytes", data)
    return SlotSet.from_wire(data)


def _enum(data: Any, kind: type[Enum]) -> Enum:
    for member in kind:
        if type(member.value) is type(data) and member.value == data:
            return member
    raise wrong(f"one of {', '.join(repr(member.value) for member in kind)}", data)


# attrs classes


def _class(kind: type, converter: Converter) -> Structure:
    structure: Structure = make_dict_structure_fn(kind, converter)

    def checked(data: Any, asked: Any) -> Any:
        if type(data) is not dict:
            raise wrong(f"a map of {kind.__name__}", data)
        return structure(data, asked)

    return checked


def _made() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    for kind in (int, str, bool, bytes):
        converter.register_structure_hook(kind, _scalar(kind))
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook_func(_is_enum, _enum)
    for enum in (Enum, StrEnum):
        converter.register_unstructure_hook(enum, operator.attrgetter("value"))
    for path in (Path, PosixPath):
        converter.register_structure_hook(path, _path)
        converter.register_unstructure_hook(path, str)
    converter.register_structure_hook(SlotSet, _slots)
    converter.register_unstructure_hook(SlotSet, SlotSet.to_wire)
    converter.register_structure_hook_factory(attrs.has, _class)
    containers.register(converter)
    return converter


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


_CONVERTER = _made()
