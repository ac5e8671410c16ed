"""The commands that work on published cards: `push`, `read`, `verify` and `gallery`."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchcard.cli.tables import json_option, table, wide_option, write_json, write_text
from benchcard.spec.schema import Number
from benchcard.utils.text import pluralize

if TYPE_CHECKING:
    from benchcard.publishing.weights import Artifacts


def _check_drop(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    for mistake in () if value is None else Number(0).mistakes(value, ""):
        raise click.BadParameter(f"expected {mistake.expected}, found {mistake.found}")
    return value


max_drop_option = click.option(
    "--max-drop",
    type=float,
    callback=_check_drop,
    help="How much the metric that decides, mostly the first one, may drop for the best configuration.  [default: "
    "0.01, or 1 for a metric in %, or 0.05 nats]",
)


def _read_limits(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> float | dict[str, float] | None:
    """Return limits of fidelity by figure, or the one of the leading figure; None without limits."""
    limits: dict[str, float] = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            limits[name] = float(number)
        except ValueError:
            raise click.BadParameter(f"expected a number, or FIGURE=NUMBER as kl_mean=0.01; found {value}") from None
    if "" in limits:
        if len(values) > 1:
            raise click.BadParameter("expected one number, or FIGURE=NUMBER for each of several figures")
        return limits[""]
    return limits or None


fidelity_option = click.option(
    "--fidelity",
    metavar="[FIGURE=]LIMIT",
    multiple=True,
    callback=_read_limits,
    help="How far the outputs of the best configuration may be from the baseline's, as kl_mean=0.01; for several "
    "figures give the option several times. Without a name it is for the leading figure.",
)


@click.command()
@click.argument("path", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("repo_id", metavar="REPO_ID")
@click.option(
    "--artifacts", default="best", show_default=True, help="Models to publish: best, all, none, or rows such as 3,5."
)
@click.option("--create-pr/--no-create-pr", default=None, help="Open a pull request.  [default: where needed]")
@click.option("--public", is_flag=True, help="Make a new repository public.")
@click.option("--slug", help="The name of the section of the README.  [default: from the data set and the spec]")
@click.option("--layout", help="The layout of the card.")
@max_drop_option
@fidelity_option
@click.option("--force", is_flag=True, help="Replace a section that was edited manually, and models of other authors.")
@click.option("--prune", is_flag=True, help="Remove models of earlier pushes that are no longer chosen.")
@click.option("--overwrite", multiple=True, metavar="KEY", help="Replace the value of this key of the front matter.")
@click.option("--revision", help="The branch to push to.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")
def push(path: Path, repo_id: str, artifacts: str, create_pr: bool | None, public: bool, **others: Any) -> None:
    """Push the card, figures and chosen models of the run directory RUN to the model repository REPO_ID.

    The token is that of `hf auth login` or of the environment variable HF_TOKEN.
    """
    from benchcard.publishing.push import PushOptions, push_to_hub
    from benchcard.results import Results

    rows = _artifacts(artifacts)
    options = PushOptions(
        artifacts=rows, create_pr="auto" if create_pr is None else create_pr, private=not public, **others
    )
    pushed = push_to_hub(Results.load(path), repo_id, options)
    # Standard output has the changes of a dry run.
    click.echo(pushed, err=options.dry_run)


def _artifacts(text: str) -> Artifacts:
    """Return `best`, `all`, `none`, or the rows of a list such as `3,5`."""
    names: dict[str, Artifacts] = {"best": "best", "all": "all", "none": "none"}
    if text in names:
        return names[text]
    try:
        return [int(row) for row in text.split(",")]
    except ValueError:
        message = f"expected best, all, none, or rows such as 3,5; found {text}"
        raise click.BadParameter(message, param_hint="--artifacts") from None


@click.command()
@click.argument("card", metavar="CARD")
@click.option("--csv", "frame_name", type=click.Choice(["quality", "time", "plan"]), help="Write one table as CSV.")
@json_option
@wide_option
@click.option("--section", help="The section, if the README has several.")
def read(card: str, frame_name: str | None, as_json: bool, wide: bool, section: str | None) -> None:
    """Show the results in CARD: a file, a folder with a README.md, or a repository on the Hub."""
    from benchcard.results import Results

    results = Results.from_card(card, section)
    if frame_name:
        click.echo(getattr(results, frame_name).to_csv(index=False), nl=False)
        return
    if as_json:
        write_json(results.to_json())
        return
    click.echo("\nQuality")
    printed = table(results.quality, wide)
    click.echo("\nTime")
    table(results.time, wide, printed)
    for note in results.notes:
        write_text(f"note: {note}")


@click.command()
@click.argument("sources", metavar="ORG_OR_FOLDER...", nargs=-1, required=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), default="gallery.html", show_default=True)
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV instead of the page.")
def gallery(sources: tuple[str, ...], output: Path, as_csv: bool) -> None:
    """Write the figures of all cards of users, organizations, repositories or folders as one HTML file.

    A card that cannot be read is listed with the reason.
    """
    from benchcard.report.gallery import read_gallery

    cards = read_gallery(*sources)
    for place, reason in cards.unread.items():
        click.echo(f"not read: {place}: {reason}", err=True)
    if others := cards.without_card:
        click.echo(f"no card of benchcard: {pluralize(len(others), 'other README')}, as {others[0]}", err=True)
    if as_csv:
        click.echo(cards.frame.to_csv(index=False), nl=False)
    else:
        click.echo(f"gallery: {cards.report(output)}")


@click.command()
@click.argument("card", metavar="CARD")
@click.option("--out", "-o", "path", type=click.Path(path_type=Path), help="The run directory.  [default: under runs/]")
@click.option("--section", help="The section, if the README has several.")
@click.option("--model", help="The model, if it is no longer where CARD says.")
@click.option("--dataset", "data", help="The data set, if it is no longer where CARD says.")
@click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run code that CARD names: the code of a model, metric scripts, and files of tasks. Without this option the "
    "error names it.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV instead of a table.")
@json_option
@wide_option
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
def verify(
    card: str,
    path: Path | None,
    section: str | None,
    model: str | None,
    data: str | None,
    trust_remote_code: bool,
    as_csv: bool,
    as_json: bool,
    wide: bool,
    quiet: bool,
) -> None:
    """Run the rows of CARD on this machine, and show for each figure whether it is reproduced.

    Status 0: a figure is reproduced and none differs; 1: a figure differs, or the run failed; 2: a mistake in the spec;
    3: nothing can be compared.
    """
    from benchcard.benchmark import Benchmark
    from benchcard.reproduce import spec as card_spec
    from benchcard.reproduce import verify as card_verify
    from benchcard.results import Results
    from benchcard.sources import resolve

    published = Results.from_card(card, section)
    changes: dict[str, object] = {} if model is None else {"model": model}
    if data is not None:
        changes["dataset"] = {**published.spec.fixed.get("dataset", {}), "path": data}
    given = {name for name in (model, data) if name is not None}
    spec, notes = card_spec.spec_of(published, changes, trust_remote_code, given)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    for code in resolve.uninstalled_code(spec):
        click.echo(f"note: this runs {code}", err=True)
    card_spec.expect_here(published, spec, "give it as `--{name}`")
    benchmark = Benchmark.from_spec(spec)
    if path is None:
        # An existing run directory may be the one that the card was made from: its figures would only be repeated.
        first = benchmark.default_path
        others = (first.with_name(f"{first.name}-{number}") for number in itertools.count(2))
        path = next(candidate for candidate in itertools.chain([first], others) if not candidate.exists())
        click.echo(f"note: the run directory is {path}; the same command with `--out {path}` continues it", err=True)
    verification = card_verify.verify(published, benchmark.run(path, progress=not quiet), given)
    if as_csv:
        click.echo(verification.frame.to_csv(index=False), nl=False)
    elif as_json:
        write_json(verification.to_json())
    else:
        table(verification.frame, wide)
        for line in verification.ground:
            write_text(f"conditions: {line}")
        click.echo(str(verification))
    sys.exit(verification.status)
