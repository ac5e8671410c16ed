"""The noise floor: how far two processes of the same model differ, and which models differ from the baseline.

What disturbed the machine is left to `machine_state`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from benchcard.measure.blocks import Round
from benchcard.measure.intervals import CONFIDENCE, Ratio, RoundId, paired_ratios
from benchcard.measure.latency import block_medians
from benchcard.measure.significance import holm

Timed = tuple[str, bool]
"""The name of a model, and whether its times are those of its twin, the baseline's second process."""


def ratios(
    rounds: Sequence[Round],
    baseline: str,
    names: Sequence[str],
    times: Callable[..., dict[RoundId, float]] = block_medians,
) -> dict[Timed, Ratio]:
    """Return the ratio of the baseline to each model and to its own twin, where both were timed in a round.

    `times` are the times that are compared: `block_medians`, or `cpu_times`.
    """
    subjects = {(name, False): times(rounds, name) for name in names if name != baseline}
    subjects[baseline, True] = times(rounds, baseline, twin=True)
    return paired_ratios(times(rounds, baseline), subjects)


def distinguishable(ratios: Mapping[Timed, Ratio]) -> set[Timed]:
    """Return the models that differ from the baseline: one test for all ratios, with a level of 5 % for all together.

    If the twin is among them, the processes of a model differ by more than their rounds and launches show.

    Source: S. Holm (1979), see `significance.holm`.
    """
    tested = {name: ratio.p_value for name, ratio in ratios.items()}
    known = {name: p_value for name, p_value in tested.items() if p_value is not None}
    adjusted = dict(zip(known, holm(list(known.values()))))
    return {name for name, p_value in adjusted.items() if p_value < 1 - CONFIDENCE}
