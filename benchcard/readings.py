"""The metrics of a run and how their figures are to be read, as its records say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchcard.records import Records
from benchcard.store import Outcome


def names(records: Records) -> tuple[str, ...]:
    """The names of the quality metrics, in the order of their columns."""
    return tuple(dict.fromkeys(name for score in _scores(records) for name in score.values["metrics"]))


def of(records: Records, metric: str | None) -> Mapping[str, Any]:
    """`higher_is_better` and `unit` of a metric, None where nobody knows them; empty where it was not measured."""
    known = (score.values.get("readings", {}) for score in _scores(records))
    return next((dict(each[metric]) for each in known if metric in each), {})


def _scores(records: Records) -> Iterator[Outcome]:
    return (record.outcomes["score"] for record in records.records if "score" in record.outcomes)
