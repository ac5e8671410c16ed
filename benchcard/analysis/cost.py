"""The cheapest configuration of a run with prices: which row costs least for a million samples, on which machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchcard.analysis.records import Records
from benchcard.analysis.row_facts import number_rows
from benchcard.analysis.times import TimeFigures, row_times
from benchcard.utils.text import DisplayText
from benchcard.utils.values import SAMPLES, Interval, Shape


@dataclass(frozen=True)
class Cheapest:
    """The row that costs least at its cheapest shape.

    Attributes:
        cost: The cost of a million samples there, with its 95 % interval, in the currency of the price.
        others: The rows that may cost as little, since their intervals overlap with that of this one.
    """

    row: int
    label: str
    shape: Shape
    cost: Interval
    others: tuple[int, ...] = ()

    def __str__(self) -> str:
        cost = self.cost
        bounds = "" if cost.low is None or cost.high is None else f" [{cost.low:.3g}, {cost.high:.3g}]"
        others = f"; {number_rows(self.others)} may cost as little" if self.others else ""
        unit = SAMPLES.get(self.shape.phase, "samples")
        text = f"row {self.row} ({self.label}): {cost.value:.3g}{bounds} per million {unit} at {self.shape}{others}"
        return DisplayText(text)


def cheapest_row(records: Records, rows: Iterable[int]) -> Cheapest | None:
    """Return the cheapest of some rows, each at the shape at which it costs least; None where no cost is known. Of the
    phases of generation, the deciding one counts.
    """
    best: dict[int, tuple[Interval, Shape]] = {}
    for row in rows:
        for shape, figures in row_times(records, records.records[row]):
            if shape.phase not in (None, records.traits.deciding_phase):
                continue
            cost = figures.intervals["cost_per_million"] if isinstance(figures, TimeFigures) else None
            if cost is not None and (row not in best or cost.value < best[row][0].value):
                best[row] = cost, shape
    if not best:
        return None
    chosen = min(best, key=lambda row: (best[row][0].value, row))
    cost, shape = best[chosen]
    most = cost.value if cost.high is None else cost.high
    others = (row for row, (other, _) in best.items() if (other.value if other.low is None else other.low) <= most)
    label = records.plan[chosen].label
    return Cheapest(chosen, label, shape, cost, tuple(row for row in others if row != chosen))
