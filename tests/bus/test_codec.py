"""The codec: what is said is what is read, and whatever else arrives is refused with a sentence."""

import attrs
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.broker import MESSAGE_BYTES_MAX
from bus.codec import decode, encode
from bus.envelope import Envelope
from bus.errors import TooLarge, Unreadable
from tests.bus.worlds import letter

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
COUNTS = st.integers(min_value=0, max_value=2**64 - 1)
TIMES = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | TIMES | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MAPS = st.dictionaries(st.text(max_size=8), PLAIN, max_size=4)
ENVELOPES = st.builds(
    Envelope,
    id=TEXTS,
    type=TEXTS,
    source=TEXTS,
    target=TEXTS,
    body=MAPS,
    type_v=COUNTS,
    cast=st.none() | MAPS,
    row=st.none() | TEXTS,
    epoch=st.none() | COUNTS,
    correlation=st.none() | TEXTS,
    causation=st.none() | TEXTS,
    deadline=st.none() | TIMES,
    sent_at=st.none() | TIMES,
    trace=st.none() | TEXTS,
)


def _read(raw):
    """The envelope in these bytes, or the sentence that refuses them; any other failure is the test's."""
    try:
        return decode(raw)
    except Unreadable as error:
        return str(error)


@given(ENVELOPES)
def test_what_is_encoded_is_decoded_as_it_was(envelope):
    assert decode(encode(envelope)) == envelope


@given(st.binary(max_size=300))
def test_random_bytes_are_read_or_refused_and_nothing_else(raw):
    assert _read(raw)


@given(ENVELOPES, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 3))
def test_damaged_bytes_are_read_or_refused_and_nothing_else(envelope, damages, cut):
    raw = bytearray(encode(envelope))
    for place, value in damages:
        raw[place % len(raw)] = value

    assert _read(bytes(raw[: len(raw) - cut]))


@given(ENVELOPES, st.sampled_from([field.name for field in attrs.fields(Envelope)]), PLAIN)
def test_a_field_of_any_other_value_is_read_or_refused_by_its_name(envelope, name, value):
    fields = attrs.asdict(envelope, recurse=False) | {name: value}

    read = _read(msgpack.packb(fields))

    assert getattr(read, name) == value if isinstance(read, Envelope) else name in read or "version" in read


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Envelope)])
def test_every_field_must_be_there(name):
    fields = attrs.asdict(letter("one"), recurse=False)
    del fields[name]

    with pytest.raises(Unreadable, match=f"'{name}'"):
        decode(msgpack.packb(fields))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ""),
        ("target", "x" * 256),
        ("target", "\u00e4" * 128),
        ("v", True),
        ("epoch", -1),
        ("epoch", True),
        ("deadline", float("nan")),
        ("deadline", float("inf")),
        ("body", []),
        ("body", {b"bytes": 1}),
        ("cast", "h1-3"),
    ],
)
def test_a_field_out_of_its_bounds_is_refused(name, value):
    fields = attrs.asdict(letter("one"), recurse=False) | {name: value}

    with pytest.raises(Unreadable, match=f"field '{name}' must be"):
        decode(msgpack.packb(fields))


def test_bytes_above_the_limit_are_not_even_parsed():
    with pytest.raises(TooLarge, match=f"{MESSAGE_BYTES_MAX + 1} bytes"):
        decode(b"\xc1" * (MESSAGE_BYTES_MAX + 1))


def test_a_header_that_promises_four_gigabytes_is_refused():
    for promise in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):
        with pytest.raises(Unreadable):
            decode(promise + b"\xff\xff\xff\xff" + b"\x00" * 20)


def test_lists_in_lists_without_end_are_refused():
    with pytest.raises(Unreadable, match="undecodable"):
        decode(b"\x91" * 100_000)


@pytest.mark.parametrize("kind", [-1, 4])
def test_extension_types_are_refused_also_when_empty(kind):
    for data in (b"", b"\x00" * 4):
        raw = msgpack.packb(attrs.asdict(letter("one"), recurse=False) | {"body": {"x": msgpack.ExtType(4, data)}})
        raw = raw.replace(msgpack.packb(msgpack.ExtType(4, data)), _extension(kind, data))
        with pytest.raises(Unreadable):
            decode(raw)


def _extension(kind, data):
    return bytes([0xC7, len(data), kind & 0xFF]) + data


@pytest.mark.parametrize("body", [{"x": object()}, {1: "a"}, {"x": {2: 3}}, {"x": 2**64}, {"x": "\ud800"}, {"x": {1, 2}}])
def test_a_body_that_nobody_could_read_fails_at_its_author(body):
    with pytest.raises(Unreadable):
        encode(letter("one", body=body))
