"""The numbers that a graph stores its weights in: 8-bit integers, float16, blocks of 4 bits, and the like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import onnx
from onnx import TensorProto

from benchcard.graphs.files import load_model
from benchcard.graphs.graph import attribute_value
from benchcard.graphs.traversal import all_nodes, all_tensors

# The element types of weights, and their bits. Other integers are shapes, indices and biases.
_BITS: Mapping[str, int] = MappingProxyType(
    {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16, "int8": 8, "uint8": 8}
    | {"float8": 8, "int4": 4, "uint4": 4, "fp4": 4, "nf4": 4, "int2": 2, "uint2": 2}
)
_NAMES = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}
# Operators of ONNX Runtime whose first weight, this input, is packed into bytes.
# Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
_PACKED = {"MatMulNBits": 1, "MatMulBnb4": 1, "GatherBlockQuantized": 0}
_BNB4 = ("fp4", "nf4")
# Less than this share of the weights does not name a graph: scales, layer norms, biases.
_LEAST_SHARE = 0.1


@dataclass(frozen=True)
class Weights:
    """What the weights of a graph are stored in.

    Attributes:
        counts: The number of weights by the name of their numbers, as `int8`.
        bits: The bits that are stored for a weight on average, scales and zero points included.
    """

    counts: Mapping[str, int]
    bits: float

    @property
    def kinds(self) -> tuple[str, ...]:
        """The numbers that at least a tenth of the weights are stored in, those of the fewest bits first."""
        least = _LEAST_SHARE * sum(self.counts.values())
        return tuple(sorted((name for name, count in self.counts.items() if count >= least), key=lambda n: _BITS[n]))

    @property
    def dtype(self) -> str:
        """These numbers in words: `int4+float16`."""
        return "+".join(self.kinds)

    @property
    def fewest_bits(self) -> int:
        """The bits of the coarsest of these numbers."""
        return _BITS[self.kinds[0]]


def read_weights(path: Path) -> Weights | None:
    """Return what the weights in an ONNX file are stored in; None where it has none. External data is not read.

    Raises:
        ArtifactError: The file cannot be read as an ONNX model.
    """
    model = load_model(path)
    packed = dict(_packed(model.graph))
    scales = {name for node in all_nodes(model.graph) for name in _scales(node)} - packed.keys()
    counts: dict[str, int] = {}
    stored = 0
    for tensor in all_tensors(model.graph):
        name = packed.get(tensor.name) or _name(tensor)
        if name is None:
            continue
        elements = math.prod(tensor.dims)
        if tensor.name in packed and tensor.data_type == TensorProto.UINT8:
            elements = elements * 8 // _BITS[name]
        stored += elements * _BITS[name]
        if tensor.name not in scales:
            counts[name] = counts.get(name, 0) + elements
    return Weights(counts, stored / sum(counts.values())) if sum(counts.values()) else None


def _name(tensor: TensorProto) -> str | None:
    name = _NAMES.get(tensor.data_type) or TensorProto.DataType.Name(tensor.data_type).lower()
    name = "float8" if name.startswith("float8") else name
    return name if name in _BITS else None


def _packed(graph: onnx.GraphProto) -> Iterator[tuple[str, str]]:
    """Yield the weights that are packed into bytes, with the name of their numbers."""
    for node in all_nodes(graph):
        place = _PACKED.get(node.op_type)
        if place is not None and len(node.input) > place:
            if node.op_type == "MatMulBnb4":
                yield node.input[place], _BNB4[bool(attribute_value(node, "quant_type", 1))]
            else:
                name = f"int{attribute_value(node, 'bits', 4)}"
                if name in _BITS:
                    yield node.input[place], name


def _scales(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the inputs of a node that are scales and zero points of its weights."""
    if node.op_type in _PACKED:
        yield from node.input[_PACKED[node.op_type] + 1 :]
    elif node.op_type == "DequantizeLinear":
        yield from node.input[1:]
