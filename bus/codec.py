"""Envelope to bytes and back. Everything that comes from the wire is doubted here and nowhere else.

msgpack, decoded under limits: the size is looked at before anything is parsed, every container is bounded, extension
types are refused, and the header must have exactly the fields of its version. What a body means is not checked here.
"""

import math
from collections.abc import Callable
from typing import Any, NoReturn

import attrs
import msgpack

from bus.broker import MESSAGE_BYTES_MAX
from bus.envelope import ENVELOPE_VERSION, Envelope
from bus.errors import TooLarge, Unreadable

SHORT_TEXT_BYTES_MAX = 255
"""AMQP 0-9-1 "shortstr": a routing key or a message property cannot be longer"""

ITEMS_MAX = MESSAGE_BYTES_MAX // 2
"""no honest container has more items: each takes at least a byte, and a list of slot ranges more than two"""


def encode(envelope: Envelope) -> bytes:
    """The bytes of an envelope.

    They are read back once, so that a body which nobody could read (keys that are not text, an extension type) fails
    here, at its author. Raises `TooLarge` above `MESSAGE_BYTES_MAX` and `Unreadable` with what is wrong.
    """
    try:
        raw: bytes = msgpack.packb(attrs.asdict(envelope, recurse=False))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unreadable(f"malformed: message {envelope.id!r} of type {envelope.type!r} is not plain data: {error}") from error
    decode(raw)
    return raw


def decode(raw: bytes) -> Envelope:
    """The envelope in these bytes. Raises `TooLarge` or `Unreadable`; the sentence becomes the dead letter's reason."""
    if len(raw) > MESSAGE_BYTES_MAX:
        raise TooLarge(f"too large: {len(raw)} bytes, the limit of the bus is {MESSAGE_BYTES_MAX}")
    fields = _unpack(raw)
    _check_version(fields)
    _check_names(fields)
    for name, check in CHECKS.items():
        _check_field(name, check, fields[name])
    return Envelope(**fields)


def _unpack(raw: bytes) -> dict[str, Any]:
    try:
        value = msgpack.unpackb(
            raw,
            strict_map_key=True,  # text or bytes: a hash flood of other keys is not possible
            ext_hook=_refuse_extension,
            max_str_len=MESSAGE_BYTES_MAX,
            max_bin_len=MESSAGE_BYTES_MAX,
            max_array_len=ITEMS_MAX,
            max_map_len=ITEMS_MAX,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise Unreadable(f"undecodable: {error or type(error).__name__}") from error
    if not isinstance(value, dict):
        raise Unreadable(f"malformed: an envelope is a map, this is {type(value).__name__}")
    return value


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} ({len(data)} bytes) is not allowed")


def _check_version(fields: dict[str, Any]) -> None:
    version = fields.get("v")
    if type(version) is not int:
        raise Unreadable(f"malformed: field 'v' must be an integer, this is {_shown(version)}")
    if version != ENVELOPE_VERSION:
        raise Unreadable(f"unknown version: envelope version {version}, this node reads {ENVELOPE_VERSION}")


def _check_names(fields: dict[str, Any]) -> None:
    if fields.keys() == CHECKS.keys():
        return
    missing = sorted(CHECKS.keys() - fields.keys())
    unknown = sorted(_shown(name) for name in fields.keys() - CHECKS.keys())
    raise Unreadable(f"malformed: fields missing {missing}, fields unknown {unknown[:8]}")


def _check_field(name: str, check: "Check", value: object) -> None:
    if not check.holds(value):
        raise Unreadable(f"malformed: field {name!r} must be {check.wanted}, this is {_shown(value)}")


def _shown(value: object) -> str:
    """A value for a sentence, never longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= SHORT_TEXT_BYTES_MAX


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0  # bool is an int to isinstance


def _is_time(value: object) -> bool:
    return type(value) in {int, float} and math.isfinite(value)  # type: ignore[arg-type]  # just checked


def _is_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


@attrs.frozen
class Check:
    """What a field of the header must be, as a test and as words."""

    holds: Callable[[object], bool]
    wanted: str

    def optional(self) -> "Check":
        """The same, or nothing at all."""
        return Check(lambda value: value is None or self.holds(value), f"{self.wanted} or nothing")


TEXT = Check(_is_short_text, f"text of 1 to {SHORT_TEXT_BYTES_MAX} bytes")
COUNT = Check(_is_count, "an integer that is not negative")
TIME = Check(_is_time, "a finite number of seconds")
MAP = Check(_is_map, "a map with text keys")

CHECKS = {
    "v": COUNT,
    "id": TEXT,
    "type": TEXT,
    "type_v": COUNT,
    "source": TEXT,
    "target": TEXT,
    "body": MAP,
    "cast": MAP.optional(),
    "row": TEXT.optional(),
    "epoch": COUNT.optional(),
    "correlation": TEXT.optional(),
    "causation": TEXT.optional(),
    "deadline": TIME.optional(),
    "sent_at": TIME.optional(),
    "trace": TEXT.optional(),
}
