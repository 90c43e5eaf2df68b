"""The rules of the house, held by reading the sources: who may import what, what decisions may not touch, how long things are."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = {"bus": 1, "paging": 1, "actors": 2, "scenarios": 3, "swapferry": 4}

KEEPERS = {
    "aio_pika": ("bus/rabbit",),
    "aiormq": ("bus/rabbit",),
    "sqlite3": ("actors/runtime/sqlite.py",),
    "qemu": ("paging/qemu",),
    "fcntl.ioctl": ("paging/uffd", "paging/file_device.py"),
    "os.environ": ("swapferry/",),
    "os.getenv": ("swapferry/",),
}
"""Name -> beginnings of the paths that may use it. A block device's size is an ioctl too."""

IMPURE = ("time", "random", "secrets", "uuid.uuid1", "uuid.uuid4", "os.urandom", "datetime", "asyncio.sleep", "open")
IMPURE_ALLOWED = (
    "actors/runtime/clock.py",
    "actors/runtime/sqlite.py",
    "actors/client.py",  # a user waits and decides nothing
    "actors/driver.py",  # does with a machine what was decided
)

IMPURE_SIMULATED = (
    "time", "datetime", "secrets", "threading", "multiprocessing", "concurrent", "socket", "subprocess", "select",
    "uuid.uuid1", "uuid.uuid4", "os.urandom", "open", "numpy.random",
)  # fmt: skip
SEEDED = ("random.Random",)
"""what a simulated world may take of the module random: a generator with a seed, never the global one"""

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400
FORBIDDEN = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b|(?<![\w.}$*])/(work|root|home|tmp|opt/wheels)/|pypi[\w-]*/" r"simple")
"""Left-overs, and paths of one machine (in pieces, so that this file stands its own test)."""


@attrs.frozen
class Source:
    """A Python file of the house."""

    name: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name.partition("/")[0]


def tracked_files() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    names = listed.stdout.split() or [str(path.relative_to(ROOT)) for path in ROOT.rglob("*.*") if ".venv" not in path.parts]
    return sorted(name for name in names if (ROOT / name).is_file() and not name.startswith("docs/model/"))


def read(name: str) -> Source:
    text = (ROOT / name).read_text(encoding="utf-8")
    return Source(name, text, ast.parse(text, name))


FILES = tracked_files()
SOURCES = [read(name) for name in FILES if name.endswith(".py") and name.partition("/")[0] in FLOORS]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every import as (line, dotted name), those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def used(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every import, every `module.name` of an imported module, and every called bare name."""
    yield from imported(tree)
    modules = {name for _, name in imported(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            yield node.lineno, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, node.func.id


def is_or_is_in(name: str, what: str) -> bool:
    return name == what or name.startswith(f"{what}.")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_imports_run_downwards_only(source: Source) -> None:
    floor = FLOORS[source.package]
    upward = [
        f"{source.name}:{line} imports {name}"
        for line, name in imported(source.tree)
        if (package := name.partition(".")[0]) in FLOORS and package != source.package and FLOORS[package] >= floor
    ]
    assert upward == []


@pytest.mark.parametrize(("what", "keepers"), KEEPERS.items())
def test_only_its_keeper_knows(what: str, keepers: tuple[str, ...]) -> None:
    strangers = [
        f"{source.name}:{line} uses {name}"
        for source in SOURCES
        if not source.name.startswith(keepers)
        for line, name in used(source.tree)
        if is_or_is_in(name, what)
    ]
    assert strangers == []


@pytest.mark.parametrize("source", [source for source in SOURCES if source.package == "actors"], ids=lambda source: source.name)
def test_decisions_have_no_clock_random_or_files(source: Source) -> None:
    if source.name in IMPURE_ALLOWED:
        return
    impure = [
        f"{source.name}:{line} uses {name}"
        for line, name in used(source.tree)
        if any(is_or_is_in(name, what) for what in IMPURE)
    ]
    assert impure == []


SIMULATED = [source for source in SOURCES if source.name.startswith("scenarios/sim/")]


@pytest.mark.parametrize("source", SIMULATED, ids=lambda source: source.name)
def test_a_simulated_world_has_no_clock_chance_or_thread_but_its_own(source: Source) -> None:
    impure = [
        f"{source.name}:{line} uses {name}"
        for line, name in used(source.tree)
        if any(is_or_is_in(name, what) for what in IMPURE_SIMULATED)
        or (name.startswith("random.") and name not in SEEDED)
    ]
    assert impure == []


@pytest.mark.parametrize("source", SIMULATED, ids=lambda source: source.name)
def test_a_simulated_world_is_handed_its_parts(source: Source) -> None:
    wiring = [f"{source.name}:{line} imports {name}" for line, name in imported(source.tree) if name.startswith("swapferry")]
    assert wiring == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_module_and_its_functions_are_short(source: Source) -> None:
    assert source.text.count("\n") <= MODULE_LINES_MAX, f"{source.name} is longer than {MODULE_LINES_MAX} lines"
    functions = [node for node in ast.walk(source.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [
        f"{source.name}:{node.lineno} {node.name}"
        for node in functions
        if (node.end_lineno or node.lineno) - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_module_says_what_it_is_for(source: Source) -> None:
    assert ast.get_docstring(source.tree), f"{source.name} has no docstring"


def test_nothing_is_left_over_and_no_machine_is_named() -> None:
    found = []
    for name in FILES:
        try:
            lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{line}: {hit[0]}" for line, text in enumerate(lines, 1) if (hit := FORBIDDEN.search(text))]
    assert found == []
