"""The Pareto front: the rows that no other row beats in both quality and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchcard.analysis.choice import SIGNS, row_qualities
from benchcard.analysis.frames.columns import with_bounds
from benchcard.analysis.gains import Gains, mean_ratio

if TYPE_CHECKING:
    import pandas as pd

_COSTS = {"latency": "latency_mean_ms", "memory": "memory_mb", "size": "size_mb"}


def pareto_front(
    quality: pd.DataFrame,
    gains: Gains,
    baselines: Mapping[int, int | None],
    data: Mapping[int, str],
    axes: Sequence[str],
    metric: str | None,
    higher_is_better: bool | None = True,
) -> pd.DataFrame:
    """Return the rows that no other row of the same data beats: none is at least as good in both metric and cost, and
    better in one of them.

    The frame has one row per configuration on the front, one data set after the other, the cheapest first: the
    benchmarked parameters, the metric with its interval, the cost (`latency_mean_ms`, `memory_mb` or `size_mb`, the
    geometric mean over shapes), and the `ratio` to the row's baseline with the interval that holds for all rows at
    once. Rows of one baseline are compared by their ratios if each has one, else by their costs. Of equal rows only the
    first is on the front. If it is not known whether a higher metric is better, the value closer to the baseline's is
    taken as better. `baselines` and `data` have the baseline and the data of each row.
    """
    import pandas as pd

    rows = row_qualities(quality, axes, metric)
    figures = {row: entry.figure for row, entry in rows.items() if entry.figure}
    rows_by_data: dict[str | None, list[int]] = {}
    for row in figures:
        if row in gains.costs:
            rows_by_data.setdefault(data.get(row), []).append(row)
    ratios = {
        row: mean_ratio(row_gains)
        for row, row_gains in gains.by_row.items()
        if row_gains and all(gain.ratio for gain in row_gains)
    }

    def goodness(row: int) -> float:
        sign, baseline = SIGNS[higher_is_better], baselines.get(row)
        value = figures[row].value
        reference = figures[baseline].value if baseline is not None and baseline in figures else 0.0
        return sign * value if sign else -abs(value - reference)

    names = with_bounds(f"{metric}")
    measures = [name for name in names if name in quality]
    front = []
    for group in rows_by_data.values():
        # Paired ratios are not affected by noise as means are. Ratios to two baselines cannot be compared.
        is_paired = ratios.keys() >= set(group) and len({baselines.get(row) for row in group}) == 1
        costs = {row: 1 / ratios[row].value if is_paired else gains.costs[row] for row in group}
        for row in _undominated({row: (goodness(row), costs[row]) for row in group}):
            figure, ratio = figures[row], ratios.get(row)
            values = dict(zip(names, (figure.value, figure.low, figure.high)))
            front.append(
                [
                    row,
                    *rows[row].parameters.values(),
                    *(values[name] for name in measures),
                    gains.costs[row],
                    *((ratio.value, ratio.low, ratio.high) if ratio else (None, None, None)),
                ]
            )
    return pd.DataFrame(front, columns=["row", *axes, *measures, _COSTS[gains.objective], *with_bounds("ratio")])


def _undominated(points: Mapping[int, tuple[float, float]]) -> Sequence[int]:
    """Return the rows that no other one beats, the cheapest first, from the goodness and the cost of each."""
    front = [
        row
        for row, (goodness, cost) in points.items()
        if not any(
            other_goodness >= goodness
            and other_cost <= cost
            and ((other_goodness, other_cost) != (goodness, cost) or other < row)
            for other, (other_goodness, other_cost) in points.items()
            if other != row
        )
    ]
    return sorted(front, key=lambda row: (points[row][1], row))
