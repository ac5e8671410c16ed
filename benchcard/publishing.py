"""Results on the Hub: everything written to disk first, then one commit.

Owns the order of a push. Leaves what is sent to `bundle`, how a section comes into somebody's README to `card.merge`,
and the commit to `hub`.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from benchcard import bundle, hub
from benchcard.card import check, yamltext
from benchcard.card.hubterms import is_hub_id
from benchcard.card.merge import expect_slug, merge
from benchcard.errors import CardError, HubError
from benchcard.hub_faults import Patience
from benchcard.hub_files import Pushed
from benchcard.weights import Artifacts

if TYPE_CHECKING:
    from benchcard.results import Results

PUBLISH = "publish"
# Endings of the weights that libraries read, and what has such an ending and is none. A push brings graphs alone, which
# these libraries read.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".keras", ".msgpack", ".gguf", ".nemo", ".pb")
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state")
_OF_GRAPHS = ("onnx", "onnxruntime", "optimum", "transformers.js")


def push_to_hub(
    results: Results,
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
    patience: Patience | None = None,
) -> Pushed:
    """What the Hub holds after one commit with the card, the figures behind it and the chosen models.

    See `Results.push_to_hub`, whose arguments these are.
    """
    if repo_id.count("/") != 1 or not is_hub_id(repo_id):
        raise HubError(f"a repository is `namespace/name`, found {repo_id!r}")
    if all(results.best(max_drop, baseline=baseline).row is None for baseline in results.baselines):
        raise CardError(f"no configuration has figures: `benchcard show {results.path}` says why")
    name = slug or bundle.slug_of(results)
    expect_slug(name)
    write = partial(
        bundle.write, results, repo_id=repo_id, slug=name, artifacts=artifacts, layout=layout, max_drop=max_drop
    )
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="benchcard-") as folder:
            made = write(Path(folder) / name, force=force)
            pushed = _push(
                repo_id, made, None, overwrite, create_pr, private, revision, token, endpoint, True, patience
            )
        sys.stdout.write(pushed.diff or "nothing would change\n")
        return pushed
    home = results.path / PUBLISH
    home.mkdir(exist_ok=True)
    made = write(home / name, force=force)
    try:
        return _push(repo_id, made, home, overwrite, create_pr, private, revision, token, endpoint, False, patience)
    except HubError as error:
        given = {"slug": slug, "layout": layout, "max-drop": max_drop, "revision": revision}
        again = _command(results.path, repo_id, artifacts, create_pr, private, force, overwrite, given)
        failure = f"{error}\nWhat was to be pushed lies in {home / name}; `{again}` goes on."
    raise HubError(failure)


def _command(
    path: Path,
    repo_id: str,
    artifacts: Artifacts,
    create_pr: bool | Literal["auto"],
    private: bool,
    force: bool,
    overwrite: Collection[str],
    given: Mapping[str, Any],
) -> str:
    """The command that goes on with a push: with all that it was given, or it would be another one."""
    rows = artifacts if isinstance(artifacts, str) else ",".join(map(str, artifacts))
    told = {"artifacts": None if rows == "best" else rows, **given}
    words = ["benchcard", "push", str(path), repo_id]
    words += [word for name, value in told.items() if value is not None for word in (f"--{name}", str(value))]
    words += [word for key in overwrite for word in ("--overwrite", key)]
    words += [] if create_pr == "auto" else ["--create-pr" if create_pr else "--no-create-pr"]
    words += [flag for flag, is_given in (("--public", not private), ("--force", force)) if is_given]
    return shlex.join(words)


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
    patience: Patience | None,
) -> Pushed:
    kept: list[str] = []
    pushed = hub.push(
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
        patience=patience,
        guard=made.guard,
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
    library = (yamltext.load(yamltext.split(made.card).yaml) or {}).get("library_name")
    names = [PurePosixPath(path).name for path in paths if path.endswith(_WEIGHTS)]
    is_fit = library in _OF_GRAPHS or any(not name.startswith(_NO_WEIGHTS) for name in names)
    unfit = () if is_fit else ("library_name",)
    merged = merge(before, made.card, made.slug, force=made.guard.force, overwrite=overwrite, without=unfit)
    kept[:] = merged.kept
    if merged.replaced and home is not None:
        (home / f"{made.slug}.replaced.md").write_text(merged.replaced + "\n", encoding="utf-8")
    refused = [problem for problem in check.check(merged.text) if problem.severity == "error"]
    if refused:
        said = "\n".join(str(problem) for problem in refused)
        raise CardError(f"the Hub would not take the README with this card in it, and nothing was sent:\n{said}")
    return merged.text
