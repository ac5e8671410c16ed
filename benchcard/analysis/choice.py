"""The choice of the configuration to ship, and its reasons in words.

What a row gains is computed in `gains`; this module owns the rule of the choice. A better quality is claimed by Holm's
correction over the paired tests of all rows. A worse one is judged by its own interval (non-inferiority), since a
correction for many rows would hide it.

Source: G. Piaggio et al., Reporting of Noninferiority and Equivalence Randomized Trials (JAMA 308, 2012).
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchcard.analysis.gains import Gain, Gains, mean_ratio
from benchcard.analysis.metric_info import unknown_direction
from benchcard.analysis.row_facts import RowQuality, number_rows
from benchcard.card.layouts.full_tables import format_comparison
from benchcard.measure.significance import holm
from benchcard.metrics.info import FIDELITY, leading_figure
from benchcard.utils.text import DisplayText, pluralize
from benchcard.utils.values import PHASES, Interval

_LEVEL = 0.05
# The sign of a better difference, by whether a higher value of the metric is better; 0 where that is not known.
SIGNS: Mapping[bool | None, float] = {True: 1.0, False: -1.0, None: 0.0}
# The rounding error of differences of floating-point sums.
_ROUNDING = 1e-12
_BETTER = {"latency": "is detectably faster", "memory": "takes detectably less memory", "size": "is smaller"}
_WORSE = {"latency": "slower", "memory": "more memory", "size": "larger"}
_ONLY_ONE = "there is one configuration, and nothing to compare it with"


@dataclass(frozen=True)
class Alternative:
    """A row that was not chosen, and why."""

    row: int
    parameters: Mapping[str, object]
    reason: str


@dataclass(frozen=True)
class Choice:
    """The configuration to ship.

    Attributes:
        row: The number of its row; None where nothing was measured.
        baseline: The row that it was compared with; None where there is none.
        objective: `latency`, `memory` or `size`.
        max_drop: How much worse than the baseline's the metric may be.
        fidelity: The limits of figures of fidelity.
        gain: The baseline's latency, memory or size over this row's, with the interval that holds for all rows at once;
            None where the baseline is kept, or there is none.
        difference: The metric minus the baseline's, with its 95 % interval; None where it was not compared.
        alternatives: The rows that were not chosen, except the baseline, and why.
        method: How the choice allows for comparing many rows.
    """

    row: int | None
    baseline: int | None
    parameters: Mapping[str, object]
    reason: str
    objective: str = "latency"
    metric: str | None = None
    max_drop: float | None = None
    fidelity: Mapping[str, float] = field(default_factory=dict)
    gain: Interval | None = None
    difference: Interval | None = None
    alternatives: tuple[Alternative, ...] = ()
    method: str = ""

    def __str__(self) -> str:
        if self.row is None:
            return self.reason
        return f"row {self.row} ({_format_parameters(self.parameters)}): {self.reason}"

    def explain(self) -> str:
        """Return the choice, the rows that were not chosen, grouped by reason, and the method, a line each."""
        rows_by_reason: dict[str, list[int]] = {}
        for alternative in self.alternatives:
            rows_by_reason.setdefault(alternative.reason, []).append(alternative.row)
        alternatives = [f"  not {number_rows(rows)}: {reason}" for reason, rows in rows_by_reason.items()]
        return DisplayText("\n".join([str(self), *alternatives, *([self.method] if self.method else [])]))

    def _repr_html_(self) -> str:
        """Return the choice and the rows that were not chosen as HTML, for notebooks."""
        rows = "".join(
            f"<tr><td>{alternative.row}</td><td>{html.escape(_format_parameters(alternative.parameters))}</td>"
            f"<td>{html.escape(alternative.reason)}</td></tr>"
            for alternative in self.alternatives
        )
        table = f"<table><tr><th>row</th><th>parameters</th><th>why not</th></tr>{rows}</table>" if rows else ""
        return f"<p><b>{html.escape(str(self))}</b></p>{table}<p>{html.escape(self.method)}</p>"


@dataclass
class Chooser:
    """The rule of the choice: the row that gains most among those that are good enough and detectably better than the
    baseline.

    A row is good enough if its metric is within `max_drop` of the baseline's, in the unit of the metric. It must be
    detectably better at every shape at which the baseline was timed. Rows are ordered by the geometric mean of their
    ratios; of equal ones the first is chosen. Where others are not detectably slower or worse than it, the one whose
    outputs are detectably closest to the baseline's is chosen among them. `limits` of figures of fidelity exclude rows
    whose interval exceeds them, and a row whose model is broken is never chosen. If no row qualifies, the baseline is
    chosen. Without a baseline, the row of best quality is chosen, and among equal ones the one that costs least.

    If `higher_is_better` is None, the better direction is not known: no row may differ from the baseline by more than
    `max_drop` in either direction, and the reason says so. The choice is among the rows of `baseline`, which the reason
    names if there are several.
    """

    rows: Mapping[int, RowQuality]
    gains: Gains
    baseline: int | None
    metric: str | None
    max_drop: float
    higher_is_better: bool | None = True
    limits: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sign = SIGNS[self.higher_is_better]
        self._candidates = {row: entry for row, entry in self.rows.items() if entry.baseline == self.baseline}
        self._values = {row: entry.figure.value for row, entry in self._candidates.items() if entry.figure}
        # Why each row is not chosen.
        self._reasons = dict.fromkeys(self.rows.keys() - self._candidates.keys(), "compared with another baseline")
        for row in self._candidates.keys() - self._values.keys():
            self._reasons[row] = f"no {self.metric}: {self.rows[row].failure or 'not defined'}"
        for row in [row for row in self._values if self.rows[row].broken]:
            self._reasons[row] = f"broken: {self.rows[row].broken}"
            del self._values[row]

    def choose(self) -> Choice:
        """Return the choice; its reason has remarks on what could not be compared."""
        choice, gains = self._choose(), self.gains
        remarks = [choice.reason]
        if self.metric is not None and self.higher_is_better is None:
            remarks.append(unknown_direction(self.metric))
        if self.baseline in gains.untimed_shapes and len(self._candidates) > 1:
            at = " and ".join(map(str, gains.untimed_shapes[self.baseline]))
            remarks.append(f"at {at} nothing is compared: the baseline has no {gains.objective} there")
        if gains.unfinished:
            done = f"{len(self.rows) - len(gains.unfinished)} of {pluralize(len(self.rows), 'configuration')} done"
            state = f"the run is not finished ({done}): `benchcard run` continues it"
            if choice.row is None:
                remarks = [state]
            elif choice.row == choice.baseline:
                remarks = [f"keep the baseline for now: {state}"]
            else:
                remarks.append(state)
        several = len({entry.baseline for entry in self.rows.values()}) > 1
        prefix = f"of the rows compared with row {self.baseline}: " if several else ""
        return replace(choice, reason=prefix + "; ".join(remarks))

    def good_enough(self) -> list[int]:
        """Return the rows that keep the quality of the baseline, itself included; none where it has no figures."""
        reference = None if self.baseline is None else self._values.get(self.baseline)
        return [
            row
            for row, value in self._values.items()
            if reference is not None
            and (row == self.baseline or not (self._is_too_bad(value, reference) or self._excess(row)))
        ]

    def _is_too_bad(self, value: float, reference: float) -> bool:
        return self._loss(value - reference) > self.max_drop + _ROUNDING

    def _choose(self) -> Choice:
        if not self._values:
            all_lack = self.metric is None or len(self._candidates) == len(self.rows)
            lacking = "no configuration has figures" if all_lack else f"none has {self.metric}"
            return self._choice(None, f"{lacking}: see the reasons in the column `failure`")
        if self.baseline is None or self.baseline not in self._values:
            return self._choose_by_quality()
        return self._choose_by_gain(self.baseline, self._values[self.baseline])

    def _choice(self, row: int | None, reason: str) -> Choice:
        others = sorted(self._reasons.items()) if row is not None else []
        alternatives = tuple(
            Alternative(other, self.rows[other].parameters, why) for other, why in others if other != row
        )
        parameters = {} if row is None else self.rows[row].parameters
        choice = Choice(row, self.baseline, parameters, reason, self.gains.objective, self.metric, self.max_drop)
        return replace(choice, fidelity=self.limits, alternatives=alternatives)

    def _choose_by_quality(self) -> Choice:
        values, costs, metric = self._values, self.gains.costs, self.metric
        chosen = min(values, key=lambda row: (-self._sign * values[row], costs.get(row, float("inf")), row))
        for row, value in values.items():
            if self._sign and value != values[chosen]:
                self._reasons[row] = f"{metric} {self._shown(value)}"
            else:
                same = f"the same {metric}" if self._sign else f"{metric} {self._shown(value)}"
                self._reasons[row] = f"{same}, at no less cost than row {chosen}"
        reason = f"{metric} {self._shown(values[chosen])} is the best" if self._sign else "it costs least"
        if self.baseline is None:
            reason += "; there is no unquantized baseline to compare with"
        else:
            reason += f"; the baseline, row {self.baseline}, has no figures to compare with"
        return replace(self._choice(chosen, _ONLY_ONE if len(self.rows) == 1 else reason), baseline=None)

    def _choose_by_gain(self, baseline: int, reference: float) -> Choice:
        """Return the row with the largest sure gain among those that are good enough, or the baseline."""
        p_values = self._adjusted_p_values()
        method = f"Of many rows some look better by chance: {self.gains.method}"
        if p_values:
            method += (
                f"; a better {self.metric} is claimed by p-values adjusted for {pluralize(len(p_values), 'model')} "
                "(Holm), and a worse one by its own 95 % interval"
            )
        objective = self.gains.objective
        ratios: dict[int, Interval] = {}
        for row, value in self._values.items():
            gains = self.gains.by_row.get(row, ())
            unsure = next((gain for gain in gains if not gain.sure), None)
            if row == baseline:
                continue
            if self._is_too_bad(value, reference):
                self._reasons[row] = f"{self.metric} {self._shown(value)} is not {self._bound(reference)}"
            elif excess := self._excess(row):
                self._reasons[row] = excess
            elif not gains:
                self._reasons[row] = f"the {objective} is not known"
            elif unsure:
                self._reasons[row] = _describe_unsure(unsure, objective)
            else:
                ratios[row] = mean_ratio(gains)
        if not ratios:
            return replace(self._choice(baseline, self._why_baseline(reference)), method=f"{method}.")
        fastest = max(ratios, key=lambda row: (ratios[row].value, -row))
        for row, ratio in ratios.items():
            less = f"{_describe_ratio(ratio, objective)}: a smaller gain"
            self._reasons[row] = "the same gain" if ratio == ratios[fastest] else less
        chosen = self._closest(fastest, ratios)
        entry, shapes = self._candidates[chosen], len(self.gains.by_row[chosen])
        mean = f" by {PHASES.get(self.gains.phase, self.gains.phase)}" if self.gains.phase else ""
        mean += f", on average over {shapes} shapes" if shapes > 1 else ""
        reason = (
            f"{_describe_ratio(ratios[chosen], objective)}{mean}, with {self.metric} "
            f"{self._shown(self._values[chosen])} (baseline {self._shown(reference)})"
            f"{self._describe_difference(entry.difference, p_values.get(entry.model))}"
        )
        if chosen != fastest:
            reason += f"; closer to the baseline than row {fastest}, which is not detectably better otherwise"
        choice = self._choice(chosen, reason)
        return replace(choice, gain=ratios[chosen], difference=entry.difference, method=f"{method}.")

    def _excess(self, row: int) -> str:
        """Return in words which limit of fidelity a row may exceed; empty where it exceeds none."""
        for name, limit in self.limits.items():
            figure = self._candidates[row].fidelity.get(name)
            if figure is None:
                return f"no {name}, for which there is a limit"
            is_floor = FIDELITY[name].higher_is_better
            value, bound = figure.value, figure.low if is_floor else figure.high
            worst = value if bound is None else bound
            if worst < limit if is_floor else worst > limit:
                beyond = value < limit if is_floor else value > limit
                verb, side = "is" if beyond else "may be", "below" if is_floor else "above"
                return f"{name} {_format_figure(name, figure)} {verb} {side} {limit:g}"
        return ""

    def _closest(self, fastest: int, ratios: Mapping[int, Interval]) -> int:
        """Return the row whose outputs are closest to the baseline's, among those that gain as much as the fastest and
        are as good, as far as can be detected; the fastest where none is detectably closer.
        """
        chosen = fastest
        name, reference = leading_figure(self._candidates[fastest].fidelity)
        for row in sorted(ratios):
            figure = self._candidates[row].fidelity.get(name)
            if figure is None or reference is None or not _is_closer(name, figure, reference):
                continue
            if not self._is_as_good(row, fastest) or not self.gains.is_same(row, fastest):
                continue
            best = self._candidates[chosen].fidelity[name]
            if chosen == fastest or (figure.value > best.value) == FIDELITY[name].higher_is_better:
                chosen = row
        if chosen != fastest and reference is not None:
            gain = _describe_ratio(ratios[fastest], self.gains.objective)
            figures = (_format_figure(name, each) for each in (reference, self._candidates[chosen].fidelity[name]))
            farther = f"farther from the baseline: {name} {' instead of '.join(figures)}"
            self._reasons[fastest] = f"{gain}: not detectably better than row {chosen}, and {farther}"
        return chosen

    def _is_as_good(self, row: int, other: int) -> bool:
        """Return whether the metric of a row is not detectably worse than another's."""
        first, second = (self._candidates[each].difference for each in (row, other))
        if first is None or second is None or None in (first.low, first.high, second.low, second.high):
            return self._loss(self._values[row] - self._values[other]) <= _ROUNDING
        least, most = (
            [self._loss(bound) for bound in (each.low, each.high) if bound is not None] for each in (first, second)
        )
        return min(least) <= max(most)

    def _why_baseline(self, reference: float) -> str:
        objective, costs = self.gains.objective, self.gains.costs
        if len(self.rows) == 1:
            return _ONLY_ONE if costs or objective == "size" else f"{_ONLY_ONE}; nothing was timed"
        others = [gain for row in self._candidates for gain in self.gains.by_row.get(row, ()) if row != self.baseline]
        if len(self._candidates) == 1:
            reason = "no other row is compared with it"
        elif any(gain.ratio for gain in others):
            bound = f"{'of ' if self._sign else ''}{self._bound(reference)}"
            limits = [
                f"{name} of at {'least' if FIDELITY[name].higher_is_better else 'most'} {limit:g}"
                for name, limit in self.limits.items()
            ]
            intact = " that is not broken" if any(entry.broken for entry in self._candidates.values()) else ""
            reason = f"nothing{intact} {_BETTER[objective]} at {' and '.join([f'{self.metric} {bound}', *limits])}"
        elif objective == "size":
            reason = "no other size is known"
        else:
            reason = "nothing was timed beside it" if costs else "nothing was timed"
        return f"keep the baseline: {reason}"

    def _shown(self, value: float, sign: str = "") -> str:
        """Return a value of the metric as text. Figures of fidelity differ by orders of magnitude."""
        return f"{value:{sign}{'.3g' if self.metric in FIDELITY else '.3f'}}"

    def _bound(self, reference: float) -> str:
        """Return in words what a metric must be to be good enough."""
        if not self._sign:
            return f"within {self.max_drop:g} of {self._shown(reference)}"
        return f"at {'least' if self._sign > 0 else 'most'} {self._shown(reference - self._sign * self.max_drop)}"

    def _loss(self, difference: float) -> float:
        """Return how much worse a difference makes a row; its size, if the better direction is not known."""
        return -self._sign * difference if self._sign else abs(difference)

    def _adjusted_p_values(self) -> dict[int, float]:
        """Return the adjusted p-values by model: rows with the same model are tested once."""
        first: dict[int, float | None] = {}
        for entry in self._candidates.values():
            first.setdefault(entry.model, entry.p_value)
        tested = {model: p_value for model, p_value in first.items() if p_value is not None}
        return dict(zip(tested, holm(list(tested.values()))))

    def _describe_difference(self, difference: Interval | None, p_value: float | None) -> str:
        """Return in words how the quality of a row differs from the baseline's; empty where it was not compared."""
        if difference is None:
            return ""
        worse = "worse" if self._sign else "different"
        if difference.low is None or difference.high is None:
            value = self._shown(difference.value, "+")
            return f": {value} (no interval), so these examples do not limit how much {worse} it may be"
        value, low, high = (self._shown(each, "+") for each in (difference.value, difference.low, difference.high))
        words = f": {value} [{low}, {high}]"
        losses = [self._loss(bound) for bound in (difference.low, difference.high)]
        if difference.excludes(0.0):
            if min(losses) > 0:
                words += f", detectably {worse}"
            elif p_value is not None and p_value < _LEVEL:
                words += ", detectably better"
        if max(losses) <= self.max_drop + _ROUNDING:
            return f"{words}: not {worse}{f' by more than {self.max_drop:g}' if self.max_drop else ''}"
        return f"{words}: may be {worse} by up to {max(losses):.3g}"


def _is_closer(name: str, figure: Interval, reference: Interval) -> bool:
    """Return whether a figure of fidelity is better than another by more than their intervals."""
    if None in (figure.low, figure.high, reference.low, reference.high):
        return False
    if FIDELITY[name].higher_is_better:
        figure, reference = reference, figure
    return figure.high < reference.low  # type: ignore[operator]  # None is excluded above


def _format_figure(name: str, figure: Interval) -> str:
    return format_comparison(figure, name, FIDELITY[name].unit or "")


def _describe_unsure(gain: Gain, objective: str) -> str:
    at = f" at {gain.shape}" if gain.shape else ""
    ratio = gain.ratio
    if ratio is None:
        return f"the {objective} is not known{at}"
    if ratio == Interval(1.0, 1.0, 1.0):
        return f"the {objective} is the baseline's"
    words = _describe_ratio(ratio, objective)
    if ratio.excludes(1.0) and gain.doubt:
        return f"{words}{at}, but {gain.doubt}"
    if ratio.high is not None and ratio.high < 1:
        return f"{_WORSE[objective]}{at}: {words}"
    if ratio.excludes(1.0) and gain.floor is not None:
        return (
            f"within the noise of this run{at}: {words}, "
            f"while two measurements of the baseline may differ by {gain.floor:.2f}x"
        )
    return f"not detectably better{at}: {words}"


def _describe_ratio(ratio: Interval, objective: str) -> str:
    if objective == "latency":
        bounds = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
        return f"{ratio.value:.2f}x{bounds} as fast as the baseline"
    exact = ratio.low is None or ratio.high is None or ratio.low == ratio.high
    bounds = "" if exact else f" [{1 / (ratio.high or 1):.2f}, {1 / (ratio.low or 1):.2f}]"
    return f"{1 / ratio.value:.2f}x{bounds} of the baseline's {objective}"


def _format_parameters(parameters: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in parameters.items() if value is not None)
