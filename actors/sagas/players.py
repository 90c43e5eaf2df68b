"""What the rows need of whoever plays them: less than an actor, so that the table knows no actor and no actor is special."""

from collections.abc import Mapping
from typing import Protocol

from actors.domain.hosting import HostFacts
from actors.runtime.actor import Turn


class HostPlayer(Protocol):
    """Plays source or target."""

    facts: HostFacts


class DevicePlayer(Protocol):
    """Plays the device."""

    device: str

    def next_generation(self, turn: Turn) -> int:
        """A generation that no right ever had."""
        ...


class ManagerPlayer(Protocol):
    """Plays the keeper of the pivot."""

    homes: Mapping[str, str]
