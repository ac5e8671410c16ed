"""The entry point of the commands `benchcard` and `python -m benchcard`."""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    # Python puts the working directory first on the path, where a file may hide a package of the same name.
    try:
        if os.path.realpath(sys.path[0]) == os.path.realpath(os.curdir):
            del sys.path[0]
    except FileNotFoundError:
        # The working directory was deleted.
        del sys.path[0]


def main() -> None:
    """Run the command line. During its import, Ctrl-C ends the process without a traceback."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from benchcard.cli import commands

    if is_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    commands.main()


if __name__ == "__main__":
    main()
