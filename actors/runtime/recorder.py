"""Who keeps what the actors of a node hear and decide. Here nobody does; `scenarios.recording` writes it to a file.

A turn is told before it is stored, and told again by its actor's address when it is: so a crash between the two leaves a
decision of which the next load of the record shows whether it counted.
"""

from collections.abc import Sequence

from actors.runtime.actor import Decision, Heard, Record


class Recorder:
    """Told of everything that a node's decisions are made of. Must not raise, and must not keep anybody waiting."""

    def loaded(self, actor: str, record: Record) -> None:
        """An actor begins (again) with this record."""

    def decided(self, actor: str, heard: Heard, decision: Decision) -> None:
        """An actor came to a decision, which is not stored yet. An actor has at most one of these."""

    def failed(self, actor: str, heard: Heard, error: Exception) -> None:
        """A decision could not be made; what is known stays as it was."""

    def stored(self, actors: Sequence[str]) -> None:
        """The decisions of these actors are durable."""

    def retired(self, actor: str) -> None:
        """An actor ended for good; what it knows is forgotten."""


NOBODY = Recorder()
