"""Reasons in sentences: why a row is as it is, and notes on all rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from benchcard.analysis import row_facts
from benchcard.analysis.records import Records
from benchcard.evaluation import padding
from benchcard.frameworks.kernels import FUSIBLE, Kernel, partly_fused
from benchcard.quantization.outcomes import Exclusion, Loss
from benchcard.run.record import Record, Search
from benchcard.steps.models import ConvertOutcome, ModelFile
from benchcard.steps.quantize import ExplainOutcome
from benchcard.steps.step import Outcome
from benchcard.utils.text import pluralize

# Activations that the quantizer or the runtime fuses with the node before them; others of their kind stay in float32.
_FUSED_ACTIVATIONS = frozenset(("Clip", "Relu"))
_TRY_UINT8 = "try `activations_dtype: uint8`, with which ONNX Runtime fuses more nodes with the conversions around them"
# The parts of a call's time, by the numbers that kernels compute in.
_TIME_PARTS = {
    "8 bits": "8-bit kernels",
    "conversion": "conversions",
    "float": "floating-point kernels",
    "other": "the rest",
}


def model_file(record: Record) -> Outcome[ModelFile] | None:
    """Return the step that made the file which a row's framework opens; None where there is none."""
    if record.digest is None:
        return None
    outcomes = record.outcomes
    return outcomes.convert or (outcomes.quantize if record.configuration.quantized else outcomes.float_graph)


def run_notes(records: Records) -> list[str]:
    """Return notes on quantized rows that are computed in float32, on operators whose weights no node has quantized, on
    rows whose outputs depend on the batch, on rows whose graphs cut texts that others do not, on quantized baselines,
    and on runs of an earlier version.
    """

    def subject(rows: Sequence[Record]) -> str:
        return f"{_name_rows(rows)} {'is' if len(rows) == 1 else 'are'}"

    rows = [record for record in records.records if row_facts.computes_in_float(record)]
    notes = []
    if by_level := [record for record in rows if row_facts.keeps_conversions(record)]:
        notes.append(
            f"{subject(by_level)} quantized statically and computed in float32: at an "
            "`optimization_level` of 0 or 1 ONNX Runtime keeps the conversions to 8 bits and back around every node, "
            "which take time and save none; 2 and 99 compute in 8 bits"
        )
    if others := [record for record in rows if not row_facts.keeps_conversions(record)]:
        notes.append(
            f"{subject(others)} quantized and computed in float32: here ONNX Runtime fuses none of "
            "their nodes with the conversions to 8 bits and back around them, which take time and save none"
        )
    left: dict[str, list[Record]] = {}
    for record in records.records:
        if names := row_facts.operators_left(record):
            left.setdefault(names, []).append(record)
    for names, affected in left.items():
        notes.append(f"{subject(affected)} quantized without the weights of {names}: see `benchcard show --explain`")
    for batches, note in padding.NOTES.items():
        if affected := [record for record in records.records if _batches(record) == batches]:
            notes.append(f"the outputs of {_name_rows(affected)} {note}")
    configurations = [record.configuration for record in records.records]
    compared_with = {row.baseline for row in configurations if row.baseline != row.row}
    if baselines := [
        record
        for record in records.records
        if record.configuration.row in compared_with and row_facts.is_quantized(record)
    ]:
        notes.append(
            f"{subject(baselines)} quantized, and others are compared with {'it' if len(baselines) == 1 else 'them'}: "
            "differences, fidelity and ratios are not those from a float model. Add one, or name it by `baseline`"
        )
    compared = (record.outcomes.compare for record in records.records)
    if any(outcome and outcome.values.fidelity is None for outcome in compared):
        notes.append(
            "an earlier version of benchcard made this run, without fidelity, recovery and bits per weight: for these, "
            "run the spec again in a new folder"
        )
    return notes + _cut_notes(records)


def _name_rows(records: Sequence[Record]) -> str:
    """Return the numbers of rows, and the files that they are: `row 2 (onnx/model_int8.onnx)`."""
    names = [(record.configuration["framework_args"] or {}).get("file_name") for record in records]
    files = ", ".join(name for name in names if name)
    return row_facts.number_rows([record.configuration.row for record in records]) + (f" ({files})" if files else "")


def _cut_notes(records: Records) -> list[str]:
    """Return notes on rows whose graphs take one number of tokens, beside rows for which texts were cut otherwise.

    Rows have the same notes on their data where no text was cut, or all at the same length.
    """
    lengths: dict[int | None, list[Record]] = {}
    remarks = set()
    for record in records.records:
        outcomes = record.outcomes
        if outcomes.prepare and outcomes.evaluate:
            length = outcomes.export.values.report.input_length if outcomes.export else None
            lengths.setdefault(length, []).append(record)
            remarks.add(outcomes.prepare.values.notes)
    if len(lengths) < 2 or len(remarks) < 2:
        return []
    return [
        f"{_name_rows(rows)} {'has' if len(rows) == 1 else 'have'} texts of at most {length} tokens, the "
        "only length of the graph, and other rows are not cut to it: their metrics are not of the same texts. To "
        "compare them, evaluate on texts that are not longer"
        for length, rows in lengths.items()
        if length is not None
    ]


def _batches(record: Record) -> str | None:
    """Return which batches give an example the outputs that it has alone; see `evaluation.padding`."""
    return record.outcomes.evaluate.values.batches if record.outcomes.evaluate else None


def explain_row(records: Records, record: Record, quality: Mapping[int, float], metric: str | None) -> Iterator[str]:
    """Yield sentences on a row: what its model is, what quantization changed and where, and what to do.

    `quality` has the deciding `metric` by row, where it was measured.
    """
    row = record.configuration
    for missing, failure in record.failures.items():
        yield f"It has no {missing}: {str(failure).removesuffix('.')}."
    if note := padding.NOTES.get(_batches(record) or ""):
        yield f"Its outputs {note}."
    if record.outcomes.convert is not None:
        yield _explain_conversion(row["framework"], record.outcomes.convert.values)
    if not row.quantized:
        kernels = row_facts.kernels_of(record)
        if record.quantized:
            yield from [_name_kernels(kernels)] if kernels else ()
        elif row_facts.is_quantized(record):
            yield "Its graph was already quantized, and is run unchanged."
        elif record.digest is not None:
            cast = ": its graph is in float16, with inputs and outputs in float32" if record.outcomes.cast else ""
            yield f"It is not quantized{cast}."
        yield from _explain_time(records, record)
        return
    quantized = record.outcomes.quantize
    if quantized is None:
        return
    report, file = quantized.values.report, model_file(record)
    size = f" ({file.values.size_bytes / 1e6:.1f} MB)" if file else ""
    verb = "was" if report.nodes_quantized == 1 else "were"
    yield f"{report.nodes_quantized} of {report.nodes_eligible} nodes that could be {verb} quantized{size}."
    if reason := row_facts.why_same(records, record):
        yield f"It is the same model as row {row_facts.same_model_as(records, record)}: {reason}."
    if record.search is not None:
        yield from explain_search(record.search)
    for exclusion in quantized.values.exclusions if record.search is None else ():
        yield f"Exclusion {describe_exclusion(exclusion)}."
    for note in report.notes:
        yield f"{note[0].upper()}{note[1:]}."
    if not report.is_float_model and row["quantization_approach"] == "weight_only":
        rounds = quantized.values.how.resolved.accuracy_level == 4
        numbers = "activations rounded to int8 (`accuracy_level: 4`)" if rounds else "floating-point activations"
        yield f"Only weights are quantized: products are those of {numbers}."
    elif not report.is_float_model:
        yield from _explain_kernels(record, {count.operator: count.quantized for count in report.operators})
    yield from _explain_time(records, record)
    if row_facts.saturation_risk(records, record):
        yield (
            "On this processor products of 8-bit weights can saturate: its figures may be better on other processors, "
            "or here with `reduce_range: true`."
        )
    if row.baseline is not None and row.baseline != row.row and {row.row, row.baseline} <= quality.keys():
        yield f"Its {metric} is {quality[row.row]:.3f}, the baseline's {quality[row.baseline]:.3f}."
    if record.outcomes.explain is not None:
        yield from _explain_losses(record, record.outcomes.explain.values)


def _explain_conversion(framework: str, convert: ConvertOutcome) -> str:
    """Return what the model is that a framework made of the graph."""
    kinds = sorted(convert.kinds.items(), key=lambda pair: -pair[1])
    stored = f", with {_join([f'{count:,} weights as {kind}' for kind, count in kinds])}" if kinds else ""
    return f"`{framework}` made its model of the ONNX graph ({convert.size_bytes / 1e6:.1f} MB){stored}."


def _name_kernels(kernels: Sequence[Kernel]) -> str:
    """Return which kernels compute in 8 bits, of a model that its framework quantized."""
    in_8_bits = [kernel for kernel in kernels if kernel.numbers == "8 bits"]
    in_float = sum(kernel.nodes for kernel in kernels if kernel.numbers == "float")
    if not in_8_bits:
        return f"None of its kernels computes in 8 bits, {in_float} compute in floating point."
    names = _join([f"{kernel.nodes} `{kernel.name}`" for kernel in in_8_bits])
    return f"In 8 bits it computes {names}; {pluralize(in_float, 'kernel')} in floating point."


def _explain_kernels(record: Record, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield which quantized nodes the runtime computes in float32; `counts` has the nodes by operator."""
    quantized = {operator: count for operator, count in counts.items() if count}
    # With int8 activations ONNX Runtime fuses few nodes with their conversions. On x86 it first makes them uint8, but
    # only where a single node reads them.
    # Source: onnxruntime, core/optimizer/qdq_transformer/qdq_s8_to_u8.cc and selectors_actions there.
    fuses = row_facts.has_conversions(record) and not row_facts.on_gpu(record)
    has_int8 = fuses and record.configuration["activations_dtype"] != "uint8"
    if row_facts.computes_in_float(record):
        if row_facts.keeps_conversions(record):
            reason = (
                "at an `optimization_level` of 0 or 1 ONNX Runtime keeps the conversions around every node, and "
                "computes in float32 between them. Use 2 or 99."
            )
        else:
            advice = f"; {_TRY_UINT8}" if has_int8 and FUSIBLE.intersection(quantized) else ""
            reason = f"they are computed in float32, between conversions{advice}."
        yield f"None of them computes in 8 bits: {reason}"
        return
    kernels = row_facts.kernels_of(record)
    in_float = (
        row_facts.computed_operators(kernels, "float")
        - row_facts.computed_operators(kernels, "8 bits")
        - _FUSED_ACTIVATIONS
    )
    if has_int8:
        in_float -= FUSIBLE
        parts = [f"{in_8_bits} of {count} {names}" for names, in_8_bits, count in partly_fused(kernels, quantized)]
        if parts:
            yield (
                f"Here {_join(parts)} compute in 8 bits, the others in float32 between conversions. Activations are "
                f"int8: {_TRY_UINT8}."
            )
    selected = record.configuration["operators_to_quantize"] or ()
    for operator in (operator for operator in quantized if operator in in_float):
        advice = "; exclude its nodes by `node_exclusion`, or name the other operators in `operators_to_quantize`"
        if len(quantized) == 1:
            advice = ""
        elif operator in selected:
            advice = "; remove it from `operators_to_quantize`"
        yield f"No `{operator}` computes in 8 bits here, but in float32 between conversions{advice}."


def _explain_time(records: Records, record: Record) -> Iterator[str]:
    kernels, threads = row_facts.kernels_of(record), row_facts.other_threads(records, record)
    if not kernels:
        return
    if row_facts.on_gpu(record):
        on_cpu = [f"{kernel.nodes} `{kernel.name}`" for kernel in kernels if kernel.on_cpu]
        if on_cpu:
            yield f"Of its nodes, {_join(on_cpu)} run on the CPU."
        return
    if threads is not None:
        yield f"The time of its kernels is only known of another row, with `intra_op_num_threads` {threads}."
        return
    shares = dict.fromkeys(_TIME_PARTS, 0.0)
    for kernel in kernels:
        shares[kernel.numbers] += kernel.time_share
    shown = [f"{100 * share:.0f} % in {_TIME_PARTS[name]}" for name, share in shares.items() if share >= 0.005]
    if shown:
        longest = [f"{100 * kernel.time_share:.0f} % in {kernel.nodes} `{kernel.name}`" for kernel in kernels[:3]]
        yield f"Time of a call: {_join(shown)}. By kernel: {_join(longest)}."


def _join(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def format_list(nodes: Sequence[str]) -> str:
    """Return names of nodes as a list that can be pasted into a spec."""
    return json.dumps(list(nodes), ensure_ascii=False)


def explain_search(search: Search) -> Iterator[str]:
    """Yield the result of `node_exclusion: auto`, and how it was found."""
    first = search.trials[0]
    without = (
        f"{search.metric} is {_format_metric(first.value)} where nothing is excluded, {search.baseline:.4g} in float32"
    )
    if first.is_enough:
        yield f"`node_exclusion: auto` found that no node has to be excluded: {without}."
        return
    trials = f"in {pluralize(len(search.trials), 'trial')} among {pluralize(search.candidates, 'quantized node')}"
    nodes, value = pluralize(len(search.nodes), "node"), _format_metric(search.value)
    if search.is_enough:
        minimal = "none can be left out" if search.is_minimal else "fewer may be enough: no trials were left"
        yield (
            f"`node_exclusion: auto` found {nodes} to exclude {trials} ({minimal}): with them {search.metric} is "
            f"{value} ({without}; {search.max_drop:g} may be lost)."
        )
    else:
        yield (
            f"`node_exclusion: auto` found no set that is enough {trials} ({without}): with {nodes} excluded, the most "
            f"tried, it is {value}. Set `max_trials` to more than {search.max_trials}."
        )
    yield f"As a fixed list: node_exclusion: {format_list(search.nodes)}."


def _format_metric(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"


def describe_exclusion(exclusion: Exclusion) -> str:
    """Return in words what an exclusion matched, and what it changed."""
    if not exclusion.nodes:
        return f"`{exclusion.pattern}` {exclusion.remark}"
    nodes = f"{pluralize(len(exclusion.nodes), 'node')} in {pluralize(exclusion.instances, 'place')}"
    effect = exclusion.remark or f"{len(exclusion.would_be_quantized)} of them would have been quantized"
    return f"`{exclusion.pattern}` matched {nodes}: {effect}"


def _explain_losses(record: Record, losses: ExplainOutcome) -> Iterator[str]:
    """Yield what quantization cost the outputs, which layers cost most, and how to keep them in float32."""
    outputs, layers = losses.outputs, losses.layers
    dtype = "float16" if record.outcomes.cast else "float32"
    if not outputs.is_finite:
        yield "Some of its outputs are not finite."
    elif outputs.snr_db is None:
        yield f"Its outputs are those of {dtype}."
    else:
        distance = "far from" if outputs.is_far else "close to"
        figures = f"{outputs.snr_db:.1f} dB, at most {outputs.max_abs_difference:.3g} apart"
        yield f"Its outputs are {distance} those of {dtype}: {figures}."
    if layers:
        costs = ", ".join(f"`{layer.node}` ({format_loss(layer.effect)})" for layer in layers)
        certainty = "" if losses.is_complete else f", as far as {pluralize(losses.trials, 'trial')} can tell"
        yield f"Quantized alone, these layers cost its outputs most{certainty}: {costs}."
    if layers and outputs.is_far:
        yield _advise_exclusions(record, [layer.node for layer in layers], losses.patterns)


def _advise_exclusions(record: Record, nodes: Sequence[str], patterns: Sequence[str]) -> str:
    """Return the advice to exclude nodes, or a pattern that has the first of them.

    A list in a spec replaces the row's own, so the advice also lists the nodes that the row excludes already.
    """
    search = record.search
    excluded: Sequence[str] = search.nodes if search is not None else record.configuration["node_exclusion"] or ()
    pattern = ""
    if patterns:
        relation = f" in place of `{nodes[0]}`" if excluded else ", which holds the first"
        pattern = f", or the pattern `{patterns[0]}`{relation}"
    addition = " too, beside what is excluded already" if excluded else ""
    names = format_list(tuple(dict.fromkeys((*excluded, *nodes))))
    return f"To keep them in float32{addition}: node_exclusion: {names}{pattern}."


def format_loss(loss: Loss) -> str:
    """Return a signal-to-noise ratio as text."""
    return "not finite" if not loss.is_finite else "no loss" if loss.snr_db is None else f"{loss.snr_db:.1f} dB"
