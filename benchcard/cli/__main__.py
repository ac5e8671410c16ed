"""The entry point of `python -m benchcard.cli`."""

from benchcard.cli.commands import main

main()
