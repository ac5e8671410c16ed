"""The rows of a card by what they are compared with, and by what they were evaluated on.

Owns which rows are baselines, whose row is recommended, and which rows stand on one Pareto front. Leaves how it is said
to `full` and `full_tables`, and how it is drawn to `plot`.
"""

from __future__ import annotations

from benchcard.card.facts import Facts, Plain, Row

# What of a data set no figure of quality depends on.
_CALIBRATION = "calibration_split"


def baselines(facts: Facts) -> tuple[int, ...]:
    """The rows that others are compared with, in their order."""
    found = {facts.baseline, *(row.baseline for row in facts.rows)}
    return tuple(sorted(place for place in found if place is not None))


def baseline_of(facts: Facts, index: int) -> int | None:
    """The row that a row is compared with."""
    own = facts.rows[index].baseline
    return facts.baseline if own is None else own


def recommended(facts: Facts) -> tuple[int, ...]:
    """The recommended rows, in the order of their baselines."""
    found = [place for place in (facts.chosen, *facts.further) if place is not None]
    return tuple(sorted(found, key=lambda place: (baseline_of(facts, place) or 0, place)))


def fronts(facts: Facts) -> tuple[tuple[int, ...], ...]:
    """The rows of the Pareto set, those that were evaluated on the same examples together."""
    found: dict[str, list[int]] = {}
    for place in facts.pareto:
        found.setdefault(_examples(facts.rows[place]), []).append(place)
    return tuple(map(tuple, found.values()))


def evaluated_apart(facts: Facts) -> bool:
    """Whether not all rows were evaluated on the same examples."""
    return len({_examples(row) for row in facts.rows}) > 1


def _examples(row: Row) -> str:
    """The benchmarked parameters that say on what a row was evaluated, as a key."""
    told: dict[str, Plain] = {}
    for name, value in row.parameters.items():
        parameter, _, part = name.partition(".")
        if parameter in ("dataset", "max_eval_samples") and part != _CALIBRATION:
            is_whole = isinstance(value, dict)
            told[name] = {key: value[key] for key in sorted(value) if key != _CALIBRATION} if is_whole else value
    return repr(told)
