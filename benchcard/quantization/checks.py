"""Checks that refuse a quantized graph that nobody could use, and remedies for what the quantizer refuses.

The quantization is in `quantize`; whether ONNX Runtime can load the result is checked in `loading`.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import uses_external_data

from benchcard.errors import ArtifactError
from benchcard.graphs.graph import Graph
from benchcard.quantization.operators import count_integer_operators, float_reasons
from benchcard.quantization.settings import Quantization
from benchcard.utils.text import join_names, quote_names

# Nodes that a message names at most.
_MOST_NAMED = 3


def already_quantized(graph: Graph) -> str:
    """Return what to do with a graph that has quantized nodes before its quantization; empty for a float graph."""
    counts = count_integer_operators(graph)
    if not counts:
        return ""
    nodes = ", ".join(f"{count} `{operator}`" for operator, count in counts.most_common(_MOST_NAMED))
    return (
        f"The graph is quantized already, with {nodes}: run it as it is (`apply_quantization: false`), or give the "
        "float graph to quantize."
    )


def check_unique_names(graph: Graph, quantized: onnx.ModelProto) -> None:
    """Raise where names of the quantizer occur twice, since the graph was quantized already."""
    nodes = quantized.graph.node
    for names in ([node.name for node in nodes], [tensor for node in nodes for tensor in node.output]):
        duplicate = next((name for name, count in Counter(names).items() if name and count > 1), "")
        if duplicate and (advice := already_quantized(graph)):
            raise ArtifactError(f"Quantized again, the graph would have `{duplicate}` twice. {advice}")


def check_shared_biases(graph: Graph, settings: Quantization, quantized: onnx.ModelProto, folder: Path) -> None:
    """Raise where several nodes share a bias that the format QOperator would get wrong.

    QOperator stores one form of each weight. That of a bias has 32 bits, at the scale of the node's input and weight.
    Another node can use it neither as its bias, unless it is all zeros, nor as a number in 8 bits.
    """
    if settings.layout != "QOperator":
        return
    reasons = float_reasons(graph, settings)
    stored = {weight.name: weight for weight in quantized.graph.initializer}
    for bias in graph.weights:
        readers = [node for node in graph.readers(bias) if node.name in reasons and reasons[node.name] is None]
        biased = [node for node in readers if node.op_type in ("Conv", "Gemm") and bias in node.input[2:]]
        form = stored.get(f"{bias}_quantized")
        if not biased or len(readers) < 2 or form is None:
            continue
        is_bias_only = len(biased) == len(readers)
        if is_bias_only and not onnx.numpy_helper.to_array(form, str(folder)).any():
            continue
        excludable = quote_names(node.name for node in (biased[1:] if is_bias_only else biased)[:_MOST_NAMED])
        raise ArtifactError(
            f"The format QOperator stores one form of a weight, and `{bias}`, the bias of `{biased[0].name}`, is read "
            f"by {len(readers)} quantized nodes. Use `quant_format: QDQ`, or exclude {excludable}."
        )


def check_finite_scales(quantized: onnx.ModelProto) -> None:
    """Raise where a scale is not finite; some versions of the quantizer give such a scale to the widest ranges."""
    for weight in quantized.graph.initializer:
        name = weight.name.removesuffix("_scale")
        if name == weight.name or uses_external_data(weight):
            continue
        if not np.isfinite(onnx.numpy_helper.to_array(weight)).all():
            raise ArtifactError(
                f"The range of `{name}` is too wide for a scale, which happens for a mask with the lowest float. "
                "Exclude the node that computes it, or use `activations_symmetric: false`."
            )


def remedy(graph: Graph, settings: Quantization, reason: str) -> str:
    """Return what to do about an error message of the quantizer."""
    if message := already_quantized(graph):
        return message
    if settings.layout == "QOperator":
        # `QLinearWhere` leaves the node as it is, with an input that exists in 8 bits only.
        if lost := sorted(tensor for tensor in re.findall(r"'([^']+)'", reason) if tensor in graph.producers):
            readers = sorted({reader.op_type for tensor in lost for reader in graph.readers(tensor)})
            makers = quote_names(graph.producers[tensor] for tensor in lost[:_MOST_NAMED])
            return (
                f"The format QOperator has no form for {join_names(readers)} after {makers}. Use `quant_format: QDQ`, "
                "or exclude the node before it."
            )
        biased = [node for node in graph.nodes.values() if node.op_type == "Conv" and len(node.input) == 3]
        if computed := [node.name for node in biased if node.input[2] not in graph.weights]:
            return (
                f"The bias of {quote_names(computed[:_MOST_NAMED])} is computed, not stored. Use `quant_format: QDQ`, "
                "or exclude the node."
            )
    if reason.isidentifier():
        return "The message names no node: use fewer `operators_to_quantize`, or the other `quant_format`."
    return "Exclude the node that the message names, or leave its operator out."
