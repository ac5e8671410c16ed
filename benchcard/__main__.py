"""`benchcard`, and `python -m benchcard`, for where its script is not on the path: the command line."""

import signal


def main() -> None:
    """Run the command line. Until it can answer Ctrl-C in words, Ctrl-C ends the process without any."""
    is_answered = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_answered:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from benchcard import cli

    if is_answered:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()


if __name__ == "__main__":
    main()
