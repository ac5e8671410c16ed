"""The noise floor: how far the same model, timed in two processes, differs from itself.

What disturbed the machine is left to `machine_state`.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchcard.measure.blocks import Round
from benchcard.measure.intervals import paired_ratio
from benchcard.measure.latency import block_medians
from benchcard.utils.values import Interval


def noise_floor(rounds: Sequence[Round], baseline: str) -> Interval:
    """Return the ratio of the baseline to its twin, the same model in another process: 1 without noise.

    Raises:
        ValueError: The twin was never timed.
    """
    return paired_ratio(block_medians(rounds, baseline), block_medians(rounds, baseline, twin=True))
