"""Text retrieval: queries in, the documents of a corpus out, ranked by the similarity of their embeddings.

A row is a query. Predictions are made for a model whose queries search its own index, and for one whose queries search
the index of the baseline, as where documents were embedded once by the float model, and a quantized model encodes
queries. Leaves figures to `metrics.ranking`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchcard.errors import Mistake, SpecError
from benchcard.spec.schema import Either, ListOf, MappingOf, Text, ValueType
from benchcard.tasks import InputCode, Prepared, Question, Row, Usage, data, text
from benchcard.tasks.feature_extraction import SIMILARITIES, FeatureExtraction, choose_similarity, load_encoder
from benchcard.tasks.ranks import Scores, nearest, ranks, scores, share_found
from benchcard.utils.text import pluralize

if TYPE_CHECKING:
    from datasets import Dataset

    from benchcard.tasks.pooling import Pooling
    from benchcard.tasks.protocol import Arrays, Context

_METRICS = (
    *("float_index_ndcg_at_10", "ndcg_at_10", "float_index_recall_at_10", "recall_at_10", "float_top_10_recall"),
    *("mrr_at_10", "recall_at_100"),
)
_USAGE = Usage(
    inputs=(
        *(("query", "documents"), ("query", "passages"), ("query", "positive"), ("query", "answer")),
        *(("question", "passages"), ("question", "answer"), ("anchor", "positive")),
    ),
    input_kind="text",
    second_kind="texts",
    references=(),
    reference_kinds=(),  # A column `labels` is read where there is one.
    metrics=_METRICS,
    datasets=("mteb/scifact", "mteb/nfcorpus"),
    metric_names={"ndcg@10": "ndcg_at_10", "recall@10": "recall_at_10", "mrr@10": "mrr_at_10"}
    | {"cosine_ndcg@10": "ndcg_at_10", "cosine_recall@10": "recall_at_10", "cosine_mrr@10": "mrr_at_10"},
    task_types=("Retrieval", "information-retrieval"),
    batch_sizes=(1, 32),
    input_length=text.DEFAULT_LENGTH,
)
# The prompts that `encode_query` and `encode_document` of sentence-transformers take, the first that a model has.
_QUERY_PROMPTS, _DOCUMENT_PROMPTS = ("query",), ("document", "passage", "corpus")
# Columns of queries and documents in BEIR's form; a title comes before the text.
# Source: `encode_corpus` in beir/retrieval/models/sentence_bert.py.
_IDS, _TEXTS = ("_id", "id"), ("title", "text")
_PART = MappingOf({name: Text() for name in ("name", "split", "id")} | {"text": Either((Text(), ListOf(Text())))})
_TOP = 10


@dataclass(frozen=True)
class _Part:
    """`corpus` and `queries` of `task_args`: another configuration and split of the data set, and its columns."""

    name: str | None = None
    split: str | None = None
    id: str | None = None
    text: str | list[str] | None = None


@dataclass(frozen=True)
class _Arguments:
    corpus: _Part | None = None
    queries: _Part | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None


class TextRetrieval(FeatureExtraction):
    """The task `text-retrieval`: embeddings of queries and documents, pooled as the model's folder configures.

    A row of the data set is a query with its documents or, with a `corpus` in `task_args`, with their ids; with
    `queries` too, it is a judgement of a query and a document, as in BEIR.
    """

    metrics = _METRICS[:5]
    loads_as = "feature-extraction"
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            **FeatureExtraction.arguments,
            "corpus": _PART,
            "queries": _PART,
            "query_prompt": Text(may_be_empty=True),
            "document_prompt": Text(may_be_empty=True),
        }
    )

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return queries and documents as token ids, each distinct text once; a reference is the relevance of the
        judged documents of a query.
        """
        own = {name: value for name, value in question.arguments.items() if name in _Arguments.__dataclass_fields__}
        arguments = msgspec.convert(own, _Arguments)
        if arguments.queries and not arguments.corpus:
            hint = "queries are looked up by id only where documents are"
            raise SpecError(Mistake("$.task_args.corpus", "nothing", "the corpus of the queries", hint))
        texts, of_queries = load_encoder(
            question.model, question.maximum, "query", _QUERY_PROMPTS, arguments.query_prompt
        )
        _, of_documents = load_encoder(
            question.model, question.maximum, "document", _DOCUMENT_PROMPTS, arguments.document_prompt
        )
        similarity, source = choose_similarity(question, of_queries)
        name, _ = SIMILARITIES[similarity]
        settings = replace(of_queries, similarity=similarity, maximum=texts.maximum)
        reader = _Reader(rows, question, arguments)
        items = _Items(texts, of_queries, of_documents)
        notes = dict.fromkeys((*of_queries.notes, *of_documents.notes))
        tallies = {
            "searched": "{queries} {queries:query is|queries are} searched in a corpus of {searched} "
            "{searched:document|documents}",
            "repeated": "{repeated} {repeated:row has|rows have} the query of an earlier row: they count as one query",
            "unanswered": "{unanswered} of {queries} queries {unanswered:has|have} no relevant document: "
            "{unanswered:it is|they are} not scored",
            "itself": "{itself} of {queries} queries {itself:has|have} the id of a document that is not judged "
            "relevant: this document is not in the ranking of {itself:the query|such a query}",
        }
        return Prepared(
            items.evaluated(reader) if question.evaluated else items.calibrating(reader),
            {key: value for key, value in asdict(settings).items() if key != "notes"},
            texts.pad(),
            texts.tokenizer.padding_side,
            notes=(*notes, f"documents are ranked by the {name} of embeddings ({source})", *reader.notes),
            facts={"similarity_fn_name": similarity},
            tallies={**texts.cut_tally(), **tallies},
            code=reader.code(texts, of_queries, of_documents),
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> None:  # type: ignore[override]
        """Return nothing: a ranking takes the documents of all rows, see `predictions`."""

    def predictions(
        self,
        kept: Arrays,
        owners: Sequence[int],
        memos: Sequence[object],
        context: Context,
        baseline: Arrays | None,
    ) -> list[object]:
        """Return for each query the `ranks` of its judged documents, from 1, in the model's own index and in that of
        the baseline (`float_index_ranks`), and which share of the baseline's own first ten the query finds among its
        first ten in the baseline's index (`float_top_10_recall`); None where there is no baseline.

        Of equal scores, the first document of the corpus is first.
        """
        similarity, of_rows = str(context["similarity"]), msgspec.convert(memos, list[tuple[list[int], list[int]]])
        judged, itself = [places for places, _ in of_rows], [places for _, places in of_rows]
        queries, documents = _split(kept, owners)
        own = _scores(queries, documents, similarity, itself)
        if baseline is None:
            return [
                {"ranks": ranks(of_query, places), "float_index_ranks": None, "float_top_10_recall": None}
                for of_query, places in zip(own, judged, strict=True)
            ]
        if np.array_equal(kept["embedding"], baseline["embedding"]):
            rankings = (ranks(of_query, places) for of_query, places in zip(own, judged, strict=True))
            return [{"ranks": each, "float_index_ranks": each, "float_top_10_recall": 1.0} for each in rankings]
        float_queries, index = _split(baseline, owners)
        mixed, floats = (_scores(each, index, similarity, itself) for each in (queries, float_queries))
        return [
            {
                "ranks": ranks(of_query, places),
                "float_index_ranks": ranks(on_index, places),
                "float_top_10_recall": share_found(on_index, nearest(of_float, _TOP)),
            }
            for of_query, on_index, of_float, places in zip(own, mixed, floats, judged, strict=True)
        ]


def _split(kept: Arrays, owners: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the embeddings of queries, which are the first items of their rows, and those of documents."""
    is_query = np.diff(np.asarray(owners), prepend=-1) > 0
    return kept["embedding"][is_query], kept["embedding"][~is_query]


def _scores(
    queries: np.ndarray, documents: np.ndarray, similarity: str, left_out: Sequence[list[int]]
) -> Iterator[Scores]:
    """Yield the scores of all documents for one query after the other; the lowest for those that it leaves out."""
    for of_query, places in zip(scores(queries, documents, similarity), left_out, strict=True):
        of_query[places] = -np.inf
        yield of_query


@dataclass(frozen=True)
class _Items:
    """The inputs of queries and documents."""

    texts: text.Texts
    of_queries: Pooling
    of_documents: Pooling

    def calibrating(self, reader: _Reader) -> Iterator[Row]:
        """Yield a row for each row of the data set: its query with its documents, or with one of the corpus."""
        queries = reader.query_texts()
        corpus = reader.corpus()
        others = list(corpus.texts)
        for index, (number, row) in enumerate(reader.numbered()):
            names = reader.documents(row, number, corpus)
            documents = [others[corpus.places[name]] if others else name for name in names]
            spread = others[index * len(others) // reader.count :][:1]
            yield self._row(reader.query(row, number, queries), documents or spread)

    def evaluated(self, reader: _Reader) -> Iterator[Row]:
        """Yield a row for each distinct query. The documents of the corpus are divided among the rows in order."""
        judged, documents, repeated = reader.read()
        for number, (query, judgement) in enumerate(judged.items()):
            start, end = (index * len(documents) // len(judged) for index in (number, number + 1))
            row = self._row(query, documents[start:end])
            relevance, itself = judgement.relevance, sorted(judgement.itself - judgement.relevance.keys())
            counts = {"queries": 1, "searched": end - start, "repeated": 0 if number else repeated}
            counts |= {"unanswered": int(reader.is_judged and not relevance), "itself": int(bool(itself))}
            reference = list(relevance.values()) if reader.is_judged else None
            yield replace(row, reference=reference, memo=(list(relevance), itself), counts={**row.counts, **counts})

    def _row(self, query: str, documents: Sequence[str]) -> Row:
        pooled = [self.of_queries.model_text(query), *map(self.of_documents.model_text, documents)]
        items, was_cut = self.texts.encode(pooled)
        return Row(items, counts={"texts": len(items), "cut": sum(was_cut)})


@dataclass
class _Corpus:
    """The distinct texts of documents with their places, and the places of documents by name: the id or the text."""

    texts: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, document: str) -> None:
        """Add a document; one with the text of an earlier one has its place."""
        self.places[name] = self.texts.setdefault(document, len(self.texts))


@dataclass
class _Judged:
    """What is known of a query: the relevance of documents by their places, those that are not relevant left out, and
    the places of the documents that have its id.
    """

    relevance: dict[int, float] = field(default_factory=dict)
    itself: set[int] = field(default_factory=set)


class _Reader:
    """The rows of a data set in one of three forms: queries with their documents, queries with the ids of documents, or
    judgements with an id of each.
    """

    def __init__(self, rows: Dataset, question: Question, arguments: _Arguments) -> None:
        self._rows, self._question, self._arguments = rows, question, arguments
        self.count, self._by_id = len(rows), arguments.queries is not None
        self._query = data.primary(rows, question, "query-id" if self._by_id else "query")
        default = "corpus-id" if self._by_id else None if arguments.corpus else "documents"
        self._documents = data.secondary(rows, question, default)
        self._labels = self._label_column()
        self.is_judged = question.labelled
        if question.labelled and question.evaluated and self._documents is None:
            hint = "without judgements, set `ref_keys: []` and `metrics: [float_top_10_recall]`"
            expected = "the column with the ids of the relevant documents"
            raise SpecError(Mistake("$.dataset.data_keys.secondary", "nothing", expected, hint))

    def _label_column(self) -> str | None:
        if not self._question.labelled:
            return None
        default = "score" if self._by_id else "labels"
        if not self._question.ref_keys and default not in self._rows.column_names:
            return None
        return data.reference(self._rows, self._question, default)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of the rows."""
        if not self.is_judged or self._labels is not None:
            return ()
        return (f"every document in `{self._documents}` counts as relevant to its query: no column says how relevant",)

    def code(self, texts: text.Texts, of_queries: Pooling, of_documents: Pooling) -> InputCode | None:
        """Return the code that makes the items of a calibration row; None where the corpus is in other rows."""
        if self._arguments.corpus is not None or self._documents is None:
            return None
        row = f"row[{self._documents!r}]"
        is_list = hasattr(self._rows.features[self._documents], "feature")
        others = f"*[{of_documents.text_code('text')} for text in {row}]" if is_list else of_documents.text_code(row)
        return texts.code(f"[{of_queries.text_code(f'row[{self._query!r}]')}, {others}]")

    def numbered(self) -> Iterator[tuple[int, Mapping[str, object]]]:
        """Yield the rows with their numbers in the split."""
        columns = [name for name in (self._query, self._documents, self._labels) if name is not None]
        for block in data.numbered_blocks(self._rows, columns, self._question):
            yield from block

    def read(self) -> tuple[dict[str, _Judged], list[str], int]:
        """Return what is known of each distinct query; the documents, by whose places these are; and how many rows have
        a query of an earlier row.

        Of two judgements the better one counts, and below 0 is not relevant, as in trec_eval.
        """
        queries, corpus = self.query_texts(), self.corpus()
        judged: dict[str, _Judged] = {}
        count = 0
        for number, row in self._whole():
            query = judged.setdefault(self.query(row, number, queries), _Judged())
            relevance = query.relevance
            count += 1
            if self._by_id and (own := corpus.places.get(str(row[self._query]))) is not None:
                query.itself.add(own)
            names = self.documents(row, number, corpus)
            for name, value in zip(names, self._relevance(row, number, len(names)) if self.is_judged else ()):
                if value > 0:
                    place = corpus.places[name]
                    relevance[place] = max(value, relevance.get(place, 0.0))
        return judged, list(corpus.texts), 0 if self._by_id else count - len(judged)

    def _whole(self) -> Iterator[tuple[int, Mapping[str, object]]]:
        """Yield the rows; of judgements, all of a query of which one was chosen."""
        if not (self._by_id and self._question.numbers):
            yield from self.numbered()
            return
        chosen = {row[self._query] for _, row in self.numbered()}
        question = replace(self._question, numbers=())
        whole = _Reader(self._question.load(None, None), question, self._arguments)
        yield from ((number, row) for number, row in whole.numbered() if row[self._query] in chosen)

    def query(self, row: Mapping[str, object], number: int, queries: Mapping[str, str]) -> str:
        """Return the text of the query of a row."""
        value = row[self._query]
        if not self._by_id:
            return text.expect_text(value, self._query, number)
        if str(value) not in queries:
            place, expected = "$.dataset.data_keys.primary", "the id of a query in `task_args.queries`"
            raise data.bad_value(value, self._query, number, place, expected)
        return queries[str(value)]

    def documents(self, row: Mapping[str, object], number: int, corpus: _Corpus) -> list[str]:
        """Return the names of the documents of a row; texts of documents are added to the corpus."""
        if self._documents is None:
            return []
        place, value = "$.dataset.data_keys.secondary", row[self._documents]
        values = value if isinstance(value, list) else [value]
        if self._arguments.corpus is None:
            if not values:
                expected, hint = "a list of one text or more", "take such rows out of the data set"
                raise data.bad_value(value, self._documents, number, place, expected, hint)
            names = [text.expect_text(each, self._documents, number, "secondary") for each in values]
            for name in names:
                corpus.add(name, name)
            return names
        for each in values:
            if str(each) not in corpus.places:
                expected = "the id of a document in `task_args.corpus`"
                raise data.bad_value(each, self._documents, number, place, expected)
        return [str(each) for each in values]

    def _relevance(self, row: Mapping[str, object], number: int, count: int) -> list[float]:
        if self._labels is None:
            return [1.0] * count
        value = row[self._labels]
        values = value if isinstance(value, list) else [value]
        if len(values) != count:
            expected = f"{pluralize(count, 'number')}, one for each document"
            raise data.bad_value(value, self._labels, number, "$.dataset.ref_keys[0]", expected)
        return [data.expect_number(each, self._labels, number) for each in values]

    def query_texts(self) -> dict[str, str]:
        """Return the texts of queries by id; empty where rows have the texts."""
        return dict(self._part("queries", self._arguments.queries)) if self._arguments.queries else {}

    def corpus(self) -> _Corpus:
        """Return the documents of `corpus` in `task_args`; none where rows have them."""
        corpus = _Corpus()
        if self._arguments.corpus:
            for name, document in self._part("corpus", self._arguments.corpus):
                corpus.add(name, document)
        return corpus

    def _part(self, which: str, part: _Part) -> Iterator[tuple[str, str]]:
        """Yield ids and texts of another part of the data set."""
        place = f"$.task_args.{which}"
        try:
            rows = self._question.load(part.name or which, part.split or which)
        except SpecError as error:
            raise SpecError([replace(mistake, place=place) for mistake in error.mistakes]) from error
        known = rows.column_names
        given = [part.text] if isinstance(part.text, str) else part.text
        columns = [
            data.column(rows, part.id or next((name for name in _IDS if name in known), _IDS[0]), f"{place}.id"),
            *(
                data.column(rows, name, f"{place}.text")
                for name in given or [name for name in _TEXTS if name in known] or _TEXTS[-1:]
            ),
        ]
        for number, row in enumerate(data.iter_rows(rows, columns)):
            identifier, *values = (row[name] for name in columns)
            content = " ".join(value for value in values if isinstance(value, str)).strip()
            if not content:
                expected, hint = "a text that is not empty", "take such rows out of the data set"
                raise data.bad_value(values[-1], columns[-1], number, f"{place}.text", expected, hint)
            yield str(identifier), content
