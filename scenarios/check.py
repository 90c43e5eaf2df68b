"""Says, without starting anything, what each migration of a scenario would come to.

Devices that the file names are really opened and their superblocks read; page counts are foreseen from the sizes in the file.
"""

from typing import Any

import attrs

from actors.domain.hosting import slots_needed
from paging.device import PAGE_BYTES
from paging.errors import DeviceError
from paging.superblock import read_superblock
from scenarios.rules import size
from scenarios.runner import definition_of
from scenarios.scenario import DeviceSpec, Migrate, Scenario, VmSpec


@attrs.frozen(kw_only=True)
class Move:
    """One migration, foreseen; figures in pages."""

    vm: str
    source: str
    target: str
    problem: str
    """why it cannot run; empty if it can"""
    devices: tuple[str, ...]
    """swap devices that both hosts reach and the guest may lie on"""
    granted: int = 0
    sent: int = 0
    zero: int = 0


@attrs.frozen(kw_only=True)
class Forecast:
    """All migrations of a scenario, in their order."""

    name: str
    moves: tuple[Move, ...]
    problems: tuple[str, ...]
    """devices that cannot be used"""

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {"scenario": self.name, "migrations": [attrs.asdict(move) for move in self.moves], "problems": list(self.problems)}


def foresee(scenario: Scenario) -> Forecast:
    """What each migration would come to. A migration that would be refused is not a problem: the scenario may expect it."""
    problems = {device.name: problem for device in scenario.devices if (problem := device_problem(device))}
    places = {vm.name: vm.host for vm in scenario.vms}
    moves = []
    for step in scenario.steps:
        if isinstance(step, Migrate):
            move = _move(scenario, places, step, problems)
            moves.append(move)
            if not move.problem:
                places[step.vm] = step.target
    return Forecast(name=scenario.about.name, moves=tuple(moves), problems=tuple(problems.values()))


def device_problem(device: DeviceSpec) -> str:
    """Why the device that the file names cannot be used; empty if it can, or if one is made for the run."""
    if device.path is None:
        return ""
    try:
        slots = read_superblock(device.path).slot_count
    except DeviceError as error:
        return str(error)
    return "" if slots >= device.slots else f"swap device {device.name} has {slots} slots, the scenario wants {device.slots}"


def _move(scenario: Scenario, places: dict[str, str], step: Migrate, problems: dict[str, str]) -> Move:
    vm, source = scenario.vm(step.vm), places[step.vm]
    near = tuple(device.name for device in scenario.reached_by(step.target) if source in device.reach)
    homes = [device for device in scenario.devices if device.home == source]
    used = tuple(device.name for device in homes if device.name in near) if source == vm.host else near
    problem = _refusal(scenario, places, vm, step.target) or next((problems[name] for name in used if name in problems), "")
    if problem:
        return Move(vm=vm.name, source=source, target=step.target, problem=problem, devices=used)
    filled, resident = vm.fill // PAGE_BYTES, min(vm.fill, vm.resident) // PAGE_BYTES
    granted = (filled - resident) * len(used) // max(1, len(homes))
    zero = (vm.memory - vm.fill) // PAGE_BYTES
    return Move(
        vm=vm.name, source=source, target=step.target, problem="", devices=used,
        granted=granted, sent=filled - granted, zero=zero,
    )  # fmt: skip


def _refusal(scenario: Scenario, places: dict[str, str], vm: VmSpec, target: str) -> str:
    """Why the target would refuse this guest; empty if it would not."""
    if places[vm.name] == target:
        return f"{vm.name} runs on {target} already"
    there = [other for other in scenario.vms if places[other.name] == target]
    memory = next(host.memory for host in scenario.hosts if host.name == target) - sum(other.resident for other in there)
    if memory < vm.resident:
        return f"no room at {target}: {vm.name} needs {size(vm.resident)} of memory, {size(max(0, memory))} are free"
    slots = sum(device.slots for device in scenario.devices if device.home == target)
    slots -= sum(slots_needed(definition_of(other)) for other in there)
    needed = slots_needed(definition_of(vm))
    if slots < needed:
        return f"no room at {target}: {vm.name} needs {needed} swap slots, {max(0, slots)} are free"
    return ""
