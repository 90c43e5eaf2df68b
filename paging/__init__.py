"""Pages, slots, devices and guests of one host. Knows nothing of the bus, of sagas or of actors."""
