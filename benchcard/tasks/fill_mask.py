"""Masked language models: one token of each text is hidden, and the model says which it was.

The token is drawn by a seed and the number of the row, so that all models of a grid are asked the same. What is kept
of a text are the scores of the whole vocabulary at the hidden token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError
from benchcard.spec.schema import Number, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, data, text
from benchcard.tasks.outputs import output

if TYPE_CHECKING:
    from datasets import Dataset

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs

_USAGE = Usage(
    inputs=(("text",), ("sentence",), ("content",), ("document",)),
    input_kind="text",
    references=(),
    reference_kinds=(),
    metrics=("accuracy", "top_k_accuracy"),
    datasets=("Salesforce/wikitext", "stanfordnlp/imdb"),
    input_length=text.DEFAULT_LENGTH,
)


class FillMask:
    """The task `fill-mask`; `mask_seed` of `task_args` decides with the number of a row what is hidden in it."""

    metrics: tuple[str, ...] = ("accuracy", "top_k_accuracy")
    has_length = True
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 3},)
    arguments: Mapping[str, ValueType] = MappingProxyType({"mask_seed": Number(0, whole=True)})

    predicts_tokens = True

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return texts as token ids, one of which is that of the mask; a reference is the id of the hidden token."""
        texts = text.load_texts(question.model, maximum=question.maximum)
        mask = texts.tokenizer.mask_token_id
        if mask is None:
            advice = "Use a masked language model with the tokenizer that it was trained with."
            raise ArtifactError(f"The tokenizer of {question.model} has no mask token. {advice}")
        column = data.primary(rows, question, "text")
        vocabulary = getattr(texts.config.get_text_config(), "vocab_size", None)
        return Prepared(
            _rows(rows, question, texts, column),
            {"mask": mask},
            texts.pad(),
            texts.tokenizer.padding_side,
            outputs_per_number=vocabulary or 1,
            notes=("one token of each text was hidden, drawn by `mask_seed` and the number of the row",),
            tallies=texts.cut_tally(),
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `scores` `(vocabulary,) float32`, the logits at the hidden token."""
        logits, is_hidden = output(outputs, "logits"), inputs["input_ids"] == context["mask"]
        return {"scores": list(logits[np.arange(len(logits)), is_hidden.argmax(axis=1)])}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> int:
        """Return the id of the most likely token."""
        return int(items[0]["scores"].argmax())

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their scores of the vocabulary."""
        return ComparedOutput("label", "scores")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return token ids `(batch, tokens) int64` of single texts, without padding, and the other inputs."""
        return text.load_texts(model).timed(batch_size, input_length, seed)


def _rows(rows: Dataset, question: Question, texts: text.Texts, column: str) -> Iterator[Row]:
    special = [*texts.tokenizer.all_special_ids, *texts.tokenizer.added_tokens_decoder]
    mask, seed = texts.tokenizer.mask_token_id, msgspec.convert(question.arguments.get("mask_seed") or 0, int)
    place, hint = "$.dataset.data_keys.primary", "take such rows out of the data set"
    for block in data.numbered_blocks(rows, [column], question):
        (sentences,) = text.expect_columns(block, [column])
        items, was_cut = texts.encode(sentences)
        for (number, row), item, cut in zip(block, items, was_cut):
            ids: NDArray[np.int64] = item["input_ids"]
            if mask in ids:
                expected = f"a text without the mask token `{texts.tokenizer.mask_token}`"
                raise data.bad_value(row[column], column, number, place, expected, hint)
            ordinary = np.flatnonzero(~np.isin(ids, special))
            if not ordinary.size:
                expected = "a text with a token of the vocabulary to hide"
                raise data.bad_value(row[column], column, number, place, expected, hint)
            hidden = int(np.random.default_rng([seed, number]).choice(ordinary))
            masked = ids.copy()
            masked[hidden] = mask
            yield Row([{**item, "input_ids": masked}], int(ids[hidden]), counts={"texts": 1, "cut": int(cut)})
