"""Tiny text models with real tokenizers, and the way through a task in this process, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchcard import testing

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
    scored: dict[str, Any]
    prepared: Path
    facts: dict[str, str]


def asked_of(task: str, **more: Any) -> dict[str, Any]:
    """What the step that prepares rows is asked."""
    asked = {
        "name": None,
        "split": "validation",
        "max_samples": None,
        "task": task,
        "data_keys": None,
        "ref_keys": None,
        "task_args": None,
    }
    return {**asked, **more}


def prepare(task: str, model: Path, data: Path, target: Path, **asked: Any) -> dict[str, Any]:
    """The step `prepare`, in this process."""
    from benchcard.steps import data as data_

    target.mkdir(parents=True, exist_ok=True)
    extra = {"dataset": str(data), "revision": None, "model": str(model)}
    return data_.prepare(asked_of(task, **asked), {}, extra, target, lambda done, total: None)


def passed(
    task: str,
    model: Path,
    data: Path,
    target: Path,
    metrics: tuple[str, ...] = (),
    batch_size: int | None = None,
    **asked: Any,
) -> Passed:
    """The steps `prepare`, `evaluate` and `score` with PyTorch, in this process."""
    from benchcard.evaluation.rows import Rows, read_predictions
    from benchcard.steps import evaluate
    from benchcard.steps.step import Need

    told = prepare(task, model, data, target / "prepared", **asked)
    inputs = Need(target / "prepared", told)
    way = {"framework": "pytorch", "options": {"task": task}, "task": task, "batch_size": batch_size}
    (target / "predicted").mkdir()
    evaluated = evaluate.evaluate(
        way, {"inputs": inputs}, {"model": str(model), "threads": 1}, target / "predicted", lambda done, total: None
    )
    assert evaluated["items"] == told["items"]
    needs = {"inputs": inputs, "predictions": Need(target / "predicted", evaluated)}
    scored = evaluate.score({"metrics": list(metrics), "task": task}, needs, {}, target, lambda done, total: None)
    rows = Rows(target / "prepared")
    predictions, kept = read_predictions(target / "predicted")
    context, notes, facts = dict(rows.context), told["notes"], told.get("facts", {})
    return Passed(predictions, kept, rows.references, context, notes, scored, target / "prepared", facts)
