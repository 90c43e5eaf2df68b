"""Hosts in processes of their own: a scene may kill them, and they come back."""

import json
from pathlib import Path

from tests.support.rabbitmq import RabbitMQ
from tests.swapferry.scenes import SMALL, leftovers, machines, swapferry

KILLING = SMALL.replace(
    '[[step]]\ndo = "migrate"',
    '[[step]]\ndo = "kill"\nwhat = "node"\nhost = "h1"\n\n'
    '[[step]]\ndo = "wait_swapped"\nvm = "web1"\nshare = 0.5\n\n[[step]]\ndo = "migrate"',
)
"""a fake guest ends with its node: it boots anew, fills its memory again, and can move"""


def test_a_node_that_a_scene_kills_is_started_again_and_goes_on_from_its_store(rooms: Path, rabbitmq: RabbitMQ) -> None:
    scene = rooms / "killing.toml"
    scene.write_text(KILLING)

    ended = swapferry(rooms, "run", scene, "--guest", "fake", "--json", "--bus", rabbitmq.url, "--processes")

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["outcome"] == "done"
    assert leftovers(rooms) == []
    assert machines(rooms) == []


def test_a_scene_that_kills_needs_hosts_that_are_processes(rooms: Path) -> None:
    scene = rooms / "killing.toml"
    scene.write_text(KILLING)

    ended = swapferry(rooms, "run", scene, "--guest", "fake")

    assert ended.returncode == 2
    assert "--processes" in ended.stderr
