"""The port `Broker`: all that an actor node may rely on. Adapters: `bus.memory`, `bus.rabbit`.

Rules (the contract suite in tests/bus names them by number):

 1. **At least once.** A confirmed message is delivered until it is acked, rejected or dead-lettered; it may come twice.
 2. **Confirm.** `publish` returns only when the broker has taken responsibility for the message; otherwise it raises
    `Transient` within its deadline. A message whose publish raised may still arrive: same id, so no harm.
 3. **Return.** A publish to an address that nobody has bound raises `Unroutable`, and the message lies in the dead-letter
    queue with reason "unroutable".
 4. **Redelivery.** A message delivered to a connection that went away before it acked is delivered again, marked so.
 5. **Order.** Messages of one publisher to one address arrive in the order of their publishes, redeliveries excepted.
 6. **Dead letters.** Bytes that cannot be decoded, are too large, or of an unknown envelope version are never delivered:
    they go to the dead-letter queue with a reason. `Delivery.reject(reason)` sends a readable one there.
 7. **Delivery limit.** A message that was requeued more often than the limit goes to the dead-letter queue by itself.
 8. **The callback only enqueues.** `deliver` is synchronous and quick; no handler runs inside a broker callback.
 9. **Reconnect.** After an outage the adapter connects again by itself, with its bindings and its consumer.
10. **Alarm.** While the broker blocks publishers, `publish` raises `Transient` at its deadline; deliveries and acks go on.
11. **Prefetch.** At most `prefetch` deliveries are un-acked at any time for one node.
12. **Redrive.** A dead letter that can be read is published again to its target, confirmed, and only then taken away: it is
    never in neither place. Where nobody has the address, `Unroutable` is raised and the letter stays. Others keep their order.
13. **Drop.** A dead letter is taken away for good; the others keep their order.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from bus.envelope import Envelope

MESSAGE_BYTES_MAX = 256 * 1024


@attrs.define(kw_only=True)
class Counters:
    """What passed through one broker connection since it was made."""

    published: int = 0
    returned: int = 0
    redelivered: int = 0
    dead_lettered: int = 0
    """put into the dead-letter queue by us; what the broker puts there by itself (rule 7) is not seen"""


class Delivery(ABC):
    """A message that this node holds until it acks, requeues or rejects it (exactly one of the three, once)."""

    envelope: Envelope
    redelivered: bool

    @abstractmethod
    async def ack(self) -> None:
        """Tell the broker to forget the message. Never raises: a lost ack means a redelivery."""

    @abstractmethod
    async def requeue(self) -> None:
        """Give the message back, to be delivered again (a draining node)."""

    @abstractmethod
    async def reject(self, reason: str) -> None:
        """Put the message into the dead-letter queue with this reason."""


@attrs.frozen(kw_only=True)
class DeadLetter:
    """A message that ended in the dead-letter queue. `envelope` is None where the bytes could not be decoded.

    `id` names the letter by what it is: the same bytes, buried twice for one reason, have one id.
    """

    reason: str
    raw: bytes
    envelope: Envelope | None = None
    headers: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def id(self) -> str:
        """A short name for these bytes and this reason."""
        reason = hashlib.blake2b(self.reason.encode(), digest_size=16).digest()
        return hashlib.blake2b(self.raw, digest_size=6, salt=reason).hexdigest()


Deliver = Callable[[Delivery], None]


class Broker(ABC):
    """One node's connection to the bus."""

    counters: Counters

    @abstractmethod
    async def open(self, node: str, deliver: Deliver) -> None:
        """Connect as `node`, declare its inbound queue, start consuming. Raises `Transient` when nothing answers."""

    @abstractmethod
    async def bind(self, address: str) -> None:
        """Let messages for this address come to this node's queue. Idempotent."""

    @abstractmethod
    async def unbind(self, address: str) -> None:
        """Messages for this address are unroutable from here on. Idempotent."""

    @abstractmethod
    async def publish(self, envelope: Envelope) -> None:
        """Say it, confirmed. Raises `Transient`, `Unroutable` or `TooLarge` (rule 2, 3, 6)."""

    @abstractmethod
    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Look at the oldest dead letters without taking them away."""

    async def redrive(self, letter: str) -> None:
        """Publish the oldest dead letter of this id again and take it away (rule 12). Raises `Absent`, `Unreadable`,
        `Unroutable`, `Transient`; then it is where it was."""
        raise NotImplementedError(f"{type(self).__name__} has no operators")

    async def drop(self, letter: str) -> None:
        """Take the oldest dead letter of this id away (rule 13). Raises `Absent`, `Transient`."""
        raise NotImplementedError(f"{type(self).__name__} has no operators")

    @abstractmethod
    async def close(self) -> None:
        """Stop consuming, close the connections; what was not acked is delivered again to whoever opens this node."""
