"""A recorded run as a script for the simulator: its hosts, devices and VMs, and what its users asked, with the times.

One node's recording knows all devices of the cluster, but of other hosts neither their memory nor what they reach: those are then
taken to be like the recorded ones. A run in one process knows everything.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from actors.domain.hosting import HostFacts
from actors.errors import Malformed
from actors.messages import MANAGER, Cancel, Define, Migrate
from actors.runtime.values import from_plain
from bus.errors import RecordingError
from bus.recording import Damage, read
from paging.device import PAGE_BYTES
from scenarios.recording.entries import Begun, Decided, Entry, Started, check_format, parse
from scenarios.scenario import DeviceSpec, HostSpec, VmSpec
from scenarios.sim.script import Request, Script

_BODIES: dict[str, type] = {kind.__name__: kind for kind in (Define, Migrate, Cancel)}
"""what a script can ask; whatever else users asked is named in a remark"""


@attrs.define
class _Gathered:
    begun: Begun
    started: dict[str, Started] = attrs.field(factory=dict)
    asked: dict[tuple[str, str], tuple[float, Any]] = attrs.field(factory=dict)
    """type and request id -> when first, and the body"""
    damage: str = ""


def script_of(path: Path) -> tuple[Script, list[str]]:
    """The script, and remarks on what it is not. Raises `RecordingError` for a recording without a manager or a VM."""
    gathered = _gathered(path)
    if not any(started.manager for started in gathered.started.values()):
        raise RecordingError(f"{path}: no node with the resource manager was recorded; take the recording of the one that has it")
    hosts, devices = _hosts(gathered), _devices(gathered)
    asked = sorted(gathered.asked.values(), key=lambda one: one[0])
    begin = asked[0][0] if asked else 0.0
    vms = [_vm(body) for _, body in asked if isinstance(body, Define)]
    if not vms:
        raise RecordingError(f"{path}: nobody defined a VM while this was recorded")
    names = {vm.name for vm in vms}
    requests = [_request(at - begin, body) for at, body in asked if isinstance(body, Migrate | Cancel) and body.vm in names]
    script = Script(hosts=tuple(hosts), devices=tuple(devices), vms=tuple(vms), requests=tuple(requests))
    return script, [*_remarks(path, gathered)]


def _gathered(path: Path) -> _Gathered:
    gathered = None
    for found in read(path):
        if isinstance(found, Damage):
            if gathered is not None:
                gathered.damage = found.sentence
            break
        try:
            entry = parse(found.data)
            gathered = gathered or _Gathered(check_format(entry))
            _take(gathered, entry)
        except (Malformed, RecordingError) as error:
            raise RecordingError(f"{path}: record {found.number} cannot be read here: {error}") from error
    if gathered is None:
        raise RecordingError(f"{path}: it holds no whole record")
    return gathered


def _take(gathered: _Gathered, entry: Entry) -> None:
    if isinstance(entry, Started):
        gathered.started.setdefault(entry.node, entry)
    elif isinstance(entry, Decided) and entry.actor == MANAGER and entry.heard.source.startswith("user."):
        heard = entry.heard
        kind = _BODIES.get(heard.type)
        body = heard.body if kind is None else from_plain(kind, heard.body)
        request = heard.body.get("request", heard.id)
        gathered.asked.setdefault((heard.type, request), (entry.t, body))


def _facts(started: Started) -> HostFacts:
    return from_plain(HostFacts, started.facts)


def _hosts(gathered: _Gathered) -> list[HostSpec]:
    """The manager's first."""
    known = {name: _facts(started).memory_bytes for name, started in gathered.started.items()}
    managers = [name for name, started in gathered.started.items() if started.manager]
    everybody = {host for started in gathered.started.values() for host in started.hosts}
    order = [*managers, *sorted(everybody - set(managers))]
    return [HostSpec(name=name, memory=known.get(name, max(known.values()))) for name in order]


def _devices(gathered: _Gathered) -> list[DeviceSpec]:
    facts = _facts(next(iter(gathered.started.values())))
    strangers = {host for started in gathered.started.values() for host in started.hosts} - set(gathered.started)
    return [
        DeviceSpec(
            name=name,
            home=home,
            size=facts.slot_counts[name] * PAGE_BYTES,
            reach=tuple(sorted({home, *strangers, *(node for node, one in gathered.started.items() if name in one.reach)})),
        )
        for name, home in facts.homes.items()
    ]


def _vm(body: Define) -> VmSpec:
    definition = body.definition
    return VmSpec(
        name=definition.vm, host=body.host, memory=definition.memory_bytes, resident=definition.resident_bytes,
        vcpus=definition.vcpus,
    )  # fmt: skip


def _request(at: float, body: Migrate | Cancel) -> Request:
    target = body.target if isinstance(body, Migrate) else ""
    return Request(at=round(at, 3), ask=type(body).__name__.lower(), vm=body.vm, target=target)


def _remarks(path: Path, gathered: _Gathered) -> Iterator[str]:
    program = gathered.begun.program
    yield f"Made from {path.name}, recorded by swapferry {program}. Play it: swapferry chaos --scenario FILE"
    if gathered.damage:
        yield f"Made from a part of it: {gathered.damage}."
    missing = sorted({host for one in gathered.started.values() for host in one.hosts} - set(gathered.started))
    if missing:
        yield f"Not recorded there: {', '.join(missing)}; taken to have as much memory as the others, and to reach every device."
    others = sorted({kind for kind, _ in gathered.asked} - set(_BODIES))
    if others:
        yield f"Left out, since simulated users do not ask it: {', '.join(others)}."
