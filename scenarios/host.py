"""Puts together the actors of one host on one node: hypervisor, its VM instances, and the roles that this node has."""

from collections.abc import Mapping, Sequence

import attrs
import structlog

from actors.domain.hosting import HostFacts, Instance
from actors.domain.lifecycle import Outcome
from actors.hypervisor import Hypervisor
from actors.messages import BODIES, Cast, Reached, Verdict, vm_instance
from actors.resource_manager import ResourceManager
from actors.runtime.actor import Actor, Heard, Say
from actors.runtime.catalogue import Catalogue
from actors.runtime.node import Node
from actors.runtime.recorder import NOBODY, Recorder
from actors.runtime.shell import Onlooker
from actors.swap_device import SwapDevice
from actors.vm import VmInstance
from paging.device import DevicePath
from paging.errors import PagingError
from paging.guest import Definition, Guest
from paging.superblock import read_superblock
from scenarios.parts import Parts

log = structlog.get_logger("swapferry.host")


@attrs.frozen(kw_only=True)
class HostPlan:
    """What one node is."""

    facts: HostFacts
    paths: tuple[DevicePath, ...]
    """the devices that this host may reach"""
    hosts: frozenset[str]
    """all hosts of the cluster"""
    manager: bool = False
    """whether the resource manager lives here"""


class HostNode:
    """One host while it runs. Remembers its guests, so that none outlives it."""

    def __init__(self, plan: HostPlan, parts: Parts, observe: Onlooker, recorder: Recorder = NOBODY) -> None:
        self.plan = plan
        self.guests: dict[str, Guest] = {}
        self._parts = parts
        self.node = Node(
            plan.facts.host,
            broker=parts.broker(),
            store=parts.store(plan.facts.host),
            catalogue=Catalogue(BODIES, Cast),
            clock=parts.clock,
            random=parts.random,
            observe=observe,
            recorder=recorder,
            busy=busy,
        )

    async def start(self) -> None:
        """Load the actors and let them work. Raises `StoreError`, `Transient`."""
        await self.node.start(self._actors())

    async def stop(self) -> None:
        """Stop the node, then every guest that is left on it."""
        await self.node.stop()
        for instance, guest in self.guests.items():
            try:
                await guest.destroy()
            except (PagingError, OSError) as error:
                log.error("guest_left", instance=instance, error=str(error))
        self.guests.clear()

    def is_alive(self, instance: str) -> bool:
        """True if the actor of this instance lives here."""
        return vm_instance(instance) in self.node.states()

    def probe(self) -> Reached:
        """Which of its devices this host reaches now."""
        return probe(self.plan.paths)

    def _actors(self) -> list[Actor]:
        facts = self.plan.facts
        actors: list[Actor] = [Hypervisor(facts, self.node, self._instance, self.probe)]
        home = [device for device, host in facts.homes.items() if host == facts.host]
        actors += [SwapDevice(device, facts.host, facts.slot_counts[device]) for device in home]
        if self.plan.manager:
            actors.append(ResourceManager(facts.homes, self.plan.hosts))
        return actors

    def _instance(self, instance: Instance) -> Actor:
        return VmInstance(instance.id, self.plan.facts.host, self.node, self._guest)

    def _guest(self, instance: str, definition: Definition) -> Guest:
        guest = self.guests.get(instance)
        if guest is None:
            guest = self.guests[instance] = self._parts.guest(self.plan.facts.host, instance, definition, self.plan.paths)
        return guest


def probe(paths: Sequence[DevicePath]) -> Reached:
    """Read the superblocks of these devices now."""
    devices: dict[str, str] = {}
    problems: dict[str, str] = {}
    for device in paths:
        try:
            found = read_superblock(device.path).uuid
        except PagingError as error:
            problems[device.name] = str(error)
            continue
        if found == device.uuid:
            devices[device.name] = found
        else:
            problems[device.name] = f"swap device {device.name}: {device.path} is device {found}, not {device.uuid}"
    return Reached(devices=devices, problems=problems)


def busy(heard: Heard) -> Say | None:
    """The answer to a user whose request did not fit into a mailbox."""
    body = heard.body
    reply_to = getattr(body, "reply_to", heard.source)
    vm = getattr(body, "vm", "")
    if not str(reply_to).startswith("user."):
        return None
    reason = "busy: too many requests are waiting"
    verdict = Verdict(request=body.request, vm=vm, outcome=Outcome.REFUSED, reason=reason, final=False)
    return Say(target=reply_to, body=verdict)


def facts_for(
    host: str, memory_bytes: int, devices: Mapping[str, tuple[str, DevicePath, int]], *, clean_pages_per_s: int = 0
) -> HostFacts:
    """The facts of a host, from all devices of the cluster: name -> (home, path and uuid, slots)."""
    return HostFacts(
        host=host,
        memory_bytes=memory_bytes,
        homes={name: home for name, (home, _, _) in devices.items()},
        uuids={name: path.uuid for name, (_, path, _) in devices.items()},
        slot_counts={name: slots for name, (_, _, slots) in devices.items()},
        clean_pages_per_s=clean_pages_per_s,
    )
