"""Prepared items as one graph takes them: the inputs that it has, in its element types, in batches of the size that it
takes.

Owns what is handed to a graph in calibration and where its outputs are compared, where no framework opens it. How a
pass over the evaluation set feeds a model is `passes`'s and the framework's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchcard.evaluation.features import Features
from benchcard.evaluation.passes import filled


def feeds(items: Features, model: Path, number: int | None = None) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield inputs by name for run after run: one item each, or as many as a graph of one batch size takes. These are
    neighbours of equal shapes, the last of them repeated where there are too few: no run has padding, whose masks would
    widen the ranges of activations, and which a quantized graph may read.

    Args:
        items: The prepared items, taken in their order.
        model: The graph.
        number: How many items, the first ones; None for all.
    """
    graph = onnx.load(str(model), load_external_data=False).graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    types = {value.name: value.type.tensor_type.elem_type for value in inputs}
    size = _batch_size(inputs)
    count = len(items) if number is None else min(len(items), number)
    for _, alike in groupby(range(count), lambda place: [array.shape for array in items.item(place).values()]):
        places = list(alike)
        for start in range(0, len(places), size):
            batch = items.stacked(np.asarray(places[start : start + size]))
            given = filled(batch, size - len(next(iter(batch.values()), ())))
            yield {name: _as(given[name], kind) for name, kind in types.items() if name in given}


def _batch_size(inputs: list[onnx.ValueInfoProto]) -> int:
    """The batch size of a graph that takes no other one; 1 where it takes any."""
    first = {value.type.tensor_type.shape.dim[0].dim_value for value in inputs if value.type.tensor_type.shape.dim}
    return first.pop() if len(first) == 1 and min(first) > 0 else 1


def _as(array: NDArray[Any], kind: int) -> NDArray[Any]:
    """The array in an element type of ONNX; as it is where the graph declares none that numbers have."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind) if kind else array.dtype
    return array if dtype.kind not in "biuf" else np.ascontiguousarray(array, dtype=dtype)
