"""The hands of a VM instance, with a guest that only counts what is done to it."""

import asyncio
from collections import Counter
from collections.abc import Mapping

import attrs
import pytest

from actors import driver as driver_module
from actors.domain.lifecycle import Level
from actors.driver import Driver
from actors.messages import Did, Named, Noticed, Report, Wanted
from actors.runtime.actor import Actor, Inbox
from paging.errors import TransferError
from paging.guest import Definition, Endpoint, Guest, Halted, Manifest, PageCounts, Watcher
from paging.slots import SlotSet

DEFINITION = Definition(vm="web", memory_bytes=4096, resident_bytes=4096)
MANIFEST = Manifest(
    pages_sent=1, pages_granted=0, pages_zero=0, bytes_sent=4096, pages_digest="p", table_digest="t", state_bytes=0,
    state_digest="",
)  # fmt: skip
SENT = Wanted(
    revision=4, level=Level.SENT, definition=DEFINITION, armed={}, endpoint=Endpoint(host="127.0.0.1", port=1, token="t")
)


class CountedGuest(Guest):
    """Does nothing, and counts it."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.failing = 0
        self.broken = self.stalled = False

    async def adopt(self) -> bool:
        return True

    async def clean(self, _granted: Mapping[str, SlotSet], _pages_per_s: int) -> None:
        self.counted["clean"] += 1
        if self.broken:
            self.broken = False
            raise AttributeError("a defect")

    async def boot(self) -> None:
        self.counted["boot"] += 1

    async def stage(self) -> Endpoint:
        raise NotImplementedError

    async def arm(self, _slots: Mapping[str, SlotSet]) -> None:
        self.counted["arm"] += 1

    async def halt(self) -> Halted:
        raise NotImplementedError

    async def send(self, _endpoint: Endpoint, _near: frozenset[str]) -> Manifest:
        self.counted["send"] += 1
        if self.broken:
            raise AttributeError("a defect")
        if self.failing:
            self.failing -= 1
            raise TransferError("the data channel broke")
        return MANIFEST

    async def load(self, _manifest: Manifest, _granted: Mapping[str, SlotSet]) -> None:
        raise NotImplementedError

    async def run(self) -> None:
        self.counted["run"] += 1

    async def destroy(self) -> None:
        self.counted["destroy"] += 1

    async def counts(self) -> PageCounts:
        raise NotImplementedError

    async def swapped(self) -> Mapping[str, SlotSet]:
        return {}

    async def verify(self) -> str | None:
        return None

    def watch(self, watcher: Watcher) -> None:
        if self.stalled:
            watcher("stalled", "page 1")


class Posts(Inbox):
    """Keeps what is posted."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[Report] = asyncio.Queue()
        self.noticed: list[str] = []
        self.named: asyncio.Queue[Named] = asyncio.Queue()

    def post(self, _address: str, body: object) -> None:
        if isinstance(body, Did):
            self.reports.put_nowait(body.report)
        elif isinstance(body, Noticed):
            self.noticed.append(body.what)
        elif isinstance(body, Named):
            self.named.put_nowait(body)

    def spawn(self, actor: Actor) -> None:
        raise NotImplementedError

    def retire(self, address: str) -> None:
        raise NotImplementedError


async def test_a_guest_that_was_sent_is_not_sent_again_when_it_is_told_again_before_its_report_was_heard() -> None:
    guest, posts = CountedGuest(), Posts()
    driver = Driver("web@h1.boot-1", "h1", posts, lambda _instance, _definition: guest)
    driver.follow(SENT)
    first = await posts.reports.get()

    driver.follow(SENT)
    again = await posts.reports.get()
    await driver.stop()

    assert again == first
    assert guest.counted["send"] == 1


async def test_what_failed_is_tried_again_when_it_is_told_again() -> None:
    guest, posts = CountedGuest(), Posts()
    guest.failing = 1
    driver = Driver("web@h1.boot-1", "h1", posts, lambda _instance, _definition: guest)
    driver.follow(SENT)
    failed = await posts.reports.get()

    driver.follow(SENT)
    done = await posts.reports.get()
    await driver.stop()

    assert (failed.failed, done.failed) == ("the data channel broke", "")
    assert guest.counted["send"] == 2


async def test_a_defect_of_a_guest_is_reported_like_any_failure() -> None:
    guest, posts = CountedGuest(), Posts()
    guest.broken = True
    driver = Driver("web@h1.boot-1", "h1", posts, lambda _instance, _definition: guest)

    driver.follow(SENT)
    report = await posts.reports.get()
    await driver.stop()

    assert "a defect" in report.failed


async def test_a_stall_that_ended_while_the_node_was_away_is_known_to_have_ended() -> None:
    posts = Posts()
    driver = Driver("web@h1.boot-1", "h1", posts, lambda _instance, _definition: CountedGuest())

    driver.follow(SENT)
    await posts.reports.get()
    await driver.stop()

    assert posts.noticed == ["unstalled"]


async def test_a_stall_that_goes_on_is_told_by_the_next_node() -> None:
    guest, posts = CountedGuest(), Posts()
    guest.stalled = True
    driver = Driver("web@h1.boot-1", "h1", posts, lambda _instance, _definition: guest)

    driver.follow(SENT)
    await posts.reports.get()
    await driver.stop()

    assert posts.noticed == ["stalled"]


async def test_a_defect_of_a_guest_does_not_end_the_telling_of_what_its_table_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "TEND_S", 0.0)
    guest, posts = CountedGuest(), Posts()
    guest.broken = True
    driver = Driver("web@h1.boot-1", "h1", posts, lambda _instance, _definition: guest)

    driver.tend(attrs.evolve(SENT, level=Level.RUNNING, granted={"san2": SlotSet.span(0, 4)}))
    named = await asyncio.wait_for(posts.named.get(), 10.0)
    await driver.stop()

    assert named.slots == {}
    assert guest.counted["clean"] >= 2
