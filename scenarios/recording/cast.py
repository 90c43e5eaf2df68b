"""The actors of a recorded node, made again without a machine: they decide, and nothing obeys."""

from typing import NoReturn

from actors.domain.hosting import HostFacts, Instance
from actors.hypervisor import Hypervisor
from actors.messages import MANAGER, Reached, hypervisor, swap_device, vm_instance
from actors.resource_manager import ResourceManager
from actors.runtime.actor import Actor, Inbox
from actors.swap_device import SwapDevice
from actors.vm import VmInstance
from paging.guest import Definition

_VM, _DEVICE = vm_instance(""), swap_device("")


class _Nowhere(Inbox):
    """Replayed actors obey nothing, so they have nothing to post."""

    def post(self, address: str, body: object) -> None:
        """Never."""

    def spawn(self, actor: Actor) -> None:
        """Never."""

    def retire(self, address: str) -> None:
        """Never."""


def actor_at(address: str, facts: HostFacts, hosts: frozenset[str]) -> Actor:
    """The actor that lived at this address on a host of these facts. Raises `KeyError` where there cannot be one."""
    if address == MANAGER:
        return ResourceManager(facts.homes, hosts)
    if address == hypervisor(facts.host):
        return Hypervisor(facts, _Nowhere(), _no_instance, _no_probe)
    if address.startswith(_VM):
        return VmInstance(address.removeprefix(_VM), facts.host, _Nowhere(), _no_guest)
    if address.startswith(_DEVICE):
        device = address.removeprefix(_DEVICE)
        return SwapDevice(device, facts.homes[device], facts.slot_counts[device])
    raise KeyError(address)


def _no_instance(_instance: Instance) -> NoReturn:
    raise AssertionError("a replayed hypervisor starts nothing")


def _no_probe() -> Reached:
    raise AssertionError("a replayed hypervisor looks at no device")


def _no_guest(_instance: str, _definition: Definition) -> NoReturn:
    raise AssertionError("a replayed instance has no machine")
