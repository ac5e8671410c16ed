"""The figures of a card as frames, in the form of those of `Results`.

In the frames of older cards, columns with the suffix `_original` hold the figures of the original model beside those of
each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchcard.analysis.frames.columns import frame_of, interval_columns, to_records
from benchcard.card import Card, Facts
from benchcard.card.facts import Figures, Measured, Row
from benchcard.card.layouts.full_tables import BITS, SIZE_SAVED
from benchcard.reproduce import spec as card_spec
from benchcard.reproduce.source import PublishedCard, PublishedRun, TimeKey, find_readme
from benchcard.spec.spec import Spec
from benchcard.utils.text import pluralize
from benchcard.utils.values import Interval, Shape

if TYPE_CHECKING:
    import pandas as pd

ORIGINAL = "_original"


@dataclass(frozen=True)
class CardResults(PublishedCard):
    """The results that a card shows: figures with the digits of the card, and the intervals published beside it."""

    @property
    def task(self) -> str:
        """The task of the model."""
        return self.facts.task

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the quality metrics, in the order of their columns."""
        return tuple(metric.name for metric in self.facts.metrics)

    @property
    def spec(self) -> Spec:
        """The spec of the run, so that it can be run again; `Benchmark.from_spec` runs no code that it names.

        Raises:
            SpecError: The card asks for something that is not possible here.
            CardError: It was measured in a way that this version does not support.
        """
        return card_spec.untrusted_spec(self)[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """The differences between the spec and the card, and why there is no spec where that is so, a sentence each."""
        return card_spec.spec_notes(self)

    def card(self, layout: str = "full", slug: str | None = None) -> Card:
        """Return the card in one of the layouts; a classic card gives the same text again in `classic`.

        Args:
            layout: `full`, or `classic`, the layout of the cards of 2022.
            slug: The name of its section in a README; by default the one that it was read from.

        Raises:
            CardError: There is no such layout, it cannot show this card, or `slug` cannot name a section.
        """
        return Card.from_facts(self.facts, layout=layout, slug=slug or self.section or "benchmark")

    @cached_property
    def plan(self) -> pd.DataFrame:
        """One row per configuration: benchmarked parameters, then fixed ones."""
        fixed = {name: value for name, value in self.facts.fixed.items() if name not in self.facts.benchmarked}
        return _frame([{**parameters, **fixed} for parameters, _ in self._rows()])

    @cached_property
    def quality(self) -> pd.DataFrame:
        """One row per configuration: benchmarked parameters, each metric with its interval where there is one, the
        figures of the original model, those that compare the row with its baseline, the row with the same model, and
        why figures are missing.
        """
        rows = []
        for parameters, row in self._rows():
            original = row.original or Measured()
            ending = {"same_model_as": row.same_model_as, "failure": row.failure and str(row.failure)}
            names = [metric.name for metric in self.facts.comparisons]
            names += [name for name in (SIZE_SAVED, BITS) if name in row.figures]
            compared = {name: row.figures.get(name) for name in names}
            rows.append({**parameters, **_cells(row.metrics, original.metrics), **_cells(compared, {}), **ending})
        return _frame(rows)

    @cached_property
    def time(self) -> pd.DataFrame:
        """One row per configuration, batch size and input length, and phase where there are any: the figures with their
        intervals.
        """
        rows = []
        has_phases = any(shape.phase for shape in self.facts.shapes)
        for parameters, row in self._rows():
            original = row.original or Measured()
            for shape in self.facts.shapes:
                figures = _cells(row.times.get(shape, {}), original.times.get(shape, {}))
                sizes = {name: size for name, size in asdict(shape).items() if name != "phase" or has_phases}
                rows.append({**parameters, **sizes, **figures, "failure": row.failure and str(row.failure)})
        return _frame(rows)

    def to_json(self) -> dict[str, object]:
        """Return `task`, the frames `quality`, `time` and `plan` as lists of rows, and `notes`: plain data."""
        frames = {"quality": self.quality, "time": self.time, "plan": self.plan}
        return {
            "task": self.task,
            **{name: to_records(frame) for name, frame in frames.items()},
            "notes": list(self.notes),
        }

    def _rows(self) -> Iterable[tuple[dict[str, object], Row]]:
        return (({"row": index, **row.parameters}, row) for index, row in enumerate(self.facts.rows))

    def __repr__(self) -> str:
        tables = [frame.to_string(index=False, na_rep="") for frame in (self.quality, self.time)]
        heading = f"Results of {pluralize(len(self.facts.rows), 'configuration')}, read from a card"
        return "\n\n".join([heading, *tables])

    def _repr_html_(self) -> str:
        return "".join(
            f"<h4>{title}</h4>{frame.to_html(index=False, na_rep='', escape=True)}"
            for title, frame in (("Quality", self.quality), ("Time", self.time))
        )


def from_card(
    card: str | Path, section: str | None = None, *, token: str | bool | None = None, endpoint: str | None = None
) -> CardResults:
    """Return the results that a card shows; see `Results.from_card`."""
    return published_results(find_readme(card, token=token, endpoint=endpoint).card(section))


def published_results(published: PublishedCard) -> CardResults:
    """Return the results that a card shows, with the intervals that were published beside it."""
    facts = _with_published(published.facts, published.run) if published.run else published.facts
    return CardResults(facts, published.run, published.folder, published.section)


def _with_published(facts: Facts, run: PublishedRun) -> Facts:
    if len(run.quality) != len(facts.rows):
        return facts
    times: dict[tuple[int, Shape], Mapping[str, object]] = {}
    for columns in run.time:
        key = msgspec.convert(columns, TimeKey)
        times[key.row, Shape(key.batch_size, key.input_length, key.phase)] = columns
    rows = []
    for index, (row, columns) in enumerate(zip(facts.rows, run.quality)):
        metrics, figures = _with_intervals(row.metrics, columns), _with_intervals(row.figures, columns)
        timed = {shape: _with_intervals(cells, times.get((index, shape), {})) for shape, cells in row.times.items()}
        same = columns.get("same_model_as")
        same_model_as = same if isinstance(same, int) else row.same_model_as
        rows.append(replace(row, metrics=metrics, figures=figures, times=timed, same_model_as=same_model_as))
    environment = facts.environment or {**run.machine, "versions": run.versions}
    return replace(facts, rows=tuple(rows), environment=environment)


def _with_intervals(figures: Figures, columns: Mapping[str, object]) -> dict[str, Interval | None]:
    """Return figures with the bounds in a published row, where the card shows none."""
    complete = {}
    for name, figure in figures.items():
        low, high = columns.get(f"{name}_low"), columns.get(f"{name}_high")
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and figure and figure.low is None:
            figure = Interval(figure.value, low, high)
        complete[name] = figure
    return complete


def _cells(own: Figures, original: Figures) -> dict[str, float | None]:
    """Return the figures of a row and of its original model by column, with the bounds that exist."""
    figures = {**own, **{name + ORIGINAL: figure for name, figure in original.items()}}
    cells: dict[str, float | None] = {}
    for name, figure in figures.items():
        columns = interval_columns(name, figure)
        cells |= {key: value for key, value in columns.items() if value is not None or key == name}
    return cells


def _frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    names = dict.fromkeys(name for row in rows for name in row)
    return frame_of(rows, sorted(names, key=lambda name: name in ("same_model_as", "failure")))
