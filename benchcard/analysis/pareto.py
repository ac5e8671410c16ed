"""The rows that no other row beats in both quality and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchcard.analysis.choice import SIGNS, mean_gain, rows_by_number
from benchcard.analysis.frames.columns import is_known

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.analysis.gains import Gains


def pareto(
    quality: pd.DataFrame,
    gains: Gains,
    baselines: Mapping[int, int | None],
    data: Mapping[int, str],
    axes: list[str],
    metric: str | None,
    higher_is_better: bool | None = True,
) -> pd.DataFrame:
    """The rows that no other row of the same data beats: none is better in one of metric and cost and at least as good
    in the other.

    One row per configuration on the front, one data set after the other and the cheapest first: the benchmarked
    parameters, the metric with its interval, the cost (`latency_mean_ms`, `memory_mb` or `size_mb`, the geometric mean
    over shapes), and `ratio` to the row's baseline with the interval that holds for all rows at once. Ratios order the
    rows of one baseline where each has one, else costs do. Of rows that come to the same only the first is there. Where
    nobody says which way the metric is better, the nearer to the baseline's is taken to be.

    Args:
        quality: The frame of `Results.quality`.
        gains: What each row gains, in the objective.
        baselines: The row that each row is compared with.
        data: What each row was evaluated on.
        axes: The benchmarked parameters.
        metric: The metric that stands for quality.
        higher_is_better: The metric's direction; None where nobody says.
    """
    import pandas as pd

    cost_name = {"latency": "latency_mean_ms", "memory": "memory_mb", "size": "size_mb"}[gains.objective]
    told = rows_by_number(quality)
    figures = {row: float(each[metric]) for row, each in told.items() if metric in each and is_known(each[metric])}
    by_data: dict[str | None, list[int]] = {}
    for row in figures:
        if row in gains.costs:
            by_data.setdefault(data.get(row), []).append(row)
    ratios = {row: mean_gain(each) for row, each in gains.by_row.items() if each and all(gain.ratio for gain in each)}

    def good(row: int) -> float:
        sign, baseline = SIGNS[higher_is_better], baselines.get(row)
        middle = figures.get(baseline, 0.0) if baseline is not None else 0.0
        return sign * figures[row] if sign else -abs(figures[row] - middle)

    measures = [name for name in (metric or "", f"{metric}_low", f"{metric}_high") if name in quality]
    lines = []
    for rows in by_data.values():
        # Ratios are paired and survive noise, which a mean does not; those to two baselines say nothing of each other.
        is_paired = ratios.keys() >= set(rows) and len({baselines.get(row) for row in rows}) == 1
        prices = {row: 1 / ratios[row].value if is_paired else gains.costs[row] for row in rows}
        for row in _front({row: (good(row), prices[row]) for row in rows}):
            ratio = ratios.get(row)
            bounds = (ratio.value, ratio.low, ratio.high) if ratio else (None, None, None)
            lines.append([row, *(told[row][name] for name in (*axes, *measures)), gains.costs[row], *bounds])
    return pd.DataFrame(lines, columns=["row", *axes, *measures, cost_name, "ratio", "ratio_low", "ratio_high"])


def _front(points: Mapping[int, tuple[float, float]]) -> Sequence[int]:
    """The rows that no other one beats, the cheapest first, from how good each is and what it costs."""
    front = [
        row
        for row, (well, cost) in points.items()
        if not any(
            (better >= well and less <= cost) and ((better, less) != (well, cost) or other < row)
            for other, (better, less) in points.items()
            if other != row
        )
    ]
    return sorted(front, key=lambda row: (points[row][1], row))
