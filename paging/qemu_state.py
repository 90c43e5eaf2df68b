"""The machine's device state as bytes of our own: saved into a buffer, so that a slow or dead target never wedges the source.

RAM stays out of it (x-ignore-shared); a stream that grows beyond the cap carries RAM after all, and the move is aborted
before anything has changed (DATAPLANE 11.2). QEMU has no checksum over this stream: the manifest's digest is ours.
"""

import asyncio
import contextlib
import socket

from paging.errors import GuestError
from paging.frames import STATE_BYTES_MAX
from paging.qemu_qmp import Qmp

SAVE_S = 20.0
LOAD_S = 20.0
_RECEIVE_BYTES = 1 << 20
_CAPABILITIES = ("x-ignore-shared", "events", "late-block-activate")
"""`late-block-activate`: disks are taken, and their locks with them, when the guest runs and not when its state is loaded"""


async def prepare_state(qmp: Qmp) -> None:
    """Set what both sides must have set before a state is saved or loaded."""
    wanted = [{"capability": name, "state": True} for name in _CAPABILITIES]
    await qmp.call("migrate-set-capabilities", {"capabilities": wanted})
    # The network is told where the guest is when it runs (`announce`), not when its state is loaded (DATAPLANE 11.3).
    await qmp.call("migrate-set-parameters", {"announce-rounds": 0})


async def save_state(qmp: Qmp) -> bytes:
    """The state of a stopped machine. Raises `GuestError`; then the machine can be run on as it is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        qmp.forget_events()
        await qmp.give("state", theirs)
        theirs.close()
        await qmp.call("migrate", {"uri": "fd:state"})
        try:
            state = await asyncio.wait_for(drain(ours), SAVE_S)
        except (TimeoutError, GuestError) as error:
            with contextlib.suppress(GuestError):
                await qmp.call("migrate_cancel")
            raise GuestError(f"the device state was not saved: {error or f'not through within {SAVE_S:g} s'}") from error
        await qmp.migration_ends(timeout_s=SAVE_S)
    return state


async def drain(source: socket.socket) -> bytes:
    """All that comes until the end. Raises `GuestError` as soon as it is more than the cap."""
    loop = asyncio.get_running_loop()
    state = bytearray()
    while data := await loop.sock_recv(source, _RECEIVE_BYTES):
        state += data
        if len(state) > STATE_BYTES_MAX:
            raise GuestError(f"it grew beyond {STATE_BYTES_MAX} bytes: RAM travels in it")
    return bytes(state)


async def load_state(qmp: Qmp, state: bytes) -> None:
    """Give a machine that waits for it its state; it stands still afterwards. Raises `GuestError`: the machine is lost."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        qmp.forget_events()
        await qmp.give("state", theirs)
        theirs.close()
        await qmp.call("migrate-incoming", {"uri": "fd:state"})
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(ours, state), LOAD_S)
            ours.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise GuestError(f"QEMU does not take the device state: {error or f'not through within {LOAD_S:g} s'}") from error
        await qmp.migration_ends(timeout_s=LOAD_S)


async def announce(qmp: Qmp) -> None:
    """Tell the network where the guest is now."""
    await qmp.call("announce-self", {"initial": 50, "max": 550, "rounds": 5, "step": 100})
