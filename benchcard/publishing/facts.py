"""Results as the facts of a card: what a layout needs, and nothing that it must look up.

This module stands between `results` and `card`, which know nothing of each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchcard.analysis import embedding_cosine, metric_info
from benchcard.analysis.frames.quality import PASS_METRICS
from benchcard.analysis.frames.time import NOT_ASKED
from benchcard.analysis.gains import waiting
from benchcard.analysis.public_names import public_message, public_name, public_parameter
from benchcard.card.facts import (
    Data,
    Facts,
    FrontMatter,
    Metric,
    Noise,
    Row,
    figure,
)
from benchcard.card.frontmatter import fields
from benchcard.card.frontmatter.hubterms import LICENSES
from benchcard.card.layouts.full_tables import NODES, SAMPLES
from benchcard.card.reading.full import parse_disturbance
from benchcard.sources.resolve import Source
from benchcard.spec.parameters import PARAMETERS, split_name
from benchcard.utils.text import pluralize
from benchcard.utils.values import Failure, Interval, Shape

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.analysis.run_results import RunResults


OWN_SOURCE = "benchcard"
# A twentieth of a latency is more than the intervals of a run that is worth publishing.
_MUCH_DRIFT = 0.05
# What models have in common that would be timed together, if there were memory for all of them.
_GROUP = ("batch_size", "input_length", "baseline")
PROJECT = "https://pypi.org/project/benchcard/"


def make_facts(results: RunResults, max_drop: float | None = None, section: str | None = None) -> Facts:
    """The facts of a run's card.

    Folders of this machine are told by their last name alone where the spec gives them from the root, and nowhere else.

    Args:
        results: the run.
        max_drop: how much of the first metric the row to ship may lose; None for a point.
        section: name of the card's section; None for `slug`.
    """
    spec, plan = results.spec, results.plan
    times = _rows_of(results.time)
    timed = {_shape(row) for row in times if _is_there(row["latency_mean_ms"])}
    asked = dict.fromkeys(_shape(row) for row in times if row["failure"] != NOT_ASKED)
    # The first one is that of the summary.
    shapes = sorted(asked, key=lambda shape: shape not in timed)
    choices = results.choices(max_drop)
    best = [choice.row for choice in choices]
    made = Facts(
        task=spec.task,
        backend=spec.get("backend"),
        backend_args=spec.get("backend_args"),
        max_eval_samples=spec.get("max_eval_samples"),
        fixed=_fixed(results),
        benchmarked=_benchmarked(results) if spec.grid else {"framework": [plan[0]["framework"]]},
        metrics=_metrics(results),
        shapes=tuple(shapes),
        duration_s=None if "duration" in spec.grid else spec.get("duration"),
        rows=_rows(results),
        front_matter=_front_matter(results),
        data=_data(results, next((row for row in best if row is not None), 0)),
        baseline=results.baseline,
        chosen=best[0],
        further=tuple(row for row in best[1:] if row is not None),
        reasons=tuple(
            choice.reason if len(choices) == 1 else f"row {choice.row}, {choice.reason}"
            for choice in choices
            if choice.row is not None
        ),
        pareto=_pareto(results),
        settings=_settings(results),
        noise=_noise(results),
        environment=_environment(results),
        run={"id": results.spec.digest[:12], "created": results.records.info.created},
        done=len(plan) - len(unmeasured) if (unmeasured := waiting(results.records)) else None,
        notes=(*results.notes, *_untimed(results), *_without_floor(results), *_drifted(results)),
    )
    return replace(made, front_matter=replace(made.front_matter, model_index=_model_index(results, made, section)))


def default_slug(results: RunResults) -> str:
    """The name of a run's section: its data set and the beginning of its spec's digest, as `beans-2f2e1580`."""
    name = str(results.plan[0]["dataset"]["path"]).rstrip("/").rsplit("/", 1)[-1]
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "data"
    return f"{clean[:80]}-{results.spec.digest[:8]}"  # folders of this length may be named so, see `card.merge`


def _model_index(results: RunResults, made: Facts, section: str | None) -> tuple[dict[str, Any], ...]:
    """The Hub's own form of the published row and the baseline, where model and data are the Hub's and all rows were
    evaluated on the same examples; else it would give the figures of some to others. By the name of its source the next
    card of that section finds it.
    """
    apart = len({row.evaluation_key for row in results.plan}) > 1
    if made.data is None or not made.data.on_hub or made.front_matter.base_model is None or apart:
        return ()
    source = {"source_name": f"{OWN_SOURCE} {section or default_slug(results)}", "source_url": PROJECT}
    return fields.model_index(made, name=made.front_matter.base_model.rsplit("/", 1)[-1], **source)


def _benchmarked(results: RunResults) -> dict[str, list[Any]]:
    """The benchmarked parameters; arguments that were given by framework, as one list."""
    told: dict[str, list[Any]] = {}
    for name, values in results.spec.grid.items():
        lists = values.values() if isinstance(values, Mapping) else [values]
        flat = [public_parameter(results.records, name, value) for each in lists for value in each]
        told[name] = [value for place, value in enumerate(flat) if value not in flat[:place]]
    return told


def _metrics(results: RunResults) -> tuple[Metric, ...]:
    made = []
    for name in results.metrics:
        told = metric_info.info_of_metric(results.records, name)
        unit = told.unit or ""
        said = {"share": "a share, from 0 to 1", "%": "in %, from 0 to 100"}.get(unit, unit)
        positive = " or ".join(metric_info.positive_classes(results.records, name))
        parts = [said, f"the positive class is {positive}" if positive else ""]
        definition = ", ".join(part for part in parts if part)
        made.append(Metric(name, "", told.higher_is_better, definition, positive))
    return tuple(made)


def _settings(results: RunResults) -> dict[str, Any]:
    """How was measured, as the spec says; what stands elsewhere on a card apart."""
    apart = ("backend", "backend_args", "max_eval_samples")
    given = {name: value for name, value in results.spec.fixed.items() if PARAMETERS[split_name(name)[0]].setting}
    return {name: public_parameter(results.records, name, value) for name, value in given.items() if name not in apart}


def _pareto(results: RunResults) -> tuple[int, ...]:
    """The rows that no other one of the same examples beats in both quality and latency."""
    return tuple(sorted(results.pareto()["row"])) if results.metrics and len(results.time) else ()


def _noise(results: RunResults) -> tuple[Noise, ...]:
    found = []
    for row in _rows_of(results.noise):
        ratio = figure(row["ratio"], row["ratio_low"], row["ratio_high"])
        if ratio is not None:
            warnings = str(row["warnings"]).split("; ") if row["warnings"] else ()
            disturbances = tuple(map(parse_disturbance, warnings))
            counts = {"models": int(row["models"]), "rounds": int(row["rounds"])}
            if len(results.baselines) > 1 and _is_there(row["baseline"]):
                counts["baseline"] = int(row["baseline"])
            found.append(Noise(shape=_shape(row), ratio=ratio, disturbances=disturbances, **counts))
    return tuple(found)


def _environment(results: RunResults) -> dict[str, Any]:
    machine = dict(results.records.info.machine)
    memory = machine.pop("memory_bytes", None)
    if memory is not None:
        machine["memory_gb"] = round(memory / 1e9, 1)
    return {**machine, "threads": _threads(results), "versions": results.records.info.versions}


def _threads(results: RunResults) -> Any:
    """The threads that the timed processes really had; a list where they differ."""
    found = {
        opened.facts.get("intra_op_num_threads")
        for timed in results.records.parts.values()
        for part in timed
        for opened in (part.outcome.opened if part.outcome else ())
    }
    told = sorted(threads for threads in found if threads is not None)
    return told[0] if len(told) == 1 else told or results.records.info.default_threads


def _untimed(results: RunResults) -> Iterator[str]:
    """Rows that have a model and no times, and why."""
    for record in results.records.records:
        for shape, failure in record.failures.time.items():
            said = public_message(results.records, f"{failure.type}: {failure.message}")
            yield f"Row {record.configuration.row} has no time {shape}: {said}"


def _without_floor(results: RunResults) -> Iterator[str]:
    """Groups that were timed without a baseline that was timed twice, and what disturbed them; where there are several
    baselines, which one it is, and where some of a group's models were timed apart from the others, that it is those.
    """
    several, rows = results.noise["baseline"].nunique() > 1, list(_rows_of(results.noise))
    for row in rows:
        if not _is_there(row["ratio"]) and row["rounds"]:
            length = f", input length {row['input_length']}" if _is_there(row["input_length"]) else ""
            said = f"; {row['warnings']}" if row["warnings"] else ""
            name = f", row {row['baseline']}," if several else ""
            which = f"the baseline{name} was not" if _is_there(row["baseline"]) else "no baseline was"
            if any(_is_there(other["ratio"]) and _group(other) == _group(row) for other in rows):
                which = f"the baseline{name} beside {pluralize(row['models'] - 1, 'model')} was not"
            yield (
                f"At batch size {row['batch_size']}{length} {which} timed twice: how far the same model "
                f"differs from itself is not known{said}"
            )


def _group(noise: Mapping[str, Any]) -> list[str]:
    return [str(noise[name]) for name in _GROUP]


def _drifted(results: RunResults) -> Iterator[str]:
    """Shapes at which rows surely became slower or faster by a twentieth and more while they were timed."""
    found: dict[Shape, list[str]] = {}
    for row in _rows_of(results.time):
        low, high = row["drift_low"], row["drift_high"]
        if _is_there(low) and _is_there(high) and max(low, -high) > _MUCH_DRIFT:
            found.setdefault(_shape(row), []).append(f"row {row['row']} by {100 * row['drift']:+.0f} %")
    for shape, rows in found.items():
        length = "" if shape.input_length is None else f", input length {shape.input_length}"
        yield (
            f"At batch size {shape.batch_size}{length} latencies changed from the first launch to the last: "
            f"{', '.join(rows)}. Their milliseconds are no steady state's; ratios are taken round by round, and hold"
        )


def _fixed(results: RunResults) -> dict[str, Any]:
    """The fixed parameters that a card lists: what the spec gives and means something to a row, in the order of the
    vocabulary, settings of the measurement apart.
    """
    given = {**results.spec.fixed}
    given.setdefault("from_transformers", True)
    unread = {
        name
        for name, value in given.items()
        if value is not None and all(row[split_name(name)[0]] is None for row in results.plan)
    }
    order = list(PARAMETERS)
    listed = {
        name: public_parameter(results.records, name, given[name])
        for name in sorted(given, key=lambda name: order.index(split_name(name)[0]))
        if not PARAMETERS[split_name(name)[0]].setting and name not in unread
    }
    # The cards show the data set on one line, as a list of one.
    return {
        name: [value] if name == "dataset" else value for name, value in listed.items() if name not in results.spec.grid
    }


def _is_there(value: Any) -> bool:
    return str(value) not in ("None", "<NA>", "nan")


def _shape(row: Mapping[str, Any]) -> Shape:
    length = row["input_length"]
    return Shape(int(row["batch_size"]), int(length) if _is_there(length) else None)


def _rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows, each a mapping of column to value."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _rows(results: RunResults) -> tuple[Row, ...]:
    quality, models = _rows_of(results.quality), _rows_of(results.models)
    times: dict[int, dict[Shape, dict[str, Any]]] = {}
    skipped = {"row", "framework", "batch_size", "input_length", "failure", *results.spec.grid}
    for row in _rows_of(results.time):
        figures = {
            name: figure(value, row.get(f"{name}_low"), row.get(f"{name}_high"))
            for name, value in row.items()
            if name not in skipped and not name.endswith(("_low", "_high"))
        }
        times.setdefault(row["row"], {})[_shape(row)] = figures
    rows = []
    for record, measured, model in zip(results.records.records, quality, models):
        failure = record.failures.of_quality()
        same = measured.get("same_model_as")
        rows.append(
            Row(
                parameters={
                    name: public_parameter(results.records, name, value)
                    for name, value in record.configuration.axes.items()
                }
                or {"framework": record.configuration["framework"]},
                metrics={
                    name: figure(measured.get(name), measured.get(f"{name}_low"), measured.get(f"{name}_high"))
                    for name in results.metrics
                },
                times=times.get(record.configuration.row, {}),
                figures=_figures(results, record.configuration.row, measured, model),
                failure=Failure(
                    failure.stage, failure.type, public_message(results.records, failure.message), failure.log
                )
                if failure
                else None,
                same_model_as=int(str(same)) if _is_there(same) else None,
                reasons=(str(model["reason"]),) if _is_there(same) and _is_there(model["reason"]) else (),
                saturation_risk=_is_there(model["saturation_risk"]) and bool(model["saturation_risk"]),
                baseline=record.configuration.baseline if len(results.baselines) > 1 else None,
            )
        )
    return tuple(rows)


def _figures(
    results: RunResults, index: int, measured: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, Interval | None]:
    """The size of a row's model, how its predictions differ from the baseline's, on how many samples where rows differ
    in that, and how much of a quantized one computes in 8 bits.
    """
    told = {"size_mb": figure(model.get("size_mb"))}
    baseline = results.plan[index].baseline
    for name in results.metrics if index != baseline else ():
        key = f"{name}_difference"
        told[key] = figure(measured.get(key), measured.get(f"{key}_low"), measured.get(f"{key}_high"))
        told[f"{name}_p_value"] = figure(measured.get(f"{name}_p_value"))
    told[embedding_cosine.COLUMN] = figure(measured.get(embedding_cosine.COLUMN))
    if index != baseline and _is_there(measured.get("predictions_changed")):
        told["predictions_changed"] = figure(measured["predictions_changed"])
    if results.quality["samples"].nunique() > 1:
        told[SAMPLES] = figure(measured["samples"]) if _is_there(measured["samples"]) else None
    if _is_there(model.get(NODES[0])):
        told |= {name: figure(model[name]) for name in NODES if _is_there(model.get(name))}
    return {name: found for name, found in told.items() if found is not None}


def _front_matter(results: RunResults) -> FrontMatter:
    sources = results.records.info.sources
    models = list(sources.models.values())
    # Of several models, what is said of one would be said of the row of another.
    model = models[0] if len(models) == 1 else None
    datasets = [
        source.location for source in sources.datasets.values() if not source.local and "://" not in source.location
    ]
    frameworks = {configuration["framework"] for configuration in results.plan}
    tags = [
        "benchcard",
        *(["onnx"] if "onnxruntime" in frameworks else []),
        *(["quantized"] if any(row.quantized for row in results.plan) else []),
    ]
    told = _inherited(model) if model is not None else {}
    return FrontMatter(
        license=told.pop("license", None),
        library_name=told.pop("library_name", None),
        pipeline_tag=results.spec.task,
        base_model=model.name if model is not None and not model.local else None,
        datasets=tuple(dict.fromkeys(datasets)),
        metrics=(*results.metrics, *(PASS_METRICS if len(results.metrics) else ())),
        tags=tuple(tags),
        extra=told,
    )


def _inherited(model: Source) -> dict[str, str]:
    """What the model's own card says that holds for its variants, as far as the Hub knows the licence."""
    told = dict(model.inherited)
    if told.get("license") not in LICENSES:
        told = {name: value for name, value in told.items() if not name.startswith("license")}
    link = told.get("license_link")
    if link is not None and "://" not in link:
        # A file beside that card, which is not in another repository.
        del told["license_link"]
        if not model.local:
            told["license_link"] = f"https://huggingface.co/{model.name}/blob/{model.revision}/{link}"
    return told


def _data(results: RunResults, row: int) -> Data:
    """The evaluation data of a row; how many samples where no other row was evaluated on more or fewer of them."""
    varied = len({each["max_eval_samples"] for each in results.plan}) > 1
    dataset, records = results.plan[row]["dataset"], results.records.records
    source = results.records.info.sources.dataset(dataset)
    same = (record for record in records if record.configuration["dataset"] == dataset)
    prepared = (each.outcomes.prepare for each in (records[row], *same) if each.outcomes.prepare)
    on_hub = not source.local and "://" not in source.location
    return Data(
        # Of an old id, today's.
        dataset=source.location if on_hub else public_name(results.records, "datasets", dataset["path"]),
        config=dataset.get("name"),
        split=dataset["eval_split"],
        revision=source.revision or source.digest[:12],
        samples=None if varied else next((each.values.samples for each in prepared), None),
        on_hub=on_hub,
    )
