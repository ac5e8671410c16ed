"""Whether an ONNX graph computes what PyTorch computes.

Owns: running a graph in ONNX Runtime on probes and comparing every output. Leaves making probes to `probes`. Never
loads torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.errors import ArtifactError
from benchcard.graphs.runtime import runtime_errors

if TYPE_CHECKING:
    import numpy as np

    from benchcard.export.probes import Probe


TOLERANCE = 1e-4
"""The largest difference that an output may have, as a share of its largest value, or absolute where that is below 1.

Sums in another order move the outputs of float32 models by 1e-7 to 1e-5; a mask or a length that was baked in moves
them by 1e-3 and more. Source: optimum's ONNX exports are validated with `ATOL_FOR_VALIDATION`, 1e-5 by default and 1e-4
for BERT, https://github.com/huggingface/optimum-onnx/blob/main/optimum/exporters/onnx/model_configs.py.
"""


@dataclass(frozen=True)
class Check:
    """One comparison of a graph with PyTorch.

    Attributes:
        shapes: the shape of every input.
        optimized: whether ONNX Runtime's graph optimizations were on (all of them) or off.
        max_abs_difference: the largest absolute difference over all outputs, at real (not padded) positions.
    """

    shapes: Mapping[str, tuple[int, ...]]
    optimized: bool
    max_abs_difference: float


def compare(path: Path, probes: Sequence[Probe]) -> tuple[Check, ...]:
    """One check for each probe, first without ONNX Runtime's graph optimizations, then with all of them.

    Both count. Without them the graph runs as it is written, which is what calibration and quantization read. With
    them it is what will be timed: a fusion that misreads the graph must not pass for the model.

    Args:
        path: the graph.
        probes: inputs and the outputs expected for them.

    Raises:
        ArtifactError: ONNX Runtime cannot load or run the graph, or an output is missing, has another shape, is not
            finite, or differs by more than `TOLERANCE`; the text names the shape and the difference.
    """
    checks = []
    for optimized in (False, True):
        session = _open(path, optimized)
        for probe in probes:
            checks.append(Check(probe.shapes, optimized, _largest_difference(session, probe, optimized)))
    return tuple(checks)


def _open(path: Path, optimized: bool) -> Any:
    import onnxruntime

    level = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    options.log_severity_level = 4  # what goes wrong comes back as an exception
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except runtime_errors() as error:
        raise ArtifactError(f"ONNX Runtime {onnxruntime.__version__} cannot load the graph: {_words(error)}") from error


def _words(error: Exception) -> str:
    """Return what ONNX Runtime says, without its codes, the path of the file and the places in its source."""
    message = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?", "", str(error))
    message = re.sub(
        r"Non-zero status code .*? running (\w+) node\. Name:'(.*?)' Status Message: ", r"\1 `\2`: ", message
    )
    return re.sub(r"\S+\.(?:h|cc):\d+ .*?\)(?: const)?(?: \[with .*?\])? ", "", message).strip()


def _largest_difference(session: Any, probe: Probe, optimized: bool) -> float:
    import numpy as np

    at = ", ".join(f"{name} {list(shape)}" for name, shape in probe.shapes.items())
    at = f"at {at}, graph optimizations {'on' if optimized else 'off'}"
    outputs = [entry.name for entry in session.get_outputs()]
    if missing := [name for name in probe.outputs if name not in outputs]:
        raise ArtifactError(f"the graph has no output {', '.join(missing)}")
    # An input that the graph does not take is left out: where the model reads it after all, the outputs tell.
    feed = {entry.name: probe.inputs[entry.name] for entry in session.get_inputs()}
    try:
        results = dict(zip(probe.outputs, session.run(list(probe.outputs), feed)))
    except runtime_errors() as error:
        raise ArtifactError(f"ONNX Runtime cannot run the graph {at}: {_words(error)}") from error
    largest = 0.0
    for name, expected in probe.outputs.items():
        found = np.asarray(results[name])
        if found.shape != expected.shape:
            raise ArtifactError(f"{name} has shape {list(found.shape)} instead of {list(expected.shape)} {at}")
        if not np.isfinite(found[np.isfinite(expected)]).all():
            raise ArtifactError(f"{name} is not finite where PyTorch's is, {at}")
        difference, allowed = _difference(found, expected, probe.real if name in probe.per_token else None)
        if not difference <= allowed:
            raise ArtifactError(
                f"{name} differs from PyTorch by {difference:.2g} {at}; at most {allowed:.2g} is allowed"
            )
        largest = max(largest, difference)
    return largest


def _difference(
    found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any], real: np.ndarray[Any, Any] | None
) -> tuple[float, float]:
    """The largest difference at real positions, and the largest that is allowed there."""
    import numpy as np

    if real is not None:
        found, expected = found[real], expected[real]
    if not expected.size:
        return 0.0, TOLERANCE
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return float(np.abs(found - expected).max()), TOLERANCE * max(1.0, float(np.abs(expected).max()))
