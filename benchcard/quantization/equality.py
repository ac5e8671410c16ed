"""Why two configurations came to the same quantized model, in words.

That two models are the same is found by their digests; what was quantized stands in the reports.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from benchcard.quantization.operators import Quantization, asked_operators, kernels
from benchcard.quantization.report import QuantizationReport
from benchcard.utils.text import join_names

_FLOAT = "nothing was quantized, this is the float model"
# Parameters of a row of which a `Quantization` has what they came to, and why they make no difference.
OUTSIDE: Mapping[str, str] = MappingProxyType(
    {
        "calibration": "both calibrations give the same scales here",
        "node_exclusion": "the same nodes are excluded",
    }
)
# What ONNX Runtime takes where a parameter is None, for static and for dynamic quantization.
_DEFAULTS: tuple[tuple[str, object, object], ...] = (
    ("weights_dtype", "int8", "int8"),
    ("activations_dtype", "int8", "uint8"),
    ("quant_format", "QDQ", None),
    ("activations_symmetric", False, False),
    ("matmul_const_b_only", False, True),
)


def why_same(
    report_a: QuantizationReport | None,
    how_a: Quantization | None,
    report_b: QuantizationReport | None,
    how_b: Quantization | None,
    differ: Collection[str] = (),
) -> str:
    """The reason, in words, why configurations `a` and `b` are the same model, told from what `a` has that `b` has not.

    None and None stand for the model that was not quantized at all. Both reports must have the same digest.

    Args:
        report_a: What quantizing `a` came to.
        how_a: How it was to be quantized.
        report_b: What quantizing `b` came to.
        how_b: How it was to be quantized.
        differ: Those of `OUTSIDE` in which the configurations differ.
    """
    if report_a is None or how_a is None:
        report_a, how_a, report_b, how_b = report_b, how_b, report_a, how_a
    if report_a is None or how_a is None:
        return "neither is quantized"
    if report_a.is_float_model:
        idle = [_idle(report, how) for report, how in ((report_a, how_a), (report_b, how_b)) if report and how]
        return "; ".join(dict.fromkeys(idle)) + f": {_FLOAT}"
    if report_b is None or how_b is None:
        return "the quantized graphs are the same, byte for byte"
    reasons = list(dict.fromkeys(_differences(report_a, how_a, report_b, how_b)))
    other_nodes = set(how_a.nodes_to_exclude) != set(how_b.nodes_to_exclude)
    reasons += [OUTSIDE[name] for name in OUTSIDE if name in differ and not (name == "node_exclusion" and other_nodes)]
    return "; ".join(reasons) or "the parameters are the same"


def _idle(report: QuantizationReport, how: Quantization) -> str:
    """Why nothing at all was quantized."""
    asked, able = how.operators_to_quantize, kernels(how)
    without = [operator for operator in sorted(asked or ()) if operator not in able]
    found = {count.operator: count for count in report.operators}
    excluded = [count.operator for count in report.operators if count.excluded and count.excluded == count.eligible]
    parts: list[str] = []
    if without:
        parts.append(f"{_and(without)} {_has(without)} no {_form(how)}")
    absent = [operator for operator in sorted(asked or ()) if operator in able and operator not in found]
    if absent:
        parts.append(f"the graph has no {join_names(absent)}" + _gemm(absent, how))
    if excluded:
        parts.append(f"every {join_names(excluded)} is excluded")
    rest = [name for name in found if name not in excluded]
    if rest:
        parts.append(f"no {join_names(rest)} here can be quantized")
    return ", and ".join(parts) or "the graph has no operator that can be quantized"


def _differences(
    report_a: QuantizationReport, how_a: Quantization, report_b: QuantizationReport, how_b: Quantization
) -> Iterator[str]:
    """One reason for each parameter in which two configurations differ."""
    yield from _about_operators(report_a, how_a, report_b, how_b)
    if how_a.per_channel != how_b.per_channel:
        yield _about_weights(report_a, "per_channel", "no operator quantized here takes a scale per channel")
    if how_a.reduce_range != how_b.reduce_range:
        yield _about_weights(report_a, "reduce_range", "no operator quantized here takes it")
    if how_a.weights_symmetric != how_b.weights_symmetric:
        values = {_symmetric(how) for how in (how_a, how_b)}
        same = (
            f"{_word(values.pop())} is what the dtype stands for"
            if len(values) == 1
            else "it gives the same integers here"
        )
        yield _about_weights(report_a, "weights_symmetric", same)
    for name, static, dynamic in _DEFAULTS:
        a, b = getattr(how_a, name), getattr(how_b, name)
        if a == b:
            continue
        default = dynamic if how_a.approach == "dynamic" else static
        if name == "weights_dtype" and not report_a.weights_quantized:
            yield _about_weights(report_a, name, "")
        elif default is not None and (a if a is not None else default) == (b if b is not None else default):
            yield f"{name} is `{_word(default)}` where nobody says"
        elif name == "activations_dtype" and how_a.approach == "dynamic":
            yield "dynamic activations are always `uint8`"
        elif name == "quant_format":
            yield "quant_format belongs to static quantization"
        elif name == "matmul_const_b_only":
            yield "no `MatMul` of two activations is quantized either way"
        else:
            yield f"{name} changes nothing here"
    if set(how_a.nodes_to_exclude) != set(how_b.nodes_to_exclude):
        yield "the nodes excluded in only one of them would not have been quantized"


def _about_operators(
    report_a: QuantizationReport, how_a: Quantization, report_b: QuantizationReport, how_b: Quantization
) -> Iterator[str]:
    """Why the operators that were asked for in only one of the configurations make no difference."""
    for report, how, other in ((report_a, how_a, how_b), (report_b, how_b, how_a)):
        more = sorted(set(asked_operators(how)) - set(asked_operators(other)))
        if how.operators_to_quantize is None:
            # Nobody asked for these by name; those that the graph has are enough to tell.
            more = [operator for operator in more if any(count.operator == operator for count in report.operators)]
        able = kernels(how)
        found = {count.operator: count for count in report.operators}
        if how.layout == "dynamic" and "Gemm" in more and "Gemm" in found:
            # The quantizer takes a plain one for a `MatMul` and an `Add`, whether it was asked for or not.
            more.remove("Gemm")
            what = "is quantized as `MatMul` already" if found["Gemm"].quantized else "is taken for `MatMul`"
            yield f"`Gemm` {what}"
        groups = (
            ([operator for operator in more if operator not in able], "has no", "have no", f"{_form(how)}"),
            (
                [operator for operator in more if operator in able and operator not in found],
                "is not",
                "are not",
                "in the graph",
            ),
            ([operator for operator in more if operator in found], "stays", "stay", "in float32 all the same"),
        )
        for names, one, several, end in groups:
            if names:
                yield f"{_and(names)} {one if len(names) == 1 else several} {end}"


def _about_weights(report: QuantizationReport, name: str, otherwise: str) -> str:
    if not report.weights_quantized:
        return f"{name} changes nothing where no weight is quantized"
    return f"{name} changes nothing: {otherwise}"


def _symmetric(how: Quantization) -> bool:
    """ONNX Runtime takes signed weights as symmetric, and unsigned ones not: `BaseQuantizer.is_weight_symmetric`."""
    return how.weights_dtype != "uint8" if how.weights_symmetric is None else how.weights_symmetric


def _form(how: Quantization) -> str:
    return "dynamic kernel" if how.approach == "dynamic" else f"{how.layout} form"


def _gemm(absent: list[str], how: Quantization) -> str:
    return "" if "Gemm" not in absent or how.approach != "dynamic" else " (dynamic quantization sees it as `MatMul`)"


def _and(names: list[str]) -> str:
    return join_names(names).replace(" or ", " and ")


def _has(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
