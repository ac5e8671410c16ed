"""How a graph is to be quantized, and which of its nodes the quantizer then acts on.

This module owns the parameters of one quantization and the rules by which ONNX Runtime's quantizer takes or leaves a
node, told without running it; the operators it knows are read from its own registries. The quantizing itself is in
`quantize`, where what was really quantized is read from the result; tests hold these rules against it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard.errors import ArtifactError
from benchcard.graphs.graph import Graph, attribute, graph_at
from benchcard.utils.text import did_you_mean, join_names

if TYPE_CHECKING:
    import onnx


APPROACHES = ("dynamic", "static")
FORMATS = ("QDQ", "QOperator")
DTYPES = ("int8", "uint8")

# Reasons for which a node stays in float32; the first is that there is none.
QUANTIZED = ""
EXCLUDED = "excluded"
NOT_FLOAT = "does not work on floating-point numbers"
DOUBLE = "works on float64, and only float32 and float16 are quantized"
NOT_CONSTANT = "its second input is no weight"
NOT_A_TABLE = "does not read from a weight"
INPUT_IN_FLOAT = "its input is not quantized"
NO_DYNAMIC_ATTENTION = "the runtime has a dynamic kernel for its own fused `Attention` only, not for the standard one"
NOT_PLAIN = "its attributes or inputs are none that the quantizer takes"
SHARED_INPUT = "others read its input too, and the quantizer would give both the same numbers"
READ_INSIDE = "the graph inside an `If` or a `Loop` reads it, which the quantizer does not see"


@dataclass(frozen=True)
class Quantization:
    """How to quantize one graph. None stands for what ONNX Runtime does when nobody says.

    Attributes:
        approach: "dynamic" (ranges of activations are computed in every forward pass) or "static" (they are given).
        operators_to_quantize: Operator types; None for all that the quantizer knows for the approach.
        nodes_to_exclude: Names of nodes that stay in float32.
        per_channel: One scale per output channel of a weight, where the operator allows it, instead of one per weight.
        reduce_range: Weights in 7 bits, so that sums of products cannot saturate on CPUs without VNNI.
        weights_dtype: "int8" or "uint8"; None is int8.
        activations_dtype: "int8" or "uint8"; None is int8. Dynamic activations are always uint8.
        quant_format: "QDQ" or "QOperator", for static; None is QDQ.
        weights_symmetric: Zero point in the middle; None follows the dtype: yes for int8, no for uint8.
        activations_symmetric: Zero point in the middle; None is no.
        matmul_const_b_only: Only `MatMul` whose second input is a weight; None is yes for dynamic, no for static.
    """

    approach: str
    operators_to_quantize: tuple[str, ...] | None = None
    nodes_to_exclude: tuple[str, ...] = ()
    per_channel: bool = False
    reduce_range: bool = False
    weights_dtype: str | None = None
    activations_dtype: str | None = None
    quant_format: str | None = None
    weights_symmetric: bool | None = None
    activations_symmetric: bool | None = None
    matmul_const_b_only: bool | None = None

    @property
    def const_b_only(self) -> bool:
        """Whether `MatMul` of two activations stays in float32."""
        return self.approach == "dynamic" if self.matmul_const_b_only is None else self.matmul_const_b_only

    @property
    def layout(self) -> str:
        """How the quantized graph is written: "dynamic", "QDQ" or "QOperator"."""
        return "dynamic" if self.approach == "dynamic" else self.quant_format or "QDQ"


def known_operators(approach: str) -> tuple[str, ...]:
    """The operator types that ONNX Runtime's quantizer knows for an approach, sorted.

    Raises:
        ArtifactError: There is no such approach.
    """
    from onnxruntime.quantization.registry import IntegerOpsRegistry, QDQRegistry, QLinearOpsRegistry

    _one_of("approach", approach, APPROACHES)
    registries = [IntegerOpsRegistry] if approach == "dynamic" else [QDQRegistry, QLinearOpsRegistry]
    return tuple(sorted({str(operator) for registry in registries for operator in registry}))


def kernels(how: Quantization) -> frozenset[str]:
    """The operator types that the quantizer acts on where they are asked for.

    QDQ puts a pair of quantize and dequantize nodes around any operator; the other layouts need a kernel for each.
    """
    from onnxruntime.quantization.registry import QLinearOpsRegistry

    if how.layout == "dynamic":
        return frozenset(known_operators("dynamic"))
    if how.layout == "QOperator":
        return frozenset(map(str, QLinearOpsRegistry))
    return frozenset(known_operators("static")) | frozenset(known_operators("dynamic"))


def asked_operators(how: Quantization) -> tuple[str, ...]:
    """The operator types asked for, sorted, each once."""
    if how.operators_to_quantize is None:
        return known_operators(how.approach)
    return tuple(sorted(set(how.operators_to_quantize)))


def check(how: Quantization) -> None:
    """Refuse parameters that say nothing, or that ONNX Runtime cannot do.

    Raises:
        ArtifactError: With every known operator and a near miss where an operator is unknown.
    """
    _one_of("approach", how.approach, APPROACHES)
    for name, value, choices in (
        ("weights_dtype", how.weights_dtype, DTYPES),
        ("activations_dtype", how.activations_dtype, DTYPES),
        ("quant_format", how.quant_format, FORMATS),
    ):
        if value is not None:
            _one_of(name, value, choices)
    known = sorted({*known_operators("dynamic"), *known_operators("static")})
    for operator in how.operators_to_quantize or ():
        if operator not in known:
            hint = did_you_mean(operator, known)
            raise ArtifactError(
                f"ONNX Runtime's quantizer knows no operator `{operator}`{f' ({hint})' if hint else ''}. "
                f"It knows {join_names(known)}."
            )
    if how.operators_to_quantize is not None and not how.operators_to_quantize:
        raise ArtifactError(
            "`operators_to_quantize` is empty. Name one operator or more, or none at all for every known one."
        )
    if how.approach == "static" and (how.activations_dtype or "int8") == "int8" and how.weights_dtype == "uint8":
        raise ArtifactError(
            "ONNX Runtime has no static kernels for int8 activations with uint8 weights. "
            "Take uint8 activations or int8 weights."
        )


def eligible(graph: Graph, how: Quantization) -> tuple[str, ...]:
    """Names of the nodes, in the graph's order, whose operator is asked for and that the approach has a kernel for."""
    types = kernels(how).intersection(asked_operators(how))
    return tuple(name for name, node in graph.nodes.items() if acts_as(node, how) in types and not _foreign(node, how))


def standings(graph: Graph, how: Quantization, excluded: Collection[str] = ()) -> Mapping[str, str]:
    """For every eligible node, in the graph's order: "" where it is quantized, else why it stays in float32.

    Args:
        graph: The graph before quantization.
        how: Its parameters, of which `nodes_to_exclude` is not read.
        excluded: Names of the nodes to exclude.
    """
    rule: Callable[[Graph, onnx.NodeProto, Quantization, set[str]], str] = {
        "QDQ": _qdq,
        "QOperator": _qoperator,
        "dynamic": _dynamic,
    }[how.layout]
    # What the quantizer has taken in so far decides on nodes that only pass numbers on, so the order of the graph
    # matters.
    taken: set[str] = set()
    found = {
        name: EXCLUDED
        if name in excluded
        else _unsafe(graph, graph.nodes[name], how) or rule(graph, graph.nodes[name], how, taken)
        for name in eligible(graph, how)
    }
    return MappingProxyType(found)


def quantized_nodes(model: Path, how: Quantization) -> tuple[str, ...]:
    """Names of the nodes of a float model that a quantization quantizes, in the graph's order."""
    graph = graph_at(model)
    return tuple(name for name, reason in standings(graph, how, how.nodes_to_exclude).items() if reason == QUANTIZED)


def guarded(graph: Graph, how: Quantization) -> tuple[str, ...]:
    """Names of the nodes to keep the quantizer from, because it would break the graph or overlook a parameter."""
    # The QDQ quantizer does not read `MatMulConstBOnly`.
    constant_only = how.layout == "QDQ" and how.const_b_only
    return tuple(
        name
        for name, node in graph.nodes.items()
        if _foreign(node, how)
        or _unsafe(graph, node, how)
        or (constant_only and node.op_type == "MatMul" and node.input[1] not in graph.weights)
    )


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise ArtifactError(f"`{name}` is `{value}`{f' ({hint})' if hint else ''}. It may be {join_names(choices)}.")


def _foreign(node: onnx.NodeProto, how: Quantization) -> bool:
    """True for the `Attention` of opset 23, which dynamic quantization takes for ONNX Runtime's own and breaks."""
    return how.layout == "dynamic" and node.op_type == "Attention" and node.domain != "com.microsoft"


def _unsafe(graph: Graph, node: onnx.NodeProto, how: Quantization) -> str:
    """Why the quantizer would break what others read, were it to take a node; empty where it would not.

    The format QDQ takes a `Relu` or `Clip` into the node before it, which then gives either's output by the wrong name.
    The others leave what they quantize in 8 bits alone, for readers that they know of. The format QOperator drops a
    `Relu` behind 8 bits, whose range is the `Relu`'s only where nobody else reads them; and both formats cut them to
    that range, even where they are an output.
    """
    removable = how.layout != "dynamic" and node.op_type in ("Relu", "Clip")
    in_8_bits = how.layout == "QOperator" or (how.layout == "dynamic" and node.op_type in ("Gather", "Transpose"))
    touched = [*(node.input[:1] if removable and how.layout == "QDQ" else ())]
    touched += node.output if in_8_bits or removable else ()
    if not graph.read_inside.isdisjoint(touched):
        return READ_INSIDE
    shared = removable and how.layout == "QOperator" and len(graph.readers(node.input[0])) > 1
    return SHARED_INPUT if shared or (removable and node.input[0] in graph.outputs) else ""


def acts_as(node: onnx.NodeProto, how: Quantization) -> str:
    """The operator type under which the quantizer sees a node: dynamic quantization splits a plain `Gemm`."""
    if how.layout == "dynamic" and node.op_type == "Gemm":
        plain = (
            attribute(node, "alpha", 1.0) == 1.0
            and attribute(node, "beta", 1.0) == 1.0
            and not attribute(node, "transA", 0)
        )
        return "MatMul" if plain else "Gemm"
    return str(node.op_type)


# Operators whose output takes over the scale of their first input, and that are left alone where that is in float32.
_PASS_ON = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Resize", "MaxPool", "AveragePool", "Slice", "TopK")
)
# As `TensorProto.DOUBLE` has it.
_FLOAT64 = 11
# The first opset in which the 8-bit form of an operator exists.
_SINCE = MappingProxyType({"MaxPool": 12, "Resize": 11})


def _not_float(graph: Graph, tensor: str) -> str:
    """Why a node that works on a tensor of another type stays as it is."""
    return DOUBLE if graph.weights.get(tensor, graph.types.get(tensor)) == _FLOAT64 else NOT_FLOAT


def _qdq(graph: Graph, node: onnx.NodeProto, how: Quantization, taken: set[str]) -> str:
    """The rule of `QDQQuantizer`: an operator marks tensors, which are then surrounded with pairs."""
    operator, first = node.op_type, node.input[0]
    outputs = [tensor for tensor in node.output if graph.is_float(tensor)]
    if operator == "Where":
        if not all(tensor in taken for tensor in node.input[1:3]):
            return INPUT_IN_FLOAT
        taken.update(outputs)
        return QUANTIZED if outputs else _not_float(graph, node.output[0])
    if operator in ("Gather", "GatherElements"):
        if not graph.is_float_weight(first) and first not in taken:
            return NOT_A_TABLE if graph.is_float(first) else _not_float(graph, first)
    elif not graph.is_float(first):
        return _not_float(graph, first)
    elif operator in _PASS_ON or operator in ("Relu", "Clip"):
        if first not in taken or graph.opset < _SINCE.get(operator, 0):
            return INPUT_IN_FLOAT
    elif operator == "MatMul" and how.const_b_only and node.input[1] not in graph.weights:
        return NOT_CONSTANT
    taken.update(tensor for tensor in node.input if graph.is_float(tensor) and operator not in ("Relu", "Clip"))
    taken.update(outputs)
    return QUANTIZED


def _qoperator(graph: Graph, node: onnx.NodeProto, how: Quantization, taken: set[str]) -> str:
    """The rule of `ONNXQuantizer` in static mode: an operator is replaced by its 8-bit form."""
    operator, first = node.op_type, node.input[0]
    if operator in ("MatMul", "Gemm"):
        if not any(graph.is_float(tensor) for tensor in node.input[:2]):
            return _not_float(graph, first)
        if how.const_b_only and node.input[1] not in graph.weights:
            return NOT_CONSTANT
        if operator == "Gemm" and len(node.input) == 3 and node.input[2] not in graph.weights:
            return NOT_PLAIN
    elif operator == "Gather":
        if not graph.is_float_weight(first):
            return NOT_A_TABLE if graph.is_float(first) else _not_float(graph, first)
    elif operator == "Where":
        return INPUT_IN_FLOAT
    elif not graph.is_float(first):
        return _not_float(graph, first)
    elif operator in _PASS_ON - {"AveragePool"} or operator in ("Relu", "Clip", "GlobalAveragePool", "Pad", "ArgMax"):
        if first not in taken or graph.opset < _SINCE.get(operator, 0):
            return INPUT_IN_FLOAT
        if operator in ("Relu", "Clip") and how.activations_symmetric:
            return NOT_PLAIN
    taken.update(tensor for tensor in node.input if graph.is_float(tensor))
    taken.update(tensor for tensor in node.output if graph.is_float(tensor))
    return QUANTIZED


def _dynamic(graph: Graph, node: onnx.NodeProto, how: Quantization, taken: set[str]) -> str:
    """The rule of `ONNXQuantizer` in dynamic mode: few operators have kernels, and most of these give float32 back."""
    operator, first = acts_as(node, how), node.input[0]
    if operator == "MatMul":
        if not any(graph.is_float(tensor) for tensor in node.input[:2]):
            return _not_float(graph, first)
        if how.const_b_only and node.input[1] not in graph.weights:
            return NOT_CONSTANT
        taken.update(node.input[:2])
    elif operator == "Gather":
        if not graph.is_float_weight(first):
            return NOT_A_TABLE if graph.is_float(first) else _not_float(graph, first)
        taken.update((first, node.output[0]))
    elif operator == "Transpose":
        if not graph.is_float(first):
            return _not_float(graph, first)
        if first not in taken:
            return INPUT_IN_FLOAT
        taken.add(node.output[0])
    elif operator == "EmbedLayerNormalization":
        return QUANTIZED if len(node.output) <= 2 else NOT_PLAIN
    elif operator == "Attention":
        if attribute(node, "qkv_hidden_sizes", None) is not None:
            return NOT_PLAIN
        taken.update(node.input[:2])
    elif operator == "LSTM":
        if not all(graph.is_float_weight(tensor) for tensor in node.input[1:3]):
            return NOT_CONSTANT
    elif not graph.is_float(first):
        return _not_float(graph, first)
    else:
        taken.update(node.input[:2])
    return QUANTIZED
