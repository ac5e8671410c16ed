"""The front matter of a fresh card.

Owns which facts become which keys. Leaves the check of any card's front matter to `check`, YAML as text to `yamltext`,
and merging into a front matter that is there to `merge`.
"""

from __future__ import annotations

from collections.abc import Iterable

from benchcard.card.facts import Facts, FrontMatter, Plain
from benchcard.card.frontmatter import yaml
from benchcard.card.frontmatter.hubterms import is_hub_id


def fields(front: FrontMatter) -> dict[str, Plain]:
    """The keys of a fresh front matter, in the order in which they are written.

    What is empty has no key. `base_model` and entries of `datasets` that are no Hub ids are left out: the Hub refuses
    them, and a local path is nobody else's business.
    """
    base_model = front.base_model if front.base_model and is_hub_id(front.base_model) else None
    candidates: dict[str, Plain] = {
        "license": front.license,
        "library_name": front.library_name,
        "pipeline_tag": front.pipeline_tag,
        "base_model": base_model,
        "base_model_relation": front.base_model_relation if base_model else None,
        "datasets": _once(dataset for dataset in front.datasets if is_hub_id(dataset)),
        "metrics": _once(front.metrics),
        "tags": _once(front.tags),
        "model-index": list(front.model_index),
        **{key: _without_nothing(value) for key, value in front.extra.items()},
    }
    return {key: value for key, value in candidates.items() if value is not None and value not in ("", [], {})}


def render(front: FrontMatter) -> str:
    """The front matter between its dashes, ending in a line end; only the dashes where it says nothing.

    Raises:
        CardError: a value cannot be said in front matter.
    """
    return f"---\n{yaml.dump_yaml(fields(front))}---\n"


def model_index(
    facts: Facts, *, name: str, source_name: str | None = None, source_url: str | None = None
) -> tuple[dict[str, Plain], ...]:
    """The Hub's evaluation results of the recommended row and the baseline; empty where there is nothing to say.

    The grid itself stays out of it: the Hub tells results apart by task and data only, so all rows would fall into one.

    Args:
        facts: needs `data`, and `chosen` or `baseline`.
        name: name of the model.
        source_name: who says so, as `benchcard digits`; it is how a later merge knows its own entry.
        source_url: where the figures are; the Hub wants it with `source_name`.

    Source: hub-docs, modelcard.md (required fields); configuration, split and revision are texts.
    """
    if facts.data is None:
        return ()
    kinds = {facts.chosen: "recommended", facts.baseline: "baseline"}
    metrics: list[Plain] = []
    for index in sorted(place for place in kinds if place is not None):
        row = facts.rows[index]
        told = {key: value for key, value in row.parameters.items() if value is not None}
        for metric in facts.metrics:
            found = row.metrics.get(metric.name)
            if found is not None:
                entry = {"type": metric.name, "value": found.value, "name": f"{metric.name} ({kinds[index]})"}
                metrics.append({**entry, "args": {key: str(value) for key, value in told.items()}} if told else entry)
    if not metrics:
        return ()
    data = facts.data
    dataset = {"type": data.dataset, "name": data.dataset, "config": data.config, "split": data.split}
    result: dict[str, Plain] = {
        "task": {"type": facts.task},
        "dataset": _without_nothing({**dataset, "revision": data.revision}),
        "metrics": metrics,
    }
    if source_url:
        result["source"] = _without_nothing({"name": source_name, "url": source_url})
    return ({"name": name, "results": [result]},)


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(value for value in values if value))


def _without_nothing(value: Plain) -> Plain:
    """`value` without its None, at any depth: the Hub takes no null."""
    if isinstance(value, dict):
        return {key: _without_nothing(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nothing(item) for item in value if item is not None]
    return value
