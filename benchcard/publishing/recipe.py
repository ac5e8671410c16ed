"""The recipes of published models: lines that make them again from their float graphs, with onnxruntime and no
benchcard.

A model has a recipe only if the lines give the same graph: what benchcard does beyond a plain call, it must not have
done for this one. How a row of the data set becomes inputs is left to the tasks (`InputCode`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from benchcard.analysis.run_results import RunResults
from benchcard.evaluation.features import Features
from benchcard.evaluation.rows import Rows
from benchcard.graphs.files import external_files
from benchcard.graphs.graph import Graph, load_graph
from benchcard.graphs.signature import GraphInput, graph_inputs, only_batch_size, only_length
from benchcard.publishing.weights import Weights, has_processor
from benchcard.quantization.calibration.ranges import NAMES, Method, are_certain
from benchcard.quantization.calibration.statistics import ActivationStatistics
from benchcard.quantization.operators import requested_operators
from benchcard.quantization.quantize import extra_options, names_to_exclude
from benchcard.quantization.settings import Quantization
from benchcard.run.record import Record
from benchcard.sources.resolve import Source
from benchcard.spec.plan import calibration_method
from benchcard.steps.data import RowsOutcome
from benchcard.steps.models import path_of
from benchcard.steps.quantize import STATISTICS, range_method
from benchcard.steps.step import Outcome
from benchcard.utils.text import quote_names

# What the lines import from `onnxruntime.quantization`, if it is in them.
_NAMES = (
    *("CalibrationDataReader", "CalibrationMethod", "QuantFormat", "QuantType"),
    *("quantize_dynamic", "quantize_static"),
)


class NoRecipe(Exception):
    """Why plain lines would not make a quantized model again."""


@dataclass(frozen=True)
class Recipe:
    """How a quantized model is made again.

    Attributes:
        graph: The float graph.
        imports: The imports beside those from `onnxruntime.quantization`.
        samples: The lines that make `reader`, which returns the calibration samples; none for a dynamic model.
        call: The line that makes the model.
    """

    graph: Path
    imports: tuple[str, ...]
    samples: tuple[str, ...]
    call: str


def section(
    results: RunResults, weights: Sequence[Weights], repo_id: str, root: Collection[str], original: str | None
) -> str:
    """Return Markdown with the recipes of the quantized models, and why others have none.

    The arguments are those of `usage.section`. Models of one float graph and the same samples share their lines.
    """
    tokenizer = repo_id if has_processor(root) else original
    groups: dict[tuple[Path, tuple[str, ...]], list[Recipe]] = {}
    made: list[str] = []
    others: dict[str, list[str]] = {}
    files = {model.source: model.path for model in weights}
    for model in weights:
        record = results.records.records[model.row]
        export, quantize = record.outcomes.export, record.outcomes.quantize
        if not export or not quantize or quantize.values.report.is_float_model or record.outcomes.convert:
            continue
        graph = files.get(path_of(export), "model.onnx")
        data = results.records.info.sources.dataset(record.configuration["dataset"])
        try:
            recipe = make_recipe(record, graph, model.name, data, tokenizer)
        except NoRecipe as why:
            others.setdefault(str(why), []).append(model.name)
        else:
            made.append(model.name)
            groups.setdefault((recipe.graph, recipe.samples), []).append(recipe)
    version = results.records.info.versions.get("onnxruntime", "")
    parts = []
    for (path, _), recipes in groups.items():
        origin = "in this repository" if path in files else f"at opset {load_graph(path).opset}"
        graph = f"Of `{files.get(path, 'model.onnx')}`, the float graph {origin},"
        same = "the same graph" if len(recipes) == 1 else "the same graphs"
        parts += [f"{graph} onnxruntime {version} makes {same}:", "", "```python", *lines(recipes), "```", ""]
    if parts:
        title = made[0] if len(made) == 1 else f"{len(made)} models"
        parts = ["<details>", f"<summary>Make {title} again with onnxruntime alone</summary>", "", *parts]
        parts += ["</details>", ""]
    without = "There is no recipe for {} with onnxruntime alone: {}."
    parts += [line for why, names in others.items() for line in (without.format(quote_names(names), why), "")]
    return "\n".join(parts)


def lines(recipes: Sequence[Recipe]) -> list[str]:
    """Return the lines of recipes with the same samples."""
    body = [*recipes[0].samples, *(recipe.call for recipe in recipes)]
    names = [name for name in _NAMES if any(name in line for line in body)]
    imports = [f"from onnxruntime.quantization import {', '.join(names)}", *recipes[0].imports]
    return [*sorted(imports, key=lambda line: (line.startswith("from"), line)), "", *body]


def make_recipe(record: Record, graph: str, target: str, data: Source, processor: str | None) -> Recipe:
    """Return the recipe of a quantized row, which makes the file `target` of `graph`, its float graph.

    `processor` is the repository or folder of the tokenizer or image processor.

    Raises:
        NoRecipe: Plain lines would not make the same model, or its samples are not on the Hub.
    """
    export, quantize = record.outcomes.export, record.outcomes.quantize
    if export is None or quantize is None:
        raise NoRecipe("it was not quantized")
    path, settings = path_of(export), quantize.values.how
    if settings.approach == "weight_only":
        raise NoRecipe("benchcard writes recipes of dynamic and static quantization only")
    model = onnx.load(str(path), load_external_data=False)
    if not _is_plain(model):
        raise NoRecipe("the float graph has to be prepared before onnxruntime can quantize it")
    imports: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    files = [f'"{graph}"', f'"{target}"']
    method = None
    if settings.approach == "static":
        method = range_method(calibration_method(record.configuration))
        inputs, dataset = graph_inputs(model.graph), record.configuration["dataset"]
        imports, samples = sample_lines(record.outcomes.sample, dataset, data, processor, inputs, method)
        _expect_equal_ranges(record, method, inputs)
        files.append("reader()")
    arguments = _arguments(settings, load_graph(path), method)
    if external_files(model):
        arguments["use_external_data_format"] = "True"
    call = ", ".join([*files, *(f"{name}={value}" for name, value in arguments.items())])
    return Recipe(path, imports, samples, f"quantize_{settings.approach}({call})")


def _is_plain(model: onnx.ModelProto) -> bool:
    """Return whether ONNX Runtime's quantizer can read a float graph as it is: see `graphs.graph.prepare_model`."""
    names = [node.name for node in model.graph.node]
    weights = {weight.name for weight in model.graph.initializer}
    return "" not in names and len({*names}) == len(names) and not weights & {i.name for i in model.graph.value_info}


def sample_lines(
    sample: Outcome[RowsOutcome] | None,
    dataset: Mapping[str, str | None],
    data: Source,
    processor: str | None,
    inputs: Sequence[GraphInput],
    method: Method,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the imports and the lines that make `reader` of the samples of a static row, for a graph with these
    inputs; the other arguments are those of `make_recipe`, and `dataset` is that of the row.

    Raises:
        NoRecipe: As `make_recipe`.
    """
    if sample is None or processor is None or data.local:
        raise NoRecipe("the calibration data, or the tokenizer or image processor, are not on the Hub")
    code, rows = sample.values.code, Rows(sample.folder)
    length, size = only_length(inputs), only_batch_size(inputs) or 1
    if code is None:
        raise NoRecipe("the calibration samples are more than what the processor makes of a row of the data set")
    if size > 1:
        raise NoRecipe(f"the graph takes {size} samples a call")
    name = dataset.get("name")
    where = [repr(data.location), *([repr(name)] if name else []), f"split={dataset['calibration_split']!r}"]
    where += [f"revision={data.revision!r}"] if data.revision else []
    # A row without an item, as a sentence without words, is left out.
    numbers = [sample.values.rows[owner] for owner in dict.fromkeys(rows.owners)]
    options = "".join(f", {option}={value!r}" for option, value in code.options.items())
    batch = code.batch if length is None else f'processor.pad({code.batch}, padding="max_length", max_length={length})'
    types = {entry.name: str(entry.dtype) for entry in inputs}
    item = f"{{name: np.array(batch[name][i : i + 1], dtype) for name, dtype in {types}.items()}}"
    members = '"get_next": iter([*feeds, None]).__next__'
    if method.averages_in_turn:
        # The end of each sample is an end of the reader, which onnxruntime then sets to the next one.
        members = '"get_next": iter([each for feed in feeds for each in (feed, None)]).__next__, '
        members += '"__len__": lambda self: len(feeds), "set_range": lambda self, **_: None'
    return (
        "import numpy as np",
        "from datasets import load_dataset",
        f"from transformers import {code.loader}",
    ), (
        f"processor = {code.loader}.from_pretrained({processor!r}{options})",
        f"rows = load_dataset({', '.join(where)}).select({numbers})",
        f"batches = ({batch} for row in rows)",
        f"feeds = [{item} for batch in batches for i in range(len(batch[{inputs[0].name!r}]))]",
        f'reader = lambda: type("Reader", (CalibrationDataReader,), {{{members}}})()',
    )


def _expect_equal_ranges(record: Record, method: Method, inputs: Sequence[GraphInput]) -> None:
    """Check that ONNX Runtime counts the values of the samples of a static row with the same result."""
    sample, calibrate, quantize = record.outcomes.sample, record.outcomes.calibrate, record.outcomes.quantize
    if method.method == "minmax" or not (sample and calibrate and quantize):
        return
    if len(list(Features(sample.folder).groups(padded=only_length(inputs) is not None))) > 1:
        raise NoRecipe(f"onnxruntime's calibration by `{method.method}` takes samples of one shape only")
    statistics = ActivationStatistics.load(calibrate.folder / STATISTICS)
    if not are_certain(statistics, method, requested_operators(quantize.values.how)):
        raise NoRecipe(f"ranges by `{method.method}` may differ from onnxruntime's by one bin of a histogram")


def _arguments(settings: Quantization, graph: Graph, method: Method | None) -> dict[str, str]:
    """Return the arguments of the quantizer that differ from its defaults, as Python."""
    options: dict[str, object] = dict(extra_options(settings))
    arguments: dict[str, str] = {}
    if settings.operators_to_quantize is not None:
        arguments["op_types_to_quantize"] = repr(sorted(set(settings.operators_to_quantize)))
    arguments |= {name: "True" for name in ("per_channel", "reduce_range") if getattr(settings, name)}
    if settings.weights_dtype == "uint8":
        arguments["weight_type"] = "QuantType.QUInt8"
    if settings.layout == "QOperator":
        arguments["quant_format"] = "QuantFormat.QOperator"
    if names := names_to_exclude(graph, settings):
        arguments["nodes_to_exclude"] = repr(names)
    if method is not None:
        if settings.activations_dtype == "uint8":
            arguments["activation_type"] = "QuantType.QUInt8"
        if method.method != "minmax":
            arguments["calibrate_method"] = f"CalibrationMethod.{NAMES[method.method]}"
        if method.symmetric is not None:
            options["CalibTensorRangeSymmetric"] = method.symmetric
        if method.method == "percentile":
            options["CalibPercentile"] = method.percentile
        if method.method == "minmax" and method.moving_average:
            options["CalibMovingAverage"] = True
        if method.averages_in_turn:
            options |= {"CalibMovingAverageConstant": method.moving_average_constant, "CalibStridedMinMax": 1}
    return arguments | ({"extra_options": repr(options)} if options else {})
