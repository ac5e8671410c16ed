"""Everything that a push sends, written to disk before the network is touched: a folder, whole or not at all.

    <run>/publish/<slug>/
    ├── card.md                          front matter and section, as they are merged into the README there
    └── repo/                            the other files, by their path in the repository
        ├── config.json …                the model's own, put only where the repository has none
        ├── onnx/model_quantized.onnx
        └── benchcard/<slug>/            results.csv, run.json, latencies.parquet, and the plot where the card has one

Owns what stands where in it. Leaves the models to `weights`, the card to `card_facts` and `card`, and the Hub to
`publishing`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.analysis import public_names
from benchcard.card import Card
from benchcard.card.paths import FOLDER, LATENCIES, RESULTS, RUN
from benchcard.errors import CardError
from benchcard.evaluation.rows import Rows
from benchcard.hub.files import make_upload
from benchcard.hub.overwrite import OverwritePolicy, manifest_entry
from benchcard.publishing import facts as card_facts
from benchcard.publishing import usage, weights
from benchcard.publishing.weights import Artifacts, Weights
from benchcard.utils.files import reporting_disk_errors

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.analysis.run_results import RunResults


CARD, REPOSITORY = "card.md", "repo"
FORMAT = 1


@dataclass(frozen=True)
class Bundle:
    """What a push sends.

    Attributes:
        slug: the name of its section and of its folder.
        card: the text of the card.
        files: the other files, by their path in the repository.
        guard: which of them do not replace what is there.
    """

    slug: str
    card: str
    files: Mapping[str, Path]
    guard: OverwritePolicy


def slug_of(results: RunResults) -> str:
    """The name of a run's section; see `card_facts.slug`."""
    return card_facts.slug(results)


def write_bundle(
    results: RunResults,
    folder: Path,
    repo_id: str,
    *,
    slug: str,
    artifacts: Artifacts = "best",
    layout: str | None = None,
    max_drop: float | None = None,
    force: bool = False,
) -> Bundle:
    """What a push of these results to `repo_id` sends, now in `folder`, which is replaced whole.

    Raises:
        BenchcardError: a row that was asked for has no model, or the disk refuses.
        CardError: the card would not be taken by the Hub; every field that is wrong is named.
    """
    models = weights.chosen_weights(results, artifacts, max_drop)
    draft = folder.with_name(f".{folder.name}.{os.urandom(4).hex()}")
    try:
        with reporting_disk_errors(folder.parent):
            written = _write(results, draft, repo_id, slug, models, layout, max_drop)
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    repository = folder / REPOSITORY
    files = {path.relative_to(repository).as_posix(): path for path in sorted(repository.rglob("*")) if path.is_file()}
    claimed = frozenset(name for name in files if name.startswith(f"{weights.FOLDER}/"))
    return Bundle(
        slug, written, files, OverwritePolicy(frozenset(weights.ROOT_FILES), claimed, f"{FOLDER}/{slug}/{RUN}", force)
    )


def _write(
    results: RunResults,
    draft: Path,
    repo_id: str,
    slug: str,
    models: tuple[Weights, ...],
    layout: str | None,
    max_drop: float | None,
) -> str:
    """The text of the card; it and all files lie in `draft` then."""
    repository, own = draft / REPOSITORY, draft / REPOSITORY / FOLDER / slug
    own.mkdir(parents=True)
    files: dict[str, dict[str, str]] = {}
    for model in models:
        for name in weights.write_weights(model, repository / weights.FOLDER):
            path = f"{weights.FOLDER}/{name}"
            files[path] = manifest_entry(make_upload(path, repository / path))
    root = weights.write_root(results, models, repository)
    _table(results).to_csv(own / RESULTS, index=False, lineterminator="\n")
    latencies(results).to_parquet(own / LATENCIES, index=False)
    told = json.dumps(run_json(results, models, files), indent=1, ensure_ascii=False, allow_nan=False)
    (own / RUN).write_text(told + "\n", encoding="utf-8")
    card = _card(results, repo_id, models, root, layout, slug, max_drop)
    for name, content in card.files.items():
        (repository / name).write_bytes(content)
    text = card.text
    (draft / CARD).write_bytes(text.encode("utf-8", "surrogateescape"))
    return text


def _card(
    results: RunResults,
    repo_id: str,
    models: tuple[Weights, ...],
    root: Sequence[str],
    layout: str | None,
    slug: str,
    max_drop: float | None,
) -> Card:
    """The card of the run with the way to load its models, its front matter as it is right for that repository."""
    facts = card_facts.facts(results, max_drop, slug)
    front = facts.front_matter
    original = front.base_model
    if original == repo_id:
        # A model is not made from itself.
        front = replace(front, base_model=None, base_model_relation=None)
    elif original is not None and any(model.quantized for model in models):
        front = replace(front, base_model_relation="quantized")
    untrue = {"onnx": not models, "quantized": not any(model.quantized for model in models)}
    front = replace(front, tags=tuple(tag for tag in front.tags if not untrue.get(tag)))
    front = replace(front, model_index=tuple(_at(entry, repo_id, slug) for entry in front.model_index))
    shown = replace(facts, front_matter=front)
    card = Card.from_facts(shown, slug=slug, **({} if layout is None else {"layout": layout}))
    refused = [problem for problem in card.problems() if problem.severity == "error"]
    if refused:
        raise CardError("the Hub would not take the card:\n" + "\n".join(str(problem) for problem in refused))
    said = usage.section(repo_id, results.spec.task, models, root, original, _context(results, models))
    own = f"{FOLDER}/{slug}"
    figures = (
        f"Every figure: [{RESULTS}]({own}/{RESULTS}). What was asked, of what, where, and with which versions: "
        f"[{RUN}]({own}/{RUN}). Every raw latency: [{LATENCIES}]({own}/{LATENCIES}).\n"
    )
    text = "\n\n".join(part.strip("\n") for part in (card.text, said, figures) if part) + "\n"
    return replace(card, text=text)


def _context(results: RunResults, models: tuple[Weights, ...]) -> Mapping[str, Any]:
    """Return what decided how the outputs of the first model were read; empty where they were not."""
    prepared = results.records.records[models[0].row].outcomes.prepare if models else None
    return Rows(prepared.folder).context if prepared else {}


def _at(entry: Mapping[str, Any], repo_id: str, slug: str) -> dict[str, Any]:
    """An entry of `model-index` whose source is what is published beside the card."""
    url = f"https://huggingface.co/{repo_id}/blob/main/{FOLDER}/{slug}/{RESULTS}"
    return {**entry, "results": [{**each, "source": {**each["source"], "url": url}} for each in entry["results"]]}


def _table(results: RunResults) -> pd.DataFrame:
    """One row per configuration and shape: parameters, quality, time, size; where nothing was timed, one per
    configuration.
    """
    import pandas as pd

    quality, models, time = results.quality, results.models, results.time
    sized = [name for name in ("row", "digest", "size_mb") if name in models]
    table = quality.merge(models[sized], on="row", how="left")
    timed = time.drop(columns=[name for name in results.spec.grid if name in time])
    timed = timed.drop(columns=[name for name in ("framework",) if name in timed])
    whole = table.merge(timed, on="row", how="left", suffixes=("", "_time"))
    texts = [str(name) for name in whole if not pd.api.types.is_numeric_dtype(whole[name].dtype)]
    return whole.assign(
        **{name: [public_names.public_value(results.records, cell, name) for cell in whole[name]] for name in texts}
    )


def latencies(results: RunResults) -> pd.DataFrame:
    """Every raw latency of the run: `row` (the first of those that share the model, and are timed alike), `batch_size`,
    `input_length`, `round`, `launch`, `place` of the block in its round, `twin` (the baseline's second process),
    `started_ns` of the block, `latency_ns` of one call.
    """
    import numpy as np
    import pandas as pd

    # A row that is timed in another way is another part's; a baseline stands in parts that are no row's, too.
    cells: dict[tuple[int | None, str], tuple[int, Any]] = {}
    for record in results.records.records:
        row = record.configuration.row
        for shape, cell in record.cells.items():
            for beside in (id(results.records.timed.get((row, shape))), None):
                cells.setdefault((beside, cell.name), (row, cell))
    columns: dict[str, list[Any]] = {
        name: []
        for name in ("row", "batch_size", "input_length", "round", "launch", "place", "twin", "started_ns", "calls")
    }
    values = []
    parts = {id(part): part for found in results.records.parts.values() for part in found}
    for part in parts.values():
        for timed in part.rounds:
            for place, block in enumerate(timed.blocks):
                found = cells.get((id(part), block.name)) or cells.get((None, block.name))
                if found is None:
                    continue
                row, cell = found
                size = (cell.shape.batch_size, cell.shape.input_length)
                told = (row, *size, timed.number, timed.launch, place, block.twin)
                for name, value in zip(columns, (*told, block.started_ns, len(block.latencies_ns))):
                    columns[name].append(value)
                values.append(block.latencies_ns)
    blocks = pd.DataFrame(columns).astype({"input_length": "Int64"})
    calls = blocks.pop("calls").to_numpy(dtype="int64")
    frame = blocks.loc[blocks.index.repeat(calls)].reset_index(drop=True)
    frame["latency_ns"] = np.concatenate(values) if values else np.empty(0, np.int64)
    return frame


def run_json(
    results: RunResults, models: tuple[Weights, ...], files: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """What `run.json` says: what was asked, of what, where, and every figure; no path of this machine."""
    info = results.records.info
    sources = {
        part: [
            {
                "local": source.local,
                "revision": source.revision,
                "digest": source.digest,
                "name": public_names.public_name(results.records, part, source.name),
            }
            for source in getattr(info.sources, part).values()
        ]
        for part in ("models", "datasets")
    }
    told = results.to_json()
    return {
        "format": FORMAT,
        "created": info.created,
        "spec": public_names.public_value(results.records, told.pop("spec")),
        "sources": sources,
        **public_names.public_value(results.records, told),
        "weights": [{"row": model.row, "path": model.path} for model in models],
        "files": dict(files),
    }
