"""Facts about one row: its quality, which row has the same model, what computes in float32, what can saturate.

Explaining them in sentences is left to `reasons`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchcard.analysis.frames.columns import row_parameters
from benchcard.analysis.records import Records
from benchcard.frameworks.kernels import UNFUSED_LEVELS, Kernel, operators
from benchcard.measure.gpu import uses_gpu
from benchcard.metrics.info import FIDELITY, FigureUncertainty, MetricInfo
from benchcard.run.record import Record
from benchcard.utils.values import Interval

_UNCERTAIN = FigureUncertainty(None, None)
# Kernels that only a quantized graph has.
_QUANTIZED_KERNEL = re.compile(r"Q(Linear|Gemm|Attention|LSTM)|DynamicQuantize|(MatMul|Conv)Integer|MatMul(NBits|Bnb4)")
# Numbers of 8 bits and fewer, by the names of `graphs.weights`.
_FEW_BITS = re.compile(r"u?int[248]$|fp4|nf4|float8")
# Operators whose 8-bit kernels multiply a weight.
_PRODUCTS = frozenset(("Attention", "Conv", "ConvTranspose", "Gemm", "LSTM", "MatMul"))


@dataclass(frozen=True)
class RowQuality:
    """The quality of one row.

    Attributes:
        baseline: The row that it is compared with; None where there is none.
        examples: A key that is equal for rows that are evaluated on the same examples.
        figure: The metric with its interval; None where it was not measured.
        difference: The metric minus the baseline's, with its interval; None where it was not compared.
        p_value: The p-value of that difference; None where it was not tested.
        model: The first row of the run with the same model.
        failure: Why figures are missing; empty where they are not.
        fidelity: The figures of its fidelity to the baseline, by name.
        broken: Why its model file is broken, where it was audited and is.
    """

    parameters: Mapping[str, object]
    baseline: int | None
    examples: str
    figure: Interval | None
    difference: Interval | None
    p_value: float | None
    model: int
    failure: str
    fidelity: Mapping[str, Interval] = field(default_factory=dict)
    broken: str = ""


def row_quality(records: Records, record: Record, metric: str | None) -> RowQuality:
    """Return the quality of a row by a metric, or by a figure of fidelity; without figures where that is None."""
    row, score, comparison = record.configuration, record.outcomes.score, record.outcomes.compare
    value = score.values.metrics.get(metric) if score and metric else None
    test = comparison.values.figures.get(metric, _UNCERTAIN) if comparison and score and metric else _UNCERTAIN
    first = same_model_as(records, record)
    figure = _interval(value, test.low, test.high)
    difference = _interval(test.difference, test.difference_low, test.difference_high)
    if score and metric and metric in FIDELITY and metric not in score.values.metrics:
        figure, difference = _of_fidelity(record, metric)
    return RowQuality(
        parameters=row_parameters(record),
        baseline=row.baseline,
        examples=row.evaluation_key,
        figure=figure,
        difference=difference,
        p_value=test.p_value,
        model=row.row if first is None else first,
        failure=str(record.failures.of_quality() or ""),
        fidelity=fidelity(record),
    )


def _of_fidelity(record: Record, name: str) -> tuple[Interval | None, Interval | None]:
    """Return a figure of fidelity, and its difference from that of the baseline, which equals itself."""
    equal = 1.0 if FIDELITY[name].higher_is_better else 0.0
    if record.configuration.baseline == record.configuration.row:
        return Interval(equal), None
    figure = fidelity(record).get(name)
    if figure is None:
        return None, None
    low, high = (None if bound is None else bound - equal for bound in (figure.low, figure.high))
    return figure, Interval(figure.value - equal, low, high)


def _interval(value: float | None, low: float | None, high: float | None) -> Interval | None:
    return None if value is None else Interval(value, low, high)


def fidelity(record: Record) -> Mapping[str, Interval]:
    """Return the figures of a row's fidelity to its baseline; empty where they were not computed."""
    compared = record.outcomes.compare
    return (compared.values.fidelity if compared else None) or {}


def recovery(record: Record) -> Interval | None:
    """Return the first metric of a row in % of its baseline's, above 100 where the row is better; None where it was not
    compared, or it is not known which direction is better.
    """
    score, comparison = record.outcomes.score, record.outcomes.compare
    if score is None or comparison is None or comparison.values.ratio is None:
        return None
    ratio, metric = comparison.values.ratio, next(iter(score.values.metrics))
    higher = score.values.readings.get(metric, MetricInfo(None, None)).higher_is_better
    if higher:
        low, high = (None if bound is None else 100 * bound for bound in (ratio.low, ratio.high))
        return Interval(100 * ratio.value, low, high)
    if higher is None or not ratio.value:
        return None
    low, high = (100 / bound if bound else None for bound in (ratio.high, ratio.low))
    return Interval(100 / ratio.value, low, high)


def number_rows(rows: Sequence[object]) -> str:
    """Return the numbers of rows as text: `row 1`, or `rows 1, 2`."""
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}"


def same_model_as(records: Records, record: Record) -> int | None:
    """Return the first earlier row with the same model, byte for byte, the same framework, and the same machine; None
    without one.
    """
    if record.digest is None:
        return None
    for earlier in records.records[: record.configuration.row]:
        is_here = records.info_of(earlier) is records.info_of(record)
        same_framework = earlier.configuration["framework"] == record.configuration["framework"]
        if earlier.digest == record.digest and same_framework and is_here:
            return earlier.configuration.row
    return None


def why_same(records: Records, record: Record) -> str | None:
    """Return why a row has the model of an earlier row, in words; None where it has not."""
    from benchcard.quantization import equality

    first = same_model_as(records, record)
    if first is None:
        return None
    earlier = records.records[first]
    row, other = record.configuration, earlier.configuration
    difference = "only how it is run differs"
    if row.baseline != other.baseline:
        difference = "it differs only in where it is from or how it is measured"
    if not row.quantized and not other.quantized:
        return f"the model file is the same; {difference}"
    steps = [each.outcomes.quantize for each in (record, earlier)]
    settings, other_settings = (step.values.how if step else None for step in steps)
    outside = {name for name in equality.OTHER_PARAMETERS if row[name] != other[name]}
    if settings == other_settings and not outside:
        return f"the quantization is the same; {difference}"
    report, other_report = (step.values.report if step else None for step in steps)
    return equality.why_same(report, settings, other_report, other_settings, outside)


def saturation_risk(records: Records, record: Record) -> bool:
    """Return whether products of a row's 8-bit weights can saturate on the machine of the run.

    Unsigned weights cannot: products of u8 and u8 are widened before they are added. Nor can weights that are not
    multiplied, or are multiplied in float32.

    Source: onnxruntime, mlas/lib/qgemm_kernel_avx2.cpp; "Quantize ONNX models", on reduce_range.
    """
    row, quantized, kernels = record.configuration, record.outcomes.quantize, kernels_of(record)
    is_in_8_bits = row["quantization_approach"] != "weight_only" and not computes_in_float(record)
    if quantized is None or not records.info_of(record).machine.int8.u8s8_saturates or not is_in_8_bits:
        return False
    report = quantized.values.report
    products = {count.operator for count in report.operators if count.quantized} & _PRODUCTS
    has_products = products and (not kernels or computed_operators(kernels, "8 bits") & _PRODUCTS)
    is_signed = row["weights_dtype"] != "uint8"
    return bool(
        report.weights_quantized and has_products and is_signed and not row["reduce_range"] and not on_gpu(record)
    )


def kernels_of(record: Record) -> tuple[Kernel, ...]:
    """Return the kernels that a call of a row's model runs, the longest first; none where they are not known."""
    return record.outcomes.evaluate.values.kernels if record.outcomes.evaluate else ()


def is_quantized(record: Record) -> bool:
    """Return whether a row's model is quantized: by benchcard, by its framework, or before it was given."""
    # A float graph, too, may have a mask that is stored in 8 bits, and kernels that read images in 8 bits.
    return (
        record.quantized
        or any(map(_FEW_BITS.match, _stored_kinds(record)))
        or any(kernel.numbers == "conversion" or _QUANTIZED_KERNEL.match(kernel.name) for kernel in kernels_of(record))
    )


def _stored_kinds(record: Record) -> Sequence[str]:
    """Return the numbers that at least a tenth of a converted model's weights are stored in; empty for other models."""
    kinds = record.outcomes.convert.values.kinds if record.outcomes.convert else {}
    if not kinds:
        return ()
    # Not above: results are read without onnx.
    from benchcard.graphs.weights import StoredWeights

    return StoredWeights(sum(kinds.values()), 0, kinds).names


def on_gpu(record: Record) -> bool:
    """Return whether a row's model runs on a GPU, where profiles have the times to launch kernels, not to run them."""
    return uses_gpu(record.configuration["framework_args"] or {})


def computed_operators(kernels: Iterable[Kernel], numbers: str) -> frozenset[str]:
    """Return the operators that kernels compute in these numbers, as "8 bits"."""
    return frozenset(name for kernel in kernels if kernel.numbers == numbers for name in operators(kernel.name))


def other_threads(records: Records, record: Record) -> int | None:
    """Return the threads with which a row's model was evaluated, if they differ from the row's own; else None.

    A model is evaluated once, with the threads of the first row that has it. Its predictions hold for all rows with
    the model, its times do not.
    """
    threads = record.outcomes.evaluate.values.threads if record.outcomes.evaluate else None
    return None if threads == (record.configuration.threads or records.info_of(record).default_threads) else threads


def has_kernel_times(records: Records, record: Record) -> bool:
    """Return whether the times of a row's kernels are known."""
    return other_threads(records, record) is None and not on_gpu(record)


def computes_in_float(record: Record) -> bool:
    """Return whether a row's model is quantized to compute in 8 bits and the runtime still computes all of it in
    floating point, for which weight-only quantization is meant.

    Where kernels are not known, as in runs of earlier versions, the optimization level decides.
    """
    quantized, kernels = record.outcomes.quantize, kernels_of(record)
    if quantized is None or quantized.values.report.is_float_model:
        return False
    if record.configuration["quantization_approach"] == "weight_only":
        return False
    if not kernels:
        return keeps_conversions(record)
    # Operators that only move or look up values compute nothing, quantized or not.
    operators_quantized = {count.operator for count in quantized.values.report.operators if count.quantized}
    in_float = bool(computed_operators(kernels, "float") & operators_quantized)
    return in_float and not any(kernel.numbers == "8 bits" for kernel in kernels)


def operators_left(record: Record) -> str:
    """Return the operators of which a weight-only row has no quantized node, although the graph has weights for them:
    3 `Gather` and 8 `Gemm`; empty for other rows.
    """
    quantized = record.outcomes.quantize
    if quantized is None or record.configuration["quantization_approach"] != "weight_only":
        return ""
    counts = quantized.values.report.operators
    return " and ".join(
        f"{count.eligible} `{count.operator}`"
        for count in counts
        if not count.quantized and count.eligible > count.excluded
    )


def keeps_conversions(record: Record) -> bool:
    """Return whether ONNX Runtime, at the row's level, does not fuse nodes with the conversions around them."""
    level = (record.configuration["framework_args"] or {}).get("optimization_level")
    return has_conversions(record) and level in UNFUSED_LEVELS


def has_conversions(record: Record) -> bool:
    """Return whether the row's quantized nodes are float nodes between conversions, for the runtime to fuse."""
    row = record.configuration
    is_static = row["framework"] == "onnxruntime" and row["quantization_approach"] == "static"
    return bool(is_static and row["quant_format"] != "QOperator")
