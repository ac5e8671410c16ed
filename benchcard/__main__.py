"""`benchcard`, and `python -m benchcard`, for where its script is not on the path: the command line."""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    # Python puts the working directory first, where a file may hide a package of its name.
    try:
        if os.path.realpath(sys.path[0]) == os.path.realpath(os.curdir):
            del sys.path[0]
    except FileNotFoundError:
        # The working directory was removed, and nothing can be imported from it.
        del sys.path[0]


def main() -> None:
    """Run the command line. Until it can answer Ctrl-C in words, Ctrl-C ends the process without any."""
    is_answered = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_answered:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from benchcard.cli import commands

    if is_answered:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    commands.main()


if __name__ == "__main__":
    main()
