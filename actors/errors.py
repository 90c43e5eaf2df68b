"""Failures by type (DESIGN 4): the type alone decides what the shell does."""


class ActorError(Exception):
    """Root of all errors of this package."""


class Defect(ActorError):
    """An actor met what must not be. Its turn is rolled back, the message is dead-lettered, its supervisor restarts it."""


class Malformed(ActorError):
    """A body that is not what its type says: dead-lettered with this sentence, the actor never sees it."""


class StoreError(ActorError):
    """The store cannot be opened or written: locked by another node, full, newer schema, broken. Names file and remedy."""
