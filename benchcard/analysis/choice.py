"""Which configuration to ship, and why: the choice from the frames, with its reasons in words.

What a row gains, with intervals that hold for all rows at once, is told in `gains`; this module owns the rule and its
words. A gain in quality is claimed by Holm's correction over the paired tests of all rows; a loss is judged by its own
interval (non-inferiority), since a correction for many rows would hide it.

Source: G. Piaggio et al., Reporting of Noninferiority and Equivalence Randomized Trials (JAMA 308, 2012).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import TYPE_CHECKING, Any

from benchcard.analysis.frames.columns import is_known
from benchcard.utils.text import pluralize

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.analysis.gains import Gain, Gains
    from benchcard.utils.values import Interval


_LEVEL = 0.05
# By the metric's direction; 0 where nobody says.
SIGNS: Mapping[bool | None, float] = {True: 1.0, False: -1.0, None: 0.0}
# Differences of sums of floating-point numbers.
_ROUNDING = 1e-12
_ALONE = "there is one configuration, and nothing to compare it with"


@dataclass(frozen=True)
class Alternative:
    """A row that was not chosen.

    Attributes:
        row: Its number.
        parameters: Its benchmarked parameters.
        reason: Why not.
    """

    row: int
    parameters: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Choice:
    """The configuration to ship.

    Attributes:
        row: Its row; None where nothing was measured.
        baseline: The row it was compared with; None where there is none.
        parameters: Its benchmarked parameters.
        reason: Why this one, in one sentence.
        objective: What was to be gained: `latency`, `memory` or `size`.
        metric: The metric that decided what is good enough.
        max_drop: How much of it might be lost.
        gain: The baseline's latency, memory or size over this row's, with the interval that holds for all rows at once;
            None where the baseline is kept, or there is none.
        difference: The metric against the baseline's, with its 95 % interval; None where it was not compared.
        alternatives: The rows that were not chosen, the baseline apart, and why.
        method: How looking at many rows was allowed for.
    """

    row: int | None
    baseline: int | None
    parameters: Mapping[str, Any]
    reason: str
    objective: str = "latency"
    metric: str | None = None
    max_drop: float | None = None
    gain: Interval | None = None
    difference: Interval | None = None
    alternatives: tuple[Alternative, ...] = ()
    method: str = ""

    def __str__(self) -> str:
        return f"row {self.row} ({_said(self.parameters)}): {self.reason}" if self.row is not None else self.reason

    def explain(self) -> str:
        """The choice, what it was chosen over, and how, in lines; rows that fell to the same reason share one."""
        grouped: dict[str, list[int]] = {}
        for each in self.alternatives:
            grouped.setdefault(each.reason, []).append(each.row)
        over = [
            f"  not row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows))}: {reason}"
            for reason, rows in grouped.items()
        ]
        return "\n".join([str(self), *over, *([self.method] if self.method else [])])

    def _repr_html_(self) -> str:
        """The choice and what it was chosen over, as a notebook shows it."""
        import html

        rows = "".join(
            f"<tr><td>{each.row}</td><td>{html.escape(_said(each.parameters))}</td>"
            f"<td>{html.escape(each.reason)}</td></tr>"
            for each in self.alternatives
        )
        table = f"<table><tr><th>row</th><th>parameters</th><th>why not</th></tr>{rows}</table>" if rows else ""
        return f"<p><b>{html.escape(str(self))}</b></p>{table}<p>{html.escape(self.method)}</p>"


def choose_row(
    quality: pd.DataFrame,
    gains: Gains,
    baselines: Mapping[int, int | None],
    baseline: int | None,
    axes: list[str],
    metric: str | None,
    max_drop: float,
    higher_is_better: bool | None = True,
) -> Choice:
    """The row that gains most of those that are compared with a baseline, whose quality is within `max_drop` of the
    baseline's and that is better than it beyond chance at every shape that the baseline was timed at; else the
    baseline.

    Rows are ordered by the geometric mean of their ratios; of equal ones the first is taken. Where there is no
    baseline, the row of best quality is taken and, among equals, the one that costs least. Where nobody says which way
    the metric is better, no row may differ from the baseline by more than `max_drop` on either side, and the reason
    says so. It says, too, of which baseline the rows are, where there are several.

    Args:
        quality: The frame of `Results.quality`.
        gains: What each row gains, in the objective.
        baselines: The row that each row is compared with.
        baseline: The baseline.
        axes: The benchmarked parameters.
        metric: The metric that decides.
        max_drop: How much of it may be lost, in the metric's own unit.
        higher_is_better: The metric's direction; None where nobody says.
    """
    found = _best(quality, gains, baselines, baseline, axes, metric, max_drop, higher_is_better)
    if metric is not None and higher_is_better is None:
        found = replace(found, reason=f"{found.reason}; {unknown_direction(metric)}")
    is_alone = list(baselines.values()).count(baseline) == 1
    if not is_alone and (lost := gains.lost.get(baseline, ()) if baseline is not None else ()):
        found = replace(found, reason=f"{found.reason}; {_uncompared(lost, gains.objective)}")
    if gains.waiting:
        found = replace(found, reason=_so_far(found, len(quality) - len(gains.waiting), len(quality)))
    if len(set(baselines.values())) > 1:
        found = replace(found, reason=f"of the rows compared with row {baseline}: {found.reason}")
    return found


def _best(
    quality: pd.DataFrame,
    gains: Gains,
    baselines: Mapping[int, int | None],
    baseline: int | None,
    axes: list[str],
    metric: str | None,
    max_drop: float,
    higher_is_better: bool | None,
) -> Choice:
    sign = SIGNS[higher_is_better]
    told = rows_by_number(quality)
    mine = {row: each for row, each in told.items() if baselines.get(row) == baseline}
    value = {
        row: float(each[metric]) for row, each in mine.items() if metric is not None and is_known(each.get(metric))
    }
    rest: dict[str, Any] = {"objective": gains.objective, "metric": metric, "max_drop": max_drop}

    def parameters(row: int) -> dict[str, Any]:
        return {name: told[row][name] for name in axes}

    def others(chosen: int, reasons: Mapping[int, str]) -> tuple[Alternative, ...]:
        another = {row: "compared with another baseline" for row in told if row not in mine}
        every = sorted({**another, **reasons}.items())
        return tuple(Alternative(row, parameters(row), reason) for row, reason in every if row != chosen)

    if metric is None or not value:
        whose = "no configuration has figures" if metric is None or len(mine) == len(told) else f"none has {metric}"
        return Choice(None, baseline, {}, f"{whose}: see the reasons in the column `failure`", **rest)
    if baseline is None or baseline not in value:
        row = min(value, key=lambda each: (-sign * value[each], gains.costs.get(each, float("inf")), each))
        why = "there is no unquantized baseline to compare with"
        if baseline is not None:
            why = f"the baseline, row {baseline}, has no figures to compare with"
        most = value[row] if sign else None
        reasons = {each: _without(told[each], value.get(each), metric, most, row) for each in mine if each != row}
        reason = f"{metric} {value[row]:.3f} is the best; {why}" if sign else f"it costs least; {why}"
        reason = _ALONE if len(told) == 1 else reason
        return Choice(row, None, parameters(row), reason, alternatives=others(row, reasons), **rest)
    adjusted = _adjusted(mine, metric)
    rest["method"] = f"Of many rows some look better by chance: {gains.method}" + (
        f"; a better {metric} is claimed by p-values adjusted for {pluralize(len(adjusted), 'model')} (Holm), "
        "and a worse one by its own 95 % interval."
        if adjusted
        else "."
    )
    floor = value[baseline] - sign * max_drop
    bound = {1.0: f"of at least {floor:.3f}", -1.0: f"of at most {floor:.3f}"}.get(
        sign, f"within {max_drop:g} of {value[baseline]:.3f}"
    )
    reasons, candidates = {}, {}
    for row in (row for row in mine if row != baseline):
        found = gains.by_row.get(row, ())
        if row not in value:
            reasons[row] = f"no {metric}: {told[row].get('failure') or 'not defined'}"
        elif _loss(value[row] - value[baseline], sign) > max_drop + _ROUNDING:
            reasons[row] = f"{metric} {value[row]:.3f} is not {bound.removeprefix('of ')}"
        elif not found:
            reasons[row] = f"the {gains.objective} is not known"
        elif unsure := next((gain for gain in found if not gain.sure), None):
            reasons[row] = _unsure(unsure, gains.objective)
        else:
            candidates[row] = mean_gain(found)
    if not candidates:
        why = f"nothing {_better(gains.objective)} at {metric} {bound}"
        if not any(gain.ratio for other in mine if other != baseline for gain in gains.by_row.get(other, ())):
            why = _nothing_known(gains) if len(mine) > 1 else "no other row is compared with it"
        reason = f"keep the baseline: {why}"
        if len(told) == 1:
            reason = _ALONE if gains.costs or gains.objective == "size" else f"{_ALONE}; nothing was timed"
        return Choice(baseline, baseline, parameters(baseline), reason, alternatives=others(baseline, reasons), **rest)
    row = max(candidates, key=lambda each: (candidates[each].value, -each))
    for other in candidates:
        if other != row:
            same = candidates[other] == candidates[row]
            less = f"{_words(candidates[other], gains.objective)}: a smaller gain"
            reasons[other] = "the same gain" if same else less
    reason = (
        f"{_words(candidates[row], gains.objective)}, with {metric} {value[row]:.3f} (baseline {value[baseline]:.3f}"
    )
    said = _of_quality(told[row], metric, adjusted.get(_model(row, told[row])), max_drop, sign)
    return Choice(
        row,
        baseline,
        parameters(row),
        f"{reason}){said}",
        gain=candidates[row],
        difference=_difference(told[row], metric),
        alternatives=others(row, reasons),
        **rest,
    )


def _so_far(found: Choice, done: int, rows: int) -> str:
    """The reason of a choice from a run that is not finished."""
    state = f"the run is not finished, with {done} of {pluralize(rows, 'configuration')} done: `benchcard run` goes on"
    if found.row is None:
        return state
    return f"keep the baseline for now: {state}" if found.row == found.baseline else f"{found.reason}; {state}"


def _nothing_known(gains: Gains) -> str:
    """That there is no row whose gain is known."""
    if gains.objective == "size":
        return "no other size is known"
    return "nothing was timed beside it" if gains.costs else "nothing was timed"


def _uncompared(shapes: Sequence[str], objective: str) -> str:
    """That the baseline has no figure at some shapes, so that no row was asked to be better there."""
    return f"at {' and '.join(shapes)} nothing is compared: the baseline has no {objective} there"


def _loss(difference: float, sign: float) -> float:
    """How much worse a difference from the baseline is; either way, where nobody says which is worse."""
    return -sign * difference if sign else abs(difference)


def unknown_direction(metric: str) -> str:
    """That nobody says which way a metric is better, and what to do."""
    return f"nobody says which way `{metric}` is better: give `higher_is_better: {{{metric}: true}}`, or false"


def rows_by_number(quality: pd.DataFrame) -> dict[int, dict[str, Any]]:
    """The frame's rows by their number; None where a cell holds nothing, whatever stands for it in that column."""
    return {
        int(row["row"]): {str(name): value if is_known(value) else None for name, value in row.items()}
        for row in quality.to_dict("records")
    }


def mean_gain(found: Sequence[Gain]) -> Interval:
    """The geometric mean of the ratios of all shapes, from the least to the most that any of them may be."""
    from benchcard.utils.values import Interval

    ratios = [gain.ratio for gain in found if gain.ratio]
    lows, highs = [each.low for each in ratios], [each.high for each in ratios]
    value = exp(sum(log(each.value) for each in ratios) / len(ratios))
    low = min((each for each in lows if each is not None), default=None)
    high = max((each for each in highs if each is not None), default=None)
    return Interval(value, low, high)


def _adjusted(told: Mapping[int, Mapping[str, Any]], metric: str) -> dict[int, float]:
    """The p-values of all compared models, by `_model`, adjusted for their number: rows that are the same model as an
    earlier one of them are no further look.
    """
    from benchcard.measure.significance import holm

    first: dict[int, Any] = {}
    for row, each in told.items():
        first.setdefault(_model(row, each), each.get(f"{metric}_p_value"))
    known = {model: float(p_value) for model, p_value in first.items() if is_known(p_value)}
    return dict(zip(known, holm(list(known.values()))))


def _model(row: int, told: Mapping[str, Any]) -> int:
    """The first row of the run that is the same model."""
    first = told.get("same_model_as")
    return int(first) if first is not None else row


def _of_quality(row: Mapping[str, Any], metric: str, p_value: float | None, max_drop: float, sign: float) -> str:
    """Return what the examples say of the difference from the baseline, in words.

    A gain is claimed by the adjusted p-value. A loss is judged by its own interval, whatever the number of rows: the
    model is not worse by more than `max_drop` only where the whole interval says so.
    """
    difference = _difference(row, metric)
    if difference is None:
        return ""
    worse = "worse" if sign else "different"
    if difference.low is None or difference.high is None:
        return f": {difference.value:+.3f} (no interval), so these examples do not limit how much {worse} it may be"
    words = f": {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
    losses = [_loss(bound, sign) for bound in (difference.low, difference.high)]
    if not difference.low <= 0 <= difference.high:
        if min(losses) > 0:
            words += f", detectably {worse}"
        elif p_value is not None and p_value < _LEVEL:
            words += ", detectably better"
    if max(losses) <= max_drop + _ROUNDING:
        return f"{words}: not {worse}{f' by more than {max_drop:g}' if max_drop else ''}"
    return f"{words}: may be {worse} by up to {max(losses):.3g}"


def _difference(row: Mapping[str, Any], metric: str) -> Interval | None:
    from benchcard.utils.values import Interval

    values = [row.get(f"{metric}_{part}") for part in ("difference", "difference_low", "difference_high")]
    if not is_known(values[0]):
        return None
    value, low, high = (float(each) if each is not None and is_known(each) else None for each in values)
    return Interval(value or 0.0, low, high)


def _without(row: Mapping[str, Any], value: float | None, metric: str, most: float | None, chosen: int) -> str:
    """Why a row was not taken where there is no baseline."""
    if value is None:
        return f"no {metric}: {row.get('failure') or 'not defined'}"
    if most is None:
        return f"{metric} {value:.3f}, at no less cost than row {chosen}"
    return f"{metric} {value:.3f}" if value != most else f"the same {metric}, at no less cost than row {chosen}"


def _better(objective: str) -> str:
    return {"latency": "is detectably faster", "memory": "takes detectably less memory", "size": "is smaller"}[
        objective
    ]


def _unsure(gain: Gain, objective: str) -> str:
    at = f" at {gain.shape}" if gain.shape else ""
    if gain.ratio is None:
        return f"the {objective} is not known{at}"
    if gain.ratio.low == gain.ratio.value == gain.ratio.high == 1:
        return f"the {objective} is the baseline's"
    if gain.ratio.high is not None and gain.ratio.high < 1:
        worse = {"latency": "slower", "memory": "more memory", "size": "larger"}[objective]
        return f"{worse}{at}: {_words(gain.ratio, objective)}"
    if gain.ratio.excludes(1.0) and gain.floor is not None:
        itself = f"the baseline, timed twice, may differ from itself by {gain.floor:.2f}x"
        return f"not beyond the noise of this run{at}: {_words(gain.ratio, objective)}, and {itself}"
    if gain.ratio.excludes(1.0) and objective == "latency":
        return f"{_words(gain.ratio, objective)}{at}, and how far the baseline is from itself is not known"
    return f"not beyond doubt better{at}: {_words(gain.ratio, objective)}"


def _words(ratio: Interval, objective: str) -> str:
    """A gain in words."""
    if objective == "latency":
        bounds = f" [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio.low is not None and ratio.high is not None else ""
        return f"{ratio.value:.2f}x{bounds} as fast as the baseline"
    exact = ratio.low is None or ratio.high is None or ratio.low == ratio.high
    bounds = "" if exact else f" [{1 / (ratio.high or 1):.2f}, {1 / (ratio.low or 1):.2f}]"
    return f"{1 / ratio.value:.2f}x{bounds} of the baseline's {objective}"


def _said(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items() if value is not None)
