"""Holdings travel in pieces whose size grows with ranges, not with slots."""

from hypothesis import given
from hypothesis import strategies as st

from actors.domain.holdings import RANGES_PER_MESSAGE, Holding, by_device, cut, digest, joined, pieces
from actors.messages import BODIES, Cast, Grant
from actors.runtime.actor import Say
from actors.runtime.catalogue import Catalogue
from bus import codec
from bus.broker import MESSAGE_BYTES_MAX
from paging.slots import SlotSet

HOLDINGS = st.lists(
    st.builds(
        Holding,
        device=st.sampled_from(["san0", "san1"]),
        generation=st.integers(1, 3),
        slots=st.builds(SlotSet, st.sets(st.integers(0, 300))),
    ),
    max_size=6,
)


def named(holdings: list[Holding]) -> set[tuple[str, int, int]]:
    return {(one.device, one.generation, slot) for one in holdings for slot in one.slots}


@given(HOLDINGS, st.integers(1, 7))
def test_pieces_put_together_are_the_whole(holdings: list[Holding], ranges_max: int):
    parts = pieces(holdings, ranges_max)

    assert all(sum(len(one.slots.ranges()) for one in part) <= ranges_max for part in parts)
    assert named(list(joined(parts))) == named(holdings)


@given(HOLDINGS)
def test_a_digest_names_the_slots_and_not_the_generations(holdings: list[Holding]):
    again = [Holding(device=device, generation=9, slots=slots) for device, slots in by_device(holdings).items()]

    assert digest(holdings) == digest(again)


def test_what_is_cut_out_keeps_its_generations():
    held = [
        Holding(device="san0", generation=1, slots=SlotSet([1, 2, 3])),
        Holding(device="san0", generation=4, slots=SlotSet([7, 8])),
        Holding(device="san1", generation=2, slots=SlotSet([1])),
    ]

    found = cut(held, {"san0": SlotSet([2, 7])})

    assert named(list(found)) == {("san0", 1, 2), ("san0", 4, 7)}


def test_a_grant_of_a_hundred_thousand_fragmented_slots_stays_under_the_message_limit():
    fragmented = Holding(device="san0", generation=1, slots=SlotSet(range(0, 200_000, 2)))
    catalogue = Catalogue(BODIES, Cast)

    parts = pieces([fragmented])

    sizes = [_size(catalogue, Grant(chunk=index, of=len(parts), holdings=part)) for index, part in enumerate(parts)]
    assert len(parts) == 100_000 // RANGES_PER_MESSAGE
    assert max(sizes) < MESSAGE_BYTES_MAX


def test_a_grant_grows_with_ranges_and_not_with_pages():
    catalogue = Catalogue(BODIES, Cast)
    few, many = (Holding(device="san0", generation=1, slots=SlotSet.span(8, count)) for count in (2, 2_000_000))

    small, large = (_size(catalogue, Grant(chunk=0, of=1, holdings=(one,))) for one in (few, many))

    assert small == large


def _size(catalogue: Catalogue, body: Grant) -> int:
    say = Say(target="swap-device.san0", body=body)
    return len(codec.encode(catalogue.encode(say, source="hypervisor.h1", id="a", causation="b", sent_at=1.0)))


