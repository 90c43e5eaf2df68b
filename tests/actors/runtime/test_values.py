"""Values to plain data and back: what went in comes out, and nothing that is wrong comes in."""

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NewType

import attrs
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.errors import Malformed
from actors.runtime.values import from_plain, prepare, to_plain
from paging.slots import SlotSet

Vm = NewType("Vm", str)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


class Digit(enum.IntEnum):
    ONE = 1
    TWO = 2


@attrs.frozen(kw_only=True)
class Inner:
    number: int
    rate: float = 0.0


@attrs.frozen(kw_only=True)
class Outer:
    flag: bool
    text: str
    data: bytes
    number: int
    rate: float
    maybe: int | None
    inner: Inner
    perhaps: Inner | None
    colour: Colour
    word: Word
    digit: Digit
    path: Path
    slots: SlotSet
    vm: Vm
    many: tuple[Inner, ...]
    pair: tuple[int, str]
    names: frozenset[str]
    numbers: frozenset[int]
    listed: Sequence[str]
    by_name: Mapping[str, SlotSet]
    by_vm: Mapping[Vm, Inner]
    by_number: Mapping[int, tuple[SlotSet, int]]
    optional: Mapping[str, Inner | None]
    anything: Any = None


NUMBERS = st.integers(-(2**63), 2**63 - 1)
RATES = st.floats(allow_nan=False)
SLOTS = st.builds(SlotSet, st.lists(st.integers(0, 2**32 - 1), max_size=20))
INNERS = st.builds(Inner, number=NUMBERS, rate=RATES)
NAMES = st.text(max_size=10)
PATHS = st.text("abc/.", min_size=1, max_size=10).map(Path)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | RATES | NAMES | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OUTERS = st.builds(
    Outer,
    flag=st.booleans(),
    text=NAMES,
    data=st.binary(max_size=20),
    number=NUMBERS,
    rate=RATES,
    maybe=st.none() | NUMBERS,
    inner=INNERS,
    perhaps=st.none() | INNERS,
    colour=st.sampled_from(Colour),
    word=st.sampled_from(Word),
    digit=st.sampled_from(Digit),
    path=PATHS,
    slots=SLOTS,
    vm=NAMES.map(Vm),
    many=st.lists(INNERS, max_size=3).map(tuple),
    pair=st.tuples(NUMBERS, NAMES),
    names=st.frozensets(NAMES, max_size=4),
    numbers=st.frozensets(NUMBERS, max_size=4),
    listed=st.lists(NAMES, max_size=3).map(tuple),
    by_name=st.dictionaries(NAMES, SLOTS, max_size=3),
    by_vm=st.dictionaries(NAMES.map(Vm), INNERS, max_size=3),
    by_number=st.dictionaries(NUMBERS, st.tuples(SLOTS, NUMBERS), max_size=3),
    optional=st.dictionaries(NAMES, st.none() | INNERS, max_size=3),
    anything=PLAIN,
)
GOOD = to_plain(
    Outer(
        flag=True, text="t", data=b"d", number=1, rate=1.5, maybe=None, inner=Inner(number=2), perhaps=None, colour=Colour.RED,
        word=Word.NO, digit=Digit.TWO, path=Path("p"), slots=SlotSet([1, 2]), vm=Vm("v"), many=(Inner(number=3),), pair=(1, "x"),
        names=frozenset("ab"), numbers=frozenset({1}), listed=("l",), by_name={"d": SlotSet([4])}, by_vm={},
        by_number={7: (SlotSet(), 1)}, optional={"o": None},
    )
)  # fmt: skip


@settings(max_examples=50)
@given(OUTERS)
def test_what_went_in_comes_out_after_a_trip_through_bytes(value: Outer):
    packed = msgpack.packb(to_plain(value))

    assert from_plain(Outer, msgpack.unpackb(packed, strict_map_key=True)) == value


@settings(max_examples=50)
@given(OUTERS)
def test_one_value_has_one_plain_form(value: Outer):
    assert to_plain(from_plain(Outer, to_plain(value))) == to_plain(value)


@given(PLAIN)
def test_any_other_data_is_malformed_and_nothing_else(data):
    with pytest.raises(Malformed):
        from_plain(Outer, data)


@given(st.sampled_from(sorted(set(GOOD) - {"anything"})), PLAIN)
def test_a_field_with_any_data_is_read_as_it_is_written_or_malformed(field: str, data):
    try:
        value = from_plain(Outer, {**GOOD, field: data})
    except Malformed:
        return
    written = to_plain(value)[field]
    assert written == data or field in {"numbers", "names", "path"}  # sets have one order, a path one spelling


@pytest.mark.parametrize(
    ("field", "data", "sentence"),
    [
        ("number", "1", "Outer.number: expected int, found str '1'"),
        ("number", True, "Outer.number: expected int, found bool True"),
        ("number", 1.0, "Outer.number: expected int, found float 1.0"),
        ("rate", "1", "Outer.rate: expected float, found str '1'"),
        ("rate", True, "Outer.rate: expected float, found bool True"),
        ("flag", 1, "Outer.flag: expected bool, found int 1"),
        ("text", b"t", "Outer.text: expected str, found bytes of 1"),
        ("text", 3, "Outer.text: expected str, found int 3"),
        ("data", "d", "Outer.data: expected bytes, found str 'd'"),
        ("vm", 3, "Outer.vm: expected str, found int 3"),
        ("maybe", "x", "Outer.maybe: expected int, found str 'x'"),
        ("inner", [], "Outer.inner: expected a map of Inner, found list of 0"),
        ("inner", {}, "Outer.inner.number: missing"),
        ("inner", {"number": 1, "b": 2, "a": 1}, "Outer.inner: unknown field 'a', 'b'"),
        ("colour", "green", "Outer.colour: expected one of 'red', 'blue', found str 'green'"),
        ("word", "perhaps", "Outer.word: expected one of 'yes', 'no', found str 'perhaps'"),
        ("digit", True, "Outer.digit: expected one of 1, 2, found bool True"),
        ("path", b"p", "Outer.path: expected a path as str, found bytes of 1"),
        ("slots", b"123", "Outer.slots: slot ranges: 3 bytes is no multiple of 8"),
        ("slots", [[1, 2]], "Outer.slots: expected slot ranges as bytes, found list of 1"),
        ("many", [{"number": 1}, {"number": "x"}], "Outer.many[1].number: expected int, found str 'x'"),
        ("many", "abc", "Outer.many: expected a list, found str 'abc'"),
        ("pair", [1], "Outer.pair: expected a list of 2, found list of 1"),
        ("pair", [1, 2], "Outer.pair[1]: expected str, found int 2"),
        ("names", ["a", "a"], "Outer.names: the same member twice"),
        ("by_name", {"d": "x"}, "Outer.by_name['d']: expected slot ranges as bytes, found str 'x'"),
        ("by_name", {b"d": b""}, "Outer.by_name[b'd']: expected a str as key, found bytes of 1"),
        ("by_number", [[1, [b"", 1]], [1, [b"", 2]]], "Outer.by_number: the same key twice"),
        ("by_number", [[1, [b"", "x"]]], "Outer.by_number[0][1][1]: expected int, found str 'x'"),
        ("by_number", {1: [b"", 1]}, "Outer.by_number: expected a list, found dict of 1"),
    ],
)
def test_the_sentence_names_the_field_and_what_was_found(field: str, data, sentence: str):
    with pytest.raises(Malformed) as caught:
        from_plain(Outer, {**GOOD, field: data})

    assert str(caught.value) == sentence


def test_a_whole_number_of_seconds_may_travel_as_an_int():
    rate = from_plain(Inner, {"number": 1, "rate": 2}).rate

    assert (rate, type(rate)) == (2.0, float)


def test_a_validator_of_the_class_speaks_too():
    @attrs.frozen
    class Positive:
        count: int = attrs.field(validator=attrs.validators.gt(0))

    with pytest.raises(Malformed, match=r"^Positive: 'count' must be > 0: 0$"):
        from_plain(Positive, {"count": 0})


def test_a_class_that_cannot_travel_is_found_at_start():
    @attrs.frozen
    class Strange:
        thing: complex

    with pytest.raises(Exception, match="complex"):
        prepare(Strange)
