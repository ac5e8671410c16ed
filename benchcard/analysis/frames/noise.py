"""The noise certificate of a run as a frame: what the baseline differs from itself by, and what the machine said.

This module owns one row per part, the models that were open and timed together. What is read of a machine is told in
`measure.noise`; what the ratio of the twins means, in `measure.statistics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchcard.analysis.records import Part, Records
from benchcard.run.groups import LAUNCHES

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.utils.values import Interval


NOISE_FIGURES = (
    "batch_size",
    "input_length",
    "baseline",
    "models",
    "rounds",
    "launches",
    "ratio",
    "ratio_low",
    "ratio_high",
    "load_before",
    "others_cpus",
    "others_cpus_most",
    "steal_share",
    "quota_cpus",
    "throttled_s",
    "governors",
    "warnings",
)


def noise_frame(records: Records) -> pd.DataFrame:
    """One row per group of models that were timed together: the noise certificate of the run.

    The baseline ran twice, as two processes that did not know of each other: `ratio` is what the same model differs
    from itself by, with its 95 % interval; it is empty where there was no baseline, or it could not be timed.
    `baseline` is its row; where rows of several are timed alike, the first of them.
    `load_before` is the load average before the first model was opened (before the first round, where a run was stopped
    and went on); the rest is of the rounds: `others_cpus` is how many processors others took, on average and, in
    `others_cpus_most`, in the worst of them; `steal_share` of the processor time went to other machines, `throttled_s`
    is how long the cgroup's quota of `quota_cpus` held us back, `governors` are the frequency governors. `warnings`
    says which of it disturbed the timing, where the second process of the baseline failed, and where a short `duration`
    left fewer `launches` than narrow intervals need.
    """
    import pandas as pd

    from benchcard.analysis.frames.columns import column

    parts = {id(part): part for each in records.parts.values() for part in each}
    cells = {cell.name: cell for record in records.records for cell in record.cells.values()}
    baselines: dict[int, int | None] = {}
    for (row, _), part in records.timed.items():
        baselines.setdefault(id(part), records.plan[row].baseline)
    rows: list[dict[str, Any]] = []
    for part in parts.values():
        cell = next((cells[name] for name in part.names if name in cells), None)
        if part.outcome is None or cell is None:
            continue
        shape = {
            "batch_size": cell.shape.batch_size,
            "input_length": cell.shape.input_length,
            "baseline": baselines.get(id(part)),
        }
        counts = {
            "models": len(part.names),
            "rounds": len(part.rounds),
            "launches": _launches(part),
        }
        rows.append({**shape, **counts, **_floor(part), **_machine(part, counts["launches"])})
    return pd.DataFrame({name: column([row.get(name) for row in rows]) for name in NOISE_FIGURES})


def _launches(part: Part) -> int:
    """How often each model was launched, those that failed apart: another may have been tried again beside them."""
    by_name: dict[str, set[int]] = {}
    for timed in part.rounds:
        for block in timed.blocks:
            by_name.setdefault(block.name, set()).add(timed.launch)
    whole = [len(each) for name, each in by_name.items() if part.failure(name) is None]
    return min(whole or map(len, by_name.values()), default=0)


def _floor(part: Part) -> dict[str, float | None]:
    from benchcard.measure import latency

    if part.baseline is None:
        return {}
    try:
        floor: Interval = latency.noise_floor(part.rounds, part.baseline)
    except ValueError:
        # The baseline, or its twin, could not be timed.
        return {}
    return {"ratio": floor.value, "ratio_low": floor.low, "ratio_high": floor.high}


def _machine(part: Part, launches: int) -> dict[str, Any]:
    """What the machine said of itself before and during the rounds, whichever run of the spec timed them."""
    from benchcard.measure import noise

    rounds = [(timed.before, timed.after) for timed in part.rounds]
    shares = [share for share in (noise.others_share(*each) for each in rounds) if share is not None]
    # Of a run that goes on, the outcome has what the machine said before that: the first round is the earlier.
    begun = [
        *([part.outcome.before] if part.outcome else []),
        *(before for before, _ in rounds),
    ]
    return {
        "load_before": min(begun, key=lambda reading: reading.at_ns).load_1m,
        "others_cpus": sum(shares) / len(shares) if shares else None,
        "others_cpus_most": max(shares, default=None),
        "steal_share": noise.steal_share(rounds),
        "quota_cpus": noise.quota_cpus(rounds),
        "throttled_s": noise.counter_increase(rounds, "throttled_s"),
        "governors": noise.governors(rounds),
        "warnings": "; ".join([*noise.warnings(rounds), *_alone(part), *_few(launches)]),
    }


def _alone(part: Part) -> list[str]:
    """That the baseline's second process failed, and what that leaves of the noise floor, in a sentence."""
    failure = part.failure(part.baseline, twin=True) if part.baseline is not None else None
    if failure is None:
        return []
    stage = failure.message.partition(":")[0]
    rounds = sum(
        {False, True} <= {block.twin for block in timed.blocks if block.name == part.baseline} for timed in part.rounds
    )
    left = f"the noise floor is of {rounds} of {len(part.rounds)} rounds" if rounds else "there is no noise floor"
    return [f"the second process of the baseline failed ({stage}: {failure.type}): {left}"]


def _few(launches: int) -> list[str]:
    """That there are too few launches for narrow intervals, in a sentence."""
    if not 0 < launches < LAUNCHES:
        return []
    times = "once" if launches == 1 else f"{launches} times"
    return [f"each model was launched only {times} (a `duration` of 1 s gives {LAUNCHES}): intervals are wide"]
