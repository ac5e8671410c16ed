"""Groups of a card's rows: which are baselines, recommended, on one Pareto front, or share their examples.

Leaves the text to `full` and `full_tables`, and the picture to `plot`.
"""

from __future__ import annotations

from pprint import saferepr

from benchcard.card.facts import Facts, Plain, Row

# The part of a data set that no quality figure depends on.
_CALIBRATION = "calibration_split"


def baselines(facts: Facts) -> tuple[int, ...]:
    """Return the rows that other rows are compared with, in their order."""
    rows = {facts.baseline, *(row.baseline for row in facts.rows)}
    return tuple(sorted(row for row in rows if row is not None))


def baseline_of(facts: Facts, index: int) -> int | None:
    """Return the row that a row is compared with."""
    own = facts.rows[index].baseline
    return facts.baseline if own is None else own


def recommended(facts: Facts) -> tuple[int, ...]:
    """Return the recommended rows, in the order of their baselines."""
    rows = [row for row in (facts.chosen, *facts.further) if row is not None]
    return tuple(sorted(rows, key=lambda row: (baseline_of(facts, row) or 0, row)))


def pareto_fronts(facts: Facts) -> list[list[int]]:
    """Return the rows of each Pareto front: one front for each set of examples."""
    fronts: dict[str, list[int]] = {}
    for index in facts.pareto:
        fronts.setdefault(_examples(facts.rows[index]), []).append(index)
    return list(fronts.values())


def have_different_examples(facts: Facts) -> bool:
    """Return whether some rows were evaluated on other examples than others."""
    return len({_examples(row) for row in facts.rows}) > 1


def _examples(row: Row) -> str:
    """Return a key of the examples that a row was evaluated on: the benchmarked parameters that select them."""
    selection: dict[str, Plain] = {}
    for name, value in row.parameters.items():
        parameter, _, part = name.partition(".")
        if parameter in ("dataset", "max_eval_samples") and part != _CALIBRATION:
            is_mapping = isinstance(value, dict)
            selection[name] = {key: value[key] for key in value if key != _CALIBRATION} if is_mapping else value
    return saferepr(selection)
