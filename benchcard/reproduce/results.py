"""The results that a card shows, as frames: what can be known without the run.

Owns the way from facts to the frames of `Results`, of both layouts and of older cards, where the original model's
figures stand beside each row's own (`accuracy_original`). Leaves the text to `card_source` and `card`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.analysis.frames.columns import column
from benchcard.card import Card, Facts
from benchcard.card.facts import Figures, Row
from benchcard.reproduce import source as card_source
from benchcard.reproduce import spec as card_spec
from benchcard.spec.spec import Spec
from benchcard.utils.text import pluralize
from benchcard.utils.values import Interval, Shape

if TYPE_CHECKING:
    import pandas as pd


ORIGINAL = "_original"


@dataclass(frozen=True)
class CardResults:
    """Results as a card shows them: figures with the digits that it gives, and nothing behind them.

    Attributes:
        facts: all that the card shows, with the intervals and the environment that were published beside it.
        about: what was published beside it; None where there is nothing.
        folder: where its paths start; None for a text or a repository.
    """

    facts: Facts
    about: Mapping[str, Any] | None
    folder: Path | None

    @property
    def task(self) -> str:
        """What the model does."""
        return self.facts.task

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the quality metrics, in the order of their columns."""
        return tuple(metric.name for metric in self.facts.metrics)

    @property
    def spec(self) -> Spec:
        """What was asked, so that it can be asked again: `Benchmark.from_spec` runs no code that it names.

        Raises:
            SpecError: The card says what cannot be asked here.
            CardError: It was measured in a way that is unknown here.
        """
        return card_spec.unchecked(self.facts, self.about, self.folder)[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """In what the spec is not as the card says."""
        return card_spec.unchecked(self.facts, self.about, self.folder)[1]

    @cached_property
    def plan(self) -> pd.DataFrame:
        """One row per configuration: benchmarked parameters, then fixed ones."""
        fixed = {name: value for name, value in self.facts.fixed.items() if name not in self.facts.benchmarked}
        return _frame([{**_parameters(index, row), **fixed} for index, row in enumerate(self.facts.rows)])

    @cached_property
    def quality(self) -> pd.DataFrame:
        """One row per configuration: benchmarked parameters, each metric with its interval where there is one, the
        original model's, which row is the same model, and why figures are missing.
        """
        rows = []
        for index, row in enumerate(self.facts.rows):
            told = {**_parameters(index, row), **_figures(row.metrics)}
            if row.original is not None:
                told |= _figures(row.original.metrics, ORIGINAL)
            rows.append({**told, "same_model_as": row.same_model_as, "failure": _failure(row)})
        return _frame(rows)

    @cached_property
    def time(self) -> pd.DataFrame:
        """One row per configuration, batch size and input length: the figures with their intervals."""
        rows = []
        for index, row in enumerate(self.facts.rows):
            for shape in self.facts.shapes:
                told = {**_parameters(index, row), "batch_size": shape.batch_size, "input_length": shape.input_length}
                told |= _figures(row.times.get(shape, {}))
                if row.original is not None:
                    told |= _figures(row.original.times.get(shape, {}), ORIGINAL)
                rows.append({**told, "failure": _failure(row)})
        return _frame(rows)

    def __repr__(self) -> str:
        tables = [frame.to_string(index=False, na_rep="") for frame in (self.quality, self.time)]
        return "\n\n".join(
            [f"Results of {pluralize(len(self.facts.rows), 'configuration')}, read from a card", *tables]
        )

    def _repr_html_(self) -> str:
        return "".join(
            f"<h4>{title}</h4>{frame.to_html(index=False, na_rep='', escape=True)}"
            for title, frame in (("Quality", self.quality), ("Time", self.time))
        )


def from_card(
    card: str | Path, section: str | None = None, *, token: str | bool | None = None, endpoint: str | None = None
) -> CardResults:
    """The results that a card shows; see `Results.from_card`."""
    source = card_source.find_card(card, section, token=token, endpoint=endpoint)
    facts = Card(source.text).facts()
    return CardResults(_with(facts, source.about) if source.about else facts, source.about, source.folder)


def _with(facts: Facts, about: Mapping[str, Any]) -> Facts:
    """The facts with the intervals and the environment that were published beside the card."""
    quality, time = about.get("quality") or [], about.get("time") or []
    if len(quality) != len(facts.rows):
        return facts
    timed: dict[tuple[int, Shape], Mapping[str, Any]] = {}
    for each in time:
        length = each.get("input_length")
        shape = Shape(int(each["batch_size"]), None if length is None else int(length))
        timed[int(each["row"]), shape] = each
    rows = []
    for index, (row, told) in enumerate(zip(facts.rows, quality)):
        times = {shape: _intervals(figures, timed.get((index, shape), {})) for shape, figures in row.times.items()}
        same = told.get("same_model_as")
        rows.append(
            replace(
                row,
                metrics=_intervals(row.metrics, told),
                times=times,
                same_model_as=row.same_model_as if same is None else int(same),
            )
        )
    environment = facts.environment or {**(about.get("machine") or {}), "versions": about.get("versions") or {}}
    return replace(facts, rows=tuple(rows), environment=environment)


def _intervals(figures: Figures, told: Mapping[str, Any]) -> dict[str, Interval | None]:
    done = {}
    for name, figure in figures.items():
        low, high = told.get(f"{name}_low"), told.get(f"{name}_high")
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and figure and figure.low is None:
            figure = Interval(figure.value, low, high)
        done[name] = figure
    return done


def _parameters(index: int, row: Row) -> dict[str, Any]:
    return {"row": index, **row.parameters}


def _figures(figures: Figures, ending: str = "") -> dict[str, float | None]:
    told: dict[str, float | None] = {}
    for name, figure in figures.items():
        told[f"{name}{ending}"] = None if figure is None else figure.value
        if figure is not None and figure.low is not None:
            told |= {f"{name}{ending}_low": figure.low, f"{name}{ending}_high": figure.high}
    return told


def _failure(row: Row) -> str | None:
    return None if row.failure is None else str(row.failure)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    names = dict.fromkeys(name for row in rows for name in row)
    last = [name for name in ("same_model_as", "failure") if name in names]
    ordered = [name for name in names if name not in last] + last
    return pd.DataFrame({name: column([row.get(name) for row in rows]) for name in ordered})
