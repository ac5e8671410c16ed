"""What a step is, and what each kind of step does. Where steps are done is left to `workers`, when to `run`."""

from __future__ import annotations

ACTIONS = {
    "prepare": "benchcard.steps.data:prepare",
    "sample": "benchcard.steps.data:sample",
    "shape": "benchcard.steps.data:shape",
    "export": "benchcard.steps.models:export",
    "convert": "benchcard.steps.models:convert",
    "calibrate": "benchcard.steps.quantize:calibrate",
    "quantize": "benchcard.steps.quantize:quantize",
    "explain": "benchcard.steps.quantize:explain",
    "rank": "benchcard.steps.quantize:rank",
    "metric": "benchcard.steps.evaluate:metric",
    "evaluate": "benchcard.steps.evaluate:evaluate",
    "score": "benchcard.steps.evaluate:score",
    "compare": "benchcard.steps.evaluate:compare",
}
"""The module and function of each kind of step, which the child process imports when it is asked for one."""
