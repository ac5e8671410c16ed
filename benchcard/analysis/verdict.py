"""The verdict on a model file: whether it stands for the float model, by quality and fidelity with their intervals.

A limit is exceeded where the whole interval lies beyond it, and kept where the whole interval lies within it. Between
the two the data cannot tell. So a chance result makes no file broken, and few examples make none faithful: intervals of
few examples miss what happens to few of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchcard.card.layouts.full_tables import format_comparison
from benchcard.metrics.info import DEGRADED_NATS, FIDELITY, MetricInfo, default_max_drop
from benchcard.utils.values import Interval

FAITHFUL, DEGRADED, BROKEN, UNKNOWN, REFERENCE = "faithful", "degraded", "broken", "unknown", "reference"

# Ten times the drop of a metric that is accepted. Quantization that works costs a point or two; ten points are what a
# wrong scale or a lost layer costs. Source: the int8 rows of the cards in tests/data/cards.
BROKEN_DROPS = 10
# Cohen's kappa of the predictions with the baseline's below which they are hardly related: "fair" at best.
# Source: J. Landis and G. Koch, The Measurement of Observer Agreement for Categorical Data (Biometrics 33, 1977).
BROKEN_KAPPA = 0.4
# Of a file that changes one example in twenty, fewer examples show nothing more often than once in twenty draws:
# 0.95 ** 59 is below 0.05.
FEWEST_EXAMPLES = 59
_COMPARABLE = ("share", "%", "coefficient")


@dataclass(frozen=True)
class _Limits:
    """How far a figure may be from that of equal models: of a file that is not degraded, and of one that is not broken,
    by the bits of its coarsest weights; the last one is for fewer bits.
    """

    degraded: float
    broken: Mapping[int, float]

    def broken_at(self, bits: int) -> float:
        """Return the limit for a number of bits."""
        return next(limit for least, limit in self.broken.items() if bits >= least)


# Rounding to one bit less doubles the error of the logits, and quadruples the KL divergence. The good files of the
# examples have at most 1e-9 nats in float32, 1e-6 in float16, 4e-4 in 8 bits and 1e-2 in 4 bits; the limits leave a
# factor of a hundred to a thousand for larger models. A cosine of 0.97 is that of two sentences that mean the same.
_LIMITS: Mapping[str, _Limits] = {
    "kl_mean": _Limits(DEGRADED_NATS, {32: 1e-4, 16: 1e-2, 8: 0.3, 0: 1.0}),
    "cosine_mean": _Limits(0.03, {32: 1e-4, 16: 1e-3, 8: 0.1, 0: 0.2}),
    "rms_difference": _Limits(0.1, {32: 0.01, 16: 0.05, 8: 0.5, 0: 0.8}),
    "agreement": _Limits(0.05, {32: 0.02, 16: 0.05, 8: 0.4, 0: 0.6}),
}


@dataclass(frozen=True)
class Verdict:
    """A verdict, and why."""

    name: str
    why: str = ""


@dataclass(frozen=True)
class Evidence:
    """What is known of a file that loads, against the baseline on the same examples.

    Attributes:
        difference: The first metric minus the baseline's; None where it was not compared.
        fidelity: The figures of `CompareOutcome.fidelity`.
        examples: How many examples both were evaluated on.
        bits: The bits of the coarsest weights; None where they are not known.
        chance: The agreement of predictions with the same shares of labels that are unrelated; None without labels.
        spread: The standard deviation of the numbers that the baseline predicts; None where it predicts none.
    """

    metric: str = ""
    info: MetricInfo = field(default_factory=lambda: MetricInfo(None, None))
    difference: Interval | None = None
    fidelity: Mapping[str, Interval] = field(default_factory=dict)
    examples: int = 0
    bits: int | None = None
    chance: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class _Check:
    """A figure as how much worse than that of an equal model it is, with its interval, and its limits."""

    text: str
    value: float
    low: float | None
    high: float | None
    degraded: float
    broken: float

    def is_beyond(self, limit: float) -> bool:
        """Return whether the whole interval is beyond a limit."""
        return self.low is not None and self.low > limit

    def is_within(self, limit: float) -> bool:
        """Return whether the whole interval is within a limit."""
        return self.high is not None and self.high <= limit


def judge(evidence: Evidence, max_drop: float | None = None) -> Verdict:
    """Return the verdict on a file that loads and gives finite outputs.

    A file is `broken` if its metric is surely ten accepted drops below the baseline's, if its predictions are surely
    hardly related to the baseline's, or if its outputs are surely further from the baseline's than its number of bits
    explains. It is `degraded` if the metric surely lost more than `max_drop` (by default one point), or the outputs are
    surely further from the baseline's than a stand-in for it may be. It is `faithful` if no figure is beyond the limit
    of `degraded`, the fidelity or the metric is surely within it, and there are at least `FEWEST_EXAMPLES` examples.
    """
    loss, leading, related = _loss(evidence, max_drop), _leading(evidence), _kappa(evidence)
    checks = [check for check in (loss, leading, related) if check is not None]
    for name in (BROKEN, DEGRADED):
        failed = [check.text for check in checks if check.is_beyond(getattr(check, name))]
        if failed:
            return Verdict(name, "; ".join(failed))
    if not checks:
        return Verdict(UNKNOWN, "it was not compared with the baseline")
    if evidence.examples < FEWEST_EXAMPLES:
        reason = f"{evidence.examples} examples are too few to call it faithful; use at least {FEWEST_EXAMPLES}"
    elif any(check.value > check.degraded for check in checks) or not any(
        check.is_within(check.degraded) for check in (loss, leading) if check
    ):
        reason = f"{evidence.examples} examples are too few to tell"
    else:
        return Verdict(FAITHFUL)
    return Verdict(UNKNOWN, f"{reason}: {'; '.join(check.text for check in checks)}")


def _loss(evidence: Evidence, max_drop: float | None) -> _Check | None:
    """Return the check of the metric; None where it has no known direction, or no unit in which points count."""
    difference, info = evidence.difference, evidence.info
    if difference is None or info.higher_is_better is None or info.unit not in _COMPARABLE:
        return None
    value, low, high = difference.value, difference.low, difference.high
    if info.higher_is_better:
        value, low, high = -value, (None if high is None else -high), (None if low is None else -low)
    point = default_max_drop(info.unit)
    text = f"{evidence.metric} {_format_difference(difference)} against the baseline"
    return _Check(text, value, low, high, point if max_drop is None else max_drop, BROKEN_DROPS * point)


def _leading(evidence: Evidence) -> _Check | None:
    """Return the check of the leading figure of fidelity; None where the file was not compared by one."""
    figures = {name: evidence.fidelity[name] for name in _LIMITS if name in evidence.fidelity}
    if not evidence.spread:
        figures.pop("rms_difference", None)
    # A figure that is equal for all examples, as that of an equal model, has no interval.
    name = next((name for name, figure in figures.items() if figure.low is not None), next(iter(figures), None))
    if name is None:
        return None
    figure, limits, bits = figures[name], _LIMITS[name], evidence.bits or 0
    value, low, high, text = figure.value, figure.low, figure.high, f"{name} {_format_fidelity(name, figure)}"
    if name in ("cosine_mean", "agreement"):
        value, low, high = 1 - value, (None if high is None else 1 - high), (None if low is None else 1 - low)
    if name == "rms_difference" and evidence.spread:
        value /= evidence.spread
        low, high = (None if bound is None else bound / evidence.spread for bound in (low, high))
        text += f", where the baseline's numbers have a standard deviation of {evidence.spread:.3g}"
    broken = limits.broken_at(bits)
    if evidence.bits and low is not None and low > broken:
        text += f": rounding to {evidence.bits} bits does not explain this, weights or graph differ from the reference"
    return _Check(text, value, low, high, limits.degraded, broken)


def _kappa(evidence: Evidence) -> _Check | None:
    """Return the check of the agreement beyond chance; None where predictions are no labels, or only one label."""
    agreement, chance = evidence.fidelity.get("agreement"), evidence.chance
    if agreement is None or chance is None or chance >= 1:
        return None
    value = (1 - agreement.value) / (1 - chance)
    low, high = ((None if bound is None else (1 - bound) / (1 - chance)) for bound in (agreement.high, agreement.low))
    text = f"agreement {_format_fidelity('agreement', agreement)} with the baseline, {chance:.3g} by chance alone"
    least = _LIMITS["agreement"].degraded / (1 - chance)
    return _Check(text, value, low, high, least, 1 - BROKEN_KAPPA)


def _format_fidelity(name: str, figure: Interval) -> str:
    return format_comparison(figure, name, FIDELITY[name].unit or "")


def _format_difference(difference: Interval) -> str:
    bounds = (
        f" [{difference.low:+.3g}, {difference.high:+.3g}]" if None not in (difference.low, difference.high) else ""
    )
    return f"{difference.value:+.3g}{bounds}"


def chance_agreement(baseline: Sequence[object], model: Sequence[object]) -> float | None:
    """Return how often two unrelated predictors agree that predict each label as often as these do.

    Predictions are a label for each example, or a list of names of labels, one for each word; None for others.
    """
    counts = []
    for predictions in (baseline, model):
        lists = [value if isinstance(value, list) else [value] for value in predictions]
        units = [unit for units in lists for unit in units]
        is_labels = all(
            isinstance(unit, str if isinstance(value, list) else int) for value in predictions[:1] for unit in units
        )
        if not units or not is_labels:
            return None
        counts.append({label: count / len(units) for label, count in Counter(units).items()})
    expected, actual = counts
    return sum(share * actual.get(label, 0.0) for label, share in expected.items())
