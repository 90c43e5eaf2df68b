"""The program: command line, configuration, wiring."""
