"""What a step is, and what each kind of step does.

Where steps are done is left to `workers`, and their order to `run`.
"""

from __future__ import annotations

MODULES = {
    **dict.fromkeys(("prepare", "sample", "shape"), "benchcard.steps.data"),
    **dict.fromkeys(("export", "cast", "convert"), "benchcard.steps.models"),
    **dict.fromkeys(("calibrate", "quantize", "explain", "rank"), "benchcard.steps.quantize"),
    **dict.fromkeys(("metric", "evaluate", "score", "compare"), "benchcard.steps.evaluate"),
}
"""The module of each kind of step. The function that does a step has the name of its kind."""
SLOW_IMPORTS = (
    "benchcard.evaluation.passes",
    "benchcard.quantization.calibration.collect",
    "benchcard.quantization.quantize",
    "benchcard.quantization.sensitivity.losses",
)
"""Modules that steps of the engine `onnx` import, which takes about a second."""
