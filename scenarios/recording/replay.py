"""Decides everything again that a recording holds, and compares: each decision field by field, each record by its digest.

A decision counts once the recording says that it was stored. After a crash it may have been stored without that being said:
then the record that the actor was loaded with shows which.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import attrs

from actors.domain.hosting import HostFacts
from actors.errors import Malformed
from actors.messages import BODIES, Cast
from actors.runtime.actor import Actor, Decision, Heard, Key, Record, Tick, Turn
from actors.runtime.catalogue import Catalogue
from actors.runtime.values import from_plain
from bus.errors import RecordingError
from bus.recording import Damage, Whole, read
from scenarios.recording.cast import actor_at
from scenarios.recording.difference import Difference, between, filing, of_decisions
from scenarios.recording.entries import (
    Begun,
    Decided,
    Ended,
    Entry,
    Failed,
    HeardEntry,
    Loaded,
    Retired,
    Started,
    Stored,
    check_format,
    parse,
)
from scenarios.recording.plain import Fingerprint, Plain
from scenarios.recording.recorder import told


@attrs.frozen(kw_only=True)
class Divergence:
    """The first place where a replay came to something else."""

    number: int
    """of the record"""
    t: float
    node: str
    actor: str
    message: str
    """what was heard"""
    message_id: str
    differences: tuple[Difference, ...]


@attrs.frozen(kw_only=True)
class Step:
    """A record, and what it was when played."""

    number: int
    entry: Entry
    heard: Heard | None = None
    decision: Decision | None = None


@attrs.define(eq=False)
class Player:
    """One actor in a replay."""

    actor: Actor
    facts: HostFacts
    record: Record = attrs.field(factory=Record)
    fingerprint: Fingerprint = attrs.field(factory=Fingerprint)
    filed: dict[str, Any] = attrs.field(factory=dict)
    """the record as plain data, by name"""
    undecided: Decision | None = None
    known: bool = False
    """whether it was loaded before"""
    retired: bool = False

    def file(self, plain: Plain, changes: Any) -> None:
        """Let these changes be part of the record."""
        filed = plain.filed(changes)
        self.record.apply(changes)
        self.fingerprint.apply(filed)
        for name, value in filing(filed).items():
            if value is None:
                self.filed.pop(name, None)
            else:
                self.filed[name] = value


class Replay:
    """One recording, played from its beginning. After `steps` are through (or anything stopped them), the rest says how it went.

    `until` is the number of the last record to be played. Raises `RecordingError` for a file that is no recording, or one that
    this version cannot play.
    """

    def __init__(self, path: Path, until: int | None = None) -> None:
        self.path, self._until = path, until
        self.players: dict[tuple[str, str], Player] = {}
        """(node, address) -> the actor as it stands"""
        self.begun: Begun | None = None
        self.records = 0
        self.decisions = 0
        self.damage: Damage | None = None
        self.divergence: Divergence | None = None
        self.ended = False
        self._plain = Plain(b"")
        self._catalogue = Catalogue(BODIES, Cast)
        self._nodes: dict[str, tuple[HostFacts, frozenset[str]]] = {}

    def steps(self) -> Iterator[Step]:
        """Each record as it is played, until the end, the damage or the divergence."""
        for found in read(self.path):
            if self._until is not None and found.number > self._until:
                return
            if isinstance(found, Damage):
                self.damage = found
                return
            yield self._step(found)
            self.records = found.number + 1
            if self.divergence is not None:
                return

    def _step(self, found: Whole) -> Step:
        try:
            entry = parse(found.data)
            if self.begun is None or isinstance(entry, Begun):
                self._begin(entry)
            return self._play(found.number, entry)
        except (Malformed, KeyError, RecordingError) as error:
            program = f", recorded by swapferry {self.begun.program}" if self.begun else ""
            raise RecordingError(f"{self.path}: record {found.number}{program} cannot be played here: {error}") from error

    def _begin(self, entry: Entry) -> None:
        self.begun = check_format(entry)
        self._plain = Plain(self.begun.salt)

    def _play(self, number: int, entry: Entry) -> Step:
        self.ended = isinstance(entry, Ended)
        match entry:
            case Started():
                self._nodes[entry.node] = (from_plain(HostFacts, entry.facts), frozenset(entry.hosts))
            case Loaded():
                self._load(number, entry)
            case Decided() | Failed():
                return self._decide(number, entry)
            case Stored():
                for actor in entry.actors:
                    self._store(self.players[entry.node, actor])
            case Retired():
                self.players[entry.node, entry.actor].retired = True
        return Step(number=number, entry=entry)

    # -- records

    def _load(self, number: int, entry: Loaded) -> None:
        facts, hosts = self._nodes[entry.node]
        actor = actor_at(entry.actor, facts, hosts)
        player = Player(actor, facts, known=True)
        player.file(self._plain, _values(actor, entry.values))
        before = self.players.get((entry.node, entry.actor))
        self.players[entry.node, entry.actor] = player
        if player.fingerprint.digest != entry.digest:
            self._diverge(number, entry, "a record that was loaded", "", [_digests(entry.digest, player.fingerprint.digest)])
        elif before is not None and entry.digest not in _possible(self._plain, before):
            differences = list(between("record", player.filed, before.filed))
            self._diverge(number, entry, "a record that was loaded", "", differences)

    def _store(self, player: Player) -> None:
        if player.undecided is not None:
            player.file(self._plain, player.undecided.changes)
            player.undecided = None

    # -- decisions

    def _decide(self, number: int, entry: Decided | Failed) -> Step:
        player = self.players[entry.node, entry.actor]
        heard = _heard(player.actor, entry.heard)
        self.decisions += 1
        turn = Turn(player.record, heard)
        try:
            player.actor.decide(turn)
            decision = turn.decision()
            if isinstance(entry, Failed):
                self._encode(player.actor, heard, decision)
        except Exception as error:  # noqa: BLE001 - whatever an actor raises is its defect
            self._compare_failure(number, entry, heard, told(error))
            return Step(number=number, entry=entry, heard=heard)
        if isinstance(entry, Failed):
            self._compare_failure(number, entry, heard, "a decision")
        else:
            self._compare(number, entry, player, decision)
            player.undecided = decision
        return Step(number=number, entry=entry, heard=heard, decision=decision)

    def _encode(self, actor: Actor, heard: Heard, decision: Decision) -> None:
        """The shell makes envelopes of what is said: words that cannot travel are a defect too."""
        for say in decision.says:
            self._catalogue.encode(say, source=actor.address, id=heard.id, causation=heard.id, sent_at=0.0)

    def _compare_failure(self, number: int, entry: Decided | Failed, heard: Heard, replayed: str) -> None:
        recorded = entry.error if isinstance(entry, Failed) else "a decision"
        if recorded != replayed:
            difference = Difference(field="turn", recorded=recorded, replayed=replayed)
            self._diverge(number, entry, type(heard.body).__name__, heard.id, [difference])

    def _compare(self, number: int, entry: Decided, player: Player, decision: Decision) -> None:
        replayed = self._plain.decision(decision)
        differences = of_decisions(attrs.asdict(entry.decision, recurse=False), replayed)
        digest = player.fingerprint.after(replayed["changes"])
        if not differences and digest != entry.digest:
            differences = [_digests(entry.digest, digest)]
        if differences:
            self._diverge(number, entry, _message(entry.heard), entry.heard.id, differences)

    def _diverge(
        self, number: int, entry: Loaded | Decided | Failed, message: str, message_id: str, differences: list[Difference]
    ) -> None:
        self.divergence = Divergence(
            number=number, t=entry.t, node=entry.node, actor=entry.actor, message=message, message_id=message_id,
            differences=tuple(differences),
        )  # fmt: skip


def _possible(plain: Plain, player: Player) -> set[bytes]:
    """The digests that the store may have: with or without a decision whose storing nobody saw, or forgotten."""
    possible = {player.fingerprint.digest}
    if player.undecided is not None:
        possible.add(player.fingerprint.after(plain.filed(player.undecided.changes)))
    if player.retired:
        possible.add(Fingerprint().digest)
    return possible


def _digests(recorded: bytes, replayed: bytes) -> Difference:
    return Difference(field="digest of the record", recorded=recorded.hex(), replayed=replayed.hex())


def _values(actor: Actor, filed: Any) -> dict[Key, object]:
    kinds = {kind.__name__: kind for kind in actor.kinds}
    return {(kinds[kind], key): from_plain(kinds[kind], value) for kind, key, value in filed}


def _heard(actor: Actor, entry: HeardEntry) -> Heard:
    kinds = {kind.__name__: kind for kind in (*actor.hears, Tick)}
    if entry.type not in kinds:
        raise Malformed(f"{actor.address} does not hear {entry.type}")
    body = from_plain(cast("type[Any]", kinds[entry.type]), entry.body)
    of = None if entry.cast is None else from_plain(Cast, entry.cast)
    return Heard(id=entry.id, source=entry.source, body=body, cast=of)


def _message(heard: HeardEntry) -> str:
    return f"Tick({heard.body['timer']})" if heard.type == Tick.__name__ else heard.type
