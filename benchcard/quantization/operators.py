"""Which nodes of a graph ONNX Runtime's quantizer acts on, predicted without running it.

This module owns the rules by which the quantizer takes or leaves a node; the operators it knows are read from its own
registries. Tests compare these rules with quantized graphs. The quantization itself is in `quantize`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from onnx import NodeProto, TensorProto

from benchcard.errors import ArtifactError
from benchcard.graphs.graph import Graph, attribute_value, load_graph
from benchcard.quantization.settings import Quantization
from benchcard.utils.text import did_you_mean, join_names

# The operator types that a quantizer writes, beside those whose name starts with `QLinear`.
_INTEGER_NAMES = (
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear MatMulInteger ConvInteger DynamicQuantizeLSTM QAttention "
    "QEmbedLayerNormalization QGemm MatMulNBits GatherBlockQuantized"
)
_INTEGER_OPERATORS = frozenset(_INTEGER_NAMES.split())


class FloatReason(StrEnum):
    """Why a node stays in floating point."""

    EXCLUDED = "excluded"
    NOT_FLOAT = "the input is not floating point"
    DOUBLE = "only float32 and float16 are quantized"
    NOT_CONSTANT = "the second input is not a weight"
    NOT_A_TABLE = "the first input is not a weight"
    INPUT_IN_FLOAT = "the input is not quantized"
    UNSUPPORTED = "the quantizer does not support the attributes or inputs"
    SHARED_INPUT = "other nodes read the input too, and would get the output instead"
    ONLY_BY_NAME = "by default weight-only quantization takes `MatMul` alone: name it in `operators_to_quantize` too"
    NOT_A_MATRIX = "the weight is not a matrix"
    ODD_BLOCKS = "`k_quant` in 4 bits needs an even number of blocks: use a smaller `block_size`"
    TABLE = "a table is quantized by `rtn`, in 4 bits, and from opset 21 on (`framework_args: {opset: 21}`)"
    CAPTURED = "a subgraph (of `If` or `Loop`), which the quantizer does not see, reads the same tensor"


def known_operators(approach: str) -> tuple[str, ...]:
    """Return the operator types that ONNX Runtime's quantizer knows for an approach, sorted.

    For weight-only, `Gemm` is one of them, because it can be written as a `MatMul` and an `Add`.
    """
    from onnxruntime.quantization.registry import IntegerOpsRegistry, QDQRegistry, QLinearOpsRegistry

    if approach == "weight_only":
        return ("Gather", "Gemm", "MatMul")
    return tuple(sorted(IntegerOpsRegistry if approach == "dynamic" else {*QDQRegistry, *QLinearOpsRegistry}))


def supported_operators(settings: Quantization) -> frozenset[str]:
    """Return the operator types that the quantizer acts on where they are asked for.

    QDQ puts a pair of quantize and dequantize nodes around any operator; the other layouts need a kernel for each.
    """
    from onnxruntime.quantization.registry import QLinearOpsRegistry

    if settings.layout in ("dynamic", "weight_only"):
        return frozenset(known_operators(settings.layout))
    if settings.layout == "QOperator":
        return frozenset(QLinearOpsRegistry)
    return frozenset((*known_operators("static"), *known_operators("dynamic")))


def requested_operators(settings: Quantization) -> tuple[str, ...]:
    """Return the operator types asked for, sorted, each once."""
    if settings.operators_to_quantize is None:
        return known_operators(settings.approach)
    return tuple(sorted(set(settings.operators_to_quantize)))


def is_integer_operator(operator: str) -> bool:
    """Return whether an operator type works on integers, or converts to or from them."""
    return operator in _INTEGER_OPERATORS or operator.startswith("QLinear")


def count_integer_operators(graph: Graph) -> Counter[str]:
    """Return how many nodes of each integer operator type a graph has."""
    return Counter(node.op_type for node in graph.nodes.values() if is_integer_operator(node.op_type))


def check_settings(settings: Quantization) -> None:
    """Raise where the installed ONNX Runtime knows no such operator or does not support the combination of types."""
    known = sorted({*known_operators("dynamic"), *known_operators("static")})
    for operator in settings.operators_to_quantize or ():
        if operator not in known:
            hint = did_you_mean(operator, known)
            raise ArtifactError(
                f"ONNX Runtime's quantizer knows no operator `{operator}`{f' ({hint})' if hint else ''}. "
                f"It knows {join_names(known)}."
            )
    resolved = settings.resolved
    if (resolved.algorithm, resolved.bits) == ("hqq", 8):
        raise ArtifactError(
            "ONNX Runtime has no kernel on the CPU for weights of `hqq` in 8 bits. Use `bits: 4`, or the `algorithm` "
            "`rtn` or `k_quant`."
        )
    if (resolved.approach, resolved.activations_dtype, resolved.weights_dtype) == ("static", "int8", "uint8"):
        raise ArtifactError(
            "ONNX Runtime has no static kernels for int8 activations with uint8 weights. "
            "Use uint8 activations or int8 weights."
        )


def float_reasons(graph: Graph, settings: Quantization) -> Mapping[str, FloatReason | None]:
    """Return for each eligible node, in the graph's order, why it stays in float; None where it is quantized.

    Eligible are those whose operator is asked for and has a kernel for the approach.
    """
    rule: Callable[[Graph, NodeProto, Quantization, set[str]], FloatReason | None] = {
        "QDQ": _qdq_rule,
        "QOperator": _qoperator_rule,
        "dynamic": _dynamic_rule,
        "weight_only": _weight_only_rule,
    }[settings.layout]
    # A node that only passes numbers on stays in float where its input does: the rules need what is quantized so far.
    quantized: set[str] = set()
    types = supported_operators(settings).intersection(requested_operators(settings))
    reasons: dict[str, FloatReason | None] = {}
    for name, node in graph.nodes.items():
        if _quantized_as(node, settings) not in types or _is_other_attention(node, settings):
            continue
        if settings.layout == "weight_only" and node.op_type == "Gather" and not graph.is_float_weight(node.input[0]):
            continue
        if name in settings.nodes_to_exclude:
            reasons[name] = FloatReason.EXCLUDED
        else:
            reasons[name] = _unsafe(graph, node, settings) or rule(graph, node, settings, quantized)
    return reasons


def quantized_nodes(model: Path, settings: Quantization) -> tuple[str, ...]:
    """Return the names of the nodes of a float model that a quantization quantizes, in the graph's order."""
    reasons = float_reasons(load_graph(model), settings)
    return tuple(name for name, reason in reasons.items() if reason is None)


def protected_nodes(graph: Graph, settings: Quantization) -> tuple[str, ...]:
    """Return the nodes to exclude because the quantizer would break the graph, or ignore `matmul_const_b_only`."""
    # The QDQ quantizer does not read `MatMulConstBOnly`.
    constant_only = settings.layout == "QDQ" and settings.resolved.matmul_const_b_only
    return tuple(
        name
        for name, node in graph.nodes.items()
        if _is_other_attention(node, settings)
        or _unsafe(graph, node, settings)
        or (constant_only and node.op_type == "MatMul" and node.input[1] not in graph.weights)
    )


def _is_other_attention(node: NodeProto, settings: Quantization) -> bool:
    """Return whether a node is the `Attention` of opset 23, which dynamic quantization mistakes for ONNX Runtime's."""
    return settings.layout == "dynamic" and node.op_type == "Attention" and node.domain != "com.microsoft"


def _unsafe(graph: Graph, node: NodeProto, settings: Quantization) -> FloatReason | None:
    """Return why quantizing a node would change what other nodes read; None where it would not.

    QDQ merges a `Relu` or `Clip` into the node before it, so that the name of one tensor stands for the numbers of the
    other. The other layouts keep a quantized tensor in 8 bits only, for the readers that they know of. QOperator drops
    a `Relu` after an 8-bit node, which is right only where nothing else reads that node. QDQ and QOperator cut the
    numbers before a `Relu` to its range, even where they are an output of the graph.
    """
    removable = settings.approach == "static" and node.op_type in ("Relu", "Clip")
    in_8_bits = settings.layout == "QOperator" or (
        settings.layout == "dynamic" and node.op_type in ("Gather", "Transpose")
    )
    changed = set(node.output) if in_8_bits or removable else set()
    if removable and settings.layout == "QDQ":
        changed.add(node.input[0])
    if not graph.captured.isdisjoint(changed):
        return FloatReason.CAPTURED
    shared = removable and settings.layout == "QOperator" and len(graph.readers(node.input[0])) > 1
    return FloatReason.SHARED_INPUT if shared or (removable and node.input[0] in graph.outputs) else None


def _quantized_as(node: NodeProto, settings: Quantization) -> str:
    """Return the operator type under which the quantizer sees a node: dynamic quantization splits a plain `Gemm`."""
    if settings.layout == "dynamic" and node.op_type == "Gemm":
        return "MatMul" if _is_plain(node) else "Gemm"
    return str(node.op_type)


def _is_plain(node: NodeProto) -> bool:
    """Return whether a `Gemm` is a `MatMul` and an `Add`."""
    defaults: dict[str, float] = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    return all(attribute_value(node, name, default) == default for name, default in defaults.items())


# Operators whose output takes over the scale of their first input, and that stay in float where that input does.
_PASS_ON = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Resize", "MaxPool", "AveragePool", "Slice", "TopK")
)
# The first opset in which the 8-bit form of an operator exists.
_SINCE = MappingProxyType({"MaxPool": 12, "Resize": 11})


def _not_float(graph: Graph, tensor: str) -> FloatReason | None:
    """Return why a node that works on a tensor stays as it is; None where the tensor is float32 or float16."""
    if graph.is_float(tensor):
        return None
    is_double = graph.weights.get(tensor, graph.types.get(tensor)) == TensorProto.DOUBLE
    return FloatReason.DOUBLE if is_double else FloatReason.NOT_FLOAT


def _not_a_table(graph: Graph, tensor: str) -> FloatReason | None:
    """Return why a `Gather` from a tensor stays in float; None where the tensor is a weight in float."""
    return None if graph.is_float_weight(tensor) else _not_float(graph, tensor) or FloatReason.NOT_A_TABLE


def _not_multiplied(graph: Graph, node: NodeProto, settings: Quantization) -> FloatReason | None:
    """Return why a product stays in float; None where it is quantized. Without pairs, one input in float is enough."""
    first, second = node.input[:2]
    if (reason := _not_float(graph, first)) and (settings.layout == "QDQ" or not graph.is_float(second)):
        return reason
    is_left_out = settings.resolved.matmul_const_b_only and second not in graph.weights
    return FloatReason.NOT_CONSTANT if is_left_out else None


def _not_passed_on(graph: Graph, node: NodeProto, quantized: set[str]) -> FloatReason | None:
    """Return why a node that takes over the scale of its input stays in float; None where the input has a scale."""
    is_passed_on = node.input[0] in quantized and graph.opset >= _SINCE.get(node.op_type, 0)
    return _not_float(graph, node.input[0]) or (None if is_passed_on else FloatReason.INPUT_IN_FLOAT)


def _qdq_rule(graph: Graph, node: NodeProto, settings: Quantization, quantized: set[str]) -> FloatReason | None:
    """Apply the rule of `QDQQuantizer`: an operator marks tensors, which are then surrounded with pairs."""
    operator, first = node.op_type, node.input[0]
    is_merged = operator in ("Relu", "Clip")
    if operator == "Where":
        has_scales = quantized.issuperset(node.input[1:3])
        reason = _not_float(graph, node.output[0]) if has_scales else FloatReason.INPUT_IN_FLOAT
    elif operator in ("Gather", "GatherElements"):
        reason = None if first in quantized else _not_a_table(graph, first)
    elif operator in _PASS_ON or is_merged:
        reason = _not_passed_on(graph, node, quantized)
    elif operator == "MatMul":
        reason = _not_multiplied(graph, node, settings)
    else:
        reason = _not_float(graph, first)
    if reason is None:
        marked = node.output if is_merged else (*node.input, *node.output)
        quantized.update(tensor for tensor in marked if graph.is_float(tensor))
    return reason


def _qoperator_rule(graph: Graph, node: NodeProto, settings: Quantization, quantized: set[str]) -> FloatReason | None:
    """Apply the rule of `ONNXQuantizer` in static mode: an operator is replaced by its 8-bit form."""
    operator, first = node.op_type, node.input[0]
    is_cut = operator in ("Relu", "Clip")
    if operator in ("MatMul", "Gemm"):
        reason = _not_multiplied(graph, node, settings)
        if operator == "Gemm" and len(node.input) == 3 and node.input[2] not in graph.weights:
            reason = reason or FloatReason.UNSUPPORTED
    elif operator == "Gather":
        reason = _not_a_table(graph, first)
    elif operator == "Where":
        reason = FloatReason.INPUT_IN_FLOAT
    elif operator in _PASS_ON - {"AveragePool"} or is_cut or operator in ("GlobalAveragePool", "Pad", "ArgMax"):
        reason = _not_passed_on(graph, node, quantized)
        if is_cut and settings.activations_symmetric:
            reason = reason or FloatReason.UNSUPPORTED
    else:
        reason = _not_float(graph, first)
    if reason is None:
        quantized.update(tensor for tensor in (*node.input, *node.output) if graph.is_float(tensor))
    return reason


def _dynamic_rule(graph: Graph, node: NodeProto, settings: Quantization, quantized: set[str]) -> FloatReason | None:
    """Apply the rule of `ONNXQuantizer` in dynamic mode: few operators have kernels, most of which return float32."""
    operator, first = _quantized_as(node, settings), node.input[0]
    marked = node.input[:2]
    if operator == "MatMul":
        reason = _not_multiplied(graph, node, settings)
    elif operator == "Gather":
        reason, marked = _not_a_table(graph, first), [first, node.output[0]]
    elif operator == "Transpose":
        reason, marked = _not_passed_on(graph, node, quantized), node.output
    elif operator == "EmbedLayerNormalization":
        reason, marked = None if len(node.output) <= 2 else FloatReason.UNSUPPORTED, []
    elif operator == "Attention":
        has_sizes = attribute_value(node, "qkv_hidden_sizes", None) is not None
        reason = FloatReason.UNSUPPORTED if has_sizes else None
    elif operator == "LSTM":
        are_weights = all(graph.is_float_weight(tensor) for tensor in node.input[1:3])
        reason, marked = None if are_weights else FloatReason.NOT_CONSTANT, []
    else:
        reason = _not_float(graph, first)
    if reason is None:
        quantized.update(marked)
    return reason


def matrix_of(graph: Graph, node: NodeProto) -> tuple[str, bool]:
    """Return the second matrix of a `MatMul` or `Gemm`, and whether it is transposed, by the node or before it.

    PyTorch's exporters leave large weights to be transposed in the graph.
    """
    matrix, is_transposed = node.input[1], bool(attribute_value(node, "transB", 0))
    before = graph.producer(matrix)
    if before is None or before.op_type != "Transpose" or attribute_value(before, "perm", [1, 0]) != [1, 0]:
        return matrix, is_transposed
    source = before.input[0]
    return (source, not is_transposed) if source in graph.weights else (matrix, is_transposed)


def _weight_only_rule(graph: Graph, node: NodeProto, settings: Quantization, quantized: set[str]) -> FloatReason | None:
    """Apply the rule of `MatMulNBitsQuantizer`: a matrix of weights is stored in blocks of few bits."""
    operator, how = node.op_type, settings.resolved
    weight, is_transposed = (node.input[0], False) if operator == "Gather" else matrix_of(graph, node)
    shape = graph.weight_shapes.get(weight, ())
    if not graph.is_float_weight(weight):
        return _not_float(graph, weight) or FloatReason.NOT_CONSTANT
    if operator != "MatMul" and settings.operators_to_quantize is None:
        return FloatReason.ONLY_BY_NAME
    if operator == "Gemm" and not _is_plain(node):
        return FloatReason.UNSUPPORTED
    if len(shape) != 2:
        return FloatReason.NOT_A_MATRIX
    if operator == "Gather":
        return None if (how.algorithm, how.bits) == ("rtn", 4) and graph.opset >= 21 else FloatReason.TABLE
    rows = shape[1] if is_transposed else shape[0]
    blocks = math.ceil(rows / (how.block_size or rows))
    return FloatReason.ODD_BLOCKS if (how.algorithm, how.bits) == ("k_quant", 4) and blocks % 2 else None
