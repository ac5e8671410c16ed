"""Metrics of transcripts: the edits that turn a prediction into its reference, as a share of the reference's length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import datasets
import numpy as np

from benchcard.metrics.examples import Examples, ratio
from benchcard.metrics.offline import Offline

_TEXTS = {"predictions": datasets.Value("string"), "references": datasets.Value("string")}


class _ErrorRate(Offline):
    """The number of insertions, deletions and substitutions in all texts, as a share of what the references have."""

    takes = (_TEXTS,)
    figure: ClassVar[str]

    @staticmethod
    def split(text: str) -> Sequence[str]:
        """Return what is edited in a text."""
        raise NotImplementedError

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        examples = self.examples(predictions, references)[self.figure]
        return {self.figure: examples.score(np.arange(examples.count))}

    def examples(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Examples]:
        """Return the number of edits and the length of the reference of each text."""
        pairs = [
            (self.split(predicted), self.split(actual))
            for predicted, actual in zip(predictions, references, strict=True)
        ]
        tallies = [(edits(predicted, actual), len(actual)) for predicted, actual in pairs]
        return {self.figure: Examples(np.asarray(tallies, dtype=np.float64).reshape(-1, 2), ratio)}


def edits(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the least number of insertions, deletions and substitutions that make one sequence of the other.

    Source: V. Levenshtein, Binary Codes Capable of Correcting Deletions, Insertions, and Reversals (1966).
    """
    ids = {element: index for index, element in enumerate({*first, *second})}
    columns = np.array([ids[element] for element in second], dtype=np.int64)
    places = np.arange(len(second) + 1)
    row = places
    for number, element in enumerate(first, start=1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (columns != ids[element]))
        # An insertion costs 1 more than the place before it.
        row = np.minimum.accumulate(np.append(number, changed) - places) + places
    return int(row[-1])


class WordErrorRate(_ErrorRate):
    """The edits of words, which are divided by spaces, as a share of the words of the references."""

    figure = "wer"

    @staticmethod
    def split(text: str) -> Sequence[str]:
        """Return the words of a text."""
        return text.split()


class CharacterErrorRate(_ErrorRate):
    """The edits of characters as a share of the characters of the references."""

    figure = "cer"

    @staticmethod
    def split(text: str) -> Sequence[str]:
        """Return the text, whose characters are edited."""
        return text
