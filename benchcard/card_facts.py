"""Results as the facts of a card: what a layout needs, and nothing that it must look up.

This module stands between `results` and `card`, which know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchcard.card.facts import Data, Facts, Failure, FrontMatter, Metric, Row, Shape, figure
from benchcard.frames import PASS_METRICS
from benchcard.parameters import PARAMETERS, parts

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.results import Results


def facts(results: Results) -> Facts:
    """The facts of a run's card."""
    spec, plan = results.spec, results.plan
    shapes = list(dict.fromkeys(_shape(row) for row in _rows_of(results.time))) if len(results.time) else []
    return Facts(
        task=spec.task,
        backend=spec.get("backend"),
        backend_args=spec.get("backend_args"),
        max_eval_samples=spec.get("max_eval_samples"),
        fixed=_fixed(results),
        benchmarked=dict(spec.grid) if spec.grid else {"framework": [plan[0]["framework"]]},
        metrics=tuple(Metric(name) for name in results.metrics),
        shapes=tuple(shapes),
        duration_s=spec.get("duration"),
        rows=_rows(results),
        front_matter=_front_matter(results),
        data=_data(results),
        baseline=results.baseline,
        chosen=results.best().row,
        reasons=(results.best().reason,),
        environment={**results.records.about["machine"], "versions": results.records.about["versions"]},
        run={"created": results.records.about["created"]},
    )


def _fixed(results: Results) -> dict[str, Any]:
    """The fixed parameters that a card lists: what the spec gives, in the order of the vocabulary, settings of the
    measurement apart.
    """
    given = {**results.spec.fixed}
    given.setdefault("from_transformers", True)
    order = list(PARAMETERS)
    listed = {
        name: given[name]
        for name in sorted(given, key=lambda name: order.index(parts(name)[0]))
        if not PARAMETERS[parts(name)[0]].setting
    }
    # The cards show the data set on one line, as a list of one.
    return {
        name: [value] if name == "dataset" else value for name, value in listed.items() if name not in results.spec.grid
    }


def _shape(row: Mapping[str, Any]) -> Shape:
    length = row["input_length"]
    return Shape(int(row["batch_size"]), int(length) if str(length) not in ("None", "<NA>", "nan") else None)


def _rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows, each a mapping of column to value."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _rows(results: Results) -> tuple[Row, ...]:
    quality, models = _rows_of(results.quality), _rows_of(results.models)
    times: dict[int, dict[Shape, dict[str, Any]]] = {}
    skipped = {"row", "batch_size", "input_length", "failure", *results.spec.grid}
    for row in _rows_of(results.time):
        figures = {
            name: figure(value, row.get(f"{name}_low"), row.get(f"{name}_high"))
            for name, value in row.items()
            if name not in skipped and not name.endswith(("_low", "_high"))
        }
        times.setdefault(row["row"], {})[_shape(row)] = figures
    rows = []
    for record, measured, model in zip(results.records.records, quality, models):
        failure = record.failures.get("model") or record.failures.get("quality")
        same = measured.get("same_model_as")
        rows.append(
            Row(
                parameters=dict(record.configuration.axes) or {"framework": record.configuration["framework"]},
                metrics={name: figure(measured.get(name)) for name in results.metrics},
                times=times.get(record.configuration.row, {}),
                figures={"size_mb": figure(model.get("size_mb"))},
                failure=Failure(failure.stage, failure.type, failure.message, failure.log) if failure else None,
                same_model_as=int(str(same)) if str(same) not in ("None", "<NA>", "nan") else None,
            )
        )
    return tuple(rows)


def _front_matter(results: Results) -> FrontMatter:
    sources = results.records.about["sources"]
    models = [source for source in sources["models"].values() if not source["local"]]
    datasets = [
        source["location"]
        for source in sources["datasets"].values()
        if not source["local"] and "://" not in source["location"]
    ]
    frameworks = {configuration["framework"] for configuration in results.plan}
    tags = [
        "benchcard",
        *(["onnx"] if "onnxruntime" in frameworks else []),
        *(["quantized"] if any(row.quantized for row in results.plan) else []),
    ]
    return FrontMatter(
        pipeline_tag=results.spec.task,
        base_model=models[0]["name"] if len(models) == 1 else None,
        datasets=tuple(dict.fromkeys(datasets)),
        metrics=(*results.metrics, *(PASS_METRICS if len(results.metrics) else ())),
        tags=tuple(tags),
    )


def _data(results: Results) -> Data:
    dataset = results.plan[0]["dataset"]
    source = next(iter(results.records.about["sources"]["datasets"].values()))
    samples = next(
        (
            record.outcomes["prepare"].values["samples"]
            for record in results.records.records
            if "prepare" in record.outcomes
        ),
        None,
    )
    return Data(
        dataset=dataset["path"],
        config=dataset.get("name"),
        split=dataset["eval_split"],
        revision=source["revision"] or source["digest"][:12],
        samples=samples,
        on_hub=not source["local"],
    )
