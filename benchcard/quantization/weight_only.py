"""Weight-only quantization: matrices of weights in blocks of 4 or 8 bits, by ONNX Runtime's own quantizer.

Which nodes are quantized is in `operators`. Activations stay in floating point, so that nothing is calibrated.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchcard.graphs.files import write_model
from benchcard.graphs.graph import Graph, PreparedModel
from benchcard.graphs.traversal import all_nodes
from benchcard.quantization.operators import float_reasons, matrix_of
from benchcard.quantization.settings import Quantization


def quantize_weights(prepared: PreparedModel, target: Path, settings: Quantization) -> None:
    """Write a model with the weights of its eligible nodes in few bits."""
    # Imported here, because it sets up logging.
    from onnxruntime.quantization import matmul_nbits_quantizer as nbits

    chosen = {name for name, reason in float_reasons(prepared.graph, settings).items() if reason is None}
    model, how = onnx.load(str(prepared.path)), settings.resolved
    chosen |= _write_products(model, prepared.graph, chosen)
    nodes = [node for node in model.graph.node if node.op_type in ("MatMul", "Gather")]
    operators = tuple(sorted({node.op_type for node in nodes if node.name in chosen}))
    if how.algorithm == "hqq":
        config = nbits.HQQWeightOnlyQuantConfig(block_size=how.block_size, bits=how.bits)
    elif how.algorithm == "k_quant":
        # Its bits are 4, unless each node has its own.
        config = nbits.KQuantWeightOnlyQuantConfig(
            customized_weight_config={name: {"bits": how.bits} for name in chosen}
        )
    else:
        config = nbits.DefaultWeightOnlyQuantConfig(
            block_size=how.block_size,
            is_symmetric=how.weights_symmetric,
            accuracy_level=how.accuracy_level,
            op_types_to_quantize=operators,
            bits=how.bits,
        )
    excluded = [node.name for node in nodes if node.name not in chosen]
    # k_quant takes the block size and the accuracy level from here, the others from their own configuration.
    quantizer = nbits.MatMulNBitsQuantizer(
        model,
        block_size=how.block_size,
        accuracy_level=how.accuracy_level,
        nodes_to_exclude=excluded,
        algo_config=config,
    )
    # k_quant prints a bar of its own and divides by zero in blocks of equal weights; hqq makes read-only tensors.
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantizer.process()
    result = quantizer.model.model
    _clean_weights(result)
    if all(entry.domain != "com.microsoft" for entry in result.opset_import):
        result.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    write_model(result, target)


def _write_products(model: onnx.ModelProto, graph: Graph, chosen: Collection[str]) -> set[str]:
    """Write each chosen `Gemm` as a `MatMul` and an `Add`, and transpose the weights that the graph transposes.

    Returns the names of the new `MatMul`.
    """
    names: set[str] = set()
    weights = {weight.name: weight for weight in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.name not in chosen:
            nodes.append(node)
            continue
        matrix, is_transposed = matrix_of(graph, node)
        if is_transposed:
            source, matrix = weights[matrix], f"{matrix}_Transposed"
            if matrix not in weights:
                weights[matrix] = numpy_helper.from_array(numpy_helper.to_array(source).T, matrix)
                model.graph.initializer.append(weights[matrix])
        if node.op_type == "MatMul":
            node.input[1] = matrix
            nodes.append(node)
            continue
        names.add(f"{node.name}_MatMul")
        (output,), bias = node.output, [tensor for tensor in node.input[2:] if tensor]
        product = f"{output}_MatMul" if bias else output
        nodes.append(helper.make_node("MatMul", [node.input[0], matrix], [product], f"{node.name}_MatMul"))
        if bias:
            nodes.append(helper.make_node("Add", [product, *bias], [output], f"{node.name}_Add"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return names


def _clean_weights(model: onnx.ModelProto) -> None:
    """Remove weights that no node reads, and all but one of those that the quantizer makes of a weight with several
    readers. A `Transpose` of a weight that no node reads is removed, too.
    """
    names = {weight.name for weight in model.graph.initializer}
    read = _read_tensors(model)
    unread = [
        node
        for node in model.graph.node
        if node.op_type == "Transpose" and node.input[0] in names and node.output[0] not in read
    ]
    for node in unread:
        model.graph.node.remove(node)
    read = _read_tensors(model)
    weights = {weight.name: weight for weight in model.graph.initializer if weight.name in read}
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights.values())


def _read_tensors(model: onnx.ModelProto) -> set[str]:
    """Return the tensors that nodes read, or the graph returns."""
    return {tensor for node in all_nodes(model.graph) for tensor in node.input}.union(
        output.name for output in model.graph.output
    )
