"""Sentence embeddings: two sentences in, how alike they are out, by the similarity that the model's folder names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.spec.schema import Text, ValueType
from benchcard.tasks import Prepared, Question, Row, data, pooling, text
from benchcard.tasks.outputs import output
from benchcard.utils.text import format_value, join_names

if TYPE_CHECKING:
    import datasets


class FeatureExtraction:
    """The tasks `feature-extraction` and `sentence-similarity`: embeddings, pooled as the model's folder says."""

    metrics: tuple[str, ...] = ("spearman",)
    has_length = True
    arguments: Mapping[str, ValueType] = MappingProxyType({"similarity_fn_name": Text(lambda: tuple(SIMILARITIES))})

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Rows as token ids of both sentences; a reference is a number that grows with how alike they are."""
        texts, pooled = _texts(question.model)
        similarity, whose = _similarity(question, pooled)
        columns = [
            data.primary(rows, question, "sentence1"),
            data.secondary(rows, question, "sentence2") or "sentence2",
        ]
        reference = data.reference(rows, question, "score") if question.labelled else None
        return Prepared(
            _rows(rows, question, texts, pooled, columns, reference),
            {
                "modes": list(pooled.modes),
                "normalize": pooled.normalize,
                "truncate_dim": pooled.truncate_dim,
                "similarity": similarity,
                "prompt": pooled.prompt,
                "lower_case": pooled.lower_case,
                "maximum": texts.maximum,
            },
            texts.pad(),
            texts.tokenizer.padding_side,
            notes=(*pooled.notes, f"the score of two texts is the {_WORDS[similarity]} of their embeddings ({whose})"),
            facts={"similarity_fn_name": similarity},
            tallies={"cut": f"{{cut}} of {{texts}} texts {{cut:was|were}} cut to {texts.maximum} tokens"},
        )

    def kept(
        self, outputs: Mapping[str, NDArray[Any]], inputs: Mapping[str, NDArray[Any]], context: Mapping[str, Any]
    ) -> Mapping[str, Sequence[NDArray[Any]]]:
        """`embedding` `(numbers,) float32`."""
        tokens = text.without_padding(output(outputs, "last_hidden_state"), inputs)
        how = {name: context[name] for name in ("modes", "normalize", "truncate_dim")}
        return {"embedding": [pooling.embedding(each, **how) for each in tokens]}

    def prediction(self, items: Sequence[Mapping[str, NDArray[Any]]], memo: Any, context: Mapping[str, Any]) -> float:
        """The similarity of the two embeddings."""
        first, second = (item["embedding"][None].astype(np.float64) for item in items)
        return float(SIMILARITIES[context["similarity"]](first, second)[0])

    def inputs(
        self, model: Path, batch_size: int, input_length: int | None, seed: int
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """Token ids `(batch, tokens) int64` of single texts, without padding, and what the model takes beside them."""
        texts, _ = _texts(model)
        return (texts if input_length is None else text.load_texts(model)).timed(batch_size, input_length, seed)


def _texts(model: Path) -> tuple[text.Texts, pooling.Pooling]:
    """Return how the model in a folder reads texts, and what it makes of their tokens."""
    texts, pooled = text.load_texts(model), pooling.load_pooling(model)
    if pooled.maximum is not None:
        texts = replace(texts, maximum=min(pooled.maximum, texts.maximum or pooled.maximum))
    return texts, pooled


def _similarity(question: Question, pooled: pooling.Pooling) -> tuple[str, str]:
    """Return the name of the similarity that is scored, and who asks for it.

    Raises:
        ArtifactError: The model's folder asks for one that is not known here, and `task_args` for none.
    """
    if name := question.arguments.get("similarity_fn_name"):
        return name, "`task_args.similarity_fn_name`"
    if pooled.similarity is None:
        return "cosine", "as in sentence-transformers, where the model's folder names no other"
    if pooled.similarity not in SIMILARITIES:
        raise ArtifactError(
            f"{question.model} asks for the similarity `{pooled.similarity}`; expected {join_names(SIMILARITIES)}. "
            "Name the one to score in `task_args: {similarity_fn_name: …}`"
        )
    return pooled.similarity, "`similarity_fn_name` of the model's folder"


def cosines(these: NDArray[Any], those: NDArray[Any]) -> NDArray[np.float64]:
    """The cosine `(texts,) float64` of each pair of embeddings `(texts, numbers)`; 0 where one of them is all zeros.

    Between the embeddings that a quantized model and its baseline give for the same texts, the mean says how much of
    them quantization left.
    """
    first, second = these.astype(np.float64), those.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    dots = _dots(first, second)
    result: NDArray[np.float64] = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    return result


def _dots(these: NDArray[Any], those: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", these, those), dtype=np.float64)


# As sentence-transformers has them: a distance is negative, so that more is more alike.
# Source: `pairwise_*` of sentence_transformers/util/similarity.py.
SIMILARITIES: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], NDArray[np.float64]]] = MappingProxyType(
    {
        "cosine": cosines,
        "dot": _dots,
        "euclidean": lambda these, those: -np.linalg.norm(these - those, axis=1),
        "manhattan": lambda these, those: -np.abs(these - those).sum(axis=1),
    }
)
_WORDS = {
    "cosine": "cosine",
    "dot": "dot product",
    "euclidean": "negative Euclidean distance",
    "manhattan": "negative Manhattan distance",
}


def _rows(
    rows: datasets.Dataset,
    question: Question,
    texts: text.Texts,
    pooled: pooling.Pooling,
    columns: Sequence[str],
    reference: str | None,
) -> Iterator[Row]:
    named = list(dict.fromkeys([*columns, *([reference] if reference else [])]))
    numbered = ((question.number(index), row) for index, row in enumerate(data.iter_rows(rows, named)))
    while block := list(islice(numbered, data.READ_ROWS)):
        both = []
        for key, column in zip(("primary", "secondary"), columns):
            told = [text.expect_text(row[column], column, number, key) for number, row in block]
            both.append(texts.encode([pooled.read(each) for each in told]))
        (first, first_cut), (second, second_cut) = both
        for index, (number, row) in enumerate(block):
            counts = {"texts": 2, "cut": int(first_cut[index]) + int(second_cut[index])}
            yield Row(
                [first[index], second[index]],
                _gold(row[reference], reference, number) if reference else None,
                counts=counts,
            )


def _gold(value: Any, column: str, number: int) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise SpecError(
            Mistake("$.dataset.ref_keys[0]", f"{format_value(value)} in row {number} of `{column}`", "a number")
        )
    return float(value)
