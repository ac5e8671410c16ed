"""The frame `noise`: the noise certificate of a run, one row for each part (models that were timed together).

Reading the state of the machine is left to `measure.machine_state`, the noise floor to `measure.noise`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchcard.analysis.frames.columns import frame_of, interval_columns, shape_columns, with_bounds
from benchcard.analysis.records import Part, Records
from benchcard.measure import machine_state
from benchcard.measure.conductor import FEWEST_LAUNCHES
from benchcard.utils.values import Disturbance, Interval, Shape

if TYPE_CHECKING:
    import pandas as pd

_FIGURES = (
    "baseline",
    "models",
    "rounds",
    "launches",
    *with_bounds("ratio"),
    *with_bounds("cpu_ratio"),
    "load_before",
    "others_cpus",
    "others_cpus_most",
    "steal_share",
    "quota_cpus",
    "throttled_s",
    "governors",
    "core_slowdown",
    "warnings",
)

_GPU = (
    "gpu_clock_before_mhz",
    "gpu_clock_after_mhz",
    "gpu_temperature_before_c",
    "gpu_temperature_after_c",
    "gpu_slowdowns",
)


@dataclass(frozen=True)
class Certificate:
    """The noise certificate of one part.

    Attributes:
        baseline: The row of the baseline; None where there is none.
        models: Number of models that were timed together.
        ratio: The noise floor; None where the baseline was not timed twice.
        cpu_ratio: The noise floor of processor time; None where that is not known.
        machine: What the machine reported, by column of the frame.
        disturbances: What may have disturbed the timing, or widened its intervals.
    """

    shape: Shape
    baseline: int | None
    models: int
    rounds: int
    launches: int
    ratio: Interval | None
    cpu_ratio: Interval | None
    machine: Mapping[str, object]
    disturbances: tuple[Disturbance, ...]


def noise_frame(records: Records) -> pd.DataFrame:
    """Return the noise certificate: one row per group of models that were timed together.

    `ratio` compares two processes of the baseline, with its 95 % interval: without noise it is 1; `cpu_ratio`
    compares their processor times. Both are empty where there was no baseline, or where one of the two could not be
    timed. `baseline` is its row, the first one where rows of several baselines are timed with the same settings.
    `load_before` is the load average before the first model was opened (before the first round, where a run was
    stopped and continued). The other figures are of the rounds: `others_cpus` is the number of processors that
    other processes used, on average, and `others_cpus_most` in the worst half second; `steal_share` is the share of
    processor time that went to other machines; `throttled_s` is how long the cgroup's quota of `quota_cpus`
    throttled the run; `governors` are the frequency governors; `core_slowdown` is how many times as long a fixed loop
    took after slow rounds as after fast ones. Where models ran on a GPU, `gpu_clock_*` and `gpu_temperature_*` are
    those before the first round and after the last one, and `gpu_slowdowns` says why the clocks were lowered.
    `warnings` says what disturbed the timing, where the second process of the baseline failed, and where a short
    `duration` left fewer `launches` than narrow intervals need.
    """
    rows = [
        {
            **asdict(certificate.shape),
            **{name: getattr(certificate, name) for name in ("baseline", "models", "rounds", "launches")},
            **interval_columns("ratio", certificate.ratio),
            **interval_columns("cpu_ratio", certificate.cpu_ratio),
            **certificate.machine,
            "warnings": "; ".join(map(str, certificate.disturbances)),
        }
        for certificate in certificates(records)
    ]
    gpu = _GPU if any(row["gpu_clock_before_mhz"] is not None for row in rows) else ()
    return frame_of(rows, (*shape_columns(records), *_FIGURES[:-1], *gpu, *_FIGURES[-1:]))


def certificates(records: Records) -> list[Certificate]:
    """Return the noise certificate of each part that was timed to its end."""
    cells = {cell.name: cell for record in records.records for cell in record.cells.values()}
    baselines: dict[int, int | None] = {}
    for (row, _), part in records.timed.items():
        baselines.setdefault(id(part), records.plan[row].baseline)
    every = []
    for part in {id(part): part for parts in records.parts.values() for part in parts}.values():
        cell = next((cells[name] for name in part.names if name in cells), None)
        if part.outcome is None or cell is None:
            continue
        launches = _launches(part)
        every.append(
            Certificate(
                shape=cell.shape,
                baseline=baselines.get(id(part)),
                models=len(part.names),
                rounds=len(part.rounds),
                launches=launches,
                ratio=part.noise_floor,
                cpu_ratio=part.cpu_noise_floor,
                machine=_machine_columns(part),
                disturbances=_disturbances(part, launches),
            )
        )
    return every


def _launches(part: Part) -> int:
    """Return how often each model was launched, except those that failed, beside which others may run once more."""
    launches: dict[str, set[int]] = {}
    for timed in part.rounds:
        for block in timed.blocks:
            launches.setdefault(block.name, set()).add(timed.launch)
    completed = [len(numbers) for name, numbers in launches.items() if part.failure(name) is None]
    return min(completed or map(len, launches.values()), default=0)


def _machine_columns(part: Part) -> dict[str, object]:
    """Return what the machine reported before and during the rounds, in whichever run of the spec they were timed."""
    rounds = [(timed.before, timed.after) for timed in part.rounds]
    # In a run that was continued, the outcome has the state before the continuation; the first round is earlier.
    before = [part.outcome.before] if part.outcome else []
    first = min([*before, *(start for start, _ in rounds)], key=lambda state: state.at_ns)
    return {
        "load_before": first.load_1m,
        "others_cpus": machine_state.others_share(rounds),
        "others_cpus_most": max(machine_state.others_shares(rounds), default=None),
        "steal_share": machine_state.steal_share(rounds),
        "quota_cpus": machine_state.quota_cpus(rounds),
        "throttled_s": machine_state.counter_increase(rounds, "throttled_s"),
        "governors": machine_state.governors(rounds),
        "core_slowdown": machine_state.core_slowdown(rounds),
        **_gpu_columns(rounds),
    }


def _gpu_columns(rounds: Sequence[machine_state.Span]) -> dict[str, object]:
    """Return the GPU before the first round and after the last one, and why its clocks were lower in any of them."""
    before, after = (rounds[0][0].gpu, rounds[-1][1].gpu) if rounds else (None, None)
    ends = [getattr(gpu, name, None) for name in ("clock_mhz", "temperature_c") for gpu in (before, after)]
    return dict(zip(_GPU, (*ends, machine_state.gpu_slowdowns(rounds))))


def _disturbances(part: Part, launches: int) -> tuple[Disturbance, ...]:
    rounds = [(timed.before, timed.after) for timed in part.rounds]
    warnings = [Disturbance("", warning) for warning in (*_twin_warning(part), *_launch_warning(launches))]
    if part.baseline is not None and part.disturbance:
        kind = "disturbed" if part.is_disturbed else ""
        warnings.append(Disturbance(kind, f"{part.disturbance}: no ratio counts as detectable"))
    return (*machine_state.disturbances(rounds), *warnings)


def _twin_warning(part: Part) -> list[str]:
    """Return a warning if the baseline's second process failed, with what remains of the noise floor."""
    failure = part.process_failure(part.baseline, twin=True) if part.baseline is not None else None
    if failure is None:
        return []
    rounds = sum(
        {False, True} <= {block.twin for block in timed.blocks if block.name == part.baseline} for timed in part.rounds
    )
    left = f"the noise floor is of {rounds} of {len(part.rounds)} rounds" if rounds else "there is no noise floor"
    return [f"the second process of the baseline failed ({failure.stage}: {failure.type}): {left}"]


def _launch_warning(launches: int) -> list[str]:
    if not 0 < launches < FEWEST_LAUNCHES:
        return []
    times = "once" if launches == 1 else f"{launches} times"
    enough = f"a `duration` of 1 s gives at least {FEWEST_LAUNCHES}"
    return [f"each model was launched only {times} ({enough}): intervals are wide"]
