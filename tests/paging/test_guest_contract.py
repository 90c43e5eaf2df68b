"""What every guest promises (`paging.guest`), whatever its machine is made of."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from paging.device import PAGE_BYTES, DevicePath
from paging.errors import DeviceError, GuestError, PagingError, TransferError
from paging.guest import Guest, Halted, Manifest, Seat
from paging.policy import BATCH_PAGES
from paging.slots import SlotSet
from tests.paging.guests import KINDS, Kind
from tests.paging.parts import make_device, overwrite_slot

SHARED_MEMORY = "/dev/shm"
WAIT_S = 60.0
"""What must happen happens long before; only a defect waits so long"""


@attrs.frozen
class House:
    """Two seats of one host: both reach the device `shared`, the source reaches `private` too."""

    kind: Kind
    directory: Path
    """of the seats: on tmpfs, as a real guest's RAM wants it"""
    shared: DevicePath
    private: DevicePath
    made: list[Guest]

    def guest(self, host: str, *devices: DevicePath) -> Guest:
        seat = Seat(
            instance=f"vm.a@{host}.1", definition=self.kind.definition, directory=self.directory / host, devices=devices
        )
        self.made.append(self.kind.make(seat))
        return self.made[-1]

    @property
    def slots(self) -> int:
        """A quarter of what each device has; enough for all that does not fit into RAM."""
        return self.kind.definition.pages

    async def source(self, *, on_private: bool = False) -> Guest:
        """Booted, filled and at work."""
        guest = self.guest("h", self.shared, self.private)
        swapped_at_least = (self.kind.definition.workload.fill_bytes - self.kind.definition.resident_bytes) // PAGE_BYTES
        private = swapped_at_least if on_private else 0
        shared = swapped_at_least // 2 if on_private else self.slots
        await guest.arm({"shared": SlotSet.span(0, shared), "private": SlotSet.span(0, private)})
        await guest.boot()
        assert await guest.verify() is None
        return guest

    def target(self) -> Guest:
        return self.guest("i", self.shared)

    @property
    def own(self) -> SlotSet:
        """Slots of the target."""
        return SlotSet.span(self.slots, self.slots)


@pytest.fixture(params=KINDS, ids=str)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    kind: Kind = request.param
    count = 2 * kind.definition.pages
    shared, private = make_device(tmp_path, "shared", count), make_device(tmp_path, "private", count)
    with tempfile.TemporaryDirectory(prefix="swapferry-", dir=SHARED_MEMORY) as seats:
        house = House(kind, Path(seats), shared, private, [])
        yield house
        for guest in house.made:
            await guest.destroy()


async def move(house: House, source: Guest, target: Guest) -> tuple[Halted, Manifest]:
    """Halt there, load here. The target is armed as a hypervisor would."""
    endpoint = await target.stage()
    await target.arm({"shared": house.own})
    halted = await source.halt()
    manifest = await source.send(endpoint, frozenset({"shared"}))
    granted = halted.swapped["shared"]
    await target.load(manifest, {"shared": granted})
    await target.arm({"shared": house.own | granted})
    return halted, manifest


def within_budget(house: House) -> int:
    return house.kind.definition.resident_bytes + BATCH_PAGES * PAGE_BYTES


async def test_a_guest_that_is_larger_than_its_budget_keeps_to_it_and_remembers_everything(house: House):
    guest = await house.source()

    counts = await guest.counts()

    assert counts.resident_bytes_max <= within_budget(house)
    assert counts.total == house.kind.definition.pages == counts.resident + counts.swapped + counts.zero
    assert counts.swapped * PAGE_BYTES >= house.kind.definition.workload.fill_bytes - within_budget(house)
    assert counts.faults > 0
    swapped = await guest.swapped()
    assert swapped["shared"] <= SlotSet.span(0, house.slots)
    assert await guest.verify() is None


async def test_a_halt_and_a_thaw_leave_the_memory_as_it_was(house: House):
    guest = await house.source()

    halted = await guest.halt()
    again = await guest.halt()

    assert halted.swapped == again.swapped == await guest.swapped()
    with pytest.raises(GuestError):
        await guest.verify()
    await guest.run()
    await guest.run()
    assert await guest.verify() is None


async def test_a_guest_is_moved_and_its_slots_stay(house: House):
    source, target = await house.source(), house.target()

    halted, manifest = await move(house, source, target)
    await source.destroy()
    await target.run()

    assert await target.verify() is None
    assert manifest.pages_granted == len(halted.swapped["shared"]) > 0
    assert manifest.pages_sent <= halted.counts.resident
    assert manifest.bytes_sent <= 1.05 * manifest.pages_sent * PAGE_BYTES + manifest.state_bytes + 8 * manifest.pages_granted
    assert (await target.counts()).resident_bytes_max <= within_budget(house)


async def test_an_undone_move_leaves_the_source_as_it_was(house: House):
    source, target = await house.source(), house.target()
    halted, _ = await move(house, source, target)

    await target.destroy()

    assert await source.swapped() == halted.swapped
    await source.run()
    assert await source.verify() is None


async def test_a_guest_comes_home_again(house: House):
    source, target = await house.source(), house.target()
    halted, _ = await move(house, source, target)
    await source.destroy()
    await target.run()
    assert await target.verify() is None

    home = house.guest("j", house.shared)
    endpoint = await home.stage()
    back = await target.halt()
    idle = halted.swapped["shared"] - back.swapped["shared"]
    await home.arm({"shared": idle})
    manifest = await target.send(endpoint, frozenset({"shared"}))
    await home.load(manifest, back.swapped)
    await home.arm({"shared": idle | back.swapped["shared"]})
    await target.destroy()
    await home.run()

    assert await home.verify() is None


async def test_slots_that_came_with_a_guest_come_home_while_it_works(house: House):
    source, target = await house.source(), house.target()
    halted, _ = await move(house, source, target)
    granted = {"shared": halted.swapped["shared"]}
    await target.arm({"shared": house.own})
    await source.destroy()

    await target.clean(granted, 1000)
    assert (await target.swapped())["shared"] & granted["shared"], "nothing is copied before it runs"
    await target.run()
    while (await target.swapped())["shared"] & granted["shared"]:
        await target.clean(granted, 20_000)
        await asyncio.sleep(0.01)

    assert (await target.swapped())["shared"] <= house.own
    assert (await target.counts()).foreign == 0
    assert await target.verify() is None


async def test_pages_on_a_device_out_of_reach_travel_as_memory(house: House):
    source, target = await house.source(on_private=True), house.target()

    halted, manifest = await move(house, source, target)
    await target.run()

    far = len(halted.swapped["private"])
    assert far > 0
    assert manifest.pages_granted == len(halted.swapped["shared"])
    assert manifest.pages_sent >= far
    assert await target.verify() is None
    assert (await target.counts()).resident_bytes_max <= within_budget(house)


async def test_other_grants_than_the_table_names_are_refused(house: House):
    source, target = await house.source(), house.target()
    endpoint = await target.stage()
    assert await target.stage() == endpoint
    await target.arm({"shared": house.own})
    granted = (await source.halt()).swapped["shared"]
    manifest = await source.send(endpoint, frozenset({"shared"}))

    for wrong in (granted - granted.first(1), granted | house.own.first(1), SlotSet()):
        with pytest.raises(TransferError):
            await target.load(manifest, {"shared": wrong})
    with pytest.raises(TransferError):
        await target.load(attrs.evolve(manifest, pages_digest="0" * 32), {"shared": granted})

    await target.load(manifest, {"shared": granted})
    await target.load(manifest, {"shared": granted})
    await source.run()
    assert await source.verify() is None


async def test_a_stranger_delivers_nothing(house: House):
    source, target = await house.source(), house.target()
    endpoint = await target.stage()
    await source.halt()

    with pytest.raises(TransferError):
        await source.send(attrs.evolve(endpoint, token="f" * 64), frozenset({"shared"}))

    assert endpoint.token not in repr(endpoint)


async def test_a_corrupted_slot_is_never_seen_and_named(house: House):
    guest = await house.source()
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    guest.watch(lambda what, sentence: heard.put_nowait((what, sentence)))
    saved = {slot: overwrite_slot(house.shared, slot, b"\x55" * 16) for slot in (await guest.swapped())["shared"]}

    verdict = asyncio.ensure_future(guest.verify())
    what, sentence = await asyncio.wait_for(heard.get(), WAIT_S)

    assert what == "stalled"
    assert "of device shared is unreadable" in sentence
    page, slot = (int(sentence.partition(word)[2].split()[0]) for word in ("page ", "slot "))
    assert 0 <= page < house.kind.definition.pages
    assert slot in saved
    assert (await guest.counts()).stalled is not None
    with pytest.raises(GuestError, match="unreadable"):
        await guest.halt()

    for slot, content in saved.items():
        overwrite_slot(house.shared, slot, content)
    while (await asyncio.wait_for(heard.get(), WAIT_S))[0] != "unstalled":
        pass
    first = await asyncio.gather(verdict, return_exceptions=True)
    assert first[0] is None or "unreadable" in str(first[0])
    assert await guest.verify() is None


async def test_a_destroyed_guest_leaves_nothing(house: House):
    guest = await house.source()
    staged = house.target()
    await staged.stage()

    for each in (guest, staged):
        await each.destroy()
        await each.destroy()

    assert [file for host in ("h", "i") for file in (house.directory / host).glob("*")] == []
    before = house.shared.path.read_bytes()
    with pytest.raises(PagingError):
        await guest.run()
    assert house.shared.path.read_bytes() == before


async def test_a_device_that_is_not_there_is_an_error_and_leaves_nothing(house: House):
    guest = house.guest("h", attrs.evolve(house.shared, path=house.directory / "nowhere"))

    with pytest.raises(DeviceError, match="nowhere"):
        await guest.boot()

    assert list((house.directory / "h").glob("*")) == []


async def test_steps_out_of_order_are_refused(house: House):
    guest = house.guest("h", house.shared)

    for step in (guest.halt, guest.run, guest.verify):
        with pytest.raises(PagingError):
            await step()
