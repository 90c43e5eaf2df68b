"""Names and shapes on the broker, as data: which exchanges and queues there are, and what an address looks like.

    publisher --address--> exchange "swapferry" (direct) --binding per address--> queue of the node --> consumer
                                                                                       |
                         exchange "swapferry.dead" (fanout) <--over the delivery limit-+
                                   |
                         queue "swapferry.dead-letters"

The exchange is direct, not topic: a catch-all binding (a recording) would make every address routable, and a publish to
nobody must come back (rule 3 of `bus.broker`).
"""

import re
from collections.abc import Mapping
from typing import Any

import attrs

from bus.errors import Unusable

DELIVERY_LIMIT = 100
"""requeues before a message is a dead letter. High, because a consumer that dies counts for all it held"""

NODE_MESSAGES_MAX = 100_000
"""what a queue holds for a node that is away; more is refused at the publisher (`Transient`)"""

DEAD_LETTERS_MAX = 100_000
"""kept for the operator; the oldest go first"""

LOOKS_MAX = 1_000_000
"""how often a dead letter may be looked at, since each look is a get and a requeue. RabbitMQ 4 drops a message from a
quorum queue after 20 unless told otherwise; 3.x has no limit, but without one it requeues at the tail, out of order"""

REASON_UNROUTABLE = "unroutable"
REASON_DELIVERY_LIMIT = "delivery limit"

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62})"

ADDRESSES: Mapping[str, re.Pattern[str]] = {
    "hypervisor.HOST": re.compile(rf"hypervisor\.{_NAME}"),
    "vm.NAME@HOST.SAGA": re.compile(rf"vm\.{_NAME}@{_NAME}\.{_NAME}"),
    "swap-device.DEVICE": re.compile(rf"swap-device\.{_NAME}"),
    "resource-manager": re.compile(r"resource-manager"),
    "user.ID": re.compile(rf"user\.{_NAME}"),
}

NODES: Mapping[str, re.Pattern[str]] = {
    "HOST": re.compile(_NAME),
    "user.ID": re.compile(rf"user\.{_NAME}"),
}


@attrs.frozen(kw_only=True)
class Queue:
    """One queue, as the broker is asked for it."""

    name: str
    durable: bool
    exclusive: bool
    delivery_limit: int | None
    """requeues before a message is a dead letter; None: no limit"""
    messages_max: int | None
    arguments: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Topology:
    """All names, behind one prefix so that several clusters (or tests) can share a broker."""

    prefix: str = "swapferry"
    delivery_limit: int = DELIVERY_LIMIT

    @property
    def exchange(self) -> str:
        """Where everything is published; routing key = address of the target."""
        return self.prefix

    @property
    def dead_exchange(self) -> str:
        """Where the broker and we put what cannot be delivered."""
        return f"{self.prefix}.dead"

    @property
    def dead_letters(self) -> Queue:
        """Where dead letters lie until an operator looks at them."""
        return Queue(
            name=f"{self.prefix}.dead-letters",
            durable=True,
            exclusive=False,
            delivery_limit=LOOKS_MAX,
            messages_max=DEAD_LETTERS_MAX,
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": LOOKS_MAX,
                "x-max-length": DEAD_LETTERS_MAX,
                "x-overflow": "drop-head",
            },
        )

    def node_queue(self, node: str) -> Queue:
        """The inbound queue of a node: durable for a host, gone with its connection for a command line client.

        Raises `Unusable` when the name is none.
        """
        check_node(node)
        return self._user_queue(node) if node.startswith("user.") else self._host_queue(node)

    def _host_queue(self, node: str) -> Queue:
        return Queue(
            name=f"{self.prefix}.node.{node}",
            durable=True,
            exclusive=False,
            delivery_limit=self.delivery_limit,
            messages_max=NODE_MESSAGES_MAX,
            arguments={
                "x-queue-type": "quorum",
                # A node that was declared gone and opens again waits until its former self has lost its connection.
                "x-single-active-consumer": True,
                "x-delivery-limit": self.delivery_limit,
                "x-dead-letter-exchange": self.dead_exchange,
                # At-least-once dead-lettering exists since 3.10 and demands the overflow behaviour reject-publish.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
                "x-max-length": NODE_MESSAGES_MAX,
            },
        )

    def _user_queue(self, node: str) -> Queue:
        return Queue(
            name=f"{self.prefix}.{node}",
            durable=False,
            exclusive=True,
            delivery_limit=None,  # classic queues do not count deliveries
            messages_max=None,
            arguments={"x-queue-type": "classic"},
        )


def check_address(address: str) -> None:
    """Raises `Unusable` unless this is an address that an actor may have."""
    _check("address", address, ADDRESSES)


def check_node(node: str) -> None:
    """Raises `Unusable` unless this is a name that a node may have."""
    _check("node name", node, NODES)


def _check(what: str, name: str, grammar: Mapping[str, re.Pattern[str]]) -> None:
    if not any(pattern.fullmatch(name) for pattern in grammar.values()):
        allowed = ", ".join(grammar)
        raise Unusable(f"{name!r} is no {what}; allowed: {allowed} (names: 1 to 63 letters, digits, '-', '_')")
