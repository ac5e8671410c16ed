"""The choice: faster without doubt, good enough, and otherwise the baseline."""

from __future__ import annotations

import pandas as pd
import pytest

from benchcard.choice import best


def frames(values, ratios):
    """Quality and time frames of rows 0, 1, ..., the first being the baseline; a ratio is (value, low, high,
    detectable).
    """
    rows = range(len(values))
    quality = pd.DataFrame({"row": rows, "per_channel": [None] * len(values), "accuracy": values})
    columns = ("ratio", "ratio_low", "ratio_high", "detectable")
    time = pd.DataFrame([dict(zip(columns, ratio)) for ratio in ratios]).assign(row=rows, latency_mean_ms=1.0)
    return quality, time


ONE = (1.0, 1.0, 1.0, False)
FAST = (2.0, 1.8, 2.2, True)


def choose(values, ratios, baseline=0, **rest):
    """The row that is chosen, and the reason."""
    found = best(*frames(values, ratios), baseline, ["per_channel"], "accuracy", rest.pop("max_drop", 0.01), **rest)
    return found.row, found.reason


def test_the_fastest_row_that_is_good_enough():
    """Speed decides among the rows within the drop; the reason has ratio, interval and both qualities."""
    row, reason = choose([0.9, 0.895, 0.5], [ONE, (1.5, 1.4, 1.6, True), FAST])
    assert row == 1
    assert reason == "1.50x [1.40, 1.60] as fast as the baseline, with accuracy 0.895 (baseline 0.900)"


@pytest.mark.parametrize("ratio", [(1.2, 0.9, 1.5, False), (1.2, 1.1, 1.3, False), (0.5, 0.4, 0.6, True)])
def test_what_is_not_surely_faster_is_not_taken(ratio):
    """A row whose interval holds 1, that the noise of the run covers, or that is slower, leaves the baseline in
    place.
    """
    row, reason = choose([0.9, 0.9], [ONE, ratio])
    assert row == 0
    assert "keep the baseline" in reason


def test_a_metric_of_which_less_is_better():
    """For an error, the drop is a rise."""
    assert choose([1.0, 1.005], [ONE, FAST], higher_is_better=False)[0] == 1
    assert choose([1.0, 0.5], [ONE, FAST], higher_is_better=False)[0] == 1
    row, reason = choose([1.0, 1.5], [ONE, FAST], higher_is_better=False)
    assert row == 0
    assert "at most 1.010" in reason


def test_without_a_baseline_quality_decides():
    """Where nothing is unquantized, the best quality is taken, and that is said."""
    row, reason = choose([0.8, 0.9], [ONE, FAST], baseline=None)
    assert row == 1
    assert "no unquantized baseline" in reason


def test_no_figures_no_row():
    """Where nothing was measured there is a reason, and no row."""
    row, reason = choose([None, None], [ONE, FAST])
    assert row is None
    assert "no configuration has figures" in reason
