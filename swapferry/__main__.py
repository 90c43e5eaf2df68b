"""`python -m swapferry` is the command `swapferry`."""

from swapferry.cli import main

main()
