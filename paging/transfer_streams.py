"""The data channel of a migration over asyncio streams: the same frames and rules as `paging.transfer`, without threads."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from paging import frames
from paging.errors import TransferError
from paging.frames import Frame, FrameReader, Kind
from paging.guest import Endpoint, Manifest
from paging.incoming import Incoming
from paging.outgoing import Outgoing
from paging.reception import Conversation, Reception
from paging.transfer import parse_answer, require_loopback

_RECEIVE_BYTES = 1 << 20


async def deliver(endpoint: Endpoint, outgoing: Outgoing) -> Manifest:
    """Send it all and wait until the target has confirmed. Raises `TransferError` and `SlotUnreadable`; bound it from outside."""
    require_loopback(endpoint.host)
    try:
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    except OSError as error:
        raise TransferError(f"the data channel to {endpoint.host}:{endpoint.port} cannot be opened: {error}") from error
    answers = _answers(reader)
    try:
        writer.write(frames.encode_hello(endpoint.token))
        parse_answer(await anext(answers), Kind.WELCOME)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            # A target that hangs up has most likely said why; its answer is read below.
            for frame in outgoing.frames():
                writer.write(frame)
                await writer.drain()
        parse_answer(await anext(answers), Kind.DONE)
    except OSError as error:
        raise TransferError(f"the data channel to {endpoint.host}:{endpoint.port} broke: {error}") from error
    finally:
        await answers.aclose()
        writer.close()
    assert outgoing.manifest is not None, "all frames were taken"
    return outgoing.manifest


async def _answers(reader: asyncio.StreamReader) -> AsyncGenerator[Frame, None]:
    frame_reader = FrameReader()
    while data := await reader.read(_RECEIVE_BYTES):
        for frame in frame_reader.feed(data):
            yield frame
    raise TransferError("the target closed the data channel without a word")


class StreamListener:
    """The target's end. `delivered` is set after a complete delivery."""

    def __init__(self, server: asyncio.Server, endpoint: Endpoint, reception: Reception, delivered: asyncio.Event) -> None:
        self._server, self.endpoint, self.reception, self.delivered = server, endpoint, reception, delivered

    @classmethod
    async def open(cls, incoming: Incoming, host: str = "127.0.0.1") -> "StreamListener":
        """Listen on a free port. Raises `TransferError`."""
        require_loopback(host)
        reception, delivered = Reception(incoming), asyncio.Event()

        async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _converse(reader, writer, reception, delivered)

        server = await asyncio.start_server(converse, host, 0)
        port = server.sockets[0].getsockname()[1]
        return cls(server, Endpoint(host=host, port=port, token=reception.token), reception, delivered)

    async def close(self) -> None:
        """No more connections; those that are open end with their peers."""
        self._server.close()


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reception: Reception, delivered: asyncio.Event
) -> None:
    conversation = Conversation(reception)
    try:
        while not conversation.is_over and (data := await reader.read(_RECEIVE_BYTES)):
            writer.write(conversation.feed(data))
            if reception.incoming.manifest is not None:
                delivered.set()
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        # Unread bytes would turn the close into a reset that overtakes our last answer.
        while await reader.read(_RECEIVE_BYTES):
            pass
    except OSError:
        pass
    finally:
        conversation.close()
        writer.close()
