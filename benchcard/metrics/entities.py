"""Metrics of labelled words: whole entities as seqeval counts them, over seqeval itself."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import datasets
import numpy as np

from benchcard.metrics.examples import Examples, Totals, harmonic
from benchcard.metrics.offline import Offline

_TAG = re.compile(r"O|([BIESLU])(-.+)?", re.DOTALL)
# What the default mode of seqeval knows of BILOU: it does not end an entity at `L-` or `U-`.
_IOBES = {"L": "E", "U": "S"}
# What the strict mode takes for a letter of a scheme, and would take for one in `LOC` and `ORG`, too.
_PREFIX, _SUFFIX = re.compile(r"[OBIESLU]([\W_].*)?", re.DOTALL), re.compile(r"(.*[\W_])?[OBIESLU]", re.DOTALL)
_NO_TAGS = (
    "the labels mark no entities: they are neither `O` nor begin with `B-`, `I-`, `E-`, `S-`, `L-` or `U-`. For labels "
    "of words alone, ask for `metrics: [accuracy]`"
)


class SeqEval(Offline):
    """Precision, recall and F1 of entities, each type and overall (micro average), and the accuracy of words.

    Without a `scheme` entities are read as conlleval reads them; with `mode="strict"` and a `scheme` (`IOB1`, `IOB2`,
    `IOE1`, `IOE2`, `IOBES`, `BILOU`) only entities that are valid in it count. What is undefined counts as 0. Where
    labels mark no entities, there is the accuracy of words alone.

    `entity_tags` has the tag of IOBES for labels that are written otherwise: `{"PER": "I-PER"}`.
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
        entity_tags: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        import seqeval.scheme
        from seqeval.metrics import accuracy_score, classification_report

        known = ("IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU")
        if scheme is not None and scheme not in known:
            raise ValueError(f"the scheme is {scheme}; seqeval knows {', '.join(known)}")
        words = {"overall_accuracy": float(accuracy_score(y_true=references, y_pred=predictions))}
        seen = _seen(predictions, references)
        if mode == "strict" or (suffix and not entity_tags):
            form = _SUFFIX if suffix else _PREFIX
            tags = {tag: tag for tag in seen} if all(map(form.fullmatch, seen)) else None
        else:
            suffix, tags = False, _read(seen, entity_tags)
        if tags is None:
            return {**words, "no_entities": _NO_TAGS}
        found, right = ([[tags[tag] for tag in sentence] for sentence in side] for side in (predictions, references))
        report = classification_report(
            y_true=right,
            y_pred=found,
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
            **words,
        }

    def examples(
        self, predictions: Any, references: Any, entity_tags: Mapping[str, str] | None = None, **arguments: Any
    ) -> dict[str, Examples] | None:
        """What each sentence adds: entities that are right, that were found, that are there, and likewise words."""
        if arguments:
            return None
        from seqeval.metrics.sequence_labeling import get_entities

        counts = [
            [sum(one == other for one, other in zip(found, right)), len(right)]
            for found, right in zip(predictions, references)
        ]
        words = np.asarray(counts, dtype=np.float64).reshape(-1, 2)
        accuracy = Examples(words, lambda sums: float(sums[0] / sums[1]) if sums[1] else float("nan"))
        tags = _read(_seen(predictions, references), entity_tags)
        if tags is None:
            return {"overall_accuracy": accuracy}
        counts = []
        for found, right in zip(predictions, references):
            mine, theirs = (set(get_entities([tags[tag] for tag in sentence])) for sentence in (found, right))
            counts.append([len(mine & theirs), len(mine), len(theirs)])
        tallies = np.asarray(counts, dtype=np.float64).reshape(-1, 3)
        told = {
            f"overall_{name}": Examples(tallies, partial(_of_counts, name)) for name in ("precision", "recall", "f1")
        }
        return {**told, "overall_accuracy": accuracy}


def _seen(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> set[str]:
    return {tag for side in (predictions, references) for sentence in side for tag in sentence}


def _read(seen: set[str], entity_tags: Mapping[str, str] | None) -> dict[str, str] | None:
    """Return each tag as the default mode of seqeval reads it; None where one is no tag."""
    tags = {}
    for tag in seen:
        match = _TAG.fullmatch(tag)
        if entity_tags and tag in entity_tags:
            tags[tag] = entity_tags[tag]
        elif match is None:
            return None
        else:
            tags[tag] = _IOBES.get(tag[0], tag[0]) + tag[1:]
    return tags


def _of_counts(figure: str, totals: Totals) -> float:
    return float(harmonic(totals[0], totals[1], totals[2], figure))
