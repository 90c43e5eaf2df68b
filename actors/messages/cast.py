"""Addresses, and who plays in a saga."""

import attrs

MANAGER = "resource-manager"


def hypervisor(host: str) -> str:
    """Address of a host's hypervisor."""
    return f"hypervisor.{host}"


def swap_device(device: str) -> str:
    """Address of a device's arbiter."""
    return f"swap-device.{device}"


def vm_instance(instance: str) -> str:
    """Address of a VM instance."""
    return f"vm.{instance}"


@attrs.frozen(kw_only=True)
class Cast:
    """Who plays in a saga; carried by each of its messages."""

    saga: str
    """"OPENER-NUMBER" """
    opener: str
    number: int
    floor: int
    """the opener's sagas below this number are over"""
    vm: str
    epoch: int
    """of the placement that the saga wants to replace"""
    instance: str
    """the source instance"""
    source: str
    target: str
    devices: tuple[str, ...]
    """swap devices that both reach and the VM may have slots on"""
    dead: frozenset[str] = frozenset()
    """hosts declared dead, as the manager knows"""
