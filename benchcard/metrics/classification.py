"""Metrics of classification, over scikit-learn.

Predictions and references are label ids or, where a row may have several labels, lists with 0 or 1 for each label. A
figure that is undefined because nothing was predicted, or nothing is to be found, is 0, as in scikit-learn by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from benchcard.metrics.examples import Examples, Totals, label_counts, mean_of, score_of_counts
from benchcard.metrics.offline import Offline

_ONE = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
_SEVERAL = {"predictions": datasets.List(datasets.Value("int64")), "references": datasets.List(datasets.Value("int64"))}

Labels = Sequence[int] | Sequence[Sequence[int]]
Scores = Sequence[Sequence[float]]


class _OfLabels(Offline):
    """A metric of label ids, which refuses other numbers."""

    def add_batch(self, *, predictions: Labels, references: Labels, **others: object) -> None:
        """Take predictions and references; `evaluate` alone would silently truncate numbers like 2.5 to integers."""
        for name, values in (("predictions", predictions), ("references", references)):
            if np.asarray(values).dtype.kind == "f":
                raise ValueError(f"the {name} are numbers and no labels; use `pearson`, `spearman` or `mse` for them")
        super().add_batch(predictions=predictions, references=references, **others)


class Accuracy(_OfLabels):
    """The share of predictions that are right; where a row has several labels, all of them must be."""

    takes = (_ONE, _SEVERAL)

    def _compute(self, predictions: Labels, references: Labels, **arguments: object) -> dict[str, float]:
        from sklearn.metrics import accuracy_score

        return {"accuracy": float(accuracy_score(np.asarray(references), np.asarray(predictions), **arguments))}

    def examples(self, predictions: Labels, references: Labels, **arguments: object) -> dict[str, Examples] | None:
        """Return whether each example is right."""
        same = np.asarray(predictions) == np.asarray(references)
        return None if arguments else {"accuracy": mean_of(same if same.ndim == 1 else same.all(axis=1))}


class TopKAccuracy(Offline):
    """The share of rows whose label is among the `k` highest scores; among equal scores the higher id comes first."""

    takes = ({"prediction_scores": datasets.List(datasets.Value("float32")), "references": datasets.Value("int64")},)

    def _compute(self, prediction_scores: Scores, references: Sequence[int], k: int = 5) -> dict[str, float]:
        return {"top_k_accuracy": float(self._hits(prediction_scores, references, k).mean())}

    def examples(self, prediction_scores: Scores, references: Sequence[int], k: int = 5) -> dict[str, Examples]:
        """Return whether each label is among the highest scores."""
        return {"top_k_accuracy": mean_of(self._hits(prediction_scores, references, k))}

    @staticmethod
    def _hits(prediction_scores: Scores, references: Sequence[int], k: int) -> NDArray[np.bool_]:
        scores, actual = np.asarray(prediction_scores, dtype=np.float32), np.asarray(references)
        labels = scores.shape[1]
        if not 0 < k < labels:
            advice = "give a k below that in `task_args: {metric_args: {top_k_accuracy: {k: 1}}}`"
            raise ValueError(f"k is {k}, and there are {labels} labels; {advice}")
        if not (np.isin(actual, np.arange(labels)).all() and np.isfinite(scores).all()):
            raise ValueError(f"a reference is none of the {labels} labels, or a score is not finite")
        # `top_k_accuracy_score` of scikit-learn has this order of equal scores, and guesses for two labels.
        highest = np.argsort(scores, axis=1, kind="mergesort")[:, ::-1][:, :k]
        hits: NDArray[np.bool_] = (highest == actual[:, None]).any(axis=1)
        return hits


class _Averaged(_OfLabels):
    """Precision, recall or F1 (`figure`) of one label, or averaged over labels."""

    takes = (_ONE, _SEVERAL)
    figure: ClassVar[str]
    average: ClassVar[str | None] = None

    @property
    def _name(self) -> str:
        return f"{self.figure}_{self.average}" if self.average else self.figure

    def _compute(
        self,
        predictions: Labels,
        references: Labels,
        average: str | None = None,
        pos_label: int | None = 1,
        **arguments: object,
    ) -> dict[str, float | list[float]]:
        import sklearn.metrics

        predicted, actual = np.asarray(predictions), np.asarray(references)
        labels = predicted.shape[1] if predicted.ndim > 1 else len(np.union1d(predicted, actual))
        average = self.average or average or "binary"
        if average == "binary":
            self._expect_positive_label(labels, predicted.ndim > 1, pos_label)
            arguments = {"pos_label": pos_label, **arguments}
        score = getattr(sklearn.metrics, f"{self.figure}_score")
        value = score(actual, predicted, **{"average": average, "zero_division": 0, **arguments})
        return {self._name: float(value) if np.ndim(value) == 0 else value.tolist()}

    def _expect_positive_label(self, labels: int, multi_label: bool, pos_label: int | None) -> None:
        if labels > 2 or multi_label:
            problem, hint = f"there are {labels} labels", "an average"
        elif pos_label is None:
            problem, hint = "it is not known which label is the positive one", "an average or a pos_label"
        else:
            return
        averages = ", ".join(f"`{self.figure}_{name}`" for name in ("macro", "micro", "weighted"))
        advice = f"ask for {averages}, or give {hint} in task_args.metric_args"
        raise ValueError(f"{problem}, and `{self.figure}` scores one; {advice}")

    def examples(self, predictions: Labels, references: Labels, **arguments: object) -> dict[str, Examples] | None:
        """Return what each example contributes to hits, predictions and references of each label."""
        average, pos_label = arguments.pop("average", None), arguments.pop("pos_label", 1)
        average = self.average or average or "binary"
        if arguments or average not in ("binary", "micro", "macro", "weighted"):
            return None
        multi_label = np.ndim(predictions) > 1
        ids = [] if multi_label else np.union1d(predictions, references).tolist()
        if average == "binary" and (pos_label not in ids or len(ids) > 2):
            return None
        positive = ids.index(pos_label) if average == "binary" else 0

        def figure(totals: Totals) -> float:
            hits, predicted, actual = np.split(totals, 3)
            if average == "binary":
                return float(score_of_counts(self.figure, hits[positive], predicted[positive], actual[positive]))
            if average == "micro":
                return float(score_of_counts(self.figure, hits.sum(), predicted.sum(), actual.sum()))
            by_label = score_of_counts(self.figure, hits, predicted, actual)
            present = (predicted + actual > 0) | multi_label
            weights = actual if average == "weighted" else present.astype(np.float64)
            return float((by_label * weights).sum() / weights.sum()) if weights.sum() else 0.0

        return {self._name: Examples(label_counts(predictions, references), figure)}


class Precision(_Averaged):
    """The share of the rows predicted to have a label that have it."""

    figure = "precision"


class Recall(_Averaged):
    """The share of the rows with a label that are predicted to have it."""

    figure = "recall"


class F1(_Averaged):
    """The harmonic mean of precision and recall."""

    figure = "f1"


def _averaged(metric: type[_Averaged], average: str, description: str) -> type[_Averaged]:
    """Return a metric with a fixed average over labels."""
    name = f"{metric.__name__}{average.title()}"
    return type(name, (metric,), {"average": average, "__doc__": description, "__module__": __name__})


PrecisionMicro = _averaged(Precision, "micro", "Precision over all labels, every row counting alike.")
PrecisionMacro = _averaged(Precision, "macro", "The mean of the labels' precision, every label counting alike.")
PrecisionWeighted = _averaged(Precision, "weighted", "The mean of the labels' precision, weighted by their rows.")
RecallMicro = _averaged(Recall, "micro", "Recall over all labels, every row counting alike.")
RecallMacro = _averaged(Recall, "macro", "The mean of the labels' recall, every label counting alike.")
RecallWeighted = _averaged(Recall, "weighted", "The mean of the labels' recall, weighted by their rows.")
F1Micro = _averaged(F1, "micro", "F1 over all labels, every row counting alike.")
F1Macro = _averaged(F1, "macro", "The mean of the labels' F1, every label counting alike.")
F1Weighted = _averaged(F1, "weighted", "The mean of the labels' F1, weighted by their rows.")


class MatthewsCorrelation(_OfLabels):
    """The correlation between predicted and right labels: 1 where all are right, 0 for guessing."""

    takes = (_ONE,)

    def _compute(self, predictions: Labels, references: Labels, **arguments: object) -> dict[str, float]:
        from sklearn.metrics import matthews_corrcoef

        return {"matthews_correlation": float(matthews_corrcoef(references, predictions, **arguments))}

    def examples(self, predictions: Labels, references: Labels, **arguments: object) -> dict[str, Examples] | None:
        """Return what each example contributes to hits, predictions and references of each label."""
        if arguments:
            return None

        def figure(totals: Totals) -> float:
            hits, predicted, actual = np.split(totals, 3)
            total = actual.sum()
            spread = (total**2 - predicted @ predicted) * (total**2 - actual @ actual)
            return float((hits.sum() * total - predicted @ actual) / np.sqrt(spread)) if spread > 0 else 0.0

        return {"matthews_correlation": Examples(label_counts(predictions, references), figure)}
