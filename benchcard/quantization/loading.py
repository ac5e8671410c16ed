"""Whether ONNX Runtime can load a model, checked before anything is measured, and what to do if it cannot."""

from __future__ import annotations

import re
from pathlib import Path

from benchcard.errors import ArtifactError
from benchcard.graphs.runtime import open_session, remedy, runtime_errors
from benchcard.quantization.operators import is_integer_operator


def check_loads(model: Path, optimization_level: int = 99) -> None:
    """Raise where ONNX Runtime cannot load a model on the CPU, as for a missing kernel (such as that of `ConvInteger`).

    Raises:
        ArtifactError: With the operator, the node and the runtime's reason.
    """
    try:
        open_session(model, optimization_level, threads=1)
    except runtime_errors() as error:
        raise ArtifactError(_explain(model, str(error))) from error


def loading_note(model: Path) -> str:
    """Return a note where ONNX Runtime can load a model only without its later graph optimizations; else nothing.

    Raises:
        ArtifactError: It cannot load the model at any level.
    """
    try:
        check_loads(model)
    except ArtifactError:
        check_loads(model, optimization_level=1)
        return "it loads with an `optimization_level` of 0 or 1 only: the runtime's later graph optimizations break it"
    return ""


def _explain(model: Path, error: str) -> str:
    """Return ONNX Runtime's message in one line, after the operator and the node where it names them."""
    # The folder no longer exists when this is read: a step that failed leaves none.
    error = error.replace(f"{model.parent}/", "")
    reason = " ".join(error.split())
    reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ", r"\1: ", reason)[:600]
    missing = re.search(r"Could not find an implementation for (\w+)\((\d+)\) node with name '([^']*)'", error)
    if missing:
        operator, version, node = missing.groups()
        original = node.removesuffix("_quant").removesuffix("_MatMul")
        unsigned = ", or use `weights_dtype: uint8`" if operator == "ConvInteger" else ""
        return (
            f"ONNX Runtime cannot load {model.name}: it has no kernel for `{operator}` (opset {version}) with the "
            f"types of node `{node}` ({reason}). Exclude the node `{original}`, or its operator{unsigned}."
        )
    if advice := _float16_remedy(reason):
        return f"ONNX Runtime cannot load {model.name}: {reason.rstrip('.')}. {advice}"
    named = re.search(r"In Node, \(\"([^\"]*)\", (\w+)", error) or re.search(r"Node \(([^)]*)\) Op \((\w+)\)", error)
    if not named:
        running = re.search(r"running (\w+) node\. Name:'([^']*)'", error)
        place = f" at node `{running.group(2)}` ({running.group(1)})" if running else ""
        return f"ONNX Runtime cannot run {model.name}{place}: {reason}"
    node = f"`{named.group(1)}` ({named.group(2)})"
    return f"ONNX Runtime cannot load {model.name} because of node {node}: {reason}{remedy(reason)}"


def _float16_remedy(reason: str) -> str:
    """Return what to do where float16 cannot be quantized as asked; empty where the reason is another.

    Source: the types of `QuantizeLinear` and `DequantizeLinear` in ONNX, which include float16 from opset 19 on, and of
    `DynamicQuantizeLinear` and `QLinearMatMul` in ONNX Runtime, which do not include it.
    """
    types = r"\(QuantizeLinear\) bound to different types .*float16.* in node \((\w+?)_QuantizeLinear"
    if mixed := re.search(types, reason):
        return (
            f"The scale of `{mixed.group(1)}` is float32 in a float16 graph: the quantizer does this to every "
            "`Softmax`. Leave `Softmax` out of `operators_to_quantize`, or exclude the node."
        )
    typed = re.search(r"'tensor\(float16\)' of input parameter \(.*?\) of operator \((\w+)\)", reason)
    if not typed or not is_integer_operator(typed.group(1)):
        return ""
    return (
        "float16 can be quantized statically only, in the format QDQ and at opset 19 or later. Use "
        "`quantization_approach: static` and `quant_format: QDQ` with such a graph, or give the float32 graph for "
        "dynamic quantization and the format QOperator."
    )
