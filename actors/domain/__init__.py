"""Pure values and rules: rights on slots, lifecycles, the sharing table. No I/O, no clock, no random."""
