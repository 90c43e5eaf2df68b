"""The same scene over the embedded bus in one process and over RabbitMQ with a process for each host comes to the same rows."""

import json
from pathlib import Path

from tests.support.rabbitmq import RabbitMQ
from tests.swapferry.scenes import leftovers, rows, swapferry


def test_hosts_in_processes_of_their_own_do_the_same_rows(rooms: Path, small: Path, rabbitmq: RabbitMQ) -> None:
    embedded = swapferry(rooms, "run", small, "--guest", "fake", "--json")
    apart = swapferry(rooms, "run", small, "--guest", "fake", "--json", "--bus", rabbitmq.url, "--processes")

    assert embedded.returncode == 0, embedded.stderr
    assert apart.returncode == 0, apart.stderr
    assert rows(json.loads(apart.stdout)) == rows(json.loads(embedded.stdout))
    assert json.loads(apart.stdout)["bus"] == "rabbitmq"
    assert leftovers(rooms) == []


def test_a_run_leaves_no_queue_on_the_broker(rooms: Path, small: Path, rabbitmq: RabbitMQ) -> None:
    before = rabbitmq.control("list_queues", "name")

    ended = swapferry(rooms, "run", small, "--guest", "fake", "--json", "--bus", rabbitmq.url)

    assert ended.returncode == 0, ended.stderr
    assert rabbitmq.control("list_queues", "name") == before


def test_a_broker_that_is_not_there_ends_with_1(rooms: Path, small: Path) -> None:
    ended = swapferry(rooms, "run", small, "--guest", "fake", "--bus", "amqp://guest:secret@127.0.0.1:9/")

    assert ended.returncode == 1
    assert "127.0.0.1:9" in ended.stderr
    assert "secret" not in ended.stderr
    assert leftovers(rooms) == []
