"""The data channel of a migration over blocking sockets, for the threads of a pager process.

    listener = Listener(Incoming(pages), "127.0.0.1")      # target: thread runs listener.serve()
    manifest = deliver(endpoint, Outgoing(pages, near))    # source: in a thread of its own

Only loopback addresses: TLS comes later, and until then nothing that a guest remembers may cross a network in clear.
"""

import contextlib
import ipaddress
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator

from paging import frames
from paging.errors import TransferError
from paging.frames import Frame, FrameReader, Kind
from paging.guest import Endpoint, Manifest
from paging.incoming import Incoming
from paging.outgoing import Outgoing
from paging.reception import Conversation, Reception

SILENCE_S_MAX = 30.0
"""A peer that says nothing for so long, or takes nothing, is gone"""
_RECEIVE_BYTES = 1 << 20
_LOOK_S = 0.1
"""How soon `Listener.serve` sees that it was closed"""


def require_loopback(host: str) -> None:
    """Raises `TransferError` for an address on which others could listen."""
    with contextlib.suppress(ValueError):
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    raise TransferError(f"the data channel does not go to {host}: there is no TLS yet, use a loopback address (127.0.0.1, ::1)")


def parse_answer(frame: Frame, expected: Kind) -> None:
    """What the target says to the source. Raises `TransferError` with the target's own sentence if it refuses."""
    if frame.kind is Kind.REFUSED:
        raise TransferError(f"the target refused: {frame.body.decode(errors='replace')}")
    if frame.kind is not expected:
        raise TransferError(f"the target answered {frame.kind.name} instead of {expected.name}")


def deliver(endpoint: Endpoint, outgoing: Outgoing, *, timeout_s: float = SILENCE_S_MAX) -> Manifest:
    """Send it all and wait until the target has confirmed. Raises `TransferError` and `SlotUnreadable`; may be repeated with
    a new `Outgoing`. `timeout_s` bounds each single wait, not the whole."""
    require_loopback(endpoint.host)
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=timeout_s) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = _answers(connection)
            connection.sendall(frames.encode_hello(endpoint.token))
            parse_answer(next(answers), Kind.WELCOME)
            try:
                for frame in outgoing.frames():
                    connection.sendall(frame)
            except (BrokenPipeError, ConnectionResetError):
                # The target hung up, and most likely said why before that.
                parse_answer(next(answers), Kind.DONE)
                raise
            parse_answer(next(answers), Kind.DONE)
    except OSError as error:
        raise TransferError(f"the data channel to {endpoint.host}:{endpoint.port} broke: {error}") from error
    assert outgoing.manifest is not None, "all frames were taken"
    return outgoing.manifest


def _answers(connection: socket.socket) -> Iterator[Frame]:
    reader = FrameReader()
    while data := connection.recv(_RECEIVE_BYTES):
        yield from reader.feed(data)
    raise TransferError("the target closed the data channel without a word")


class Listener:
    """The target's end. `serve` runs in a thread until `close`; `delivered` is set after each complete delivery."""

    def __init__(self, incoming: Incoming, host: str = "127.0.0.1", *, on_delivered: Callable[[], None] | None = None) -> None:
        """Binds at once: `endpoint` is valid from here on. Raises `TransferError`."""
        require_loopback(host)
        try:
            self._socket = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise TransferError(f"the data channel cannot listen on {host}: {error.strerror}") from error
        self._reception = Reception(incoming)
        self.endpoint = Endpoint(host=host, port=self._socket.getsockname()[1], token=self._reception.token)
        self.delivered = threading.Event()
        self._on_delivered = on_delivered
        self._closing = threading.Event()
        self._heard: dict[socket.socket, float] = {}

    def serve(self) -> None:
        """Serve connections until closed; one delivers, others are refused. No exception leaves this."""
        with selectors.DefaultSelector() as selector, self._socket:
            selector.register(self._socket, selectors.EVENT_READ)
            while not self._closing.is_set():
                for key, _ in selector.select(_LOOK_S):
                    if key.fileobj is self._socket:
                        self._admit(selector)
                    else:
                        self._hear(selector, key)
                self._drop_silent(selector)
            for key in list(selector.get_map().values()):
                if key.fileobj is not self._socket:
                    self._hang_up(selector, key)

    def close(self) -> None:
        """Make `serve` return soon. Idempotent."""
        self._closing.set()

    def _admit(self, selector: selectors.BaseSelector) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._socket.accept()
            connection.settimeout(SILENCE_S_MAX)
            self._heard[connection] = time.monotonic()
            selector.register(connection, selectors.EVENT_READ, Conversation(self._reception))

    def _hear(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        connection, conversation = key.fileobj, key.data
        assert isinstance(connection, socket.socket), "only sockets are registered"
        self._heard[connection] = time.monotonic()
        try:
            data = connection.recv(_RECEIVE_BYTES)
            if data:
                self._answer(connection, conversation.feed(data))
        except OSError:
            data = b""
        if not data or conversation.is_over:
            self._hang_up(selector, key)

    def _answer(self, connection: socket.socket, answer: bytes) -> None:
        if self._reception.incoming.manifest is not None and not self.delivered.is_set():
            self.delivered.set()
            if self._on_delivered:
                self._on_delivered()
        connection.sendall(answer)

    def _hang_up(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        connection = key.fileobj
        assert isinstance(connection, socket.socket), "only sockets are registered"
        key.data.close()
        selector.unregister(connection)
        self._heard.pop(connection, None)
        # Unread bytes would turn the close into a reset that overtakes our last answer.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(_LOOK_S)
            while connection.recv(_RECEIVE_BYTES):
                pass
        connection.close()

    def _drop_silent(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for key in list(selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket) and now - self._heard.get(key.fileobj, now) > SILENCE_S_MAX:
                self._hang_up(selector, key)
