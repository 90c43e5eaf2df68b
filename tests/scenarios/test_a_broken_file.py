"""Each mistake in a scenario file is reported with file, key, what was found and what is allowed."""

from pathlib import Path

import pytest

from scenarios.errors import BadFile
from scenarios.load import load

GOOD = """\
[scenario]
name = "small"

[expect]
outcome = "done"

[[host]]
name = "h1"
memory = "64MiB"

[[host]]
name = "h2"
memory = "64MiB"

[[device]]
name = "san0"
home = "h1"
size = "96MiB"
reach = ["h1", "h2"]

[[vm]]
name = "web1"
host = "h1"
memory = "64MiB"
resident = "32MiB"
fill = "48MiB"

[[step]]
do = "migrate"
vm = "web1"
target = "h2"
"""

MOVE = 'do = "migrate"\nvm'


def _first(step: str) -> str:
    """Another step before the move."""
    return f"{step}\n[[step]]\n{MOVE}"


MISTAKES = [
    # (text in GOOD, what stands there instead, key, found, allowed)
    (MOVE, _first('do = "wait_moved"\nvm = "web1"'), "step[0].vm", '"web1", which no step before', "a wait after"),
    (MOVE, _first('do = "clean"\nvm = "web1"\npages_per_s = -1'), "step[0].pages_per_s", "-1", "from 0"),
    (MOVE, _first('do = "kill"\nwhat = "cat"\nhost = "h1"'), "step[0].what", '"cat"', '"node" or "pager"'),
    (MOVE, _first('do = "kill"\nwhat = "node"\nhost = "h9"'), "step[0].host", '"h9"', '"h1", "h2"'),
    ('memory = "64MiB"\nresident', 'memory = "64 elephants"\nresident', "vm[0].memory", '"64 elephants"', "a size in bytes"),
    ('memory = "64MiB"\nresident', "memory = true\nresident", "vm[0].memory", "true", "a size in bytes"),
    ('memory = "64MiB"\nresident', "resident", "vm[0].memory", "nothing", "a size in bytes"),
    ('memory = "64MiB"\nresident', 'memroy = "64MiB"\nresident', "vm[0].memroy", "did you mean memory?", "memory, name"),
    ('resident = "32MiB"', 'resident = "65MiB"', "vm[0].resident", "65 MiB", "at most 64 MiB, the vm's memory"),
    ('resident = "32MiB"', "resident = 4097", "vm[0].resident", "4097 bytes", "a multiple of the page size"),
    ('fill = "48MiB"', 'fill = "80MiB"', "vm[0].fill", "80 MiB", "at most 64 MiB"),
    ('fill = "48MiB"', 'fill = "48MiB"\nhot = "49MiB"', "vm[0].hot", "49 MiB", "at most 48 MiB, what is filled"),
    ('fill = "48MiB"', 'fill = "48MiB"\nvcpus = 0', "vm[0].vcpus", "0", "a whole number from 1 to 64"),
    ('fill = "48MiB"', 'boot = "windows"', "vm[0].boot", '"windows"', '"test" or "linux"'),
    ('fill = "48MiB"', 'boot = "linux"\ninitrd = "i"', "vm[0].kernel", "nothing", "a path"),
    ('fill = "48MiB"', 'kernel = "k"', "vm[0].kernel", '"k"', "nothing, since boot"),
    ('host = "h1"', 'host = "h9"', "vm[0].host", '"h9"', '"h1", "h2"'),
    ('name = "h2"\nmemory = "64MiB"', 'name = "h2"\nmemory = 0', "host[1].memory", "0 bytes", "at least 4 KiB"),
    ('name = "h1"\nmemory = "64MiB"', 'name = "h1"\nmemory = "16MiB"', "host[0].memory", "16 MiB", "at least 32 MiB"),
    ('name = "h2"', 'name = "h1"', "host[1].name", '"h1" a second time', "no other [[host]]"),
    ('name = "h2"', 'name = "Host Two"', "host[1].name", '"Host Two"', "lower-case"),
    ('home = "h1"', 'home = "h3"', "device[0].home", '"h3"', '"h1", "h2"'),
    ('reach = ["h1", "h2"]', 'reach = ["h1", "h3"]', "device[0].reach", '"h3"', '"h1", "h2"'),
    ('reach = ["h1", "h2"]', 'reach = ["h2"]', "device[0].reach", '"h2"', 'with the home "h1" in it'),
    ('reach = ["h1", "h2"]', 'reach = "h1"', "device[0].reach", '"h1"', "a list of host names"),
    ('size = "96MiB"', 'size = "8MiB"', "host[0].name", "8 MiB of swap devices", "at least 32.5 MiB"),
    ('size = "96MiB"', "size = 4095", "device[0].size", "4095 bytes", "a multiple of the page size"),
    ('do = "migrate"', 'do = "teleport"', "step[0].do", '"teleport"', "migrate, cancel, verify"),
    ('do = "migrate"\n', "", "step[0].do", "nothing", "migrate, cancel, verify"),
    ('vm = "web1"\ntarget', 'vm = "web2"\ntarget', "step[0].vm", '"web2"', '"web1"'),
    ('target = "h2"', 'target = "h7"', "step[0].target", '"h7"', '"h1", "h2"'),
    ('target = "h2"', 'target = "h2"\nmode = "live"', "step[0].mode", '"live"', '"stop"'),
    ('target = "h2"', 'target = "h2"\nwiat = true', "step[0].wiat", "did you mean wait?", "wait"),
    ('do = "migrate"\nvm = "web1"\ntarget = "h2"', 'do = "cancel"\nvm = "web1"', "step[0].vm", '"web1"', "after a migrate"),
    ('target = "h2"', 'target = "h2"\n[[step]]\ndo = "wait_swapped"\nvm = "web1"', "step[1]", "neither", "one of the two"),
    (
        'target = "h2"',
        'target = "h2"\n[[step]]\ndo = "wait_swapped"\nvm = "web1"\nshare = 0.9',
        "step[1].share",
        "43.2 MiB to be swapped",
        "at most 32 MiB",
    ),
    ('target = "h2"', 'target = "h2"\n[[step]]\ndo = "release"\nmessage = "Grant"', "step[1].message", '"Grant"', "nothing"),
    ('outcome = "done"', 'outcome = "perfect"', "expect.outcome", '"perfect"', '"done" or "undone" or "refused"'),
    ('outcome = "done"', 'outcome = "done"\nat = "h8"', "expect.at", '"h8"', '"h1", "h2"'),
    ("[[step]]", "[step]", "step", "{'do': 'migrate'", "tables that begin with [[step]]"),
    ("[scenario]", "[scenery]\n[scenario]", "scenery", "did you mean scenario?", "scenario"),
]


def written(directory: Path, text: str) -> Path:
    path = directory / "scene.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("right", "wrong", "key", "found", "allowed"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_is_named(tmp_path: Path, right: str, wrong: str, key: str, found: str, allowed: str) -> None:
    assert right in GOOD
    path = written(tmp_path, GOOD.replace(right, wrong, 1))

    with pytest.raises(BadFile) as raised:
        load(path)

    problem = next(problem for problem in raised.value.problems if problem.key == key)
    assert problem.file == str(path)
    assert found in problem.found
    assert allowed in problem.allowed
    assert problem.line is not None


def test_all_mistakes_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    text = GOOD.replace('memory = "64MiB"', "memory = -1").replace('do = "migrate"', 'do = "fly"').replace('"done"', '"gone"')

    with pytest.raises(BadFile) as raised:
        load(written(tmp_path, text))

    assert [problem.key for problem in raised.value.problems] == [
        "expect.outcome", "host[0].memory", "host[1].memory", "vm[0].memory", "step[0].do",
    ]  # fmt: skip


def test_a_problem_names_the_line_of_its_key(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace('resident = "32MiB"', 'resident = "a lot"'))

    with pytest.raises(BadFile, match=r"scene\.toml:25: vm\[0\]\.resident: found \"a lot\"; allowed: a size"):
        load(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[scenario\n", "what is not TOML"),
        (b'[scenario]\nname = "\xff"\n', "not UTF-8"),
        (b"", "nothing"),
        (b"step = 3\n", "3"),
        (b"scenario = 3\n", "3"),
        (b"[[step]]\n[[vm]]\n", "nothing"),
        (b"step = [1, 2]\n", "nothing"),
    ],
)
def test_no_content_makes_anything_but_a_clear_error(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "scene.toml"
    path.write_bytes(content)

    with pytest.raises(BadFile) as raised:
        load(path)

    assert any(found in problem.found for problem in raised.value.problems)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"nowhere\.toml: found No such file or directory; allowed: a file that can be read"):
        load(tmp_path / "nowhere.toml")


def test_paths_are_meant_from_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("fill", 'boot = "linux"\nkernel = "vmlinuz"\ninitrd = "/boot/initrd"\nfill'))

    vm = load(path).vms[0]

    assert vm.kernel == tmp_path / "vmlinuz"
    assert vm.initrd == Path("/boot/initrd")


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("scenarios/scenes/*.toml")), ids=lambda path: path.stem)
def test_every_scene_of_the_house_is_right(path: Path) -> None:
    scenario = load(path)

    assert scenario.about.description
    assert scenario.about.name.replace("-", "_") == path.stem
