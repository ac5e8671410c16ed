"""Prepared items as the inputs of one ONNX graph: its names, its element types, its batch size.

Used where a graph runs without a framework: in calibration, and where outputs of two graphs are compared. Leaves the
batches of an evaluation to `passes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import onnx

from benchcard.evaluation.features import Features
from benchcard.evaluation.passes import filled
from benchcard.graphs.cache import feed
from benchcard.graphs.signature import graph_inputs, only_batch_size, only_length


@dataclass(frozen=True)
class Feeds:
    """The prepared items in a folder as inputs of a graph, read anew each time that they are iterated."""

    folder: Path
    model: Path

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return feeds(Features(self.folder), self.model)


def feeds(items: Features, model: Path, count: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of one run after the other: one item each, or a batch for a graph of a fixed batch size.

    A batch holds neighbors of equal shapes, the last of them repeated where there are too few. There is no padding, as
    its masks would widen the ranges of activations, and a quantized graph may read it; except for a graph of a fixed
    length, which always has it. The first `count` items are taken.
    """
    inputs = graph_inputs(onnx.load(str(model), load_external_data=False).graph)
    size, items = only_batch_size(inputs) or 1, items.padded_to(only_length(inputs))
    count = len(items) if count is None else min(len(items), count)
    for _, neighbors in groupby(range(count), lambda index: [array.shape for array in items.item(index).values()]):
        indices = list(neighbors)
        for start in range(0, len(indices), size):
            stacked = items.stacked(np.asarray(indices[start : start + size]))
            batch = filled(stacked, size - len(next(iter(stacked.values()), ())))
            yield feed(inputs, batch)
