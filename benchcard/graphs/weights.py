"""How many weights a graph stores, in which numbers, and in how many bits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnx import NodeProto, TensorProto

from benchcard.graphs.files import load_model
from benchcard.graphs.graph import attribute_value
from benchcard.graphs.traversal import all_nodes, all_tensors

# Numbers that are no weights: shapes, indices and masks.
_NO_WEIGHTS = ("int64", "bool", "string", "undefined")
# The names of types of ONNX that are not NumPy's.
_NAMES = {"float": "float32", "double": "float64", "float4e2m1": "fp4"}
# The first input of an operator that is a scale, a zero point or a table of levels.
_FIRST_SCALE = {
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), 1),
    **dict.fromkeys(("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized"), 2),
}
_BNB4 = ("fp4", "nf4")
# Numbers of less than this share of the weights are not named: layer norms, biases.
_LEAST_SHARE = 0.1


@dataclass(frozen=True)
class StoredWeights:
    """The number of weights of a model, the bits that they take, with their scales and zero points, and the number of
    weights by the kind of numbers that they are stored in, as `int8`.
    """

    count: int
    bits: int
    kinds: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def bits_per_weight(self) -> float:
        """The bits of a weight on average."""
        return self.bits / self.count

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers that at least a tenth of the weights are stored in, those of the fewest bits first."""
        least = _LEAST_SHARE * self.count
        return tuple(sorted((name for name, count in self.kinds.items() if count >= least), key=_bits))

    @property
    def dtype(self) -> str:
        """These numbers in words: `int4+float16`."""
        return "+".join(self.names)

    @property
    def fewest_bits(self) -> int:
        """The bits of the coarsest of these numbers."""
        return _bits(self.names[0])


def stored_weights(path: Path) -> StoredWeights:
    """Return what the graph in a file stores. External weights are not read.

    Raises:
        ArtifactError: The file cannot be read as an ONNX model.

    Source: the inputs and attributes of `MatMulNBits`, `MatMulBnb4` and `GatherBlockQuantized` in ContribOperators.md
    of ONNX Runtime, whose weights share bytes.
    """
    graph = load_model(path).graph
    packed: dict[str, tuple[str, int | None]] = {}
    for node in all_nodes(graph):
        packed |= dict(_special_tensors(node))
    kinds: dict[str, int] = {}
    bits = 0
    for tensor in all_tensors(graph):
        stored_as = _name(tensor.data_type)
        if stored_as in _NO_WEIGHTS:
            continue
        size = math.prod(tensor.dims)
        bits += size * _bits(stored_as)
        name, count = packed.get(tensor.name, (stored_as, None)) if tensor.name else (stored_as, None)
        if count is None:
            count = size * _bits(stored_as) // _bits(name)
        kinds[name] = kinds.get(name, 0) + count
    return StoredWeights(sum(kinds.values()), bits, kinds)


def _special_tensors(node: NodeProto) -> Iterator[tuple[str, tuple[str, int | None]]]:
    """Yield the tensors of a node whose elements are not one weight each, with the kind and the number of the weights;
    the number is None where it follows from the size of the tensor and the bits of a weight.
    """
    if node.op_type not in _FIRST_SCALE:
        return
    for name in node.input[_FIRST_SCALE[node.op_type] :]:
        yield name, ("float32", 0)
    sizes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "MatMulNBits":
        yield node.input[1], (f"int{sizes.get('bits', 4)}", sizes["K"] * sizes["N"])
    elif node.op_type == "MatMulBnb4":
        yield node.input[1], (_BNB4[bool(attribute_value(node, "quant_type", 1))], sizes["K"] * sizes["N"])
    elif node.op_type == "GatherBlockQuantized":
        yield node.input[0], (f"int{sizes.get('bits', 4)}", None)


def _name(data_type: int) -> str:
    name: str = TensorProto.DataType.Name(data_type).lower()
    return _NAMES.get(name, name)


def _bits(name: str) -> int:
    """Return the bits of a kind of numbers, which are in its name; 0 where a framework names a kind without them."""
    return 8 if name.startswith("float8") else int("".join(filter(str.isdigit, name)) or 0)
