"""What must hold at the end of a round: each thing that does not is a sentence."""

import asyncio
import json
from collections.abc import Sequence

import attrs

from actors.client import NoAnswer
from actors.domain.lifecycle import Outcome
from actors.domain.placement import Placement
from actors.errors import StoreError
from actors.messages import Verdict
from scenarios.audit import Kept, compare
from scenarios.errors import Failed
from scenarios.snapshot import abroad, open_sagas
from tests.crash.cluster import VM, Cluster

QUIET_S = 60.0
"""housekeeping asks again after at most 15 s, a saga after at most 30"""
VERIFY_S = 60.0
LOOK_PAUSE_S = 0.1


@attrs.frozen(kw_only=True)
class Asked:
    """A migration as its user saw it."""

    source: str
    target: str
    verdict: Verdict


async def judge(cluster: Cluster, asked: Asked | None) -> list[str]:
    """Wait until nothing is under way any more, then look. Empty: all is well."""
    try:
        await cluster.all_ready()
    except Failed as error:
        return [str(error)]
    problems = await settle(cluster, asked)
    try:
        found = await cluster.verify(VERIFY_S)
        if not found.ok:
            problems.append(f"memory: {found.words}")
    except NoAnswer as error:
        problems.append(f"memory: {error}")
    return problems + _defects(cluster)


async def settle(cluster: Cluster, asked: Asked | None) -> list[str]:
    """Until the guest runs where it should, all slots are home, every saga is ended and all agree; else what was not so at
    last."""
    give_up = asyncio.get_running_loop().time() + QUIET_S
    while True:
        problems = look(cluster, asked)
        if not problems or asyncio.get_running_loop().time() > give_up:
            return problems
        await asyncio.sleep(LOOK_PAUSE_S)


def look(cluster: Cluster, asked: Asked | None) -> list[str]:
    """What is not at rest or not in agreement now."""
    try:
        kept = cluster.kept()
    except StoreError as error:
        return [str(error)]
    problems = [f"saga {saga} is still open" for saga in open_sagas(kept)]
    if left := abroad(kept, VM):
        problems.append(f"{left} slots (or devices) are still shared")
    return problems + _one_place(cluster, kept, asked) + compare(kept, cluster.world.tables())


def _one_place(cluster: Cluster, kept: Sequence[Kept], asked: Asked | None) -> list[str]:
    manager = next(one.manager for one in kept if one.manager is not None)
    place = manager.get(Placement, VM)
    if place is None:
        return [f"{VM} has no placement"]
    problems = []
    if (running := cluster.running()) != [place.host]:
        problems.append(f"{VM} is placed on {place.host} and runs on {running}")
    if place.failed:
        problems.append(f"{VM} is given up: {place.failed}")
    if asked is not None:
        moved = asked.verdict.outcome is Outcome.DONE
        if place.host != (asked.target if moved else asked.source):
            problems.append(f"the verdict was {asked.verdict.outcome} ({asked.verdict.reason}); {VM} is placed on {place.host}")
    return problems


def _defects(cluster: Cluster) -> list[str]:
    """An actor that fails is a defect of ours, whatever was killed."""
    found = []
    for line in cluster.news("*.log"):
        if not line.startswith("{"):
            found += [line] if "never retrieved" in line else []
            continue
        fields = json.loads(line)
        if fields.get("event") in ("actor_defect", "shell_failed", "machine_defect"):
            found.append(f"{fields.get('actor') or fields.get('instance')}: {fields.get('error')}")
    return found
