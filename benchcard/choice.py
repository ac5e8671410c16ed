"""Which configuration to ship, and why: the choice from the frames, with its reasons in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Choice:
    """The configuration to ship.

    Attributes:
        row: Its row; None where nothing was measured.
        baseline: The row it was compared with; None where there is none.
        parameters: Its benchmarked parameters.
        reason: Why this one, in one sentence.
    """

    row: int | None
    baseline: int | None
    parameters: Mapping[str, Any]
    reason: str

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value}" for name, value in self.parameters.items() if value is not None)
        return f"row {self.row} ({said}): {self.reason}" if self.row is not None else self.reason


def best(
    quality: pd.DataFrame,
    time: pd.DataFrame,
    baseline: int | None,
    axes: list[str],
    metric: str | None,
    max_drop: float,
    higher_is_better: bool = True,
) -> Choice:
    """The fastest row whose quality is within `max_drop` of the baseline's and that is detectably faster; else the
    baseline.

    A row is detectably faster where the whole 95 % interval of its ratio to the baseline lies above 1, at every shape
    that was timed. Rows are ordered by the geometric mean of their ratios. Where there is no baseline, the row of best
    quality is taken and, among equals, the fastest.

    Args:
        quality: The frame of `Results.quality`.
        time: The frame of `Results.time`.
        baseline: The baseline's row.
        axes: The benchmarked parameters.
        metric: The metric that decides.
        max_drop: How much of it may be lost, in the metric's own unit.
        higher_is_better: The metric's direction.
    """
    import numpy as np

    sign = 1.0 if higher_is_better else -1.0

    measured = quality[quality[metric].notna()] if metric is not None and metric in quality else quality.iloc[:0]
    if measured.empty:
        return Choice(None, baseline, {}, "no configuration has figures: see the reasons in the column `failure`")

    def parameters(row: int) -> dict[str, Any]:
        return {name: quality.loc[quality["row"] == row, name].iloc[0] for name in axes}

    value = dict(zip(measured["row"], measured[metric]))
    if baseline is None or baseline not in value:
        latency = time.groupby("row")["latency_mean_ms"].mean()
        row = min(value, key=lambda each: (-sign * value[each], latency.get(each, np.inf), each))
        return Choice(
            int(row),
            None,
            parameters(row),
            f"{metric} {value[row]:.3f} is the best; there is no unquantized baseline to compare with",
        )
    floor, bound = value[baseline] - sign * max_drop, "at least" if higher_is_better else "at most"
    candidates: list[tuple[float, int, float, float]] = []
    for row in [int(each) for each in time["row"].unique() if each != baseline]:
        cells = time[time["row"] == row]
        low, high = cells["ratio_low"].dropna().tolist(), cells["ratio_high"].dropna().tolist()
        faster = len(low) == len(cells) and min(low) > 1 and bool(cells["detectable"].all())
        if faster and sign * value.get(row, -sign * np.inf) >= sign * floor - 1e-12:
            candidates.append((float(np.exp(np.log(cells["ratio"]).mean())), row, min(low), max(high)))
    if not candidates:
        return Choice(
            int(baseline),
            int(baseline),
            parameters(baseline),
            f"keep the baseline: nothing is detectably faster at {metric} of {bound} {floor:.3f}"
            if len(time)
            else "keep the baseline: nothing was timed",
        )
    ratio, row, least, most = max(candidates, key=lambda each: (each[0], -each[1]))
    speed = f"{ratio:.2f}x [{least:.2f}, {most:.2f}] as fast as the baseline"
    reason = f"{speed}, with {metric} {value[row]:.3f} (baseline {value[baseline]:.3f})"
    return Choice(row, int(baseline), parameters(row), reason)
