"""Containers of typed values <-> lists and maps: the hooks of `values` for sequences, sets and mappings.

cattrs' own would take a str for a sequence of str, and coerce what they meet; these say what is wrong, and at which index or key.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, MutableSet, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, NewType, get_args, get_origin

from cattrs import Converter, IterableValidationError, IterableValidationNote

Structure = Callable[[Any, Any], Any]
Unstructure = Callable[[Any], Any]

_SEQUENCES: Mapping[type, type] = {tuple: tuple, Sequence: tuple, list: list, MutableSequence: list}
_SETS: Mapping[type, type] = {frozenset: frozenset, AbstractSet: frozenset, set: set, MutableSet: set}
_MAPPINGS = (Mapping, MutableMapping, dict)
_FOUND_CHARACTERS_MAX = 60


class WrongError(Exception):
    """A place in the data holds something else than its type asks for."""


def register(converter: Converter) -> None:
    """Teach the converter all containers."""
    for kinds, structure, unstructure in _CONTAINERS:
        converter.register_structure_hook_factory(partial(_is_one_of, kinds), structure)
        converter.register_unstructure_hook_factory(partial(_is_one_of, kinds), unstructure)


def _found(value: object) -> str:
    match value:
        case None:
            return "none"
        case bytes() | bytearray() | list() | tuple() | dict():
            return f"{type(value).__name__} of {len(value)}"
        case _:
            shown = repr(value)
            return f"{type(value).__name__} {shown[:_FOUND_CHARACTERS_MAX]}"


def wrong(expected: str, value: object) -> WrongError:
    """Something else was found than was expected."""
    return WrongError(f"expected {expected}, found {_found(value)}")


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


def _origin(kind: Any) -> Any:
    return get_origin(kind) or kind


def _arguments(kind: Any, count: int) -> tuple[Any, ...]:
    return get_args(kind) or (Any,) * count


def _list_of(data: Any) -> Sequence[Any]:
    if type(data) not in {list, tuple}:
        raise wrong("a list", data)
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
            raise wrong(f"a list of {len(items)}", data)
        return tuple(_each(data, lambda index, one: hooks[index](one, items[index])))

    return structure


def _set(kind: Any, converter: Converter) -> Structure:
    (item,) = _arguments(kind, 1)
    make, hook = _SETS[_origin(kind)], converter.get_structure_hook(item)

    def structure(data: Any, _: Any) -> Any:
        made = make(_each(_list_of(data), lambda _index, one: hook(one, item)))
        if len(made) != len(data):
            raise WrongError("the same member twice")
        return made

    return structure


def _mapping(kind: Any, converter: Converter) -> Structure:
    key, value = _arguments(kind, 2)
    hook = converter.get_structure_hook(value)
    if not _is_str(key):
        return _pairs(key, value, converter)

    def structure(data: Any, _: Any) -> dict[str, Any]:
        if type(data) is not dict:
            raise wrong("a map", data)
        made = {}
        name = None
        try:
            for name, one in data.items():
                if type(name) is not str:
                    raise wrong("a str as key", name)
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
            raise WrongError("the same key twice")
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


def _is_one_of(kinds: Collection[type], kind: Any) -> bool:
    return _origin(kind) in kinds


_CONTAINERS: Sequence[tuple[Collection[type], Any, Any]] = (
    (_SEQUENCES, _sequence, _plain_sequence),
    (_SETS, _set, _plain_set),
    (_MAPPINGS, _mapping, _plain_mapping),
)
