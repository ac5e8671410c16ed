"""The frames `models` and `kernels`: what each model is, and what it runs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from benchcard.analysis import reasons, row_facts
from benchcard.analysis.frames.columns import frame_of, parameter_columns, parameter_names
from benchcard.analysis.records import Records
from benchcard.run.record import Record

_NODES = ("nodes_quantized", "nodes_eligible", "quantize_nodes", "dequantize_nodes")


def models_frame(records: Records) -> pd.DataFrame:
    """Return one row per configuration: what its model is, and why.

    `digest` is of its content; `size_mb` is the size on disk of the file that the framework opens, and `size_saved` how
    much smaller than the baseline's it is, in %. `bits_per_weight` counts the bits of all stored weights with their
    scales, over the number of the float graph's weights. `nodes_quantized` of
    `nodes_eligible` nodes are quantized; the runtime computes `nodes_in_8_bits`, and `conversion_share` is the share of
    a call's time in conversions, empty where the model was run for an earlier row with another number of threads.
    `nodes_excluded` counts nodes that would have been quantized without `exclusions`, which says what each exclusion
    matched and changed. The outputs are compared with float32 by their largest difference and signal-to-noise ratio;
    where outputs are far from it, `lossy_layers` are those whose quantization costs most, the worst first.
    `auto_exclusion` is the list that `node_exclusion: auto` found in `auto_trials`. `same_model_as` is an earlier row
    with the same model, byte for byte, and `reason` says why.
    """
    rows = [model_columns(records, record) for record in records.records]
    return frame_of(rows, rows[0] if rows else ())


def model_columns(records: Records, record: Record) -> dict[str, Any]:
    """Return the cells of a row of the frame `models`."""
    outcomes, search, kernels = record.outcomes, record.search, row_facts.kernels_of(record)
    failure = record.failures.model
    size = _size(records, record)
    export = outcomes.export.values.report if outcomes.export else None
    report = outcomes.quantize.values.report if outcomes.quantize else None
    exclusions = outcomes.quantize.values.exclusions if outcomes.quantize else ()
    excluded = {name for exclusion in exclusions for name in exclusion.would_be_quantized}
    losses = outcomes.explain.values if outcomes.explain else None
    in_conversions = sum((kernel.time_share for kernel in kernels if kernel.numbers == "conversion"), 0.0)
    has_times = kernels and row_facts.has_kernel_times(records, record)
    # A model in which nothing was quantized is the float model that outputs are compared with.
    no_difference = 0.0 if report and report.is_float_model else None
    return {
        **parameter_columns(record),
        "digest": record.digest[:12] if record.digest else None,
        "size_mb": None if size is None else size / 1e6,
        "size_saved": _size_saved(records, record, size),
        "bits_per_weight": _bits_per_weight(record),
        "opset": export.opset if export else None,
        "export_max_abs_difference": export.max_abs_difference if export else None,
        **{name: getattr(report, name, None) for name in _NODES},
        "nodes_in_8_bits": sum(each.nodes for each in kernels if each.numbers == "8 bits") if kernels else None,
        "conversion_share": in_conversions if has_times else None,
        "nodes_excluded": len(excluded) if report else None,
        "exclusions": "; ".join(map(reasons.describe_exclusion, exclusions)) or None,
        "output_max_abs_difference": losses.outputs.max_abs_difference if losses else no_difference,
        "output_snr_db": losses.outputs.snr_db if losses else None,
        "lossy_layers": ", ".join(layer.node for layer in losses.layers) or None if losses else None,
        "auto_exclusion": reasons.format_list(search.nodes) if search else None,
        "auto_trials": len(search.trials) if search else None,
        "saturation_risk": row_facts.saturation_risk(records, record),
        "same_model_as": row_facts.same_model_as(records, record),
        "reason": row_facts.why_same(records, record),
        "failure": str(failure) if failure else None,
    }


def _size(records: Records, record: Record) -> int | None:
    """Return the bytes on disk of the file that a row's framework opens."""
    file = reasons.model_file(record)
    return file.values.size_bytes if file else _timed_size(records, record)


def _size_saved(records: Records, record: Record, size: int | None) -> float | None:
    """Return how much smaller than its baseline's file a row's is, in %."""
    baseline = record.configuration.baseline
    if baseline is None or size is None:
        return None
    reference = _size(records, records.records[baseline])
    return 100 * (1 - size / reference) if reference else None


def _bits_per_weight(record: Record) -> float | None:
    """Return the bits of all stored weights of a row's graph over the number of those of its float graph.

    A row that failed before it had its model has none, although the float graph was made for it.
    """
    file, export = reasons.model_file(record), record.outcomes.export
    if file is None or export is None:
        return None
    bits, weights = file.values.weight_bits, export.values.weights
    return bits / weights if bits and weights else None


def _timed_size(records: Records, record: Record) -> int | None:
    """Return the bytes on disk of a model that no step made, which were recorded when it was timed."""
    for cell in record.cells.values():
        for part in records.parts.get(cell.name, ()):
            if part.outcome and cell.name in part.outcome.sizes:
                return part.outcome.sizes[cell.name]
    return None


def kernels_frame(records: Records) -> pd.DataFrame:
    """Return one row per configuration and kernel of its model, where the framework can report them.

    `kernel` is an operator of ONNX or of the runtime; `numbers` is what it computes in ("8 bits", "float", "other"; or
    "conversion"); `nodes` is their number, and `time_share` their share of a call with the longest example alone, the
    largest first. It is empty where the model was run for an earlier row with another number of threads, and on a GPU,
    where `on_cpu` says which kernels run on the CPU.
    """
    rows = [
        {
            **parameter_columns(record),
            "kernel": kernel.name,
            "numbers": kernel.numbers,
            "nodes": kernel.nodes,
            "time_share": kernel.time_share if row_facts.has_kernel_times(records, record) else None,
            "on_cpu": kernel.on_cpu,
        }
        for record in records.records
        for kernel in row_facts.kernels_of(record)
    ]
    on_cpu = ("on_cpu",) if any(map(row_facts.on_gpu, records.records)) else ()
    return frame_of(rows, (*parameter_names(records), "kernel", "numbers", "nodes", "time_share", *on_cpu))
