"""The fidelity of a model to its baseline: how far its outputs are from the baseline's on the same examples.

Owns the figures and their intervals. Leaves to `benchcard.evaluation.fidelity` which outputs are compared. The units of
a figure are what is compared one by one: examples, the words of a sentence, or texts. Units of one example are not
independent, so intervals are over examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchcard.measure import significance
from benchcard.measure.intervals import CONFIDENCE
from benchcard.metrics import boxes
from benchcard.metrics.boxes import Detections
from benchcard.metrics.examples import FigureOfExamples
from benchcard.metrics.uncertainty import is_same
from benchcard.utils.values import Interval

Floats = NDArray[np.float64]
Owners = NDArray[np.intp]
"""The number of the example of each unit, `(units,)`."""

_NEIGHBORS = 10
# Of fewer texts, ten neighbours are most of the others, and the overlap says nothing.
_MIN_TEXTS = 2 * _NEIGHBORS + 1
# Texts whose neighbours are sought among all texts: more would take long, and narrow the interval little.
_MOST_QUERIES = 500
# Cosines that are held at a time: 64 MB in float32.
_COSINES = 1 << 24
# Cosines of equal texts differ by this much where they were in different batches.
_SAME_COSINE = 1e-6
# Units that are compared at a time: 16 MB in float64 for a vocabulary of 30,000, or for 64 tokens of each of 4,096.
_UNITS, _POSITIONS = 64, 4096
# The interval of fewer examples holds the true value far too rarely.
_MIN_EXAMPLES = 10


def label_divergences(baseline: ArrayLike, model: ArrayLike) -> Floats:
    """Return the Kullback-Leibler divergence of the model's softmax from the baseline's, `(units,)`, in nats.

    Both arguments are logits `(units, labels)`.
    """
    expected, actual = np.asarray(baseline), np.asarray(model)
    parts = [slice(at, at + _UNITS) for at in range(0, len(expected), _UNITS)]
    return np.concatenate([_softmax_divergences(expected[at], actual[at]) for at in parts])


def _softmax_divergences(baseline: NDArray[np.floating], model: NDArray[np.floating]) -> Floats:
    expected, actual = (_log_softmax(logits.astype(np.float64)) for logits in (baseline, model))
    return np.asarray(np.maximum(0.0, np.sum(np.exp(expected) * (expected - actual), axis=-1)), dtype=np.float64)


def binary_divergences(baseline: ArrayLike, model: ArrayLike) -> Floats:
    """Return the sum over labels of the divergences of independent probabilities, `(units,)`, in nats.

    Both arguments are logits `(units, labels)`, of which each has its own sigmoid.
    """
    # A sigmoid is a softmax of the logit and 0.
    expected, actual = (np.stack([logits, np.zeros(np.shape(logits))], axis=-1) for logits in (baseline, model))
    return np.asarray(label_divergences(expected, actual).sum(axis=-1), dtype=np.float64)


@dataclass(frozen=True)
class NextTokens:
    """The most likely next tokens at some positions: `tokens` `(positions, k)`, the likeliest first, with their
    `log_probs` `(positions, k)`, and `rest` `(positions,)`, the probability of all other tokens.
    """

    tokens: NDArray[np.int32]
    log_probs: Floats
    rest: Floats

    def _part(self, at: slice) -> NextTokens:
        return NextTokens(self.tokens[at], self.log_probs[at].astype(np.float64), self.rest[at].astype(np.float64))

    def _missing(self, count: NDArray[np.intp]) -> Floats:
        """Return the probability that is assumed of each of `count` `(positions,)` tokens that are not among the most
        likely: the most that it can be, that of the last of these, but no more than an equal share of the rest.
        """
        return np.asarray(np.minimum(np.exp(self.log_probs[:, -1]), self.rest / (count + 1)), dtype=np.float64)


def next_token_divergences(baseline: NextTokens, model: NextTokens) -> Floats:
    """Return the Kullback-Leibler divergence of the model's next token from the baseline's, `(positions,)`, in nats.

    It is that of the tokens that are among the most likely of either, and of all others as one. It is exact where these
    are the whole vocabulary; else it leaves out how probabilities differ among the others.
    """
    parts = [slice(at, at + _POSITIONS) for at in range(0, len(baseline.rest), _POSITIONS)]
    return np.concatenate([_divergences(baseline._part(at), model._part(at)) for at in parts])


def _divergences(baseline: NextTokens, model: NextTokens) -> Floats:
    same = baseline.tokens[:, :, None] == model.tokens[:, None, :]
    is_shared, is_known = same.any(axis=2), same.any(axis=1)
    lacks, adds = (np.count_nonzero(~shared, axis=1) for shared in (is_shared, is_known))
    least_model, least_baseline = model._missing(lacks), baseline._missing(adds)
    in_model = np.exp(np.take_along_axis(model.log_probs, same.argmax(axis=2), axis=1))
    divergences = (
        _terms(np.exp(baseline.log_probs), np.where(is_shared, in_model, least_model[:, None])).sum(axis=1)
        + np.where(is_known, 0.0, _terms(least_baseline[:, None], np.exp(model.log_probs))).sum(axis=1)
        + _terms(baseline.rest - adds * least_baseline, model.rest - lacks * least_model)
    )
    return np.asarray(np.maximum(0.0, divergences), dtype=np.float64)


def _terms(expected: Floats, actual: Floats) -> Floats:
    """Return the terms of a divergence; that of an impossible token is 0."""
    least = float(np.finfo(np.float32).tiny)
    expected, actual = np.maximum(expected, 0.0), np.maximum(actual, least)
    return np.asarray(expected * np.log(np.maximum(expected, least) / actual), dtype=np.float64)


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float64)


def divergence_figures(divergences: Floats, owners: Owners) -> dict[str, Interval]:
    """Return mean, median, 99th percentile and maximum of divergences `(units,)`. A maximum has no interval."""
    return {
        "kl_mean": mean(divergences, owners, least=0.0),
        "kl_median": quantile(divergences, owners, 0.5),
        "kl_p99": quantile(divergences, owners, 0.99),
        "kl_max": Interval(float(divergences.max())),
    }


def prediction_figures(
    baseline: Sequence[object], model: Sequence[object], references: Sequence[object] | None, owners: Owners
) -> dict[str, Interval]:
    """Return the share of equal predictions of units, and how many were lost (right to wrong), gained (wrong to right)
    and swapped (wrong to another wrong one), where there are references.
    """
    equal = np.array([is_same(before, after) for before, after in zip(baseline, model)], dtype=bool)
    figures = {"agreement": share(equal, owners)}
    if references is not None:
        right, still = (
            np.array([given == actual for given, actual in zip(predictions, references)], dtype=bool)
            for predictions in (baseline, model)
        )
        counts = {"lost": right & ~still, "gained": ~right & still, "swapped": ~equal & ~right & ~still}
        figures |= {name: Interval(float(np.count_nonzero(units))) for name, units in counts.items()}
    return figures


def detection_figures(baseline: Sequence[Detections], model: Sequence[Detections]) -> dict[str, Interval]:
    """Return the share of the boxes that either model detects in images `(images,)` which both detect, and the mean
    overlap of these; empty where nothing is detected.
    """
    pairs = [boxes.match(before, after) for before, after in zip(baseline, model)]
    same, others = np.array([len(both) for both, _ in pairs]), np.array([others for _, others in pairs])
    owners = np.repeat(np.arange(len(pairs)), same + others)
    if not owners.size:
        return {}
    hits = np.concatenate([np.arange(of_image + more) < of_image for of_image, more in zip(same, others)])
    figures = {"agreement": share(hits, _numbered(owners))}
    if same.any():
        overlaps = np.concatenate([both for both, _ in pairs])
        owners = _numbered(np.repeat(np.arange(len(pairs)), same))
        figures["iou_mean"] = mean(overlaps, owners, least=0.0, most=1.0)
    return figures


def _numbered(owners: Owners) -> Owners:
    """Return the numbers of examples without gaps."""
    return np.asarray(np.unique(owners, return_inverse=True)[1], dtype=np.intp)


def rms_difference(baseline: ArrayLike, model: ArrayLike) -> Interval:
    """Return the root of the mean squared difference of numbers `(examples,)`."""
    differences = np.asarray(model, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    squared = mean(differences**2, np.arange(len(differences)), least=0.0)
    low, high = (None if bound is None else math.sqrt(bound) for bound in (squared.low, squared.high))
    return Interval(math.sqrt(squared.value), low, high)


def neighbor_overlap(baseline: ArrayLike, model: ArrayLike, seed: int) -> Interval | None:
    """Return the mean share of the ten nearest texts of each text, by the cosine of the baseline's embeddings
    `(texts, numbers)`, that are among the ten nearest by the model's; None for fewer than 21 texts.

    The neighbours of at most 500 texts, drawn by the seed, are sought among all texts, and the interval is over these
    texts. A text as near as the tenth counts as among the ten.
    """
    expected, actual = (_normalized(np.asarray(array, dtype=np.float32)) for array in (baseline, model))
    texts = len(expected)
    if texts < _MIN_TEXTS:
        return None
    queries = np.random.default_rng(seed).permutation(texts)[:_MOST_QUERIES]
    size = max(1, _COSINES // texts)
    parts = [queries[at : at + size] for at in range(0, len(queries), size)]
    found = np.concatenate([_neighbors_found(expected, actual, part) for part in parts])
    return mean(found, np.arange(len(queries)), least=0.0, most=1.0)


def _neighbors_found(baseline: NDArray[np.float32], model: NDArray[np.float32], queries: NDArray[np.intp]) -> Floats:
    """Return the share of the ten nearest texts of each query that are found, from embeddings of length 1."""
    expected, actual = (array[queries] @ array.T for array in (baseline, model))
    for cosines in (expected, actual):
        cosines[np.arange(len(queries)), queries] = -np.inf
    nearest = np.argpartition(expected, -_NEIGHBORS, axis=1)[:, -_NEIGHBORS:]
    tenth = np.partition(actual, -_NEIGHBORS, axis=1)[:, -_NEIGHBORS, None]
    found = np.take_along_axis(actual, nearest, axis=1) >= tenth - _SAME_COSINE
    return np.asarray(found.mean(axis=1), dtype=np.float64)


def _normalized(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.where(norms > 0, norms, 1), dtype=np.float32)


def mean(values: Floats, owners: Owners, *, least: float = -math.inf, most: float = math.inf) -> Interval:
    """Return the mean of values `(units,)` with an interval over examples, within what the mean can be.

    Few examples make up most of a mean divergence. So Student's interval is corrected for skewness, which holds the
    true mean more often than the bootstrap and takes no resamples (`benchmarks/fidelity.py`). Bounds are None for fewer
    than ten examples, and where all values are equal, which says nothing about other examples.

    Source: P. Hall, On the Removal of Skewness by Transformation (J. R. Statist. Soc. B 54, 1992); W. Cochran, Sampling
    Techniques (1977), 6.4 for the mean of examples of different size.
    """
    from scipy.stats import t

    value = float(values.mean())
    deviations = _deviations(values - value, owners)
    count, spread = len(deviations), float(deviations.std(ddof=1)) if len(deviations) > 1 else 0.0
    if count < _MIN_EXAMPLES or not spread or values.min() == values.max():
        return Interval(value)
    skewness = float(np.mean((deviations / deviations.std()) ** 3))
    bounds = []
    for level in (0.5 + CONFIDENCE / 2, 0.5 - CONFIDENCE / 2):
        at = float(t.ppf(level, count - 1)) / math.sqrt(count)
        # The inverse of the transformation, which is the identity without skewness.
        moved = at - skewness / (6 * count)
        inverse = (np.cbrt(1 + skewness * moved) - 1) * 3 / skewness if abs(skewness) > 1e-6 else at
        bounds.append(value - spread * float(inverse))
    low, high = min(value, max(least, bounds[0])), max(value, min(most, bounds[1]))
    return Interval(value, low, high)


def quantile(values: Floats, owners: Owners, share_below: float) -> Interval:
    """Return a quantile of values `(units,)`, with the interval between two order statistics.

    The bounds are at the orders that the true quantile exceeds and falls below with 2.5 % each, interpolated; of units
    of one example, only as many count as independent ones would tell as much. Bounds are None where there are too few
    units for one of them: 368 are needed at 99 %.

    Source: A. Hutson, Calculating Nonparametric Confidence Intervals for Quantiles Using Fractional Order Statistics
    (J. Appl. Statist. 26, 1999); E. Korn and B. Graubard (Survey Methodology 24, 1998) for the effective number.
    """
    from scipy.optimize import brentq
    from scipy.special import betainc

    ordered = np.sort(values)
    value = float(np.quantile(ordered, share_below))
    count = _effective_count(values <= value, owners)
    if owners.max() + 1 < _MIN_EXAMPLES or ordered[0] == ordered[-1]:
        return Interval(value)

    def excess(order: float, level: float) -> float:
        return float(betainc(order, count + 1 - order, share_below)) - level

    places = []
    for level in (0.5 + CONFIDENCE / 2, 0.5 - CONFIDENCE / 2):
        if excess(1.0, level) < 0 or excess(count, level) > 0:
            return Interval(value)
        order = brentq(excess, 1.0, count, args=(level,))
        places.append(order / (count + 1) * (len(ordered) + 1) - 1)
    low, high = np.interp(places, np.arange(len(ordered)), ordered)
    return Interval(value, min(value, float(low)), max(value, float(high)))


def share(hits: NDArray[np.bool_], owners: Owners) -> Interval:
    """Return the share of hits among units `(units,)`, with Wilson's interval over as many units as are independent.

    Source: N. Dean and M. Pagano, Evaluating Confidence Interval Methods for Binomial Proportions in Clustered Surveys
    (J. Surv. Stat. Methodol. 3, 2015).
    """
    value = float(hits.mean())
    count = max(1, round(_effective_count(hits, owners)))
    bounds = significance.wilson(round(value * count), count)
    low, high = bounds.low, bounds.high
    if low is None or high is None:
        return Interval(value)
    return Interval(value, min(value, low), max(value, high))


def _deviations(residuals: Floats, owners: Owners) -> Floats:
    """Return what each example contributes to the error of a mean over units, `(examples,)`, from their residuals."""
    sums = np.bincount(owners, residuals)
    return np.asarray(sums * (len(sums) / len(residuals)), dtype=np.float64)


def _effective_count(hits: NDArray[np.bool_], owners: Owners) -> float:
    """Return how many independent units would tell as much about the share of hits: at most the number of units, and
    the number of examples where all or none are hits.

    The factor of Student's distribution has the examples with hits, or those without, as degrees of freedom.
    """
    from scipy.stats import norm, t

    value, units = float(hits.mean()), len(hits)
    deviations = _deviations(np.subtract(hits, value), owners)
    examples = len(deviations)
    informative = min(len(np.unique(owners[hits])), len(np.unique(owners[~hits])))
    variance = float(deviations.var(ddof=1)) / examples if examples > 1 else 0.0
    if examples == units or not variance or informative < 2:
        return float(examples)
    level = 0.5 + CONFIDENCE / 2
    factor = float(norm.ppf(level) / t.ppf(level, informative - 1)) ** 2
    return min(float(units), factor * value * (1 - value) / variance)


def figure_ratio(baseline: FigureOfExamples, model: FigureOfExamples, seed: int) -> Interval | None:
    """Return a figure over the baseline's, with the interval on the same examples; None where the baseline's is not
    above 0.

    It is Bonett's and Price's for shares of correct examples, else from the paired bootstrap of the logarithm.

    Source: D. Bonett and R. Price, Confidence Intervals for a Ratio of Binomial Proportions Based on Paired Data
    (Statist. Med. 25, 2006).
    """
    every = np.arange(model.count)
    before, after = baseline.score(every), model.score(every)
    if not (before > 0 and math.isfinite(after)):
        return None
    value = after / before
    if baseline.correct is not None and model.correct is not None:
        return replace(_ratio_of_shares(baseline.correct, model.correct), value=value)
    if after <= 0:
        return Interval(value)

    def log_of(figure: FigureOfExamples, indices: NDArray[np.intp]) -> float:
        score = figure.score(indices)
        return math.log(score) if score > 0 else math.nan

    test = significance.paired_bootstrap(
        lambda indices: log_of(baseline, indices), lambda indices: log_of(model, indices), model.count, seed=seed
    )
    low, high = (None if bound is None else math.exp(bound) for bound in (test.difference.low, test.difference.high))
    return Interval(value, low, high)


def _ratio_of_shares(baseline: NDArray[np.bool_], model: NDArray[np.bool_]) -> Interval:
    from scipy.stats import norm

    counts = int(model.sum()), int(baseline.sum())
    changed = int(np.count_nonzero(model != baseline))
    # Examples that both got wrong tell nothing about the ratio.
    known = int(np.count_nonzero(model | baseline))
    parts = [math.sqrt((1 - (count + 1) / (known + 2)) / (count + 1)) for count in counts]
    error = math.sqrt((changed + 2) / ((counts[0] + 1) * (counts[1] + 1)))
    z = float(norm.ppf(0.5 + CONFIDENCE / 2)) * error / sum(parts)

    def bounds(count: int) -> tuple[float, float]:
        half = z * math.sqrt(z**2 + 4 * count * (1 - count / known))
        low, high = ((2 * count + z**2 + side * half) / (2 * (known + z**2)) for side in (-1, 1))
        return low, high

    (low, high), (baseline_low, baseline_high) = map(bounds, counts)
    return Interval(counts[0] / counts[1], low / baseline_high, high / baseline_low)
