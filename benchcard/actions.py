"""What each kind of step does, in a child process: one function a kind.

Every function takes what was asked, what earlier steps made, what lies where, the folder to write into and a progress
function, and returns the values to keep, as plain data. It puts together what the layers below can do, and decides
nothing itself.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.kinds import listed, near
from benchcard.worker import Need

Progress = Callable[[int, int], None]
Asked = Mapping[str, Any]
Needs = Mapping[str, Need]


def export(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """A graph of the asked opset: exported from a transformers model and checked against it, or the one that the
    model's folder holds.
    """
    from benchcard.quantization.graph import model_digest

    if asked["from_transformers"]:
        from benchcard.frameworks.export import export as export_model

        report = asdict(
            export_model(
                Path(extra["model"]),
                asked["task"],
                asked["opset"],
                target,
                trust_remote_code=asked.get("trust_remote_code", False),
            )
        )
        file = "model.onnx"
    else:
        from benchcard.frameworks.given import take

        file, report = take(Path(extra["model"]), asked["file_name"], asked["opset"], target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file() and path.name != "log.txt")
    return {"file": file, "digest": model_digest(target / file), "size_bytes": size, "report": report}


def prepare(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """The rows of the evaluation split as the model's inputs, with what is right for each."""
    from benchcard.tasks import data
    from benchcard.tasks.trust import trusting

    rows = data.load(extra["dataset"], asked["name"], asked["split"], extra["revision"])
    chosen, places = data.first(rows, asked["max_samples"])
    with trusting(asked.get("trust_remote_code", False)):
        return _inputs(asked, extra, target, progress, chosen, data.about(chosen, places, len(rows)), labelled=True)


def sample(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """The drawn rows of the calibration split as the model's inputs."""
    from benchcard.tasks import data
    from benchcard.tasks.trust import trusting

    rows = data.load(extra["dataset"], asked["name"], asked["split"], extra["revision"])
    label = asked["ref_keys"][0] if asked["ref_keys"] else None
    chosen, places = data.drawn(rows, asked["num_samples"], asked["seed"], label, asked["split"])
    about = data.about(chosen, places, len(rows))
    with trusting(asked.get("trust_remote_code", False)):
        return _inputs(asked, extra, target, progress, chosen, {**about, "rows": places}, labelled=False)


def _inputs(
    asked: Asked, extra: Asked, target: Path, progress: Progress, rows: Any, about: Asked, labelled: bool
) -> dict[str, Any]:
    from benchcard.kinds import MappingOf
    from benchcard.tasks import Question, data
    from benchcard.tasks.rows import write
    from benchcard.tasks.trust import NOTE, trusted

    task, arguments = registry.task(asked["task"]), asked["task_args"] or {}
    mistakes = list(
        MappingOf({**task.arguments, "metric_args": MappingOf(open=True)}).mistakes(arguments, "$.task_args")
    )
    if mistakes:
        raise SpecError(mistakes)
    numbers = about.get("rows", ())
    question = Question(
        Path(extra["model"]), asked["data_keys"] or {}, asked["ref_keys"] or [], arguments, labelled, numbers
    )
    prepared = task.prepare(rows, question)
    told = [extra["moved"]] if extra.get("moved") else []
    told += [NOTE] if trusted() else []
    prepared = replace(prepared, context={**prepared.context, "metric_args": arguments.get("metric_args", {})})
    moments: list[int] = []

    def tell(done: int) -> None:
        moments.append(time.perf_counter_ns())
        progress(done, len(rows))

    written = write(prepared, target, tell)
    return {
        **about,
        "items": written.items,
        "fingerprint": data.fingerprint(rows),
        "preprocessing_ns": _preprocessing_ns(moments),
        "notes": [*told, *written.notes],
    }


def _preprocessing_ns(moments: list[int]) -> int:
    """Time for all rows, from the moments at which each was ready: the first one also pays for imports, and is taken
    to be like the others.
    """
    count = len(moments)
    return (moments[-1] - moments[0]) * count // (count - 1) if count > 1 else 0


def metric(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """Nothing, where a metric that benchcard does not bring can be loaded: asked before anything slow is done."""
    from benchcard import metrics

    metrics.module(asked["name"], extra.get("scripts", {}).get(asked["name"]))
    return {}


def calibrate(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """What one pass of the samples through the graph shows of its activations, for every static row of the grid."""
    from benchcard.quantization import calibrate as calibration
    from benchcard.tasks.features import Features
    from benchcard.tasks.feeding import feeds

    graph, samples = needs["graph"], Features(needs["samples"].folder)
    model = graph.folder / graph.values["file"]
    # One sample at a time, as onnxruntime's own calibration does: moving averages and memory depend on it.
    report = calibration.collect(
        model,
        feeds(samples, model),
        target / "statistics.npz",
        operators=asked["operators"],
        intra_op_num_threads=extra["threads"],
        progress=lambda done: progress(done, len(samples)),
    )
    return {"report": report}


def method_of(given: Mapping[str, Any]) -> Any:
    """The `Method` that a spec's `calibration` asks for."""
    from benchcard.quantization.ranges import Method

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
    from benchcard.quantization.ranges import ranges

    return ranges(statistics, method, operators)


def quantize(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """A quantized graph, that the runtime can load and run, and what became of its nodes."""
    from benchcard.quantization import exclude
    from benchcard.quantization.quantize import Quantization
    from benchcard.quantization.quantize import quantize as quantize_model
    from benchcard.quantization.runs import loading_note

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
    exclusions = exclude.match(model, asked["exclude"], how)
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


def evaluate(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """A prediction for every prepared row, in their order; and what a call runs, where the framework can say."""
    from benchcard.tasks import passes
    from benchcard.tasks.rows import Rows, write_predictions

    framework, task = registry.framework(asked["framework"]), registry.task(asked["task"])
    rows = Rows(needs["inputs"].folder)
    # Not where it is inherited: `open` may be another one there.
    profiled = "open_profiled" in vars(type(framework))
    opened = framework.open_profiled if profiled else framework.open
    model = opened(Path(extra["model"]), {**asked["options"], "intra_op_num_threads": extra["threads"]})
    done = passes.run(model, rows, task, asked["batch_size"], progress, profiled=profiled)
    write_predictions(target, done.kept, done.predictions)
    return {
        "items": len(rows.items),
        "elapsed_ns": done.elapsed_ns,
        "forward_ns": done.forward_ns,
        "threads": extra["threads"],
        "facts": dict(model.facts),
        "kernels": [asdict(kernel) for kernel in done.kernels],
        "batches": done.batches,
    }


def score(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """What each metric says of the predictions."""
    from benchcard import metrics
    from benchcard.tasks.rows import Rows, scored

    rows = Rows(needs["inputs"].folder)
    given = scored(rows, needs["predictions"].folder)
    told: dict[str, dict[str, metrics.Figure]] = {}
    said = asked.get("higher_is_better", {})
    for name in asked["metrics"]:
        script = extra.get("scripts", {}).get(name)
        measured = metrics.measured(name, given, rows.meanings, rows.context["metric_args"], script)
        told[name] = metrics.directed(measured, name, said)
    figures = metrics.joined(told, rows.meanings)
    if unknown := [name for name in said if name not in figures and name not in asked["metrics"]]:
        place = f"$.higher_is_better.{unknown[0]}"
        raise SpecError(Mistake(place, f"`{unknown[0]}`", listed(figures), near(unknown[0], figures)))
    return {
        "metrics": {name: figure.value for name, figure in figures.items()},
        "readings": {name: asdict(figure.reading) for name, figure in figures.items()},
        "samples": len(rows),
        "notes": [
            f"{name} is not defined for these predictions" for name, figure in figures.items() if figure.value is None
        ],
    }


def compare(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """How sure each figure of the predictions is and, where a baseline is given, how it differs from the baseline's."""
    from benchcard.measure import quality
    from benchcard.metrics import examples
    from benchcard.tasks.rows import Rows, scored

    rows = Rows(needs["inputs"].folder)
    mine = scored(rows, needs["predictions"].folder)
    theirs = scored(rows, needs["baseline"].folder) if "baseline" in needs else None
    told: dict[str, Any] = {}
    for number, name in enumerate(asked["metrics"]):
        found, against = (
            examples.of(name, given, rows.meanings, rows.context["metric_args"], extra.get("scripts", {}).get(name))
            if given
            else {}
            for given in (mine, theirs)
        )
        for figure, model in found.items():
            baseline = against.get(figure)
            models = asked.get("models", 1)
            compared = quality.comparison(baseline, model, asked["seed"], models=models) if baseline else None
            told[figure] = quality.as_values(quality.interval(model, asked["seed"]), compared)
        progress(number + 1, len(asked["metrics"]))
    changed = quality.changed(theirs["predictions"], mine["predictions"]) if theirs else None
    return {"figures": told, "predictions_changed": changed}


def shape(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """Inputs of one batch size and length, to time forward calls with."""
    import numpy as np

    from benchcard.tasks.trust import trusting

    task = registry.task(asked["task"])
    with trusting(asked.get("trust_remote_code", False)):
        arrays, length = task.inputs(Path(extra["model"]), asked["batch_size"], asked["input_length"], asked["seed"])
    np.savez(target / "inputs.npz", **arrays)
    return {
        "input_length": length,
        "inputs": {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()},
    }


def convert(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """A graph in the form that a framework of somebody else's opens."""
    from benchcard.sources import content_digest

    graph = needs["graph"]
    framework = registry.framework(asked["framework"])
    file = framework.convert(graph.folder / graph.values["file"], target, asked["arguments"])
    if not (target / file).exists():
        raise ArtifactError(f"{asked['framework']} said that it wrote {file}, and did not")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file() and path.name != "log.txt")
    return {"file": file, "digest": content_digest(target / file), "size_bytes": size}


def explain(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """What a quantized graph's outputs lost against its float graph, and the layers that cost most."""
    from benchcard.quantization import exclude
    from benchcard.quantization.explain import losses

    how, float_model = _how(extra["how"]), Path(extra["float"])
    batches = _samples(asked, needs, float_model)
    level = asked["optimization_level"]
    expected = _float_outputs(float_model, needs["inputs"].folder, asked["samples"], extra["threads"], level)
    found = losses(
        float_model,
        Path(extra["model"]),
        batches,
        asked["layers"],
        how=how,
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
    from benchcard.quantization.explain import outputs_of

    return outputs_of(model, _first(inputs, model, samples), threads, level)


def rank(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """Every node that is quantized, by what it costs the outputs alone, the worst first."""
    from benchcard.quantization import explain as losses
    from benchcard.quantization.operators import quantized_nodes

    how, float_model = _how(extra["how"]), Path(extra["float"])
    batches = _samples(asked, needs, float_model)
    found = losses.ranking(
        float_model,
        Path(extra["model"]),
        list(batches),
        how=how,
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
    from benchcard.tasks.features import Features
    from benchcard.tasks.feeding import feeds

    return feeds(Features(folder), model, samples)


def _how(told: Mapping[str, Any]) -> Any:
    """A `Quantization` from plain data."""
    from benchcard.quantization.operators import Quantization

    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    return Quantization(**values)
