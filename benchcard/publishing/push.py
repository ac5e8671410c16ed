"""Results on the Hub: everything written to disk first, then one commit.

Owns the order of a push. Leaves what is sent to `bundle`, how a section comes into somebody's README to `card.merge`,
and the commit to `hub`.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import click
from huggingface_hub.constants import ENDPOINT

from benchcard.card.frontmatter import check, yaml
from benchcard.card.frontmatter.hubterms import is_hub_id
from benchcard.card.readme import expect_slug, merge
from benchcard.errors import CardError, HubError
from benchcard.hub import push, repository
from benchcard.hub.faults import RetryPolicy
from benchcard.hub.files import Pushed
from benchcard.publishing import bundle
from benchcard.publishing.weights import Artifacts, without_model
from benchcard.utils.files import reporting_disk_errors

if TYPE_CHECKING:
    from benchcard.analysis.run_results import RunResults


PUBLISH = "publish"
_COPY = "copy the run directory to where it can be written, and push the copy"
# Endings of the weights that libraries read, and what has such an ending and is none. A push brings graphs alone, which
# these libraries read.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".keras", ".msgpack", ".gguf", ".nemo", ".pb")
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state")
_OF_GRAPHS = ("onnx", "onnxruntime", "optimum", "transformers.js")


def push_to_hub(
    results: RunResults,
    repo_id: str,
    *,
    create_pr: bool | Literal["auto"] = "auto",
    private: bool = True,
    artifacts: Artifacts = "best",
    dry_run: bool = False,
    token: str | bool | None = None,
    slug: str | None = None,
    layout: str | None = None,
    max_drop: float | None = None,
    force: bool = False,
    overwrite: Collection[str] = (),
    revision: str | None = None,
    endpoint: str | None = None,
    patience: RetryPolicy | None = None,
) -> Pushed:
    """What the Hub holds after one commit with the card, the figures behind it and the chosen models.

    See `Results.push_to_hub`, whose arguments these are.
    """
    if repo_id.count("/") != 1 or not is_hub_id(repo_id):
        raise HubError(f"a repository is `namespace/name`, found {repo_id!r}")
    choices = results.choices(max_drop)
    chosen = [choice.row for choice in choices if choice.row is not None]
    if not chosen:
        raise CardError(f"no configuration has figures: `benchcard show {results.path}` says why")
    name = slug or bundle.slug_of(results)
    expect_slug(name)
    told: list[str] = []
    if artifacts == "best":
        best = choices[0].row
        lacks = choices[0].reason if best is None else without_model(results, best)
        rows = ", ".join(str(row) for row in chosen if without_model(results, row) is None)
        if lacks:
            told.append(f"no weights pushed: {lacks}{f'; `artifacts` takes rows, as {rows}' if rows else ''}")
    write = partial(
        bundle.write_bundle, results, repo_id=repo_id, slug=name, artifacts=artifacts, layout=layout, max_drop=max_drop
    )
    if dry_run:
        temporary = Path(tempfile.gettempdir())
        with reporting_disk_errors(temporary, "set TMPDIR"), tempfile.TemporaryDirectory(prefix="benchcard-") as folder:
            made = write(Path(folder) / name, force=force)
            pushed = _push(
                repo_id, made, None, overwrite, create_pr, private, revision, token, endpoint, True, patience
            )
        click.echo(pushed.diff or "nothing would change\n", nl=False)
        return replace(pushed, warnings=(*pushed.warnings, *told))
    home = results.path / PUBLISH
    with reporting_disk_errors(home, _COPY):
        home.mkdir(exist_ok=True)
        made = write(home / name, force=force)
    try:
        pushed = _push(repo_id, made, home, overwrite, create_pr, private, revision, token, endpoint, False, patience)
        return replace(pushed, warnings=(*pushed.warnings, *told))
    except HubError as error:
        # Where there is no repository yet, a push without a pull request makes it.
        proposes = create_pr is True and not isinstance(error, repository.NoRepositoryError)
        options = [
            ("artifacts", None if artifacts == "best" else _rows(artifacts)),
            ("slug", slug),
            ("layout", layout),
            ("max-drop", max_drop),
            ("revision", revision),
            *(("overwrite", key) for key in overwrite),
            ("create-pr", proposes),
            ("no-create-pr", create_pr is False),
            ("public", not private),
            ("force", force),
        ]
        again = _command(["benchcard", "push", str(results.path), repo_id], options, endpoint)
        whose = ", with the token of `hf auth login` or HF_TOKEN" if token not in (None, True) else ""
        failure = f"{error}\nWhat was to be pushed lies in {home / name}; `{again}` goes on{whose}."
    raise HubError(failure)


def _rows(artifacts: Artifacts) -> str:
    """Which models are pushed, as the command takes it."""
    return artifacts if isinstance(artifacts, str) else ",".join(map(str, artifacts)) or "none"


def _command(words: Sequence[str], options: Iterable[tuple[str, Any]], endpoint: str | None) -> str:
    """The command that goes on with a push: with all that it was given but the token, or it would be another one.

    What is None or False is left out, and True is a flag. Another Hub than the default one is told by a variable.
    """
    told = list(words)
    for name, value in options:
        if value is not None and value is not False:
            told += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    if endpoint is None or endpoint.rstrip("/") == ENDPOINT:
        return shlex.join(told)
    parts = urlsplit(endpoint)
    # Without a name and password, which are as secret as a token.
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return f"HF_ENDPOINT={shlex.quote(shown)} {shlex.join(told)}"


def _push(
    repo_id: str,
    made: bundle.Bundle,
    home: Path | None,
    overwrite: Collection[str],
    create_pr: bool | Literal["auto"],
    private: bool,
    revision: str | None,
    token: str | bool | None,
    endpoint: str | None,
    dry_run: bool,
    patience: RetryPolicy | None,
) -> Pushed:
    kept: list[str] = []
    pushed = push.push(
        repo_id,
        made.files,
        partial(_merged, repo_id, made, home, overwrite, kept),
        create=True,
        private=private,
        create_pr=create_pr,
        revision=revision,
        token=token,
        endpoint=endpoint,
        dry_run=dry_run,
        commit_message=f"publish {made.slug}",
        retry_policy=patience,
        overwrite_policy=made.guard,
    )
    said = [f"{key} says something else there than the card, and was left as it is" for key in kept]
    return replace(pushed, warnings=(*pushed.warnings, *said))


def _merged(
    repo_id: str,
    made: bundle.Bundle,
    home: Path | None,
    overwrite: Collection[str],
    kept: list[str],
    readme: str | None,
    paths: Collection[str],
) -> str:
    """The README that is there with the card's section in it; a new one gets a title.

    The library of the model's own card is left out where the repository has no weights that it could load: the Hub
    would show lines that fail. `kept` becomes the keys of the front matter that stay as they are.

    Raises:
        CardError: it cannot be merged, or the Hub would not take what comes of it; every field is named.
    """
    before = f"# {repo_id.split('/')[1]}\n" if readme is None else readme
    library = (yaml.load_yaml(yaml.split_card(made.card).yaml) or {}).get("library_name")
    names = [PurePosixPath(path).name for path in paths if path.endswith(_WEIGHTS)]
    is_fit = library in _OF_GRAPHS or any(not name.startswith(_NO_WEIGHTS) for name in names)
    unfit = () if is_fit else ("library_name",)
    merged = merge(before, made.card, made.slug, force=made.guard.force, overwrite=overwrite, without=unfit)
    kept[:] = merged.kept
    if merged.replaced and home is not None:
        with reporting_disk_errors(home, _COPY):
            (home / f"{made.slug}.replaced.md").write_text(merged.replaced + "\n", encoding="utf-8")
    refused = [problem for problem in check.find_problems(merged.text) if problem.severity == "error"]
    if refused:
        said = "\n".join(str(problem) for problem in refused)
        raise CardError(f"the Hub would not take the README with this card in it, and nothing was sent:\n{said}")
    return merged.text
