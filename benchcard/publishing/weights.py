"""The models of a run as a repository holds them: under `onnx/`, by the names that Transformers.js and optimum read.

Owns which rows have a model to publish, what its files are called there, and the configuration and processor files that
belong at the root of the repository. Leaves what the card says of them to `loading`, and the push to `publishing`.

Source: https://huggingface.co/docs/transformers.js/guides/dtypes (`q8` reads `onnx/model_quantized.onnx`, `fp32` reads
`onnx/model.onnx`, and `model_file_name` replaces `model`); https://huggingface.co/docs/optimum-onnx (`file_name`,
`subfolder`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from benchcard.analysis.public_names import last_name
from benchcard.errors import BenchcardError
from benchcard.steps.models import path_of

if TYPE_CHECKING:
    from benchcard.analysis.run_results import RunResults
    from benchcard.run.record import Record


Artifacts: TypeAlias = "Literal['best', 'all', 'none'] | Sequence[int]"
FOLDER = "onnx"
# Where sentence-transformers keeps how embeddings are made and compared: without them it takes a plain mean.
SENTENCES = (
    "modules.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
# What is read beside the weights, and nothing else that may lie in a model's folder.
ROOT_FILES = (
    *SENTENCES,
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
# How the keys end under which transformers keeps where something was loaded from, as `_name_or_path`.
_PLACES = ("name_or_path", "_file", "_dir")


@dataclass(frozen=True)
class Weights:
    """One model to be published.

    Attributes:
        row: the row of the run that it is.
        quantized: whether it is quantized.
        name: its file below `onnx/`.
        source: the file in the run directory.
    """

    row: int
    quantized: bool
    name: str
    source: Path

    @property
    def path(self) -> str:
        """Where it goes in the repository."""
        return f"{FOLDER}/{self.name}"


def chosen_weights(results: RunResults, artifacts: Artifacts, max_drop: float | None = None) -> tuple[Weights, ...]:
    """The models to be published, each content once; the first of each kind has the name that is loaded by default.

    Args:
        results: the run.
        artifacts: `best` for the recommended row, `all` for every row with a model, `none`, or rows.
        max_drop: how much of the first metric the recommended row may lose; None for a point.

    Raises:
        BenchcardError: there is no such row, or it has no model of its own to publish.
    """
    records = results.records.records
    best = results.best(max_drop).row
    if isinstance(artifacts, str):
        if artifacts not in ("best", "all", "none"):
            raise BenchcardError(f"artifacts is `best`, `all`, `none` or a list of rows, found {artifacts!r}")
        if artifacts == "none":
            return ()
        rows = [best] if artifacts == "best" else [best, *range(len(records))]
        wanted = [row for row in rows if row is not None and _file(records[row]) is not None]
    else:
        wanted = list(artifacts)
        for row in wanted:
            if not 0 <= row < len(records):
                raise BenchcardError(f"there is no row {row}: the rows are 0 to {len(records) - 1}")
            if _file(records[row]) is None:
                raise BenchcardError(without_model(results, row))
    found: dict[str, Weights] = {}
    named: set[bool] = set()
    for row in wanted:
        record, source = records[row], _file(records[row])
        if source is None or record.digest is None or record.digest in found:
            continue
        quantized = record.configuration.quantized
        stem = f"model_row{row}" if quantized in named else "model"
        named.add(quantized)
        name = f"{stem}_quantized.onnx" if quantized else f"{stem}.onnx"
        found[record.digest] = Weights(row, quantized, name, source)
    return tuple(found.values())


def without_model(results: RunResults, row: int) -> str | None:
    """Why there is no ONNX model of a row to publish; None where there is one."""
    record = results.records.records[row]
    if _file(record) is not None:
        return None
    why = record.failures.model or "its framework runs the original weights"
    return f"row {row} ({results.plan[row].label}) has no ONNX model to publish: {why}"


def _file(record: Record) -> Path | None:
    """The ONNX graph that a row runs; None where it runs something else, or could not be made."""
    if record.digest is None or record.outcomes.convert:
        return None
    return path_of(record.outcomes.graph) if record.outcomes.graph else None


def write_weights(weights: Weights, folder: Path) -> list[str]:
    """The names of the files that a model came to in `folder`: its graph, and what it keeps outside of it."""
    folder.mkdir(parents=True, exist_ok=True)
    outside = external(weights.source)
    target = folder / weights.name
    if not outside:
        link(weights.source, target)
        return [weights.name]
    import onnx

    names = {old: f"{weights.name}_data{f'_{index}' if index else ''}" for index, old in enumerate(outside)}
    graph = onnx.load(str(weights.source), load_external_data=False)
    for tensor in _tensors(graph.graph):
        for place in tensor.external_data:
            if place.key == "location":
                place.value = names[place.value]
    onnx.save(graph, str(target))
    for old, new in names.items():
        link(weights.source.parent / old, folder / new)
    return [weights.name, *names.values()]


def external(path: Path) -> list[str]:
    """The files beside a graph that hold its larger tensors, in the order in which it names them."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False)
    places = (place for tensor in _tensors(graph.graph) for place in tensor.external_data)
    names = list(dict.fromkeys(place.value for place in places if place.key == "location"))
    for name in names:
        if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
            raise BenchcardError(f"{path} keeps weights outside of its own folder ({name}): they are not published")
    return names


def _tensors(graph: Any) -> Iterator[Any]:
    """Every stored tensor of a graph and of the graphs inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else []
            yield from attribute.tensors
            for inside in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _tensors(inside)


def write_root(results: RunResults, weights: Sequence[Weights], folder: Path) -> list[str]:
    """The names of the model's own configuration and processor files, now in `folder`; none where the models are of
    several originals.

    Those of a local model say where it was loaded from: folders from the root are told by their last name.
    """
    names = {results.plan[each.row]["name_or_path"] for each in weights}
    if len(names) != 1:
        return []
    model = results.records.info.sources.models[names.pop()]
    written = [name for name in ROOT_FILES if (model.folder / name).is_file()]
    for name in written:
        source, target = model.folder / name, folder / name
        target.parent.mkdir(exist_ok=True)
        cleaned = _cleaned(source) if model.local and source.suffix == ".json" else None
        if cleaned is None:
            link(source, target)
        else:
            target.write_text(cleaned, encoding="utf-8")
    return written


def _cleaned(path: Path) -> str | None:
    """A JSON file without the way to folders of this machine; None where it tells none, or is no JSON."""
    try:
        told = json.loads(path.read_bytes())
        cleaned = _without_folders(told)
    except (ValueError, RecursionError):
        return None
    return None if cleaned == told else json.dumps(cleaned, indent=2) + "\n"


def _without_folders(told: Any) -> Any:
    if isinstance(told, dict):
        return {
            key: last_name(item) if isinstance(item, str) and key.endswith(_PLACES) else _without_folders(item)
            for key, item in told.items()
        }
    return [_without_folders(each) for each in told] if isinstance(told, list) else told


def link(source: Path, target: Path) -> None:
    """Puts a file under a second name: the same bytes on disk where the system can, else a copy."""
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:
        shutil.copyfile(real, target)
