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
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum, StrEnum
from functools import partial
from pathlib import Path, PosixPath
from typing import Any, NewType, TypeVar, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from actors.errors import Malformed
from paging.slots import SlotSet

T = TypeVar("T")
Structure = Callable[[Any, Any], Any]
Unstructure = Callable[[Any], Any]

_SEQUENCES: Mapping[type, type] = {tuple: tuple, Sequence: tuple, list: list, MutableSequence: list}
_SETS: Mapping[type, type] = {frozenset: frozenset, AbstractSet: frozenset, set: set, MutableSet: set}
_MAPPINGS = (Mapping, MutableMapping, dict)
_FOUND_CHARACTERS_MAX = 60


class _WrongError(Exception):
    """A place in the data holds something else than its type asks for."""


def to_plain(value: object) -> Any:
    """The plain data of a value: what goes to the codec of the bus and into the store."""
    return _CONVERTER.unstructure(value)


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


def _found(value: object) -> str:
    match value:
        case None:
            return "none"
        case bytes() | bytearray() | list() | tuple() | dict():
            return f"{type(value).__name__} of {len(value)}"
        case _:
            shown = repr(value)
            return f"{type(value).__name__} {shown[:_FOUND_CHARACTERS_MAX]}"


def _wrong(expected: str, value: object) -> _WrongError:
    return _WrongError(f"expected {expected}, found {_found(value)}")


def _each(data: Iterable[Any], structure: Callable[[int, Any], Any]) -> list[Any]:
    """Structure each item; a wrong one is reported with its index."""
    made: list[Any] = []
    try:
        for item in data:
            made.append(structure(len(made), item))
    except Exception as error:
        raise _at(len(made), error) from error
    return made


def _at(index: Any, error: Exception) -> IterableValidationError:
    error.__notes__ = [*getattr(error, "__notes__", ()), IterableValidationNote("item", index, Any)]
    return IterableValidationError("item", [error], list)


# scalars


def _scalar(kind: type) -> Structure:
    def structure(data: Any, asked: Any) -> Any:
        if asked is not kind and _is_enum(asked):  # cattrs dispatches by class first, and a StrEnum is a str there
            return _enum(data, asked)
        if type(data) is not kind:  # a bool is an int for isinstance, and must not be one here
            raise _wrong(kind.__name__, data)
        return data

    return structure


def _float(data: Any, _: Any) -> float:
    if type(data) is float:
        return data
    if type(data) is int:
        return float(data)
    raise _wrong("float", data)


def _path(data: Any, _: Any) -> Path:
    if type(data) is not str:
        raise _wrong("a path as str", data)
    return Path(data)


def _slots(data: Any, _: Any) -> SlotSet:
    if type(data) is not bytes:
        raise _wrong("slot ranges as bytes", data)
    return SlotSet.from_wire(data)


def _enum(data: Any, kind: type[Enum]) -> Enum:
    for member in kind:
        if type(member.value) is type(data) and member.value == data:
            return member
    raise _wrong(f"one of {', '.join(repr(member.value) for member in kind)}", data)


# attrs classes


def _class(kind: type, converter: Converter) -> Structure:
    structure: Structure = make_dict_structure_fn(kind, converter)

    def checked(data: Any, asked: Any) -> Any:
        if type(data) is not dict:
            raise _wrong(f"a map of {kind.__name__}", data)
        return structure(data, asked)

    return checked


# collections


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _arguments(kind: Any, count: int) -> tuple[Any, ...]:
    return get_args(kind) or (Any,) * count


def _list_of(data: Any) -> Sequence[Any]:
    if type(data) not in {list, tuple}:
        raise _wrong("a list", data)
    return data  # type: ignore[no-any-return]


def _sequence(kind: Any, converter: Converter) -> Structure:
    arguments = _arguments(kind, 1)
    if _origin(kind) is tuple and get_args(kind) and arguments[-1] is not Ellipsis:
        return _record_tuple(arguments, converter)
    item, make = arguments[0], _SEQUENCES[_origin(kind)]
    hook = converter.get_structure_hook(item)
    return lambda data, _: make(_each(_list_of(data), lambda _index, one: hook(one, item)))


def _record_tuple(items: tuple[Any, ...], converter: Converter) -> Structure:
    hooks = [converter.get_structure_hook(item) for item in items]

    def structure(data: Any, _: Any) -> tuple[Any, ...]:
        if len(_list_of(data)) != len(items):
            raise _wrong(f"a list of {len(items)}", data)
        return tuple(_each(data, lambda index, one: hooks[index](one, items[index])))

    return structure


def _set(kind: Any, converter: Converter) -> Structure:
    (item,) = _arguments(kind, 1)
    make, hook = _SETS[_origin(kind)], converter.get_structure_hook(item)

    def structure(data: Any, _: Any) -> Any:
        made = make(_each(_list_of(data), lambda _index, one: hook(one, item)))
        if len(made) != len(data):
            raise _WrongError("the same member twice")
        return made

    return structure


def _mapping(kind: Any, converter: Converter) -> Structure:
    key, value = _arguments(kind, 2)
    hook = converter.get_structure_hook(value)
    if not _is_str(key):
        return _pairs(key, value, converter)

    def structure(data: Any, _: Any) -> dict[str, Any]:
        if type(data) is not dict:
            raise _wrong("a map", data)
        made = {}
        name = None
        try:
            for name, one in data.items():
                if type(name) is not str:
                    raise _wrong("a str as key", name)
                made[name] = hook(one, value)
        except Exception as error:
            raise _at(name, error) from error
        return made

    return structure


def _pairs(key: Any, value: Any, converter: Converter) -> Structure:
    pair = _record_tuple((key, value), converter)

    def structure(data: Any, _: Any) -> dict[Any, Any]:
        made = dict(_each(_list_of(data), lambda _index, one: pair(one, None)))
        if len(made) != len(data):
            raise _WrongError("the same key twice")
        return made

    return structure


def _is_str(key: Any) -> bool:
    while isinstance(key, NewType):
        key = key.__supertype__
    return key in {str, Any}


def _plain_sequence(kind: Any, converter: Converter) -> Unstructure:
    arguments = _arguments(kind, 1)
    if _origin(kind) is tuple and get_args(kind) and arguments[-1] is not Ellipsis:
        hooks = [converter.get_unstructure_hook(item) for item in arguments]
        return lambda value: [hook(one) for hook, one in zip(hooks, value, strict=True)]
    hook = _plain_item(arguments[0], converter)
    return lambda value: [hook(one) for one in value]


def _plain_set(kind: Any, converter: Converter) -> Unstructure:
    hook = _plain_item(_arguments(kind, 1)[0], converter)
    return lambda value: sorted((hook(one) for one in value), key=_ascending)


def _plain_mapping(kind: Any, converter: Converter) -> Unstructure:
    key, value = _arguments(kind, 2)
    one = _plain_item(value, converter)
    if _is_str(key):
        return lambda mapping: {name: one(item) for name, item in mapping.items()}
    name_of = _plain_item(key, converter)
    return lambda mapping: [[name_of(name), one(item)] for name, item in mapping.items()]


def _plain_item(item: Any, converter: Converter) -> Unstructure:
    """Unstructure by the declared type, or by what the value is where nothing is declared."""
    return converter.unstructure if item is Any else converter.get_unstructure_hook(item)


def _ascending(plain: Any) -> Any:
    """An order over any plain data, so that the same set always has the same bytes."""
    return (0, plain, "") if type(plain) is int else (1, 0, repr(plain))


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
    for kinds, structure, unstructure in _COLLECTIONS:
        converter.register_structure_hook_factory(partial(_is_one_of, kinds), structure)
        converter.register_unstructure_hook_factory(partial(_is_one_of, kinds), unstructure)
    return converter


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _is_one_of(kinds: Collection[type], kind: Any) -> bool:
    return _origin(kind) in kinds


_COLLECTIONS: Sequence[tuple[Collection[type], Any, Any]] = (
    (_SEQUENCES, _sequence, _plain_sequence),
    (_SETS, _set, _plain_set),
    (_MAPPINGS, _mapping, _plain_mapping),
)
_CONVERTER = _made()
