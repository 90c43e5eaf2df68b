"""Who decides: the actor runtime, the pure domain, the sagas and the four actors."""
