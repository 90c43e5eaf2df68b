"""The saga engine: plays a table of rows, pure and without knowing what the rows do.

A saga is choreographed: each actor plays only its rows. Whoever hears the message of a row above the last one it did
does the row; whoever hears one again says again what its *latest* row says. So nothing that is said needs an outbox, and
the opener's repeated question is the one retry timer of a saga. A row may have to wait for more chunks or for its machine:
then it is silent, and is tried again with the next chunk, report or question.

Compensation: an abort is only ever a message to the keeper of the pivot. It marks the saga undone and sends `Undo` along
the route; each player undoes what it did, or leaves a tombstone for what it did not, and passes it on.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar

import attrs

from actors.errors import Defect
from actors.messages import Cast, Restored
from actors.runtime.actor import Say, Turn

A = TypeVar("A")


class Now(Enum):
    """How far a row is that needs more than its message."""

    DONE = "done"
    WAIT = "wait"


@attrs.frozen
class Refuse:
    """The row cannot be done; the saga shall be undone for this reason."""

    reason: str


Readiness = Now | Refuse


@attrs.frozen(kw_only=True)
class Progress:
    """What an actor remembers of one saga: the last row it did, the row it has begun, or that it was undone."""

    cast: Cast
    row: int = -1
    begun: int = -1
    undone: bool = False
    reason: str = ""
    restored: tuple[Restored, ...] = ()


@attrs.frozen(kw_only=True)
class Floor:
    """An opener's sagas below this number are over; what is still said in them is ignored."""

    number: int


@attrs.frozen(kw_only=True)
class Row(Generic[A]):
    """A step: who plays it on which message, how it takes the message, when it is done, what it then says.

    `take` keeps what the message brings (it may come again). `ready` does the row, or says that it must wait or cannot
    be done. `say` computes the words from the record, now.
    """

    name: str
    role: str
    on: type
    take: Callable[[A, Turn, Cast, Any], None]
    ready: Callable[[A, Turn, Cast], Readiness]
    say: Callable[[A, Turn, Cast], Sequence[Say]]


@attrs.frozen(kw_only=True)
class Undoing(Generic[A]):
    """How a role takes its rows back: returns what it restored, for those after it on the route."""

    role: str
    undo: Callable[[A, Turn, Cast, tuple[Restored, ...]], tuple[Restored, ...]]


@attrs.frozen(kw_only=True)
class Saga(Generic[A]):
    """A table of rows with one pivot, and the way back."""

    rows: Sequence[Row[A]]
    pivot: str
    close: str
    """from this row on a saga that was undone goes the same way as one that was done"""
    undoings: Mapping[str, Undoing[A]]
    role: Callable[[A, Cast], str]
    abort: Callable[[Cast, str], Say]
    onward: Callable[[A, Cast, str, tuple[Restored, ...]], Sequence[Say]]
    """what is said after an undo: (actor, cast, reason, restored)"""
    kept: Sequence[type] = ()
    """kinds that are filed under a saga as long as its progress is, and forgotten with it"""

    def index(self, name: str) -> int:
        """Where a row stands in the table."""
        return next(index for index, row in enumerate(self.rows) if row.name == name)

    def row_on(self, body: type) -> int:
        """Which row a message is for."""
        return next(index for index, row in enumerate(self.rows) if row.on is body)

    # -- the record

    def current(self, turn: Turn, cast: Cast) -> bool:
        """False for a message of a saga that is over. Forgets the sagas below the opener's floor."""
        floor = turn.get(Floor, cast.opener) or Floor(number=0)
        if cast.floor > floor.number:
            floor = Floor(number=cast.floor)
            turn.put(floor, cast.opener)
            self._forget(turn, cast.opener, floor.number)
        return bool(cast.number >= floor.number)

    def _forget(self, turn: Turn, opener: str, floor: int) -> None:
        for saga, progress in turn.all(Progress).items():
            if progress.cast.opener == opener and progress.cast.number < floor:
                turn.drop(Progress, saga)
                for kind in self.kept:
                    if turn.get(kind, saga) is not None:
                        turn.drop(kind, saga)

    def progress(self, turn: Turn, cast: Cast, opener_is_me: bool) -> Progress | None:
        """The record of the saga; its opener never makes a second one."""
        found = turn.get(Progress, cast.saga)
        if found is None and not opener_is_me:
            found = Progress(cast=cast)
            turn.put(found, cast.saga)
        return found

    # -- playing

    def play(self, actor: A, turn: Turn, cast: Cast, *, opener_is_me: bool = False) -> None:
        """React to the message of a row: do it once, then say (again) whatever the last row done here has to say."""
        progress = self.progress(turn, cast, opener_is_me)
        if progress is None:
            return
        index = self.row_on(type(turn.heard.body))
        if progress.row < index and (index >= self.index(self.close) or not progress.undone):
            turn.put(attrs.evolve(progress, cast=cast, begun=index), cast.saga)
            self.rows[index].take(actor, turn, cast, turn.heard.body)
            self.advance(actor, turn, cast.saga)
        else:
            self.repeat(actor, turn, cast)

    def advance(self, actor: A, turn: Turn, saga: str) -> None:
        """Try the row that was begun: after its message, and whenever something that it waits for has come."""
        progress = turn.get(Progress, saga)
        if progress is None or progress.begun <= progress.row:
            return
        if progress.undone and progress.begun < self.index(self.close):
            return
        row, cast = self.rows[progress.begun], progress.cast
        outcome = row.ready(actor, turn, cast)
        if outcome is Now.WAIT:
            return
        if isinstance(outcome, Refuse):
            turn.event("row_refused", saga=saga, vm=cast.vm, row=row.name, reason=outcome.reason)
            self._say(turn, [self.abort(cast, outcome.reason)], row.name)
            return
        if turn.get(Progress, saga) is not None:
            turn.put(attrs.evolve(progress, row=progress.begun), saga)
        turn.event("row_done", saga=saga, vm=cast.vm, row=row.name, role=row.role, epoch=cast.epoch)
        self._say(turn, row.say(actor, turn, cast), row.name)

    def repeat(self, actor: A, turn: Turn, cast: Cast) -> None:
        """Say again what the latest row says, or pass the undo on again."""
        progress = turn.get(Progress, cast.saga)
        if progress is None:
            return
        if progress.undone and progress.row < self.index(self.close):
            self._say(turn, self.onward(actor, cast, progress.reason, progress.restored), "undo")
        elif progress.row >= 0:
            row = self.rows[progress.row]
            self._say(turn, row.say(actor, turn, cast), row.name)

    def undo(self, actor: A, turn: Turn, cast: Cast, reason: str, restored: tuple[Restored, ...], *, opener_is_me: bool) -> None:
        """Take back what was done here, or leave a tombstone; pass it on. After the pivot: say what was decided."""
        progress = self.progress(turn, cast, opener_is_me)
        if progress is None:
            return
        if progress.row < self.index(self.pivot) and not progress.undone:
            role = self.role(actor, cast)
            undoing = self.undoings.get(role)
            if undoing is None:
                raise Defect(f"saga {cast.saga}: no undo for role {role}")
            restored = undoing.undo(actor, turn, cast, restored)
            turn.put(attrs.evolve(progress, cast=cast, undone=True, reason=reason, restored=restored), cast.saga)
            turn.event("undone", saga=cast.saga, vm=cast.vm, role=role, row="undo", reason=reason, epoch=cast.epoch)
        self.repeat(actor, turn, cast)

    def _say(self, turn: Turn, says: Sequence[Say], row: str) -> None:
        for say in says:
            turn.say(say.target, say.body, cast=say.cast, row=row)
