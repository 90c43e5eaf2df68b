"""The configuration of a node: what is written is read again, and mistakes are named."""

from pathlib import Path

import pytest

from scenarios.errors import BadFile
from swapferry.config import NodeDevice, NodeFile, NodeSection, read_node_file, write_node_file

REPOSITORY = Path(__file__).parents[2]


def a_file(directory: Path) -> NodeFile:
    node = NodeSection(
        host="h1", hosts=("h1", "h2"), bus='amqp://user:pass"word@127.0.0.1/', store=directory / "h1.db",
        directory=directory / "räm", memory=1 << 26, guest="fake", roles=("resource-manager",), timeline=directory / "t",
    )  # fmt: skip
    devices = (
        NodeDevice(name="san0", home="h1", uuid="5d3c0b0e-6a51-4f0e-9f35-0c4c3a1d7e10", slots=64, path=directory / "san0"),
        NodeDevice(name="local2", home="h2", uuid="a4f7c7c2-0b57-4b5b-8a35-2f1f6f0f9b22", slots=64),
    )
    return NodeFile(node=node, devices=devices)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "h1.toml"

    write_node_file(a_file(tmp_path), path)

    assert read_node_file(path) == a_file(tmp_path)


def test_nobody_else_may_read_the_password_of_the_bus(tmp_path: Path) -> None:
    path = tmp_path / "h1.toml"

    write_node_file(a_file(tmp_path), path)

    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("host", ["h1", "h2"])
def test_the_node_files_of_the_containers_are_right(host: str) -> None:
    file = read_node_file(REPOSITORY / "docker" / f"{host}.toml")

    assert file.node.host == host


@pytest.mark.parametrize(
    ("right", "wrong", "key", "found", "allowed"),
    [
        ('guest = "fake"', 'guest = "paper"', "node.guest", '"paper"', '"qemu" or "fake"'),
        ('host = "h1"', "", "node.host", "nothing", "a name"),
        ('memory = 67108864', 'memory = "much"', "node.memory", '"much"', "a size"),
        ('["resource-manager"]', '["king"]', "node.roles", "['king']", "resource-manager"),
        ("slots = 64", "slots = 0", "device[0].slots", "0", "a whole number"),
        ("slots = 64", "slots = 64\nslot = 1", "device[0].slot", "did you mean slots?", "home, name"),
        ('home = "h2"', 'home = "h1"', "device[1].path", "nothing", "a path, since this host is the device's home"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, right: str, wrong: str, key: str, found: str, allowed: str) -> None:
    path = tmp_path / "h1.toml"
    write_node_file(a_file(tmp_path), path)
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong, 1))

    with pytest.raises(BadFile) as raised:
        read_node_file(path)

    problem = next(problem for problem in raised.value.problems if problem.key == key)
    assert found in problem.found
    assert allowed in problem.allowed
