"""A push of results to the Hub: everything is written to disk first, then sent as one commit.

This module owns the options and the order of a push. The content is left to `bundle`, the place of a section in a
README to `card.readme`, and the commit to `hub`.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

import click
from huggingface_hub.constants import ENDPOINT

from benchcard.analysis.run_results import RunResults
from benchcard.card.frontmatter import check, yaml
from benchcard.card.readme import Merged, expect_slug, merge
from benchcard.errors import CardError, HubError
from benchcard.hub import push, repository
from benchcard.hub.faults import RetryPolicy
from benchcard.hub.files import Pushed
from benchcard.metrics.info import FidelityLimit, write_limits
from benchcard.publishing.bundle import Bundle, write_bundle
from benchcard.publishing.facts import default_slug
from benchcard.publishing.weights import Artifacts, without_model
from benchcard.utils.files import reporting_disk_errors
from benchcard.utils.text import is_hub_id

PUBLISH = "publish"
_COPY = "copy the run directory to where it can be written, and push the copy"
# The suffixes of weights that libraries load, and the files with such a suffix that are no weights.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".keras", ".msgpack", ".gguf", ".nemo", ".pb")
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng_state")
# The libraries that load ONNX graphs, the only weights of a push.
_ONNX_LIBRARIES = ("onnx", "onnxruntime", "optimum", "transformers.js")


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """The options of a push, as `Results.push_to_hub` describes them."""

    create_pr: bool | Literal["auto"] = "auto"
    private: bool = True
    artifacts: Artifacts = "best"
    dry_run: bool = False
    token: str | bool | None = None
    slug: str | None = None
    layout: str | None = None
    max_drop: float | None = None
    fidelity: FidelityLimit = None
    force: bool = False
    prune: bool = False
    overwrite: Collection[str] = ()
    revision: str | None = None
    endpoint: str | None = None
    patience: RetryPolicy | None = None

    def as_command(self, path: Path, repo_id: str) -> str:
        """Return the shell command of the same push, without the token. Another endpoint is set by `HF_ENDPOINT`."""
        words = ["benchcard", "push", str(path), repo_id]
        if self.artifacts != "best":
            rows = self.artifacts if isinstance(self.artifacts, str) else ",".join(map(str, self.artifacts)) or "none"
            words += ["--artifacts", rows]
        for name in ("slug", "layout", "max_drop", "revision"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name.replace('_', '-')}", str(value)]
        for limit in write_limits(self.fidelity):
            words += ["--fidelity", limit]
        for key in self.overwrite:
            words += ["--overwrite", key]
        flags = {
            "--create-pr": self.create_pr is True,
            "--no-create-pr": self.create_pr is False,
            "--public": not self.private,
            "--force": self.force,
            "--prune": self.prune,
        }
        words += [flag for flag, is_set in flags.items() if is_set]
        if self.endpoint is None or self.endpoint.rstrip("/") == ENDPOINT:
            return shlex.join(words)
        parts = urlsplit(self.endpoint)
        # A user name and a password in the URL are as secret as a token.
        endpoint = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return f"HF_ENDPOINT={shlex.quote(endpoint)} {shlex.join(words)}"


def push_to_hub(results: RunResults, repo_id: str, options: PushOptions) -> Pushed:
    """Push the card, the figures behind it and the chosen models in one commit; see `Results.push_to_hub`."""
    if repo_id.count("/") != 1 or not is_hub_id(repo_id):
        raise HubError(f"a repository is `namespace/name`, found {repo_id!r}")
    if all(choice.row is None for choice in results.choices(options.max_drop, options.fidelity)):
        raise CardError(f"no configuration has figures: `benchcard show {results.path}` says why")
    slug = options.slug or default_slug(results)
    expect_slug(slug)
    warnings = _weights_warnings(results, options)

    def write(folder: Path) -> Bundle:
        return write_bundle(
            results,
            folder / slug,
            repo_id,
            slug=slug,
            artifacts=options.artifacts,
            layout=options.layout,
            max_drop=options.max_drop,
            fidelity=options.fidelity,
            force=options.force,
            prune=options.prune,
        )

    if options.dry_run:
        temporary = Path(tempfile.gettempdir())
        with reporting_disk_errors(temporary, "set TMPDIR"), tempfile.TemporaryDirectory(prefix="benchcard-") as folder:
            pushed = _commit(repo_id, write(Path(folder)), None, options, warnings)
        click.echo(pushed.diff or "nothing would change\n", nl=False)
        return pushed
    home = results.path / PUBLISH
    with reporting_disk_errors(home, _COPY):
        home.mkdir(exist_ok=True)
        bundle = write(home)
    try:
        return _commit(repo_id, bundle, home, options, warnings)
    except HubError as error:
        # A pull request needs a repository, which only a push without one creates.
        has_repository = not isinstance(error, repository.NoRepositoryError)
        retry = options if has_repository or options.create_pr is not True else replace(options, create_pr="auto")
        token = "" if options.token in (None, True) else ", with the token of `hf auth login` or HF_TOKEN"
        command = retry.as_command(results.path, repo_id)
        message = f"{error}\nThe files to push are in {home / slug}; `{command}` goes on{token}."
    # Raised outside of the handler, so that the traceback does not show the first error too.
    raise HubError(message)


def _weights_warnings(results: RunResults, options: PushOptions) -> list[str]:
    """Return a warning if the best row is to be pushed and has no weights."""
    if options.artifacts != "best":
        return []
    choices = results.choices(options.max_drop, options.fidelity)
    best = choices[0].row
    reason = choices[0].reason if best is None else without_model(results, best)
    rows = [choice.row for choice in choices if choice.row is not None and without_model(results, choice.row) is None]
    hint = f"; `artifacts` takes rows, as {', '.join(map(str, rows))}" if rows else ""
    return [f"no weights pushed: {reason}{hint}"] if reason else []


def _commit(repo_id: str, bundle: Bundle, home: Path | None, options: PushOptions, warnings: list[str]) -> Pushed:
    """Commit a bundle; a section that it replaces is kept in `home`, if that is given."""
    kept_keys: Collection[str] = ()

    def merge_readme(readme: str | None, paths: Collection[str]) -> str:
        nonlocal kept_keys
        merged = _merge(readme, paths, repo_id, bundle, options.overwrite)
        kept_keys = merged.kept
        if merged.replaced and home is not None:
            with reporting_disk_errors(home, _COPY):
                (home / f"{bundle.slug}.replaced.md").write_text(merged.replaced + "\n", encoding="utf-8")
        return merged.text

    pushed = push.push(
        repo_id,
        bundle.files,
        merge_readme,
        private=options.private,
        create_pr=options.create_pr,
        revision=options.revision,
        token=options.token,
        endpoint=options.endpoint,
        dry_run=options.dry_run,
        commit_message=f"publish {bundle.slug}",
        retry_policy=options.patience,
        overwrite_policy=bundle.guard,
    )
    kept = [f"{key} has another value there than on the card, and was left as it is" for key in kept_keys]
    return replace(pushed, warnings=(*pushed.warnings, *kept, *warnings))


def _merge(
    readme: str | None, paths: Collection[str], repo_id: str, bundle: Bundle, overwrite: Collection[str]
) -> Merged:
    """Return the README with the card's section in it; a new README gets a title.

    The card's `library_name` is left out where the repository, with files at `paths`, has no weights that the library
    could load: the Hub would show code that fails.
    """
    before = f"# {repo_id.split('/')[1]}\n" if readme is None else readme
    library = (yaml.load_yaml(yaml.split_card(bundle.card).yaml) or {}).get("library_name")
    names = [PurePosixPath(path).name for path in paths if path.endswith(_WEIGHTS)]
    loads = library in _ONNX_LIBRARIES or any(not name.startswith(_NO_WEIGHTS) for name in names)
    without = () if loads else ("library_name",)
    merged = merge(before, bundle.card, bundle.slug, force=bundle.guard.force, overwrite=overwrite, without=without)
    if refused := [str(problem) for problem in check.find_problems(merged.text) if problem.severity == "error"]:
        problems = "\n".join(refused)
        raise CardError(f"the Hub would refuse the README with this card in it. Nothing was sent:\n{problems}")
    return merged
