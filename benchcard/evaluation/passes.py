"""One pass of a model over prepared rows: what it answers to each, how long that takes, and what a call of it runs.

This module owns the batches of a pass and its clock. What the answers become is the task's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchcard.evaluation import padding
from benchcard.evaluation.rows import Rows
from benchcard.frameworks.protocol import only_batch_size
from benchcard.tasks import Task

if TYPE_CHECKING:
    from benchcard.frameworks import Kernel, Model


@dataclass(frozen=True)
class Pass:
    """What a pass came to.

    Attributes:
        kept: For each item what the task keeps of the outputs.
        predictions: For each row, in their order.
        elapsed_ns: From the first batch to the last prediction.
        forward_ns: Of these, inside the model.
        kernels: What a call with the longest item alone runs; empty where the model cannot say.
        batches: What batches were made of, as `Probe.batches` says; None where batches of one were asked for.
    """

    kept: list[dict[str, Any]]
    predictions: list[Any]
    elapsed_ns: int
    forward_ns: int
    kernels: tuple[Kernel, ...]
    batches: str | None


def run_pass(
    model: Model,
    rows: Rows,
    task: Task,
    batch_size: int | None,
    progress: Callable[[int, int], None],
    *,
    profiled: bool,
) -> Pass:
    """Run the model on every row, each of which gets the outputs that it gets alone, whatever shares a batch with it.

    Args:
        model: The opened model. One that takes one batch size alone is given that many items.
        rows: The rows.
        task: The task.
        batch_size: Items in a batch; None for what fits. Batches are smaller where the model's outputs depend on them.
        progress: Called after each batch with items done and items in all.
        profiled: Whether the model was opened to be asked what it runs.
    """
    items, only = rows.items, only_batch_size(model)
    kernels = _first_calls(model, rows, only or 1, profiled)
    size = batch_size or only

    def call(batch: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The outputs for a batch that may be smaller than what the model takes."""
        count = len(next(iter(batch.values()), ()))
        outputs = model(filled(batch, only - count) if only else batch)
        return {name: values[:count] for name, values in outputs.items()} if only else outputs

    batches = None
    if size != 1:

        def keep(outputs: Any, inputs: Any) -> Any:
            return task.kept(outputs, inputs, rows.context)

        batches = padding.probe(call, items, keep, size).batches
        size = 1 if batches in (padding.ALONE, padding.RANDOM) else size
    kept: list[dict[str, Any]] = [{} for _ in range(len(items))]
    forward, done, started = 0, 0, time.perf_counter_ns()
    for places, batch in items.batches(size, padded=batches != padding.EQUAL_SHAPES):
        begun = time.perf_counter_ns()
        outputs = call(batch)
        forward += time.perf_counter_ns() - begun
        for name, values in task.kept(outputs, batch, rows.context).items():
            for place, value in zip(places, values):
                kept[place][name] = value
        done += len(places)
        progress(done, len(items))
    predictions = rows.predictions(task, kept)
    return Pass(kept, predictions, time.perf_counter_ns() - started, forward, kernels, batches)


def _first_calls(model: Any, rows: Rows, batch_size: int, profiled: bool) -> tuple[Kernel, ...]:
    """What a call with the longest item runs, as far as the model can say. Either way it has been called before the
    clock runs, since a first call pays for what is done once.
    """
    if not len(rows.items):
        return ()
    _, item = next(rows.items.batches(1))
    first = filled(item, batch_size - 1)
    found: tuple[Kernel, ...] = model.kernels(first) if profiled else ()
    if not found:
        model(first)
    return found


def filled(batch: Mapping[str, NDArray[Any]], missing: int) -> Mapping[str, NDArray[Any]]:
    """The batch with its last item repeated, as many times as items are missing."""
    if missing <= 0:
        return batch
    return {name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for name, array in batch.items()}
