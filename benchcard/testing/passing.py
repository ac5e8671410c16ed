"""The evaluation of a model in this process: the steps of a run without child processes and a run directory.

Leaves the steps themselves to `steps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchcard import registry
from benchcard.evaluation import padding
from benchcard.evaluation.rows import Rows, read_predictions
from benchcard.steps import data as data_
from benchcard.steps import evaluate, models
from benchcard.steps.step import Need
from benchcard.tasks import default_metrics


@dataclass(frozen=True)
class Passed:
    """The result of an evaluation.

    Attributes:
        predictions: The prediction of each row, as plain data.
        references: The reference of each row, as plain data.
        metrics: The metrics, by the name of their column; None where one is not defined.
        notes: Notes on the rows and the metrics.
        kept: The outputs that the task keeps, by name: one array per item.
    """

    predictions: Sequence[object]
    references: Sequence[object]
    metrics: Mapping[str, float | None]
    notes: Sequence[str]
    kept: Mapping[str, object]


def pass_through(
    task: str,
    model: Path,
    data: Path,
    target: Path,
    *,
    split: str = "validation",
    metrics: Sequence[str] | None = None,
    data_keys: Mapping[str, str] | None = None,
    ref_keys: Sequence[str] | None = None,
    task_args: Mapping[str, object] | None = None,
    framework: str = "pytorch",
    batch_size: int | None = None,
) -> Passed:
    """Evaluate a model on a data set with the steps of a run, and return its predictions and metrics.

    Args:
        task: The name of a task, built in or registered.
        model: The folder of a transformers model.
        data: A folder, or any other value of `dataset.path`.
        target: The folder to write prepared rows and predictions into.
        split: The split.
        metrics: Ids of metrics; by default those of the task.
        data_keys: The input columns.
        ref_keys: The columns of the references.
        task_args: Arguments of the task.
        framework: A framework that opens a transformers folder, or an ONNX graph, which is exported first.
        batch_size: The number of items of a forward call; None for the default of a run.

    Raises:
        SpecError: The data set, the model and the metrics do not fit together.
        ArtifactError: The model cannot be loaded or exported.
    """

    def ignore(done: int, total: int) -> None:
        return None

    def folder(name: str) -> Path:
        (target / name).mkdir(parents=True, exist_ok=True)
        return target / name

    request: dict[str, object] = {"name": None, "split": split, "max_samples": None, "task": task}
    request |= {"data_keys": data_keys, "ref_keys": ref_keys, "task_args": task_args}
    locations = {"dataset": str(data), "revision": None, "model": str(model)}
    rows = data_.prepare(request, {}, locations, folder("prepared"), ignore)
    inputs = Need(target / "prepared", rows)
    file = str(model)
    if registry.framework(framework).format == "onnx":
        graph = {"from_transformers": True, "task": task, "opset": None}
        file = str(folder("graph") / models.export(graph, {}, locations, folder("graph"), ignore)["file"])
    settings = {"framework": framework, "options": {"task": task}, "task": task, "batch_size": batch_size}
    outcome = evaluate.evaluate(
        settings, {"inputs": inputs}, {"model": file, "threads": 1}, folder("predicted"), ignore
    )
    needs = {"inputs": inputs, "predictions": Need(target / "predicted", outcome)}
    names = list(metrics if metrics is not None else default_metrics(registry.task(task), task_args or {}))
    scores = evaluate.score({"metrics": names, "task": task}, needs, {}, folder("scored"), ignore)
    predictions, kept = read_predictions(target / "predicted")
    dependence = padding.NOTES.get(outcome["batches"])
    notes = [*rows["notes"], *scores["notes"], *([f"the outputs of the model {dependence}"] if dependence else [])]
    return Passed(predictions, Rows(target / "prepared").references, scores["metrics"], notes, kept)
