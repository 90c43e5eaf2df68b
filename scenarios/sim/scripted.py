"""A simulated world after a script: hosts, devices, VMs and requests are given; faults, guests and the network are the seed's."""

import asyncio
from itertools import pairwise
from uuid import UUID, uuid5

import attrs

from actors.messages import Cancel, Define, Migrate
from paging.device import PAGE_BYTES, DeviceId
from paging.guest import Definition
from scenarios.sim.devices import Medium
from scenarios.sim.faults import Profile
from scenarios.sim.host import Place
from scenarios.sim.loop import VirtualLoop
from scenarios.sim.process import Process
from scenarios.sim.script import Request, Script
from scenarios.sim.world import PAGES, RESIDENT, SLOTS, Limits, Size, World

_DEVICES = UUID("b0a8f1c4-5a0e-5b62-9a53-0b6de1f9c3d7")
GAP_S_MAX, SPAN_S = 10.0, 60.0
"""two requests, and the first and the last one, are this far apart at most: faults strike for a limited time only"""
STEPS_MIN = 5000
"""a world after a script ends when all is answered, not after a few steps"""


class ScriptedWorld(World):
    """One history of a script."""

    def __init__(self, loop: VirtualLoop, seed: int, profile: Profile, script: Script, limits: Limits) -> None:
        self.script = script
        self._asked: dict[str, object] = {}
        size = Size(hosts=len(script.hosts), vms=len(script.vms), devices=len(script.devices))
        steps = limits.steps_max or max(profile.steps, STEPS_MIN)
        super().__init__(loop, seed, profile, size, attrs.evolve(limits, steps_max=steps))

    def _hosts(self) -> list[str]:
        return [host.name for host in self.script.hosts]

    def _media(self) -> dict[str, Medium]:
        media = {}
        for spec in self.script.devices:
            identity = DeviceId(uuid=str(uuid5(_DEVICES, spec.name)), slot_count=SLOTS)
            media[spec.name] = Medium(spec.name, spec.home, identity, tuple(dict.fromkeys((spec.home, *spec.reach))))
        return media

    def _places(self) -> dict[str, Place]:
        """Hosts have room for as many simulated guests as they had for the biggest of the real ones."""
        places = super()._places()
        biggest = max(vm.memory for vm in self.script.vms)
        for host in self.script.hosts:
            place = places[host.name]
            memory = max(1, host.memory // biggest) * PAGES * PAGE_BYTES
            place.plan = attrs.evolve(place.plan, facts=attrs.evolve(place.plan.facts, memory_bytes=memory))
        return places

    async def _define(self, index: int) -> None:
        vm = self.script.vms[index]
        resident = min(PAGES, max(RESIDENT, vm.resident * PAGES // vm.memory))
        definition = Definition(vm=vm.name, memory_bytes=PAGES * PAGE_BYTES, resident_bytes=resident * PAGE_BYTES)
        await self._ask(Define(request=self.client.new_request(), definition=definition, host=vm.host))

    async def _wishes(self, user: Process) -> None:
        """As users asked; once all is answered, the faults end."""
        await asyncio.gather(*self._asks)  # users ask about VMs that are there
        for gap_s, request in zip(self._gaps(), self.script.requests, strict=True):
            await asyncio.sleep(gap_s)
            self._wish(user, self._body(request))
        await asyncio.gather(*self._asks)
        self._enough.set()

    def _gaps(self) -> list[float]:
        """Seconds before each request: as recorded, but for long ones."""
        times = [0.0, *(request.at for request in self.script.requests)]
        gaps = [min(GAP_S_MAX, after - before) for before, after in pairwise(times)]
        hurry = min(1.0, SPAN_S / (sum(gaps) or 1.0))
        return [gap * hurry for gap in gaps]

    def _body(self, request: Request) -> Migrate | Cancel:
        number, reply_to = self.client.new_request(), self.client.address
        if request.ask == "cancel":
            return Cancel(request=number, vm=request.vm, reply_to=reply_to)
        return Migrate(request=number, vm=request.vm, target=request.target, reply_to=reply_to)
