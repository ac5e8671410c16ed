"""The recipe of a published model: lines that make it again from its float graph, with onnxruntime and no benchcard.

A model has a recipe only if the lines give the same graph: what benchcard does beyond a plain call, it must not have
done for this one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec
import onnx

from benchcard.analysis.run_results import RunResults
from benchcard.evaluation.rows import Rows
from benchcard.graphs.files import external_files
from benchcard.graphs.graph import Graph, load_graph
from benchcard.publishing.weights import Weights
from benchcard.quantization.quantize import extra_options, names_to_exclude
from benchcard.quantization.settings import Quantization
from benchcard.run.record import Record
from benchcard.sources.resolve import Source
from benchcard.steps.models import path_of


class _Reading(msgspec.Struct):
    """How the measured task read texts; see `Prepared.context`."""

    columns: list[str]
    maximum: int | None


def section(
    results: RunResults, weights: Sequence[Weights], repo_id: str, root: Collection[str], original: str | None
) -> str:
    """Return Markdown with the recipe of the first model, or why a quantized one has none; empty for a float model.

    The arguments are those of `usage.section`.
    """
    if not weights:
        return ""
    first = weights[0]
    record = results.records.records[first.row]
    source = results.records.info.sources.dataset(record.configuration["dataset"])
    has_tokenizer = "tokenizer_config.json" in root
    export = record.outcomes.export
    graph = next((model.path for model in weights if export and model.source == path_of(export)), None)
    lines, why_none = recipe(record, graph or "model.onnx", first.name, source, repo_id if has_tokenizer else original)
    if why_none:
        return f"There is no recipe for `{first.name}` with onnxruntime alone: {why_none}.\n"
    if not lines or export is None:
        return ""
    origin = (
        "the float graph in this repository" if graph else f"the float graph, at opset {export.values.report.opset}"
    )
    version = results.records.info.versions.get("onnxruntime", "")
    return "\n".join(
        [
            "<details>",
            f"<summary>Make {first.name} again with onnxruntime alone</summary>",
            "",
            f"Of `{graph or 'model.onnx'}`, {origin}, onnxruntime {version} makes the same graph:",
            "",
            "```python",
            *lines,
            "```",
            "",
            "</details>",
            "",
        ]
    )


def recipe(record: Record, graph: str, target: str, data: Source, tokenizer: str | None) -> tuple[list[str], str]:
    """Return the lines that make the quantized model of a row from the file of its float graph; without any, why a
    model that was quantized here has none.

    `tokenizer` is the repository or folder of the tokenizer. A static model has lines where its samples are texts of a
    data set on the Hub.
    """
    quantized, export = record.outcomes.quantize, record.outcomes.export
    if quantized is None or export is None or quantized.values.report.is_float_model or record.outcomes.convert:
        return [], ""
    path, settings = path_of(export), quantized.values.how
    if settings.approach == "weight_only":
        return [], "benchcard writes recipes of dynamic and static quantization only"
    if not _is_plain(path):
        return [], "its float graph has to be prepared before onnxruntime can quantize it"
    function, names = f"quantize_{settings.approach}", [f"quantize_{settings.approach}"]
    start: list[str] = []
    files, libraries = [f'"{graph}"', f'"{target}"'], list[str]()
    if settings.approach == "static":
        start, why_none = _samples(record, data, tokenizer)
        if why_none:
            return [], why_none
        libraries = ["from datasets import load_dataset", "from transformers import AutoTokenizer"]
        files.append("reader")
        names.append("CalibrationDataReader")
    arguments = _arguments(settings, load_graph(path))
    if external_files(onnx.load(str(path), load_external_data=False)):
        arguments["use_external_data_format"] = "True"
    call = ", ".join([*files, *(f"{name}={value}" for name, value in arguments.items())])
    names += [name for name in ("QuantFormat", "QuantType") if f"{name}." in call]
    imports = [f"from onnxruntime.quantization import {', '.join(sorted(names))}", *libraries]
    return [*sorted(imports), "", *start, f"{function}({call})"], ""


def _is_plain(path: Path) -> bool:
    """Return whether ONNX Runtime's quantizer can read a float graph as it is: see `graphs.graph.prepare_model`."""
    model = onnx.load(str(path), load_external_data=False)
    names = [node.name for node in model.graph.node]
    weights = {weight.name for weight in model.graph.initializer}
    return "" not in names and len({*names}) == len(names) and not weights & {i.name for i in model.graph.value_info}


def _samples(record: Record, data: Source, tokenizer: str | None) -> tuple[list[str], str]:
    """Return the lines that make `reader` of the samples of a row; without any, why: they are no texts of a data set on
    the Hub, or more is done with them than the tokenizer does.

    The histograms of ONNX Runtime take no samples of different lengths, and its averages take them all at once.
    """
    sample, prepared, dataset = record.outcomes.sample, record.outcomes.prepare, record.configuration["dataset"]
    calibration = record.configuration["calibration"]
    is_plain = calibration["method"] == "minmax" and not calibration.get("calibration_moving_average")
    if not is_plain:
        return [], "its calibration is not `minmax` without a moving average, which onnxruntime does in another way"
    if sample is None or prepared is None or tokenizer is None or data.local:
        return [], "its calibration data or its tokenizer are not on the Hub"
    try:
        reading = msgspec.convert(Rows(prepared.folder).context, _Reading)
    except msgspec.ValidationError:
        return [], "its calibration data are no texts"
    name = dataset.get("name")
    where = [repr(data.location), *([repr(name)] if name else []), f"split={dataset['calibration_split']!r}"]
    where += [f"revision={data.revision!r}"] if data.revision else []
    texts = ", ".join(f"row[{column!r}]" for column in reading.columns)
    cut = f", truncation=True, max_length={reading.maximum}" if reading.maximum else ""
    return [
        f"tokenizer = AutoTokenizer.from_pretrained({tokenizer!r})",
        f"rows = load_dataset({', '.join(where)}).select({list(sample.values.rows)})",
        f'feeds = (dict(tokenizer({texts}{cut}, return_tensors="np")) for row in rows)',
        'reader = type("Reader", (CalibrationDataReader,), {"get_next": lambda self: next(feeds, None)})()',
    ], ""


def _arguments(settings: Quantization, graph: Graph) -> dict[str, str]:
    """Return the arguments of the quantizer that differ from its defaults, as Python."""
    options: dict[str, object] = dict(extra_options(settings))
    arguments: dict[str, str] = {}
    if settings.operators_to_quantize is not None:
        arguments["op_types_to_quantize"] = repr(sorted(set(settings.operators_to_quantize)))
    arguments |= {name: "True" for name in ("per_channel", "reduce_range") if getattr(settings, name)}
    if settings.weights_dtype == "uint8":
        arguments["weight_type"] = "QuantType.QUInt8"
    if settings.approach == "static" and settings.activations_dtype == "uint8":
        arguments["activation_type"] = "QuantType.QUInt8"
    if settings.layout == "QOperator":
        arguments["quant_format"] = "QuantFormat.QOperator"
    if names := names_to_exclude(graph, settings):
        arguments["nodes_to_exclude"] = repr(names)
    if settings.approach == "static" and settings.activations_symmetric is not None:
        options["CalibTensorRangeSymmetric"] = settings.activations_symmetric
    return arguments | ({"extra_options": repr(options)} if options else {})
