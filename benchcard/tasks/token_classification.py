"""Token classification: words in, a label for each word out.

Owns how the names of labels are read as tags of entities. Leaves the count of entities to `benchcard.metrics.entities`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchcard.errors import Mistake, SpecError
from benchcard.spec.schema import MappingOf, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, data, labels, text
from benchcard.tasks.outputs import output
from benchcard.utils.text import quote_names

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs


# These names stand for the metrics of seqeval: accuracy is that of words, the others are those of entities.
_MEANINGS = {
    "precision": "seqeval.overall_precision",
    "recall": "seqeval.overall_recall",
    "f1": "seqeval.overall_f1",
    "accuracy": "seqeval.overall_accuracy",
}
# A tag is a letter of a scheme before a type (`B-PER`, `B_PER`), after it (`PER-B`), or alone.
_PREFIXED = re.compile(r"(?P<letter>[BIESLUMW])(?:[-_](?P<type>.+))?", re.IGNORECASE | re.DOTALL)
_SUFFIXED = re.compile(r"(?P<type>.+)[-_](?P<letter>[BIESLUMW])", re.IGNORECASE | re.DOTALL)
# The letters of IOBES for those of other schemes: BILOU (last, unit), BMES (middle), BMEWO (whole).
_IOBES = {"L": "E", "U": "S", "M": "I", "W": "S"}
_TALLIES = {
    "beyond": "{beyond} of {words} words, in {cut} {cut:row|rows}, {beyond:lies|lie} beyond the model's {maximum} "
    "tokens: {beyond:it has no prediction and is|they have no prediction and are} not scored",
    "silent": "{silent} of {words} words {silent:gives|give} no token (spaces, control characters): "
    "{silent:it has no prediction and is|they have no prediction and are} not scored",
    "unlabelled": "{unlabelled} of {words} words {unlabelled:has|have} the label "
    f"{labels.UNLABELLED}: {{unlabelled:it is|they are}} not scored",
    "empty": "{empty} {empty:row has|rows have} no words",
}


_USAGE = Usage(
    inputs=(("tokens",), ("words",)),
    input_kind="texts",
    references=("ner_tags", "labels", "tags"),
    reference_kinds=("labels", "texts", "integers"),
    metrics=tuple(_MEANINGS),
    datasets=("eriktks/conll2003", "leondz/wnut_17"),
    input_length=text.DEFAULT_LENGTH,
)


class TokenClassification:
    """The task `token-classification`: a word's label is that of its first sub-word, as in the reference script.

    Source: https://github.com/huggingface/transformers/blob/main/examples/pytorch/token-classification/run_ner.py
    """

    metrics: tuple[str, ...] = ("precision", "recall", "f1", "accuracy")
    scorers: tuple[str, ...] = ("seqeval",)
    has_length = True
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 3},)
    arguments: Mapping[str, ValueType] = MappingProxyType({"label_mapping": MappingOf(open=True)})

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return rows as token ids, with the indices of first sub-words beside them; a reference is a list of label
        names, one for each scored word.
        """
        needed = "to find the first token of each word"
        texts = text.load_texts(question.model, maximum=question.maximum, offsets_for=needed, split=True)
        words = data.primary(rows, question, "tokens")
        data.list_feature(rows, words, "$.dataset.data_keys.primary", "a column of lists of words")
        tags = _load_tags(rows, question, texts.config) if question.labelled else None
        entity_tags, note = read_tags(tags.names) if tags else (None, "")
        return Prepared(
            _rows(rows, question, texts, words, tags),
            {"labels": tags.names if tags else labels.model_names(texts.config)},
            texts.pad(),
            texts.tokenizer.padding_side,
            frozenset({"starts"}),
            (*tags.alignment.notes, note) if tags else (),
            {name: sentence.replace("{maximum}", str(texts.maximum)) for name, sentence in _TALLIES.items()},
            _MEANINGS,
            {"entity_tags": entity_tags} if entity_tags else {},
            code=texts.code(f"[row[{words!r}]]", is_split_into_words="True"),
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used; only words are scored where the labels mark no entities."""
        if read_tags(names)[0] is None and not labels.are_generic(names):
            return replace(_USAGE, metrics=("accuracy",))
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `scores` `(tokens, labels) float32`, the logits."""
        return {"scores": text.without_padding(output(outputs, "logits"), inputs)}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> list[str]:
        """Return the name of the most likely label of each scored word."""
        if not items:
            return []
        names = msgspec.convert(context["labels"], list[str])
        return [names[label] for label in items[0]["scores"][items[0]["starts"]].argmax(axis=-1)]

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by the logits of each scored word."""
        return ComparedOutput("label", "scores", "starts")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return token ids `(batch, tokens) int64` without padding, and the other inputs."""
        return text.load_texts(model).timed(batch_size, input_length, seed)


@dataclass(frozen=True)
class _Tags:
    """The column of the labels of words.

    Attributes:
        names: The unique name of each label id, from which entities are read: the model's, or the data set's where the
            model has no names or gives one twice.
    """

    column: str
    alignment: labels.Alignment
    names: list[str]

    def of_row(self, row: Mapping[str, Any], words: Sequence[str], number: int) -> list[str | None]:
        """Return the label name of each word of a row; None for one that is not scored."""
        values = row[self.column] or []
        if len(values) != len(words):
            actual = f"{len(values) or 'no'} labels for {len(words)} words in row {number} of `{self.column}`"
            raise SpecError(Mistake("$.dataset.ref_keys[0]", actual, "a label for each word"))
        if None in values:
            actual = f"no label for word {values.index(None)} (`{words[values.index(None)]}`) of row {number}"
            expected = f"a label for each word, or {labels.UNLABELLED} for words that are not scored"
            raise SpecError(Mistake("$.dataset.ref_keys[0]", actual, expected))
        ids = self.alignment.id
        return [None if value == labels.UNLABELLED else self.names[ids(value, number)] for value in values]


def _load_tags(rows: Dataset, question: Question, config: PretrainedConfig) -> _Tags:
    column = data.reference(rows, question, "ner_tags")
    data.list_feature(rows, column, "$.dataset.ref_keys[0]", "a column of lists of labels")
    declared, values = labels.column_labels(rows, column)
    alignment = labels.align(config.id2label, declared, values, labels.label_mapping(question))
    given = alignment.names
    names = [name if given.count(name) == 1 else f"{name} (id {index})" for index, name in enumerate(given)]
    for key, index in alignment.ids.items():
        if labels.are_generic(given) or given.count(given[index]) > 1:
            names[index] = declared[key] if declared is not None and isinstance(key, int) else str(key)
    return _Tags(column, alignment, names)


def read_tags(names: Sequence[str]) -> tuple[dict[str, str] | None, str]:
    """Return the IOBES tag of each label name, as seqeval reads it, and a note on how names are read; None for the tags
    where the labels mark no entities.

    Letters count as those of a scheme where a type has several of them (`B-PER`, `I-PER`), so that `E-mail` is not the
    end of a `mail`. Without a scheme each run of one name other than `O` is an entity.
    """
    outside = [name for name in names if name.upper() == "O"]
    others = [name for name in names if name not in outside]
    tags: dict[str, str] = {}
    scheme = place = ""
    for pattern, where in ((_PREFIXED, "begin"), (_SUFFIXED, "end")):
        parsed = {name: match for name in others if (match := pattern.fullmatch(name))}
        letters = _scheme_letters(parsed, len(others), bool(outside), is_prefix=pattern is _PREFIXED)
        if letters:
            scheme, place = _scheme(letters), where
            for name, match in parsed.items():
                if (letter := match["letter"].upper()) in letters:
                    letter = _IOBES.get(letter, letter)
                    tags[name] = f"{letter}-{match['type']}" if match["type"] else letter
            break
    bare = [name for name in others if name not in tags]
    if not outside and len(bare) == 1 and tags:
        outside, bare = bare, []
    if not outside and bare:
        return None, "the labels mark no entities (none is `O`): only the accuracy of words has a meaning"
    all_tags = {**tags, **{name: f"I-{name}" for name in bare}, **dict.fromkeys(outside, "O")}
    if not tags:
        runs = "each run of one label other than `O` is an entity (scheme IO)"
        return all_tags, f"no label begins with `B-` or `I-`: {runs}"
    rest = f"; each run of {quote_names(bare)} is an entity" if bare else ""
    return all_tags, f"entities are read from the letters that labels {place} with (scheme {scheme}){rest}"


def _scheme_letters(parsed: Mapping[str, re.Match[str]], count: int, has_outside: bool, *, is_prefix: bool) -> set[str]:
    """Return the letters of parsed label names that belong to a scheme; empty where there is no scheme.

    `count` is the number of labels other than `O`; with `is_prefix` the letters stand before the types.
    """
    letters_of: dict[str | None, set[str]] = defaultdict(set)
    for match in parsed.values():
        letters_of[match["type"]].add(match["letter"].upper())
    letters = {letter for several in letters_of.values() if len(several) > 1 for letter in several}
    if not is_prefix:
        return letters if letters >= {"B", "I"} else set()
    every = {letter for several in letters_of.values() for letter in several}
    if len(parsed) == count and (every & {"B", "I"} or every in ({"S"}, {"U"})):
        letters = every
    elif has_outside:
        # Beside a label `O`, a `B` or `I` before a type always belongs to a scheme.
        letters |= {"B", "I"} & {letter for kind, several in letters_of.items() if kind for letter in several}
    return letters if letters & {"B", "I", "S", "U"} else set()


def _scheme(letters: set[str]) -> str:
    if letters & {"L", "U"}:
        return "BILOU"
    if letters & {"M", "W"}:
        return "BMES"
    if "B" not in letters:
        return "IOE" if "E" in letters else "IO"
    return "IOBES" if letters & {"E", "S"} else "IOB"


def _expect_words(value: object, column: str, number: int) -> list[str]:
    """Return the words of a row: none for an empty or a missing sentence."""
    words = [] if value is None else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        hint = "take such rows out of the data set"
        raise data.bad_value(value, column, number, "$.dataset.data_keys.primary", "a list of words", hint)
    return words


def _first_tokens(word_ids: Sequence[int | None]) -> dict[int, int]:
    return {word: index for index, word in reversed(list(enumerate(word_ids))) if word is not None}


def _rows(rows: Dataset, question: Question, texts: text.Texts, column: str, tags: _Tags | None) -> Iterator[Row]:
    columns = [column] if tags is None else [column, tags.column]
    is_scored = tags is None
    for block in data.numbered_blocks(rows, columns, question):
        sentences = [_expect_words(row[column], column, number) for number, row in block]
        encoded = iter(_encode(texts, [words for words in sentences if words]))
        for (number, row), words in zip(block, sentences):
            names = tags.of_row(row, words, number) if tags is not None else None
            if not words:
                yield Row([], names, counts={"empty": 1})
                continue
            item, all_starts, starts = next(encoded)
            scored = [word for word in sorted(starts) if names is None or names[word] is not None]
            counts = {
                "words": len(words),
                "beyond": len(all_starts) - len(starts),
                "cut": int(len(all_starts) > len(starts)),
                "silent": len(words) - len(all_starts),
                "unlabelled": len(starts) - len(scored),
            }
            is_scored = is_scored or bool(scored)
            indices = np.asarray([starts[word] for word in scored], dtype=np.int64)
            reference = None if names is None else [names[word] for word in scored]
            yield Row([{**item, "starts": indices}], reference, counts=counts)
    if not is_scored:
        actual, expected = "a split in which no word is scored", "words with labels that the model can read"
        raise SpecError(Mistake("$.dataset", actual, expected))


def _encode(
    texts: text.Texts, sentences: Sequence[Sequence[str]]
) -> Iterator[tuple[Arrays, dict[int, int], dict[int, int]]]:
    """Yield the inputs of each sentence, and the index of the first token of each word: of all words that give one, and
    of those within the maximum.
    """
    if not sentences:
        return
    encoding = cut = texts.tokenizer(sentences, is_split_into_words=True, verbose=False)
    if texts.maximum is not None and any(len(ids) > texts.maximum for ids in encoding["input_ids"]):
        limits = {"truncation": True, "max_length": texts.maximum}
        cut = texts.tokenizer(sentences, is_split_into_words=True, verbose=False, **limits)
    for index, item in enumerate(texts.items(cut)):
        yield item, _first_tokens(encoding.word_ids(index)), _first_tokens(cut.word_ids(index))
