"""Metrics of classification, over scikit-learn.

Predictions and references are label ids or, where a row may have several labels, lists with 0 or 1 for each label. What
is undefined because nothing was predicted, or nothing was there, counts as 0, as scikit-learn does by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import datasets
import numpy as np

from benchcard.metrics.examples import Examples, harmonic, label_counts, mean_of
from benchcard.metrics.offline import Offline

_ONE = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
_SEVERAL = {"predictions": datasets.List(datasets.Value("int64")), "references": datasets.List(datasets.Value("int64"))}


class _OfLabels(Offline):
    """A metric of label ids, which takes no other numbers for them."""

    def add_batch(self, *, predictions: Any = None, references: Any = None, **rest: Any) -> None:
        """Take predictions and references; evaluate itself would cut numbers like 2.5 to whole ones without a word."""
        for name, values in (("predictions", predictions), ("references", references)):
            if values is not None and np.asarray(values).dtype.kind == "f":
                raise ValueError(f"the {name} are numbers and no labels: `pearson`, `spearman` and `mse` are for these")
        super().add_batch(predictions=predictions, references=references, **rest)


class Accuracy(_OfLabels):
    """The share of predictions that are right; where a row has several labels, all of them must be."""

    takes = (_ONE, _SEVERAL)

    def _compute(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, float]:
        from sklearn.metrics import accuracy_score

        return {"accuracy": float(accuracy_score(np.asarray(references), np.asarray(predictions), **arguments))}

    def examples(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, Examples] | None:
        """Right or wrong."""
        same = np.asarray(predictions) == np.asarray(references)
        return None if arguments else {"accuracy": mean_of(same if same.ndim == 1 else same.all(axis=1))}


class TopKAccuracy(Offline):
    """The share of rows whose label is among the `k` of the highest scores; of equal ones the higher id comes first."""

    takes = ({"prediction_scores": datasets.List(datasets.Value("float32")), "references": datasets.Value("int64")},)

    def _compute(self, prediction_scores: Any, references: Any, k: int = 5) -> dict[str, float]:
        from sklearn.metrics import top_k_accuracy_score

        scores, right = np.asarray(prediction_scores, dtype=np.float32), np.asarray(references)
        labels = scores.shape[1]
        if not 0 < k < labels:
            raise ValueError(
                f"k is {k}, and there are {labels} labels: give one below that in "
                "`task_args: {metric_args: {top_k_accuracy: {k: 1}}}`"
            )
        if labels == 2:
            # scikit-learn takes one score a row for two labels, and guesses from the scores where the border is.
            return {"top_k_accuracy": float(np.mean((scores[:, 1] >= scores[:, 0]) == right))}
        return {"top_k_accuracy": float(top_k_accuracy_score(right, scores, k=k, labels=np.arange(labels)))}

    def examples(self, prediction_scores: Any, references: Any, k: int = 5) -> dict[str, Examples]:
        """Whether the label is among the highest scores, in scikit-learn's order of equal ones."""
        scores, right = np.asarray(prediction_scores, dtype=np.float32), np.asarray(references)
        if scores.shape[1] == 2:
            return {"top_k_accuracy": mean_of((scores[:, 1] >= scores[:, 0]) == right)}
        highest = np.argsort(scores, axis=1, kind="mergesort")[:, ::-1][:, :k]
        return {"top_k_accuracy": mean_of((highest == right[:, None]).any(axis=1))}


class _Averaged(_OfLabels):
    """A metric of one label, or averaged over labels."""

    takes = (_ONE, _SEVERAL)
    figure: ClassVar[str]
    average: ClassVar[str | None] = None

    def _score(self) -> Callable[..., Any]:
        raise NotImplementedError

    def _compute(
        self, predictions: Any, references: Any, average: str | None = None, pos_label: int | None = 1, **arguments: Any
    ) -> dict[str, Any]:
        found, right = np.asarray(predictions), np.asarray(references)
        labels = found.shape[1] if found.ndim > 1 else len(np.union1d(found, right))
        average = self.average or average or "binary"
        if average == "binary" and (found.ndim > 1 or labels > 2 or pos_label is None):
            other = ", ".join(f"`{self.figure}_{name}`" for name in ("macro", "micro", "weighted"))
            unclear, hint = f"there are {labels} labels", "an average"
            if pos_label is None and found.ndim == 1 and labels <= 2:
                unclear, hint = "it is not known which label is meant", "an average or a pos_label"
            raise ValueError(
                f"{unclear}, and `{self.figure}` is of one: ask for {other}, or give {hint} in task_args.metric_args"
            )
        if average == "binary":
            arguments = {"pos_label": pos_label, **arguments}
        value = self._score()(right, found, **{"average": average, "zero_division": 0, **arguments})
        name = f"{self.figure}_{self.average}" if self.average else self.figure
        return {name: float(value) if np.ndim(value) == 0 else value.tolist()}

    def examples(
        self, predictions: Any, references: Any, average: str | None = None, pos_label: int | None = 1, **arguments: Any
    ) -> dict[str, Examples] | None:
        """What each example adds to the hits, predictions and references of each label."""
        average = self.average or average or "binary"
        if arguments or average not in ("binary", "micro", "macro", "weighted"):
            return None
        counts, labels, several = label_counts(predictions, references)
        ids = [] if several else np.union1d(predictions, references).tolist()
        if average == "binary" and (pos_label not in ids or len(ids) > 2):
            return None
        positive = ids.index(pos_label) if average == "binary" else 0

        def figure(totals: Any) -> float:
            hits, found, right = totals[:labels], totals[labels : 2 * labels], totals[2 * labels :]
            if average == "binary":
                return float(harmonic(hits[positive], found[positive], right[positive], self.figure))
            if average == "micro":
                return float(harmonic(hits.sum(), found.sum(), right.sum(), self.figure))
            each = harmonic(hits, found, right, self.figure)
            there = (found + right > 0) | several
            weights = right if average == "weighted" else there.astype(np.float64)
            return float((each * weights).sum() / weights.sum()) if weights.sum() else 0.0

        return {f"{self.figure}_{self.average}" if self.average else self.figure: Examples(counts, figure)}


class Precision(_Averaged):
    """The share of the rows predicted to have a label that have it."""

    figure = "precision"

    def _score(self) -> Callable[..., Any]:
        from sklearn.metrics import precision_score

        return precision_score  # type: ignore[no-any-return]  # scikit-learn has no annotations


class Recall(_Averaged):
    """The share of the rows with a label that are predicted to have it."""

    figure = "recall"

    def _score(self) -> Callable[..., Any]:
        from sklearn.metrics import recall_score

        return recall_score  # type: ignore[no-any-return]  # scikit-learn has no annotations


class F1(_Averaged):
    """The harmonic mean of precision and recall."""

    figure = "f1"

    def _score(self) -> Callable[..., Any]:
        from sklearn.metrics import f1_score

        return f1_score  # type: ignore[no-any-return]  # scikit-learn has no annotations


class PrecisionMicro(Precision):
    """Precision over all labels, every row counting alike."""

    average = "micro"


class PrecisionMacro(Precision):
    """The mean of the labels' precision, every label counting alike."""

    average = "macro"


class PrecisionWeighted(Precision):
    """The mean of the labels' precision, every label counting by its rows."""

    average = "weighted"


class RecallMicro(Recall):
    """Recall over all labels, every row counting alike."""

    average = "micro"


class RecallMacro(Recall):
    """The mean of the labels' recall, every label counting alike."""

    average = "macro"


class RecallWeighted(Recall):
    """The mean of the labels' recall, every label counting by its rows."""

    average = "weighted"


class F1Micro(F1):
    """F1 over all labels, every row counting alike."""

    average = "micro"


class F1Macro(F1):
    """The mean of the labels' F1, every label counting alike."""

    average = "macro"


class F1Weighted(F1):
    """The mean of the labels' F1, every label counting by its rows."""

    average = "weighted"


class MatthewsCorrelation(_OfLabels):
    """The correlation between predicted and right labels: 1 where all are right, 0 for guessing."""

    takes = (_ONE,)

    def _compute(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, float]:
        from sklearn.metrics import matthews_corrcoef

        return {"matthews_correlation": float(matthews_corrcoef(references, predictions, **arguments))}

    def examples(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, Examples] | None:
        """What each example adds to the hits, predictions and references of each label."""
        if arguments:
            return None
        counts, labels, _ = label_counts(predictions, references)

        def figure(totals: Any) -> float:
            hits, found, right = totals[:labels].sum(), totals[labels : 2 * labels], totals[2 * labels :]
            count = right.sum()
            spread = (count**2 - found @ found) * (count**2 - right @ right)
            return float((hits * count - found @ right) / np.sqrt(spread)) if spread > 0 else 0.0

        return {"matthews_correlation": Examples(counts, figure)}
