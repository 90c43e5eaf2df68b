"""A simulated world that is not made up by its seed: hosts, devices and VMs by name, and what users ask when.

`swapferry replay --as-scenario` writes one of a recorded run, `swapferry chaos --scenario` plays it under faults. Sizes count by
their proportions only: simulated guests have a few pages each, simulated devices always enough slots.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import attrs

from scenarios import kinds
from scenarios.scenario import DeviceSpec, HostSpec, VmSpec
from scenarios.toml_file import TomlFile, of

TABLES = ("host", "device", "vm", "request")
ASKS = ("migrate", "cancel")
DAY_S = 86_400.0


@attrs.frozen(kw_only=True)
class Request:
    """[[request]]: something that a user asks. `at` is seconds since the first one (a VM's definition included)."""

    at: float = of(kinds.number(0, DAY_S))
    ask: str = of(kinds.choice(*ASKS))
    vm: str = of(kinds.NAME)
    target: str = of(kinds.NAME, "")
    """where a VM shall go; of no use otherwise"""


@attrs.frozen(kw_only=True)
class Script:
    """Who there is, and what is asked. The resource manager lives on the first host."""

    hosts: tuple[HostSpec, ...]
    devices: tuple[DeviceSpec, ...]
    vms: tuple[VmSpec, ...]
    requests: tuple[Request, ...]


def load_script(path: Path) -> Script:
    """The script in this file. Raises `BadFile` with everything that is wrong in it."""
    file = TomlFile(path)
    file.unknown_keys(file.tables, TABLES, "")
    script = Script(
        hosts=tuple(file.read_each(HostSpec, "host")),
        devices=tuple(file.read_each(DeviceSpec, "device")),
        vms=tuple(file.read_each(VmSpec, "vm")),
        requests=tuple(sorted(file.read_each(Request, "request"), key=lambda request: request.at)),
    )
    file.finish()
    _check(script, file)
    file.finish()
    return script


def _check(script: Script, file: TomlFile) -> None:
    hosts, vms = [host.name for host in script.hosts], [vm.name for vm in script.vms]
    for what, names in (("host", hosts), ("device", [device.name for device in script.devices]), ("vm", vms)):
        if not names or len(set(names)) < len(names):
            file.complain(what, ", ".join(names) or "nothing", f"at least one [[{what}]], each with a name of its own")
    used = [(f"device[{index}].home", device.home, hosts) for index, device in enumerate(script.devices)]
    used += [(f"vm[{index}].host", vm.host, hosts) for index, vm in enumerate(script.vms)]
    used += [(f"request[{index}].vm", request.vm, vms) for index, request in enumerate(script.requests)]
    used += [
        (f"request[{index}].target", request.target, hosts)
        for index, request in enumerate(script.requests)
        if request.ask == "migrate"
    ]
    for key, found, known in used:
        if found not in known:
            file.complain(key, f'"{found}"', ", ".join(known))


def to_toml(script: Script, remarks: Sequence[str] = ()) -> str:
    """The text of a file that `load_script` reads, with remarks at its head."""
    lines = [f"# {remark}" for remark in remarks]
    tables: Sequence[tuple[str, Sequence[attrs.AttrsInstance]]] = (
        ("host", script.hosts), ("device", script.devices), ("vm", script.vms), ("request", script.requests),
    )  # fmt: skip
    for name, values in tables:
        for value in values:
            lines += ["", f"[[{name}]]", *_lines(value)]
    return "\n".join(lines) + "\n"


def _lines(value: attrs.AttrsInstance) -> list[str]:
    """What is not as it is by default; texts, numbers and lists of texts are written as JSON writes them."""
    told = {
        field.name: getattr(value, field.name)
        for field in attrs.fields(type(value))
        if getattr(value, field.name) != field.default
    }
    return [f"{name} = {json.dumps(list(one) if isinstance(one, tuple) else one)}" for name, one in told.items()]
