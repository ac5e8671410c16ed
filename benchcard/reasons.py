"""Why a row is as it is, in sentences: the same model as another, nothing quantized, exclusions without effect, layers
that lose most.

This module owns the telling. What it tells of was found out by the steps: the report of `quantize`, the losses of
`explain`, the kernels that `evaluate` saw running.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchcard.frameworks.kernels import JOINABLE, UNJOINED, Kernel, operators, partly_joined
from benchcard.kinds import counted
from benchcard.quantization.loss import Loss
from benchcard.records import Records
from benchcard.steps import Record, Search
from benchcard.tasks import padding

if TYPE_CHECKING:
    from benchcard.quantization.operators import Quantization
    from benchcard.quantization.report import QuantizationReport

# Operators whose 8-bit kernels multiply a weight.
_PRODUCTS = frozenset(("Attention", "Conv", "ConvTranspose", "Gemm", "LSTM", "MatMul"))
# Activations that the quantizer or the runtime joins with the node before them; others of their kind stay in float32.
_JOINED = frozenset(("Clip", "Relu"))
_TRY_UINT8 = "try `activations_dtype: uint8`, with which ONNX Runtime joins more nodes with the conversions around them"
# Kernels that only a quantized graph has.
_QUANTIZED = re.compile(r"Q(Linear|Gemm|Attention|LSTM)|DynamicQuantize|(MatMul|Conv)Integer|MatMul(NBits|Bnb4)")
# The kinds of kernels as parts of a call's time.
_PARTS: Mapping[str, str] = MappingProxyType(
    {
        "8 bits": "what computes in 8 bits",
        "conversion": "conversions",
        "float": "what computes in floating point",
        "other": "the rest",
    }
)


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
    from benchcard.quantization import same

    other = same_model_as(records, record)
    if other is None:
        return None
    row, earlier = record.configuration, records.records[other].configuration
    measured = row.baseline != earlier.baseline
    how = "it differs only in where it is from or how it is measured" if measured else "only how it is run differs"
    if not row.quantized and not earlier.quantized:
        return f"the model file is the same; {how}"
    mine, theirs = _quantization(record), _quantization(records.records[other])
    differ = {name for name in same.OUTSIDE if row[name] != earlier[name]}
    if mine[1] == theirs[1] and not differ:
        return f"the quantization is the same; {how}"
    return same.why_same(*mine, *theirs, differ)


def saturation_risk(records: Records, record: Record) -> bool:
    """Whether products of this row's 8-bit weights can saturate on the machine of the run.

    Unsigned weights are at no risk: products of u8 and u8 are widened before they are added. Nor are weights that are
    not multiplied, or that are multiplied in float32.

    Source: onnxruntime, mlas/lib/qgemm_kernel_avx2.cpp; "Quantize ONNX models", on reduce_range.
    """
    row = record.configuration
    report = record.outcomes["quantize"].values["report"] if "quantize" in record.outcomes else {}
    here = records.about["machine"]["int8"]["u8s8_saturates"]
    signed = row["weights_dtype"] != "uint8"
    multiplied = any(each["quantized"] and each["operator"] in _PRODUCTS for each in report.get("operators", ()))
    run = kernels(record)
    if run:
        in_8_bits = {name for kernel in run if kernel.numbers == "8 bits" for name in operators(kernel.name)}
        multiplied = multiplied and bool(in_8_bits & _PRODUCTS)
    at_risk = here and report.get("weights_quantized") and multiplied and signed and not row["reduce_range"]
    return bool(at_risk and not computes_in_float(record))


def kernels(record: Record) -> tuple[Kernel, ...]:
    """What a call of a row's model runs, the longest first; nothing where the framework cannot say."""
    evaluated = record.outcomes.get("evaluate")
    told = evaluated.values.get("kernels", ()) if evaluated is not None else ()
    return tuple(Kernel(**each) for each in told)


def other_threads(records: Records, record: Record) -> int | None:
    """The threads with which a row's model was evaluated, where these are not the row's own; else None.

    A model is evaluated once, with the threads of the first row that runs it; what it answers is that of all of them,
    what it took is not.
    """
    evaluated = record.outcomes.get("evaluate")
    had: int | None = evaluated.values.get("threads") if evaluated is not None else None
    if had is None or had == (record.configuration.threads or records.about["default_threads"]):
        return None
    return had


def computes_in_float(record: Record) -> bool:
    """Whether a row's model is quantized, and the runtime computes all of it in float: between conversions from 8 bits
    and to them. Where no kernel is known, as in runs of earlier versions, it is told from the level.
    """
    quantized, run = record.outcomes.get("quantize"), kernels(record)
    if quantized is None or quantized.values["report"]["is_float_model"]:
        return False
    if not run:
        return _pairs_are_left(record)
    asked = {each["operator"] for each in quantized.values["report"]["operators"] if each["quantized"]}
    # What is quantized to be moved or looked up alone computes in nothing.
    in_float = any(kernel.numbers == "float" and asked.intersection(operators(kernel.name)) for kernel in run)
    return in_float and not any(kernel.numbers == "8 bits" for kernel in run)


def _pairs_are_left(record: Record) -> bool:
    """Whether the row's level is one at which ONNX Runtime does not join nodes with the conversions around them."""
    return _is_pairs(record) and (record.configuration["framework_args"] or {}).get("optimization_level") in UNJOINED


def _is_pairs(record: Record) -> bool:
    """Whether the row's quantized nodes are float ones between conversions, for the runtime to join."""
    row = record.configuration
    is_static = row["framework"] == "onnxruntime" and row["quantization_approach"] == "static"
    return bool(is_static and row["quant_format"] != "QOperator")


def notes(records: Records) -> list[str]:
    """What is to be said of many rows at once: those that are quantized and computed in float32, and those whose
    outputs depend on what shares a batch with an example.
    """
    found = [record for record in records.records if computes_in_float(record)]
    by_level = [record for record in found if _pairs_are_left(record)]
    others = [record for record in found if not _pairs_are_left(record)]
    told = []
    if by_level:
        told.append(
            f"{_rows(by_level)} quantized statically and computed in float32: at an `optimization_level` of 0 or 1 "
            "ONNX Runtime leaves conversions to 8 bits and back around every node, which cost time and spare none; 2 "
            "and 99 compute in 8 bits"
        )
    if others:
        told.append(
            f"{_rows(others)} quantized and computed in float32: here ONNX Runtime joins none of their nodes with the "
            "conversions to 8 bits and back around them, which cost time and spare none"
        )
    for batches, note in padding.NOTES.items():
        if rows := [record for record in records.records if _batches(record) == batches]:
            told.append(f"the outputs of {_numbers(rows)} {note}")
    return told


def _batches(record: Record) -> str | None:
    """Which batches gave each example what it gives alone, as `tasks.padding.Probe.batches` says."""
    evaluated = record.outcomes.get("evaluate")
    return evaluated.values.get("batches") if evaluated is not None else None


def _rows(records: Sequence[Record]) -> str:
    return f"{_numbers(records)} {'is' if len(records) == 1 else 'are'}"


def _numbers(records: Sequence[Record]) -> str:
    numbers = ", ".join(str(record.configuration.row) for record in records)
    return f"{'row' if len(records) == 1 else 'rows'} {numbers}"


def sentences(records: Records, record: Record, accuracy: Mapping[int, float], metric: str | None) -> Iterator[str]:
    """What there is to say of a row: what its model is, what it lost and where, and what to do.

    Args:
        records: All records.
        record: The row's.
        accuracy: The deciding metric by row, where it was measured.
        metric: That metric's name.
    """
    row = record.configuration
    for place, failure in record.failures.items():
        yield f"It has no {place}: {str(failure).removesuffix('.')}."
    if note := padding.NOTES.get(_batches(record) or ""):
        yield f"Its outputs {note}."
    if not row.quantized:
        if any(kernel.numbers == "conversion" or _QUANTIZED.match(kernel.name) for kernel in kernels(record)):
            yield "Its graph came quantized, and is run as it is."
        elif record.digest is not None:
            yield "It is not quantized."
        yield from _of_time(records, record)
        return
    quantized = record.outcomes.get("quantize")
    if quantized is None:
        return
    report = quantized.values["report"]
    size = f"{quantized.values['size_bytes'] / 1e6:.1f} MB"
    verb = "was" if report["nodes_quantized"] == 1 else "were"
    yield f"{report['nodes_quantized']} of {report['nodes_eligible']} nodes that could be {verb} quantized ({size})."
    other = same_model_as(records, record)
    if other is not None:
        yield f"It is the same model as row {other}: {why_same(records, record)}."
    if record.search is not None:
        yield from _of_search(record.search)
    for exclusion in quantized.values["exclusions"] if record.search is None else ():
        yield f"Exclusion {of_exclusion(exclusion)}."
    for note in report["notes"]:
        yield f"{note[0].upper()}{note[1:]}."
    yield from _of_kernels(record)
    yield from _of_time(records, record)
    if saturation_risk(records, record):
        yield (
            "On this processor products of 8-bit weights can saturate: its figures may be better elsewhere, "
            "or here with `reduce_range: true`."
        )
    yield from _of_losses(record, accuracy, metric)


def _of_kernels(record: Record) -> Iterator[str]:
    """Whether what is quantized in the graph computes in 8 bits when it runs, and what to do where it does not."""
    run, report = kernels(record), record.outcomes["quantize"].values["report"]
    if report["is_float_model"]:
        return
    quantized = {each["operator"]: each["quantized"] for each in report["operators"] if each["quantized"]}
    if computes_in_float(record):
        way_out = f"; {_TRY_UINT8}" if _has_int8_pairs(record) and JOINABLE.intersection(quantized) else ""
        why = (
            "at an `optimization_level` of 0 or 1 ONNX Runtime leaves the conversions around every node, and computes "
            "in float32 between them. Take 2 or 99."
            if _pairs_are_left(record)
            else f"they are computed in float32, between conversions{way_out}."
        )
        yield f"None of them computes in 8 bits: {why}"
        return
    served = {name for kernel in run if kernel.numbers == "8 bits" for name in operators(kernel.name)}
    floats = {name for kernel in run if kernel.numbers == "float" for name in operators(kernel.name)}
    idle = floats - served - _JOINED
    if _has_int8_pairs(record):
        idle -= JOINABLE
        if fewer := [f"{in_8_bits} of {count} {names}" for names, in_8_bits, count in partly_joined(run, quantized)]:
            yield (
                f"Here {_and(fewer)} compute in 8 bits, the others in float32 between conversions. Activations are "
                f"int8: {_TRY_UINT8}."
            )
    listed = record.configuration["operators_to_quantize"] or ()
    for operator in quantized:
        if operator not in idle:
            continue
        advice = "; keep its nodes out by `node_exclusion`, or name the other operators in `operators_to_quantize`"
        if operator in listed:
            advice = "; leave it out of `operators_to_quantize`"
        told = advice if len(quantized) > 1 else ""
        yield f"No `{operator}` computes in 8 bits here, but in float32 between conversions{told}."


def _has_int8_pairs(record: Record) -> bool:
    """Whether activations are int8 between nodes that ONNX Runtime has yet to join with their conversions. On x86 it
    makes them uint8 before, but only where a single node reads them; of int8 ones it joins few nodes.

    Source: onnxruntime, core/optimizer/qdq_transformer/qdq_s8_to_u8.cc and selectors_actions there.
    """
    return _is_pairs(record) and bool(record.configuration["activations_dtype"] != "uint8")


def _of_time(records: Records, record: Record) -> Iterator[str]:
    """Where the time of a call goes."""
    run, threads = kernels(record), other_threads(records, record)
    if not run:
        return
    if threads is not None:
        yield f"Where the time of a call goes is only known of another row, with `intra_op_num_threads` {threads}."
        return
    shares: dict[str, float] = {}
    for kernel in run:
        shares[kernel.numbers] = shares.get(kernel.numbers, 0.0) + kernel.time_share
    told = [f"{100 * shares[kind]:.0f} % to {said}" for kind, said in _PARTS.items() if shares.get(kind, 0) >= 0.005]
    if not told:
        return
    most = [f"{100 * kernel.time_share:.0f} % to {kernel.nodes} `{kernel.name}`" for kernel in run[:3]]
    yield f"Of a call's time go {_and(told)}; by kernels {_and(most)}."


def _and(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def pasted(nodes: Sequence[str]) -> str:
    """Nodes as a list that can be pasted into a spec."""
    return json.dumps(list(nodes), ensure_ascii=False)


def _of_search(search: Search) -> Iterator[str]:
    """What `node_exclusion: auto` found, and how."""
    first, count = search.trials[0], len(search.trials)
    without = f"{search.metric} is {_figure(first.value)} where nothing is excluded, {search.baseline:.4g} in float32"
    if first.is_enough:
        yield f"`node_exclusion: auto` found that nothing need be excluded: {without}."
        return
    tried = f"in {counted(count, 'trial')} among {counted(search.candidates, 'quantized node')}"
    nodes = counted(len(search.nodes), "node")
    if not search.is_enough:
        most = f"with {nodes} excluded, the most tried, it is {_figure(search.value)}"
        yield (
            f"`node_exclusion: auto` found no set that is enough {tried} ({without}): {most}. "
            f"Give it more `max_trials` than {search.max_trials}."
        )
    else:
        least = "none can be left out" if search.is_minimal else "fewer may do: the trials were used up"
        yield (
            f"`node_exclusion: auto` found {nodes} to exclude {tried} ({least}): so "
            f"{search.metric} is {_figure(search.value)} ({without}; {search.max_drop:g} may be lost)."
        )
    yield f"As a fixed list: node_exclusion: {pasted(search.nodes)}."


def _figure(value: float | None) -> str:
    return "not to be had" if value is None else f"{value:.4g}"


def of_exclusion(exclusion: Mapping[str, Any]) -> str:
    """What one exclusion matched, and what it changed."""
    matched, changed = len(exclusion["nodes"]), len(exclusion["would_be_quantized"])
    if not matched:
        return f"`{exclusion['pattern']}` {exclusion['remark']}"
    times = exclusion["instances"]
    nodes = f"{counted(matched, 'node')} in {counted(times, 'place')}"
    outcome = exclusion["remark"] or f"{changed} of them would have been quantized"
    return f"`{exclusion['pattern']}` matched {nodes}: {outcome}"


def _of_losses(record: Record, accuracy: Mapping[int, float], metric: str | None) -> Iterator[str]:
    explained = record.outcomes.get("explain")
    row = record.configuration
    if row.baseline is not None and row.baseline != row.row and {row.row, row.baseline} <= accuracy.keys():
        yield f"Its {metric} is {accuracy[row.row]:.3f}, the baseline's {accuracy[row.baseline]:.3f}."
    if explained is None:
        return
    outputs = Loss(**explained.values["outputs"])
    if not outputs.is_finite:
        yield "Some of its outputs are not finite."
    elif outputs.snr_db is None:
        yield "Its outputs are those of float32."
    else:
        how = "far from" if outputs.is_far else "close to"
        apart = f"{outputs.snr_db:.1f} dB, at most {outputs.max_abs_difference:.3g} apart"
        yield f"Its outputs are {how} those of float32: {apart}."
    layers = explained.values["layers"]
    if layers:
        told = ", ".join(f"`{layer['node']}` ({_decibels(layer['effect'])})" for layer in layers)
        sure = (
            ""
            if explained.values["is_complete"]
            else f", as far as {counted(explained.values['trials'], 'trial')} can tell"
        )
        yield f"Quantized alone, these layers cost its outputs most{sure}: {told}."
    if layers and outputs.is_far:
        yield _to_exclude(record, [layer["node"] for layer in layers])


def _to_exclude(record: Record, nodes: Sequence[str]) -> str:
    """The exclusions that a row has and nodes beside them, as one list, since a list in a spec takes the place of the
    other; or a named pattern that holds the worst of the nodes, where one does.
    """
    has: Sequence[str] = record.configuration["node_exclusion"] or () if record.search is None else record.search.nodes
    found = record.outcomes["explain"].values.get("patterns") or []
    pattern = f", or the pattern `{found[0]}`" if found else ""
    if found:
        pattern += f" in place of `{nodes[0]}`" if has else ", which holds the first"
    too = " too, beside what is excluded already" if has else ""
    return f"To keep them in float32{too}: node_exclusion: {pasted(tuple(dict.fromkeys((*has, *nodes))))}{pattern}."


def _decibels(loss: Mapping[str, Any]) -> str:
    return (
        "not finite" if not loss["is_finite"] else "no loss" if loss["snr_db"] is None else f"{loss['snr_db']:.1f} dB"
    )


def _quantization(record: Record) -> tuple[QuantizationReport | None, Quantization | None]:
    """A row's report and arguments as objects again; None and None where it was not quantized."""
    from benchcard.quantization.operators import Quantization
    from benchcard.quantization.report import OperatorCount, QuantizationReport

    quantized = record.outcomes.get("quantize")
    if quantized is None:
        return None, None
    told = dict(quantized.values["report"])
    told["operators"] = tuple(OperatorCount(**each) for each in told["operators"])
    told["notes"] = tuple(told["notes"])
    how: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in quantized.values["how"].items()
    }
    return QuantizationReport(**told), Quantization(**how)
