"""Extractive question answering: a question and a context in; the part of the context that answers it out, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchcard.errors import Mistake, SpecError
from benchcard.spec.schema import Number, ValueType
from benchcard.tasks import ComparedOutput, InputCode, Prepared, Question, Row, Usage, data, text
from benchcard.tasks.outputs import output

if TYPE_CHECKING:
    from datasets import Dataset

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs


@dataclass(frozen=True)
class _Settings:
    """`task_args`, with the names and defaults of the reference script, and whether every question has an answer.

    Source: https://github.com/huggingface/transformers/blob/main/examples/pytorch/question-answering/run_qa.py
    """

    max_seq_length: int = 384
    doc_stride: int = 128
    n_best_size: int = 20
    max_answer_length: int = 30
    null_score_diff_threshold: float = 0.0
    answerable: bool = True


@dataclass(frozen=True)
class _Memo:
    """`Row.memo`."""

    id: str
    context: str


@dataclass(frozen=True)
class _Answers:
    """The right answers to a question as in SQuAD."""

    text: list[str]
    answer_start: list[int] | None = None


_TALLIES = {
    "long": "{long} of {questions} contexts {long:was|were} read in overlapping windows ({windows} windows in all)",
    "astray": "{astray} of {answers} answers {astray:does|do} not stand in the context where `answer_start` says; "
    "{astray:it is scored by its|they are scored by their} text all the same",
    "absent": "{absent} of {answers} answers {absent:stands|stand} nowhere in {absent:its|their} context: "
    "no model can give {absent:it, and it is|them, and they are} scored all the same",
}


_USAGE = Usage(
    inputs=(("question", "context"),),
    input_kind="text",
    references=("answers",),
    reference_kinds=("answers",),
    metrics=("exact_match", "f1"),
    datasets=("rajpurkar/squad", "rajpurkar/squad_v2"),
    metric_names={"exact": "exact_match", "em": "exact_match"},
    input_length=_Settings.max_seq_length,
)


class QuestionAnswering:
    """The task `question-answering`. Rows without an answer make it SQuAD v2, where no answer may be the right one."""

    metrics: tuple[str, ...] = ("exact_match", "f1")
    scorers: tuple[str, ...] = ("squad", "squad_v2")
    has_length = True
    outputs: tuple[Mapping[str, int], ...] = ({"start_logits": 2, "end_logits": 2},)
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "max_seq_length": Number(8, whole=True),
            "doc_stride": Number(0, whole=True),
            **dict.fromkeys(("n_best_size", "max_answer_length"), Number(1, whole=True)),
            "null_score_diff_threshold": Number(),
        }
    )

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return rows as one window or more of token ids, with the places of tokens in the context beside them; a
        reference is `id` and `answers`, as in SQuAD.
        """
        texts = text.load_texts(question.model, maximum=question.maximum, offsets_for="to cut answers from the context")
        settings = msgspec.convert(question.arguments, _Settings)
        answers = data.reference(rows, question, "answers") if question.labelled else None
        columns = [data.primary(rows, question, "question"), data.secondary(rows, question, "context") or "context"]
        answerable = answers is None or _all_have_answers(rows, answers, question)
        scorer = "squad" if answerable else "squad_v2"
        return Prepared(
            _rows(rows, question, texts, columns, answers, settings),
            asdict(replace(settings, answerable=answerable)),
            texts.pad(),
            texts.tokenizer.padding_side,
            frozenset({"offsets", "null"}),
            tallies=_TALLIES,
            meanings={"exact_match": f"{scorer}.{'exact_match' if answerable else 'exact'}", "f1": f"{scorer}.f1"},
            code=_code(texts, columns, settings),
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `start_logits` and `end_logits`, `(tokens,) float32` each."""
        return {name: text.without_padding(output(outputs, name), inputs) for name in ("start_logits", "end_logits")}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> dict[str, object]:
        """Return `id`, `prediction_text` and `no_answer_probability`, as the SQuAD scorers take them."""
        row = msgspec.convert(memo, _Memo)
        answer, probability = _answer(row.context, items, msgspec.convert(context, _Settings))
        return {"id": row.id, "prediction_text": answer, "no_answer_probability": probability}

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their answers."""
        return ComparedOutput("prediction")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return token ids `(batch, tokens) int64` of pairs of texts without padding, and the other inputs."""
        return text.load_texts(model).timed(batch_size, input_length, seed, pair=True)


def _answer(context: str, windows: Sequence[Arrays], settings: _Settings) -> tuple[str, float]:
    """Return the answer, empty for none, and the probability of no answer, 0 where every question has an answer.

    The score of an answer is the sum of both logits; of equal ones the first window's is taken. The score of no answer
    is its lowest over the windows, since a window without the answer knows nothing of others.

    Source: `postprocess_qa_predictions` in
    https://github.com/huggingface/transformers/blob/main/examples/pytorch/question-answering/utils_qa.py
    """
    from scipy.special import softmax

    candidates: list[tuple[float, str]] = []
    nulls: list[float] = []
    for window in windows:
        start_logits, end_logits, offsets = window["start_logits"], window["end_logits"], window["offsets"]
        starts, ends = (np.argsort(logits)[::-1][: settings.n_best_size] for logits in (start_logits, end_logits))
        inside = offsets[:, 0] >= 0
        candidates += [
            (float(start_logits[start] + end_logits[end]), context[offsets[start, 0] : offsets[end, 1]])
            for start in starts[inside[starts]]
            for end in ends[inside[ends]]
            if start <= end < start + settings.max_answer_length
        ]
        (null,) = window["null"]
        nulls.append(float(start_logits[null] + end_logits[null]))
    best = sorted(candidates, key=lambda candidate: candidate[0], reverse=True)[: settings.n_best_size]
    if settings.answerable:
        return (best[0][1] if best else ""), 0.0
    score, answer = next(((score, answer) for score, answer in best if answer), (None, ""))
    if score is None:
        return "", 1.0
    null_score = min(nulls)
    probability = float(softmax([*(score for score, _ in best), null_score])[-1])
    return ("" if null_score - score > settings.null_score_diff_threshold else answer), probability


def _read_answers(value: object, column: str, number: int) -> tuple[list[str], list[int]]:
    """Return the answers of a row, and their first characters in the context, -1 where these are not given.

    A row has a text, a list of `{text, answer_start}`, or `{text: […], answer_start: […]}`.
    """
    if isinstance(value, str):
        value = {"text": [value] if value else []}
    elif isinstance(value, list) and all(isinstance(answer, dict) and "text" in answer for answer in value):
        starts = [answer.get("answer_start", -1) for answer in value]
        value = {"text": [answer["text"] for answer in value], "answer_start": starts}
    try:
        answers = msgspec.convert(value, _Answers)
    except msgspec.ValidationError:
        answers = _Answers([], [-1])
    starts = answers.answer_start or [-1] * len(answers.text)
    if len(starts) != len(answers.text):
        expected = "answers with `text` and `answer_start`"
        raise data.bad_value(value, column, number, "$.dataset.ref_keys[0]", expected)
    return answers.text, starts


def _all_have_answers(rows: Dataset, column: str, question: Question) -> bool:
    """Return whether every row has an answer. All rows are read, so that answers of another form fail at once."""
    values = enumerate(row[column] for row in data.iter_rows(rows, [column]))
    answers = [_read_answers(value, column, question.number(index)) for index, value in values]
    return all(texts for texts, _ in answers)


def _rows(
    rows: Dataset, question: Question, texts: text.Texts, columns: list[str], answers: str | None, settings: _Settings
) -> Iterator[Row]:
    for index, row in enumerate(data.iter_rows(rows, [*columns, answers] if answers else columns)):
        number = question.number(index)
        asked = text.expect_text(row[columns[0]], columns[0], number).lstrip()
        context = text.expect_text(row[columns[1]], columns[1], number, "secondary")
        items = _windows(texts, asked, context, settings, f"row {number} of `{columns[0]}`")
        counts = {"questions": 1, "windows": len(items), "long": int(len(items) > 1)}
        reference = None
        if answers:
            right, starts = _read_answers(row[answers], answers, number)
            reference = {"id": str(number), "answers": {"text": right, "answer_start": starts}}
            elsewhere = [(answer, start) for answer, start in zip(right, starts) if answer in context and start >= 0]
            astray = sum(not context.startswith(answer, start) for answer, start in elsewhere)
            absent = sum(answer not in context for answer in right)
            counts |= {"answers": len(right), "astray": astray, "absent": absent}
        yield Row(items, reference, asdict(_Memo(str(number), context)), counts)


def _max_tokens(texts: text.Texts, settings: _Settings) -> int:
    return min(settings.max_seq_length, texts.maximum or settings.max_seq_length)


def _code(texts: text.Texts, columns: Sequence[str], settings: _Settings) -> InputCode:
    """Return the code that makes the windows of `_windows`."""
    question = f"row[{columns[0]!r}].lstrip()"
    pair, longest = (f"[{question}]", f"[row[{columns[1]!r}]]"), _max_tokens(texts, settings)
    context_is_second = texts.tokenizer.padding_side == "right"
    room = longest - texts.tokenizer.num_special_tokens_to_add(pair=True) - 1
    return texts.code(
        *(pair if context_is_second else pair[::-1]),
        truncation=repr("only_second" if context_is_second else "only_first"),
        max_length=str(longest),
        stride=f"min({settings.doc_stride}, {room} - len(processor.tokenize({question})))",
        return_overflowing_tokens="True",
    )


def _windows(
    texts: text.Texts, question: str, context: str, settings: _Settings, where: str
) -> list[dict[str, np.ndarray]]:
    """Return the overlapping windows of a context, each after the question, or before it for a tokenizer that pads on
    the left.
    """
    tokenizer = texts.tokenizer
    max_tokens = _max_tokens(texts, settings)
    question_ids = tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"]
    question_tokens = len(question_ids) + tokenizer.num_special_tokens_to_add(pair=True)
    if question_tokens >= max_tokens:
        actual = f"a question that takes {question_tokens} tokens with the special ones, in {where}"
        expected = f"a question that leaves room for a context in {max_tokens} tokens"
        raise SpecError(Mistake("$.dataset.data_keys.primary", actual, expected))
    context_is_second = tokenizer.padding_side == "right"
    encoding = tokenizer(
        *((question, context) if context_is_second else (context, question)),
        truncation="only_second" if context_is_second else "only_first",
        max_length=max_tokens,
        # A long question leaves room for a smaller overlap only; without this limit windows would not advance.
        stride=min(settings.doc_stride, max_tokens - question_tokens - 1),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    items: list[dict[str, np.ndarray]] = []
    for index, item in enumerate(texts.items(encoding)):
        inside = np.asarray(encoding.sequence_ids(index)) == int(context_is_second)
        # The first `cls` token, else the first token.
        null = int(np.argmax(item["input_ids"] == tokenizer.cls_token_id))
        offsets = np.where(inside[:, None], np.asarray(encoding["offset_mapping"][index], dtype=np.int64), -1)
        items.append({**item, "offsets": offsets, "null": np.asarray([null])})
    return items
