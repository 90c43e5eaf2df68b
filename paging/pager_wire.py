"""How a guest and its pager talk: frames of one msgpack value each behind a u32 length, over a unix socketpair.

    guest -> pager   [number, name, arguments]
    pager -> guest   [number, "done", answer] or [number, "failed", [kind, sentence]]; and unasked [0, what, sentence]
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import msgpack

from paging.errors import DeviceError, DeviceRefused, GuestError, OutOfSlots, PagingError, TransferError
from paging.slots import SlotSet

LENGTH = struct.Struct("<I")
FRAME_BYTES_MAX = 64 << 20

_KINDS: dict[str, type[PagingError]] = {
    kind.__name__: kind for kind in (DeviceError, DeviceRefused, GuestError, OutOfSlots, PagingError, TransferError)
}


def encode(value: Any) -> bytes:
    """One frame."""
    body: bytes = msgpack.packb(value)
    return LENGTH.pack(len(body)) + body


class Decoder:
    """Frames out of a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """The values that are complete with these bytes."""
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._buffer)
            assert length <= FRAME_BYTES_MAX, f"a frame of {length} bytes on the pager's control socket"
            if len(self._buffer) < LENGTH.size + length:
                return
            body = bytes(self._buffer[LENGTH.size : LENGTH.size + length])
            del self._buffer[: LENGTH.size + length]
            yield msgpack.unpackb(body)


def encode_error(error: BaseException) -> tuple[str, str]:
    """What crosses the socket of an error: the nearest kind that both sides know, and the sentence."""
    kinds = (kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _KINDS)
    sentence = str(error) if isinstance(error, PagingError) else f"{type(error).__name__}: {error}"
    return next(kinds, GuestError.__name__), sentence


def decode_error(kind: str, sentence: str) -> PagingError:
    """The error to raise on the guest's side."""
    return _KINDS.get(kind, GuestError)(sentence)


def encode_slots(slots: Mapping[str, SlotSet]) -> dict[str, bytes]:
    """Slot sets by device name."""
    return {device: chosen.to_wire() for device, chosen in slots.items()}


def decode_slots(wire: Mapping[str, bytes]) -> dict[str, SlotSet]:
    """Raises `ValueError` for what is no slot set."""
    return {device: SlotSet.from_wire(data) for device, data in wire.items()}
