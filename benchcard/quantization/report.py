"""What quantizing one graph came to, read from the quantized graph itself.

This module owns the report and the sentences in it. The quantizing is in `quantize`; why two rows have the same graph
is told in `same`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchcard.graphs import files
from benchcard.graphs.graph import Graph
from benchcard.quantization import operators
from benchcard.quantization.operators import Quantization

# The operator types that a quantizer writes; `QLinear...` are told by their name.
_INTEGER_OPERATORS = frozenset(
    (
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
    )
)


@dataclass(frozen=True)
class OperatorCount:
    """How many nodes of one operator type were asked for, left out by name, and quantized."""

    operator: str
    eligible: int
    excluded: int
    quantized: int


@dataclass(frozen=True)
class QuantizationReport:
    """What quantizing one graph came to.

    Attributes:
        digest: SHA-256 of the written model's content (see `graph.model_digest`).
        size_bytes: Size of its files together.
        nodes_quantized: Nodes that really are quantized.
        nodes_eligible: Nodes whose operator was asked for and has a kernel for the approach, excluded ones among them.
        operators: The same, operator by operator, sorted by name.
        quantize_nodes: Number of `QuantizeLinear` nodes in the written graph.
        dequantize_nodes: Number of `DequantizeLinear` nodes.
        dynamic_quantize_nodes: Number of `DynamicQuantizeLinear` nodes.
        weights_quantized: Weights that are 8-bit integers now; biases, which become int32, are not counted.
        weights_per_channel: Those of them with one scale per channel.
        is_float_model: True where nothing was quantized; the written model then is the float model itself.
        notes: What a reader would otherwise wonder about, in sentences.
    """

    digest: str
    size_bytes: int
    nodes_quantized: int
    nodes_eligible: int
    operators: tuple[OperatorCount, ...]
    quantize_nodes: int
    dequantize_nodes: int
    dynamic_quantize_nodes: int
    weights_quantized: int
    weights_per_channel: int
    is_float_model: bool
    notes: tuple[str, ...]


def is_integer(operator: str) -> bool:
    """True for an operator type that works on integers, or leads there or back."""
    return operator in _INTEGER_OPERATORS or operator.startswith("QLinear")


def count_integer(graph: Graph) -> Counter[str]:
    """How many nodes of each such operator type a graph has."""
    return Counter(node.op_type for node in graph.nodes.values() if is_integer(node.op_type))


def report_on(
    graph: Graph, quantized: Graph, result: onnx.ModelProto, how: Quantization, target: Path
) -> QuantizationReport:
    """The report on a written model.

    Args:
        graph: The graph before quantization.
        quantized: The graph after it; the same object where nothing was quantized.
        result: The model after it, read without weights that lie beside the graph. It is left without any.
        how: The parameters.
        target: Where the model was written.
    """
    unchanged = quantized is graph
    names = operators.eligible(graph, how)
    changed = frozenset() if unchanged else frozenset(_quantized_nodes(graph, quantized, how, names))
    by_operator = sorted({graph.nodes[name].op_type for name in names})
    counts = tuple(
        OperatorCount(
            operator,
            eligible=sum(graph.nodes[name].op_type == operator for name in names),
            excluded=sum(graph.nodes[name].op_type == operator for name in names if name in how.nodes_to_exclude),
            quantized=sum(graph.nodes[name].op_type == operator for name in changed),
        )
        for operator in by_operator
    )
    weights, per_channel = _quantized_weights(graph, result)
    kinds = count_integer(quantized)
    size = sum(file.stat().st_size for file in files.files_in(result, target))
    return QuantizationReport(
        digest=files.digest_of(result, target.parent),
        size_bytes=size,
        nodes_quantized=len(changed),
        nodes_eligible=len(names),
        operators=counts,
        quantize_nodes=kinds["QuantizeLinear"],
        dequantize_nodes=kinds["DequantizeLinear"],
        dynamic_quantize_nodes=kinds["DynamicQuantizeLinear"],
        weights_quantized=weights,
        weights_per_channel=per_channel,
        is_float_model=unchanged,
        notes=tuple(_notes(graph, how, changed, weights, per_channel)),
    )


def _quantized_nodes(graph: Graph, quantized: Graph, how: Quantization, names: tuple[str, ...]) -> Iterator[str]:
    """The eligible nodes that the quantizer changed, read by comparing both graphs."""
    kept = {*how.nodes_to_exclude, *operators.guarded(graph, how)}
    for name in names:
        if name in kept:
            continue
        node = graph.nodes[name]
        now = quantized.nodes.get(name) or quantized.nodes.get(f"{name}_MatMul")
        if now is None:
            # Replaced by its 8-bit form, or, as a `Relu`, taken into the range of its input.
            yield name
        elif how.layout == "QDQ":
            if _between_pairs(quantized, now, graph):
                yield name
        elif now.op_type != node.op_type and now.op_type == "MatMul":
            continue
        elif list(now.input) != list(node.input) or list(now.output) != list(node.output):
            yield name


def _between_pairs(quantized: Graph, node: onnx.NodeProto, before: Graph) -> bool:
    """True for a node that reads a dequantized tensor and whose floating-point output is quantized."""

    def kind(tensor: str) -> str:
        producer = quantized.producer(tensor)
        return producer.op_type if producer is not None else ""

    reads = any(kind(tensor) == "DequantizeLinear" for tensor in node.input)
    result = node.output[0]
    original = before.nodes[node.name].output[0] if node.name in before.nodes else result
    writes = not before.is_float(original) or any(
        reader.op_type == "QuantizeLinear" for reader in quantized.readers(result)
    )
    return reads and writes


def _quantized_weights(graph: Graph, quantized: onnx.ModelProto) -> tuple[int, int]:
    """How many 8-bit weights the quantizer made, single numbers aside, and how many have a scale per channel."""
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    weights = [
        name.removesuffix("_quantized")
        for name, tensor in tensors.items()
        if name.endswith("_quantized")
        and name not in graph.weights
        and tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
        and np.prod(tensor.dims) > 1
    ]
    scales = [tensors[f"{name}_scale"] for name in weights if f"{name}_scale" in tensors]
    return len(weights), sum(len(scale.dims) > 0 for scale in scales)


def _notes(graph: Graph, how: Quantization, changed: frozenset[str], weights: int, per_channel: int) -> Iterator[str]:
    """What a reader of the report would wonder about."""
    if not changed:
        yield "nothing was quantized: this is the float model"
    names = operators.eligible(graph, how)
    yield from _notes_on_operators(graph, how, names)
    reasons = operators.standings(graph, how, how.nodes_to_exclude)
    kept: dict[tuple[str, str], int] = {}
    for name in names:
        if name not in changed and name not in how.nodes_to_exclude:
            reason = reasons[name] or "the quantizer does not say why"
            kept[graph.nodes[name].op_type, reason] = kept.get((graph.nodes[name].op_type, reason), 0) + 1
    for (operator, reason), count in kept.items():
        total = sum(graph.nodes[name].op_type == operator for name in names)
        yield f"{count} of {total} `{operator}` {_stay(count)}: {reason}"
    for parameter, given in (("per_channel", how.per_channel), ("reduce_range", how.reduce_range)):
        if given and not weights:
            yield f"{parameter} changes nothing where no weight is quantized"
    if how.per_channel and weights and not per_channel:
        yield "per_channel changes nothing: no quantized operator here takes a scale per channel"
    if how.approach == "dynamic" and how.activations_dtype == "int8":
        yield "activations_dtype changes nothing: dynamic activations are always uint8"
    if how.approach == "dynamic" and how.activations_symmetric is not None:
        yield "activations_symmetric changes nothing: dynamic quantization finds the range of each activation anew"
    if how.approach == "dynamic" and how.quant_format is not None:
        yield "quant_format changes nothing: it belongs to static quantization"


def _notes_on_operators(graph: Graph, how: Quantization, names: tuple[str, ...]) -> Iterator[str]:
    """What became of operators that were asked for by name and are not there, or cannot be quantized."""
    asked, able = how.operators_to_quantize or (), operators.kernels(how)
    present = {node.op_type for node in graph.nodes.values()}
    for operator in sorted(set(asked)):
        if operator not in present and not (operator == "MatMul" and names):
            yield f"the graph has no `{operator}`"
        elif operator == "Gemm" and how.approach == "dynamic":
            yield (
                "`Gemm` is quantized as `MatMul`"
                if "MatMul" in asked
                else "`Gemm` has no dynamic kernel of its own: it is quantized as `MatMul`, which was not asked for"
            )
        elif operator not in able:
            form = "dynamic kernel" if how.approach == "dynamic" else "form in the format QOperator"
            yield f"`{operator}` has no {form}: it stays in float32"
    if "Attention" in operators.asked_operators(how):
        foreign = [name for name in operators.guarded(graph, how) if graph.nodes[name].op_type == "Attention"]
        if foreign:
            yield f"{len(foreign)} `Attention` {_stay(len(foreign))}: {operators.NO_DYNAMIC_ATTENTION}"


def _stay(count: int) -> str:
    return f"stay{'s' if count == 1 else ''} in float32"
