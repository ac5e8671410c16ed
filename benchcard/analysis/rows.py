"""Facts about one row: which row is the same model, what computes in float32, what can saturate.

How they are explained in sentences is left to `reasons`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchcard.analysis.records import Records
from benchcard.frameworks.kernels import UNJOINED, Kernel, operators
from benchcard.run.record import Record

if TYPE_CHECKING:
    from benchcard.quantization.operators import Quantization
    from benchcard.quantization.report import QuantizationReport


# Operators whose 8-bit kernels multiply a weight.
_PRODUCTS = frozenset(("Attention", "Conv", "ConvTranspose", "Gemm", "LSTM", "MatMul"))


def same_model_as(records: Records, record: Record) -> int | None:
    """The first earlier row that runs the same model, byte for byte, in the same framework; None where there is
    none.
    """
    if record.digest is None:
        return None
    for other in records.records[: record.configuration.row]:
        if other.digest == record.digest and other.configuration["framework"] == record.configuration["framework"]:
            return other.configuration.row
    return None


def why_same(records: Records, record: Record) -> str | None:
    """Why a row's model is that of an earlier row; None where it is not."""
    from benchcard.quantization import equality

    other = same_model_as(records, record)
    if other is None:
        return None
    row, earlier = record.configuration, records.records[other].configuration
    measured = row.baseline != earlier.baseline
    how = "it differs only in where it is from or how it is measured" if measured else "only how it is run differs"
    if not row.quantized and not earlier.quantized:
        return f"the model file is the same; {how}"
    mine, theirs = _quantization(record), _quantization(records.records[other])
    differ = {name for name in equality.OUTSIDE if row[name] != earlier[name]}
    if mine[1] == theirs[1] and not differ:
        return f"the quantization is the same; {how}"
    return equality.why_same(*mine, *theirs, differ)


def saturation_risk(records: Records, record: Record) -> bool:
    """Whether products of this row's 8-bit weights can saturate on the machine of the run.

    Unsigned weights are at no risk: products of u8 and u8 are widened before they are added. Nor are weights that are
    not multiplied, or that are multiplied in float32.

    Source: onnxruntime, mlas/lib/qgemm_kernel_avx2.cpp; "Quantize ONNX models", on reduce_range.
    """
    row = record.configuration
    report = record.outcomes.quantize.values.report if record.outcomes.quantize else None
    here = records.info.machine["int8"]["u8s8_saturates"]
    signed = row["weights_dtype"] != "uint8"
    multiplied = report is not None and any(
        count.quantized and count.operator in _PRODUCTS for count in report.operators
    )
    run = kernels(record)
    if run:
        in_8_bits = {name for kernel in run if kernel.numbers == "8 bits" for name in operators(kernel.name)}
        multiplied = multiplied and bool(in_8_bits & _PRODUCTS)
    at_risk = here and report and report.weights_quantized and multiplied and signed and not row["reduce_range"]
    return bool(at_risk and not computes_in_float(record))


def kernels(record: Record) -> tuple[Kernel, ...]:
    """What a call of a row's model runs, the longest first; nothing where the framework cannot say."""
    return record.outcomes.evaluate.values.kernels if record.outcomes.evaluate else ()


def other_threads(records: Records, record: Record) -> int | None:
    """The threads with which a row's model was evaluated, where these are not the row's own; else None.

    A model is evaluated once, with the threads of the first row that runs it; what it answers is that of all of them,
    what it took is not.
    """
    threads = record.outcomes.evaluate.values.threads if record.outcomes.evaluate else None
    if threads is None or threads == (record.configuration.threads or records.info.default_threads):
        return None
    return threads


def computes_in_float(record: Record) -> bool:
    """Whether a row's model is quantized, and the runtime computes all of it in float: between conversions from 8 bits
    and to them. Where no kernel is known, as in runs of earlier versions, it is told from the level.
    """
    quantized, run = record.outcomes.quantize, kernels(record)
    if quantized is None or quantized.values.report.is_float_model:
        return False
    if not run:
        return pairs_are_left(record)
    asked = {count.operator for count in quantized.values.report.operators if count.quantized}
    # What is quantized to be moved or looked up alone computes in nothing.
    in_float = any(kernel.numbers == "float" and asked.intersection(operators(kernel.name)) for kernel in run)
    return in_float and not any(kernel.numbers == "8 bits" for kernel in run)


def pairs_are_left(record: Record) -> bool:
    """Whether the row's level is one at which ONNX Runtime does not join nodes with the conversions around them."""
    return is_pairs(record) and (record.configuration["framework_args"] or {}).get("optimization_level") in UNJOINED


def is_pairs(record: Record) -> bool:
    """Whether the row's quantized nodes are float ones between conversions, for the runtime to join."""
    row = record.configuration
    is_static = row["framework"] == "onnxruntime" and row["quantization_approach"] == "static"
    return bool(is_static and row["quant_format"] != "QOperator")


def _quantization(record: Record) -> tuple[QuantizationReport | None, Quantization | None]:
    """Return the report and the settings of a row's quantization; None and None where it is not quantized."""
    quantized = record.outcomes.quantize
    return (quantized.values.report, quantized.values.how) if quantized else (None, None)
