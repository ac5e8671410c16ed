"""The models of a run as a repository holds them: graphs in `onnx/`, under the names that Transformers.js and optimum
load, and converted models in a folder of their framework.

This module owns which rows have a model to publish, the names of its files, `export.json` beside graphs, and the
configuration and processor files at the root of the repository. The code that loads the models is left to `usage`, the
push to `push`.

Source: https://huggingface.co/docs/transformers.js/guides/dtypes (`q8` loads `onnx/model_quantized.onnx`, `fp32` loads
`onnx/model.onnx`, `q4` loads `onnx/model_q4.onnx`, and `model_file_name` replaces `model`);
https://huggingface.co/docs/optimum-onnx (`file_name`, `subfolder`).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import onnx

from benchcard.analysis import row_facts
from benchcard.analysis.public_names import last_name
from benchcard.analysis.run_results import RunResults
from benchcard.errors import BenchcardError
from benchcard.export.manifest import FILE, Component, Manifest
from benchcard.graphs.files import external_files, location_entries
from benchcard.metrics.info import FidelityLimit
from benchcard.run.record import Record
from benchcard.steps.models import path_of
from benchcard.steps.step import Outcome

Artifacts: TypeAlias = "Literal['best', 'all', 'none'] | Sequence[int]"
FOLDER = "onnx"
MANIFEST = f"{FOLDER}/{FILE}"
"""The file that lists the graphs of a repository for transformers."""
# The files of sentence-transformers on how embeddings are pooled and compared. Without them it takes a plain mean.
SENTENCES = (
    "modules.json",
    "1_Pooling/config.json",
    "2_Normalize/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
# The files that libraries read beside the weights. No other file of a model's folder is published.
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
# The files that Transformers.js loads by a `dtype`.
DTYPES = {
    "model.onnx": "fp32",
    "model_fp16.onnx": "fp16",
    "model_quantized.onnx": "q8",
    "model_q4.onnx": "q4",
    "model_q4f16.onnx": "q4f16",
}
# The endings of the keys under which transformers stores where something was loaded from, as `_name_or_path`.
_PATH_KEYS = ("name_or_path", "_file", "_dir")


@dataclass(frozen=True)
class Weights:
    """A model of a row to publish: the name of its file in a folder of the repository, and its source in the run
    directory.

    Of a model that a `framework` has converted, all files of the folder `home` are published under their own names.
    """

    row: int
    quantized: bool
    name: str
    source: Path
    folder: str = FOLDER
    framework: str = ""
    home: Path | None = None

    @property
    def path(self) -> str:
        """The path of its file in the repository."""
        return f"{self.folder}/{self.name}"


def chosen_weights(
    results: RunResults, artifacts: Artifacts, max_drop: float | None = None, fidelity: FidelityLimit = None
) -> tuple[Weights, ...]:
    """Return the models to publish, without duplicates: of the `best` row, of `all` rows, of `none`, or of given ones.

    The first model of each kind has the name that libraries load by default.

    Raises:
        BenchcardError: There is no such row, or it has no model of its own to publish.
    """
    records = results.records.records
    if isinstance(artifacts, str):
        if artifacts not in ("best", "all", "none"):
            raise BenchcardError(f"artifacts is `best`, `all`, `none` or a list of rows, found {artifacts!r}")
        best = None if artifacts == "none" else results.best(max_drop, fidelity=fidelity).row
        rows = [] if best is None else [best]
        rows += range(len(records)) if artifacts == "all" else []
    else:
        rows = list(artifacts)
        for row in rows:
            if not 0 <= row < len(records):
                raise BenchcardError(f"there is no row {row}: the rows are 0 to {len(records) - 1}")
            if (message := without_model(results, row)) is not None:
                raise BenchcardError(message)
    chosen: dict[str, Weights] = {}
    for row in rows:
        record, model = records[row], _model(records[row])
        if model is None or record.digest is None or record.digest in chosen:
            continue
        quantized, source = row_facts.is_quantized(record), path_of(model)
        if record.outcomes.convert:
            framework = record.configuration["framework"]
            is_first = all(weights.framework != framework for weights in chosen.values())
            folder = framework if is_first else f"{framework}_row{row}"
            chosen[record.digest] = Weights(
                row, quantized, model.values.file, source, folder, framework, home=model.folder
            )
            continue
        kind = _kind(record)
        is_first = all(weights.path != f"{FOLDER}/model{kind}.onnx" for weights in chosen.values())
        name = f"model{kind}.onnx" if is_first else f"model_row{row}{kind}.onnx"
        chosen[record.digest] = Weights(row, quantized, name, source)
    return tuple(chosen.values())


def _kind(record: Record) -> str:
    """Return the ending of the name of a graph's file, as `_q4f16`."""
    row, is_half = record.configuration, record.outcomes.cast is not None
    if row["quantization_approach"] == "weight_only":
        return f"_q{row['bits']}{'f16' if is_half else ''}"
    return "_quantized" if row.quantized else "_fp16" if is_half else ""


def without_model(results: RunResults, row: int) -> str | None:
    """Return why a row has no model of its own to publish; None where it has one."""
    record = results.records.records[row]
    if _model(record) is not None:
        return None
    reason = record.failures.model or "its framework runs the original weights"
    return f"row {row} ({results.plan[row].label}) has no model of its own to publish: {reason}"


def _model(record: Record) -> Outcome[Any] | None:
    """Return the model that a row runs, a graph or a converted one; None for the original, or where it failed."""
    return (record.outcomes.convert or record.outcomes.graph) if record.digest is not None else None


def write_weights(weights: Weights, repository: Path) -> list[str]:
    """Write a model into a repository, and return the paths of its files there.

    Raises:
        BenchcardError: It has files outside of its folder.
    """
    folder = repository / weights.folder
    names = _write_graph(weights, folder) if weights.home is None else _write_converted(weights.home, folder)
    return [f"{weights.folder}/{name}" for name in names]


def _write_converted(home: Path, folder: Path) -> list[str]:
    """Write all files that a framework made, and return their names."""
    files = {path.relative_to(home).as_posix(): path for path in sorted(home.rglob("*")) if path.is_file()}
    names = [name for name in files if name not in ("outcome.json", "log.txt")]
    for name in names:
        _expect_inside(home, files[name])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        link(files[name], folder / name)
    return names


def _write_graph(weights: Weights, folder: Path) -> list[str]:
    """Write a graph and its external weights, and return the names of its files."""
    folder.mkdir(parents=True, exist_ok=True)
    external = external_weights(weights.source)
    names = {old: f"{weights.name}_data{f'_{index}' if index else ''}" for index, old in enumerate(external)}
    if external:
        graph = onnx.load(str(weights.source), load_external_data=False)
        for entry in location_entries(graph):
            entry.value = names[entry.value]
        onnx.save(graph, str(folder / weights.name))
    else:
        link(weights.source, folder / weights.name)
    for old, new in names.items():
        link(weights.source.parent / old, folder / new)
    return [weights.name, *names.values()]


def write_manifest(results: RunResults, weights: Sequence[Weights], repository: Path) -> list[str]:
    """Write an `export.json` beside the graphs that `ExportedModel.from_pretrained` of transformers can load.

    Returns the paths of the files that were written; none where there is no such graph.

    It takes graphs with all weights inside, each with a file of further weights beside it, which is therefore empty.

    Source: `OnnxExporter.program_files` of transformers/exporters/exporter_onnx.py, 5.23.
    """
    components: dict[str, Component] = {}
    for model in weights:
        export = results.records.records[model.row].outcomes.export
        if model.home is None and export and export.values.report.metadata and not external_weights(model.source):
            components[Path(model.name).stem] = Component(model.name, export.values.report.metadata)
    if not components:
        return []
    files = {f"{component.file}.data": b"" for component in components.values()}
    files[FILE] = Manifest(components).encoded()
    for name, content in files.items():
        (repository / FOLDER / name).write_bytes(content)
    return [f"{FOLDER}/{name}" for name in files]


def external_weights(path: Path) -> tuple[str, ...]:
    """Return the files beside a graph that hold its external weights, in the order in which it names them.

    Raises:
        BenchcardError: One is outside of the graph's folder, and may be somebody's private file.
    """
    names = tuple(external_files(onnx.load(str(path), load_external_data=False)))
    for name in names:
        _expect_inside(path.parent, path.parent / name)
    return names


def _expect_inside(folder: Path, file: Path) -> None:
    if not file.resolve().is_relative_to(folder.resolve()):
        raise BenchcardError(f"{file} leads out of the folder of its model: it is not published")


def write_root(results: RunResults, weights: Sequence[Weights], folder: Path) -> list[str]:
    """Write the configuration and processor files of the original model into `folder`, and return their names.

    None are written if there are several originals. Absolute paths in the files of a local model lose their folders.
    """
    names = {results.plan[model.row]["name_or_path"] for model in weights}
    if len(names) != 1:
        return []
    original = results.records.info.sources.models[names.pop()]
    written = [name for name in ROOT_FILES if (original.folder / name).is_file()]
    for name in written:
        source, target = original.folder / name, folder / name
        target.parent.mkdir(exist_ok=True)
        if original.local and source.suffix == ".json" and (cleaned := _cleaned(source)):
            target.write_text(cleaned, encoding="utf-8")
        else:
            link(source, target)
    return written


def has_processor(root: Iterable[str]) -> bool:
    """Return whether a repository with these files at its root has a tokenizer or an image processor."""
    return any(name not in ("config.json", *SENTENCES) for name in root)


def _cleaned(path: Path) -> str | None:
    """Return a JSON file without the paths of this machine; None where it has none, or cannot be read."""
    try:
        data = json.loads(path.read_bytes())
        cleaned = _without_paths(data)
    except (ValueError, RecursionError):
        return None
    return None if cleaned == data else json.dumps(cleaned, indent=2) + "\n"


def _without_paths(data: object, key: str = "") -> object:
    if isinstance(data, dict):
        return {name: _without_paths(value, name) for name, value in data.items()}
    if isinstance(data, list):
        return [_without_paths(element) for element in data]
    return last_name(data) if isinstance(data, str) and key.endswith(_PATH_KEYS) else data


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` by a hard link where the system can, else a copy of it."""
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
