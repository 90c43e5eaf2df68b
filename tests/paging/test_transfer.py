"""The data channel: what arrives is what was sent, or nothing is believed."""

import contextlib
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import numpy as np
import pytest

from paging import frames, transfer, transfer_streams
from paging.device import PAGE_BYTES, DevicePath
from paging.errors import SlotUnreadable, TransferError
from paging.frames import FrameReader, Kind
from paging.guest import Endpoint, Manifest
from paging.incoming import Incoming
from paging.outgoing import Outgoing
from paging.slots import SlotSet
from paging.swap_table import Phase, TableRun
from paging.transfer import Listener
from tests.paging.parts import Desk, make_device, overwrite_slot

STATE = b"registers" * 100
OWN = SlotSet.span(200, 90)


@attrs.frozen
class Move:
    """A frozen source with pages on a shared and on a private device, and a staged target that listens."""

    source: Desk
    target: Desk
    incoming: Incoming
    listener: Listener
    shared: DevicePath

    @property
    def endpoint(self) -> Endpoint:
        return self.listener.endpoint

    def outgoing(self, state: bytes = STATE) -> Outgoing:
        return Outgoing(self.source.pages, frozenset({"shared"}), state)

    def arrive(self) -> None:
        """Load and run what was delivered."""
        granted = {"shared": self.source.pages.swapped()["shared"]}
        assert self.incoming.manifest is not None
        self.incoming.accept(self.incoming.manifest, granted)
        self.target.pages.arm({"shared": granted["shared"] | OWN})
        self.target.pages.thaw()
        self.target.truth = self.source.truth


@pytest.fixture
def move(tmp_path: Path) -> Iterator[Move]:
    shared, private = make_device(tmp_path, "shared", 300), make_device(tmp_path, "private", 100)
    source = Desk(tmp_path / "source", [shared, private], pages=200, limit=60)
    source.run(150, shared=SlotSet.span(0, 70), private=SlotSet.span(0, 60))
    for page in (3, 5, 7):
        source.write(page, bytes(PAGE_BYTES))
    source.evict()
    source.pages.freeze()
    target = Desk(tmp_path / "target", [shared], pages=200, limit=50)
    target.pages.arm({"shared": OWN})
    incoming = Incoming(target.pages)
    listener = Listener(incoming)
    thread = threading.Thread(target=listener.serve)
    thread.start()
    yield Move(source, target, incoming, listener, shared)
    listener.close()
    thread.join()


def frames_of(outgoing: Outgoing) -> list[bytes]:
    return list(outgoing.frames())


class Hand:
    """A connection on which a test writes what it likes."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._socket = socket.create_connection((endpoint.host, endpoint.port), timeout=20)
        self._reader = FrameReader()

    def say(self, *some: bytes) -> "Hand":
        with contextlib.suppress(ConnectionError):
            for one in some:
                self._socket.sendall(one)
        return self

    def hears(self) -> tuple[Kind, str]:
        while data := self._socket.recv(65536):
            for frame in self._reader.feed(data):
                return frame.kind, frame.body.decode()
        raise AssertionError("the channel was closed without a word")

    def welcome(self, endpoint: Endpoint) -> "Hand":
        assert self.say(frames.encode_hello(endpoint.token)).hears() == (Kind.WELCOME, "")
        return self

    def close(self) -> None:
        """Hang up, and wait until the other side has noticed."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(65536):
                pass
        self._socket.close()


def test_the_target_has_every_byte_after_the_move(move: Move):
    manifest = transfer.deliver(move.endpoint, move.outgoing())

    move.arrive()

    assert move.incoming.manifest == manifest
    assert move.incoming.state == STATE
    assert move.target.wrong_pages() == []


def test_shared_slots_travel_as_names_other_pages_as_contents_and_zeros_as_nothing(move: Move):
    counts = move.source.pages.counts()
    shared = move.source.pages.swapped()["shared"]
    private = move.source.pages.swapped()["private"]

    manifest = transfer.deliver(move.endpoint, move.outgoing())

    assert manifest.pages_granted == len(shared)
    assert manifest.pages_sent <= counts.resident + len(private)
    assert manifest.pages_zero == 200 - manifest.pages_sent - manifest.pages_granted >= 53
    assert manifest.bytes_sent <= 1.05 * manifest.pages_sent * PAGE_BYTES + len(STATE)
    assert (manifest.state_bytes, len(private) > 0) == (len(STATE), True)


def test_the_target_fills_ram_to_its_limit_and_the_rest_into_its_own_slots(move: Move):
    granted = set(move.source.pages.swapped()["shared"])

    transfer.deliver(move.endpoint, move.outgoing())

    assert move.target.memory.placed_max == move.target.limit
    written = move.target.devices["shared"].slots_written
    assert written
    assert written <= set(OWN)
    assert set(move.target.pages.swapped()["shared"]) == granted | written


def test_a_delivery_may_be_repeated_and_is_the_same(move: Move):
    first = transfer.deliver(move.endpoint, move.outgoing())
    second = transfer.deliver(move.endpoint, move.outgoing())

    move.arrive()

    assert first == second
    assert move.target.wrong_pages() == []


def test_nothing_changes_at_the_source(move: Move):
    before = move.source.table.digest(), move.source.memory.resident().tolist(), move.source.pages.pool.free()

    transfer.deliver(move.endpoint, move.outgoing())

    assert (move.source.table.digest(), move.source.memory.resident().tolist(), move.source.pages.pool.free()) == before
    move.source.pages.thaw()
    assert move.source.wrong_pages() == []


def test_a_page_that_came_in_while_frozen_travels_as_its_slot(move: Move):
    plain = move.outgoing()
    frames_of(plain)
    move.source.read(move.source.swapped_page())

    assert transfer.deliver(move.endpoint, move.outgoing()) == plain.manifest


def test_a_delivery_that_broke_in_the_middle_leaves_the_target_ready_for_the_next(move: Move):
    hand = Hand(move.endpoint).welcome(move.endpoint)
    hand.say(*frames_of(move.outgoing())[:2]).close()

    transfer.deliver(move.endpoint, move.outgoing())
    move.arrive()

    assert move.target.wrong_pages() == []


def test_a_wrong_token_is_refused_and_disturbs_nobody(move: Move):
    transfer.deliver(move.endpoint, move.outgoing())

    with pytest.raises(TransferError, match="wrong token"):
        transfer.deliver(attrs.evolve(move.endpoint, token="x" * 64), move.outgoing())

    move.arrive()
    assert move.target.wrong_pages() == []


def test_the_token_is_not_shown(move: Move):
    assert move.endpoint.token not in repr(move.endpoint)


def test_a_second_connection_is_refused_while_one_delivers(move: Move):
    first = Hand(move.endpoint).welcome(move.endpoint)

    with pytest.raises(TransferError, match="another connection is delivering"):
        transfer.deliver(move.endpoint, move.outgoing())

    assert first.say(*frames_of(move.outgoing())).hears()[0] is Kind.DONE
    first.close()
    move.arrive()
    assert move.target.wrong_pages() == []


def test_a_loaded_guest_takes_no_more_deliveries(move: Move):
    transfer.deliver(move.endpoint, move.outgoing())
    move.arrive()

    with pytest.raises(TransferError, match="delivered and loaded already"):
        transfer.deliver(move.endpoint, move.outgoing())
    assert move.target.wrong_pages() == []


def flipped(frame: bytes, at: int = -100) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


def forged(kind: Kind, body: bytes) -> Callable[[Move], list[bytes]]:
    """A frame whose own checksum is right."""
    return lambda _: [frames.encode(kind, body)]


def with_flipped_content(move: Move) -> list[bytes]:
    kind, body = next((kind, body) for kind, body in parsed(move) if kind is Kind.PAGES)
    return [frames.encode(kind, flipped(body))]


def with_a_page_twice(move: Move) -> list[bytes]:
    kind, body = next((kind, body) for kind, body in parsed(move) if kind is Kind.PAGES)
    return [frames.encode(kind, body)] * 2


def with_an_entry_twice(move: Move) -> list[bytes]:
    kind, body = next((kind, body) for kind, body in parsed(move) if kind is Kind.TABLE)
    return [frames.encode(kind, body)] * 2


def with_a_page_in_two_slots(move: Move) -> list[bytes]:
    return table_frames(move, (5, 10, 2), (6, 100, 1))


def with_a_page_left_out(move: Move) -> list[bytes]:
    table, _, *rest = frames_of(move.outgoing())
    return [table, *rest]


def with_another_manifest(move: Move) -> list[bytes]:
    outgoing = move.outgoing()
    *before, _ = frames_of(outgoing)
    assert outgoing.manifest is not None
    return [*before, frames.encode_end(attrs.evolve(outgoing.manifest, pages_digest="0" * 32))]


def with_another_state(move: Move) -> list[bytes]:
    *before, _, end = frames_of(move.outgoing())
    return [*before, frames.encode(Kind.STATE, flipped(STATE)), end]


def parsed(move: Move) -> list[tuple[Kind, bytes]]:
    reader = FrameReader()
    reader.limit = frames.FRAME_BYTES_MAX
    return [(frame.kind, frame.body) for frame in reader.feed(b"".join(frames_of(move.outgoing())))]


def table_frames(move: Move, *runs: tuple[int, int, int]) -> list[bytes]:
    device = move.shared.uuid
    named = [TableRun(page, device, slot, bytes(4 * count)) for page, slot, count in runs]
    return [frames.encode(Kind.TABLE, frames.table_run_bytes(run)) for run in named]


UNKNOWN = frames.table_run_bytes(TableRun(0, str(uuid.UUID(int=5)), 0, bytes(4)))
FAR_PAGE = frames.page_run_parts(199, bytes(8)) + bytes(2 * PAGE_BYTES)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        pytest.param(lambda move: [flipped(frames_of(move.outgoing())[1])], "wrong checksum", id="flipped byte"),
        pytest.param(with_flipped_content, "contents of pages .* wrong checksum", id="flipped content, frame checksum right"),
        pytest.param(with_a_page_twice, "came twice", id="content twice"),
        pytest.param(with_an_entry_twice, "that hold other pages", id="slot twice"),
        pytest.param(with_a_page_in_two_slots, r"names pages .* twice", id="page twice in the table"),
        pytest.param(with_a_page_left_out, "its end says", id="page left out"),
        pytest.param(with_another_manifest, "its end says", id="wrong digest"),
        pytest.param(with_another_state, "its end says", id="another device state"),
        pytest.param(lambda move: table_frames(move, (0, 299, 2)), "do not exist", id="slot beyond the device"),
        pytest.param(lambda move: table_frames(move, (199, 0, 2)), "do not exist", id="page beyond the memory, in the table"),
        pytest.param(forged(Kind.TABLE, UNKNOWN), "does not reach", id="unknown device"),
        pytest.param(forged(Kind.TABLE, UNKNOWN[:20]), "cut off", id="cut table run"),
        pytest.param(forged(Kind.PAGES, FAR_PAGE), "do not exist", id="page beyond the memory"),
        pytest.param(forged(Kind.PAGES, FAR_PAGE[:-1]), "broken run", id="cut page"),
        pytest.param(forged(Kind.PAGES, frames.page_run_parts(0, b"")), "broken run", id="empty run"),
        pytest.param(forged(Kind.END, b"[]"), "no manifest", id="end without a manifest"),
        pytest.param(forged(Kind.WELCOME, b""), "has no place", id="a word of the other side"),
        pytest.param(lambda _: [b"\x63" + bytes(8)], "kind 99", id="unknown kind"),
        pytest.param(lambda _: [b"\x05\xff\xff\xff\x7f" + bytes(4)], "allowed are", id="huge frame"),
        pytest.param(lambda _: [frames.encode(Kind.STATE, b"x")] * 2, "state twice", id="state twice"),
    ],
)
def test_what_is_not_a_delivery_is_refused_with_its_reason(move: Move, said: Callable[[Move], list[bytes]], complaint: str):
    hand = Hand(move.endpoint).welcome(move.endpoint)

    kind, sentence = hand.say(*said(move)).hears()
    hand.close()

    assert kind is Kind.REFUSED
    with pytest.raises(TransferError, match=complaint):
        raise TransferError(sentence)
    assert move.incoming.manifest is None
    transfer.deliver(move.endpoint, move.outgoing())  # rescue
    move.arrive()
    assert move.target.wrong_pages() == []


@pytest.mark.parametrize(
    ("hello", "complaint"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "allowed are"),
        (frames.encode(Kind.HELLO, b"hello"), "not swapferry"),
        (frames.encode(Kind.HELLO, frames.MAGIC + b"\x09\0\0\0token"), "version 9"),
        (frames.encode(Kind.PAGES, b"x"), "without a hello"),
        (frames.encode(Kind.HELLO, bytes(2000)), "allowed are 1024"),
    ],
)
def test_who_does_not_introduce_himself_is_refused(move: Move, hello: bytes, complaint: str):
    hand = Hand(move.endpoint)

    kind, sentence = hand.say(hello).hears()
    hand.close()

    assert kind is Kind.REFUSED
    assert complaint in sentence


def test_contents_that_came_before_their_table_give_way_to_it(move: Move):
    bodies = {kind: body for kind, body in parsed(move) if kind is Kind.TABLE}
    run = next(frames.parse_table_runs(bodies[Kind.TABLE]))
    stale = frames.page_run_parts(run.page, zero_checksums(2)) + bytes(2 * PAGE_BYTES)
    move.incoming.begin()

    feed(move.incoming, frames.encode(Kind.PAGES, stale), frames.encode(Kind.TABLE, bodies[Kind.TABLE]))

    assert not move.target.memory.is_resident(run.page)
    entry = move.target.table.at(run.page)
    assert entry is not None
    assert entry.slot == run.slot


def zero_checksums(count: int) -> bytes:
    import zlib

    return np.full(count, zlib.crc32(bytes(PAGE_BYTES)), dtype="<u4").tobytes()


def feed(incoming: Incoming, *some: bytes) -> None:
    reader = FrameReader()
    reader.limit = frames.FRAME_BYTES_MAX
    for frame in reader.feed(b"".join(some)):
        incoming.take(frame)


@pytest.mark.parametrize(
    "change", [lambda slots: slots - slots.first(1), lambda slots: slots | SlotSet([199]), lambda _: SlotSet()]
)
def test_a_table_that_names_other_slots_than_were_granted_is_not_loaded(move: Move, change: Callable[[SlotSet], SlotSet]):
    manifest = transfer.deliver(move.endpoint, move.outgoing())

    with pytest.raises(TransferError, match="device shared: the table names"):
        move.incoming.accept(manifest, {"shared": change(move.source.pages.swapped()["shared"])})

    assert move.target.table.phase is Phase.FILLING
    move.arrive()


def test_another_manifest_than_the_delivered_one_is_not_loaded(move: Move):
    granted = move.source.pages.swapped()
    with pytest.raises(TransferError, match="has not delivered"):
        move.incoming.accept(any_manifest(), granted)
    manifest = transfer.deliver(move.endpoint, move.outgoing())

    with pytest.raises(TransferError, match="announced was"):
        move.incoming.accept(attrs.evolve(manifest, table_digest="0" * 32), granted)


def any_manifest() -> Manifest:
    counts = {"pages_sent": 1, "pages_granted": 1, "pages_zero": 1, "bytes_sent": 1, "state_bytes": 0}
    return Manifest(**counts, pages_digest="", table_digest="", state_digest="")


def test_a_far_slot_that_was_corrupted_stops_the_delivery(move: Move, tmp_path: Path):
    slot = move.source.pages.swapped()["private"].first(1)
    private = DevicePath(name="private", path=tmp_path / "private.swap", uuid="")
    before = overwrite_slot(private, next(iter(slot)), b"spoiled")

    with pytest.raises(SlotUnreadable, match="of device private is unreadable"):
        transfer.deliver(move.endpoint, move.outgoing())

    overwrite_slot(private, next(iter(slot)), before)
    transfer.deliver(move.endpoint, move.outgoing())
    move.arrive()
    assert move.target.wrong_pages() == []


def test_a_target_without_room_says_so(move: Move):
    move.target.pages.arm({"shared": SlotSet.span(200, 3)})

    with pytest.raises(TransferError, match=r"do not fit: RAM is full and no armed slot is free"):
        transfer.deliver(move.endpoint, move.outgoing())

    move.target.pages.arm({"shared": OWN})
    transfer.deliver(move.endpoint, move.outgoing())
    move.arrive()
    assert move.target.wrong_pages() == []


def test_nothing_leaves_or_listens_beyond_this_host(move: Move):
    for host in ("192.0.2.7", "0.0.0.0", "::", "example.org"):
        with pytest.raises(TransferError, match="no TLS yet, use a loopback address"):
            transfer.deliver(attrs.evolve(move.endpoint, host=host), move.outgoing())
        with pytest.raises(TransferError, match="no TLS yet, use a loopback address"):
            Listener(move.incoming, host)


def test_a_target_that_is_not_there_is_an_error_of_the_transfer(move: Move):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(TransferError, match=f"127.0.0.1:{port} broke"):
        transfer.deliver(Endpoint(host="127.0.0.1", port=port, token="t"), move.outgoing())


def test_only_a_frozen_guest_can_be_sent(move: Move):
    move.source.pages.thaw()

    with pytest.raises(TransferError, match="only a frozen guest"):
        move.outgoing()


def test_a_device_state_in_which_ram_travels_is_refused(move: Move):
    with pytest.raises(TransferError, match="does RAM travel in it"):
        move.outgoing(bytes(frames.STATE_BYTES_MAX + 1))


async def test_streams_and_sockets_carry_the_same_delivery(move: Move):
    listener = await transfer_streams.StreamListener.open(move.incoming)

    manifest = await transfer_streams.deliver(listener.endpoint, move.outgoing())
    blocking = move.outgoing()
    frames_of(blocking)

    assert manifest == blocking.manifest
    assert listener.delivered.is_set()
    with pytest.raises(TransferError, match="wrong token"):
        await transfer_streams.deliver(attrs.evolve(listener.endpoint, token="x"), move.outgoing())
    await listener.close()
    move.arrive()
    assert move.target.wrong_pages() == []
