"""Whether ONNX Runtime can load a model and run it, told before anything is measured.

This module owns that one question and the wording of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchcard.errors import ArtifactError
from benchcard.graphs.runtime import refusals, way_out
from benchcard.quantization.report import is_integer


def check_runs(
    model: Path, feeds: Mapping[str, np.ndarray[Any, Any]] | None = None, optimization_level: int = 99
) -> None:
    """Nothing, where ONNX Runtime can load a model on the CPU, and run it where `feeds` are given.

    A missing kernel (`ConvInteger`, for one) shows when the model is loaded.

    Args:
        model: The model's file.
        feeds: One batch of inputs by name.
        optimization_level: The `GraphOptimizationLevel` that the model will be used with: 0, 1, 2 or 99.

    Raises:
        ArtifactError: Naming the operator and the node, with the runtime's reason; or an output has no finite number.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(optimization_level)
    options.intra_op_num_threads = 1
    # The reason comes as an exception; ONNX Runtime need not print it too.
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        outputs = session.run(None, dict(feeds)) if feeds is not None else []
    except refusals() as error:
        raise ArtifactError(_explained(model, str(error))) from error
    for output, value in zip((each.name for each in session.get_outputs()), outputs, strict=False):
        if value.dtype.kind == "f" and value.size and not np.isfinite(value).any():
            raise ArtifactError(f"{model.name} runs, but its output `{output}` holds no finite number.")


def loading_note(model: Path) -> str:
    """Empty where ONNX Runtime can load a model; where it can only without its later graph optimizations, a note of it.

    Raises:
        ArtifactError: It cannot load the model at any level.
    """
    try:
        check_runs(model)
    except ArtifactError:
        check_runs(model, optimization_level=1)
        return "it loads with an `optimization_level` of 0 or 1 alone: the runtime's later graph optimizations break it"
    return ""


def _explained(model: Path, text: str) -> str:
    """ONNX Runtime's message in one line, led by the operator and the node where it names them."""
    # The folder is gone when this is read: a step that failed leaves none.
    text = text.replace(f"{model.parent}/", "")
    reason = " ".join(text.split())
    reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", reason)[:600]
    missing = re.search(r"Could not find an implementation for (\w+)\((\d+)\) node with name '([^']*)'", text)
    if missing:
        operator, version, node = missing.groups()
        original = node.removesuffix("_quant").removesuffix("_MatMul")
        unsigned = ", or take `weights_dtype: uint8`" if operator == "ConvInteger" else ""
        return (
            f"ONNX Runtime cannot load {model.name}: it has no kernel for `{operator}` (opset {version}) with the "
            f"types of node `{node}` ({reason}). Exclude the node `{original}`, or its operator{unsigned}."
        )
    if half := _way_out_of_half(reason):
        return f"ONNX Runtime cannot load {model.name}: {reason.rstrip('.')}. {half}"
    named = re.search(r"In Node, \(\"([^\"]*)\", (\w+)", text)
    named = named or re.search(r"Node \(([^)]*)\) Op \((\w+)\)", text)
    if not named:
        running = re.search(r"running (\w+) node\. Name:'([^']*)'", text)
        where = f" at node `{running.group(2)}` ({running.group(1)})" if running else ""
        return f"ONNX Runtime cannot run {model.name}{where}: {reason}"
    node = f"`{named.group(1)}` ({named.group(2)})"
    return f"ONNX Runtime cannot load {model.name} because of node {node}: {reason}{way_out(reason)}"


def _way_out_of_half(reason: str) -> str:
    """What to do where a reason says that numbers of float16 were to be quantized; empty where it says no such thing.

    Source: the types of `QuantizeLinear` and `DequantizeLinear` in ONNX, which float16 is among from opset 19 on, and
    of `DynamicQuantizeLinear` and `QLinearMatMul` as ONNX Runtime has them, which it is not among.
    """
    mixed = re.search(
        r"\(QuantizeLinear\) bound to different types .*float16.* in node \((\w+?)_QuantizeLinear", reason
    )
    if mixed:
        return (
            f"Among float16 the scale of `{mixed.group(1)}` is float32, as the quantizer gives it to every `Softmax`: "
            "leave `Softmax` out of `operators_to_quantize`, or exclude the node."
        )
    typed = re.search(r"'tensor\(float16\)' of input parameter \(.*?\) of operator \((\w+)\)", reason)
    if not typed or not is_integer(typed.group(1)):
        return ""
    return (
        "Numbers of float16 can be quantized statically in the format QDQ alone, in a graph of opset 19 or later: take "
        "`quantization_approach: static` and `quant_format: QDQ` with such a graph. Neither dynamic quantization nor "
        "the format QOperator can be had for float16: give the float32 graph for these."
    )
