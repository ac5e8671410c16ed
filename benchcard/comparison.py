"""The step that says how sure a row's figures are, and how they differ from the baseline's on the same examples.

This module owns which predictions are compared. What is made of them is told in `measure.quality`.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from benchcard.steps import Step, StepFailed
from benchcard.store import Outcome

if TYPE_CHECKING:
    from benchcard.walk import Walk, _Way

# For so many the draws that an interval takes anyway are enough: their comparison is the same, however many they are.
FEW_MODELS = 25


def compare(way: _Way) -> None:
    """Ask for the comparison of a row that has predictions: with the baseline's, where that has predictions of the same
    examples, else only for the intervals.

    Raises:
        StepFailed: It failed.
    """
    needs = {"inputs": way.outcomes["prepare"], "predictions": way.outcomes["evaluate"]}
    if way.row.baseline not in (None, way.row.row):
        baseline = _evaluated(way.walk, way.row.baseline)
        if "evaluate" in baseline and baseline["prepare"].key == needs["inputs"].key:
            needs["baseline"] = baseline["evaluate"]
    asked = {"metrics": way.metrics(), "task": way.walk.task_name, "seed": way.row["seed"]}
    if "baseline" in needs and way.row.baseline is not None:
        models = way.walk.compared_with(way.row.baseline)
        asked |= {"models": models} if models > FEW_MODELS else {}
    way.ask(Step("compare", "torch", asked, needs=needs, extra=way.walk.sources.scripts))


def _evaluated(walk: Walk, row: int) -> Mapping[str, Outcome]:
    """The outcomes of a row as far as its predictions, whenever it is asked for: a baseline may come after the rows
    that are compared with it. Without predictions where its way ends before.
    """
    if row not in walk.evaluated:
        way = walk.way(row)
        with suppress(StepFailed):
            way.prepare()
            way.make()
            way.predict()
        walk.evaluated[row] = way.outcomes
    return walk.evaluated[row]
