"""A metric as a function of which examples are looked at, so that it can be resampled a thousand times in a second.

A metric that benchcard brings says in `examples` what each example adds, and what comes of the sum: for accuracy a
right or wrong, for F1 the counts of each label, for seqeval the entities of each sentence. For any other metric its
own computation is repeated on the chosen examples.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchcard.metrics import compute as compute_
from benchcard.metrics import info

Indices = NDArray[np.intp]
Totals = NDArray[np.float64]


@dataclass(frozen=True)
class Examples:
    """What each example adds to one figure of a metric.

    Attributes:
        tallies: `(examples, k) float64`, what each adds.
        figure: The figure of a sum of these, `(k,) float64`; NaN where it is not defined.
        right: `(examples,) bool`, where the figure is the share of examples that are right; else None.
        whole: The figure when all are right: 1, or 100 for a metric in per cent.
    """

    tallies: NDArray[np.float64]
    figure: Callable[[Totals], float]
    right: NDArray[np.bool_] | None = None
    whole: float = 1.0

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.tallies)

    def score(self, indices: Indices) -> float:
        """The figure of the examples with these numbers, `(n,) intp`, which may repeat."""
        # how often each is there, times what it adds: far less to fetch than the rows themselves
        often = np.bincount(indices, minlength=self.count).astype(np.float64)
        return self.figure(np.einsum("i,ij->j", often, self.tallies))


@dataclass(frozen=True)
class Computed:
    """A figure of a metric that says nothing of single examples: computed anew from the chosen ones.

    Attributes:
        compute: The figure of the examples with these numbers; NaN where it is not defined.
        count: Number of examples.
    """

    compute: Callable[[Indices], float]
    count: int
    right: None = None
    whole: float = 1.0

    def score(self, indices: Indices) -> float:
        """The figure of the examples with these numbers, `(n,) intp`, which may repeat."""
        return self.compute(indices)


def mean_of(values: Any, whole: float = 1.0) -> Examples:
    """A figure that is the mean of one value an example; an example that is NaN is left out.

    Args:
        values: `(examples,)`.
        whole: The value of an example that is right, where others are 0.
    """
    each = np.asarray(values, dtype=np.float64)
    each = each[~np.isnan(each)]
    right = each == whole if np.isin(each, (0.0, whole)).all() else None
    return Examples(np.stack([each, np.ones_like(each)], axis=1), lambda sums: _share(sums[0], sums[1]), right, whole)


def examples_of(
    name: str,
    given: Mapping[str, Any],
    meanings: Mapping[str, str],
    arguments: Mapping[str, Mapping[str, Any]],
    script: str | None = None,
) -> dict[str, Examples | Computed]:
    """The figures of a metric as functions of examples, by the name of their column, as `metrics.measured` gives them.

    Figures that say nothing of single examples, as a count or the best threshold, are left out.
    """
    identity, part = info.meant(name, meanings, script)
    module = compute_.load_metric(identity, script)
    features = module.features[0] if isinstance(module.features, list) else module.features
    chosen = {each: given[each] for each in features}
    extra = compute_.extra_arguments(name, identity, module, given, arguments)
    own = getattr(module, "examples", None)
    told: Mapping[str, Examples | Computed] | None = own(**chosen, **extra) if own else None
    if told is None:
        told = _computed(
            module, chosen, extra, [*compute_.compute_metric(name, given, meanings, arguments, script)], part
        )
    if part:
        return {name: told[part]} if part in told else {}
    return dict(told)


def _computed(
    module: Any, given: Mapping[str, Any], extra: Mapping[str, Any], figures: list[str], part: str
) -> dict[str, Examples | Computed]:
    """Each figure, computed by the metric itself."""
    count = len(next(iter(given.values())))

    def compute(figure: str, indices: Indices) -> float:
        picked = {name: [values[index] for index in indices] for name, values in given.items()}
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                # what is undefined for one choice of examples is NaN, which is dealt with
                warnings.simplefilter("ignore")
                told = module._compute(**picked, **extra)
                return float(told[figure] if isinstance(told, Mapping) else told)
        except (ValueError, TypeError, KeyError, ZeroDivisionError):
            return math.nan

    names = [part] if part else figures
    return {name: Computed(partial(compute, name), count) for name in names}


def label_counts(predictions: Any, references: Any) -> tuple[NDArray[np.float64], int, bool]:
    """For each example what it adds to each label's hits, predictions and references, `(examples, 3 * labels)`; the
    number of labels; and whether an example may have several.
    """
    found, right = np.asarray(predictions), np.asarray(references)
    several = found.ndim > 1
    if not several:
        labels = np.union1d(found, right)
        found, right = (np.equal.outer(each, labels) for each in (found, right))
    found, right = found.astype(bool), right.astype(bool)
    return np.concatenate([found & right, found, right], axis=1).astype(np.float64), found.shape[1], several


def harmonic(hits: Any, found: Any, right: Any, figure: str) -> Any:
    """Precision, recall or F1 of counts; 0 where it is not defined, as scikit-learn and seqeval have it."""
    below = {"precision": found, "recall": right, "f1": (found + right) / 2}[figure]
    return np.divide(hits, below, out=np.zeros_like(np.asarray(hits, dtype=np.float64)), where=np.asarray(below) > 0)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan
