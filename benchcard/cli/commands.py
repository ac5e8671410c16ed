"""The command line: the same functions as in Python, and never a bare traceback."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from benchcard._version import __version__
from benchcard.cli import hub
from benchcard.cli.tables import brief, cell, table
from benchcard.errors import BenchcardError, SpecError
from benchcard.utils.text import pluralize

if TYPE_CHECKING:
    import pandas as pd


BAD_SPEC = 2
NOT_COMPARED = 2
FAILED = 1
# A process that a signal stopped ends with 128 and its number, as shells count it.
STOPPED = 128
_SIGPIPE = 13


class _Stopped(KeyboardInterrupt):
    """A request to end that came as a signal, wherever the program was."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def _signals() -> Iterator[None]:
    """A block in which SIGTERM and SIGHUP end what is at work as Ctrl-C does, so that no child is left behind."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    is_main = threading.current_thread() is threading.main_thread()
    # One that is ignored, as under nohup, stays so.
    numbers = [signal.Signals[name] for name in names if is_main]
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def stop(number: int, _frame: object) -> None:
        for each in numbers:
            # What ends the children is not to be ended itself.
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class _Group(click.Group):
    """Commands whose errors are told in words: status 2 for a mistake of the user's, 1 for what went wrong, and 128 and
    its number for a signal, as 130 for Ctrl-C and 141 for output that nobody reads any more.
    """

    def invoke(self, context: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # What the encoding of a terminal lacks is shown by its number.
                stream.reconfigure(errors="backslashreplace")
        try:
            with _signals():
                return super().invoke(context)
        except BenchcardError as error:
            if context.params.get("debug"):
                raise
            _tell(error)
        except KeyboardInterrupt as error:
            number = error.number if isinstance(error, _Stopped) else signal.SIGINT
            _say(f"stopped by {signal.Signals(number).name}; the same command goes on from here")
            sys.exit(STOPPED + number)
        except BrokenPipeError:
            # Whoever read our output has read enough, as in `benchcard show RUN | head`.
            sys.exit(STOPPED + _SIGPIPE)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if context.params.get("debug"):
                raise
            _say(f"benchcard failed in a way that it does not know: {type(error).__name__}: {error}")
            _say("run again with `benchcard --debug ...` to see where, and please report it")
            sys.exit(FAILED)
        finally:
            for stream in (sys.stdout, sys.stderr):
                _settle(stream)


def _settle(stream: IO[str] | None) -> None:
    """Empty a stream, into nothing where nobody reads it: Python would complain of that at its very end."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _say(line: str) -> None:
    """A line on standard error, if anybody reads it."""
    with suppress(OSError, ValueError):
        click.echo(line, err=True)


def _tell(error: BenchcardError) -> NoReturn:
    if isinstance(error, SpecError):
        _say(f"{pluralize(len(error.mistakes), 'mistake')} in the spec:")
        for mistake in error.mistakes:
            hint = f" ({mistake.hint})" if mistake.hint else ""
            _say(f"  {mistake.place}: expected {mistake.expected}, found {mistake.found}{hint}")
        sys.exit(BAD_SPEC)
    _say(f"{type(error).__name__}: {error}")
    sys.exit(FAILED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="benchcard")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Benchmark the quantized variants of a Hugging Face model, and publish numbers that can be believed."""


@main.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV instead of a table.")
def plan(spec: Path, as_csv: bool) -> None:
    """Show the rows that SPEC comes to, what they share and what they cost. Nothing is run."""
    from benchcard.benchmark import Benchmark
    from benchcard.spec.plan import unused_settings

    benchmark = Benchmark.from_spec(spec)
    frame = benchmark.plan()
    if as_csv:
        click.echo(frame.to_csv(index=False), nl=False)
        return
    table(frame)
    for note in unused_settings(benchmark.configurations):
        click.echo(f"note: {note}")
    rows = pluralize(len(frame), "configuration")
    click.echo(f"{rows}, {frame['timed_s'].sum():g} s of timing at the most, and what it takes to open models")


@main.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--out",
    "-o",
    "path",
    type=click.Path(path_type=Path),
    help="The run directory; the same one again goes on where it was.  [default: under runs/]",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop a step, or a process that is timed, that gives no answer for so many seconds.",
)
@hub.max_drop_option
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
def run(spec: Path, path: Path | None, timeout_s: float | None, max_drop: float | None, quiet: bool) -> None:
    """Run SPEC, or what is left of it, and write the card."""
    from benchcard.analysis.frames.failures import incomplete_rows
    from benchcard.benchmark import Benchmark

    benchmark = Benchmark.from_spec(spec)
    results = benchmark.run(path, timeout_s=timeout_s, progress=not quiet)
    choices = results.choices(max_drop)
    is_whole = any(choice.row is not None for choice in choices)
    # Before anything is shown: whoever reads that may have read enough.
    card = results.card(max_drop=max_drop).save(results.path / "README.md") if is_whole else None
    for note in results.notes:
        click.echo(f"note: {note}")
    _certificate(results.noise)
    if card is None:
        click.echo(f"{choices[0]}: `benchcard show {results.path}`", err=True)
        sys.exit(FAILED)
    failed = len(incomplete_rows(results.failures))
    if failed:
        click.echo(
            f"{failed} of {len(results.plan)} configurations {'lacks' if failed == 1 else 'lack'} figures: "
            f"`benchcard show {results.path}` says why"
        )
    click.echo(f"card: {card}")
    for choice in choices:
        click.echo(f"best: {choice}")


@main.command()
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--csv",
    "which",
    type=click.Choice(["quality", "time", "models", "kernels", "noise"]),
    help="Write one frame as CSV.",
)
@click.option("--json", "as_json", is_flag=True, help="Write the frames of --csv as JSON.")
@click.option("--explain", "row", type=int, help="Say why a row is as it is.")
@hub.max_drop_option
def show(path: Path, which: str | None, as_json: bool, row: int | None, max_drop: float | None) -> None:
    """Show the results in the run directory RUN."""
    import json

    from benchcard.analysis.compare import list_values
    from benchcard.results import Results

    results = Results.load(path)
    if row is not None:
        click.echo(results.explain(row))
    elif which:
        click.echo(getattr(results, which).to_csv(index=False), nl=False)
    elif as_json:
        click.echo(json.dumps(results.to_json(), indent=1, ensure_ascii=False))
    else:
        for title, frame in (("Quality", results.quality), ("Time", results.time)):
            click.echo(f"\n{title}")
            table(brief(frame, ["framework_args"]))
        if "framework_args" in results.quality:
            click.echo(list_values(results.quality, "framework_args"))
        for note in results.notes:
            click.echo(f"note: {note}")
        _certificate(results.noise)
        for failure in results.failures.to_dict("records"):
            click.echo(
                f"row {failure['row']}, {failure['missing']}: {failure['stage']}: "
                f"{failure['type']}: {failure['message']}"
            )
        for choice in results.choices(max_drop):
            click.echo(f"\nbest: {choice.explain()}")


@main.command()
@click.argument("one", metavar="A", type=click.Path(path_type=Path))
@click.argument("other", metavar="B", type=click.Path(path_type=Path))
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV instead of a table.")
@click.option("--quality-only", is_flag=True, help="Compare no times.")
@click.option("--across-machines", is_flag=True, help="Compare times although the runs are of two machines.")
@click.option("--trust-remote-code", is_flag=True, help="Run the scripts of metrics that A and B name.")
def compare(
    one: Path, other: Path, as_csv: bool, quality_only: bool, across_machines: bool, trust_remote_code: bool
) -> None:
    """Compare the run directory B with the earlier A, row by row. Status 1 if something got worse by more than its
    interval, 2 if they cannot be compared.
    """
    from benchcard.results import Results

    try:
        found = Results.load(one).compare(
            Results.load(other),
            across_machines=across_machines,
            times=not quality_only,
            trust_remote_code=trust_remote_code,
        )
    except BenchcardError as error:
        # 1 is for what got worse: a check in a CI must be able to tell the two apart
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(NOT_COMPARED)
    if as_csv:
        click.echo(found.frame.to_csv(index=False), nl=False)
    else:
        frame, told = found.brief()
        table(brief(frame, []))
        for line in told:
            click.echo(line)
        for note in found.notes:
            click.echo(f"note: {note}")
    worse = len(found.worse)
    click.echo(f"{worse} of {len(found.frame)} figures got worse" if worse else "nothing got worse", err=as_csv)
    if worse:
        sys.exit(FAILED)


@main.command()
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--layout", default="full", show_default=True, help="The layout of the card.")
@hub.max_drop_option
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Write to this file; a README that is there keeps its text.  [default: standard output]",
)
@click.option("--force", is_flag=True, help="Replace a section that was edited by hand.")
def card(path: Path, layout: str, max_drop: float | None, output: Path | None, force: bool) -> None:
    """Write the card of the run directory RUN."""
    from benchcard.results import Results

    made = Results.load(path).card(layout, max_drop=max_drop)
    if output is None:
        click.echo(made.text, nl=False)
    else:
        click.echo(f"card: {made.save(output, force=force)}")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def machine(as_json: bool) -> None:
    """Show this machine, as far as numbers depend on it."""
    import json

    from benchcard.measure import machine as here

    told = {**here.describe(), "versions": here.versions()}
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return
    for name, value in told.items():
        if name == "int8":
            value = here.int8_in_words(value)
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {each}" for key, each in value.items())
        elif isinstance(value, list):
            value = ", ".join(value)
        elif name.endswith("_bytes"):
            name, value = name.removesuffix("_bytes"), f"{value / 1e9:.1f} GB"
        click.echo(f"{name.replace('_', ' '):>15}  {value}")


def _certificate(frame: pd.DataFrame) -> None:
    """The noise certificate in words, a line a group, and what disturbed it."""
    several = frame["baseline"].nunique() > 1
    for noise in frame.to_dict("records"):
        length = f", length {cell(noise['input_length'])}" if cell(noise["input_length"]) else ""
        where = f"noise, batch size {noise['batch_size']}{length}:"
        which = f", row {noise['baseline']}" if several and cell(noise["baseline"]) else ""
        if cell(noise["ratio"]):
            ratio, low, high = (cell(noise[name]) for name in ("ratio", "ratio_low", "ratio_high"))
            bounds = f" [{low}, {high}]" if low and high else ", in too few launches for an interval,"
            click.echo(f"{where} the baseline{which}, timed twice, is {ratio}{bounds} times as fast as itself")
        elif cell(noise["baseline"]):
            which += "," if which else ""
            click.echo(f"{where} the baseline{which} was not timed twice, and so has no noise floor")
        else:
            click.echo(f"{where} there is no baseline that was timed twice, and so no noise floor")
        if noise["warnings"]:
            click.echo(f"warning, batch size {noise['batch_size']}{length}: {noise['warnings']}")


for _command in (hub.push, hub.read, hub.verify):
    main.add_command(_command)


if __name__ == "__main__":
    main()
