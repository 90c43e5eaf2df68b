"""What both buses say of a dead letter that an operator names."""

from bus.broker import DeadLetter
from bus.errors import Absent, Unreadable


def absent(letter: str) -> Absent:
    """Nobody has a dead letter of this id."""
    return Absent(f"there is no dead letter {letter}; list them again (while somebody else looks at it, it is not there)")


def target_of(dead: DeadLetter) -> str:
    """Whom it was for. Raises `Unreadable` where its bytes do not say so."""
    if dead.envelope is None:
        raise Unreadable(f"dead letter {dead.id} cannot be read ({dead.reason}), so nobody could hear it; drop it")
    return dead.envelope.target
