"""The full layout: which configuration to ship and why, then every figure behind it.

It contains the parts of the classic layout in the same order, with others around and between them. Only labels and
recommended rows are bold. What is behind the choice is folded: parameters, tables of all rows, machine and versions.
`reading.full` reads such a card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import date

from benchcard.card.facts import LATENCY_MEAN, OTHERS, Facts, Plain, Row
from benchcard.card.layouts import classic, figures, full_tables, reproduce
from benchcard.card.layouts.figures import format_shape, format_size, latency_name
from benchcard.card.layouts.full_tables import COST, RATIO, SIZE
from benchcard.card.markdown.inline import code_span, escape, escape_prose, write_value
from benchcard.utils.text import pluralize
from benchcard.utils.values import SAMPLES, Shape

COMPARED_TITLE = "### What was compared"
DATA_TITLE = "Testing data:"
METRICS_TITLE = "Metrics:"
SETTINGS_TITLE = "Measurement:"
QUALITY_TITLE = "#### Non-time metrics"
COMPARISON_TITLE = "#### Against the baseline"
ENVIRONMENT_TITLE = "### Environment"
MACHINE_TITLE = "Machine:"
RUN_TITLE = "Run:"
LIMITATIONS_TITLE = "### Limitations"
NOTES_TITLE = "Notes on this run:"
REASON_TITLE, REASONS_TITLE = "Why this row:", "Why these rows:"
NEEDED_TITLE = "You need, since they are not published with this card:"
UNFINISHED = "**This run is not finished**, with "
HIGHER, LOWER = "higher is better", "lower is better"
CPU_EXPLANATION = (
    "Processor time adds up all threads of a call, without what other processes took. It hides how well a model uses "
    "several processors: two that it uses badly look like one that it uses well. Waiting for memory counts, and so do "
    "threads that wait spinning, as ONNX Runtime's do by default (not with `allow_spinning: false`)."
)
_BEFORE_BLOCK_MARKER = re.compile(r"\A(?:(?=[-+#>=~])|\d+(?=[.)]))")
# The libraries that run models.
_LIBRARIES = ("benchcard", "onnxruntime", "torch", "openvino")
_PHASES = (
    "The time to first token is that of a call that reads a prompt of the input length into an empty cache. The time "
    "per token is that of a call on one token, with as many tokens as the input length in the cache already. Choosing "
    "the next token from the logits is not part of either."
)
_CACHE_ON_GPU = (
    "A call on a GPU also copies the cache from the memory of the host and back. A loop that keeps the cache on the "
    "GPU needs less time per token."
)
# Below this time per configuration and shape, the card warns that small differences cannot be detected.
_SHORT_DURATION_S = 10


def body(facts: Facts, *, plot: str | None = None, slug: str = "benchmark", usage: str = "") -> str:
    """Return the card without its front matter; it begins with a heading of the second level.

    `plot` is the path of the picture in the repository, None where there is none. `slug` names the run in the commands
    that repeat it. `usage` is a section on how the published models are loaded.
    """
    parts = [f"## {escape(facts.title or default_title(facts))}"]
    if facts.done is not None:
        done = f"{facts.done} of {pluralize(len(facts.rows), 'configuration')} done"
        parts.append(f"{UNFINISHED}{done}: `benchcard run` continues it, and these results may change.")
    parts += [_recommendations(facts), _cheapest(facts)]
    if facts.rows:
        parts += [full_tables.summary(facts), _legend(facts)]
    if plot is not None:
        parts.append(f"![{alt_text(facts)}]({plot})")
    several = len(facts.recommended) > 1
    parts += [
        _list_sentences(REASONS_TITLE if several else REASON_TITLE, facts.reasons),
        usage.strip("\n"),
        COMPARED_TITLE,
        _overview(facts),
        _fold("Data, parameters, metrics and settings", *_compared(facts)),
        *_evaluation(facts),
        _fold("Machine and versions", _bullets(MACHINE_TITLE, facts.environment), _bullets(RUN_TITLE, facts.run)),
        _fold("How to reproduce it", *_how_to_reproduce(facts, slug)),
        LIMITATIONS_TITLE,
        *_limitations(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def default_title(facts: Facts) -> str:
    """Return the heading of a card whose facts have no title."""
    model = facts.fixed.get("model_name", facts.fixed.get("name_or_path"))
    of = f" with {model.removeprefix('./')}" if isinstance(model, str) else ""
    on = f" on {_data_name(facts)}" if _data_name(facts) else ""
    return " ".join(f"Benchmark: {facts.task}{of}{on}".split())


def _data_name(facts: Facts) -> str:
    """Return the name of the data; empty where rows were evaluated on several."""
    several = any(len(facts.benchmarked.get(name, ())) > 1 for name in ("dataset", "dataset.path"))
    return "" if facts.data is None or several else (facts.data.name or facts.data.dataset.removeprefix("./"))


def alt_text(facts: Facts) -> str:
    """Return the picture as text: the figures of each row of the summary."""
    if not facts.shapes or not facts.metrics:
        return ""
    points, key = [], full_tables.pictured(facts)
    samples = SAMPLES.get(facts.shapes[0].phase, SAMPLES[None])
    against, unit = (
        (latency_name(facts.shapes[0]), " ms") if key == LATENCY_MEAN else (f"cost per million {samples}", "")
    )
    for index in full_tables.summary_rows(facts):
        quality = _quality(facts, index)
        if quality and facts.rows[index].time(facts.shapes[0], key) is not None:
            roles = ", ".join(full_tables.roles(facts, index))
            name = f"row {index} ({roles})" if roles else f"row {index}"
            points.append(f"{name} {quality} at {full_tables.time_cells(facts, facts.shapes[0], key)[index]}{unit}")
    shape = format_size(facts.shapes[0])
    return escape(f"{facts.metrics[0].name} against {against} at {shape}: {'; '.join(points)}")


def _recommendations(facts: Facts) -> str:
    """Return one sentence that says which row to ship, with its figures; one for each of several baselines."""
    baselines = facts.baselines
    if len(baselines) < 2:
        return _recommendation(facts, facts.chosen, facts.baseline)
    chosen = {facts.baseline_of(row): row for row in facts.recommended}
    sentences = [f"* {_recommendation(facts, chosen.get(baseline), baseline)}" for baseline in baselines]
    opening = f"There are {len(baselines)} baselines, and each row is compared with its own:"
    return "\n".join([opening, "", *sentences])


def _recommendation(facts: Facts, chosen: int | None, base: int | None) -> str:
    if chosen is None:
        beside = f" for the baseline, row {base}" if len(facts.baselines) > 1 else ""
        return f"**There is nothing to recommend{beside}:** no row has all the figures that a choice needs."
    for_now = "" if facts.done is None else ", for now"
    label = f"row {chosen}{for_now}** ({escape(full_tables.row_names(facts)[chosen])})"
    quality = _quality(facts, chosen)
    quality_clause = f"{escape(facts.metrics[0].name)} {quality}" if quality else ""
    if base is None or chosen == base:
        latency = _latency(facts, chosen)
        latency_clause = f"{latency_name(facts.shapes[0])} {latency} ms" if latency else ""
        clauses = [_without_gain(facts, base, label), quality_clause, latency_clause]
        return "; ".join(filter(None, clauses)) + "."
    clauses = _speed(facts, chosen, base) if facts.shapes else []
    if quality:
        before = _quality(facts, base)
        clauses.append(quality_clause + (f", {_original(facts, base)}'s {before}" if before else ""))
    if all(facts.rows[index].figures.get(SIZE) for index in (chosen, base)):
        sizes = full_tables.figure_cells(facts, SIZE)
        clauses.append(f"{sizes[chosen]} instead of {sizes[base]} MB")
    return f"**Ship {label}: " + "; ".join(clauses) + "."


def _cheapest(facts: Facts) -> str:
    """Return a sentence on the row that costs least, and on the cheapest baseline; empty without a price."""
    if facts.cheapest is None:
        return ""
    costs = {row: _least_cost(facts, row) for row in (facts.cheapest, *facts.baselines)}
    known = {row: cost for row, cost in costs.items() if cost is not None}
    if facts.cheapest not in known:
        return ""
    names = full_tables.row_names(facts)
    baselines = [row for row in facts.baselines if row in known]
    text = f"**Cheapest at this quality: row {facts.cheapest}** ({escape(names[facts.cheapest])})"
    text += f": {known[facts.cheapest][1]}"
    if baselines and facts.cheapest not in baselines:
        base = min(baselines, key=lambda row: known[row][0])
        text += f"; the cheapest baseline, row {base}, {known[base][1]}"
    if facts.machines and (unpriced := [facts.machines[row] for row in facts.baselines if row not in known]):
        text += f"; no price is known of {escape(' and '.join(unpriced))}"
    return f"{text}."


def _least_cost(facts: Facts, index: int) -> tuple[float, str] | None:
    """Return the least cost of a row at any shape, as a number and in words; None where it is not known."""
    row = facts.rows[index]
    shapes = [shape for shape in facts.shapes if shape.phase == facts.shapes[0].phase]
    costs = {shape: cost.value for shape in shapes if (cost := row.time(shape, COST))}
    if not costs:
        return None
    shape = min(costs, key=lambda each: costs[each])
    cell = full_tables.time_cells(facts, shape, COST)[index]
    unit = SAMPLES.get(shape.phase, SAMPLES[None])
    return costs[shape], f"{cell} per million {unit} at {format_shape(shape)}"


def _speed(facts: Facts, chosen: int, base: int) -> list[str]:
    row, shape, clauses = facts.rows[chosen], facts.shapes[0], []
    if full_tables.is_undetectable(row, shape):
        clauses.append("no detectable difference in speed from the baseline")
    elif row.time(shape, RATIO) is not None:
        ratio = full_tables.time_cells(facts, shape, RATIO)[chosen]
        clauses.append(f"**{ratio} times as fast** as {_original(facts, base)}")
    latency, latency_before = _latency(facts, chosen), _latency(facts, base)
    if latency and latency_before:
        without_intervals = f"{latency.split()[0]} instead of {latency_before.split()[0]} ms"
        clauses.append(f"{without_intervals} at {format_shape(shape)}")
    for other in full_tables.other_phases(facts):
        cells = full_tables.time_cells(facts, other, LATENCY_MEAN)
        if row.time(other, LATENCY_MEAN) and facts.rows[base].time(other, LATENCY_MEAN):
            times = " instead of ".join(cells[index].split()[0] for index in (chosen, base))
            clauses.append(f"{times} ms{other.remark}")
    return clauses


def _original(facts: Facts, base: int) -> str:
    """Return what to call a baseline, which may be quantized where a grid has no other, or the spec names it."""
    return "the baseline" if full_tables.is_quantized(facts.rows[base]) else "the unquantized model"


def _without_gain(facts: Facts, base: int | None, label: str) -> str:
    """Return the beginning of a recommendation without a gain: the row, and why no other one is recommended."""
    if len(facts.rows) == 1 and facts.done is None:
        return f"**There is one configuration, {label}, and nothing to compare it with"
    if base is None:
        return f"**Ship {label}; there is no unquantized baseline to compare with"
    others = [row for index, row in enumerate(facts.rows) if index != base and facts.baseline_of(index) == base]
    if facts.done is not None:
        why = "the run is not finished"
    elif not others:
        why = "no other row is compared with it"
    elif not _have_time(facts, facts.rows, LATENCY_MEAN):
        why = "nothing was timed"
    elif not _have_time(facts, others, RATIO):
        why = "no other row was timed together with it"
    else:
        why = "no variant is both detectably faster and good enough"
    return f"**Keep the baseline, {label}: {why}"


def _have_time(facts: Facts, rows: Iterable[Row], key: str) -> bool:
    return any(row.time(shape, key) for row in rows for shape in facts.shapes)


def _quality(facts: Facts, index: int) -> str:
    """Return the first metric of a row as its column shows it; empty where there is none."""
    if not facts.metrics or facts.rows[index].metrics.get(facts.metrics[0].name) is None:
        return ""
    return full_tables.metric_cells(facts, facts.metrics[0].name)[index]


def _latency(facts: Facts, index: int) -> str:
    """Return the mean latency of a row in ms at the first shape, as its column shows it; empty where there is none."""
    if not facts.shapes or facts.rows[index].time(facts.shapes[0], LATENCY_MEAN) is None:
        return ""
    return full_tables.time_cells(facts, facts.shapes[0], LATENCY_MEAN)[index]


def _legend(facts: Facts) -> str:
    at = f" Times are at {format_size(facts.shapes[0])}." if facts.shapes else ""
    sentences, baselines = [f"In brackets: 95 % intervals.{at}"], facts.baselines
    ratios = [row.time(shape, RATIO) for row in facts.rows for shape in facts.shapes]
    if sum(ratio is not None and ratio.low != ratio.high for ratio in ratios) > 1:
        sentences.append(
            "Intervals of ratios hold together (Bonferroni: each is at a level of 1 - 0.05 / their number)."
        )
    if facts.shapes and full_tables.leads_with_cpu(facts, facts.shapes[0]):
        sentences += [
            "**The machine was disturbed. Latency ratios may be wrong, so that of processor time is shown first.**",
            *_floors(facts, facts.shapes[0]),
        ]
    if facts.pareto:
        of = " of the same examples" if len({row.examples for row in facts.rows}) > 1 else ""
        sentences.append(f"*Pareto*: no other row{of} is both better and faster.")
    others = [row for index, row in enumerate(facts.rows) if index not in baselines]
    if any(full_tables.is_undetectable(row, shape) for row in others for shape in facts.shapes):
        sentences.append(
            f"*{figures.NOT_DETECTABLE}*: the interval contains 1 or is not known, so the difference may be chance; or "
            "the machine was disturbed."
        )
    if any(facts.rows[index].saturation_risk for index in full_tables.summary_rows(facts)):
        sentences.append(f"{figures.AT_RISK}: products of 8-bit weights can saturate on this processor, see below.")
    return " ".join(sentences)


def _floors(facts: Facts, shape: Shape) -> Iterator[str]:
    """Yield a sentence for each baseline on how far it differs from itself, by latency and by processor time."""
    for noise, (ratio, cpu_ratio) in zip(facts.noise, full_tables.noise_ratios(facts)):
        if noise.shape == shape:
            name = "the baseline" if noise.baseline is None else f"row {noise.baseline}"
            yield f"Timed twice, {name} against itself is {ratio} by latency and {cpu_ratio} by processor time."


def _overview(facts: Facts) -> str:
    """Return a sentence on what was compared, on which data, and one on the machine, the versions and the day."""
    varied = ", ".join(code_span(name) for name in facts.benchmarked)
    compared = f"{pluralize(len(facts.rows), 'configuration')} of {varied or 'one model'}"
    if _data_name(facts) and facts.data is not None:
        split = f", split {code_span(facts.data.split)}" if facts.data.split else ""
        count = f"{pluralize(facts.data.samples, 'sample')} of " if facts.data.samples is not None else ""
        compared += f", evaluated on {count}{escape(_data_name(facts))}{split}"
    threads, versions = facts.environment.get("threads"), facts.environment.get("versions")
    known = versions if isinstance(versions, dict) else {}
    how = [pluralize(threads, "thread")] if isinstance(threads, int) else []
    how += [code_span(f"{name} {write_value(known[name])}") for name in _LIBRARIES if known.get(name)]
    how += [day] if (day := _day(facts.run.get("created"))) else []
    on = f" on {code_span(facts.processors)}" if facts.processors else ""
    if on and isinstance(gpu := facts.environment.get("gpu"), str):
        on += f" and {code_span(gpu)}"
    measured = f" Measured{on}{' with ' if how else ''}{', '.join(how)}." if on or how else ""
    return f"{compared}.{measured}"


def _compared(facts: Facts) -> list[str]:
    data = asdict(facts.data) if facts.data is not None else {}
    return [
        "  \n".join(classic.labels(facts)),
        _bullets(DATA_TITLE, {name: value for name, value in data.items() if value is not None and value is not False}),
        _bullets(classic.FIXED_TITLE, {**facts.fixed, **reproduce.dataset_of(facts)}) or classic.FIXED_TITLE,
        classic.benchmarked(facts).rstrip("\n"),
        _metrics(facts),
        _bullets(SETTINGS_TITLE, facts.settings),
    ]


def _metrics(facts: Facts) -> str:
    """Return the definitions and directions of the metrics; an empty string where none is known."""
    directions = {None: "", True: HIGHER, False: LOWER}
    lines = []
    for metric in (*facts.metrics, *facts.comparisons):
        parts = [_one_line(metric.definition), directions[metric.higher_is_better]]
        if any(parts):
            lines.append(f"* **{escape(metric.name)}**: {'; '.join(filter(None, parts))}")
    return "\n".join([METRICS_TITLE, *lines]) if lines else ""


def _evaluation(facts: Facts) -> list[str]:
    every = pluralize(len(facts.rows), "configuration")
    parts = [_fold(f"Quality of {every}", QUALITY_TITLE, full_tables.quality(facts))]
    if facts.comparisons:
        table = full_tables.comparisons(facts)
        parts.append(_fold(f"Fidelity of {every} to the baseline", COMPARISON_TITLE, table))
    if facts.shapes:
        times = []
        if facts.duration_s is not None:
            precision, until = facts.settings.get("precision"), ""
            if isinstance(precision, (int, float)):
                until = (
                    " on average, at most: each was timed until the 95 % interval of its ratio was within "
                    f"{100 * precision:.3g} % of the ratio, or the time was up"
                )
            times.append(f"Time benchmarks were run for {classic.seconds(facts.duration_s)} per config{until}.")
        if disturbed := [format_shape(each) for each in facts.shapes if full_tables.leads_with_cpu(facts, each)]:
            at = " and at ".join(disturbed)
            times.append(f"The machine was disturbed at {at}: the ratio of processor time comes first there.")
        cpu_times = []
        for shape in facts.shapes:
            times += [classic.time_heading(shape), full_tables.time(facts, shape)]
            if table := full_tables.processor_time(facts, shape):
                cpu_times += [classic.time_heading(shape, "processor time"), table]
        parts.append(_fold(f"Time of {every}", *times))
        if cpu_times:
            parts.append(_fold(f"Processor time of {every}", CPU_EXPLANATION, *cpu_times))
    several = len(facts.baselines) > 1
    if facts.noise:
        who = "Each baseline" if several else "The baseline"
        explanation = (
            f"{who} was timed twice, in two separate processes, to see how far the same model differs from itself. "
            "Where it differs by more than chance, or the machine was disturbed, no ratio counts as detectable."
        )
        parts.append(_fold("Noise of the machine", explanation, full_tables.noise(facts)))
    has_counts = any(row.figures.get(full_tables.IN_8_BITS) for row in facts.rows)
    counts = (
        f"`{full_tables.IN_8_BITS}` counts the nodes that the runtime computed in 8 bits. The other quantized nodes "
        "only move data, were fused with a neighbour, or are computed in float32 between conversions."
    )
    if any({**facts.fixed, **row.parameters}.get("quantization_approach") == "weight_only" for row in facts.rows):
        counts += " Nodes of weight-only rows do not count, whatever they compute in."
    parts.append(_fold("8-bit arithmetic on this processor", _int8(facts), counts if has_counts else ""))
    if same := full_tables.same_models(facts):
        once = "Such a model was measured once, so the figures are the same."
        if several:
            once = "Equal evaluations and equal timings were made once."
        equal = f"The model files are equal byte for byte. {once}"
        parts.append(_fold("Rows with the same model", equal, same))
    failed = sum(row.failure is not None for row in facts.rows)
    return [*parts, _fold(pluralize(failed, "failed row"), full_tables.failures(facts)) if failed else ""]


def _fold(heading: str, *parts: str) -> str:
    """Return parts that a reader opens by a click on the heading, which is HTML; nothing where all are empty."""
    content = "\n\n".join(part for part in parts if part)
    return f"<details>\n<summary>{heading}</summary>\n\n{content}\n\n</details>" if content else ""


def _day(created: Plain) -> str:
    """Return the day of a time in ISO format; empty for anything else."""
    try:
        return str(date.fromisoformat(str(created)[:10]))
    except ValueError:
        return ""


def _int8(facts: Facts) -> str:
    int8 = facts.environment.get("int8")
    if not isinstance(int8, dict):
        return ""
    each = [(name, own) for name, own in int8.items() if isinstance(own, dict) and name in facts.machines]
    of_machines = (_int8_of(facts, escape(name), own) for name, own in each)
    return "\n\n".join(of_machines) if each else _int8_of(facts, code_span(facts.processors or "this processor"), int8)


def _int8_of(facts: Facts, processor: str, int8: Mapping[str, Plain]) -> str:
    if "u8s8_saturates" not in int8:
        return ""
    if int8["u8s8_saturates"]:
        rows = [str(index) for index, row in enumerate(facts.rows) if row.saturation_risk]
        at_risk = f" Rows at risk, marked {figures.AT_RISK}: {', '.join(rows)}." if rows else ""
        return (
            f"{processor} has no instruction for dot products of 8-bit numbers. Sums of two products of u8 and s8 "
            "saturate at 16 bits, so models with 8-bit weights can lose accuracy here that they keep on other "
            f"processors; `reduce_range` (7-bit weights) avoids this.{at_risk}"
        )
    return (
        f"{processor} multiplies 8-bit numbers with {code_span(write_value(int8.get('best')))}, which keeps their sums "
        "in 32 bits: no accuracy is lost to saturation here. On an x86 processor without such an instruction the same "
        "files can lose accuracy, unless they were made with `reduce_range`."
    )


def _limitations(facts: Facts) -> list[str]:
    sentences = [
        "Times hold for this machine, these versions and this number of threads. Ratios to the baseline carry over to "
        "other machines better than milliseconds, but neither replaces a measurement there.",
        "Latency is that of one forward call on prepared inputs, without tokenizing or resizing.",
    ]
    if any(shape.phase for shape in facts.shapes):
        sentences.append(_PHASES)
        if facts.environment.get("gpu"):
            sentences.append(_CACHE_ON_GPU)
    if any(disturbance.kind == OTHERS for noise in facts.noise for disturbance in noise.disturbances):
        sentences.append(
            "Other processes used the processors during the timing. They interrupt longer calls more often, so ratios "
            "may be less accurate than their intervals and the noise suggest."
        )
    samples = facts.data.samples if facts.data is not None else None
    if any(row.figures.get(full_tables.SAMPLES) for row in facts.rows):
        on = f"as many samples as the column `{full_tables.SAMPLES}` says"
    else:
        of = " of each split" if len({row.examples for row in facts.rows}) > 1 else " of one split"
        on = f"{pluralize(samples, 'sample')}{of}" if samples is not None else ""
    if on:
        sentences.append(
            f"Quality was measured on {on}; the intervals show what another sample of that size could have given, not "
            "what other data would give."
        )
    if facts.duration_s is not None and facts.shapes and facts.duration_s < _SHORT_DURATION_S:
        only = f"Only {classic.seconds(facts.duration_s)} per configuration and shape"
        sentences.append(f"{only}: small differences cannot be detected.")
    return ["\n".join(f"- {sentence}" for sentence in sentences), _list_sentences(NOTES_TITLE, facts.notes)]


def _how_to_reproduce(facts: Facts, slug: str) -> list[str]:
    versions = facts.environment.get("versions")
    version = versions.get("benchcard") if isinstance(versions, dict) else None
    release = (
        f"benchcard {version}" if isinstance(version, str) and re.fullmatch(r"[\w.+!-]+", version) else "benchcard"
    )
    python = f"```python\n{reproduce.python_call(facts, f'runs/{slug}')}\n```"
    needed = _list_sentences(NEEDED_TITLE, facts.needed)
    if reproduce.variables(facts):
        return [needed, f"In Python, with {release}:", python]
    return [
        needed,
        f"From a shell, with {release}:\n\n```sh\nbenchcard run {slug}.yaml --out runs/{slug}\n```",
        f"`{slug}.yaml` is:\n\n```yaml\n{reproduce.yaml_spec(facts)}\n```",
        f"The same in Python:\n\n{python}",
    ]


def _bullets(heading: str, values: Mapping[str, Plain]) -> str:
    """Return bullets below a heading; an empty string where there are none."""
    lines = "".join(classic.bullet(name, value) for name, value in values.items()).rstrip("\n")
    return "\n".join(part for part in (heading, lines) if part) if lines else ""


def _list_sentences(heading: str, sentences: tuple[str, ...]) -> str:
    """Return sentences as bullets below a heading; an empty string where there are none."""
    return "\n".join([heading, *(f"* {_one_line(sentence)}" for sentence in sentences)]) if sentences else ""


def _one_line(text: str) -> str:
    """Return text as one line that does not begin a block of Markdown."""
    return _BEFORE_BLOCK_MARKER.sub(r"\g<0>\\", escape_prose(text))
