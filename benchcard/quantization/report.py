"""The report on a quantized graph and its notes, read from the graph itself.

The quantization is in `quantize`; why two rows have the same graph is explained in `equality`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx

from benchcard.graphs.files import digest_of, model_files
from benchcard.graphs.graph import Graph
from benchcard.quantization.operators import (
    FloatReason,
    count_integer_operators,
    float_reasons,
    protected_nodes,
    requested_operators,
    supported_operators,
)
from benchcard.quantization.outcomes import OperatorCount, QuantizationReport
from benchcard.quantization.settings import Quantization

# What a node stays for these reasons; else, in the numbers of the graph.
_STATES: Mapping[FloatReason | None, str] = MappingProxyType(
    {FloatReason.DOUBLE: "in float64", FloatReason.NOT_FLOAT: "unquantized"}
)
# The input of operators with weights in blocks that has these weights.
_PACKED: Mapping[str, int] = MappingProxyType({"MatMulNBits": 1, "GatherBlockQuantized": 0})


def make_report(
    graph: Graph, quantized: Graph | None, model: onnx.ModelProto, settings: Quantization, target: Path
) -> QuantizationReport:
    """Return the report on a written model, the result of quantizing `graph`.

    `quantized` is the graph after it; None where nothing was quantized. `model` is the written model, loaded without
    external weights; all its weights are removed.
    """
    reasons = float_reasons(graph, settings)
    names = tuple(reasons)
    changed = frozenset() if quantized is None else frozenset(_changed_nodes(graph, quantized, settings, names))
    excluded_names = [name for name in names if name in settings.nodes_to_exclude]
    eligible, excluded, quantized_counts = (
        Counter(graph.nodes[name].op_type for name in group) for group in (names, excluded_names, changed)
    )
    weights, per_channel = _count_quantized_weights(graph, model)
    integer_operators = count_integer_operators(quantized or graph)
    return QuantizationReport(
        size_bytes=sum(file.stat().st_size for file in model_files(target, model)),
        digest=digest_of(model, target.parent),
        nodes_quantized=len(changed),
        nodes_eligible=len(names),
        operators=tuple(
            OperatorCount(operator, eligible[operator], excluded[operator], quantized_counts[operator])
            for operator in sorted(eligible)
        ),
        quantize_nodes=integer_operators["QuantizeLinear"],
        dequantize_nodes=integer_operators["DequantizeLinear"],
        dynamic_quantize_nodes=integer_operators["DynamicQuantizeLinear"],
        weights_quantized=weights,
        weights_per_channel=per_channel,
        is_float_model=quantized is None,
        notes=tuple(_notes(graph, settings, reasons, changed, weights, per_channel)),
    )


def _changed_nodes(graph: Graph, quantized: Graph, settings: Quantization, names: Collection[str]) -> Iterator[str]:
    """Yield the eligible nodes that the quantizer changed, found by comparing both graphs."""
    kept = {*settings.nodes_to_exclude, *protected_nodes(graph, settings)}
    for name in names:
        if name in kept:
            continue
        before = graph.nodes[name]
        after = quantized.nodes.get(name) or quantized.nodes.get(f"{name}_MatMul")
        if after is None:
            # Replaced by its 8-bit form, or, like a `Relu`, merged into the range of its input.
            yield name
        elif settings.layout == "QDQ":
            if _is_between_pairs(quantized, after, graph):
                yield name
        elif after.op_type != before.op_type and after.op_type == "MatMul":
            continue
        elif list(after.input) != list(before.input) or list(after.output) != list(before.output):
            yield name


def _is_between_pairs(quantized: Graph, node: onnx.NodeProto, before: Graph) -> bool:
    """Return whether a node reads a dequantized tensor, and its floating-point output is quantized."""
    operators = {producer.op_type for producer in map(quantized.producer, node.input) if producer is not None}
    if "DequantizeLinear" not in operators:
        return False
    readers = quantized.readers(node.output[0])
    original = before.nodes[node.name].output[0]
    return not before.is_float(original) or any(reader.op_type == "QuantizeLinear" for reader in readers)


def _count_quantized_weights(graph: Graph, quantized: onnx.ModelProto) -> tuple[int, int]:
    """Return the number of weights that became integers, scalars aside, and of those with channel scales."""
    packed = {node.input[_PACKED[node.op_type]] for node in quantized.graph.node if node.op_type in _PACKED}
    if packed := packed.difference(graph.weights):
        return len(packed), 0
    tensors = {tensor.name: tensor for tensor in quantized.graph.initializer}
    made = [tensor for name, tensor in tensors.items() if name.endswith("_quantized") and name not in graph.weights]
    weights = [
        tensor.name.removesuffix("_quantized")
        for tensor in made
        if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) and np.prod(tensor.dims) > 1
    ]
    scales = [tensors[f"{name}_scale"] for name in weights if f"{name}_scale" in tensors]
    return len(weights), sum(len(scale.dims) > 0 for scale in scales)


def _notes(
    graph: Graph,
    settings: Quantization,
    reasons: Mapping[str, FloatReason | None],
    changed: Collection[str],
    weights: int,
    per_channel: int,
) -> Iterator[str]:
    dtype = "float16" if onnx.TensorProto.FLOAT16 in graph.weights.values() else "float32"
    if not changed:
        yield "nothing was quantized: this is the float model"
    yield from _notes_on_operators(graph, settings, bool(reasons))
    totals = Counter(graph.nodes[name].op_type for name in reasons)
    unchanged = Counter(
        (graph.nodes[name].op_type, reason)
        for name, reason in reasons.items()
        if name not in changed and reason != FloatReason.EXCLUDED
    )
    for (operator, reason), count in unchanged.items():
        state = _STATES.get(reason, f"in {dtype}")
        yield f"{count} of {totals[operator]} `{operator}` {_stay(count)} {state}: {reason or 'the reason is unknown'}"
    for parameter in ("per_channel", "reduce_range"):
        if getattr(settings, parameter) and not weights:
            yield f"{parameter} changes nothing: no weight is quantized"
    if settings.per_channel and weights and not per_channel:
        yield "per_channel changes nothing: no quantized operator has a scale per channel"
    for parameter, why in settings.ignored.items():
        if getattr(settings, parameter) not in (None, getattr(settings.resolved, parameter)):
            yield f"{parameter} changes nothing: {why}"


def _notes_on_operators(graph: Graph, settings: Quantization, has_eligible: bool) -> Iterator[str]:
    """Yield a note for each operator that was asked for by name and is absent or cannot be quantized."""
    requested, supported = settings.operators_to_quantize or (), supported_operators(settings)
    present = {node.op_type for node in graph.nodes.values()}
    for operator in sorted(set(requested)):
        if operator not in present and not (operator == "MatMul" and has_eligible):
            yield f"the graph has no `{operator}`"
        elif operator == "Gemm" and settings.approach == "dynamic":
            yield (
                "`Gemm` is quantized as `MatMul`"
                if "MatMul" in requested
                else "`Gemm` has no dynamic kernel of its own: it is quantized as `MatMul`, which was not asked for"
            )
        elif operator not in supported:
            yield f"`{operator}` has no {settings.form}: it stays in float32"
    if "Attention" in requested_operators(settings):
        count = sum(graph.nodes[name].op_type == "Attention" for name in protected_nodes(graph, settings))
        if count:
            yield (
                f"{count} `Attention` {_stay(count)} in float32: ONNX Runtime has a dynamic kernel for its own fused "
                "`Attention`, not for the standard one"
            )


def _stay(count: int) -> str:
    return "stays" if count == 1 else "stay"
