"""Prepared items as the inputs of one ONNX graph: its names, its element types, its batch size.

Used where a graph runs without a framework: in calibration, and where outputs of two graphs are compared. Leaves the
batches of an evaluation to `passes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import onnx

from benchcard.evaluation.features import Features
from benchcard.evaluation.passes import filled


@dataclass(frozen=True)
class Feeds:
    """The prepared items in a folder as inputs of a graph, read anew each time that they are iterated."""

    folder: Path
    model: Path

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return feeds(Features(self.folder), self.model)


def feeds(items: Features, model: Path, count: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of one run after the other: one item each, or a batch for a graph of a fixed batch size.

    A batch holds neighbors of equal shapes, the last of them repeated where there are too few. There is no padding: its
    masks would widen the ranges of activations, and a quantized graph may read it. The first `count` items are taken.
    """
    graph = onnx.load(str(model), load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    types = {value.name: value.type.tensor_type.elem_type for value in inputs}
    size = _batch_size(inputs)
    count = len(items) if count is None else min(len(items), count)
    for _, neighbors in groupby(range(count), lambda index: [array.shape for array in items.item(index).values()]):
        indices = list(neighbors)
        for start in range(0, len(indices), size):
            stacked = items.stacked(np.asarray(indices[start : start + size]))
            batch = filled(stacked, size - len(next(iter(stacked.values()), ())))
            yield {name: _as_type(batch[name], kind) for name, kind in types.items() if name in batch}


def _batch_size(inputs: Sequence[onnx.ValueInfoProto]) -> int:
    """Return the fixed batch size of a graph; 1 where it takes any."""
    sizes = {value.type.tensor_type.shape.dim[0].dim_value for value in inputs if value.type.tensor_type.shape.dim}
    return sizes.pop() if len(sizes) == 1 and min(sizes) > 0 else 1


def _as_type(array: np.ndarray, element_type: int) -> np.ndarray:
    """Return the array in an element type of ONNX; unchanged where the graph declares no numeric type."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(element_type) if element_type else array.dtype
    return array if dtype.kind not in "biuf" else np.ascontiguousarray(array, dtype=dtype)
