"""How figures stand in the cells of a full card: digits, intervals, and what is said where there is none.

Owns the number of decimals of a column, and the text of a figure with its interval, written and read. A column has the
same decimals in every cell; what is read from it has the same number again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence

from benchcard.card.facts import Figure, Interval
from benchcard.card.markdown import tables
from benchcard.errors import CardError

FAILED = "failed"
MISSING = "n/a"
NOT_DETECTABLE = "not detectable"
AT_RISK = "†"
# What a probability is that four decimals do not show; read back it is 0.
BELOW_RESOLUTION = "<0.0001"
_MOST_DECIMALS = 6
_NUMBER = r"-?\d+(?:\.\d+)?"
_CELL = re.compile(rf"({_NUMBER})(?: \[({_NUMBER}), ({_NUMBER})\])?")


def significant(values: Sequence[float]) -> int:
    """Decimals that leave the smallest of the values three significant digits, six at the most."""
    sizes = [abs(value) for value in values if abs(value) >= 0.5 * 10**-_MOST_DECIMALS]
    if not sizes:
        return 2
    return min(_MOST_DECIMALS, max(0, 2 - math.floor(math.log10(min(sizes)))))


def of_quality(values: Sequence[float]) -> int:
    """Decimals of a metric: three for shares, else as many as `significant` gives."""
    shares = all(value == 0 or 0.001 <= abs(value) <= 1 for value in values)
    return 3 if shares else max(2, significant(values))


def decimals(figures: Iterable[Figure | None], rule: Callable[[Sequence[float]], int] = significant) -> int:
    """Decimals of a column: those of the rule, and the same again for the column as it is then shown."""
    values = [figure.value for figure in figures if figure is not None]
    found = rule(values)
    for _ in range(_MOST_DECIMALS + 1):
        again = rule([float(tables.digits(value, found)) for value in values])
        if again == found:
            break
        found = again
    return found


def format_figure(figure: Figure, places: int) -> str:
    """A figure with its interval, where that is seen in so many digits: `0.977 [0.956, 0.990]`."""
    text = tables.digits(figure.value, places)
    if figure.interval is None:
        return text
    low, high = (tables.digits(bound, places) for bound in (figure.interval.low, figure.interval.high))
    return text if low == high == text else f"{text} [{low}, {high}]"


def parse_figure(cell: str, place: str) -> Figure | None:
    """The figure that a cell shows, whatever marks stand beside it; None where it shows that there is none.

    Raises:
        CardError: it shows something else.
    """
    text = cell.replace("**", "").replace(AT_RISK, "").replace(f", {NOT_DETECTABLE}", "").strip()
    if text in (FAILED, MISSING, ""):
        return None
    if text == BELOW_RESOLUTION:
        return Figure(0.0)
    match = _CELL.fullmatch(text)
    if match is None:
        raise CardError(f"{place}: {cell!r} is no figure")
    value, low, high = match.groups()
    return Figure(float(value), None if low is None else Interval(float(low), float(high)))
