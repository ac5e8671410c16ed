"""Text ranking: a query and documents in, a score of each document out, by a cross-encoder that reads pairs of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.spec.schema import ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, data, text
from benchcard.tasks.outputs import output
from benchcard.tasks.pooling import load_config

if TYPE_CHECKING:
    from datasets import Dataset

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs

_USAGE = Usage(
    inputs=(("query", "documents"), ("query", "passages"), ("query", "docs"), ("question", "passages")),
    input_kind="text",
    second_kind="texts",
    references=("labels", "relevance", "is_selected", "scores"),
    reference_kinds=("integers", "labels"),
    metrics=("ndcg_at_10", "mrr_at_10"),
    datasets=(),
    metric_names={"ndcg@10": "ndcg_at_10", "mrr@10": "mrr_at_10", "ndcg": "ndcg_at_10", "mrr": "mrr_at_10"},
    task_types=("reranking", "text-reranking"),
    batch_sizes=(1, 32),
    input_length=text.DEFAULT_LENGTH,
)


class TextRanking:
    """The task `text-ranking`: a row has a query, a list of documents, and a list of their relevance.

    No activation is applied to the model's output: it would not change the order.
    """

    metrics: tuple[str, ...] = ("ndcg_at_10", "mrr_at_10")
    has_length = True
    loads_as = "text-classification"
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 2},)
    arguments: Mapping[str, ValueType] = MappingProxyType({})

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return the pair of query and each document as token ids; a reference is the relevance of each document."""
        texts = text.load_texts(question.model, maximum=question.maximum)
        if (count := texts.config.num_labels) != 1:
            hint = "for the labels of pairs, use the task `text-classification`"
            raise SpecError(
                Mistake("$.model", f"a model with {count} outputs", "a cross-encoder with one output", hint)
            )
        if prompt := load_config(question.model).prompt:
            raise ArtifactError(f"{question.model} reads every text with the prompt {prompt!r}, which is not supported")
        query, documents = data.primary(rows, question, "query"), data.secondary(rows, question, "documents")
        columns = [query, documents or "documents"]
        data.list_feature(rows, columns[1], "$.dataset.data_keys.secondary", "a column of lists of texts")
        if question.labelled:
            columns.append(data.reference(rows, question, "labels"))
            data.list_feature(rows, columns[2], "$.dataset.ref_keys[0]", "a column of lists of numbers")
        tallies = {
            "unanswered": "{unanswered} of {queries} queries {unanswered:has|have} no relevant document: "
            "{unanswered:it is|they are} not scored"
        }
        return Prepared(
            _rows(rows, question, texts, columns),
            {},
            texts.pad(),
            texts.tokenizer.padding_side,
            tallies={**texts.cut_tally(), **tallies},
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `scores` `(1,) float32`, the model's output for one document."""
        return {"scores": list(output(outputs, "logits"))}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> list[float]:
        """Return the score of each document."""
        return [float(item["scores"][0]) for item in items]

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their scores."""
        return ComparedOutput("label", "scores")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return token ids `(batch, tokens) int64` of pairs of texts, without padding, and the other inputs."""
        return text.load_texts(model).timed(batch_size, input_length, seed, pair=True)


def _rows(rows: Dataset, question: Question, texts: text.Texts, columns: Sequence[str]) -> Iterator[Row]:
    query, documents, *reference = columns
    for block in data.numbered_blocks(rows, columns, question):
        (queries,) = text.expect_columns(block, [query])
        for (number, row), asked in zip(block, queries):
            found = row[documents]
            if not found:
                hint = "take such rows out of the data set"
                place, expected = "$.dataset.data_keys.secondary", "a list of one text or more"
                raise data.bad_value(found, documents, number, place, expected, hint)
            found = [text.expect_text(document, documents, number, "secondary") for document in found]
            relevance = _relevance(row[reference[0]], reference[0], number, len(found)) if reference else None
            items, was_cut = texts.encode([asked] * len(found), found)
            counts = {"texts": len(found), "cut": sum(was_cut), "queries": 1}
            counts["unanswered"] = int(relevance is not None and not any(value > 0 for value in relevance))
            yield Row(items, relevance, counts=counts)


def _relevance(values: object, column: str, number: int, count: int) -> list[float]:
    """Return the relevance of each of `count` documents of a row: numbers that are not negative."""
    if not isinstance(values, list) or len(values) != count:
        expected = f"a list of {count} numbers, one for each document"
        raise data.bad_value(values, column, number, "$.dataset.ref_keys[0]", expected)
    numbers = [data.expect_number(value, column, number) for value in values]
    if min(numbers) < 0:
        raise data.bad_value(values, column, number, "$.dataset.ref_keys[0]", "0 for no relevance, and more for more")
    return numbers
