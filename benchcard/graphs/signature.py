"""The inputs that a graph takes: names, types and shapes, as its file or a session declares them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx
    import onnxruntime

LAYOUTS = ("NCHW", "NHWC")
"""The orders of the axes of images: batch, channels, height and width."""

# Types of ONNX Runtime whose names are not those of NumPy.
_RUNTIME_TYPES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class GraphInput:
    """An input of a graph. The dtype is None where it is not declared or not numeric, and so is each dynamic axis; the
    shape is None where the number of axes is not declared.
    """

    name: str
    dtype: np.dtype | None
    shape: tuple[int | None, ...] | None

    def cast(self, array: np.ndarray) -> np.ndarray:
        """Return the array in the type of the input."""
        return array if self.dtype is None else np.ascontiguousarray(array, dtype=self.dtype)


def graph_inputs(graph: onnx.GraphProto) -> tuple[GraphInput, ...]:
    """Return the inputs of a graph, without its weights, which old graphs list among them."""
    # Not above: a process that times a session imports this module, too.
    import onnx

    weights = {weight.name for weight in graph.initializer}
    inputs = []
    for value in graph.input:
        if value.name not in weights:
            kind = value.type.tensor_type
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else None
            sizes = [size.dim_value for size in kind.shape.dim] if kind.HasField("shape") else None
            inputs.append(_input(value.name, dtype, sizes))
    return tuple(inputs)


def session_inputs(session: onnxruntime.InferenceSession) -> tuple[GraphInput, ...]:
    """Return the inputs of the graph in a session."""
    return tuple(_input(entry.name, _dtype(entry.type), entry.shape) for entry in session.get_inputs())


def only_batch_size(inputs: Iterable[GraphInput]) -> int | None:
    """Return the batch size of a graph that takes only one; None where it takes any."""
    return _only(entry.shape[0] for entry in inputs if entry.shape)


def only_length(inputs: Iterable[GraphInput]) -> int | None:
    """Return the number of tokens of a graph that takes only one; None where it takes any, or no tokens."""
    tokens = [entry.shape for entry in inputs if entry.dtype is not None and entry.dtype.kind in "iub" and entry.shape]
    return _only(shape[1] for shape in tokens if len(shape) == 2)


def _only(sizes: Iterable[int | None]) -> int | None:
    distinct = set(sizes)
    return distinct.pop() if len(distinct) == 1 else None


def _input(name: str, dtype: np.dtype | None, sizes: Sequence[object] | None) -> GraphInput:
    shape = None if sizes is None else tuple(size if isinstance(size, int) and size > 0 else None for size in sizes)
    return GraphInput(name, dtype if dtype is not None and dtype.kind in "biuf" else None, shape)


def _dtype(kind: str) -> np.dtype | None:
    """Return the dtype of a type of ONNX Runtime such as `tensor(float)`; None where NumPy has none."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    try:
        return np.dtype(_RUNTIME_TYPES.get(name, name))
    except TypeError:
        return None
