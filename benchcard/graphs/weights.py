"""How many weights a graph stores, and in how many bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import NodeProto, TensorProto

from benchcard.graphs.traversal import all_nodes, all_tensors

# Numbers that are no weights: shapes, indices and masks.
_NO_WEIGHTS = frozenset((TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING, TensorProto.UNDEFINED))
# Bits of the types that share a byte; others have those of their NumPy type.
_PACKED_BITS = {
    number: bits
    for name, bits in (("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2), ("UINT2", 2))
    if (number := getattr(TensorProto, name, None)) is not None
}
# The first input of an operator that is a scale, a zero point or a table of levels.
_FIRST_SCALE = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), 1),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"), 2),
}


@dataclass(frozen=True)
class StoredWeights:
    """The number of weights of a model, and the bits that they take, with their scales and zero points."""

    count: int
    bits: int


def stored_weights(path: Path) -> StoredWeights:
    """Return what the graph in a file stores. External weights are not read.

    Source: the inputs and attributes of `MatMulNBits`, `MatMulBnb4` and `GatherBlockQuantized` in ContribOperators.md
    of ONNX Runtime, whose weights share bytes.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    counts: dict[str, int] = {}
    for node in all_nodes(graph):
        counts |= dict(_special_counts(node))
    tensors = [tensor for tensor in all_tensors(graph) if tensor.data_type not in _NO_WEIGHTS]
    sizes = [(tensor, math.prod(tensor.dims)) for tensor in tensors]
    return StoredWeights(
        count=sum(counts.get(tensor.name, size) if tensor.name else size for tensor, size in sizes),
        bits=sum(size * _bits(tensor.data_type) for tensor, size in sizes),
    )


def _special_counts(node: NodeProto) -> Iterator[tuple[str, int]]:
    """Yield the tensors of a node whose elements are not one weight each, with their numbers of weights."""
    if node.op_type not in _FIRST_SCALE:
        return
    for name in node.input[_FIRST_SCALE[node.op_type] :]:
        yield name, 0
    sizes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type in ("MatMulNBits", "MatMulBnb4"):
        yield node.input[1], sizes["K"] * sizes["N"]


def _bits(data_type: int) -> int:
    return _PACKED_BITS.get(data_type) or 8 * onnx.helper.tensor_dtype_to_np_dtype(data_type).itemsize
