"""Figures in the cells of a full card, written and parsed, with their intervals.

All cells of a column have as many decimals. A column that is read from a card is written with as many again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from benchcard.card.markdown.tables import format_number
from benchcard.errors import CardError
from benchcard.utils.values import PHASES, Interval, Shape

DecimalsRule: TypeAlias = Callable[[Sequence[float]], int]
"""Returns the number of decimals for the values of a column."""

FAILED = "failed"
MISSING = "n/a"
NOT_DETECTABLE = "not detectable"
AT_RISK = "†"
# A probability that four decimals cannot show. It is parsed as 0.
BELOW_RESOLUTION = "<0.0001"
_MAX_DECIMALS = 6
# Float32 cannot tell numbers apart that are closer to 1.
_MAX_NEAR_ONE = 9
_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_CELL = re.compile(rf"({_NUMBER})(?: \[({_NUMBER}), ({_NUMBER})\])?")


def three_digits(values: Sequence[float]) -> int:
    """Return the decimals that show three significant digits of the smallest value; six at most."""
    sizes = [abs(value) for value in values if abs(value) >= 0.5 * 10**-_MAX_DECIMALS]
    if not sizes:
        return 2
    return min(_MAX_DECIMALS, max(0, 2 - math.floor(math.log10(min(sizes)))))


def quality_decimals(values: Sequence[float]) -> int:
    """Return the decimals of a metric: three for shares between 0 and 1, else two or more, as for `three_digits`."""
    shares = all(value == 0 or 0.001 <= abs(value) <= 1 for value in values)
    return 3 if shares else max(2, three_digits(values))


def column_decimals(figures: Iterable[Interval | None], rule: DecimalsRule = three_digits) -> int:
    """Return the decimals of a column, such that the rule gives the same number for the column as it is shown."""
    values = [figure.value for figure in figures if figure is not None]
    decimals = rule(values)
    for _ in range(_MAX_DECIMALS + 1):
        shown = rule([float(format_number(value, decimals)) for value in values])
        if shown == decimals:
            break
        decimals = shown
    return decimals


def significant(value: float) -> str:
    """Return a number with three significant digits, as `5.40e-7`, for figures that differ by powers of ten."""
    text = f"{value:#.3g}".removesuffix(".") if value else "0"
    return re.sub(r"e([-+])0*(\d+)", lambda match: f"e{match[1].strip('+')}{match[2]}", text)


def near_one(figure: Interval) -> str:
    """Return a figure of at most 1 with the decimals that show three digits of its distance from 1, four at least:
    `0.9999600 [0.9999582, 0.9999613]`.
    """
    exponent = int(f"{1 - figure.value:.2e}".partition("e")[2])
    is_one = round(figure.value, _MAX_NEAR_ONE) == 1
    return format_figure(figure, 4 if is_one else min(_MAX_NEAR_ONE, max(4, 2 - exponent)))


def format_figure(figure: Interval, decimals: int | None) -> str:
    """Return a figure and, if these decimals show any width, its interval: `0.977 [0.956, 0.990]`. Without a number of
    decimals each has three significant digits.
    """

    def write(value: float) -> str:
        return significant(value) if decimals is None else format_number(value, decimals)

    text = write(figure.value)
    bounds = [write(bound) for bound in (figure.low, figure.high) if bound is not None]
    return text if {*bounds} <= {text} else f"{text} [{', '.join(bounds)}]"


def format_shape(shape: Shape) -> str:
    """Return a shape as text: `batch size 8, input length 64 (time per token)`."""
    return format_size(shape) + shape.remark


def format_size(shape: Shape) -> str:
    """Return a shape as text without its phase: `batch size 8, input length 64`."""
    length = "" if shape.input_length is None else f", input length {shape.input_length}"
    return f"batch size {shape.batch_size}{length}"


def latency_name(shape: Shape) -> str:
    """Return what the mean latency at a shape is called: `mean latency`, or `time per token`."""
    return PHASES.get(shape.phase or "", shape.phase) or "mean latency"


def parse_figure(cell: str, place: str) -> Interval | None:
    """Return the figure in a cell of either layout, without its marks; None if the cell says that there is none."""
    text = cell.replace("\N{NO-BREAK SPACE}", " ")
    text = text.replace("**", "").replace(AT_RISK, "").replace(f", {NOT_DETECTABLE}", "").strip()
    if text in (FAILED, MISSING, ""):
        return None
    if text == BELOW_RESOLUTION:
        return Interval(0.0)
    match = _CELL.fullmatch(text)
    if match is None:
        raise CardError(f"{place}: {cell!r} is not a figure")
    value, *bounds = match.groups()
    return Interval(float(value), *(None if bound is None else float(bound) for bound in bounds))
