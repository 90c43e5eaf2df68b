"""Looking at actors from outside: what one knows, without a turn of its own."""

import attrs


@attrs.frozen(kw_only=True)
class Show:
    """Operator to any actor, answered by its node: what does it know? Changes nothing, and is no message to the actor."""

    request: str
    reply_to: str


@attrs.frozen(kw_only=True)
class Shown:
    """Node to operator: a piece of the actor's book. Pieces of one digest belong together."""

    request: str
    actor: str
    digest: str
    chunk: int
    of: int
    data: bytes
