"""The evaluation of a model in this process: the steps of a run without child processes and a run directory.

Leaves the steps themselves to `steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.evaluation import padding
from benchcard.evaluation.rows import Rows, metric_inputs, read_predictions
from benchcard.steps import data as steps
from benchcard.steps import evaluate as evaluation
from benchcard.steps import models
from benchcard.steps.step import AnyRequest, Outcome
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

    def do(step: Callable[..., Any], request: AnyRequest) -> Outcome[Any]:
        folder = target / request.kind
        folder.mkdir(parents=True, exist_ok=True)
        return Outcome(request.kind, "", folder, step(request, folder, lambda _done, _total: None))

    # All rows of the data set as it is.
    prepare = steps.PrepareRequest(
        model={},
        model_folder=model,
        dataset={},
        name=None,
        revision=None,
        content=None,
        data_keys=data_keys,
        ref_keys=ref_keys,
        location=str(data),
        max_samples=None,
        split=split,
        task=task,
        task_args=task_args,
    )
    inputs = do(steps.prepare, prepare)
    path = model
    if registry.framework(framework).format == "onnx":
        export = models.ExportRequest(
            model={}, model_folder=model, task=task, opset=None, from_transformers=True, file_name=None
        )
        exported = do(models.export, export)
        path = exported.folder / exported.values.file
    evaluate = evaluation.EvaluateRequest(
        model=None,
        framework=framework,
        options={"task": task},
        task=task,
        batch_size=batch_size,
        inputs=inputs,
        model_path=path,
        threads=1,
    )
    evaluated = do(evaluation.evaluate, evaluate)
    names = list(metrics if metrics is not None else default_metrics(registry.task(task), task_args or {}))
    score = evaluation.ScoreRequest(metrics=names, task=task, inputs=inputs, predictions=evaluated, scripts={})
    scored = do(evaluation.score, score).values
    rows, (_, kept) = Rows(inputs.folder), read_predictions(evaluated.folder)
    predictions = metric_inputs(rows, evaluated.folder, registry.task(task)).predictions
    dependence = padding.NOTES.get(evaluated.values.batches or "")
    notes = [*inputs.values.notes, *scored.notes]
    notes += [f"the outputs of the model {dependence}"] if dependence else []
    return Passed(predictions, rows.references, scored.metrics, notes, kept)
