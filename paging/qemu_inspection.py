"""Look at what a started QEMU really has, before its guest runs."""

from collections.abc import AsyncIterator

from paging.qemu_devices import block_node, check_machine
from paging.qemu_qmp import Qmp

_CONTAINERS = ("/machine/peripheral", "/machine/peripheral-anon", "/machine/unattached")


async def inspect_machine(vm: str, qmp: Qmp) -> None:
    """Raises `DeviceRefused` for a device that a paged guest must not have."""
    types = [kind async for kind in _device_types(qmp)]
    nodes = [block_node(reported) for reported in await qmp.call("query-named-block-nodes", {"flat": True})]
    check_machine(vm, types, nodes)


async def _device_types(qmp: Qmp) -> AsyncIterator[str]:
    for container in _CONTAINERS:
        for property_ in await qmp.call("qom-list", {"path": container}):
            kind = property_["type"]
            if kind.startswith("child<"):
                yield kind.removeprefix("child<").removesuffix(">")
