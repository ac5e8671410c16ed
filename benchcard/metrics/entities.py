"""Metrics of labelled words: whole entities as seqeval counts them, over seqeval itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import datasets
import numpy as np

from benchcard.metrics.examples import Examples, Totals, harmonic
from benchcard.metrics.offline import Offline


class SeqEval(Offline):
    """Precision, recall and F1 of entities, each type and overall (micro average), and the accuracy of words.

    Without a `scheme` entities are read as conlleval reads them; with `mode="strict"` and a `scheme` (`IOB1`, `IOB2`,
    `IOE1`, `IOE2`, `IOBES`, `BILOU`) only entities that are valid in it count. What is undefined counts as 0.
    """

    takes = (
        {"predictions": datasets.List(datasets.Value("string")), "references": datasets.List(datasets.Value("string"))},
    )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        suffix: bool = False,
        scheme: str | None = None,
        mode: str | None = None,
        sample_weight: list[float] | None = None,
        zero_division: int = 0,
    ) -> dict[str, Any]:
        import seqeval.scheme
        from seqeval.metrics import accuracy_score, classification_report

        known = ("IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU")
        if scheme is not None and scheme not in known:
            raise ValueError(f"the scheme is {scheme}; seqeval knows {', '.join(known)}")
        report = classification_report(
            y_true=references,
            y_pred=predictions,
            suffix=suffix,
            output_dict=True,
            scheme=getattr(seqeval.scheme, scheme) if scheme else None,
            mode=mode,
            sample_weight=sample_weight,
            zero_division=zero_division,
        )
        overall = report["micro avg"]
        types = {
            name: {
                "precision": float(each["precision"]),
                "recall": float(each["recall"]),
                "f1": float(each["f1-score"]),
                "number": int(each["support"]),
            }
            for name, each in report.items()
            if name not in ("micro avg", "macro avg", "weighted avg")
        }
        return {
            **types,
            "overall_precision": float(overall["precision"]),
            "overall_recall": float(overall["recall"]),
            "overall_f1": float(overall["f1-score"]),
            "overall_accuracy": float(accuracy_score(y_true=references, y_pred=predictions)),
        }

    def examples(self, predictions: Any, references: Any, **arguments: Any) -> dict[str, Examples] | None:
        """What each sentence adds: entities that are right, that were found, that are there, and likewise words."""
        if arguments:
            return None
        from seqeval.metrics.sequence_labeling import get_entities

        counts = []
        for found, right in zip(predictions, references):
            mine, theirs = set(get_entities(list(found))), set(get_entities(list(right)))
            same = sum(one == other for one, other in zip(found, right))
            counts.append([len(mine & theirs), len(mine), len(theirs), same, len(right)])
        tallies = np.asarray(counts, dtype=np.float64).reshape(-1, 5)
        told = {
            f"overall_{name}": Examples(tallies, partial(_of_counts, name)) for name in ("precision", "recall", "f1")
        }
        words = Examples(tallies[:, 3:], lambda sums: float(sums[0] / sums[1]) if sums[1] else float("nan"))
        return {**told, "overall_accuracy": words}


def _of_counts(figure: str, totals: Totals) -> float:
    return float(harmonic(totals[0], totals[1], totals[2], figure))
