"""The metric of labelled words: entities as seqeval counts them, over seqeval itself."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from functools import partial

import datasets
import numpy as np

from benchcard.metrics.examples import Examples, Totals, ratio, score_of_counts
from benchcard.metrics.offline import Offline

_TAG = re.compile(r"O|([BIESLU])(-.+)?", re.DOTALL)
# The default mode of seqeval ends no entity at the `L-` and `U-` of BILOU, so they become the letters of IOBES.
_IOBES = {"L": "E", "U": "S"}
# The forms of tags that the strict mode of seqeval reads. Without this check it takes the `L` of `LOC` for a prefix.
_PREFIX, _SUFFIX = re.compile(r"[OBIESLU]([\W_].*)?", re.DOTALL), re.compile(r"(.*[\W_])?[OBIESLU]", re.DOTALL)
_SCHEMES = ("IOB1", "IOB2", "IOE1", "IOE2", "IOBES", "BILOU")
_AVERAGES = ("micro avg", "macro avg", "weighted avg")
_NO_TAGS = (
    "the labels mark no entities: they are neither `O` nor begin with `B-`, `I-`, `E-`, `S-`, `L-` or `U-`. For labels "
    "of words alone, ask for `metrics: [accuracy]`"
)

Sentences = Sequence[Sequence[str]]
EntityTags = Mapping[str, str] | None
Result = float | str | dict[str, float | int]


class SeqEval(Offline):
    """Precision, recall and F1 of entities, each type and overall (micro average), and the accuracy of words.

    Without a `scheme` entities are read as conlleval reads them; with `mode="strict"` and a `scheme` (`IOB1`, `IOB2`,
    `IOE1`, `IOE2`, `IOBES`, `BILOU`) only entities that are valid in it count. Undefined figures are 0. Where labels
    mark no entities, only the accuracy of words is returned.

    `entity_tags` gives the IOBES tag of labels that are written in another way: `{"PER": "I-PER"}`.
    """

    takes = (dict.fromkeys(("predictions", "references"), datasets.List(datasets.Value("string"))),)

    def _compute(
        self,
        predictions: Sentences,
        references: Sentences,
        suffix: bool = False,
        scheme: str | None = None,
        mode: str | None = None,
        sample_weight: list[float] | None = None,
        zero_division: int = 0,
        entity_tags: EntityTags = None,
    ) -> dict[str, Result]:
        import seqeval.scheme
        from seqeval.metrics import accuracy_score, classification_report

        if scheme is not None and scheme not in _SCHEMES:
            raise ValueError(f"the scheme is {scheme}; seqeval knows {', '.join(_SCHEMES)}")
        accuracy = float(accuracy_score(y_true=references, y_pred=predictions))
        labels = _labels(predictions, references)
        if mode == "strict" or (suffix and not entity_tags):
            form = _SUFFIX if suffix else _PREFIX
            tags = {label: label for label in labels} if all(map(form.fullmatch, labels)) else None
        else:
            suffix, tags = False, _tags(labels, entity_tags)
        if tags is None:
            return {"overall_accuracy": accuracy, "no_entities": _NO_TAGS}
        report = classification_report(
            y_true=[[tags[label] for label in sentence] for sentence in references],
            y_pred=[[tags[label] for label in sentence] for sentence in predictions],
            suffix=suffix,
            output_dict=True,
            scheme=getattr(seqeval.scheme, scheme) if scheme else None,
            mode=mode,
            sample_weight=sample_weight,
            zero_division=zero_division,
        )
        figures: dict[str, Result] = {
            name: {**_scores(line), "number": int(line["support"])}
            for name, line in report.items()
            if name not in _AVERAGES
        }
        return {**figures, **_scores(report["micro avg"], "overall_"), "overall_accuracy": accuracy}

    def examples(
        self, predictions: Sentences, references: Sentences, entity_tags: EntityTags = None, **arguments: object
    ) -> dict[str, Examples] | None:
        """Return what each sentence contributes: entities that are right, predicted and present, and right words."""
        if arguments:
            return None
        from seqeval.metrics.sequence_labeling import get_entities

        pairs = list(zip(predictions, references))
        words = [[sum(map(operator.eq, predicted, actual)), len(actual)] for predicted, actual in pairs]
        accuracy = Examples(np.asarray(words, dtype=np.float64).reshape(-1, 2), ratio)
        tags = _tags(_labels(predictions, references), entity_tags)
        if tags is None:
            return {"overall_accuracy": accuracy}
        counts = []
        for pair in pairs:
            predicted, actual = (set(get_entities([tags[label] for label in sentence])) for sentence in pair)
            counts.append([len(predicted & actual), len(predicted), len(actual)])
        tallies = np.asarray(counts, dtype=np.float64).reshape(-1, 3)
        figures = {
            f"overall_{name}": Examples(tallies, partial(_of_counts, name)) for name in ("precision", "recall", "f1")
        }
        return {**figures, "overall_accuracy": accuracy}


def _scores(line: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    """Return the figures in a line of seqeval's report."""
    return {f"{prefix}{name.removesuffix('-score')}": float(line[name]) for name in ("precision", "recall", "f1-score")}


def _labels(predictions: Sentences, references: Sentences) -> set[str]:
    return {label for sentences in (predictions, references) for sentence in sentences for label in sentence}


def _tags(labels: set[str], entity_tags: EntityTags) -> dict[str, str] | None:
    """Return the tag of each label for the default mode of seqeval; None where a label is no tag."""
    tags = dict(entity_tags or {})
    for label in labels.difference(tags):
        if _TAG.fullmatch(label) is None:
            return None
        tags[label] = _IOBES.get(label[0], label[0]) + label[1:]
    return tags


def _of_counts(figure: str, totals: Totals) -> float:
    return float(score_of_counts(figure, totals[0], totals[1], totals[2]))
