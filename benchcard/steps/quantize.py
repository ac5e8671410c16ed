"""The steps `calibrate`, `quantize`, `explain` and `rank`: int8 graphs, and what quantization costs."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchcard.steps.step import Asked, Needs, Progress


def calibrate(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """What one pass of the samples through the graph shows of its activations, for every static row of the grid."""
    from benchcard.evaluation.features import Features
    from benchcard.evaluation.feeds import feeds
    from benchcard.quantization.calibration import collect as calibration

    graph, samples = needs["graph"], Features(needs["samples"].folder)
    model = graph.folder / graph.values["file"]
    # One sample at a time, as onnxruntime's own calibration does: moving averages and memory depend on it.
    report = calibration.collect_statistics(
        model,
        feeds(samples, model),
        target / "statistics.npz",
        operators=asked["operators"],
        intra_op_num_threads=extra["threads"],
        progress=lambda done: progress(done, len(samples)),
    )
    return {"report": asdict(report)}


def method_of(given: Mapping[str, Any]) -> Any:
    """The `Method` that a spec's `calibration` asks for."""
    from benchcard.quantization.calibration.ranges import Method

    words = {
        "method": "method",
        "calibration_histogram_percentile": "percentile",
        "calibration_moving_average": "moving_average",
        "calibration_moving_average_constant": "moving_average_constant",
        "symmetric": "symmetric",
    }
    return Method(**{words[name]: value for name, value in given.items()})


@functools.lru_cache(maxsize=4)
def _ranges(statistics: Path, method: Any, operators: tuple[str, ...] | None) -> Any:
    """The ranges of a step's statistics, which several rows ask for one after the other; not to be changed."""
    from benchcard.quantization.calibration.ranges import compute_ranges

    return compute_ranges(statistics, method, operators)


def quantize(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """A quantized graph, that the runtime can load and run, and what became of its nodes."""
    from benchcard.quantization import exclusions as exclude
    from benchcard.quantization.loading import loading_note
    from benchcard.quantization.quantize import quantize_model
    from benchcard.quantization.settings import Quantization

    graph = needs["graph"]
    model = graph.folder / graph.values["file"]
    operators = asked["operators_to_quantize"]
    how = Quantization(
        approach=asked["approach"],
        operators_to_quantize=tuple(operators) if operators is not None else None,
        per_channel=asked["per_channel"],
        reduce_range=asked["reduce_range"],
        weights_dtype=asked["weights_dtype"],
        activations_dtype=asked["activations_dtype"],
        quant_format=asked["quant_format"],
        weights_symmetric=asked["weights_symmetric"],
        activations_symmetric=asked["activations_symmetric"],
        matmul_const_b_only=asked["matmul_const_b_only"],
    )
    exclusions = exclude.match_exclusions(model, asked["exclude"], how)
    ranges = None
    if asked["approach"] == "static":
        ranges = _ranges(
            needs["statistics"].folder / "statistics.npz", method_of(asked["calibration"]), how.operators_to_quantize
        )
    how = replace(how, nodes_to_exclude=exclude.excluded_names(exclusions))
    report = quantize_model(model, target / "model.onnx", how, ranges)
    note = loading_note(target / "model.onnx")
    report = replace(report, notes=(*report.notes, note)) if note else report
    return {
        "file": "model.onnx",
        "digest": report.digest,
        "size_bytes": report.size_bytes,
        "report": asdict(report),
        "how": asdict(how),
        "exclusions": [asdict(exclusion) for exclusion in exclusions],
    }


def explain(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """What a quantized graph's outputs lost against its float graph, and the layers that cost most."""
    from benchcard.quantization import exclusions as exclude
    from benchcard.quantization.sensitivity.losses import measure_losses

    how, float_model = _how(extra["how"]), Path(extra["float"])
    batches = _samples(asked, needs, float_model)
    level = asked["optimization_level"]
    expected = _float_outputs(float_model, needs["inputs"].folder, asked["samples"], extra["threads"], level)
    found = measure_losses(
        float_model,
        Path(extra["model"]),
        batches,
        asked["layers"],
        settings=how,
        threads=extra["threads"],
        optimization_level=level,
        expected=expected,
        folder=target,
    )
    patterns = exclude.patterns_with(float_model, found.layers[0].node) if found.layers else ()
    return {**asdict(found), "patterns": list(patterns)}


@functools.lru_cache(maxsize=2)
def _float_outputs(model: Path, inputs: Path, samples: int, threads: int, level: int) -> Any:
    """What a step's float graph gives for a step's inputs: the same for all rows of it and of its level."""
    from benchcard.quantization.sensitivity.losses import model_outputs

    return model_outputs(model, _first(inputs, model, samples), threads, level)


def rank(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """Every node that is quantized, by what it costs the outputs alone, the worst first."""
    from benchcard.quantization.operators import quantized_nodes
    from benchcard.quantization.sensitivity import losses

    how, float_model = _how(extra["how"]), Path(extra["float"])
    batches = _samples(asked, needs, float_model)
    found = losses.rank_layers(
        float_model,
        Path(extra["model"]),
        list(batches),
        settings=how,
        threads=extra["threads"],
        progress=progress,
        folder=target,
    )
    ranked = [each.node for each in found]
    # What cannot be looked at alone comes last, so that the end of the list is the float model.
    rest = [name for name in quantized_nodes(float_model, how) if name not in ranked]
    return {"nodes": [*ranked, *rest], "layers": [asdict(each) for each in found]}


def _samples(asked: Asked, needs: Needs, model: Path) -> Iterator[dict[str, Any]]:
    """The first of the inputs, as a graph takes them."""
    return _first(needs["inputs"].folder, model, asked["samples"])


def _first(folder: Path, model: Path, samples: int) -> Iterator[dict[str, Any]]:
    from benchcard.evaluation.features import Features
    from benchcard.evaluation.feeds import feeds

    return feeds(Features(folder), model, samples)


def _how(told: Mapping[str, Any]) -> Any:
    """A `Quantization` from plain data."""
    from benchcard.quantization.settings import Quantization

    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return Quantization(**values)
