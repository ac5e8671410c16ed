"""The whole way through a task in this process: what `Benchmark.run` does in its children, without a run directory.

This module owns nothing of that way: the steps are those of `benchcard.actions`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.evaluation import padding
from benchcard.evaluation.rows import Rows, read_predictions
from benchcard.steps import data as steps
from benchcard.steps import evaluate as evaluation
from benchcard.steps import models
from benchcard.steps.data import PrepareRequest
from benchcard.steps.evaluate import EvaluateRequest, ScoreRequest
from benchcard.steps.models import ExportRequest
from benchcard.steps.step import Outcome
from benchcard.tasks import default_metrics


@dataclass(frozen=True)
class Passed:
    """What came of a pass.

    Attributes:
        predictions: One a row, as plain data.
        references: What is right, one a row.
        metrics: The figures, by the name of their column; None where one is not defined.
        notes: What a reader should know of rows and figures.
        kept: What was kept of the outputs, by name: one array an item.
    """

    predictions: Sequence[Any]
    references: Sequence[Any]
    metrics: Mapping[str, float | None]
    notes: Sequence[str]
    kept: Mapping[str, Any]


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
    task_args: Mapping[str, Any] | None = None,
    framework: str = "pytorch",
    batch_size: int | None = None,
) -> Passed:
    """The predictions and figures of a model, with rows on their way in and out as a run takes them.

    Args:
        task: The name of a task; registered ones too.
        model: The folder of a transformers model.
        data: A folder, or whatever else `dataset.path` may be.
        target: A folder that takes prepared rows and predictions.
        split: The split.
        metrics: Ids of metrics; the task's own where they are left out.
        data_keys: The columns that go in.
        ref_keys: The columns that hold what is right.
        task_args: Arguments of the task.
        framework: A framework that opens a transformers folder or, exported first, an ONNX graph.
        batch_size: Items in a forward call; None for what a run takes.

    Raises:
        SpecError: The data set, the model and the metrics do not fit.
        ArtifactError: The model cannot be loaded, or exported.
    """

    def silent(done: int, total: int) -> None:
        return None

    def folder(name: str) -> Path:
        (target / name).mkdir(parents=True, exist_ok=True)
        return target / name

    files: dict[str, Any] = {"model": {}, "model_folder": model}
    prepare = PrepareRequest(
        **files,
        dataset={},
        name=None,
        split=split,
        data_keys=data_keys,
        ref_keys=ref_keys,
        task=task,
        task_args=task_args,
        max_samples=None,
        location=str(data),
        revision=None,
        content=None,
        renamed="",
    )
    inputs = Outcome("prepare", "", target / "prepared", steps.prepare(prepare, folder("prepared"), silent))
    path = model
    if registry.framework(framework).format == "onnx":
        export = ExportRequest(**files, task=task, opset=None, from_transformers=True, file_name=None)
        path = folder("graph") / models.export(export, folder("graph"), silent).file
    evaluate = EvaluateRequest(
        model=None,
        framework=framework,
        options={"task": task},
        task=task,
        batch_size=batch_size,
        inputs=inputs,
        model_path=path,
        threads=1,
    )
    evaluated = evaluation.evaluate(evaluate, folder("predicted"), silent)
    names = list(metrics if metrics is not None else default_metrics(registry.task(task), task_args or {}))
    score = ScoreRequest(
        metrics=names,
        task=task,
        inputs=inputs,
        predictions=Outcome("evaluate", "", target / "predicted", evaluated),
        scripts={},
    )
    scored = evaluation.score(score, folder("scored"), silent)
    predictions, kept = read_predictions(target / "predicted")
    dependence = padding.NOTES.get(evaluated.batches or "")
    notes = [*inputs.values.notes, *scored.notes]
    notes += [f"the outputs of the model {dependence}"] if dependence else []
    return Passed(predictions, Rows(target / "prepared").references, scored.metrics, notes, kept)
