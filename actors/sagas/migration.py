"""The migration saga: one row per step, in order. This table is the protocol (PROTOCOL 4, with 13.2 and 13.4).

The placement record in the resource manager decides where a VM runs; its compare-and-set in row *commit* is the pivot.
Before it every row has an undo, with compensating grants at the devices; after it there is only forward.
"""

from collections.abc import Sequence
from typing import Any

from actors.messages import (
    MANAGER,
    Cast,
    Close,
    Closed,
    Commit,
    Forget,
    Freeze,
    Grant,
    Granted,
    Migrate,
    Prepare,
    Register,
    Restored,
    Resume,
    Undo,
    Welcome,
    hypervisor,
    swap_device,
)
from actors.runtime.actor import Say, Turn
from actors.runtime.saga import Now, Row, Saga, Undoing
from actors.sagas import device, manager, source, target
from actors.sagas.abort import abort


def _nothing(_actor: Any, _turn: Turn, _cast: Cast, _body: object) -> None:
    """The message brings nothing that has to be kept."""


def _at_once(_actor: Any, _turn: Turn, _cast: Cast) -> Now:
    """The message is all that the row waits for."""
    return Now.DONE


def _silent(_actor: Any, _turn: Turn, _cast: Cast) -> Sequence[Say]:
    """The last row has nothing to say."""
    return []


ROWS: tuple[Row[Any], ...] = (
    # name, who plays it, on which message; what it keeps of it, when it is done, what it says then
    Row(name="open", role="source", on=Migrate, take=_nothing, ready=_at_once, say=source.say_register),
    Row(name="register", role="manager", on=Register, take=_nothing, ready=manager.register_ready, say=manager.say_welcome),
    Row(name="welcome", role="target", on=Welcome, take=target.take_welcome, ready=target.welcome_ready, say=target.say_freeze),
    Row(name="freeze", role="source", on=Freeze, take=source.take_freeze, ready=source.freeze_ready, say=source.ask_grants),
    Row(name="grant", role="device", on=Grant, take=device.take_grant, ready=device.grant_ready, say=device.say_granted),
    Row(
        name="hand over", role="source", on=Granted,
        take=source.take_granted, ready=source.hand_over_ready, say=source.say_prepare,
    ),
    Row(name="prepare", role="target", on=Prepare, take=target.take_prepare, ready=target.prepare_ready, say=target.ask_commit),
    Row(name="commit", role="manager", on=Commit, take=manager.take_commit, ready=manager.commit_ready, say=manager.forward),
    Row(name="resume", role="target", on=Resume, take=target.take_resume, ready=target.resume_ready, say=target.say_forget),
    Row(name="forget", role="source", on=Forget, take=source.take_forget, ready=source.forget_ready, say=source.say_close),
    Row(name="close", role="manager", on=Close, take=_nothing, ready=manager.close_ready, say=manager.say_closed),
    Row(name="closed", role="source", on=Closed, take=_nothing, ready=source.closed_ready, say=_silent),
)  # fmt: skip

UNDOINGS = {
    one.role: one
    for one in (
        Undoing(role="manager", undo=manager.release),
        Undoing(role="device", undo=device.regrant),
        Undoing(role="source", undo=source.thaw),
        Undoing(role="target", undo=target.discard),
    )
}


def role_of(actor: Any, cast: Cast) -> str:
    """Which part an actor plays in a saga of this cast."""
    parts = {MANAGER: "manager", hypervisor(cast.source): "source", hypervisor(cast.target): "target"}
    return parts.get(actor.address, "device")


def undo_onward(actor: Any, cast: Cast, reason: str, restored: tuple[Restored, ...]) -> Sequence[Say]:
    """The way back: the devices, then the source, last the target; the dead are passed over.

    The source must know the new generations before it thaws, but must not wait for a target that may be down; a staged
    instance can do no harm.
    """
    hosts = [hypervisor(host) for host in (cast.source, cast.target) if host not in cast.dead]
    route = [MANAGER, *(swap_device(name) for name in cast.devices), *hosts]
    onward = route[route.index(actor.address) + 1 :]
    if not onward:
        return [Say(target=MANAGER, body=Close(), cast=cast)]
    return [Say(target=onward[0], body=Undo(reason=reason, restored=restored), cast=cast)]


MIGRATION: Saga[Any] = Saga(
    rows=ROWS, pivot="commit", close="close", undoings=UNDOINGS, role=role_of, abort=abort, onward=undo_onward,
    kept=(device.DeviceFacts,),
)  # fmt: skip
