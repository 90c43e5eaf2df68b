"""Time in a bottle: what the actors of a run heard and decided, written to a file and decided again from it."""
