"""The arbiter of one swap device: keeps its ledger and plays the row *grant*."""

from collections.abc import Mapping

import attrs

from actors.domain import ledger
from actors.domain.holdings import Holding
from actors.domain.ledger import Right
from actors.errors import Defect
from actors.messages import Fence, Fenced, Grant, Return, Survey, Undo, swap_device
from actors.runtime.actor import Actor, Turn
from actors.runtime.saga import Floor, Progress
from actors.sagas import cleanup
from actors.sagas.device import DeviceFacts, change, rights
from actors.sagas.migration import MIGRATION
from paging.slots import SlotSet


@attrs.frozen(kw_only=True)
class Numbered:
    """The device's one counter of changes: the generation given last. Generation 1 is the home's first ownership."""

    generation: int = 1


class SwapDevice(Actor):
    """One device. `home` is the host that its slots go back to."""

    kinds = (Numbered, Right, DeviceFacts, Progress, Floor)
    hears = (Grant, Undo, Return, Survey, Fence)

    def __init__(self, device: str, home: str, slot_count: int) -> None:
        self.device, self.home, self.slot_count = device, home, slot_count
        self.address = swap_device(device)

    def about(self) -> Mapping[str, object]:
        """Whose device it is, and how large."""
        return {"device": self.device, "home": self.home, "slot_count": self.slot_count}

    def decide(self, turn: Turn) -> None:
        """React to one message."""
        if turn.get(Numbered) is None:
            turn.put(Numbered())
            turn.put(Right(owner=self.home, slots=SlotSet.span(0, self.slot_count)), "1")
        cast, body = turn.heard.cast, turn.heard.body
        if cast is None:
            self._outside_sagas(turn, body)
            return
        if self.device not in cast.devices:
            raise Defect(f"device {self.device} does not play in saga {cast.saga}")
        if not MIGRATION.current(turn, cast):
            return
        if isinstance(body, Undo):
            MIGRATION.undo(self, turn, cast, body.reason, body.restored, opener_is_me=False)
        else:
            MIGRATION.play(self, turn, cast)

    def _outside_sagas(self, turn: Turn, body: object) -> None:
        match body:
            case Survey():
                cleanup.surveyed(turn, self.device, rights(turn), self.home, body)
            case Return():
                self._take(turn, body)
            case Fence():
                self._fence(turn, body)
            case _:
                raise Defect(f"{type(body).__name__} for device {self.device} belongs to no saga")

    def _fence(self, turn: Turn, body: Fence) -> None:
        """What a dead host owns goes home in a new generation: whatever it still has under way is refused from here on."""
        known = rights(turn)
        held = [
            Holding(device=self.device, generation=generation, slots=right.slots)
            for generation, right in known.items()
            if right.owner == body.host
        ]
        if held:
            change(turn, ledger.given(known, held, self.home, self.next_generation(turn), returned=True))
            turn.event("fenced", device=self.device, host=body.host)
        turn.say(turn.heard.source, Fenced(device=self.device, host=body.host), row="fence")

    def _take(self, turn: Turn, body: Return) -> None:
        if any(holding.device != self.device for holding in body.holdings):
            raise Defect(f"device {self.device} was given slots of another device")
        numbered = turn.get(Numbered) or Numbered()
        changes = cleanup.take(turn, rights(turn), self.home, body, numbered.generation + 1)
        if changes:
            change(turn, changes)
            self.next_generation(turn)

    def next_generation(self, turn: Turn) -> int:
        """A generation that no right ever had."""
        numbered = turn.get(Numbered) or Numbered()
        turn.put(attrs.evolve(numbered, generation=numbered.generation + 1))
        return numbered.generation + 1


def rights_of(values: Mapping[str, Right]) -> dict[int, Right]:
    """The ledger from a record's filing."""
    return {int(generation): right for generation, right in values.items()}
