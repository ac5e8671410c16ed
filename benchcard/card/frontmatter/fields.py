"""The front matter of a new card: which facts become which keys."""

from __future__ import annotations

from collections.abc import Iterable

from benchcard.card.facts import Facts, FrontMatter, Plain
from benchcard.card.frontmatter.yaml import dump_yaml
from benchcard.utils.text import is_hub_id


def front_matter_keys(front: FrontMatter) -> dict[str, Plain]:
    """Return the keys of new front matter in the order in which they are written.

    Empty values are left out, and so are a `base_model` and entries of `datasets` that are not Hub ids: the Hub refuses
    them, and local paths are private.
    """
    base_model = front.base_model if front.base_model and is_hub_id(front.base_model) else None
    values: dict[str, Plain] = {
        "license": front.license,
        "library_name": front.library_name,
        "pipeline_tag": front.pipeline_tag,
        "base_model": base_model,
        "base_model_relation": front.base_model_relation if base_model else None,
        "datasets": _unique(dataset for dataset in front.datasets if is_hub_id(dataset)),
        "metrics": _unique(front.metrics),
        "tags": _unique(front.tags),
        "model-index": list(front.model_index),
        **{key: _without_none(value) for key, value in front.extra.items()},
    }
    return {key: value for key, value in values.items() if value is not None and value not in ("", [], {})}


def render_front_matter(front: FrontMatter) -> str:
    """Return the front matter between its dashes, ending in a line end; only the dashes if it is empty."""
    return f"---\n{dump_yaml(front_matter_keys(front))}---\n"


def model_index(
    facts: Facts, *, name: str, source_name: str | None = None, source_url: str | None = None
) -> tuple[dict[str, Plain], ...]:
    """Return the evaluation results of the recommended row and the baseline in the Hub's format; empty without any.

    Other rows are left out: the Hub distinguishes results by task and data only, so all rows would become one. A later
    merge finds its entry by `source_name`, such as `benchcard digits`; the Hub requires `source_url` with it.

    Source: hub-docs, modelcard.md (required fields); configuration, split and revision are strings.
    """
    if facts.data is None:
        return ()
    roles = {facts.chosen: "recommended", facts.baseline: "baseline"}
    metrics: list[Plain] = []
    for index in sorted(row for row in roles if row is not None):
        row = facts.rows[index]
        parameters = {key: str(value) for key, value in row.parameters.items() if value is not None}
        for metric in facts.metrics:
            figure = row.metrics.get(metric.name)
            if figure is not None:
                entry = {"type": metric.name, "value": figure.value, "name": f"{metric.name} ({roles[index]})"}
                metrics.append({**entry, "args": parameters} if parameters else entry)
    if not metrics:
        return ()
    data = facts.data
    dataset = {"type": data.dataset, "name": data.name or data.dataset, "config": data.config, "split": data.split}
    result = {
        "task": {"type": facts.task},
        "dataset": {**dataset, "revision": data.revision},
        "metrics": metrics,
        "source": {"name": source_name, "url": source_url} if source_url else None,
    }
    return ({"name": name, "results": [_without_none(result)]},)


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _without_none(value: Plain) -> Plain:
    """Return `value` without any None at any depth: the Hub refuses null."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value if item is not None]
    return value
