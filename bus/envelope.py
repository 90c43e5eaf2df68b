"""The envelope: who says what to whom, in which saga, and because of what.

A frozen value. The body is plain msgpack data; what it means is known to `actors.messages`, not here.
"""

from collections.abc import Mapping
from typing import Any

import attrs

ENVELOPE_VERSION = 1


@attrs.frozen(kw_only=True)
class Envelope:
    """One message on the bus.

    `cast` is the saga's id and its players (None outside a saga), `row` the row that said it, `epoch` the placement epoch
    the saga replaces. `causation` is the id of the message that was heard, `correlation` the saga's or request's id.
    `deadline` and `sent_at` are Unix seconds. `type_v` is the version of the body's type.
    """

    id: str
    type: str
    source: str
    target: str
    body: Mapping[str, Any]
    v: int = ENVELOPE_VERSION
    type_v: int = 1
    cast: Mapping[str, Any] | None = None
    row: str | None = None
    epoch: int | None = None
    correlation: str | None = None
    causation: str | None = None
    deadline: float | None = None
    sent_at: float | None = None
    trace: str | None = None
