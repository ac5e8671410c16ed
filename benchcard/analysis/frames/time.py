"""The frame `time`: one row for each configuration and shape, with latencies and ratios.

The figures are computed in `analysis.times`.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from benchcard.analysis.frames.columns import (
    frame_of,
    interval_columns,
    parameter_columns,
    parameter_names,
    shape_columns,
    with_bounds,
)
from benchcard.analysis.records import Records
from benchcard.analysis.row_facts import on_gpu
from benchcard.analysis.times import DEVICE_MEMORY, TimeFigures, row_times

if TYPE_CHECKING:
    import pandas as pd

# The failure of rows that were not to be timed.
NOT_ASKED = "not timed: `duration` is 0"
_FIGURES = (
    *with_bounds("latency_mean_ms"),
    *(name for rank in ("50", "90", "95", "99", "99.9") for name in with_bounds(f"latency_p{rank}_ms")),
    *with_bounds("throughput_per_s"),
    *with_bounds("ratio"),
    "detectable",
    *with_bounds("cpu_ratio"),
    *with_bounds("cpu_ms"),
    *with_bounds("core_seconds_per_1000"),
    *with_bounds("cost_per_million"),
    *with_bounds("drift"),
    "threads",
    "spinning",
    "runs",
    "elapsed_s",
    "load_ms",
    "first_call_ms",
    "memory_mb",
    "memory_saved",
)


def time_frame(records: Records) -> pd.DataFrame:
    """Return one row per configuration, batch size and input length, and per phase for models with a cache: the latency
    is the time per token in the phase `token`, whose input length is in the cache, and the time to the first token of a
    prompt in the phase `prompt`.

    `latency_*_ms` is the time of one forward call; `throughput_per_s` counts samples in elapsed seconds, and
    `tokens_per_s` the tokens of these inputs or those that are generated, for text generation; `ratio` is how
    many times faster than the baseline the row is, paired round by round; `cpu_ms` is the processor time of one call on
    all processors, and `cpu_ratio` the baseline's over the row's. Figures with `_low` and `_high` beside them have a
    95 % interval. `drift` is the relative change of latency from the first launch to the last; `threads` and
    `spinning` are what the runtime reported; `runs` is the number of calls and `elapsed_s` the seconds behind the
    figures; `memory_mb` is the peak above the memory of the process before it loaded the model, and `memory_saved` how
    much less than the baseline's it is, in %. With a GPU there are `device_memory_mb`, the GPU memory of the process
    after the warm-up as NVML reports it, and `device_allocated_mb`, the peak of PyTorch's tensors.
    """
    rows = []
    for record in records.records:
        for shape, times in row_times(records, record):
            if isinstance(times, TimeFigures):
                figures = {field.name: getattr(times, field.name) for field in fields(times)}
                for name, interval in figures.pop("intervals").items():
                    figures |= interval_columns(name, interval)
            else:
                figures = {"failure": str(times or NOT_ASKED)}
            rows.append({**parameter_columns(record), **asdict(shape), **figures})
    tokens = with_bounds("tokens_per_s") if records.traits.counts_tokens else ()
    device = [f"{name}_mb" for name in DEVICE_MEMORY] if any(map(on_gpu, records.records)) else []
    names = (*parameter_names(records), *shape_columns(records), *tokens, *_FIGURES, *device, "failure")
    return frame_of(rows, names)


def timing_notes(records: Records) -> list[str]:
    """Return notes on rows that were not to be timed, and on input lengths where the task has none."""
    plan = records.plan
    untimed = sum(not row["duration"] > 0 for row in plan)
    if untimed == len(plan):
        return [NOT_ASKED]
    notes = [f"{untimed} of {len(plan)} rows {'is' if untimed == 1 else 'are'} {NOT_ASKED}"] if untimed else []
    lengths = dict.fromkeys(str(length) for row in plan for length in row["input_lengths"] or ())
    if lengths and not records.traits.has_length:
        notes.append(
            f"input_lengths ({', '.join(lengths)}) have no effect for {plan.spec.task}: each batch size was timed "
            "once, at the input size of the model's processor"
        )
    return notes
