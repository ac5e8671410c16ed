"""The Pareto front: the rows that no other row beats in both quality and cost."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from benchcard.analysis.choice import SIGNS
from benchcard.analysis.frames.columns import interval_columns, with_bounds
from benchcard.analysis.gains import COSTS, Gains, mean_ratio
from benchcard.analysis.row_facts import RowQuality


def pareto_front(
    rows: Mapping[int, RowQuality], gains: Gains, metric: str | None, higher_is_better: bool | None = True
) -> pd.DataFrame:
    """Return the rows that no other row of the same examples beats: none is at least as good in both metric and cost,
    and better in one of them.

    The frame has one row per configuration on the front, one data set after the other, the cheapest first: the
    benchmarked parameters, the metric with its interval, the cost (`latency_mean_ms`, `memory_mb` or `size_mb`, the
    geometric mean over shapes), and the `ratio` to the row's baseline with the interval that holds for all rows at
    once. A row whose model is broken is not on the front. Rows of one baseline are compared by their ratios if each has
    one, else by their costs. Of equal rows only the first is on the front. If it is not known whether a higher metric
    is better, the value closer to the baseline's is taken as better.
    """
    figures = {row: entry.figure for row, entry in rows.items() if entry.figure and not entry.broken}
    groups: dict[str, list[int]] = {}
    for row in figures:
        if row in gains.costs:
            groups.setdefault(rows[row].examples, []).append(row)
    ratios = {
        row: mean_ratio(row_gains)
        for row, row_gains in gains.by_row.items()
        if row_gains and all(gain.ratio for gain in row_gains)
    }

    def badness(row: int) -> float:
        sign, value, baseline = SIGNS[higher_is_better], figures[row].value, rows[row].baseline
        reference = figures[baseline].value if baseline is not None and baseline in figures else 0.0
        return -sign * value if sign else abs(value - reference)

    cost = COSTS[gains.objective]
    front = []
    for group in groups.values():
        # Paired ratios are not affected by noise as means are. Ratios to two baselines cannot be compared.
        is_paired = ratios.keys() >= set(group) and len({rows[row].baseline for row in group}) == 1
        costs = {row: 1 / ratios[row].value if is_paired else gains.costs[row] for row in group}
        front += [
            {
                "row": row,
                **rows[row].parameters,
                **interval_columns(f"{metric}", figures[row]),
                cost: gains.costs[row],
                **interval_columns("ratio", ratios.get(row)),
            }
            for row in _undominated({row: (costs[row], badness(row)) for row in group})
        ]
    parameters = next((entry.parameters for entry in rows.values()), ())
    measures = with_bounds(metric) if metric else ()
    return pd.DataFrame(front, columns=["row", *parameters, *measures, cost, *with_bounds("ratio")])


def _undominated(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """Return the rows that no other one beats, the cheapest first, from the cost and the badness of each."""
    front: list[int] = []
    for row in sorted(points, key=lambda row: (*points[row], row)):
        if not front or points[row][1] < points[front[-1]][1]:
            front.append(row)
    return front
