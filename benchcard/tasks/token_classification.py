"""Token classification: words in, a label for each word out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import Mistake, SpecError
from benchcard.kinds import Kind, MappingOf, shown
from benchcard.tasks import Prepared, Question, Row, data, labels, text
from benchcard.tasks.rows import output

if TYPE_CHECKING:
    import datasets

# The metrics of the cards are those of seqeval: of whole entities, and of words for accuracy.
_MEANINGS = {
    "precision": "seqeval.overall_precision",
    "recall": "seqeval.overall_recall",
    "f1": "seqeval.overall_f1",
    "accuracy": "seqeval.overall_accuracy",
}
_TALLIES = {
    "beyond": "{beyond} of {words} words, in {cut} {cut:row|rows}, {beyond:lies|lie} beyond the model's {maximum} "
    "tokens: {beyond:it has no prediction and is|they have no prediction and are} not scored",
    "silent": "{silent} of {words} words {silent:gives|give} no token (spaces, control characters): "
    "{silent:it has no prediction and is|they have no prediction and are} not scored",
}


class TokenClassification:
    """The task `token-classification`: a word's label is that of its first sub-word, as in the reference script.

    Source: https://github.com/huggingface/transformers/blob/main/examples/pytorch/token-classification/run_ner.py
    """

    metrics: tuple[str, ...] = ("precision", "recall", "f1", "accuracy")
    scorers: tuple[str, ...] = ("seqeval",)
    has_length = True
    arguments: Mapping[str, Kind] = MappingProxyType({"label_mapping": MappingOf(open=True)})

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Rows as token ids, with the places of first sub-words beside them; a reference is a list of label names, one
        a scored word.
        """
        texts = text.load(question.model, offsets_for="to find the first token of each word", split=True)
        words = data.primary(rows, question, "tokens")
        _expect_lists(rows, words, "$.dataset.data_keys.primary", "a column of lists of words")
        tags = _tags(rows, question, texts.config) if question.labelled else None
        return Prepared(
            _rows(rows, question, texts, words, tags),
            {"labels": tags.names} if tags else {},
            texts.pad(),
            texts.tokenizer.padding_side,
            frozenset({"starts"}),
            tags.alignment.notes if tags else (),
            {name: sentence.replace("{maximum}", str(texts.maximum)) for name, sentence in _TALLIES.items()},
            _MEANINGS,
        )

    def kept(
        self, outputs: Mapping[str, NDArray[Any]], inputs: Mapping[str, NDArray[Any]], context: Mapping[str, Any]
    ) -> Mapping[str, Sequence[NDArray[Any]]]:
        """`scores` `(tokens, labels) float32`, the logits."""
        return {"scores": text.real(output(outputs, "logits"), inputs)}

    def prediction(
        self, items: Sequence[Mapping[str, NDArray[Any]]], memo: Any, context: Mapping[str, Any]
    ) -> list[str]:
        """The name of the most likely label of each scored word."""
        found = items[0]["scores"][items[0]["starts"]].argmax(axis=-1)
        return [context["labels"][label] for label in found]

    def inputs(
        self, model: Path, batch_size: int, input_length: int | None, seed: int
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """Token ids `(batch, tokens) int64` without padding, and what the model takes beside them."""
        return text.load(model).timed(batch_size, input_length, seed)


def _expect_lists(rows: datasets.Dataset, name: str, place: str, expected: str) -> None:
    if getattr(rows.features[name], "feature", None) is None:
        raise SpecError(Mistake(place, f"the column `{name}` of {rows.features[name]}", expected))


@dataclass(frozen=True)
class _Tags:
    """The column that holds the labels of words.

    Attributes:
        column: Its name.
        alignment: How its values become the model's label ids.
        names: The name of each label id. Entities are read from `B-` and `I-` in it, so where the model has no names,
            they are those of the data set.
    """

    column: str
    alignment: labels.Alignment
    names: list[str]

    def of(self, row: Mapping[str, Any], words: Sequence[str], number: int) -> list[str]:
        """The label name of each word of a row."""
        values = row[self.column]
        if not isinstance(values, list) or len(values) != len(words):
            count = len(values) if isinstance(values, list) else "no"
            found = f"{count} labels for {len(words)} words in row {number} of `{self.column}`"
            raise SpecError(Mistake("$.dataset.ref_keys[0]", found, "a label for each word"))
        return [self.names[self.alignment.id(value, number)] for value in values]


def _tags(rows: datasets.Dataset, question: Question, config: Any) -> _Tags:
    column = data.reference(rows, question, "ner_tags")
    _expect_lists(rows, column, "$.dataset.ref_keys[0]", "a column of lists of labels")
    declared, values = labels.of_column(rows, column)
    alignment = labels.align(config.id2label, declared, values, question.arguments.get("label_mapping"))
    names = list(alignment.names)
    if labels.are_generic(names):
        for key, index in alignment.ids.items():
            names[index] = declared[key] if declared is not None else str(key)
    return _Tags(column, alignment, names)


def _words(value: Any, column: str, number: int) -> list[str]:
    """The words of a row.

    Raises:
        SpecError: There are none, or one is no text.
    """
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        found = f"{shown(value)} in row {number} of `{column}`"
        raise SpecError(
            Mistake(
                "$.dataset.data_keys.primary",
                found,
                "a list of words that is not empty",
                "take such rows out of the data set",
            )
        )
    return value


def _starts(word_ids: Sequence[int | None]) -> dict[int, int]:
    """The place of the first token of each word that has one."""
    starts: dict[int, int] = {}
    for place, word in enumerate(word_ids):
        if word is not None:
            starts.setdefault(word, place)
    return starts


def _rows(
    rows: datasets.Dataset, question: Question, texts: text.Texts, column: str, tags: _Tags | None
) -> Iterator[Row]:
    columns = [column] if tags is None else [column, tags.column]
    numbered = ((question.number(index), row) for index, row in enumerate(data.each(rows, columns)))
    while block := list(islice(numbered, data.READ_ROWS)):
        words = [_words(row[column], column, number) for number, row in block]
        whole = texts.tokenizer(words, is_split_into_words=True, verbose=False)
        cut = whole
        if texts.maximum is not None and any(len(ids) > texts.maximum for ids in whole["input_ids"]):
            cut = texts.tokenizer(
                words, is_split_into_words=True, truncation=True, max_length=texts.maximum, verbose=False
            )
        for index, ((number, row), item) in enumerate(zip(block, texts.items(cut))):
            in_all, starts = _starts(whole.word_ids(index)), _starts(cut.word_ids(index))
            names = tags.of(row, words[index], number) if tags is not None else []
            beyond = len(in_all) - len(starts)
            counts = {
                "words": len(words[index]),
                "beyond": beyond,
                "silent": len(words[index]) - len(in_all),
                "cut": int(beyond > 0),
            }
            scored = [names[word] for word in sorted(starts)] if tags is not None else None
            places = np.asarray([starts[word] for word in sorted(starts)], dtype=np.int64)
            yield Row([{**item, "starts": places}], scored, counts=counts)
