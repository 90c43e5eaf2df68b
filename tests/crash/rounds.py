"""Crash rounds: `python -m tests.crash.rounds --rounds 200 --seed 1 --guest mixed`.

In each round the guest moves to another host and its slots come home, while processes are killed. Real nodes, a real RabbitMQ,
real pagers (QEMU rounds). Prints the seed of each round first; exit code 1 if anything was violated.
"""

import argparse
import asyncio
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import attrs

from actors.client import NoAnswer
from actors.domain.placement import Placement
from scenarios.errors import Failed
from scenarios.timeline import Entry
from swapferry.logs import log_errors_to_stderr
from swapferry.signals import run_until_told
from tests.crash.cluster import HOSTS, VM, Cluster
from tests.crash.judge import Asked, judge, settle
from tests.crash.strikes import CLEANUP, Strike, strikes_of
from tests.support.rabbitmq import RabbitMQ

VERDICT_S = 180.0
ROW_S = 8.0
"""a row that is not done within this time is not waited for: the strike comes then"""
WATCH_S = 0.004


@attrs.frozen(kw_only=True)
class Round:
    """What one round came to."""

    seed: str
    guest: str
    strikes: Sequence[Strike]
    outcome: str
    freeze_ms: float | None
    rebooted: bool
    deaths: int
    """node processes that had to be started again"""
    seconds: float
    problems: Sequence[str]

    def __str__(self) -> str:
        freeze = f"frozen {self.freeze_ms:.0f} ms" if self.freeze_ms is not None else "not frozen"
        booted = ", booted anew" if self.rebooted else ""
        strikes, died = "; ".join(map(str, self.strikes)), f"{self.deaths} nodes died"
        return f"{self.seed} {self.guest}: {self.outcome}, {freeze}{booted}, {died}, {self.seconds:.1f} s [{strikes}]"


async def play(cluster: Cluster, seed: str, chosen: Sequence[Strike] | None = None) -> Round:
    """One round; with strikes of somebody's choice, or those of its seed."""
    pick = random.Random(seed)
    begun = time.time()
    source = place_of(cluster)
    target = pick.choice([host for host in HOSTS if host != source])
    strikes = strikes_of(pick, cluster.guest) if chosen is None else chosen
    watch = Watch(cluster)
    starts = cluster.starts()
    roles = {"source": source, "target": target, "manager": HOSTS[0]}
    roles["other"] = next(host for host in HOSTS if host not in (source, target))
    for host in HOSTS:
        await cluster.arm(host, *(f"{one.point}=crash" for one in strikes if one.point and roles.get(one.role, host) == host))
    moving = asyncio.create_task(cluster.migrate(target, VERDICT_S))
    striking = [
        asyncio.create_task(_strike(cluster, strike, roles.get(strike.role, source), watch, moving))
        for strike in strikes
        if not strike.point
    ]
    problems, asked = [], None
    try:
        asked = Asked(source=source, target=target, verdict=await moving)
    except NoAnswer as error:
        problems.append(str(error))
    struck = await asyncio.gather(*striking, return_exceptions=True)
    problems += [f"the strike itself failed: {error!r}" for error in struck if isinstance(error, BaseException)]
    await settle(cluster, asked)
    with suppress(Failed):  # the judge will say it
        await cluster.disarm()
    problems += await judge(cluster, asked)
    watch.look()
    problems += _memory_was_kept(cluster, strikes, watch)
    return Round(
        seed=seed, guest=cluster.guest, strikes=strikes, outcome=str(asked.verdict.outcome) if asked else "no verdict",
        freeze_ms=watch.freeze_ms, rebooted=watch.rebooted,
        deaths=cluster.starts() - starts, seconds=time.time() - begun, problems=problems,
    )  # fmt: skip


def place_of(cluster: Cluster) -> str:
    """Where the guest runs, by the manager's record."""
    manager = next(one.manager for one in cluster.kept() if one.manager is not None)
    place = manager.get(Placement, VM)
    assert place is not None
    return place.host


def _memory_was_kept(cluster: Cluster, strikes: Sequence[Strike], watch: "Watch") -> list[str]:
    """A guest may start anew only if its memory was really lost: a fake one lives in its node, a real one survives both
    node and pager."""
    deadly = cluster.guest == "fake" and any(strike.what in ("node", "all", "point") for strike in strikes)
    if watch.rebooted and not deadly:
        return ["the guest lost its memory and booted anew, though nothing of its machine was killed"]
    return []


class Watch:
    """Follows the timeline of a round."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        list(cluster.news("*.timeline"))  # what was before
        self.seen: list[Entry] = []

    def look(self) -> None:
        """Read what is new."""
        self.seen += [Entry(**json.loads(line)) for line in self._cluster.news("*.timeline")]

    @property
    def rebooted(self) -> bool:
        return any(entry.event.startswith("machine is booted") for entry in self.seen)

    @property
    def freeze_ms(self) -> float | None:
        """From the word to halt until the guest runs again, wherever."""
        halts = [entry.t for entry in self.seen if entry.event == "halt asked"]
        runs = [entry.t for entry in self.seen if entry.event == "runs" and halts and entry.t > min(halts)]
        return (min(runs) - min(halts)) * 1000 if runs else None

    async def row(self, row: str, moving: "asyncio.Task[object]") -> None:
        """Until the row is done, or will not be."""
        with suppress(TimeoutError):
            async with asyncio.timeout(ROW_S):
                while not moving.done() and not any(entry.row == row and entry.event == "done" for entry in self.seen):
                    await asyncio.sleep(WATCH_S)
                    self.look()


async def _strike(cluster: Cluster, strike: Strike, host: str, watch: Watch, moving: "asyncio.Task[object]") -> None:
    if strike.moment == CLEANUP:
        await asyncio.wait([moving])
    elif strike.moment:
        await watch.row(strike.moment, moving)
    await asyncio.sleep(strike.after_s)
    match strike.what:
        case "node":
            cluster.node(host)
        case "pager":
            cluster.pagers(host)
        case "cancel":
            await cluster.cancel(VERDICT_S)
        case "rabbitmq":
            await cluster.broker()
        case "stop":
            await cluster.stopped(host, strike.lasts_s)
        case "all":
            for name in HOSTS:
                cluster.pagers(name)
                cluster.node(name)
            await cluster.broker()


@attrs.define
class Tally:
    """The figures of all rounds."""

    rounds: Counter[str] = attrs.field(factory=Counter)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    kills: Counter[str] = attrs.field(factory=Counter)
    points: Counter[str] = attrs.field(factory=Counter)
    deaths: int = 0
    freezes: dict[str, float] = attrs.field(factory=dict)
    violated: list[Round] = attrs.field(factory=list)

    def add(self, one: Round) -> None:
        """Count a round."""
        self.rounds[one.guest] += 1
        self.outcomes[one.outcome] += 1
        for strike in one.strikes:
            self.kills[strike.victim] += 1
            self.points[strike.when] += 1
        self.deaths += one.deaths
        if len(one.strikes) == 1 and one.freeze_ms is not None:
            (strike,) = one.strikes
            self.freezes[strike.victim] = max(one.freeze_ms, self.freezes.get(strike.victim, 0.0))
        if one.problems:
            self.violated.append(one)

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"rounds: {sum(self.rounds.values())} ({_counted(self.rounds)})",
            f"outcomes: {_counted(self.outcomes)}",
            f"nodes killed: {self.deaths}",
            f"struck: {_counted(self.kills)}",
            f"when: {_counted(self.points)}",
            "longest freeze under a single fault: "
            + ", ".join(f"{what} {ms / 1000:.2f} s" for what, ms in sorted(self.freezes.items())),
            f"violations: {len(self.violated)}",
        ]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


@attrs.frozen
class Planned:
    """A round that is to be played; without strikes those of its seed."""

    seed: str
    guest: str
    strikes: Sequence[Strike] | None = None


async def run(rounds: Sequence[Planned], brokers: Sequence[RabbitMQ], keep: Path, say: "Say") -> Tally:
    """Play them, on as many clusters side by side as there are brokers (give one broker several times where none is struck)."""
    tally, left = Tally(), list(reversed(rounds))
    await asyncio.gather(*(_work(left, broker, keep, say, tally) for broker in brokers))
    return tally


async def _work(left: list[Planned], broker: RabbitMQ, keep: Path, say: "Say", tally: Tally) -> None:
    """One round after the other; a guest's cluster goes on until a round is violated or the guest changes."""
    cluster: Cluster | None = None
    try:
        while left:
            planned = left.pop()
            if cluster is None or cluster.guest != planned.guest:
                if cluster is not None:
                    await _end(cluster, say)
                cluster = Cluster(broker, planned.guest)
                await cluster.start()
            one = await play(cluster, planned.seed, planned.strikes)
            say("\n".join([str(one), *(f"  VIOLATION {problem}" for problem in one.problems)]))
            tally.add(one)
            if one.problems:
                say(f"  kept in {cluster.keep(keep / planned.seed.replace('/', '-'))}")
                await _end(cluster, say)
                cluster = None
    finally:
        if cluster is not None:
            await _end(cluster, say)


async def _end(cluster: Cluster, say: "Say") -> None:
    for problem in await cluster.stop():
        say(f"  at the end of the nodes: {problem}")


class Say:
    """Prints a line at once."""

    def __call__(self, line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def plan(rounds: int, seed: str, guest: str) -> list[Planned]:
    """So many rounds; `mixed` has a tenth of QEMU rounds, at least 20 where there are so many."""
    real = {"fake": 0, "qemu": rounds}.get(guest, max(rounds // 10, min(20, rounds // 4)))
    return [Planned(f"{seed}/{index}", "qemu" if index < real else "fake") for index in range(rounds)]


def main() -> int:
    """Play the rounds that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", default="", help="left out: a new one; printed first")
    parser.add_argument("--round", default="", help="play this one round only, by its seed")
    parser.add_argument("--guest", choices=("fake", "qemu", "mixed"), default="mixed")
    parser.add_argument("--keep", type=Path, default=None, help="where violated rounds are kept")
    parser.add_argument("--jobs", type=int, default=2, help="clusters side by side, each with a RabbitMQ of its own")
    wish = parser.parse_args()
    log_errors_to_stderr()
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # connections are lost on purpose here
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    seed = wish.seed or str(random.SystemRandom().randrange(1 << 32))
    say = Say()
    say(f"seed {seed}")
    keep = wish.keep or Path(tempfile.mkdtemp(prefix="swapferry-crash-kept-"))
    keep.mkdir(parents=True, exist_ok=True)
    rounds = [Planned(wish.round, wish.guest)] if wish.round else plan(wish.rounds, seed, wish.guest)
    with ExitStack() as brokers:
        started = [brokers.enter_context(RabbitMQ()) for _ in range(wish.jobs)]
        tally = run_until_told(run(rounds, started, keep, say))
    for line in tally.lines():
        say(line)
    if not tally.violated and wish.keep is None:
        shutil.rmtree(keep)
    return 1 if tally.violated else 0


if __name__ == "__main__":
    sys.exit(main())
