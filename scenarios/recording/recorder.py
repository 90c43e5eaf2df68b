"""Writes what the actors of one or more nodes hear and decide to a file."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from actors.errors import Malformed
from actors.runtime.actor import Decision, Heard, Record
from actors.runtime.clock import Clock
from actors.runtime.recorder import Recorder
from actors.runtime.values import to_plain
from bus.errors import RecordingError
from bus.recording import Writer
from scenarios.host import HostPlan
from scenarios.recording.entries import FORMAT, Begun, check_format, parse
from scenarios.recording.plain import Fingerprint, Plain, fingerprint

SALT_BYTES = 16

_log = structlog.get_logger("swapferry.recording")


class Recording:
    """One file, while it is written. What cannot be written ends the recording, never the run. Raises `RecordingError` for a
    path that is of no use."""

    def __init__(self, path: Path, clock: Clock, program: str, salt: bytes | None = None) -> None:
        self._clock = clock
        self._writer: Writer | None = Writer(path)
        self.salt = salt or secrets.token_bytes(SALT_BYTES)
        if self._writer.first is not None:
            self.salt = self._begun(self._writer).salt
        self.write("Begun", format=FORMAT, program=program, salt=self.salt)

    @staticmethod
    def _begun(writer: Writer) -> Begun:
        try:
            return check_format(parse(writer.first))
        except (Malformed, RecordingError) as error:
            writer.close()
            raise RecordingError(f"{writer.path}: {error}; it is not continued, give another path") from error

    def node(self, plan: HostPlan) -> Recorder:
        """A node of this plan starts: who is to be told of its turns."""
        facts = plan.facts
        self.write(
            "Started",
            node=facts.host,
            facts=to_plain(facts),
            hosts=sorted(plan.hosts),
            manager=plan.manager,
            reach=[path.name for path in plan.paths],
        )
        return NodeRecorder(self, facts.host)

    def write(self, entry: str, **fields: Any) -> None:
        """Append one entry."""
        if self._writer is None:
            return
        try:
            self._writer.append({"entry": entry, "t": self._clock.now(), **fields})
        except (OSError, TypeError, ValueError, OverflowError) as error:
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Record no more: a recording with a hole in it would be wrong where it is silent."""
        if self._writer is not None:
            _log.error("recording_stopped", path=str(self._writer.path), error=repr(error), remedy="make room on its disk")
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """End it in order. Idempotent."""
        self.write("Ended")
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class NodeRecorder(Recorder):
    """Told of the turns of one node's life."""

    def __init__(self, recording: Recording, node: str) -> None:
        self.recording = recording
        self._node = node
        self._plain = Plain(recording.salt)
        self._fingerprints: dict[str, Fingerprint] = {}
        self._undecided: dict[str, list[list[Any]]] = {}

    def loaded(self, actor: str, record: Record) -> None:
        """See `Recorder`."""
        with self._guarded():
            made = self._fingerprints[actor] = fingerprint(self._plain, record)
            self._undecided.pop(actor, None)
            self._write("Loaded", actor, values=self._plain.filed(dict(record.items())), digest=made.digest)

    def decided(self, actor: str, heard: Heard, decision: Decision) -> None:
        """See `Recorder`."""
        with self._guarded():
            plain = self._plain.decision(decision)
            changes = self._undecided[actor] = plain["changes"]
            digest = self._fingerprints[actor].after(changes)
            self._write("Decided", actor, heard=self._plain.heard(heard), decision=plain, digest=digest)

    def failed(self, actor: str, heard: Heard, error: Exception) -> None:
        """See `Recorder`."""
        with self._guarded():
            self._write("Failed", actor, heard=self._plain.heard(heard), error=told(error))

    def stored(self, actors: Sequence[str]) -> None:
        """See `Recorder`."""
        with self._guarded():
            for actor in actors:
                self._fingerprints[actor].apply(self._undecided.pop(actor))
            self.recording.write("Stored", node=self._node, actors=list(actors))

    def retired(self, actor: str) -> None:
        """See `Recorder`."""
        with self._guarded():
            self._write("Retired", actor)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - who only writes down must not stop a turn
            self.recording.give_up(error)

    def _write(self, entry: str, actor: str, **fields: Any) -> None:
        self.recording.write(entry, node=self._node, actor=actor, **fields)


def told(error: Exception) -> str:
    """An error as a recording keeps it."""
    return f"{type(error).__name__}: {error}"
