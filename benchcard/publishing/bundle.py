"""Everything that a push sends, written to disk before the network is used: a folder, complete or not there.

    <run>/publish/<slug>/
    ├── card.md                          front matter and section, as they are merged into the README of the repository
    └── repo/                            the other files, by their path in the repository
        ├── config.json …                the model's own, sent only where the repository has none
        ├── onnx/model_quantized.onnx
        └── benchcard/<slug>/            results.csv, run.json, latencies.parquet, and the plot where the card has one

This module owns the layout of the folder. The models are left to `weights`, the card to `facts` and `card`, and sending
the files to `push`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchcard.analysis import public_names
from benchcard.analysis.frames.columns import shape_columns
from benchcard.analysis.run_results import FRAMES, RunResults
from benchcard.card import Card, Facts
from benchcard.card.facts import Plain
from benchcard.card.layouts import full_tables
from benchcard.card.paths import FOLDER, LATENCIES, RESULTS, RUN
from benchcard.errors import CardError
from benchcard.evaluation.rows import Rows
from benchcard.hub.files import make_upload
from benchcard.hub.overwrite import OverwritePolicy, dump_manifest, manifest_entry
from benchcard.metrics.info import FidelityLimit
from benchcard.publishing import file_table, recipe, usage
from benchcard.publishing import weights as weight_files
from benchcard.publishing.facts import make_facts
from benchcard.publishing.weights import Artifacts, Weights
from benchcard.run.record import Cell
from benchcard.spec.parameters import BACKEND_ARGUMENTS, split_name
from benchcard.utils.files import replacing_folder

CARD, REPOSITORY = "card.md", "repo"
FORMAT = 1
# The parts of `RunResults.to_json` in `run.json`.
_PUBLISHED = ("spec", "machine", "machines", "versions", *FRAMES)


@dataclass(frozen=True)
class Bundle:
    """The content of a push: the text of the card, and the other files by their path in the repository.

    `slug` names the section and its folder; `guard` has the rules on which files of the repository may be replaced.
    """

    slug: str
    card: str
    files: Mapping[str, Path]
    guard: OverwritePolicy


def write_bundle(
    results: RunResults,
    folder: Path,
    repo_id: str,
    *,
    slug: str,
    artifacts: Artifacts = "best",
    layout: str | None = None,
    max_drop: float | None = None,
    fidelity: FidelityLimit = None,
    force: bool = False,
    prune: bool = False,
) -> Bundle:
    """Write everything that a push of these results to `repo_id` sends into `folder`, in place of what is there.

    Raises:
        BenchcardError: A requested row has no model, or the folder cannot be written.
        CardError: The Hub would refuse the card; the message names every wrong field.
    """
    weights = weight_files.chosen_weights(results, artifacts, max_drop, fidelity)
    with replacing_folder(folder) as draft:
        repository, own = draft / REPOSITORY, draft / REPOSITORY / FOLDER / slug
        own.mkdir(parents=True)
        manifest: dict[str, dict[str, str]] = {}
        paths = [path for model in weights for path in weight_files.write_weights(model, repository)]
        for path in (*paths, *weight_files.write_manifest(results, weights, repository)):
            manifest[path] = manifest_entry(make_upload(path, repository / path))
        root = weight_files.write_root(results, weights, repository)
        _results_table(results).to_csv(own / RESULTS, index=False, lineterminator="\n")
        latencies_frame(results).to_parquet(own / LATENCIES, index=False)
        (own / RUN).write_bytes(dump_manifest(run_json(results, weights, manifest)))
        facts = make_facts(results, max_drop, slug, fidelity)
        prepared = results.records.records[weights[0].row].outcomes.prepare if weights else None
        context = Rows(prepared.folder).context if prepared else {}
        # A base model that the spec names is not the model that was measured.
        original = None if results.spec.get("base_model") else facts.front_matter.base_model
        names = full_tables.row_names(facts)
        pushed = {model.row: (model.path, model.source) for model in weights}
        parts = [
            file_table.section(results, pushed or None, max_drop),
            usage.section(repo_id, results.spec.task, weights, names, root, original, context),
            recipe.section(results, weights, repo_id, root, original),
        ]
        card = _card(facts, repo_id, slug, weights, layout, "\n".join(filter(None, parts)), original)
        for name, content in card.files.items():
            (repository / name).write_bytes(content)
        links = (
            f"Every figure: [{RESULTS}]({FOLDER}/{slug}/{RESULTS}). The spec, the model and data, the machine and the "
            f"versions: [{RUN}]({FOLDER}/{slug}/{RUN}). Every raw latency: [{LATENCIES}]({FOLDER}/{slug}/{LATENCIES})."
        )
        text = f"{card.text.strip()}\n\n{links}\n"
        (draft / CARD).write_bytes(text.encode("utf-8", "surrogateescape"))
    repository = folder / REPOSITORY
    files = {path.relative_to(repository).as_posix(): path for path in sorted(repository.rglob("*")) if path.is_file()}
    together, owned = frozenset(weight_files.ROOT_FILES), frozenset(manifest)
    shared = frozenset({weight_files.MANIFEST})
    guard = OverwritePolicy(together, owned, shared, f"{FOLDER}/{slug}/{RUN}", force, prune)
    return Bundle(slug, text, files, guard)


def _card(
    facts: Facts,
    repo_id: str,
    slug: str,
    weights: Sequence[Weights],
    layout: str | None,
    usage: str,
    original: str | None,
) -> Card:
    """Return the card, with the front matter that is right for the repository.

    `original` is the id of the model that was measured, if that is known.
    """
    front_matter = facts.front_matter
    is_quantized = any(model.quantized for model in weights)
    has_weights = {"onnx": any(model.home is None for model in weights), "quantized": is_quantized}
    # A model that was made from the base model that a spec names may be a fine-tune of it.
    relation = "quantized" if is_quantized and original else front_matter.base_model_relation
    # A model is not derived from itself.
    is_original = front_matter.base_model == repo_id
    front_matter = replace(
        front_matter,
        base_model=None if is_original else front_matter.base_model,
        base_model_relation=None if is_original else relation,
        tags=tuple(tag for tag in front_matter.tags if has_weights.get(tag, True)),
        model_index=tuple(_with_source_url(model, repo_id, slug) for model in front_matter.model_index),
    )
    facts = replace(facts, front_matter=front_matter)
    card = Card.from_facts(facts, slug=slug, usage=usage, **({} if layout is None else {"layout": layout}))
    if refused := [str(problem) for problem in card.problems() if problem.severity == "error"]:
        raise CardError("the Hub would refuse the card:\n" + "\n".join(refused))
    return card


def _with_source_url(model: Mapping[str, Plain], repo_id: str, slug: str) -> dict[str, Plain]:
    """Return an entry of `model-index` whose source is the table that is published beside the card."""
    url = f"https://huggingface.co/{repo_id}/blob/main/{FOLDER}/{slug}/{RESULTS}"
    return {**model, "results": [{**result, "source": {**result["source"], "url": url}} for result in model["results"]]}


def _results_table(results: RunResults) -> pd.DataFrame:
    """Return parameters, quality, time and size, one row per configuration and shape (or without shape if untimed)."""
    sizes = results.models[["row", "digest", "size_mb"]]
    repeated = [name for name in {*results.spec.grid, "framework"} if name in results.time]
    table = results.quality.merge(sizes, on="row", how="left")
    table = table.merge(results.time.drop(columns=repeated), on="row", how="left", suffixes=("", "_time"))
    texts = [str(name) for name in table if not pd.api.types.is_numeric_dtype(table[name].dtype)]
    return table.assign(
        **{name: [public_names.public_value(results.records, cell, name) for cell in table[name]] for name in texts}
    )


def latencies_frame(results: RunResults) -> pd.DataFrame:
    """Return every raw latency of the run: `row` (the first of those with the same model and timing), `batch_size`,
    `input_length`, `phase` where there are any, `round`, `launch`, `place` of the block in its round, `twin` (the
    baseline's second process), `started_ns` of the block, `latency_ns` of one call.
    """
    records = results.records
    # Rows with the same cell may be timed in different parts. A baseline is also in parts that belong to no row.
    owners: dict[tuple[int | None, str], tuple[int, Cell]] = {}
    for record in records.records:
        row = record.configuration.row
        for shape, cell in record.cells.items():
            for part_id in (id(records.timed.get((row, shape))), None):
                owners.setdefault((part_id, cell.name), (row, cell))
    shapes = shape_columns(records)
    columns = ("row", *shapes, "round", "launch", "place", "twin", "started_ns", "calls")
    blocks, values = [], []
    for part in {id(part): part for parts in records.parts.values() for part in parts}.values():
        for timed in part.rounds:
            for place, block in enumerate(timed.blocks):
                owner = owners.get((id(part), block.name)) or owners.get((None, block.name))
                if owner is None:
                    continue
                shape, order = owner[1].shape, (timed.number, timed.launch, place, block.twin, block.started_ns)
                sizes = (getattr(shape, name) for name in shapes)
                blocks.append((owner[0], *sizes, *order, len(block.latencies_ns)))
                values.append(block.latencies_ns)
    frame = pd.DataFrame(blocks, columns=list(columns)).astype({"input_length": "Int64"})
    calls = frame.pop("calls").to_numpy(dtype="int64")
    frame = frame.loc[frame.index.repeat(calls)].reset_index(drop=True)
    frame["latency_ns"] = np.concatenate(values) if values else np.empty(0, np.int64)
    return frame


def run_json(
    results: RunResults, weights: Sequence[Weights], manifest: Mapping[str, Mapping[str, str]]
) -> dict[str, Plain]:
    """Return the published `run.json`: spec, sources, machine and every figure, without paths of this machine."""
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
    published = {name: value for name, value in results.to_json().items() if name in _PUBLISHED}
    figures = public_names.public_value(results.records, published)
    return {
        "format": FORMAT,
        "created": info.created,
        "spec": _shown_spec(results, figures.pop("spec")),
        "sources": sources,
        **figures,
        "weights": [{"row": model.row, "path": model.path} for model in weights],
        "files": dict(manifest),
    }


def _shown_spec(results: RunResults, spec: Any) -> Any:
    """Return the spec as plain data, with the `backend_args` that a card shows."""
    fixed, grid = {}, dict(spec["grid"])
    for name, value in spec["fixed"].items():
        parameter, part = split_name(name)
        if parameter != BACKEND_ARGUMENTS:
            fixed[name] = value
        elif part is None:
            fixed[name] = results.spec.shown_arguments(value)
        elif results.spec.shown_arguments({part: value}):
            fixed[name] = value
    if BACKEND_ARGUMENTS in grid:
        grid[BACKEND_ARGUMENTS] = [results.spec.shown_arguments(arguments) for arguments in grid[BACKEND_ARGUMENTS]]
    return {**spec, "fixed": fixed, "grid": grid}
