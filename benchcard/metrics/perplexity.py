"""Perplexity of language models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import datasets
import numpy as np

from benchcard.metrics.examples import Examples, Totals, ratio
from benchcard.metrics.offline import Offline


class Perplexity(Offline):
    """The exponential of the mean negative log-likelihood of a token, over the tokens of all texts together.

    Predictions are the log-likelihoods of texts in nats, references their numbers of predicted tokens.
    """

    takes = ({"predictions": datasets.Value("float64"), "references": datasets.Value("int64")},)

    def _compute(self, predictions: Sequence[float], references: Sequence[int]) -> dict[str, float]:
        return {"perplexity": _perplexity(np.asarray([-sum(predictions), sum(references)], dtype=np.float64))}

    def examples(self, predictions: Sequence[float], references: Sequence[int]) -> dict[str, Examples]:
        """Return the negative log-likelihood and the number of tokens of each text."""
        tallies = np.stack([-np.asarray(predictions), np.asarray(references)], axis=1).astype(np.float64)
        return {"perplexity": Examples(tallies, _perplexity)}


def _perplexity(sums: Totals) -> float:
    """Return the perplexity of a negative log-likelihood and a number of tokens; infinity where it is too large."""
    mean = ratio(sums)
    return math.exp(mean) if not mean > math.log(np.finfo(float).max) else math.inf
