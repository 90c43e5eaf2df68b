"""Reads TOML tables into frozen attrs values and gathers everything that is wrong with them, not just the first thing.

A class says what its table may hold: each of its fields is made with `of(kind)`. Unknown keys are problems, with the
nearest known key beside them. A key path such as `vm[0].memory` is looked up in the text to name its line.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs

from scenarios.errors import BadFile, Problem
from scenarios.kinds import Kind

T = TypeVar("T")
REQUIRED = attrs.NOTHING
_HEADER = re.compile(r"\s*(\[\[?)\s*([\w.-]+)\s*\]\]?")
_KEY = re.compile(r"\s*([\w-]+)\s*=")
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")


def of(kind: Kind, default: Any = REQUIRED) -> Any:
    """A field of a table: what it may hold, and what it is when it is left out."""
    return attrs.field(default=default, metadata={"kind": kind})


class TomlFile:
    """One file while it is read. `problems` grows; `finish` raises them all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.tables: Mapping[str, Any] = self._load()

    def complain(self, key: str, found: str, allowed: str) -> None:
        """Something is wrong with this key."""
        line = self._lines.get(key) or self._lines.get(key.rpartition(".")[0])
        self.problems.append(Problem(file=str(self.path), key=key, found=found, allowed=allowed, line=line))

    def finish(self) -> None:
        """Raise `BadFile` with all problems, if there are any."""
        if self.problems:
            raise BadFile(self.problems)

    def unknown_keys(self, found: Iterable[str], known: Iterable[str], where: str) -> None:
        """Complain of each key that nobody knows here, with the nearest one that is known."""
        names = sorted(known)
        for key in sorted(set(found) - set(names)):
            near = difflib.get_close_matches(key, names, n=1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            path = f"{where}.{key}" if where else key
            self.complain(path, f'the unknown key "{key}"{guess}', ", ".join(names))

    def read(self, made: type[T], table: Any, where: str, *, besides: Iterable[str] = ()) -> T | None:
        """The table as a value of this class, or None with its problems noted. `besides` are keys that others read."""
        if not isinstance(table, dict):
            self.complain(where, shown(table), "a table")
            return None
        fields = {field.name: field for field in attrs.fields(cast("Any", made))}
        self.unknown_keys(table, [*fields, *besides], where)
        values = {name: self._value(field, table, where) for name, field in fields.items()}
        if any(value is REQUIRED for value in values.values()):
            return None
        return made(**values)

    def read_one(self, made: type[T], name: str) -> T | None:
        """The table [name]; it may be left out when all of its keys may."""
        return self.read(made, self.tables.get(name, {}), name)

    def each(self, name: str) -> list[tuple[str, Any]]:
        """The tables [[name]], each with its key path."""
        tables = self.tables.get(name, [])
        if not isinstance(tables, list):
            self.complain(name, shown(tables), f"tables that begin with [[{name}]]")
            return []
        return [(f"{name}[{index}]", table) for index, table in enumerate(tables)]

    def read_each(self, made: type[T], name: str) -> list[T]:
        """The tables [[name]] that are right."""
        read = [self.read(made, table, where) for where, table in self.each(name)]
        return [value for value in read if value is not None]

    def _value(self, field: Any, table: Mapping[str, Any], where: str) -> Any:
        kind: Kind = field.metadata["kind"]
        if field.name not in table:
            if field.default is REQUIRED:
                self.complain(f"{where}.{field.name}", "nothing", kind.allowed)
            return field.default
        try:
            return kind.read(table[field.name])
        except ValueError:
            self.complain(f"{where}.{field.name}", shown(table[field.name]), kind.allowed)
            return REQUIRED

    def _load(self) -> Mapping[str, Any]:
        self._lines: Mapping[str, int] = {}
        try:
            text = self.path.read_text(encoding="utf-8")
            self._lines = _lines_of(text)
            return tomllib.loads(text)
        except OSError as error:
            self.complain("", error.strerror or str(error), "a file that can be read")
        except UnicodeDecodeError as error:
            self.complain("", f"a byte that is not UTF-8 at offset {error.start}", "TOML in UTF-8")
        except tomllib.TOMLDecodeError as error:
            at = _AT_LINE.search(str(error))
            self._lines = {"": int(at[1])} if at else {}
            self.complain("", f"what is not TOML: {error}", "TOML (https://toml.io)")
        raise BadFile(self.problems)


def shown(value: Any) -> str:
    """A value as a user wrote it, cut to a readable length."""
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lines_of(text: str) -> dict[str, int]:
    """Key path -> line, for the plain layout that scenario files have (a table header a line, a key a line)."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for line, content in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(content):
            table = header[2]
            if header[1] == "[[":
                table = f"{header[2]}[{counts.get(header[2], 0)}]"
                counts[header[2]] = counts.get(header[2], 0) + 1
            lines.setdefault(table, line)
        elif key := _KEY.match(content):
            lines.setdefault(f"{table}.{key[1]}" if table else key[1], line)
    return lines
