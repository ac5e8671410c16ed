"""Why two configurations give the same quantized model, in words.

That two models are equal is known from their digests; what was quantized is read from the reports.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

from benchcard.quantization.operators import requested_operators, supported_operators
from benchcard.quantization.outcomes import QuantizationReport
from benchcard.quantization.settings import PARAMETERS, Quantization
from benchcard.utils.text import join_names, quote_names

# Parameters of a row that become something else in a `Quantization`, and why they make no difference.
OTHER_PARAMETERS: Mapping[str, str] = MappingProxyType(
    {"calibration": "both calibrations give the same scales", "node_exclusion": "the same nodes are excluded"}
)
# Why a parameter that concerns weights changes nothing where weights are quantized.
_WEIGHT_REASONS: Mapping[str, str] = MappingProxyType(
    {
        "per_channel": "no quantized operator has a scale per channel",
        "reduce_range": "no quantized operator uses it",
        "weights_symmetric": "it gives the same integers",
    }
)


def why_same(
    report_a: QuantizationReport | None,
    settings_a: Quantization | None,
    report_b: QuantizationReport | None,
    settings_b: Quantization | None,
    different: Collection[str] = (),
) -> str:
    """Return the reason why configurations `a` and `b` give the same model, as words that fit after a colon.

    The reports must have the same digest; report and settings are None for a model that was not quantized at all.
    `different` holds the names of `OTHER_PARAMETERS` in which the configurations differ.
    """
    pairs = ((report_a, settings_a), (report_b, settings_b))
    quantized = [(report, settings) for report, settings in pairs if report is not None and settings is not None]
    if not quantized:
        return "neither is quantized"
    if quantized[0][0].is_float_model:
        reasons = [_why_float(*pair) for pair in quantized]
        return "; ".join(dict.fromkeys(reasons)) + ": nothing was quantized, this is the float model"
    if len(quantized) == 1:
        return "the quantized graphs are the same, byte for byte"
    (report, a), (other_report, b) = quantized
    reasons = [*_operator_reasons(report, a, b), *_operator_reasons(other_report, b, a)]
    reasons += _parameter_reasons(report, a, b)
    other_nodes = set(a.nodes_to_exclude) != set(b.nodes_to_exclude)
    if other_nodes:
        reasons.append("the nodes excluded in only one of them would not have been quantized")
        different = set(different) - {"node_exclusion"}
    reasons += [reason for name, reason in OTHER_PARAMETERS.items() if name in different]
    return "; ".join(dict.fromkeys(reasons)) or "the parameters are the same"


def _why_float(report: QuantizationReport, settings: Quantization) -> str:
    if settings.operators_to_quantize == ():
        return "`operators_to_quantize` is empty"
    requested, supported = sorted(settings.operators_to_quantize or ()), supported_operators(settings)
    present = [count.operator for count in report.operators]
    excluded = [count.operator for count in report.operators if count.excluded and count.excluded == count.eligible]
    parts = list(_without_kernel(requested, settings))
    if absent := [operator for operator in requested if operator in supported and operator not in present]:
        is_renamed = "Gemm" in absent and settings.approach == "dynamic"
        remark = " (dynamic quantization sees it as `MatMul`)" if is_renamed else ""
        parts.append(f"the graph has no {join_names(absent)}{remark}")
    if excluded:
        parts.append(f"every {join_names(excluded)} is excluded")
    if rest := [name for name in present if name not in excluded]:
        parts.append(f"no {join_names(rest)} of this graph can be quantized")
    return ", and ".join(parts) or "the graph has no operator that can be quantized"


def _parameter_reasons(report: QuantizationReport, a: Quantization, b: Quantization) -> Iterator[str]:
    """Yield a reason for each parameter, but the operators, in which two configurations differ."""
    for name in PARAMETERS[1:]:
        if getattr(a, name) == getattr(b, name):
            continue
        value, other = getattr(a.resolved, name), getattr(b.resolved, name)
        if not report.weights_quantized and (name == "weights_dtype" or name in _WEIGHT_REASONS):
            yield f"{name} changes nothing: no weight is quantized"
        elif name in a.ignored:
            yield f"{name} changes nothing: {a.ignored[name]}"
        elif value == other:
            yield f"{name} is `{str(value).lower() if isinstance(value, bool) else value}` by default"
        elif name in _WEIGHT_REASONS:
            yield f"{name} changes nothing: {_WEIGHT_REASONS[name]}"
        elif name == "matmul_const_b_only":
            yield "no `MatMul` of two activations is quantized either way"
        else:
            yield f"{name} changes nothing here"


def _operator_reasons(report: QuantizationReport, settings: Quantization, other: Quantization) -> Iterator[str]:
    """Yield why the operators that only this configuration asks for, and not the other, make no difference."""
    present = {count.operator: count for count in report.operators}
    extra = sorted(set(requested_operators(settings)) - set(requested_operators(other)))
    if settings.operators_to_quantize is None:
        # Nobody asked for these by name, so those that the graph lacks need no mention.
        extra = [operator for operator in extra if operator in present]
    if settings.layout == "dynamic" and "Gemm" in extra and "Gemm" in present:
        # The quantizer splits a plain one into a `MatMul` and an `Add`, whether it was asked for or not.
        extra.remove("Gemm")
        yield "`Gemm` is quantized as `MatMul` already" if present["Gemm"].quantized else "`Gemm` is taken for `MatMul`"
    supported = supported_operators(settings)
    absent = [operator for operator in extra if operator in supported and operator not in present]
    in_float = [operator for operator in extra if operator in supported and operator in present]
    yield from _without_kernel(extra, settings)
    if absent:
        yield f"{quote_names(absent)} {'is' if len(absent) == 1 else 'are'} not in the graph"
    if in_float:
        yield f"{quote_names(in_float)} {'stays' if len(in_float) == 1 else 'stay'} in float32 either way"


def _without_kernel(operators: Iterable[str], settings: Quantization) -> Iterator[str]:
    """Yield which operators the quantizer cannot quantize; nothing where it can quantize all."""
    supported = supported_operators(settings)
    if unsupported := [operator for operator in operators if operator not in supported]:
        yield f"{quote_names(unsupported)} {'has' if len(unsupported) == 1 else 'have'} no {settings.form}"
