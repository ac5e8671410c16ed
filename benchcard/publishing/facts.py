"""The facts of a run's card, made from its results: everything that a layout shows.

This module stands between `analysis` and `card`, which do not know each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from benchcard.analysis import metric_info, row_facts
from benchcard.analysis.frames.columns import row_parameters
from benchcard.analysis.frames.models import model_columns
from benchcard.analysis.frames.noise import certificates
from benchcard.analysis.frames.quality import PASS_METRICS
from benchcard.analysis.gains import Gain, unfinished_rows
from benchcard.analysis.public_names import public_message, public_name, public_parameter
from benchcard.analysis.reasons import explain_search
from benchcard.analysis.records import Records
from benchcard.analysis.row_facts import RowQuality, recovery, row_quality
from benchcard.analysis.run_results import RunResults
from benchcard.analysis.times import TimeFigures, prices, row_times
from benchcard.card.facts import Data, Facts, Figures, FrontMatter, Metric, Noise, Plain, Row, figure
from benchcard.card.frontmatter import fields
from benchcard.card.frontmatter.hubterms import LICENSES
from benchcard.card.frontmatter.merge import OWN_SOURCE
from benchcard.card.layouts import reproduce
from benchcard.card.layouts.figures import format_shape
from benchcard.card.layouts.full_tables import (
    BITS,
    CHANGED,
    CPU_RATIO,
    DETECTABLE,
    MEMORY_SAVED,
    NODES,
    RATIO,
    SAMPLES,
    SIZE,
    SIZE_SAVED,
)
from benchcard.metrics.info import COMPARISONS, RECOVERY, FidelityLimit, shown_unit
from benchcard.run.record import Record
from benchcard.sources.resolve import Source
from benchcard.spec.parameters import BACKEND_ARGUMENTS, PARAMETERS, split_name
from benchcard.utils.plain import as_plain
from benchcard.utils.text import machine_name, pluralize
from benchcard.utils.values import MEMORY_PREFIX, Failure, Interval, Shape

_IN_MEMORY = "data in memory"
# The intervals of a run that is worth publishing are narrower than a twentieth of a latency.
_MUCH_DRIFT = 0.05

# An interval whose bounds are further apart says nothing, as that of two launches.
_LARGEST_FACTOR = 100
_DIVERGENCE = "Kullback-Leibler divergence of the model's probabilities from the baseline's"
_PREDICTIONS = "the number of predictions (of words, in token classification) that are"
_DEFINITIONS = {
    "kl_mean": f"the mean {_DIVERGENCE}",
    "kl_median": f"the median {_DIVERGENCE}",
    "kl_p99": f"the 99th percentile of the {_DIVERGENCE}",
    "kl_max": f"the largest {_DIVERGENCE}",
    "rms_difference": "the root of the mean squared difference from the baseline's numbers",
    "cosine_mean": "the mean cosine of the model's embeddings and the baseline's",
    "cosine_p1": "the first percentile of the cosines of the model's embeddings and the baseline's",
    "neighbor_overlap": "the share of the ten nearest texts by the baseline that the model has among its ten",
    "iou_mean": "the mean overlap (intersection over union) of the boxes that both models detect",
    "agreement": "the share of predictions (of boxes, in object detection) that equal the baseline's",
    "lost": f"{_PREDICTIONS} right for the baseline and wrong for this row",
    "gained": f"{_PREDICTIONS} wrong for the baseline and right for this row",
    "swapped": f"{_PREDICTIONS} wrong for both, and differ",
    RECOVERY: "the first metric in % of the baseline's",
}
_INDEX = "where its queries search the baseline's embeddings of documents"
_GAIN = "normalized discounted cumulative gain (nDCG) of the first ten documents"
_RECALL = "of all relevant documents of a query, the share that is among the first"
_METRIC_DEFINITIONS = {
    "ndcg_at_10": _GAIN,
    "mrr_at_10": "1 / the rank of the first relevant document, 0 where none is among the first ten",
    "recall_at_10": f"{_RECALL} ten",
    "recall_at_100": f"{_RECALL} 100",
    "float_index_ndcg_at_10": f"{_GAIN} {_INDEX}",
    "float_index_recall_at_10": f"{_RECALL} ten {_INDEX}",
    "float_top_10_recall": "of the baseline's first ten documents, the share that is among the row's first ten "
    f"{_INDEX}",
    "map": "the mean average precision of boxes, over labels and overlaps with objects (IoU) of 0.50 to 0.95 at least",
}
# The Hub knows models of these tasks by another name: it has the first for data sets alone, and not the second. A
# package's own task keeps its name, so that its card is the same where the package is not installed.
# Source: `hideInModels` in huggingface.js, packages/tasks/src/pipelines.ts.
TAGS_OF_MODELS = {"text-retrieval": "sentence-similarity", "lm-eval": "text-generation"}

_Times: TypeAlias = Mapping[Shape, TimeFigures | Failure | None]
"""The times of a row by shape, or why there are none; None where the spec asks for no timing."""


def make_facts(
    results: RunResults, max_drop: float | None = None, section: str | None = None, fidelity: FidelityLimit = None
) -> Facts:
    """Return the facts of a run's card, with absolute paths of this machine replaced by their last names.

    `max_drop` is how much of the first metric the row to ship may lose, `fidelity` how far its outputs may be from the
    baseline's, and `section` the name of the card's section; None for the defaults.
    """
    spec, plan, records = results.spec, results.plan, results.records
    times = [dict(row_times(records, record)) for record in records.records]
    choices = results.choices(max_drop, fidelity)
    chosen = [choice.row for choice in choices]
    # Of several models or data sets the cheapest row would be that of one.
    cheapest = results.cheapest(max_drop, fidelity) if results.machine_baselines == results.baselines else None
    unmeasured, rows = unfinished_rows(records), _rows(results, times)
    facts = Facts(
        task=spec.task,
        backend=spec.get("backend"),
        backend_args=spec.shown_arguments(spec.get(BACKEND_ARGUMENTS)),
        max_eval_samples=spec.get("max_eval_samples"),
        fixed=_fixed(results),
        benchmarked=_benchmarked(results) if spec.grid else {"framework": [plan[0]["framework"]]},
        metrics=_metrics(results),
        shapes=_shapes(times),
        duration_s=None if "duration" in spec.grid else spec.get("duration"),
        rows=rows,
        comparisons=_comparisons(rows),
        front_matter=_front_matter(results),
        data=_data(results, next((row for row in chosen if row is not None), 0)),
        baseline=results.baseline,
        chosen=chosen[0],
        further=tuple(row for row in chosen[1:] if row is not None),
        cheapest=cheapest.row if cheapest else None,
        reasons=tuple(
            choice.reason if len(choices) == 1 else f"row {choice.row}, {choice.reason}"
            for choice in choices
            if choice.row is not None
        ),
        pareto=tuple(sorted(results.pareto()["row"])) if results.metrics and any(times) else (),
        settings=_settings(results),
        noise=_noise(results),
        environment=_environment(results),
        run={"id": spec.digest[:12], "created": records.info.created},
        done=len(plan) - len(unmeasured) if unmeasured else None,
        notes=(
            *results.notes,
            *_search_notes(records),
            *_untimed_notes(records),
            *_floor_notes(results),
            *_drift_notes(times),
        ),
    )
    front_matter = replace(facts.front_matter, model_index=_model_index(results, facts, section))
    return replace(facts, front_matter=front_matter, needed=tuple(_needed(results, reproduce.variables(facts))))


def default_slug(results: RunResults) -> str:
    """Return the name of a run's section: its data set and the first digits of the spec's digest, `beans-2f2e1580`.

    Data in memory without a name have that of the task.
    """
    dataset, task = results.plan[0]["dataset"], results.spec.task
    source = results.records.info.sources.dataset(dataset)
    name = _data_name(results, dataset) if source.local else source.name.rstrip("/").rsplit("/", 1)[-1]
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", task if name == _IN_MEMORY else name).strip("-._") or task
    # A slug may have no more than 100 characters; see `card.readme`.
    return f"{clean[:80]}-{results.spec.digest[:8]}"


def _data_name(results: RunResults, dataset: Mapping[str, Any]) -> str:
    """Return the name of local data: the given one, or else that of their path."""
    if dataset.get("name"):
        return str(dataset["name"])
    path = dataset["path"]
    return _IN_MEMORY if path.startswith(MEMORY_PREFIX) else public_name(results.records, "datasets", path)


def _needed(results: RunResults, variables: Mapping[str, str]) -> Iterator[str]:
    """Yield a phrase for each model, data set and metric script that is not on the Hub, and that a reader must bring.

    `variables` are the names of data in memory in the Python call of the card.
    """
    records = results.records
    for source in records.info.sources.models.values():
        if source.local:
            yield f"the model `{public_name(records, 'models', source.name)}`, SHA-256 {source.digest[:12]}…"
    datasets = {records.info.sources.dataset(row["dataset"]).name: row["dataset"] for row in results.plan}
    for dataset in datasets.values():
        source = records.info.sources.dataset(dataset)
        columns = [*(dataset.get("data_keys") or {}).values(), *(dataset.get("ref_keys") or [])]
        named = ", ".join(f"`{column}`" for column in columns if column)
        rows = f"with the columns {named}, " if named else ""
        if source.name in variables:
            name = f" ({dataset['name']})" if dataset.get("name") else ""
            kind = f"the data `{variables[source.name]}`{name}, a `datasets.DatasetDict` or data frames by split"
            yield f"{kind} {rows}SHA-256 {source.digest[:12]}…"
        elif source.local:
            name = public_name(records, "datasets", source.name)
            yield f"the data `{name}` {rows}SHA-256 {source.digest[:12]}…"
    for name in records.info.sources.metrics:
        yield f"the metric script `{public_name(records, 'metrics', name)}`"


def _model_index(results: RunResults, facts: Facts, section: str | None) -> tuple[dict[str, Plain], ...]:
    """Return the chosen row and the baseline as the Hub's `model-index`, with the section in the name of the source.

    It is empty where model or data are not on the Hub, or where rows were evaluated on different examples: the Hub
    would show the figures of some as those of others.
    """
    # A base model that the spec names is not the model that was measured.
    base_model = None if results.spec.get("base_model") else facts.front_matter.base_model
    evaluations = {row.evaluation_key for row in results.plan}
    if facts.data is None or not facts.data.on_hub or base_model is None or len(evaluations) > 1:
        return ()
    source_name = f"{OWN_SOURCE} {section or default_slug(results)}"
    url, name = "https://pypi.org/project/benchcard/", facts.fixed.get("model_name", base_model.rsplit("/", 1)[-1])
    return fields.model_index(facts, name=name, source_name=source_name, source_url=url)


def _benchmarked(results: RunResults) -> dict[str, list[Plain]]:
    """Return the benchmarked parameters; arguments that are given for each framework become one list."""
    benchmarked: dict[str, list[Plain]] = {}
    for name, entries in results.spec.grid.items():
        lists = entries.values() if isinstance(entries, Mapping) else [entries]
        if name == BACKEND_ARGUMENTS:
            lists = [[results.spec.shown_arguments(arguments) for arguments in entries]]
        values = [public_parameter(results.records, name, value) for values in lists for value in values]
        benchmarked[name] = [value for index, value in enumerate(values) if value not in values[:index]]
    return benchmarked


def _fixed(results: RunResults) -> dict[str, Plain]:
    """Return the fixed parameters that a card lists, without unused ones and settings, in the vocabulary's order."""
    parameters, order = {"from_transformers": True, **results.spec.fixed}, list(PARAMETERS)
    fixed: dict[str, Plain] = {}
    for name in sorted(parameters, key=lambda name: order.index(split_name(name)[0])):
        parameter, value = split_name(name)[0], parameters[name]
        is_unused = value is not None and all(row[parameter] is None for row in results.plan)
        if not PARAMETERS[parameter].setting and not is_unused and name not in results.spec.grid:
            value = public_parameter(results.records, name, value)
            # The classic layout shows the data set on one line, as a list of one.
            fixed[name] = [value] if name == "dataset" else value
    return fixed


def _settings(results: RunResults) -> dict[str, Plain]:
    """Return the settings of the measurement that the spec gives, without those that a card shows elsewhere."""
    elsewhere = ("backend", BACKEND_ARGUMENTS, "max_eval_samples")
    return {
        name: public_parameter(results.records, name, value)
        for name, value in results.spec.fixed.items()
        if PARAMETERS[split_name(name)[0]].setting and split_name(name)[0] not in elsewhere
    }


def _metrics(results: RunResults) -> tuple[Metric, ...]:
    metrics = []
    for name in results.metrics:
        info = metric_info.info_of_metric(results.records, name)
        unit, positive = info.unit or "", " or ".join(metric_info.positive_classes(results.records, name))
        definition = [_METRIC_DEFINITIONS[name]] if name in _METRIC_DEFINITIONS else []
        definition += [{"share": "a share, from 0 to 1", "%": "in %, from 0 to 100"}.get(unit, unit)] if unit else []
        definition += [f"the positive class is {positive}"] if positive else []
        metrics.append(Metric(name, "", info.higher_is_better, ", ".join(definition), positive))
    return tuple(metrics)


def _comparisons(rows: Sequence[Row]) -> tuple[Metric, ...]:
    """Return the figures that compare rows with their baseline, as far as any row has them; the leading one first."""
    return tuple(
        Metric(name, shown_unit(info), info.higher_is_better, _DEFINITIONS[name])
        for name, info in COMPARISONS.items()
        if any(name in row.figures for row in rows)
    )


def _shapes(times: Sequence[_Times]) -> tuple[Shape, ...]:
    """Return the shapes to time; first those that some row was timed at, since the summary shows the first one."""
    requested = dict.fromkeys(shape for row in times for shape, figures in row.items() if figures is not None)
    timed = {shape for row in times for shape, figures in row.items() if isinstance(figures, TimeFigures)}
    return tuple(sorted(requested, key=lambda shape: shape not in timed))


def _rows(results: RunResults, times: Sequence[_Times]) -> tuple[Row, ...]:
    records, rows = results.records, []
    evaluated = [(record.outcomes.prepare, record.outcomes.evaluate) for record in records.records]
    samples = [rows.values.samples if rows and done and done.values.items else None for rows, done in evaluated]
    is_varied = len({*samples} - {None}) > 1
    gains = results.gains("latency").by_row
    for record, count, shapes in zip(records.records, samples, times):
        qualities = {name: row_quality(records, record, name) for name in results.metrics}
        model = model_columns(records, record)
        failure = record.failures.of_quality()
        parameters = {name: public_parameter(records, name, value) for name, value in row_parameters(record).items()}
        compared = {gain.shape: gain for gain in gains.get(record.configuration.row, ())}
        rows.append(
            Row(
                parameters=parameters,
                metrics={name: _finite(quality.figure) for name, quality in qualities.items()},
                times={
                    shape: _time_figures(time, compared.get(shape))
                    for shape, time in shapes.items()
                    if isinstance(time, TimeFigures)
                },
                figures=_figures(records, record, qualities, model, count if is_varied else None),
                failure=failure and replace(failure, message=public_message(records, failure.message)),
                same_model_as=model["same_model_as"],
                reasons=(model["reason"],) if model["reason"] else (),
                saturation_risk=model["saturation_risk"],
                baseline=record.configuration.baseline if len(results.baselines) > 1 else None,
            )
        )
    return tuple(rows)


def _time_figures(time: TimeFigures, gain: Gain | None) -> Figures:
    """Return the figures of time, with the intervals of the ratios that hold for all rows at once."""
    ratio = gain.ratio if gain else None
    detectable = None if gain is None or ratio is None else ratio.excludes(1.0) and not gain.doubt
    return {
        **{name: _precise(interval) for name, interval in time.intervals.items()},
        RATIO: _precise(ratio),
        CPU_RATIO: _precise(gain.cpu_ratio) if gain else None,
        DETECTABLE: figure(detectable),
        "memory_mb": figure(time.memory_mb),
        MEMORY_SAVED: figure(time.memory_saved),
        "device_memory_mb": figure(time.device_memory_mb),
    }


def _precise(interval: Interval | None) -> Interval | None:
    """Return a figure of time, without an interval that says nothing."""
    finite = _finite(interval)
    if finite is None or finite.low is None or finite.high is None or finite.high <= _LARGEST_FACTOR * abs(finite.low):
        return finite
    return figure(finite.value)


def _finite(interval: Interval | None) -> Interval | None:
    return interval and figure(interval.value, interval.low, interval.high)


def _figures(
    records: Records, record: Record, qualities: Mapping[str, RowQuality], model: Mapping[str, Any], samples: int | None
) -> Figures:
    """Return the other figures of a row: size, differences from the baseline, number of samples, quantized nodes."""
    figures = {SIZE: figure(model[SIZE])}
    for name, quality in qualities.items():
        figures |= {f"{name}_difference": _finite(quality.difference), f"{name}_p_value": figure(quality.p_value)}
    compared = record.outcomes.compare
    changed = compared.values.predictions_changed if compared else None
    figures |= {CHANGED: figure(changed), SAMPLES: figure(samples)}
    figures |= {name: _finite(interval) for name, interval in row_facts.fidelity(record).items()}
    figures |= {RECOVERY: _finite(recovery(record)), **{name: figure(model[name]) for name in (SIZE_SAVED, BITS)}}
    if row_facts.is_quantized(record):
        figures |= {name: figure(model[name]) for name in NODES}
    return {name: interval for name, interval in figures.items() if interval is not None}


def _noise(results: RunResults) -> tuple[Noise, ...]:
    several = len(results.baselines) > 1
    return tuple(
        Noise(
            shape=each.shape,
            ratio=ratio,
            cpu_ratio=_precise(each.cpu_ratio),
            disturbances=each.disturbances,
            models=each.models,
            rounds=each.rounds,
            baseline=each.baseline if several else None,
        )
        for each in certificates(results.records)
        if (ratio := _precise(each.ratio)) is not None
    )


def _floor_notes(results: RunResults) -> Iterator[str]:
    """Yield a note for each group of models whose baseline was not timed twice, with what disturbed the timing.

    Where some models were timed apart from the rest of their group, the note says that it is about them.
    """
    every = certificates(results.records)
    several = len({certificate.baseline for certificate in every} - {None}) > 1
    certified = {(certificate.shape, certificate.baseline) for certificate in every if certificate.ratio is not None}
    for certificate in every:
        if certificate.ratio is not None or not certificate.rounds:
            continue
        name = f"the baseline, row {certificate.baseline}," if several else "the baseline"
        if (certificate.shape, certificate.baseline) in certified:
            subject = f"{name} beside {pluralize(certificate.models - 1, 'model')} was not"
        else:
            subject = "no baseline was" if certificate.baseline is None else f"{name} was not"
        note = f"{subject} timed twice: how far the same model differs from itself is not known"
        yield "; ".join([f"{_at(certificate.shape)} {note}", *map(str, certificate.disturbances)])


def _search_notes(records: Records) -> Iterator[str]:
    """Yield for each row with `node_exclusion: auto` the nodes that it leaves in float32, and how they were found."""
    for record in records.records:
        if record.search is not None:
            yield " ".join([f"Row {record.configuration.row}:", *explain_search(record.search)])


def _untimed_notes(records: Records) -> Iterator[str]:
    """Yield a note for each row and shape with a model but no inputs to time it with."""
    for record in records.records:
        for shape, failure in record.failures.time.items():
            reason = public_message(records, f"{failure.type}: {failure.message}")
            yield f"Row {record.configuration.row} has no time {shape}: {reason}"


def _drift_notes(times: Sequence[_Times]) -> Iterator[str]:
    """Yield a note for each shape at which the latency of rows changed surely, by more than a twentieth."""
    changes: dict[Shape, list[str]] = {}
    for row, shapes in enumerate(times):
        for shape, figures in shapes.items():
            drift = figures.intervals["drift"] if isinstance(figures, TimeFigures) else None
            if drift and drift.low is not None and drift.high is not None and max(drift.low, -drift.high) > _MUCH_DRIFT:
                changes.setdefault(shape, []).append(f"row {row} by {100 * drift.value:+.0f} %")
    for shape, rows in changes.items():
        yield (
            f"{_at(shape)} latencies changed from the first launch to the last: {', '.join(rows)}. Their milliseconds "
            "are not those of a steady state; ratios are taken round by round, and hold"
        )


def _at(shape: Shape) -> str:
    return f"At {format_shape(shape)}"


def _machine(records: Records, record: Record) -> dict[str, Plain]:
    """Return what is known of the machine of a row, with its price where that is not one of the spec for all."""
    machine = as_plain(records.info_of(record).machine)
    memory_bytes = machine.pop("memory_bytes", None)
    if memory_bytes is not None:
        machine["memory_gb"] = round(memory_bytes / 1e9, 1)
    if not (machine["gpu"] and any(map(row_facts.on_gpu, records.records))):
        del machine["gpu"], machine["gpu_driver"]
    if (price := prices(records, record)[1]) is not None and "price_per_hour" not in records.plan.spec.fixed:
        machine["price_per_hour"] = price
    return dict(machine)


def _environment(results: RunResults) -> dict[str, Plain]:
    records, info = results.records, results.records.info
    machines = {_machine_of(row): _machine(records, row) for row in records.records}
    versions = {_machine_of(row): dict(records.info_of(row).versions) for row in records.records}
    machine = _joined(machines)
    shared = {
        name: ", ".join(f"{each} ({own})" for own, each in value.items()) if isinstance(value, dict) else value
        for name, value in _joined(versions).items()
    }
    outcomes = [part.outcome for parts in records.parts.values() for part in parts if part.outcome]
    reported = {each.facts.get("intra_op_num_threads") for outcome in outcomes for each in outcome.opened}
    threads = sorted(number for number in reported if isinstance(number, int)) or [info.default_threads]
    return {**machine, "threads": threads[0] if len(threads) == 1 else threads, "versions": shared}


def _machine_of(record: Record) -> str:
    return machine_name(record.configuration.axes.get(BACKEND_ARGUMENTS, {}))


def _joined(facts: Mapping[str, Mapping[str, Plain]]) -> dict[str, Plain]:
    """Return the facts of all machines, where they differ with a value for each machine, by its name on the card."""
    joined: dict[str, Plain] = {}
    for name in dict.fromkeys(name for own in facts.values() for name in own):
        values = {machine: own.get(name) for machine, own in facts.items()}
        first = next(iter(values.values()))
        joined[name] = first if all(value == first for value in values.values()) else values
    return joined


def _front_matter(results: RunResults) -> FrontMatter:
    sources = results.records.info.sources
    # With several models, the metadata of one would be taken for those of the others.
    model = next(iter(sources.models.values())) if len(sources.models) == 1 else None
    datasets = dict.fromkeys(source.location for source in sources.datasets.values() if _is_on_hub(source))
    is_onnx = any(row["framework"] == "onnxruntime" for row in results.plan)
    is_quantized = any(map(row_facts.is_quantized, results.records.records))
    metadata = _inherited_metadata(model) if model is not None else {}
    own = {name: value for name in ("license", "library_name") if isinstance(value := metadata.get(name), str)}
    return FrontMatter(
        license=own.get("license"),
        library_name=own.get("library_name"),
        pipeline_tag=TAGS_OF_MODELS.get(results.spec.task, results.spec.task),
        base_model=results.spec.get("base_model") or (model.name if model is not None and not model.local else None),
        datasets=tuple(datasets),
        metrics=results.metrics,
        pass_metrics=PASS_METRICS if results.metrics else (),
        tags=("benchcard", *(["onnx"] if is_onnx else []), *(["quantized"] if is_quantized else [])),
        extra={name: value for name, value in metadata.items() if name not in own},
    )


def _is_on_hub(source: Source) -> bool:
    return not source.local and "://" not in source.location


def _inherited_metadata(model: Source) -> dict[str, str | list[str]]:
    """Return the metadata of the model's own card that hold for its variants; licences only if the Hub knows them."""
    metadata = dict(model.inherited)
    licences = metadata.get("license", "")
    if not LICENSES.issuperset([licences] if isinstance(licences, str) else licences):
        metadata = {name: value for name, value in metadata.items() if not name.startswith("license")}
    link = metadata.get("license_link")
    if isinstance(link, str) and "://" not in link:
        # The link is a file of the model's repository.
        del metadata["license_link"]
        if not model.local:
            metadata["license_link"] = f"https://huggingface.co/{model.name}/blob/{model.revision}/{link}"
    return metadata


def _data(results: RunResults, row: int) -> Data:
    """Return the evaluation data of a row; with the number of samples where all rows have the same limit."""
    has_one_limit = len({configuration["max_eval_samples"] for configuration in results.plan}) == 1
    dataset, records = results.plan[row]["dataset"], results.records.records
    source = results.records.info.sources.dataset(dataset)
    same_data = (record for record in records if record.configuration["dataset"] == dataset)
    prepared = (record.outcomes.prepare for record in (records[row], *same_data))
    samples = next((outcome.values.samples for outcome in prepared if outcome), None)
    is_on_hub = _is_on_hub(source)
    path = public_name(results.records, "datasets", dataset["path"])
    return Data(
        # A repository that was renamed has its new id here.
        dataset=source.location if is_on_hub else _IN_MEMORY if path.startswith(MEMORY_PREFIX) else path,
        name=None if is_on_hub else dataset.get("name"),
        config=dataset.get("name") if is_on_hub else None,
        split=dataset["eval_split"],
        revision=source.revision or source.digest[:12],
        samples=samples if has_one_limit else None,
        on_hub=is_on_hub,
    )
