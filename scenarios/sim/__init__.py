"""Time in a bottle: the real nodes, actors, codec and pages in a world whose time, network, disks and crashes come from one seed."""
