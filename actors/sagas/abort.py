"""How a saga is given up: never by one's own decision, always by asking the keeper of the pivot."""

from actors.messages import MANAGER, Abort, Cast
from actors.runtime.actor import Say


def abort(cast: Cast, reason: str) -> Say:
    """Ask the manager to undo the saga; it answers with what was decided if that has come first."""
    return Say(target=MANAGER, body=Abort(reason=reason), cast=cast)
