"""The steps `metric`, `evaluate`, `score` and `compare`: predictions, and what they are worth."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import Mistake, SpecError
from benchcard.steps.step import Asked, Needs, Progress
from benchcard.utils.text import did_you_mean, join_names


def metric(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """Nothing, where a metric that benchcard does not bring can be loaded: asked before anything slow is done."""
    from benchcard.metrics import compute

    compute.load_metric(asked["name"], extra.get("scripts", {}).get(asked["name"]))
    return {}


def evaluate(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """A prediction for every prepared row, in their order; and what a call runs, where the framework can say."""
    from benchcard.evaluation import passes
    from benchcard.evaluation.rows import Rows, write_predictions

    framework, task = registry.framework(asked["framework"]), registry.task(asked["task"])
    rows = Rows(needs["inputs"].folder)
    # Not where it is inherited: `open` may be another one there.
    profiled = "open_profiled" in vars(type(framework))
    opened = framework.open_profiled if profiled else framework.open
    with _temporary_files_in(target):
        model = opened(Path(extra["model"]), {**asked["options"], "intra_op_num_threads": extra["threads"]})
    done = passes.run_pass(model, rows, task, asked["batch_size"], progress, profiled=profiled)
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


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """A block whose temporary files lie in a step's folder: what a killed process leaves of it is swept away."""
    kept, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = kept


def score(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """What each metric says of the predictions."""
    from benchcard.evaluation.rows import Rows, metric_inputs
    from benchcard.metrics import Figure, compute

    rows = Rows(needs["inputs"].folder)
    given = metric_inputs(rows, needs["predictions"].folder)
    told: dict[str, dict[str, Figure]] = {}
    said = asked.get("higher_is_better", {})
    for name in asked["metrics"]:
        script = extra.get("scripts", {}).get(name)
        measured = compute.compute_metric(name, given, script)
        told[name] = compute.with_directions(measured, name, said)
    figures = compute.merge_figures(told, rows.meanings)
    if unknown := [name for name in said if name not in figures and name not in asked["metrics"]]:
        place = f"$.higher_is_better.{unknown[0]}"
        raise SpecError(Mistake(place, f"`{unknown[0]}`", join_names(figures), did_you_mean(unknown[0], figures)))
    notes = [f"{name} is not defined for these predictions" for name, figure in figures.items() if figure.value is None]
    positive, sentences = _positive_classes(figures, rows)
    return {
        "metrics": {name: figure.value for name, figure in figures.items()},
        "readings": {name: asdict(figure.info) for name, figure in figures.items()},
        **({"positive_classes": positive} if positive else {}),
        "samples": len(rows),
        "notes": [*notes, *sentences],
    }


def _positive_classes(figures: Mapping[str, Any], rows: Any) -> tuple[dict[str, str], list[str]]:
    """Return the name of the label that each figure of one label is of, and sentences that say it."""
    labels, default = rows.labels, rows.metric_defaults.get("pos_label")
    names: dict[int, list[str]] = {}
    for name, figure in figures.items():
        if figure.positive_label is not None:
            names.setdefault(figure.positive_label, []).append(name)
    classes = {label: labels[label] if label in range(len(labels)) else str(label) for label in names}
    source = rows.positive_source
    sources = {label: source if label == default else "as metric_args says" for label in names}
    sentences = [
        f"{', '.join(several)}: the positive class is `{classes[label]}`, {sources[label]}"
        for label, several in names.items()
    ]
    return {name: classes[label] for label, several in names.items() for name in several}, sentences


def compare(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """How sure each figure of the predictions is and, where a baseline is given, how it differs from the baseline's."""
    from benchcard.evaluation.rows import Rows, metric_inputs
    from benchcard.metrics import examples, uncertainty

    rows = Rows(needs["inputs"].folder)
    mine = metric_inputs(rows, needs["predictions"].folder)
    theirs = metric_inputs(rows, needs["baseline"].folder) if "baseline" in needs else None
    told: dict[str, Any] = {}
    for number, name in enumerate(asked["metrics"]):
        found, against = (
            examples.examples_of(name, given, extra.get("scripts", {}).get(name)) if given else {}
            for given in (mine, theirs)
        )
        for figure, model in found.items():
            baseline = against.get(figure)
            models = asked.get("models", 1)
            compared = uncertainty.paired_test(baseline, model, asked["seed"], models=models) if baseline else None
            told[figure] = uncertainty.figure_uncertainty(
                uncertainty.interval(model, asked["seed"]), compared
            ).as_dict()
        progress(number + 1, len(asked["metrics"]))
    changed = uncertainty.count_changed(theirs.predictions, mine.predictions) if theirs else None
    return {"figures": told, "predictions_changed": changed}
