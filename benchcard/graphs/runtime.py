"""ONNX Runtime sessions: options, errors, remedies, and the settings that the runtime reports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

# What exporters and quantizers may raise for a graph or a model that they do not support.
LIBRARY_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def session_options(arguments: Mapping[str, object]) -> onnxruntime.SessionOptions:
    """Return the `SessionOptions` for a framework's arguments: optimization level, threads, spinning."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    level = arguments.get("optimization_level")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(99 if level is None else level)
    if arguments.get("intra_op_num_threads"):
        options.intra_op_num_threads = arguments["intra_op_num_threads"]
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if arguments.get("allow_spinning") else "0")
    return options


def open_session(model: Path, optimization_level: int, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Return a session on the CPU, whose threads do not spin: they would take the cores of another session.

    It prints no errors, because they are raised.
    """
    import onnxruntime

    options = session_options({"optimization_level": optimization_level, "intra_op_num_threads": threads})
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that onnxruntime raises for a graph or inputs; its own ones have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError)


def remedy(reason: str) -> str:
    """Return what to do about an error message of the runtime, with a leading space; empty where nothing is known.

    From opset 21 on `QuantizeLinear` names its output type. Graph optimizations from level 2 on move int8 pairs through
    `Reshape` and `Transpose` and give the copies a zero point of uint8, which does not match (versions 1.23 to 1.32).
    """
    if "output_dtype" in reason and "zero_point" in reason:
        return " Use `activations_dtype: uint8`, an `opset` of at most 20, or an `optimization_level` of at most 1."
    return ""


def session_settings(session: onnxruntime.InferenceSession) -> dict[str, object]:
    """Return the settings that a session really runs with, as the runtime reports them."""
    import onnxruntime

    options = session.get_session_options()
    return {
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "providers": session.get_providers(),
        "optimization_level": int(options.graph_optimization_level.value),
        "intra_op_num_threads": int(options.intra_op_num_threads),
        "allow_spinning": options.get_session_config_entry("session.intra_op.allow_spinning") == "1",
    }
