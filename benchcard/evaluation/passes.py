"""One pass of a model over prepared rows: predictions, the time they take, and the kernels of a call.

Owns the batches of a pass and its clock. Leaves predictions to the task.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from benchcard.evaluation import padding
from benchcard.evaluation.features import Features
from benchcard.evaluation.rows import Rows
from benchcard.frameworks.protocol import only_size
from benchcard.tasks import Task

if TYPE_CHECKING:
    from benchcard.frameworks import Kernel, Model, ProfiledModel
    from benchcard.tasks.protocol import Arrays, Kept

    Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Pass:
    """The result of a pass.

    Attributes:
        elapsed_ns: Time from the first batch to the last prediction.
        forward_ns: The part of it inside the model.
        kernels: What a call with the longest item alone runs; empty where the framework cannot tell.
        batches: How batches were made, as in `Probe.batches`; None for a batch size of one.
    """

    kept: list[dict[str, np.ndarray]]
    predictions: list[object]
    elapsed_ns: int
    forward_ns: int
    kernels: tuple[Kernel, ...]
    batches: str | None


def run_pass(
    model: Model, rows: Rows, task: Task, batch_size: int | None, progress: Progress, *, profiled: bool
) -> Pass:
    """Run the model, a `ProfiledModel` where `profiled`, on every row.

    Batches are made such that each item has the outputs that it has alone: they have fewer items than `batch_size`, or
    than fit, where outputs depend on the batch. A model of a fixed batch size always gets that many items, and
    one of a fixed length gets them padded to it. `progress` is called after each batch with the number of items done,
    and of all items.
    """
    items, fixed = rows.items.padded_to(only_size(model, "input_length")), only_size(model, "batch_size")
    kernels = _first_call(model, items, fixed or 1, profiled)
    size = batch_size or fixed

    def call(batch: Arrays) -> Arrays:
        """Return the outputs for a batch, which may be smaller than the fixed batch size."""
        count = len(next(iter(batch.values()), ()))
        outputs = model(filled(batch, fixed - count) if fixed else batch)
        return {name: values[:count] for name, values in outputs.items()} if fixed else outputs

    def keep(outputs: Arrays, inputs: Arrays) -> Kept:
        return task.kept(outputs, inputs, rows.context)

    batches = None
    if size != 1:
        batches = padding.probe(call, items, keep, size).batches
        size = 1 if batches in (padding.ALONE, padding.RANDOM) else size
    kept: list[dict[str, np.ndarray]] = [{} for _ in range(len(items))]
    forward, done, started = 0, 0, time.perf_counter_ns()
    for indices, batch in items.batches(size, padded=batches != padding.EQUAL_SHAPES):
        called = time.perf_counter_ns()
        outputs = call(batch)
        forward += time.perf_counter_ns() - called
        for name, values in keep(outputs, batch).items():
            for index, value in zip(indices, values):
                kept[index][name] = value
        done += len(indices)
        progress(done, len(items))
    predictions = rows.predictions(task, kept)
    return Pass(kept, predictions, time.perf_counter_ns() - started, forward, kernels, batches)


def _first_call(model: Model, items: Features, batch_size: int, profiled: bool) -> tuple[Kernel, ...]:
    """Call the model with the longest item, and return the kernels of the call where the framework can tell.

    The first call of a model pays for initializations, so it is made before the clock runs.
    """
    if not len(items):
        return ()
    _, item = next(items.batches(1))
    inputs = filled(item, batch_size - 1)
    kernels = cast("ProfiledModel", model).kernels(inputs) if profiled else ()
    if not kernels:
        model(inputs)
    return kernels


def filled(batch: Arrays, missing: int) -> Arrays:
    """Return the batch with its last item repeated, as often as items are missing."""
    if missing <= 0:
        return batch
    return {name: np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for name, array in batch.items()}
