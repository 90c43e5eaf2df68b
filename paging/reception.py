"""Who may speak on the listening side of the data channel: token, one delivery at a time. Without any socket.

Whoever owns the sockets makes a `Conversation` for each connection, feeds it what arrives, and writes what it answers.
"""

import hmac
import secrets

from paging import frames
from paging.errors import PagingError, TransferError
from paging.frames import Frame, FrameReader, Kind
from paging.incoming import Incoming


class Reception:
    """One staged guest's listening side. The token is good for any number of attempts, one at a time."""

    def __init__(self, incoming: Incoming, token: str | None = None) -> None:
        self.incoming = incoming
        self.token = token or secrets.token_hex(32)
        self.speaker: Conversation | None = None
        """the connection that is delivering now"""


class Conversation:
    """One connection, from hello to its end."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._reader = FrameReader()
        self.is_over = False
        """nothing more is read from it; write the last answer and close"""

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take what arrived; returns what to answer (often nothing). A refusal is an answer, never an exception."""
        answers = b""
        try:
            for frame in self._reader.feed(data):
                answers += self._take(frame)
        except (PagingError, OSError) as error:
            answers += frames.encode(Kind.REFUSED, str(error).encode()[: frames.HELLO_BYTES_MAX])
            self.close()
        return answers

    def close(self) -> None:
        """The connection ended, by whichever side. What it had delivered halfway is worth nothing."""
        self.is_over = True
        if self._reception.speaker is self:
            self._reception.speaker = None

    def _take(self, frame: Frame) -> bytes:
        if self._reception.speaker is not self:
            return self._welcome(frame)
        self._reception.incoming.take(frame)
        if self._reception.incoming.manifest is None:
            return b""
        self.close()
        return frames.encode(Kind.DONE)

    def _welcome(self, frame: Frame) -> bytes:
        if frame.kind is not Kind.HELLO:
            raise TransferError("the data channel was opened without a hello")
        if not hmac.compare_digest(frames.parse_hello(frame.body), self._reception.token.encode()):
            raise TransferError("the data channel was opened with a wrong token")
        if self._reception.speaker is not None:
            raise TransferError("another connection is delivering this guest; end that one first")
        self._reception.incoming.begin()
        self._reception.speaker = self
        self._reader.limit = frames.FRAME_BYTES_MAX
        return frames.encode(Kind.WELCOME)
