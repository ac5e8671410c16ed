"""Extractive question answering: a question and a context in; the part of the context that answers it out, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import Mistake, SpecError
from benchcard.spec.schema import Number, ValueType
from benchcard.tasks import Prepared, Question, Row, data, text, windows
from benchcard.tasks.outputs import output
from benchcard.utils.text import format_value

if TYPE_CHECKING:
    import datasets


_DEFAULTS = {
    "max_seq_length": 384,
    "doc_stride": 128,
    "n_best_size": 20,
    "max_answer_length": 30,
    "null_score_diff_threshold": 0.0,
}
"""Names and values of the reference script.

Source: https://github.com/huggingface/transformers/blob/main/examples/pytorch/question-answering/run_qa.py
"""
_TALLIES = {
    "long": "{long} of {questions} contexts {long:was|were} read in overlapping windows ({windows} windows in all)",
    "astray": "{astray} of {answers} answers {astray:does|do} not stand in the context where `answer_start` says; "
    "{astray:it is scored by its|they are scored by their} text all the same",
    "absent": "{absent} of {answers} answers {absent:stands|stand} nowhere in {absent:its|their} context: "
    "no model can give {absent:it, and it is|them, and they are} scored all the same",
}


class QuestionAnswering:
    """The task `question-answering`. Rows without an answer make it SQuAD v2, where no answer may be the right one."""

    metrics: tuple[str, ...] = ("exact_match", "f1")
    scorers: tuple[str, ...] = ("squad", "squad_v2")
    has_length = True
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "max_seq_length": Number(8, whole=True),
            "doc_stride": Number(0, whole=True),
            "n_best_size": Number(1, whole=True),
            "max_answer_length": Number(1, whole=True),
            "null_score_diff_threshold": Number(),
        }
    )

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Rows as one window or more of token ids, with the places of tokens in the context beside them; a reference is
        `id` and `answers`, as in SQuAD.
        """
        texts = text.load_texts(question.model, offsets_for="to cut answers from the context")
        settings = {**_DEFAULTS, **{name: value for name, value in question.arguments.items() if name in _DEFAULTS}}
        answers = data.reference(rows, question, "answers") if question.labelled else None
        columns = _Columns(
            data.primary(rows, question, "question"), data.secondary(rows, question, "context") or "context", answers
        )
        answerable = answers is None or not _any_without(rows, answers, columns, question)
        scorer = "squad" if answerable else "squad_v2"
        return Prepared(
            _rows(rows, question, texts, columns, settings),
            {**settings, "answerable": answerable},
            texts.pad(),
            texts.tokenizer.padding_side,
            frozenset({"offsets", "null"}),
            tallies=_TALLIES,
            meanings={"exact_match": f"{scorer}.{'exact_match' if answerable else 'exact'}", "f1": f"{scorer}.f1"},
        )

    def kept(
        self, outputs: Mapping[str, NDArray[Any]], inputs: Mapping[str, NDArray[Any]], context: Mapping[str, Any]
    ) -> Mapping[str, Sequence[NDArray[Any]]]:
        """`start_logits` and `end_logits`, `(tokens,) float32` each."""
        return {name: text.without_padding(output(outputs, name), inputs) for name in ("start_logits", "end_logits")}

    def prediction(
        self, items: Sequence[Mapping[str, NDArray[Any]]], memo: Any, context: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`id`, `prediction_text` and `no_answer_probability`, as the SQuAD scorers take them."""
        found, probability = windows.answer(
            memo["context"],
            [
                windows.Window(item["start_logits"], item["end_logits"], item["offsets"], int(item["null"][0]))
                for item in items
            ],
            answerable=context["answerable"],
            n_best=context["n_best_size"],
            longest=context["max_answer_length"],
            null_threshold=context["null_score_diff_threshold"],
        )
        return {"id": memo["id"], "prediction_text": found, "no_answer_probability": probability}

    def inputs(
        self, model: Path, batch_size: int, input_length: int | None, seed: int
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """Token ids `(batch, tokens) int64` of pairs of texts without padding, and what goes in beside them."""
        return text.load_texts(model).timed(batch_size, input_length, seed, pair=True)


@dataclass(frozen=True)
class _Columns:
    """The names of the columns; none for answers where they are not needed."""

    question: str
    context: str
    answers: str | None


def _answers(value: Any, columns: _Columns, number: int) -> dict[str, list[Any]]:
    """What is right, as SQuAD tells it: `text` and `answer_start`; a text alone is one answer, and -1 says that nobody
    told where it stands.

    Raises:
        SpecError: It is told in another form.
    """
    if isinstance(value, str):
        value = {"text": [value] if value else []}
    if isinstance(value, list) and all(isinstance(each, dict) and "text" in each for each in value):
        value = {
            "text": [each["text"] for each in value],
            "answer_start": [each.get("answer_start", -1) for each in value],
        }
    found = value.get("text") if isinstance(value, dict) else None
    starts = (value.get("answer_start") or [-1] * len(found)) if found is not None else None
    if (
        not isinstance(found, list)
        or len(starts or ()) != len(found)
        or not all(isinstance(each, str) for each in found)
    ):
        raise SpecError(
            Mistake(
                "$.dataset.ref_keys[0]",
                f"{format_value(value)} in row {number} of `{columns.answers}`",
                "answers with `text` and `answer_start`",
            )
        )
    return {"text": found, "answer_start": list(starts or ())}


def _any_without(rows: datasets.Dataset, answers: str, columns: _Columns, question: Question) -> bool:
    """Whether a row has no answer; every row is looked at, so that one that is told in another form shows at once."""
    told = [
        _answers(row[answers], columns, question.number(index))
        for index, row in enumerate(data.iter_rows(rows, [answers]))
    ]
    return not all(each["text"] for each in told)


def _rows(
    rows: datasets.Dataset, question: Question, texts: text.Texts, columns: _Columns, settings: Mapping[str, Any]
) -> Iterator[Row]:
    named = [columns.question, columns.context] + ([columns.answers] if columns.answers else [])
    for index, row in enumerate(data.iter_rows(rows, named)):
        number = question.number(index)
        asked = text.expect_text(row[columns.question], columns.question, number).lstrip()
        context = text.expect_text(row[columns.context], columns.context, number, "secondary")
        items = _windows(texts, asked, context, settings, f"row {number} of `{columns.question}`")
        counts = {"questions": 1, "windows": len(items), "long": int(len(items) > 1)}
        reference = None
        if columns.answers:
            answers = _answers(row[columns.answers], columns, number)
            reference = {"id": str(number), "answers": answers}
            told = list(zip(answers["text"], answers["answer_start"]))
            absent = sum(each not in context for each, _ in told)
            astray = sum(start >= 0 and each in context and not context.startswith(each, start) for each, start in told)
            counts |= {"answers": len(told), "astray": astray, "absent": absent}
        yield Row(items, reference, {"id": str(number), "context": context}, counts)


def _windows(
    texts: text.Texts, question: str, context: str, settings: Mapping[str, Any], where: str
) -> list[dict[str, NDArray[Any]]]:
    """The windows of a context, each behind the question (before it, for a tokenizer that pads on the left) and
    overlapping the last one.
    """
    tokenizer = texts.tokenizer
    longest = min(settings["max_seq_length"], texts.maximum or settings["max_seq_length"])
    taken = len(
        tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"]
    ) + tokenizer.num_special_tokens_to_add(pair=True)
    if taken >= longest:
        found = f"a question that takes {taken} tokens with the special ones, in {where}"
        raise SpecError(
            Mistake(
                "$.dataset.data_keys.primary", found, f"a question that leaves room for a context in {longest} tokens"
            )
        )
    behind = tokenizer.padding_side == "right"
    encoding = tokenizer(
        *((question, context) if behind else (context, question)),
        truncation="only_second" if behind else "only_first",
        max_length=longest,
        # Windows must move on: a long question leaves room for a smaller overlap.
        stride=min(settings["doc_stride"], longest - taken - 1),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    items: list[dict[str, NDArray[Any]]] = []
    for index, item in enumerate(texts.items(encoding)):
        inside = np.asarray([part == int(behind) for part in encoding.sequence_ids(index)])
        ids = item["input_ids"].tolist()
        null = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
        offsets = np.where(
            inside[:, None], np.asarray(encoding["offset_mapping"][index], dtype=np.int64).reshape(-1, 2), -1
        )
        items.append({**item, "offsets": offsets, "null": np.asarray([null])})
    return items
