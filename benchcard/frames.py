"""Records as pandas frames: one row per configuration, parameters as columns, units in the names.

Units are converted here, once: nanoseconds and bytes in the run directory, milliseconds, seconds and megabytes (10^6
bytes) in frames and cards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

from benchcard import likeness, reasons, registry
from benchcard.metrics import BESIDE
from benchcard.records import Part, Records
from benchcard.steps import Cell, Record
from benchcard.store import Failure, Outcome

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.measure.statistics import Interval

PASS_METRICS = ("total_time_in_seconds", "samples_per_second", "latency_in_seconds")
# Said of every row where nothing was to be timed.
NOT_ASKED = "not timed: `duration` is 0"


def _bounded(*names: str) -> tuple[str, ...]:
    """Each name, followed by those of the bounds of its interval."""
    return tuple(f"{name}{end}" for name in names for end in ("", "_low", "_high"))


TIME_FIGURES = (
    *_bounded("latency_mean_ms", *(f"latency_p{rank}_ms" for rank in ("50", "90", "95", "99", "99.9"))),
    *_bounded("throughput_per_s", "ratio"),
    "detectable",
    *_bounded("drift"),
    "threads",
    "spinning",
    "runs",
    "elapsed_s",
    "load_ms",
    "first_call_ms",
    "memory_mb",
)

MODEL_FIGURES = (
    "digest",
    "size_mb",
    "opset",
    "export_max_abs_difference",
    "nodes_quantized",
    "nodes_eligible",
    "quantize_nodes",
    "dequantize_nodes",
    "nodes_in_8_bits",
    "conversion_share",
    "nodes_excluded",
    "exclusions",
    "output_max_abs_difference",
    "output_snr_db",
    "lossy_layers",
    "auto_exclusion",
    "auto_trials",
    "saturation_risk",
)


def quality(records: Records) -> pd.DataFrame:
    """One row per configuration: `row`, the benchmarked parameters, each metric, the figures of the evaluation pass,
    and why figures are missing.

    Each metric `m` has its 95 % interval from `m_low` to `m_high`; against the baseline, on the same examples,
    `m_difference` with its interval, the `m_p_value` of a paired test, and `m_detectable_difference`, the smallest true
    difference that this many examples show four times in five. `predictions_changed` counts the examples that the
    baseline predicts otherwise; `not_compared` says why there is no comparison. Where there is a
    `saturation_risk`, the figures may be better on another processor. `positive_class` is the label that metrics of one
    label are of, as `f1`; there is no such column without such a metric.

    Where the model decides what is scored, a column says what: `similarity`, of embeddings; `activation`, of the one
    output of a model.

    `total_time_in_seconds` is one pass over the evaluation split with preprocessing; `samples_per_second` and
    `latency_in_seconds` follow from it. They are empty where the same model was evaluated for an earlier row, with
    another number of threads.
    """
    rows = []
    for record in records.records:
        score, evaluated, prepared = (record.outcomes.get(kind) for kind in ("score", "evaluate", "prepare"))
        row = {**(prepared.values.get("facts", {}) if prepared else {}), **_parameters(record)}
        if score:
            row |= _figures(score, record.outcomes.get("compare"))
            row |= _positive_class(score)
            alike = likeness.embedding_cosine(records, record)
            row |= {likeness.COLUMN: alike} if alike is not None else {}
        if evaluated and prepared and evaluated.values.get("items"):
            row["samples"] = samples = prepared.values["samples"]
            if reasons.other_threads(records, record) is None:
                seconds = (evaluated.values["elapsed_ns"] + prepared.values["preprocessing_ns"]) / 1e9
                row |= dict(zip(PASS_METRICS, (seconds, samples / seconds, seconds / samples)))
        row["predictions_changed"] = _compared(record).get("predictions_changed")
        row["not_compared"] = _not_compared(records, record)
        row["saturation_risk"] = reasons.saturation_risk(records, record)
        row["same_model_as"] = reasons.same_model_as(records, record)
        row["failure"] = _said(record.failures.get("model") or record.failures.get("quality"))
        rows.append(row)
    measured = dict.fromkeys(name for row in rows for name in row)
    names = [*_parameter_names(records), *measured]
    last = (
        *(["positive_class"] if "positive_class" in measured else []),
        "predictions_changed",
        *PASS_METRICS,
        "samples",
        "not_compared",
        "saturation_risk",
        "same_model_as",
        "failure",
    )
    return _frame(rows, [name for name in dict.fromkeys(names) if name not in last] + list(last))


def _figures(score: Outcome, compared: Outcome | None) -> dict[str, Any]:
    """The columns of all metrics of one row: each figure and, after it, what there is beside it."""
    row: dict[str, Any] = {}
    for name, value in score.values["metrics"].items():
        beside = compared.values["figures"].get(name, {}) if compared else {}
        row[name] = value
        row |= {f"{name}_{part}": beside.get(part) for part in BESIDE}
    return row


def _positive_class(score: Outcome) -> dict[str, str]:
    """Return the label that metrics of one label are of: one name, or a name for each metric where they differ."""
    classes = score.values.get("positive_classes")
    if not classes:
        return {}
    first, *others = dict.fromkeys(classes.values())
    return {"positive_class": ", ".join(f"{name}: {label}" for name, label in classes.items()) if others else first}


def _compared(record: Record) -> Mapping[str, Any]:
    return record.outcomes["compare"].values if "compare" in record.outcomes else {}


def _not_compared(records: Records, record: Record) -> str | None:
    """Why a row with figures is not compared with a baseline; None where it is, or is the baseline."""
    row = record.configuration
    if row.baseline == row.row or "score" not in record.outcomes:
        return None
    if "comparison" in record.failures:
        return _said(record.failures["comparison"])
    if _compared(record).get("predictions_changed") is not None:
        return None
    if row.baseline is None:
        return "there is no unquantized baseline"
    failures = records.records[row.baseline].failures
    failure = failures.get("model") or failures.get("quality")
    return f"row {row.baseline}, the baseline, has no predictions: {failure}" if failure else "other examples"


def time(records: Records) -> pd.DataFrame:
    """One row per configuration, batch size and input length.

    `latency_*_ms` are of one forward call; `throughput_per_s` counts samples in really elapsed seconds; `ratio` is how
    many times faster than the baseline, paired round by round; figures with `_low` and `_high` beside them have a 95 %
    interval. `drift` is the relative change of latency from the first launch to the last; `threads` and `spinning` are
    what the runtime said that it had; `runs` are the calls and `elapsed_s` the seconds that stand behind the figures;
    `memory_mb` is the peak over the process before the model was loaded.
    """
    rows = []
    for record in records.records:
        for shape, cell in record.cells.items():
            timed = _timed(records, record, cell, shape)
            rows.append({**_parameters(record), "batch_size": cell.samples, "input_length": cell.input_length, **timed})
        for (batch_size, length), failure in _untimed(records, record):
            rows.append(
                {**_parameters(record), "batch_size": batch_size, "input_length": length, "failure": str(failure)}
            )
    return _frame(rows, (*_parameter_names(records), "batch_size", "input_length", *TIME_FIGURES, "failure"))


def models(records: Records) -> pd.DataFrame:
    """One row per configuration: what its model is, and why.

    `digest` of its content; `size_mb` on disk, of the file that the framework opens; `nodes_quantized` of
    `nodes_eligible`; `nodes_in_8_bits`, which the runtime really computes in 8 bits, and `conversion_share`, the
    share of a call's time that goes to conversions, empty where the same model was run for an earlier row, with
    another number of threads; `nodes_excluded` that would have been quantized, and `exclusions`, what each of them
    matched and changed; the largest difference and the signal-to-noise ratio of its outputs against float32;
    `lossy_layers`, those whose quantization costs the outputs most, the worst first; `auto_exclusion`, the list
    that `node_exclusion: auto` found in `auto_trials`; `same_model_as` an earlier row, byte for byte, and the
    `reason`.
    """
    rows = []
    for record in records.records:
        row = {**_parameters(record), "digest": record.digest[:12] if record.digest else None}
        made = reasons.made(record)
        size = made.values["size_bytes"] if made else _size_when_timed(records, record)
        row["size_mb"] = size / 1e6 if size is not None else None
        if "export" in record.outcomes:
            report = record.outcomes["export"].values["report"]
            row |= {"opset": report.get("opset"), "export_max_abs_difference": report.get("max_abs_difference")}
        if "quantize" in record.outcomes:
            report = record.outcomes["quantize"].values["report"]
            row |= {
                name: report[name]
                for name in ("nodes_quantized", "nodes_eligible", "quantize_nodes", "dequantize_nodes")
            }
            exclusions = record.outcomes["quantize"].values["exclusions"]
            row["nodes_excluded"] = len({name for each in exclusions for name in each["would_be_quantized"]})
            row["exclusions"] = "; ".join(map(reasons.of_exclusion, exclusions)) or None
            if report["is_float_model"]:
                # Nothing to compare: the model is the one that it would be compared with.
                row["output_max_abs_difference"] = 0.0
        run = reasons.kernels(record)
        if run:
            row["nodes_in_8_bits"] = sum(kernel.nodes for kernel in run if kernel.numbers == "8 bits")
            if reasons.other_threads(records, record) is None:
                shares = (kernel.time_share for kernel in run if kernel.numbers == "conversion")
                row["conversion_share"] = sum(shares, 0.0)
        if "explain" in record.outcomes:
            losses = record.outcomes["explain"].values
            row |= {
                "output_max_abs_difference": losses["outputs"]["max_abs_difference"],
                "output_snr_db": losses["outputs"]["snr_db"],
            }
            row["lossy_layers"] = ", ".join(layer["node"] for layer in losses["layers"])
        if record.search:
            row |= {"auto_exclusion": reasons.pasted(record.search.nodes), "auto_trials": len(record.search.trials)}
        row["saturation_risk"] = reasons.saturation_risk(records, record)
        row["reason"] = reasons.why_same(records, record)
        row["same_model_as"] = reasons.same_model_as(records, record)
        row["failure"] = _said(record.failures.get("model"))
        rows.append(row)
    return _frame(rows, (*_parameter_names(records), *MODEL_FIGURES, "same_model_as", "reason", "failure"))


def kernels(records: Records) -> pd.DataFrame:
    """One row per configuration and kernel that its model comes to when it runs, where the framework can say: `kernel`,
    an operator of ONNX or of the runtime; in what `numbers` it computes ("8 bits", "float", "other"; or "conversion");
    how many `nodes` there are; and their `time_share` of a call with the longest example alone, the largest first. It
    is empty where the same model was run for an earlier row, with another number of threads.
    """
    rows = [
        {
            **_parameters(record),
            "kernel": kernel.name,
            "numbers": kernel.numbers,
            "nodes": kernel.nodes,
            "time_share": None if reasons.other_threads(records, record) else kernel.time_share,
        }
        for record in records.records
        for kernel in reasons.kernels(record)
    ]
    return _frame(rows, (*_parameter_names(records), "kernel", "numbers", "nodes", "time_share"))


def _size_when_timed(records: Records, record: Record) -> int | None:
    """Bytes on disk of a model that no step made, as they were found when it was timed."""
    parts = (part for cell in record.cells.values() for part in records.parts.get(cell.name, ()))
    sizes = ((part.outcome or {}).get("sizes", {}) for part in parts)
    names = [cell.name for cell in record.cells.values()]
    return next((each[name] for each in sizes for name in names if name in each), None)


def _timed(records: Records, record: Record, cell: Cell, shape: tuple[int, int | None]) -> dict[str, Any]:
    from benchcard.measure import statistics

    part = records.timed.get((record.configuration.row, shape))
    failure = part.failure(cell.name) if part else None
    if part is None or failure or not any(block.name == cell.name for timed in part.rounds for block in timed.blocks):
        return {"failure": _said(failure) or "time: NotRun: it has not been timed yet: run the spec again"}
    figures = statistics.latency_figures(part.rounds, cell.name, cell.samples)
    row: dict[str, Any] = _with_bounds("latency_mean_ms", figures.mean_ns, 1e6)
    for rank, interval in figures.percentiles_ns.items():
        row |= _with_bounds(f"latency_p{rank:g}_ms", interval, 1e6)
    row |= _with_bounds("throughput_per_s", figures.throughput_per_s) | _with_bounds("drift", figures.drift)
    if part.baseline is not None and not part.failure(part.baseline):
        medians = [statistics.block_medians(part.rounds, name) for name in (part.baseline, cell.name)]
        if medians[0].keys() & medians[1].keys():
            ratio = statistics.paired_ratio(medians[0], medians[1])
            row |= _with_bounds("ratio", ratio)
            row["detectable"] = cell.name != part.baseline and _detectable(part, ratio)
    row |= {"runs": figures.calls, "elapsed_s": figures.elapsed_s}
    opened = part.opened(cell.name)
    if opened:
        for name in ("load", "first_call"):
            row[f"{name}_ms"] = median(each[f"{name}_ns"] for each in opened) / 1e6
        facts = opened[-1]["facts"]
        row |= {"threads": facts.get("intra_op_num_threads"), "spinning": facts.get("allow_spinning", False)}
        row["memory_mb"] = max(peak_bytes(part, each) for each in opened) / 1e6
    return row


def timing_notes(records: Records) -> list[str]:
    """That nothing was timed where none was asked for, and that lengths were asked for where inputs have none."""
    untimed = sum(not row["duration"] > 0 for row in records.plan)
    if untimed == len(records.plan):
        return [NOT_ASKED]
    notes = [f"{untimed} of {len(records.plan)} rows {'is' if untimed == 1 else 'are'} {NOT_ASKED}"] if untimed else []
    asked = [row["input_lengths"] for row in records.plan if row["input_lengths"]]
    if not asked or registry.task(records.plan.spec.task).has_length:
        return notes
    lengths = ", ".join(str(length) for length in dict.fromkeys(length for each in asked for length in each))
    return [
        *notes,
        f"input_lengths ({lengths}) change nothing for {records.plan.spec.task}: each batch size was timed once, "
        "at the size that the model's own processor gives",
    ]


def _with_bounds(name: str, interval: Interval | None, unit: float = 1.0) -> dict[str, float | None]:
    """A figure and the bounds of its interval, in a unit."""
    values = (interval.value, interval.low, interval.high) if interval else (None, None, None)
    return {column: None if value is None else value / unit for column, value in zip(_bounded(name), values)}


def _detectable(part: Part, ratio: Interval) -> bool:
    """Whether a ratio differs from 1 by more than its interval and by more than the noise of its run."""
    from benchcard.measure import statistics

    try:
        floor = statistics.noise_floor(part.rounds, part.baseline or "")
    except ValueError:
        # The baseline's twin could not be timed: nothing is known of the noise.
        return False
    return statistics.detectable(ratio, floor)


def peak_bytes(part: Part, opened: Mapping[str, Any]) -> int:
    """Bytes that a process took at its most over what it took before it loaded its model, in one launch."""
    blocks = [block for timed in part.rounds if timed.launch == opened["launch"] for block in timed.blocks]
    mine = (opened["name"], opened["twin"])
    peaks = [block.peak_bytes for block in blocks if (block.name, block.twin) == mine]
    return int(max([opened["peak_bytes"], *peaks]) - opened["base_bytes"])


def _untimed(records: Records, record: Record) -> Iterator[tuple[tuple[int, int | None], Failure | str]]:
    """The shapes for which a row has nothing to time, and why."""
    row = record.configuration
    has_length = registry.task(records.plan.spec.task).has_length
    for batch_size in row["batch_sizes"]:
        for length in (has_length and row["input_lengths"]) or [None]:
            failure = record.failures.get("model") or record.failures.get(f"time {batch_size}x{length}")
            if failure or not row["duration"] > 0:
                yield (batch_size, length), failure or NOT_ASKED


def _parameters(record: Record) -> dict[str, Any]:
    row = record.configuration
    return {"row": row.row, **(row.axes or {"framework": row["framework"]})}


def _said(failure: Any) -> str | None:
    return str(failure) if failure else None


def _parameter_names(records: Records) -> tuple[str, ...]:
    return ("row", *(records.plan.spec.grid or ("framework",)))


def _frame(rows: list[dict[str, Any]], names: Iterable[str]) -> pd.DataFrame:
    """Rows as a frame of these columns, all of them there whatever was measured."""
    import pandas as pd

    return pd.DataFrame({name: column([row.get(name) for row in rows]) for name in names})


def column(values: list[Any]) -> pd.Series[Any]:
    """Values as a column: whole numbers and numbers as such where nothing else stands among them, else as they are."""
    import pandas as pd

    present = [value for value in values if value is not None]
    if not present:
        return pd.Series(values, dtype="object")
    if all(isinstance(value, int) and not isinstance(value, bool) for value in present):
        return pd.Series(values, dtype="int64" if len(present) == len(values) else "Int64")
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present):
        return pd.Series(values, dtype="float64")
    return pd.Series(values, dtype="object")


def units(frame: pd.DataFrame) -> Mapping[str, str]:
    """The unit of each column that has one, by its name."""
    known = {"_ms": "ms", "_s": "s", "_mb": "MB", "_per_s": "1/s"}
    found = {}
    for name in frame:
        bare = str(name).removesuffix("_low").removesuffix("_high")
        unit = next((unit for ending, unit in reversed(known.items()) if bare.endswith(ending)), None)
        if unit:
            found[str(name)] = unit
    return found
