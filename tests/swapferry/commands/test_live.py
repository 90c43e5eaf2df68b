"""The commands on nodes that run, over a real broker. One cluster for all: the tests follow each other, as a day does."""

import asyncio
import json

import pytest

from actors.messages import BODIES, Cast, Enquire
from actors.runtime.actor import Say
from actors.runtime.catalogue import Catalogue
from bus.errors import Unroutable
from swapferry.commands.common import Where, broker_of
from tests.swapferry.commands.clusters import LiveCluster


def test_in_the_morning_all_is_quiet(live: LiveCluster) -> None:
    devices = {one["device"]: one for one in live.json("devices")["devices"]}
    (own,) = live.json("slots", "web1")["slots"]

    assert devices["san0"]["granted"] == 0
    assert (own["device"], own["kind"]) == ("san0", "own")
    assert own["named"] > 0
    assert live.json("sagas")["sagas"] == []


def test_a_vm_moves_and_hangs_on_its_old_device_until_it_is_cleaned_up(live: LiveCluster) -> None:
    moved = json.loads(live("migrate", "web1", "--target", "h2", "--json").stdout)
    (granted,) = [one for one in live.json("depends", "san0")["depends"] if one["kind"] == "granted"]
    while_shared = live.json("fsck", "--settle", "0.5")
    cleaned = live.json("clean", "web1", "--rate", "4000", "--watch")
    after = live.json("fsck", "--settle", "0.5")

    assert (moved["outcome"], granted["vm"], granted["host"]) == ("done", "web1", "h2")
    assert granted["slots"] > 0
    assert while_shared["live"]
    assert (while_shared["findings"], after["findings"]) == ([], [])
    assert cleaned["left"] == []
    assert [one for one in live.json("depends", "san0")["depends"] if one["kind"] == "granted"] == []


def test_what_was_done_is_not_cancelled(live: LiveCluster) -> None:
    code, told = live.here("cancel", "web1")

    assert (code, told["outcome"]) == (1, "already done")


def test_an_answer_that_does_not_come_leaves_the_id_to_ask_again_with(live: LiveCluster) -> None:
    live.stop("h1")

    waited = live("cancel", "web1", "--request", "mine", "--timeout", "0.5")
    _, looked = live.here("devices", "--timeout", "0.5")
    live.start("h1")
    code, again = live.here("cancel", "web1", "--request", "mine")

    assert waited.returncode == 1
    assert "--request mine" in waited.stderr
    assert "resource-manager does not answer; is its node up?" in looked["reason"]
    assert (code, again["outcome"]) == (1, "already done")


def test_a_dead_letter_is_listed_shown_kept_when_nobody_is_there_and_dropped(live: LiveCluster) -> None:
    asyncio.run(say_to_nobody(live))

    (letter,) = [one for one in live.json("dead-letters", "list")["dead_letters"] if one["target"] == "hypervisor.h9"]
    shown = live.json("dead-letters", "show", letter["id"])
    _, redriven = live.here("dead-letters", "redrive", letter["id"])
    dropped = live.json("dead-letters", "drop", letter["id"])
    code, again = live.here("dead-letters", "drop", letter["id"])

    assert (letter["reason"], letter["type"], shown["body"]["body"]) == ("unroutable", "Enquire", {"request": "r1"})
    assert "hypervisor.h9" in redriven["reason"]
    assert (dropped["outcome"], code) == ("dropped", 1)
    assert "list them again" in again["reason"]


async def say_to_nobody(live: LiveCluster) -> None:
    say = Say(target="hypervisor.h9", body=Enquire(request="r1"))
    envelope = Catalogue(BODIES, Cast).encode(say, source="user.tester", id="e1", causation="e1", sent_at=1.0)
    async with broker_of(Where(bus=live.url, prefix=live.prefix)) as broker:
        with pytest.raises(Unroutable):
            await broker.publish(envelope)


def test_a_host_that_is_not_off_is_not_declared_dead(live: LiveCluster) -> None:
    ended = live("declare-dead", "h1", stdin="n\n")

    assert ended.returncode == 1
    assert "switch it off first" in ended.stderr


def test_a_host_that_is_off_is_declared_dead_and_its_vm_boots_elsewhere(live: LiveCluster) -> None:
    live.stop("h2")

    unread = live("devices", "--timeout", "0.5")
    verdict = live.json("declare-dead", "h2", "--yes")

    assert unread.returncode == 1
    assert "hypervisor.h2 does not answer" in unread.stderr
    assert "san0" in unread.stdout
    assert verdict["outcome"] == "done"
    assert {one["host"] for one in live.here("slots", "web1")[1]["slots"]} == {"h1"}
