"""Time in a bottle: the real nodes, actors, codec and pages in a world whose time, network, disks and crashes are one seed's."""
