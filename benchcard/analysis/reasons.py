"""Explanations of rows in sentences: the same model as another, nothing quantized, layers that lose most."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from benchcard.analysis.records import Records
from benchcard.analysis.rows import (
    computes_in_float,
    is_pairs,
    kernels,
    other_threads,
    pairs_are_left,
    same_model_as,
    saturation_risk,
    why_same,
)
from benchcard.evaluation import padding
from benchcard.frameworks.kernels import JOINABLE, operators, partly_joined
from benchcard.quantization.exclusions import Exclusion
from benchcard.quantization.sensitivity.loss import Loss
from benchcard.run.record import Record, Search
from benchcard.steps.models import ModelFile
from benchcard.steps.step import Outcome
from benchcard.utils.text import pluralize

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


def made(record: Record) -> Outcome[ModelFile] | None:
    """Return the step that made the file which a row's framework opens; None where there is none."""
    if record.digest is None:
        return None
    outcomes = record.outcomes
    return outcomes.convert or (outcomes.quantize if record.configuration.quantized else outcomes.export)


def notes(records: Records) -> list[str]:
    """What is to be said of many rows at once: those that are quantized and computed in float32, and those whose
    outputs depend on what shares a batch with an example.
    """
    found = [record for record in records.records if computes_in_float(record)]
    by_level = [record for record in found if pairs_are_left(record)]
    others = [record for record in found if not pairs_are_left(record)]
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
    return record.outcomes.evaluate.values.batches if record.outcomes.evaluate else None


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
    quantized = record.outcomes.quantize
    if quantized is None:
        return
    report = quantized.values.report
    file = made(record)
    size = f" ({file.values.size_bytes / 1e6:.1f} MB)" if file else ""
    verb = "was" if report.nodes_quantized == 1 else "were"
    yield f"{report.nodes_quantized} of {report.nodes_eligible} nodes that could be {verb} quantized{size}."
    other = same_model_as(records, record)
    if other is not None:
        yield f"It is the same model as row {other}: {why_same(records, record)}."
    if record.search is not None:
        yield from _of_search(record.search)
    for exclusion in quantized.values.exclusions if record.search is None else ():
        yield f"Exclusion {of_exclusion(exclusion)}."
    for note in report.notes:
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
    if record.outcomes.quantize is None:
        return
    run, report = kernels(record), record.outcomes.quantize.values.report
    if report.is_float_model:
        return
    quantized = {count.operator: count.quantized for count in report.operators if count.quantized}
    if computes_in_float(record):
        way_out = f"; {_TRY_UINT8}" if _has_int8_pairs(record) and JOINABLE.intersection(quantized) else ""
        why = (
            "at an `optimization_level` of 0 or 1 ONNX Runtime leaves the conversions around every node, and computes "
            "in float32 between them. Take 2 or 99."
            if pairs_are_left(record)
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
    return is_pairs(record) and bool(record.configuration["activations_dtype"] != "uint8")


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


def as_flow_list(nodes: Sequence[str]) -> str:
    """Nodes as a list that can be pasted into a spec."""
    return json.dumps(list(nodes), ensure_ascii=False)


def _of_search(search: Search) -> Iterator[str]:
    """What `node_exclusion: auto` found, and how."""
    first, count = search.trials[0], len(search.trials)
    without = f"{search.metric} is {_figure(first.value)} where nothing is excluded, {search.baseline:.4g} in float32"
    if first.is_enough:
        yield f"`node_exclusion: auto` found that nothing need be excluded: {without}."
        return
    tried = f"in {pluralize(count, 'trial')} among {pluralize(search.candidates, 'quantized node')}"
    nodes = pluralize(len(search.nodes), "node")
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
    yield f"As a fixed list: node_exclusion: {as_flow_list(search.nodes)}."


def _figure(value: float | None) -> str:
    return "not to be had" if value is None else f"{value:.4g}"


def of_exclusion(exclusion: Exclusion) -> str:
    """What one exclusion matched, and what it changed."""
    matched, changed = len(exclusion.nodes), len(exclusion.would_be_quantized)
    if not matched:
        return f"`{exclusion.pattern}` {exclusion.remark}"
    times = exclusion.instances
    nodes = f"{pluralize(matched, 'node')} in {pluralize(times, 'place')}"
    outcome = exclusion.remark or f"{changed} of them would have been quantized"
    return f"`{exclusion.pattern}` matched {nodes}: {outcome}"


def _of_losses(record: Record, accuracy: Mapping[int, float], metric: str | None) -> Iterator[str]:
    explained = record.outcomes.explain
    row = record.configuration
    if row.baseline is not None and row.baseline != row.row and {row.row, row.baseline} <= accuracy.keys():
        yield f"Its {metric} is {accuracy[row.row]:.3f}, the baseline's {accuracy[row.baseline]:.3f}."
    if explained is None:
        return
    outputs = explained.values.outputs
    if not outputs.is_finite:
        yield "Some of its outputs are not finite."
    elif outputs.snr_db is None:
        yield "Its outputs are those of float32."
    else:
        how = "far from" if outputs.is_far else "close to"
        apart = f"{outputs.snr_db:.1f} dB, at most {outputs.max_abs_difference:.3g} apart"
        yield f"Its outputs are {how} those of float32: {apart}."
    layers = explained.values.layers
    if layers:
        told = ", ".join(f"`{layer.node}` ({_decibels(layer.effect)})" for layer in layers)
        sure = (
            ""
            if explained.values.is_complete
            else f", as far as {pluralize(explained.values.trials, 'trial')} can tell"
        )
        yield f"Quantized alone, these layers cost its outputs most{sure}: {told}."
    if layers and outputs.is_far:
        yield _to_exclude(record, [layer.node for layer in layers])


def _to_exclude(record: Record, nodes: Sequence[str]) -> str:
    """The exclusions that a row has and nodes beside them, as one list, since a list in a spec takes the place of the
    other; or a named pattern that holds the worst of the nodes, where one does.
    """
    has: Sequence[str] = record.configuration["node_exclusion"] or () if record.search is None else record.search.nodes
    found = record.outcomes.explain.values.patterns if record.outcomes.explain else ()
    pattern = f", or the pattern `{found[0]}`" if found else ""
    if found:
        pattern += f" in place of `{nodes[0]}`" if has else ", which holds the first"
    too = " too, beside what is excluded already" if has else ""
    return (
        f"To keep them in float32{too}: node_exclusion: {as_flow_list(tuple(dict.fromkeys((*has, *nodes))))}{pattern}."
    )


def _decibels(loss: Loss) -> str:
    return "not finite" if not loss.is_finite else "no loss" if loss.snr_db is None else f"{loss.snr_db:.1f} dB"
