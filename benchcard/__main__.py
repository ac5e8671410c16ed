"""`python -m benchcard`: the command line, for where its script is not on the path."""

from benchcard.cli import main

if __name__ == "__main__":
    main()
