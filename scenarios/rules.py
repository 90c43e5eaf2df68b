"""What the parts of a scenario must be to one another: names that exist, sizes that fit. Pure; complains, never raises."""

from collections.abc import Callable, Iterator, Sequence

from actors.domain.hosting import slots_needed
from paging.device import PAGE_BYTES
from paging.guest import Definition
from scenarios.scenario import Cancel, Hold, Migrate, Release, Scenario, Step, VmSpec, WaitHeld, WaitMoved, WaitSwapped

Complain = Callable[[str, str, str], None]
"""(key path, what was found, what is allowed)"""
Problems = Iterator[tuple[str, str, str]]

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
VM_BYTES_MIN = 16 << 20
"""Firmware and test guest need about that much before they fill anything."""


def check(scenario: Scenario, complain: Complain) -> None:
    """Tell `complain` of everything that does not fit together."""
    parts = (_something_of_each, _names_are_unique, _devices_fit, _vms_fit)
    whole = (_hosts_hold_their_vms, _slots_suffice, _steps_fit)
    for rule in (*parts, *whole):
        for problem in rule(scenario):
            complain(*problem)


def _something_of_each(scenario: Scenario) -> Problems:
    counts = {"host": len(scenario.hosts), "device": len(scenario.devices), "vm": len(scenario.vms), "step": len(scenario.steps)}
    for table, count in counts.items():
        if not count:
            yield table, "no such table", f"at least one [[{table}]]"
    if scenario.steps and not any(isinstance(step, Migrate) for step in scenario.steps):
        yield "step", "none that migrates", 'at least one with do = "migrate", for [expect] to be about'
    if scenario.expect.at:
        yield from _known_host(scenario, "expect.at", scenario.expect.at)


def _names_are_unique(scenario: Scenario) -> Problems:
    named = {
        "host": [host.name for host in scenario.hosts],
        "device": [device.name for device in scenario.devices],
        "vm": [vm.name for vm in scenario.vms],
    }
    for table, names in named.items():
        for index, name in enumerate(names):
            if name in names[:index]:
                yield f"{table}[{index}].name", f'"{name}" a second time', f"a name that no other [[{table}]] has"


def _devices_fit(scenario: Scenario) -> Problems:
    for index, device in enumerate(scenario.devices):
        where = f"device[{index}]"
        yield from _known_host(scenario, f"{where}.home", device.home)
        yield from _whole_pages(f"{where}.size", device.size, PAGE_BYTES)
        for host in device.reach:
            yield from _known_host(scenario, f"{where}.reach", host)
        if device.home not in device.reach:
            yield f"{where}.reach", _listed(device.reach), f'a list with the home "{device.home}" in it'


def _vms_fit(scenario: Scenario) -> Problems:
    for index, vm in enumerate(scenario.vms):
        where = f"vm[{index}]"
        yield from _known_host(scenario, f"{where}.host", vm.host)
        yield from _whole_pages(f"{where}.memory", vm.memory, VM_BYTES_MIN)
        yield from _whole_pages(f"{where}.resident", vm.resident, PAGE_BYTES, vm.memory, "the vm's memory")
        yield from _whole_pages(f"{where}.fill", vm.fill, 0, vm.memory, "the vm's memory")
        yield from _whole_pages(f"{where}.hot", vm.hot, 0, vm.fill, "what is filled")
        yield from _boots(where, vm)


def _boots(where: str, vm: VmSpec) -> Problems:
    linux = {"kernel": vm.kernel, "initrd": vm.initrd}
    for key, path in linux.items():
        if vm.boot == "linux" and path is None:
            yield f"{where}.{key}", "nothing", 'a path, since boot = "linux"'
        if vm.boot == "test" and path is not None:
            yield f"{where}.{key}", f'"{path}"', 'nothing, since boot = "test" brings its own'


def _hosts_hold_their_vms(scenario: Scenario) -> Problems:
    for index, host in enumerate(scenario.hosts):
        wanted = sum(vm.resident for vm in scenario.vms if vm.host == host.name)
        yield from _whole_pages(f"host[{index}].memory", host.memory, PAGE_BYTES)
        if wanted > host.memory:
            yield f"host[{index}].memory", size(host.memory), f"at least {size(wanted)}, the resident limits of its vms together"


def _slots_suffice(scenario: Scenario) -> Problems:
    for index, host in enumerate(scenario.hosts):
        out = sum(_slots_needed(vm) for vm in scenario.vms if vm.host == host.name) * PAGE_BYTES
        room = sum(device.size for device in scenario.devices if device.home == host.name)
        if out > room:
            allowed = f"devices at home there with at least {size(out)}, what its vms may have to swap out and a little more"
            yield f"host[{index}].name", f'"{host.name}" with {size(room)} of swap devices', allowed


def _slots_needed(vm: VmSpec) -> int:
    return slots_needed(Definition(vm=vm.name, memory_bytes=vm.memory, resident_bytes=vm.resident))


def _steps_fit(scenario: Scenario) -> Problems:
    held: set[str] = set()
    for index, step in enumerate(scenario.steps):
        where = f"step[{index}]"
        vm = getattr(step, "vm", None)
        if vm is not None and vm not in {known.name for known in scenario.vms}:
            yield f"{where}.vm", f'"{vm}"', _listed([known.name for known in scenario.vms])
            continue
        for key in ("target", "host"):
            if hasattr(step, key):
                yield from _known_host(scenario, f"{where}.{key}", getattr(step, key))
        yield from _step_makes_sense(scenario, step, index, held)


def _step_makes_sense(scenario: Scenario, step: Step, index: int, held: set[str]) -> Problems:
    where = f"step[{index}]"
    match step:
        case WaitSwapped():
            yield from _can_swap(scenario.vm(step.vm), step, where)
        case Cancel() if not any(isinstance(before, Migrate) and before.vm == step.vm for before in scenario.steps[:index]):
            yield f"{where}.vm", f'"{step.vm}", which no step before it migrates', "a cancel after a migrate with wait = false"
        case WaitMoved() if not any(isinstance(before, Migrate) and before.vm == step.vm for before in scenario.steps[:index]):
            yield f"{where}.vm", f'"{step.vm}", which no step before it migrates', "a wait after a migrate with wait = false"
        case Hold():
            held.add(step.message)
        case WaitHeld() | Release() if step.message not in held:
            yield f"{where}.message", f'"{step.message}", which no step before it holds', _listed(sorted(held))


def _can_swap(vm: VmSpec, step: WaitSwapped, where: str) -> Problems:
    if (step.share is None) == (step.pages is None):
        yield where, "both share and pages" if step.share is not None else "neither share nor pages", "one of the two"
        return
    wanted = step.pages * PAGE_BYTES if step.pages is not None else int((step.share or 0) * vm.fill)
    if wanted > vm.memory - vm.resident:
        key = "pages" if step.pages is not None else "share"
        allowed = f"at most {size(vm.memory - vm.resident)} of it: a guest swaps only what exceeds its resident limit"
        yield f"{where}.{key}", f"{size(wanted)} to be swapped", allowed


def _known_host(scenario: Scenario, key: str, host: str) -> Problems:
    hosts = [known.name for known in scenario.hosts]
    if host not in hosts:
        yield key, f'"{host}"', _listed(hosts)


def _whole_pages(key: str, found: int, lowest: int, highest: int | None = None, meaning: str = "") -> Problems:
    if found % PAGE_BYTES:
        yield key, f"{found} bytes", f"a multiple of the page size, {PAGE_BYTES} bytes"
    elif found < lowest:
        yield key, size(found), f"at least {size(lowest)}"
    elif highest is not None and found > highest:
        yield key, size(found), f"at most {size(highest)}, {meaning}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names) or "nothing"


def size(count: int) -> str:
    """Bytes for people: 98304 -> 96 KiB."""
    power = min((max(count, 1).bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{round(count / 1024**power, 1):g} {_UNITS[power]}"
