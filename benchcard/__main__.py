"""`python -m benchcard`: the command line, for where its script is not on the path."""

import os
import sys

if __name__ == "__main__":
    # Python puts the working directory first, where a file may hide a package of its name.
    if sys.path and os.path.realpath(sys.path[0]) == os.path.realpath(os.curdir):
        del sys.path[0]
    from benchcard.cli import main

    main()
