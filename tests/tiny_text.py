"""Tiny text models with real tokenizers, and the way through a task in this process, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchcard import testing
from benchcard.metrics.info import FigureUncertainty
from benchcard.steps import data as data_steps
from benchcard.steps.data import PrepareRequest, RowsOutcome
from benchcard.steps.evaluate import EvaluateRequest, ScoreOutcome
from benchcard.steps.step import Outcome

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] a the good bad dull bright film "
    "anna bob lives in paris rome works for acme ##s ##ing"
)
SPECIAL = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def write_tokenizer(folder: Path, maximum: int = 32, **settings: Any) -> Any:
    """A WordPiece tokenizer of two dozen words, with [CLS] and [SEP], token types, and padding."""
    return testing.write_tokenizer(folder, WORDS.split(), maximum=maximum, **settings)


def write_model(folder: Path, kind: str, labels: list[str] | None = None, **settings: Any) -> Path:
    """A seeded two-layer BERT with large weights, so that tokens tell: `kind` is the end of its class's name, as
    `ForTokenClassification`.
    """
    model = testing.text_model(kind, len(WORDS.split()), labels=labels, **{"max_position_embeddings": 32, **settings})
    model.save_pretrained(folder)
    return folder


def write_data(folder: Path, columns: dict[str, list[Any]], features: Any = None) -> Path:
    """A parquet folder with one split, `validation`."""
    return testing.write_data(folder, {"validation": columns}, features)


@dataclass(frozen=True)
class Passed:
    """What a pass through a task gave."""

    predictions: list[Any]
    kept: dict[str, Any]
    references: list[Any]
    context: dict[str, Any]
    notes: list[str]
    scored: ScoreOutcome
    prepared: Path
    facts: dict[str, str]


def rows_request(task: str, model: Path, data: Path, kind: type = PrepareRequest, **fields: Any) -> Any:
    """Return the request for rows of a data set."""
    defaults: dict[str, Any] = {"name": None, "split": "validation", "data_keys": None, "ref_keys": None}
    defaults |= {"task_args": None, "revision": None, "content": None}
    defaults |= {"max_samples": None} if kind is PrepareRequest else {}
    where = {"location": str(data), "model_folder": model, "dataset": {}, "model": {}}
    return kind(**{**defaults, **where, "task": task, **fields})


def prepare(task: str, model: Path, data: Path, target: Path, **fields: Any) -> RowsOutcome:
    """Do the step `prepare` in this process."""
    target.mkdir(parents=True, exist_ok=True)
    return data_steps.prepare(rows_request(task, model, data, **fields), target, lambda done, total: None)


def evaluate_request(task: str, prepared: Path, model: Path, **fields: Any) -> EvaluateRequest:
    """Return the request for the predictions of a model over prepared rows."""
    defaults: dict[str, Any] = {"model": None, "framework": "pytorch", "options": {"task": task}, "batch_size": None}
    inputs: Outcome[Any] = Outcome("prepare", "", prepared, None)
    return EvaluateRequest(**{**defaults, "task": task, "inputs": inputs, "model_path": model, "threads": 1, **fields})


def compared(task: str, prepared: Path, predicted: Path, target: Path, metric: str, seed: int = 0) -> FigureUncertainty:
    """Do the step `compare` in this process, and return the interval of a metric."""
    from benchcard.steps import evaluate

    inputs: Outcome[Any] = Outcome("prepare", "", prepared, None)
    predictions: Outcome[Any] = Outcome("evaluate", "", predicted, None)
    request = evaluate.CompareRequest(
        metrics=[metric], task=task, seed=seed, inputs=inputs, predictions=predictions, scripts={}
    )
    return evaluate.compare(request, target, lambda done, total: None).figures[metric]


def passed(
    task: str,
    model: Path,
    data: Path,
    target: Path,
    metrics: tuple[str, ...] = (),
    batch_size: int | None = None,
    graph: Path | None = None,
    **fields: Any,
) -> Passed:
    """Do the steps `prepare`, `evaluate` and `score` in this process, with PyTorch, or ONNX Runtime for a graph."""
    from benchcard.evaluation.rows import Rows, read_predictions
    from benchcard.steps import evaluate

    def silent(done: int, total: int) -> None:
        return None

    prepared = prepare(task, model, data, target / "prepared", **fields)
    inputs = Outcome("prepare", "", target / "prepared", prepared)
    (target / "predicted").mkdir()
    runs: dict[str, Any] = {"framework": "onnxruntime" if graph else "pytorch", "batch_size": batch_size}
    request = evaluate_request(task, target / "prepared", graph or model, **runs)
    evaluated = evaluate.evaluate(request, target / "predicted", silent)
    assert evaluated.items == prepared.items
    predictions = Outcome("evaluate", "", target / "predicted", evaluated)
    score = evaluate.ScoreRequest(metrics=metrics, task=task, inputs=inputs, predictions=predictions, scripts={})
    scored = evaluate.score(score, target, silent)
    rows = Rows(target / "prepared")
    predicted, kept = read_predictions(target / "predicted")
    context, notes, facts = dict(rows.context), list(prepared.notes), dict(prepared.facts)
    return Passed(predicted, kept, rows.references, context, notes, scored, target / "prepared", facts)
