"""The first step of everything: what it says on a machine where it may not install what is missing."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("bash", "cat", "dirname", "grep", "rm", "tr", "test", "python3", "chmod", "env")


@pytest.fixture
def poor(tmp_path: Path) -> Path:
    """A search path with hardly anything in it, for a user who is not root."""
    for tool in TOOLS:
        found = next(place / tool for place in map(Path, ("/usr/bin", "/bin")) if (place / tool).exists())
        (tmp_path / tool).symlink_to(found)
    add_tool(tmp_path, "id", "echo 1000")
    return tmp_path


def add_tool(directory: Path, name: str, script: str) -> None:
    (directory / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
    (directory / name).chmod(0o755)


def packages(path: Path, kind: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "POLICY_FILE": str(path / "policy")}
    command = [str(ROOT / "docker" / "packages.sh"), kind]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_without_root_it_says_exactly_what_to_install(poor: Path) -> None:
    ended = packages(poor, "run")

    assert ended.returncode == 1
    assert "sudo apt-get install" in ended.stderr
    assert "qemu-system-x86 " in ended.stderr
    assert "gcc " in ended.stderr
    assert "rabbitmq-server" not in ended.stderr


def test_with_root_it_installs_what_is_missing_and_lets_no_service_start(poor: Path) -> None:
    log = poor / "log"
    add_tool(poor, "id", "echo 0")
    add_tool(poor, "apt-get", f'echo "$@" >>{log}; [ -x {poor / "policy"} ] && echo held >>{log}; true')

    ended = packages(poor, "run")

    assert ended.returncode == 1, "the stub installs nothing, and that is noticed"
    assert "not there: qemu-system-x86" in ended.stderr
    assert "install --no-install-recommends" in log.read_text()
    assert "held" in log.read_text()
    assert not (poor / "policy").exists()


@pytest.mark.parametrize("script", ["docker/packages.sh", "docker/python.sh", ".ci/run"])
def test_the_scripts_can_be_run_and_stop_at_the_first_mistake(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert "set -euo pipefail" in (ROOT / script).read_text()


def test_everything_the_scenes_need_is_a_target_of_make() -> None:
    listed = subprocess.run(["make", "-n", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    for target in ("demo", "test", "setup", "check", "bench", "model"):
        assert f"make {target} " in listed
