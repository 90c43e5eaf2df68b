"""What can go wrong in a scenario: a bad file, and a world that does not do what the file says."""

from collections.abc import Sequence

import attrs


class ScenarioError(Exception):
    """Root of all errors of this package."""


class Failed(ScenarioError):
    """A step could not be done (deadline passed, verdict that was not expected, guest gone). Says which and why."""


@attrs.frozen(kw_only=True)
class Problem:
    """One thing that is wrong in a file: where, what was found, what is allowed."""

    file: str
    key: str
    """path of the key, such as vm[0].memory; empty for the file as a whole"""
    found: str
    allowed: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        key = f" {self.key}:" if self.key else ""
        return f"{place}:{key} found {self.found}; allowed: {self.allowed}"


class BadFile(ScenarioError):
    """A file that cannot be used. All of its problems at once, each on a line of its own."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
