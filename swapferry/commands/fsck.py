"""To come."""

import typer


def register(app: typer.Typer) -> None:
    """Add these commands."""
