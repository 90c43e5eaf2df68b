"""What an operator does with a cluster that runs, or with what it left: one file for each kind of command.

`register` gives all of them to the command line.
"""

import typer

from swapferry.commands import asking, fsck, letters, looking, rebuild


def register(app: typer.Typer) -> None:
    """Add every command of this package."""
    for module in (looking, asking, letters, fsck, rebuild):
        module.register(app)
