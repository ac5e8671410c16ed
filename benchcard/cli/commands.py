"""The command group `benchcard`, its errors and exit statuses, and the commands that work on a run.

Leaves the commands that work on a published card to `hub`.
"""

from __future__ import annotations

import io
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from benchcard._version import __version__
from benchcard.cli import hub, jobs
from benchcard.cli.tables import cell, json_option, table, wide_option, write_json, write_text
from benchcard.errors import BenchcardError, SpecError
from benchcard.utils.files import reporting_disk_errors, write_bytes_atomically
from benchcard.utils.plain import as_plain
from benchcard.utils.text import pluralize, quote_names
from benchcard.utils.values import PHASES

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.analysis.run_results import RunResults
    from benchcard.metrics.info import FidelityLimit

BAD_SPEC = 2
NOT_COMPARED = 2
FAILED = 1
# A process that a signal ended has the status 128 plus the number of the signal, as in shells.
STOPPED = 128
_SIGPIPE = 13
_TABLES = click.Choice(["quality", "time", "models", "kernels", "noise", "files"])


class _Stopped(KeyboardInterrupt):
    """The process received a signal that asks it to end. The argument is the number of the signal."""


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP stop the block as Ctrl-C does, so that no child process is left behind."""
    is_main = threading.current_thread() is threading.main_thread()
    numbers = [number for number in signal.Signals if is_main and number.name in ("SIGTERM", "SIGHUP")]
    # A signal that is ignored, as under nohup, stays ignored.
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def stop(received: int, _frame: object) -> None:
        for number in numbers:
            # A second signal must not interrupt the clean-up of the child processes.
            signal.signal(number, signal.SIG_IGN)
        raise _Stopped(received)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class _Group(click.Group):
    """Commands that print errors without a traceback.

    The status is 2 for a mistake of the user, 1 for a failure, and 128 plus the number of a signal: 130 for Ctrl-C, 141
    for output whose reader has closed the pipe.
    """

    def invoke(self, context: click.Context) -> object:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A character that the encoding of a terminal lacks is shown as an escape.
                stream.reconfigure(errors="backslashreplace")
        try:
            with _signals():
                return super().invoke(context)
        except SpecError as error:
            if context.params.get("debug"):
                raise
            _print_error(f"{pluralize(len(error.mistakes), 'mistake')} in the spec:")
            for mistake in error.mistakes:
                hint = f" ({mistake.hint})" if mistake.hint else ""
                _print_error(f"  {mistake.place}: expected {mistake.expected}, found {mistake.found}{hint}")
            sys.exit(BAD_SPEC)
        except KeyboardInterrupt as error:
            number = signal.Signals(error.args[0] if isinstance(error, _Stopped) else signal.SIGINT)
            _print_error(f"stopped by {number.name}; run the same command again to continue")
            sys.exit(STOPPED + number)
        except BrokenPipeError:
            # The reader has closed the pipe, as in `benchcard show RUN | head`.
            sys.exit(STOPPED + _SIGPIPE)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if context.params.get("debug"):
                raise
            name = type(error).__name__
            if isinstance(error, BenchcardError):
                _print_error(f"{name}: {error}")
            else:
                _print_error(f"unexpected error, which is a bug of benchcard: {name}: {error}")
                _print_error("run again with `benchcard --debug ...` to see the traceback, and please report it")
            sys.exit(FAILED)
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None and not stream.closed:
                    _flush(stream)


def _flush(stream: IO[str]) -> None:
    """Flush a stream; discard its content if the reader has closed the pipe, so that Python does not fail at exit."""
    try:
        stream.flush()
    except OSError:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), stream.fileno())


def _print_error(line: str) -> None:
    """Print a line on standard error, unless it is closed."""
    with suppress(OSError, ValueError):
        click.echo(line, err=True)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="benchcard")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Benchmark quantized variants of a Hugging Face model, and publish the results as a model card."""


_grid_option = click.option("--grid", metavar="NAME", help="Use the rows of a preset, such as `recommended`.")
_budget_option = click.option(
    "--budget",
    metavar="TIME",
    help="Choose rows, examples and seconds of timing so that the run takes at most TIME, such as 10m.",
)


_out_option = click.option(
    "--out",
    "-o",
    "path",
    type=click.Path(path_type=Path),
    help="The run directory. A run that was stopped continues in it.  [default: under runs/]",
)
_timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    help="Stop a step, or a timed process, that does not respond for this many seconds.",
)


def _draft_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that give values of a drafted spec."""
    for option in (
        click.option("--task", help="What MODEL does.  [default: from its model card and files]"),
        click.option("--dataset-name", "name", help="The configuration of the data set."),
        click.option("--dataset", help="The data set to evaluate MODEL on.  [default: from its model card]"),
    ):
        command = option(command)
    return command


def _given(task: str | None, dataset: str | None, name: str | None) -> dict[str, Any]:
    """Return the arguments of a draft that the options give."""
    data = {key: value for key, value in (("path", dataset), ("name", name)) if value is not None}
    return {"dataset": data, "task": task}


def _absolute(name: str) -> str:
    """Return the absolute path of a file or folder; the name of anything else."""
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


@main.command()
@click.argument("model")
@_draft_options
@_grid_option
@_budget_option
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to this file.  [default: standard output]")
def init(model: str, output: Path | None, grid: str | None, budget: str | None, **given: str | None) -> None:
    """Draft a spec for MODEL, an id on the Hub or a folder, with a comment on where each value was taken from.

    An unknown value is left as a line to fill in.
    """
    from benchcard.drafting.draft import draft_spec

    if output is not None and output.parent.resolve() != Path.cwd():
        # Paths in a spec start at its folder.
        model, given["dataset"] = _absolute(model), given["dataset"] and _absolute(given["dataset"])
    draft = draft_spec(model, grid=grid, budget=budget, **_given(**given))
    if output is None:
        click.echo(draft.to_yaml(), nl=False)
    elif output.exists():
        raise BenchcardError(f"{output} exists. Give another file, or remove it")
    else:
        with reporting_disk_errors(output.parent):
            write_bytes_atomically(output, draft.to_yaml().encode())
        click.echo(f"spec: {output}")
    for place, choice in draft.missing.items():
        _print_error(f"fill in {place}: {choice.source}" + (f": {quote_names(choice.others)}" if choice.others else ""))


@main.command()
@click.argument("spec", type=click.Path(path_type=Path))
@_grid_option
@_budget_option
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV instead of a table.")
@json_option
@wide_option
def plan(spec: Path, grid: str | None, budget: str | None, as_csv: bool, as_json: bool, wide: bool) -> None:
    """Show the configurations of SPEC, the steps that they share and their cost. Nothing is run."""
    from benchcard.analysis.frames.columns import to_records
    from benchcard.benchmark import Benchmark
    from benchcard.run.budget import estimate
    from benchcard.spec.plan import unused_settings

    benchmark = Benchmark.from_spec(spec, grid=grid, budget=budget)
    configurations, frame = benchmark.within_budget(), benchmark.plan()
    if as_csv:
        click.echo(frame.to_csv(index=False), nl=False)
        return
    notes, expected = unused_settings(configurations), estimate(configurations)
    if as_json:
        timed_s = float(frame["timed_s"].sum())
        write_json({"rows": to_records(frame), "timed_s": timed_s, "expected_s": expected.total_s, "notes": notes})
        return
    table(frame, wide)
    for note in notes:
        write_text(f"note: {note}")
    rows = pluralize(len(frame), "configuration")
    write_text(f"{rows}: {expected}; rows with equal models take less")
    if not math.isnan(width := frame["expected_half_width"].max()):
        write_text(f"on a quiet machine, intervals of ratios will reach about {width:.1%} to either side")


@main.command()
@click.argument("spec", metavar="SPEC|MODEL")
@_draft_options
@_out_option
@_timeout_option
@_grid_option
@_budget_option
@hub.max_drop_option
@hub.fidelity_option
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
def run(
    spec: str,
    path: Path | None,
    timeout_s: float | None,
    grid: str | None,
    budget: str | None,
    max_drop: float | None,
    fidelity: FidelityLimit,
    quiet: bool,
    **given: str | None,
) -> None:
    """Run SPEC, or the steps of it that are not done, and write the card.

    SPEC is a YAML file. For a MODEL, an id on the Hub or a folder, the spec is drafted as by `benchcard init`, and
    written to `spec.yaml` in the run directory.
    """
    from benchcard.analysis.frames.failures import incomplete_rows
    from benchcard.benchmark import Benchmark
    from benchcard.metrics.info import write_limits
    from benchcard.run.directory import DRAFT

    if _is_spec(spec):
        if any(given.values()):
            raise click.UsageError("the options `--task`, `--dataset` and `--dataset-name` are for a MODEL")
        benchmark = Benchmark.from_spec(Path(spec), grid=grid, budget=budget)
    else:
        benchmark = Benchmark.for_model(spec, grid=grid, budget=budget, **_given(**given))
    results = benchmark.run(path, timeout_s=timeout_s, progress=not quiet)
    choices = results.choices(max_drop, fidelity)
    has_figures = any(choice.row is not None for choice in choices)
    # The card is written before any output, which fails if the reader has closed the pipe.
    card = results.card(max_drop=max_drop, fidelity=fidelity).save(results.path / "README.md") if has_figures else None
    for note in results.notes:
        write_text(f"note: {note}")
    _print_noise(results.noise)
    if card is None:
        click.echo(f"{choices[0]}: `benchcard show {results.path}`", err=True)
        sys.exit(FAILED)
    failed = len(incomplete_rows(results.records))
    if failed:
        click.echo(
            f"{failed} of {len(results.plan)} configurations {'lacks' if failed == 1 else 'lack'} figures: "
            f"`benchcard show {results.path}` shows why"
        )
    if not _is_spec(spec):
        write_text(f"spec: {results.path / DRAFT}")
    click.echo(f"card: {card}")
    for choice in choices:
        write_text(f"best: {choice}")
    if cheapest := results.cheapest(max_drop, fidelity):
        write_text(f"cheapest: {cheapest}")
    drop = "" if max_drop is None else f" --max-drop {max_drop:g}"
    drop += "".join(f" --fidelity {limit}" for limit in write_limits(fidelity))
    write_text(f"publish: benchcard push {shlex.quote(str(results.path))} YOUR-NAME/{benchmark.repository_name}{drop}")


@main.command()
@click.argument("model", metavar="REPO|FOLDER")
@_draft_options
@_out_option
@_timeout_option
@click.option("--duration", type=click.FloatRange(min=0), help="Seconds of timing for each file; 0 for none.")
@hub.max_drop_option
@click.option("--push", "repo_id", metavar="REPO_ID", help="Push the table and the figures as a section of its README.")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV instead of a table.")
@json_option
@wide_option
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
def audit(
    model: str,
    path: Path | None,
    timeout_s: float | None,
    duration: float | None,
    max_drop: float | None,
    repo_id: str | None,
    as_csv: bool,
    as_json: bool,
    wide: bool,
    quiet: bool,
    **given: str | None,
) -> None:
    """Say of every ONNX file of a model whether it loads, how good, faithful and fast it is, and what it is good for.

    The files of a repository on the Hub or of a folder are evaluated on one data set, and compared with the float graph
    among them, else with PyTorch. Status 1: a file is broken.
    """
    from benchcard.analysis.files import evaluated_examples
    from benchcard.analysis.frames.columns import to_records
    from benchcard.analysis.verdict import BROKEN
    from benchcard.benchmark import Benchmark

    parameters = _given(**given) if duration is None else {**_given(**given), "duration": duration}
    results = Benchmark.audit(model, **parameters).run(path, timeout_s=timeout_s, progress=not quiet)
    frame = results.files(max_drop)
    if as_csv:
        click.echo(frame.to_csv(index=False), nl=False)
    elif as_json:
        examples = as_plain(evaluated_examples(results.records))
        write_json({"files": to_records(frame), "examples": examples, "notes": list(results.notes)})
    else:
        _print_files(results, frame, wide)
        for note in results.notes:
            write_text(f"note: {note}")
        _print_noise(results.noise)
    aside = as_csv or as_json
    counts = frame["verdict"].value_counts()
    click.echo(", ".join(f"{count} {verdict}" for verdict, count in counts.items()), err=aside)
    click.echo(f"run: {results.path}", err=aside)
    if repo_id is not None:
        click.echo(results.push_to_hub(repo_id, artifacts="none", max_drop=max_drop), err=aside)
    if BROKEN in counts:
        sys.exit(FAILED)


def _print_files(results: RunResults, files: pd.DataFrame, wide: bool) -> None:
    """Write the table of audited files, what they were evaluated on, and the reasons of verdicts."""
    from benchcard.analysis.files import evaluated_examples

    table(files.drop(columns="why"), wide)
    write_text(f"evaluated on {evaluated_examples(results.records) or 'nothing'}")
    for file in files.dropna(subset="why").to_dict("records"):
        write_text(f"{file['file']} is {file['verdict']}: {file['why']}")


@main.command()
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--csv", "frame_name", type=_TABLES, help="Write one table as CSV.")
@json_option
@wide_option
@click.option("--explain", "row", type=int, help="Explain the results of a row.")
@hub.max_drop_option
@hub.fidelity_option
def show(
    path: Path,
    frame_name: str | None,
    as_json: bool,
    wide: bool,
    row: int | None,
    max_drop: float | None,
    fidelity: FidelityLimit,
) -> None:
    """Show the results in the run directory RUN."""
    from benchcard.results import Results

    results = Results.load(path)
    if row is not None:
        write_text(results.explain(row))
    elif frame_name:
        frame = results.files(max_drop) if frame_name == "files" else getattr(results, frame_name)
        click.echo(frame.to_csv(index=False), nl=False)
    elif as_json:
        write_json(results.to_json(max_drop, fidelity))
    else:
        if not (files := results.files(max_drop)).empty:
            click.echo("\nFiles")
            _print_files(results, files, wide)
        click.echo("\nQuality")
        printed = table(results.quality, wide)
        click.echo("\nTime")
        table(results.time, wide, printed)
        for note in results.notes:
            write_text(f"note: {note}")
        _print_noise(results.noise)
        for failure in results.failures.to_dict("records"):
            place = f"row {failure['row']}, {failure['missing']}: {failure['stage']}"
            write_text(f"{place}: {failure['type']}: {failure['message']}")
        for choice in results.choices(max_drop, fidelity):
            write_text(f"\nbest: {choice.explain()}")
        if cheapest := results.cheapest(max_drop, fidelity):
            write_text(f"\ncheapest: {cheapest}")


@main.command()
@click.argument("one", metavar="A", type=click.Path(path_type=Path))
@click.argument("other", metavar="B", type=click.Path(path_type=Path))
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV instead of a table.")
@json_option
@wide_option
@click.option("--quality-only", is_flag=True, help="Do not compare times.")
@click.option("--across-machines", is_flag=True, help="Compare times of runs on different machines.")
@click.option("--trust-remote-code", is_flag=True, help="Run the metric scripts and task files that A and B name.")
def compare(
    one: Path,
    other: Path,
    as_csv: bool,
    as_json: bool,
    wide: bool,
    quality_only: bool,
    across_machines: bool,
    trust_remote_code: bool,
) -> None:
    """Compare the run directory B with the earlier A, row by row.

    Status 1: a figure got worse by more than its interval; 2: the runs cannot be compared, or no figure of them can.
    """
    from benchcard.results import Results

    try:
        comparison = Results.load(one).compare(
            Results.load(other),
            across_machines=across_machines,
            times=not quality_only,
            trust_remote_code=trust_remote_code,
        )
    except BenchcardError as error:
        # Not 1, which means that something got worse: a CI job must be able to tell the two apart.
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(NOT_COMPARED)
    if as_csv:
        click.echo(comparison.frame.to_csv(index=False), nl=False)
    elif as_json:
        write_json(comparison.to_json())
    else:
        table(comparison.frame, wide)
        for note in comparison.notes:
            write_text(f"note: {note}")
    figures, compared, worse = map(len, (comparison.frame, comparison.compared, comparison.worse))
    aside = as_csv or as_json
    if not compared:
        click.echo(f"none of {figures} figures can be compared: the column `verdict` says why", err=aside)
        sys.exit(NOT_COMPARED)
    summary = f"{worse} of {compared} compared figures got worse" if worse else "nothing got worse"
    click.echo(summary if compared == figures else f"{summary} ({figures - compared} have no verdict)", err=aside)
    if worse:
        sys.exit(FAILED)


@main.command("card")
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--layout", default="full", show_default=True, help="The layout of the card.")
@hub.max_drop_option
@hub.fidelity_option
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Write to this file. The text of an existing README is kept.  [default: standard output]",
)
@click.option("--force", is_flag=True, help="Replace a section that was edited manually.")
def write_card(
    path: Path, layout: str, max_drop: float | None, fidelity: FidelityLimit, output: Path | None, force: bool
) -> None:
    """Write the card of the run directory RUN."""
    from benchcard.results import Results

    card = Results.load(path).card(layout, max_drop=max_drop, fidelity=fidelity)
    if output is None:
        click.echo(card.text, nl=False)
    else:
        click.echo(f"card: {card.save(output, force=force)}")


@main.command()
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), default="report.html", show_default=True)
@hub.max_drop_option
@hub.fidelity_option
def report(path: Path, output: Path, max_drop: float | None, fidelity: FidelityLimit) -> None:
    """Write the results in the run directory RUN as one HTML file, with a table to sort and a plot."""
    from benchcard.results import Results

    click.echo(f"report: {Results.load(path).report(output, max_drop, fidelity)}")


@main.command()
@json_option
def machine(as_json: bool) -> None:
    """Show the properties of this machine that results depend on."""
    from benchcard.measure import machine as this_machine

    facts = {**as_plain(this_machine.this_machine()), "versions": this_machine.versions()}
    if as_json:
        write_json(facts)
        return
    for name, value in facts.items():
        if name == "int8":
            value = this_machine.this_machine().int8.advice
        elif isinstance(value, dict):
            value = ", ".join(f"{library} {version}" for library, version in value.items())
        elif isinstance(value, list):
            value = ", ".join(value)
        elif name.endswith("_bytes"):
            name, value = name.removesuffix("_bytes"), f"{value / 1e9:.1f} GB"
        elif value is None:
            value = "none"
        click.echo(f"{name.replace('_', ' '):>15}  {value}")


def _is_spec(name: str) -> bool:
    """Return whether an argument is the path of a spec; else it names a model."""
    return Path(name).is_file() or Path(name).suffix in (".yaml", ".yml")


def _print_noise(frame: pd.DataFrame) -> None:
    """Print the noise of each group of measurements, and its warnings."""
    has_several = frame["baseline"].nunique() > 1
    for noise in frame.to_dict("records"):
        length = f", length {cell(noise['input_length'])}" if cell(noise["input_length"]) else ""
        phase = noise.get("phase")
        words = f", {PHASES.get(phase, phase)}" if isinstance(phase, str) else ""
        group = f"batch size {noise['batch_size']}{length}{words}:"
        row = f", row {noise['baseline']}" if has_several and cell(noise["baseline"]) else ""
        if cell(noise["ratio"]):
            ratio, cpu_ratio = (_with_bounds(noise, name) for name in ("ratio", "cpu_ratio"))
            by_cpu = f", and {cpu_ratio} by processor time" if cpu_ratio else ""
            text = f"the baseline{row}, timed twice, is {ratio} times as fast as itself{by_cpu}"
        elif cell(noise["baseline"]):
            text = f"the baseline{row}{',' if row else ''} was not timed twice, and so has no noise floor"
        else:
            text = "no baseline was timed twice, and so there is no noise floor"
        write_text(f"noise, {group} {text}")
        if noise["warnings"]:
            write_text(f"warning, {group} {noise['warnings']}")


def _with_bounds(columns: Mapping[Hashable, object], name: str) -> str:
    """Return a figure of a row of a frame with its interval, as text; empty where there is none."""
    value, low, high = (cell(columns[column]) for column in (name, f"{name}_low", f"{name}_high"))
    return value and value + (f" [{low}, {high}]" if low and high else " (too few launches for an interval)")


for _command in (hub.push, hub.read, hub.verify, hub.gallery, jobs.status, jobs.logs, jobs.stop):
    main.add_command(_command)


if __name__ == "__main__":
    main()
