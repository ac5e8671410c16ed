"""ONNX Runtime sessions: options, refusals as messages, and settings as the runtime reports them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def session_options(options: Mapping[str, Any]) -> Any:
    """The runtime's `SessionOptions` for a framework's arguments: level, threads, spinning."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    level = options.get("optimization_level")
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel(99 if level is None else level)
    if options.get("intra_op_num_threads"):
        settings.intra_op_num_threads = options["intra_op_num_threads"]
    settings.inter_op_num_threads = 1
    settings.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.get("allow_spinning") else "0")
    return settings


def refusals() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a graph or inputs that it cannot take; its own exceptions have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError)


def way_out(reason: str) -> str:
    """What to do about a reason of the runtime's, where that is known; empty where it is not.

    From opset 21 on `QuantizeLinear` names its type (`output_dtype`). Graph optimizations from level 2 on move int8
    pairs through `Reshape` and `Transpose` and give the copies a zero point of uint8, which does not fit: so do the
    versions 1.23 to 1.32.
    """
    if "output_dtype" in reason and "zero_point" in reason:
        return " Take `activations_dtype: uint8`, an `opset` of at most 20, or an `optimization_level` of at most 1."
    return ""


def read_back(session: Any) -> dict[str, Any]:
    """What a session really runs with, asked of the runtime itself."""
    import onnxruntime

    settings = session.get_session_options()
    return {
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "providers": session.get_providers(),
        "optimization_level": int(settings.graph_optimization_level.value),
        "intra_op_num_threads": int(settings.intra_op_num_threads),
        "allow_spinning": settings.get_session_config_entry("session.intra_op.allow_spinning") == "1",
    }
