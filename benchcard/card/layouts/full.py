"""The full layout: what to ship and why to believe it first, then every figure behind it.

Owns what stands where in a full card, and its sentences. Leaves tables to `full_tables`, the picture to `plot`, the
call and the spec to `reproduce`, and reading such a card to `read_full`.

The words and the order are those of the classic layout: task, backend, fixed and benchmarked parameters, non-time
metrics, time metrics; what the full layout adds stands around and between them. Nothing is bold but the labels and the
recommended row. Tables of more than ten rows are folded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from benchcard.card.facts import (
    LATENCY_MEAN,
    Data,
    Facts,
    Figure,
    Plain,
    Row,
)
from benchcard.card.layouts import classic, figures, full_tables, reproduce, row_groups
from benchcard.card.layouts.full_tables import DETECTABLE, RATIO, SIZE
from benchcard.card.markdown.inline import code, prose, words, write_value
from benchcard.utils.text import pluralize
from benchcard.utils.values import Shape

ASKED_TITLE = "### What was compared"
DATA_TITLE = "Testing data:"
METRICS_TITLE = "Metrics:"
SETTINGS_TITLE = "Measurement:"
QUALITY_TITLE = "#### Non-time metrics"
TIME_TITLE = "#### Time metrics"
NOISE_TITLE = "#### How quiet the machine was"
SAME_TITLE = "#### Rows that are the same model"
FAILED_TITLE = "#### Rows without figures"
ENVIRONMENT_TITLE = "### Environment"
RUN_TITLE = "Run:"
LIMITATIONS_TITLE = "### Limitations"
NOTES_TITLE = "Of this run:"
REASONS_TITLE, REASONS_TITLES = "Why this row:", "Why these rows:"
_BUSY = "others used the processors"  # as the noise certificate says it
UNFINISHED = "**This run is not finished**, with "
HIGHER, LOWER = "higher is better", "lower is better"
_OPENS_A_BLOCK = re.compile(r"[-+#>=~]|\d+[.)]")


def body(facts: Facts, *, plot: str | None = None, slug: str = "benchmark") -> str:
    """The card without its front matter, beginning with a heading of the second level.

    Args:
        facts: what it shows.
        plot: path of the picture in the repository; None where there is none.
        slug: name of the run in the commands that repeat it.
    """
    names = full_tables.labels(facts)
    parts = [f"## {words(facts.title or title(facts))}", _unfinished(facts), _result(facts, names)]
    if facts.rows:
        parts += [full_tables.summary(facts), _legend(facts)]
    if plot is not None:
        parts.append(f"![{alt_text(facts)}]({plot})")
    if facts.reasons:
        several = len(row_groups.recommended(facts)) > 1
        parts.append(_lines(REASONS_TITLES if several else REASONS_TITLE, facts.reasons))
    parts += [ASKED_TITLE, *_asked(facts), "### Evaluation", *_evaluation(facts)]
    parts += [*_environment(facts), LIMITATIONS_TITLE, *_limitations(facts), *_again(facts, slug)]
    return "\n\n".join(part for part in parts if part) + "\n"


def title(facts: Facts) -> str:
    """The heading where the facts give none."""
    model = facts.fixed.get("name_or_path")
    of = f" with {model.removeprefix('./')}" if isinstance(model, str) else ""
    several = any(len(facts.benchmarked.get(name, ())) > 1 for name in ("dataset", "dataset.path"))
    on = f" on {facts.data.dataset.removeprefix('./')}" if facts.data is not None and not several else ""
    return " ".join(f"Benchmark: {facts.task}{of}{on}".split())


def alt_text(facts: Facts) -> str:
    """The picture in words: the figures of every row of the summary."""
    if not facts.shapes or not facts.metrics:
        return ""
    metric, shape = facts.metrics[0].name, facts.shapes[0]
    told = []
    for index in full_tables.summary_rows(facts):
        row = facts.rows[index]
        value, latency = row.metrics.get(metric), row.times.get(shape, {}).get(LATENCY_MEAN)
        if value is not None and latency is not None:
            role = ", ".join(full_tables.roles(facts, index))
            named = f"row {index} ({role})" if role else f"row {index}"
            told.append(
                f"{named} {_metric(facts, row, metric, _places(facts, metric))} at {_latency(facts, latency, shape)}"
            )
    return words(f"{metric} against mean latency at {_shape(shape)}: {'; '.join(told)}")


def _result(facts: Facts, names: list[str]) -> str:
    """What to ship, in one sentence with its figures; of several baselines one each."""
    chosen, bases = row_groups.recommended(facts), row_groups.baselines(facts)
    if len(bases) < 2:
        return _sentence(facts, names, facts.chosen, facts.baseline)
    by_baseline = {row_groups.baseline_of(facts, place): place for place in chosen}
    said = [f"* {_sentence(facts, names, by_baseline.get(base), base)}" for base in bases]
    return "\n".join([f"There are {len(bases)} baselines, and each row is compared with its own:", "", *said])


def _sentence(facts: Facts, names: list[str], chosen: int | None, base: int | None) -> str:
    """What to ship of the rows of one baseline."""
    if chosen is None:
        beside = f" beside row {base}" if len(row_groups.baselines(facts)) > 1 else ""
        return f"**There is nothing to recommend{beside}:** no row has all the figures that a choice needs."
    row, name = facts.rows[chosen], words(names[chosen])
    metrics = [metric.name for metric in facts.metrics[:1] if row.metrics.get(metric.name)]
    places = (
        figures.decimals([each.metrics.get(metrics[0]) for each in facts.rows], figures.of_quality) if metrics else 0
    )
    baseline = facts.rows[base] if base is not None else None
    if chosen == base or baseline is None:
        said = [f"{words(metrics[0])} {_metric(facts, row, metrics[0], places)}"] if metrics else []
        if facts.shapes and (latency := row.times.get(facts.shapes[0], {}).get(LATENCY_MEAN)) is not None:
            said.append(f"mean latency {_latency(facts, latency, facts.shapes[0])}")
        return "; ".join([_not_better(facts, chosen, base, name), *said]) + "."
    said = []
    if facts.shapes:
        times = row.times.get(facts.shapes[0], {})
        ratio, latency = times.get(RATIO), times.get(LATENCY_MEAN)
        before = baseline.times.get(facts.shapes[0], {}).get(LATENCY_MEAN)
        if ratio is not None and (found := times.get(DETECTABLE)) is not None and not found.value:
            said.append("its speed cannot be told from the baseline's")
        elif ratio is not None:
            said.append(f"**{_ratio(facts, ratio, facts.shapes[0])} times as fast** as the unquantized model")
        if latency is not None and before is not None:
            ours, theirs = (_latency(facts, each, facts.shapes[0], bare=True) for each in (latency, before))
            said.append(f"{ours} instead of {theirs} ms at {_shape(facts.shapes[0])}")
    for metric in metrics:
        against = f", the unquantized model's {_metric(facts, baseline, metric, places)}"
        known = baseline.metrics.get(metric) is not None
        said.append(f"{words(metric)} {_metric(facts, row, metric, places)}{against if known else ''}")
    sizes = [each.figures.get(SIZE) for each in (row, baseline)]
    if all(size is not None for size in sizes):
        places = figures.decimals([each.figures.get(SIZE) for each in facts.rows])
        ours, theirs = (figures.format_figure(size, places) for size in sizes if size is not None)
        said.append(f"{ours} instead of {theirs} MB")
    return f"**Ship row {chosen}{_for_now(facts)}** ({name}): " + "; ".join(said) + "."


def _unfinished(facts: Facts) -> str:
    """That the figures of some rows are still to come; empty where none are."""
    if facts.done is None:
        return ""
    done = f"{facts.done} of {pluralize(len(facts.rows), 'configuration')} done"
    return f"{UNFINISHED}{done}: `benchcard run` goes on with the others, and what stands here may change."


def _for_now(facts: Facts) -> str:
    return "" if facts.done is None else ", for now"


def _not_better(facts: Facts, chosen: int, base: int | None, name: str) -> str:
    """Which row to ship where none was found to be better than another, and why."""
    if len(facts.rows) == 1 and facts.done is None:
        return f"**There is one configuration, row {chosen}** ({name}), and nothing to compare it with"
    if base is None:
        return f"**Ship row {chosen}{_for_now(facts)}** ({name}); there is no unquantized baseline to compare with"
    others = [
        index for index in range(len(facts.rows)) if index != base and row_groups.baseline_of(facts, index) == base
    ]
    if facts.done is not None:
        why = "the run is not finished"
    elif not others:
        why = "no other row is compared with it"
    elif not _have(facts, range(len(facts.rows)), LATENCY_MEAN):
        why = "nothing was timed"
    elif not _have(facts, others, RATIO):
        why = "no other row was timed beside it"
    else:
        why = "no variant is both detectably faster and good enough"
    return f"**Keep the baseline, row {chosen}{_for_now(facts)}** ({name}): {why}"


def _have(facts: Facts, rows: Iterable[int], key: str) -> bool:
    """Whether any of these rows has a figure of time."""
    return any(facts.rows[row].times.get(shape, {}).get(key) for row in rows for shape in facts.shapes)


def _places(facts: Facts, metric: str) -> int:
    return figures.decimals([row.metrics.get(metric) for row in facts.rows], figures.of_quality)


def _metric(facts: Facts, row: Row, metric: str, places: int) -> str:
    figure = row.metrics.get(metric)
    return figures.MISSING if figure is None else figures.format_figure(figure, places)


def _latency(facts: Facts, figure: Figure, shape: Shape, *, bare: bool = False) -> str:
    places = figures.decimals([row.times.get(shape, {}).get(LATENCY_MEAN) for row in facts.rows])
    return (
        figures.format_figure(Figure(figure.value), places) if bare else f"{figures.format_figure(figure, places)} ms"
    )


def _ratio(facts: Facts, figure: Figure, shape: Shape) -> str:
    rule = full_tables.rule_of(RATIO)
    return figures.format_figure(
        figure, figures.decimals([row.times.get(shape, {}).get(RATIO) for row in facts.rows], rule)
    )


def _shape(shape: Shape) -> str:
    length = "" if shape.input_length is None else f", input length {shape.input_length}"
    return f"batch size {shape.batch_size}{length}"


def _legend(facts: Facts) -> str:
    at = f" Times are at {_shape(facts.shapes[0])}." if facts.shapes else ""
    told, bases = [f"In brackets: 95 % intervals.{at}"], row_groups.baselines(facts)
    if any(row.figures.get("predictions_changed") or row.metrics for row in facts.rows) and facts.pareto:
        of = " of the same examples" if row_groups.evaluated_apart(facts) else ""
        told.append(f"*Pareto*: no other row{of} is both better and faster.")
    if any(
        (found := row.times.get(shape, {}).get(DETECTABLE)) is not None and not found.value
        for index, row in enumerate(facts.rows)
        for shape in facts.shapes
        if index not in bases
    ):
        told.append(
            f"*{figures.NOT_DETECTABLE}*: its interval holds 1, or it is no further from 1 than the same model, timed "
            "twice, is from itself."
        )
    if any(facts.rows[index].saturation_risk for index in full_tables.summary_rows(facts)):
        told.append(f"{figures.AT_RISK}: products of 8-bit weights can saturate on this processor, see below.")
    return " ".join(told)


def _asked(facts: Facts) -> list[str]:
    labels = (
        f"**task**: {code(write_value(facts.task))}  \n"
        f"**Backend:** {code(write_value(facts.backend))}  \n"
        f"**Backend args:** {code(write_value(facts.backend_args))}  \n"
        f"**Number of evaluation samples:** {code(classic.samples(facts))}"
    )
    benchmarked = "".join(
        f"* **{words(name)}**: {classic.listed(values)}\n" for name, values in facts.benchmarked.items()
    )
    metrics = "".join(
        f"* **{words(metric.name)}**: {_reading(metric.definition, metric.higher_is_better)}\n"
        for metric in facts.metrics
        if metric.definition or metric.higher_is_better is not None
    )
    return [
        labels,
        _bullets(DATA_TITLE, _data(facts.data)) if facts.data is not None else "",
        _bullets(classic.FIXED_TITLE, facts.fixed) or classic.FIXED_TITLE,
        f"{classic.BENCHMARKED_TITLE}\n{benchmarked}".rstrip("\n"),
        f"{METRICS_TITLE}\n{metrics}".rstrip("\n") if metrics else "",
        _bullets(SETTINGS_TITLE, facts.settings),
    ]


def _data(data: Data) -> dict[str, Plain]:
    told: dict[str, Plain] = {"dataset": data.dataset, "config": data.config, "split": data.split}
    told |= {"revision": data.revision, "samples": data.samples}
    return {**{name: value for name, value in told.items() if value is not None}, "on_hub": data.on_hub}


def _reading(definition: str, higher_is_better: bool | None) -> str:
    direction = "" if higher_is_better is None else HIGHER if higher_is_better else LOWER
    return "; ".join(part for part in (_line(definition), direction) if part)


def _evaluation(facts: Facts) -> list[str]:
    parts = [QUALITY_TITLE, _folded(f"All {len(facts.rows)} configurations", full_tables.quality(facts), facts)]
    if facts.shapes:
        spent = "" if facts.duration_s is None else f"Time benchmarks were run for {classic.seconds(facts.duration_s)}"
        parts += [TIME_TITLE, f"{spent} per config{_until(facts)}." if spent else ""]
    for shape in facts.shapes:
        length = "" if shape.input_length is None else f", input length = {shape.input_length}"
        above = f"Below, time metrics for batch size = {shape.batch_size}{length}."
        parts.append(_folded(above, full_tables.time(facts, shape), facts, always_say=True))
    if facts.noise:
        who = "Each baseline" if len(row_groups.baselines(facts)) > 1 else "The baseline"
        said = (
            f"{who} ran twice, as two processes that did not know of each other; this is what the same model "
            "differs from itself by. A ratio counts as detectable only where it is further from 1 than that."
        )
        parts += [NOISE_TITLE, said, full_tables.noise(facts)]
    int8 = [part for part in (_int8(facts), _nodes(facts)) if part]
    parts += ["#### 8-bit arithmetic on this processor", *int8] if int8 else []
    same = full_tables.same_models(facts)
    if same:
        said = "measured once, so their figures are the same."
        if len(row_groups.baselines(facts)) > 1:
            said = "what is evaluated on the same examples, or timed alike, is measured once."
        parts += [SAME_TITLE, f"Byte for byte; {said}", same]
    failed = full_tables.failures(facts)
    return [*parts, FAILED_TITLE, failed] if failed else parts


def _until(facts: Facts) -> str:
    """That `precision` shared out the time, where it was asked for."""
    sought = facts.settings.get("precision")
    if not isinstance(sought, (int, float)):
        return ""
    return (
        " on average, at the most: each was timed until the 95 % interval of its ratio reached no further than "
        f"{100 * sought:.3g} % of it on either side, or the time was up"
    )


def _folded(above: str, table: str, facts: Facts, *, always_say: bool = False) -> str:
    if len(facts.rows) <= full_tables.SUMMARY_ROWS:
        return f"{above}\n\n{table}" if always_say else table
    return f"<details>\n<summary>{above}</summary>\n\n{table}\n\n</details>"


def _int8(facts: Facts) -> str:
    """What the processor of the run does to int8 products; empty where that is not known."""
    here = facts.environment.get("int8")
    if not isinstance(here, Mapping) or "u8s8_saturates" not in here:
        return ""
    processor = code(write_value(facts.environment.get("processor") or "this processor"))
    if here["u8s8_saturates"]:
        risky = [str(index) for index, row in enumerate(facts.rows) if row.saturation_risk]
        listed = f" Rows at risk, marked {figures.AT_RISK}: {', '.join(risky)}." if risky else ""
        return (
            f"{processor} has no instruction for dot products of 8-bit numbers. Sums of two products of u8 and s8 are "
            "cut to 16 bits, so models with 8-bit weights can lose accuracy here that they keep elsewhere; "
            f"`reduce_range` (7-bit weights) avoids it.{listed}"
        )
    best = code(write_value(here.get("best")))
    return (
        f"{processor} multiplies 8-bit numbers with {best}, which keeps their sums in 32 bits: no accuracy is lost to "
        "saturation here. On an x86 processor without such an instruction the same files can lose accuracy, unless "
        "they were made with `reduce_range`."
    )


def _nodes(facts: Facts) -> str:
    """What the counts of nodes are; empty where no row has them."""
    if not any(row.figures.get(full_tables.IN_8_BITS) for row in facts.rows):
        return ""
    return (
        f"`{full_tables.IN_8_BITS}` counts what the runtime really computed in 8 bits. The other quantized nodes only "
        "move numbers, were joined with a neighbour, or are computed in float32 between conversions."
    )


def _environment(facts: Facts) -> list[str]:
    parts = [_bullets("", facts.environment), _bullets(RUN_TITLE, facts.run)]
    return [ENVIRONMENT_TITLE, *parts] if any(parts) else []


def _limitations(facts: Facts) -> list[str]:
    said = [
        "Times belong to this machine, these versions and these threads; the ratio to the baseline travels better than "
        "milliseconds, and neither replaces a measurement where the model will run.",
        "A latency is that of one forward call on prepared inputs: tokenizing or resizing is not in it.",
    ]
    if any(_BUSY in warning for each in facts.noise for warning in each.warnings):
        said.append(
            "Other work used the processors while this was timed. It interrupts longer calls more often, so ratios of "
            "models of different speed may be further off than intervals, and the baseline against itself, say."
        )
    samples = facts.data.samples if facts.data is not None else None
    if any(row.figures.get(full_tables.SAMPLES) for row in facts.rows):
        on = f"as many samples as the column `{full_tables.SAMPLES}` says"
    else:
        of = " of each split" if row_groups.evaluated_apart(facts) else " of one split"
        on = f"{pluralize(samples, 'sample')}{of}" if samples is not None else ""
    if on:
        said.append(
            f"Quality was measured on {on}; intervals say what another sample of that size could have shown, not what "
            "other data would."
        )
    if facts.duration_s is not None and facts.shapes and facts.duration_s < 10:
        only = f"Only {classic.seconds(facts.duration_s)} per configuration and shape"
        said.append(f"{only}: small differences cannot be seen.")
    return ["\n".join(f"- {sentence}" for sentence in said), _lines(NOTES_TITLE, facts.notes) if facts.notes else ""]


def _again(facts: Facts, slug: str) -> list[str]:
    version = _version(facts)
    shell = f"pip install benchcard{version}\nbenchcard run {slug}.yaml --out runs/{slug}"
    return [
        "### How to reproduce it",
        f"In Python:\n\n```python\n{reproduce.call(facts, f'runs/{slug}')}\n```",
        f"From a shell, with the spec below as `{slug}.yaml`:\n\n```sh\n{shell}\n```",
        f"<details>\n<summary>{slug}.yaml</summary>\n\n```yaml\n{reproduce.yaml(facts)}\n```\n\n</details>",
    ]


def _version(facts: Facts) -> str:
    versions = facts.environment.get("versions")
    found = versions.get("benchcard") if isinstance(versions, Mapping) else None
    return f"=={found}" if isinstance(found, str) and re.fullmatch(r"[\w.+!-]+", found) else ""


def _bullets(heading: str, values: Mapping[str, Plain]) -> str:
    """Bullets under a line; empty where there are none."""
    lines = "".join(classic.bullet(name, value) for name, value in values.items()).rstrip("\n")
    return "\n".join(part for part in (heading, lines) if part) if lines else ""


def _lines(heading: str, sentences: tuple[str, ...]) -> str:
    return "\n".join([heading, *(f"* {_line(sentence)}" for sentence in sentences)])


def _line(text: str) -> str:
    """Words of which the first opens no block of Markdown."""
    line = prose(text)
    match = _OPENS_A_BLOCK.match(line)
    return f"{line[: match.end() - 1]}\\{line[match.end() - 1 :]}" if match else line
