"""The port `Parts`: what a world is made of. Whoever plays a scenario is handed the parts and wires none itself.

`swapferry.wiring` makes real ones.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from actors.runtime.clock import Clock, Random
from actors.runtime.store import Store
from bus.broker import Broker
from paging.device import DevicePath
from paging.guest import Definition, Guest
from scenarios.scenario import DeviceSpec


class Parts(ABC):
    """Adapters for every port, for one run."""

    clock: Clock
    random: Random

    @abstractmethod
    def broker(self) -> Broker:
        """A new connection to the bus, not yet open."""

    @abstractmethod
    def store(self, node: str) -> Store:
        """The store of a node, not yet open; the same place when asked again."""

    def records(self, node: str) -> Mapping[str, Mapping[tuple[str, str], Any]]:
        """What the actors of a node have kept, also while it runs: actor -> (kind, key) -> plain value. Raises `StoreError`."""
        raise NotImplementedError(f"the store of {node} cannot be read while the node works on it")

    @abstractmethod
    def device(self, spec: DeviceSpec) -> DevicePath:
        """The device, made if the scenario names no path, locked until `close`. Raises `DeviceError`."""

    @abstractmethod
    def guest(self, host: str, instance: str, definition: Definition, devices: Sequence[DevicePath]) -> Guest:
        """A new guest of this instance on this host, which reaches these devices."""

    @abstractmethod
    def close(self) -> None:
        """Give everything back and remove what was made (unless it is to be kept). Idempotent."""
