"""The frames `models` and `kernels`: what each model is, and what it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchcard.analysis import reasons, row_facts
from benchcard.analysis.frames.columns import frame_of, parameter_columns, parameter_names
from benchcard.analysis.records import Records
from benchcard.run.record import Record

if TYPE_CHECKING:
    import pandas as pd

_MODEL_FIGURES = (
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
    "same_model_as",
    "reason",
    "failure",
)


def models_frame(records: Records) -> pd.DataFrame:
    """Return one row per configuration: what its model is, and why.

    `digest` is of its content; `size_mb` is the size on disk of the file that the framework opens. `nodes_quantized` of
    `nodes_eligible` nodes are quantized; the runtime computes `nodes_in_8_bits`, and `conversion_share` is the share of
    a call's time in conversions, empty where the model was run for an earlier row with another number of threads.
    `nodes_excluded` counts nodes that would have been quantized without `exclusions`, which says what each exclusion
    matched and changed. The outputs are compared with float32 by their largest difference and signal-to-noise ratio;
    `lossy_layers` are those whose quantization costs the outputs most, the worst first. `auto_exclusion` is the list
    that `node_exclusion: auto` found in `auto_trials`. `same_model_as` is an earlier row with the same model, byte for
    byte, and `reason` says why.
    """
    rows = [model_columns(records, record) for record in records.records]
    return frame_of(rows, (*parameter_names(records), *_MODEL_FIGURES))


def model_columns(records: Records, record: Record) -> dict[str, Any]:
    """Return the cells of a row of the frame `models`; those without a value may be missing."""
    outcomes, failure = record.outcomes, record.failures.model
    row: dict[str, Any] = {**parameter_columns(record), "digest": record.digest[:12] if record.digest else None}
    file = reasons.model_file(record)
    size = file.values.size_bytes if file else _timed_size(records, record)
    row["size_mb"] = size / 1e6 if size is not None else None
    if outcomes.export:
        export = outcomes.export.values.report
        row |= {"opset": export.opset, "export_max_abs_difference": export.max_abs_difference}
    if outcomes.quantize:
        report, exclusions = outcomes.quantize.values.report, outcomes.quantize.values.exclusions
        row |= {
            "nodes_quantized": report.nodes_quantized,
            "nodes_eligible": report.nodes_eligible,
            "quantize_nodes": report.quantize_nodes,
            "dequantize_nodes": report.dequantize_nodes,
            "nodes_excluded": len({name for exclusion in exclusions for name in exclusion.would_be_quantized}),
            "exclusions": "; ".join(map(reasons.describe_exclusion, exclusions)) or None,
            # A model in which nothing was quantized is the float model that outputs are compared with.
            "output_max_abs_difference": 0.0 if report.is_float_model else None,
        }
    if kernels := row_facts.kernels_of(record):
        row["nodes_in_8_bits"] = sum(kernel.nodes for kernel in kernels if kernel.numbers == "8 bits")
        if row_facts.other_threads(records, record) is None:
            shares = (kernel.time_share for kernel in kernels if kernel.numbers == "conversion")
            row["conversion_share"] = sum(shares, 0.0)
    if outcomes.explain:
        losses = outcomes.explain.values
        row |= {
            "output_max_abs_difference": losses.outputs.max_abs_difference,
            "output_snr_db": losses.outputs.snr_db,
            "lossy_layers": ", ".join(layer.node for layer in losses.layers),
        }
    if record.search:
        row["auto_exclusion"] = reasons.format_list(record.search.nodes)
        row["auto_trials"] = len(record.search.trials)
    return {
        **row,
        "saturation_risk": row_facts.saturation_risk(records, record),
        "reason": row_facts.why_same(records, record),
        "same_model_as": row_facts.same_model_as(records, record),
        "failure": str(failure) if failure else None,
    }


def kernels_frame(records: Records) -> pd.DataFrame:
    """Return one row per configuration and kernel of its model, where the framework can report them.

    `kernel` is an operator of ONNX or of the runtime; `numbers` is what it computes in ("8 bits", "float", "other"; or
    "conversion"); `nodes` is their number, and `time_share` their share of a call with the longest example alone, the
    largest first. It is empty where the model was run for an earlier row with another number of threads.
    """
    rows = [
        {
            **parameter_columns(record),
            "kernel": kernel.name,
            "numbers": kernel.numbers,
            "nodes": kernel.nodes,
            "time_share": None if row_facts.other_threads(records, record) else kernel.time_share,
        }
        for record in records.records
        for kernel in row_facts.kernels_of(record)
    ]
    return frame_of(rows, (*parameter_names(records), "kernel", "numbers", "nodes", "time_share"))


def _timed_size(records: Records, record: Record) -> int | None:
    """Return the bytes on disk of a model that no step made, which were recorded when it was timed."""
    for cell in record.cells.values():
        for part in records.parts.get(cell.name, ()):
            if part.outcome and cell.name in part.outcome.sizes:
                return part.outcome.sizes[cell.name]
    return None
