"""The steps `prepare`, `sample` and `shape`: rows of a data set, or generated inputs, as a model's inputs."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchcard import registry
from benchcard.errors import SpecError
from benchcard.steps.step import Asked, Needs, Progress


def prepare(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """The rows of the evaluation split as the model's inputs, with what is right for each."""
    from benchcard.tasks import data
    from benchcard.tasks.trust import trusting

    rows = data.load_dataset(extra["dataset"], asked["name"], asked["split"], extra["revision"], extra.get("content"))
    chosen, places = data.evenly_spaced(rows, asked["max_samples"])
    with trusting(asked.get("trust_remote_code", False)):
        return _inputs(
            asked, extra, target, progress, chosen, data.describe_rows(chosen, places, len(rows)), labelled=True
        )


def sample(asked: Asked, needs: Needs, extra: Asked, target: Path, progress: Progress) -> dict[str, Any]:
    """The drawn rows of the calibration split as the model's inputs."""
    from benchcard.tasks import data
    from benchcard.tasks.trust import trusting

    rows = data.load_dataset(extra["dataset"], asked["name"], asked["split"], extra["revision"], extra.get("content"))
    label = asked["ref_keys"][0] if asked["ref_keys"] else None
    chosen, places = data.stratified_sample(rows, asked["num_samples"], asked["seed"], label, asked["split"])
    about = data.describe_rows(chosen, places, len(rows))
    with trusting(asked.get("trust_remote_code", False)):
        return _inputs(asked, extra, target, progress, chosen, {**about, "rows": places}, labelled=False)


def _inputs(
    asked: Asked, extra: Asked, target: Path, progress: Progress, rows: Any, about: Asked, labelled: bool
) -> dict[str, Any]:
    from benchcard.evaluation.rows import write_rows
    from benchcard.spec.schema import MappingOf
    from benchcard.tasks import Question, data
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

    written = write_rows(prepared, target, tell)
    return {
        **about,
        "items": written.items,
        "fingerprint": data.fingerprint(rows),
        "preprocessing_ns": _preprocessing_ns(moments),
        "notes": [*told, *written.notes],
        **({"facts": dict(prepared.facts)} if prepared.facts else {}),
    }


def _preprocessing_ns(moments: list[int]) -> int:
    """Time for all rows, from the moments at which each was ready: the first one also pays for imports, and is taken
    to be like the others.
    """
    count = len(moments)
    return (moments[-1] - moments[0]) * count // (count - 1) if count > 1 else 0


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
