"""The frames `models` and `kernels`: what each model is, and what it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchcard.analysis import reasons
from benchcard.analysis import rows as rows_
from benchcard.analysis.frames.columns import frame_of, parameter_columns, parameter_names, text_of_failure
from benchcard.analysis.records import Records
from benchcard.run.record import Record

if TYPE_CHECKING:
    import pandas as pd


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
        row = {**parameter_columns(record), "digest": record.digest[:12] if record.digest else None}
        made = reasons.made(record)
        size = made.values.size_bytes if made else _size_when_timed(records, record)
        row["size_mb"] = size / 1e6 if size is not None else None
        if record.outcomes.export:
            graph = record.outcomes.export.values.report
            row |= {"opset": graph.opset, "export_max_abs_difference": graph.max_abs_difference}
        if record.outcomes.quantize:
            report = record.outcomes.quantize.values.report
            row |= {
                name: getattr(report, name)
                for name in ("nodes_quantized", "nodes_eligible", "quantize_nodes", "dequantize_nodes")
            }
            exclusions = record.outcomes.quantize.values.exclusions
            row["nodes_excluded"] = len({name for each in exclusions for name in each.would_be_quantized})
            row["exclusions"] = "; ".join(map(reasons.of_exclusion, exclusions)) or None
            if report.is_float_model:
                # Nothing to compare: the model is the one that it would be compared with.
                row["output_max_abs_difference"] = 0.0
        run = rows_.kernels(record)
        if run:
            row["nodes_in_8_bits"] = sum(kernel.nodes for kernel in run if kernel.numbers == "8 bits")
            if rows_.other_threads(records, record) is None:
                shares = (kernel.time_share for kernel in run if kernel.numbers == "conversion")
                row["conversion_share"] = sum(shares, 0.0)
        if record.outcomes.explain:
            losses = record.outcomes.explain.values
            row |= {
                "output_max_abs_difference": losses.outputs.max_abs_difference,
                "output_snr_db": losses.outputs.snr_db,
            }
            row["lossy_layers"] = ", ".join(layer.node for layer in losses.layers)
        if record.search:
            row |= {
                "auto_exclusion": reasons.as_flow_list(record.search.nodes),
                "auto_trials": len(record.search.trials),
            }
        row["saturation_risk"] = rows_.saturation_risk(records, record)
        row["reason"] = rows_.why_same(records, record)
        row["same_model_as"] = rows_.same_model_as(records, record)
        row["failure"] = text_of_failure(record.failures.model)
        rows.append(row)
    return frame_of(rows, (*parameter_names(records), *MODEL_FIGURES, "same_model_as", "reason", "failure"))


def kernels(records: Records) -> pd.DataFrame:
    """One row per configuration and kernel that its model comes to when it runs, where the framework can say: `kernel`,
    an operator of ONNX or of the runtime; in what `numbers` it computes ("8 bits", "float", "other"; or "conversion");
    how many `nodes` there are; and their `time_share` of a call with the longest example alone, the largest first. It
    is empty where the same model was run for an earlier row, with another number of threads.
    """
    rows = [
        {
            **parameter_columns(record),
            "kernel": kernel.name,
            "numbers": kernel.numbers,
            "nodes": kernel.nodes,
            "time_share": None if rows_.other_threads(records, record) else kernel.time_share,
        }
        for record in records.records
        for kernel in rows_.kernels(record)
    ]
    return frame_of(rows, (*parameter_names(records), "kernel", "numbers", "nodes", "time_share"))


def _size_when_timed(records: Records, record: Record) -> int | None:
    """Bytes on disk of a model that no step made, as they were found when it was timed."""
    parts = (part for cell in record.cells.values() for part in records.parts.get(cell.name, ()))
    sizes = (part.outcome.sizes for part in parts if part.outcome)
    names = [cell.name for cell in record.cells.values()]
    return next((each[name] for each in sizes for name in names if name in each), None)
