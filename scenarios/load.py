"""Reads a scenario file: its tables, then the rules between them. All that is wrong is reported at once."""

from pathlib import Path
from typing import Any

import attrs

from scenarios import rules
from scenarios.scenario import STEPS, About, DeviceSpec, Expect, HostSpec, Scenario, Step, VmSpec
from scenarios.toml_file import TomlFile, shown

TABLES = ("scenario", "expect", "host", "device", "vm", "step")


def load(path: Path) -> Scenario:
    """The scenario in this file. Raises `BadFile` with everything that is wrong in it."""
    file = TomlFile(path)
    file.unknown_keys(file.tables, TABLES, "")
    about, expect = file.read_one(About, "scenario"), file.read_one(Expect, "expect")
    hosts, devices, vms = file.read_each(HostSpec, "host"), file.read_each(DeviceSpec, "device"), file.read_each(VmSpec, "vm")
    steps = [step for where, table in file.each("step") if (step := _step(file, table, where)) is not None]
    file.finish()
    assert about is not None
    assert expect is not None
    scenario = Scenario(
        about=about, expect=expect, hosts=tuple(hosts), devices=tuple(devices), vms=tuple(vms), steps=tuple(steps)
    )
    rules.check(scenario, file.complain)
    file.finish()
    return _from(path.resolve().parent, scenario)


def _step(file: TomlFile, table: Any, where: str) -> Step | None:
    do = table.get("do") if isinstance(table, dict) else None
    if not isinstance(do, str) or do not in STEPS:
        file.complain(f"{where}.do", "nothing" if do is None else shown(do), ", ".join(STEPS))
        return None
    return file.read(STEPS[do], table, where, besides=["do"])


def _from(directory: Path, scenario: Scenario) -> Scenario:
    def absolute(path: Path | None) -> Path | None:
        return None if path is None else directory / path

    devices = [attrs.evolve(device, path=absolute(device.path)) for device in scenario.devices]
    vms = [attrs.evolve(vm, kernel=absolute(vm.kernel), initrd=absolute(vm.initrd)) for vm in scenario.vms]
    return attrs.evolve(scenario, devices=tuple(devices), vms=tuple(vms))
