"""What the quantizer makes of some graphs and nobody can use, and what to do instead.

This module owns the graphs that are refused after they were quantized, and the ways out that are told where the
quantizer itself refuses one. The call is `quantize`'s; whether the runtime can load the result is asked in `runs`.
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
from benchcard.quantization import operators
from benchcard.quantization.operators import Quantization
from benchcard.quantization.report import count_integer
from benchcard.utils.text import join_names


def came_quantized(graph: Graph) -> str:
    """What to do with a graph that holds quantized nodes before anything is done to it; empty for a float graph."""
    kinds = count_integer(graph)
    if not kinds:
        return ""
    held = ", ".join(f"{count} `{kind}`" for kind, count in kinds.most_common(3))
    return (
        f"The graph came quantized, with {held}: run it as it is (`apply_quantization: false`), or give the float "
        "graph to quantize."
    )


def refuse_twice_named(graph: Graph, result: onnx.ModelProto) -> None:
    """Refuse what the quantizer makes of some graphs that came quantized: its new nodes have the names of theirs."""
    nodes = result.graph.node
    for names in ([node.name for node in nodes], [tensor for node in nodes for tensor in node.output]):
        twice = next((name for name, count in Counter(names).items() if name and count > 1), "")
        if twice and count_integer(graph):
            raise ArtifactError(f"Quantized once more, the graph would have `{twice}` twice. {came_quantized(graph)}")


def refuse_shared_biases(graph: Graph, how: Quantization, result: onnx.ModelProto, folder: Path) -> None:
    """Refuse a bias that several nodes share, where the format QOperator would get it wrong.

    It gives each weight one form. That of a bias is in 32 bits, at the scale of the node's input and weight: another
    node can take it neither as its bias, unless it is all zeros, nor as a number in 8 bits.
    """
    if how.layout != "QOperator":
        return
    standings = operators.standings(graph, how, how.nodes_to_exclude)
    stored = {weight.name: weight for weight in result.graph.initializer}
    for bias in graph.weights:
        readers = [each for each in graph.readers(bias) if standings.get(each.name) == operators.QUANTIZED]
        biased = [each for each in readers if each.op_type in ("Conv", "Gemm") and bias in each.input[2:]]
        form = stored.get(f"{bias}_quantized")
        if not biased or len(readers) < 2 or form is None:
            continue
        alone = len(biased) == len(readers)
        if alone and not onnx.numpy_helper.to_array(form, str(folder)).any():
            continue
        left = ", ".join(f"`{each.name}`" for each in (biased[1:] if alone else biased)[:3])
        raise ArtifactError(
            f"The format QOperator has one form for a weight, and `{bias}`, the bias of `{biased[0].name}`, is read by "
            f"{len(readers)} quantized nodes: take `quant_format: QDQ`, or exclude {left}."
        )


def refuse_non_finite(result: onnx.ModelProto) -> None:
    """Refuse a graph with a scale that is no finite number; some versions give one to the widest ranges."""
    for weight in result.graph.initializer:
        name = weight.name.removesuffix("_scale")
        if name == weight.name or uses_external_data(weight):
            continue
        if not np.isfinite(onnx.numpy_helper.to_array(weight)).all():
            raise ArtifactError(
                f"The range of `{name}` is too wide for a scale, as that of a mask with the least float can be. "
                "Exclude the node that makes it, or take `activations_symmetric: false`."
            )


def way_out(graph: Graph, how: Quantization, reason: str) -> str:
    """What to do about a reason of the quantizer."""
    if count_integer(graph):
        return came_quantized(graph)
    lost = [tensor for tensor in re.findall(r"'([^']+)'", reason) if tensor in graph.producers]
    if how.layout == "QOperator" and lost:
        # `QLinearWhere` leaves the node as it is, with an input that exists in 8 bits only.
        readers = sorted({reader.op_type for tensor in lost for reader in graph.readers(tensor)})
        makers = ", ".join(f"`{graph.producers[tensor]}`" for tensor in sorted(lost)[:3])
        return (
            f"The format QOperator has no form for {join_names(readers)} behind {makers}: take the format QDQ, or "
            "exclude "
            "what stands before it."
        )
    computed = [
        f"`{name}`"
        for name, node in graph.nodes.items()
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] not in graph.weights
    ]
    if how.layout == "QOperator" and computed:
        return (
            f"The bias of {', '.join(computed[:3])} is computed, not stored: take the format QDQ, or exclude the node."
        )
    if reason.isidentifier():
        return "It names no node: take fewer `operators_to_quantize`, or the other `quant_format`."
    return "Leave the operator or the node that it names out of the quantization."
