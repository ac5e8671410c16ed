"""The comparison of an ONNX graph with PyTorch, output by output. Leaves making probes to `probes`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from benchcard.errors import ArtifactError
from benchcard.export.probes import Array, Probe
from benchcard.graphs.runtime import open_session, runtime_errors

TOLERANCE = 1e-4
"""The largest allowed difference of an output, as a share of its largest value, or absolute where that is below 1.

Sums in another order change the outputs of float32 models by 1e-7 to 1e-5. A mask or a length that became a constant
changes them by 1e-3 and more. Source: optimum's ONNX exports are validated with `ATOL_FOR_VALIDATION`, 1e-5 by default
and 1e-4 for BERT, https://github.com/huggingface/optimum-onnx/blob/main/optimum/exporters/onnx/model_configs.py.
"""


@dataclass(frozen=True)
class Check:
    """One comparison of a graph with PyTorch, with all of ONNX Runtime's graph optimizations or none.

    `shapes` are those of the inputs. The difference is the largest of all outputs, at real (not padded) positions.
    """

    shapes: Mapping[str, tuple[int, ...]]
    optimized: bool
    max_abs_difference: float


def compare(path: Path, probes: Sequence[Probe]) -> tuple[Check, ...]:
    """Compare a graph with every probe, first without ONNX Runtime's graph optimizations, then with all of them.

    Calibration and quantization read the graph as it is written, and timing runs it optimized, so both must be right.

    Raises:
        ArtifactError: ONNX Runtime cannot load or run the graph, or an output is missing, has another shape, is not
            finite, or differs by more than `TOLERANCE`.
    """
    checks = []
    for optimized, level in ((False, 0), (True, 99)):
        try:
            session = open_session(path, level)
        except runtime_errors() as error:
            version = onnxruntime.__version__
            raise ArtifactError(f"ONNX Runtime {version} cannot load the graph: {_short_message(error)}") from error
        for probe in probes:
            checks.append(Check(probe.shapes, optimized, _largest_difference(session, probe, optimized)))
    return tuple(checks)


def _short_message(error: Exception) -> str:
    """Return ONNX Runtime's message without error codes, the path of the file and places in its source."""
    message = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?", "", str(error))
    message = re.sub(
        r"Non-zero status code .*? running (\w+) node\. Name:'(.*?)' Status Message: ", r"\1 `\2`: ", message
    )
    return re.sub(r"\S+\.(?:h|cc):\d+ .*?\)(?: const)?(?: \[with .*?\])? ", "", message).strip()


def _largest_difference(session: onnxruntime.InferenceSession, probe: Probe, optimized: bool) -> float:
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in probe.shapes.items())
    at = f"at {shapes}, graph optimizations {'on' if optimized else 'off'}"
    names = [entry.name for entry in session.get_outputs()]
    if missing := [name for name in probe.outputs if name not in names]:
        raise ArtifactError(f"the graph has no output {', '.join(missing)}")
    # The graph may lack an input that the model does not read. If the model does read it, the outputs differ.
    feed = {entry.name: probe.inputs[entry.name] for entry in session.get_inputs()}
    try:
        results = dict(zip(probe.outputs, session.run(list(probe.outputs), feed)))
    except runtime_errors() as error:
        raise ArtifactError(f"ONNX Runtime cannot run the graph {at}: {_short_message(error)}") from error
    largest = 0.0
    for name, expected in probe.outputs.items():
        actual: Array = np.asarray(results[name])
        if actual.shape != expected.shape:
            raise ArtifactError(f"{name} has shape {list(actual.shape)} instead of {list(expected.shape)} {at}")
        if not np.isfinite(actual[np.isfinite(expected)]).all():
            raise ArtifactError(f"{name} is not finite where PyTorch's is, {at}")
        difference, allowed = _difference(probe.at_real(name, actual), probe.at_real(name, expected))
        if not difference <= allowed:
            raise ArtifactError(
                f"{name} differs from PyTorch by {difference:.2g} {at}; at most {allowed:.2g} is allowed"
            )
        largest = max(largest, difference)
    return largest


def _difference(actual: Array, expected: Array) -> tuple[float, float]:
    """Return the largest difference, and the largest allowed one."""
    if not expected.size:
        return 0.0, TOLERANCE
    exact = expected.astype(np.float64)
    return float(np.abs(actual.astype(np.float64) - exact).max()), TOLERANCE * max(1.0, float(np.abs(exact).max()))
