"""Sentence embeddings: two sentences in, their similarity out, by the measure that the model's folder names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.linalg import norm
from numpy.typing import NDArray

from benchcard.errors import ArtifactError
from benchcard.spec.schema import Text, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, data, text
from benchcard.tasks.outputs import output
from benchcard.tasks.pooling import Pooling, load_pooling
from benchcard.utils.text import join_names

if TYPE_CHECKING:
    from datasets import Dataset

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs


Similarity = Callable[[np.ndarray, np.ndarray], NDArray[np.float64]]


_USAGE = Usage(
    inputs=(("sentence1", "sentence2"), ("sentence_A", "sentence_B"), ("text1", "text2")),
    input_kind="text",
    references=("score", "label", "similarity_score", "relatedness_score"),
    reference_kinds=("float", "integer"),
    metrics=("spearman", "pearson"),
    datasets=("sentence-transformers/stsb", "mteb/stsbenchmark-sts"),
    metric_names={
        **dict.fromkeys(("spearmanr", "spearman_cosine", "cosine_spearman", "cos_sim_spearman"), "spearman"),
        **dict.fromkeys(("pearsonr", "pearson_cosine", "cosine_pearson", "cos_sim_pearson"), "pearson"),
    },
    task_types=("STS", "semantic-similarity"),
    batch_sizes=(1, 32),
    input_length=text.DEFAULT_LENGTH,
)


class FeatureExtraction:
    """The tasks `feature-extraction` and `sentence-similarity`: embeddings, pooled as the model's folder configures."""

    metrics: tuple[str, ...] = ("spearman",)
    has_length = True
    outputs: tuple[Mapping[str, int], ...] = ({"sentence_embedding": 2}, {"last_hidden_state": 3})
    arguments: Mapping[str, ValueType] = MappingProxyType({"similarity_fn_name": Text(lambda: tuple(SIMILARITIES))})

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return rows as token ids of both sentences; a reference is a number that grows with their similarity."""
        texts, pooled = load_encoder(question.model, question.maximum)
        similarity, source = choose_similarity(question, pooled)
        name, _ = SIMILARITIES[similarity]
        first, second = data.primary(rows, question, "sentence1"), data.secondary(rows, question, "sentence2")
        columns = [first, second or "sentence2"]
        reference = data.reference(rows, question, "score") if question.labelled else None
        settings = replace(pooled, similarity=similarity, maximum=texts.maximum)
        return Prepared(
            _rows(rows, question, texts, pooled, columns, reference),
            {key: value for key, value in asdict(settings).items() if key != "notes"},
            texts.pad(),
            texts.tokenizer.padding_side,
            notes=(*pooled.notes, f"the score of two texts is the {name} of their embeddings ({source})"),
            facts={"similarity_fn_name": similarity},
            tallies=texts.cut_tally(),
            code=texts.code(f"[{', '.join(pooled.text_code(f'row[{column!r}]') for column in columns)}]"),
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `embedding` `(numbers,) float32`; of a graph that pools itself, its own `sentence_embedding`."""
        pooled = msgspec.convert(context, Pooling)
        if "sentence_embedding" in outputs:
            return {"embedding": [pooled.finished(joined) for joined in output(outputs, "sentence_embedding")]}
        items = text.without_padding(output(outputs, "last_hidden_state"), inputs)
        return {"embedding": [pooled.embedding(tokens) for tokens in items]}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> float:
        """Return the similarity of the two embeddings."""
        first, second = (item["embedding"][None].astype(np.float64) for item in items)
        similarity = msgspec.convert(context, Pooling).similarity or "cosine"
        _, compute = SIMILARITIES[similarity]
        return float(compute(first, second)[0])

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their embeddings."""
        return ComparedOutput("embedding", "embedding")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return token ids `(batch, tokens) int64` of single texts, without padding, and the other inputs."""
        texts = load_encoder(model)[0] if input_length is None else text.load_texts(model)
        return texts.timed(batch_size, input_length, seed)


def load_encoder(
    model: Path,
    maximum: int | None = None,
    role: str = "text",
    prompt_names: Sequence[str] = (),
    prompt: str | None = None,
) -> tuple[text.Texts, Pooling]:
    """Return the tokenizer of the model in a folder, with the maximum of its pooling, and the pooling; see
    `load_pooling`.
    """
    texts, pooled = text.load_texts(model, maximum=maximum), load_pooling(model, role, prompt_names, prompt)
    if pooled.maximum is not None:
        texts = replace(texts, maximum=min(pooled.maximum, texts.maximum or pooled.maximum))
    return texts, pooled


def choose_similarity(question: Question, pooled: Pooling) -> tuple[str, str]:
    """Return the name of the similarity that is scored, and where it comes from."""
    if name := question.arguments.get("similarity_fn_name"):
        return str(name), "`task_args.similarity_fn_name`"
    if pooled.similarity is None:
        return "cosine", "as in sentence-transformers, where the model's folder names no other"
    if pooled.similarity not in SIMILARITIES:
        asked = f"{question.model} asks for the similarity `{pooled.similarity}`"
        advice = "Name the one to score in `task_args: {similarity_fn_name: …}`"
        raise ArtifactError(f"{asked}; expected {join_names(SIMILARITIES)}. {advice}")
    return pooled.similarity, "`similarity_fn_name` of the model's folder"


def cosines(first: np.ndarray, second: np.ndarray) -> NDArray[np.float64]:
    """Return the cosine `(texts,) float64` of each pair of embeddings `(texts, numbers)`; 0 where one is all zeros.

    The mean over the embeddings of a quantized model and of its baseline shows how far quantization moved them.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = norm(first, axis=1) * norm(second, axis=1)
    dots = _dots(first, second)
    result: NDArray[np.float64] = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
    return result


def _dots(first: np.ndarray, second: np.ndarray) -> NDArray[np.float64]:
    return np.asarray(np.einsum("ij,ij->i", first, second), dtype=np.float64)


SIMILARITIES: Mapping[str, tuple[str, Similarity]] = {
    "cosine": ("cosine", cosines),
    "dot": ("dot product", _dots),
    "euclidean": ("negative Euclidean distance", lambda first, second: -norm(first - second, axis=1)),
    "manhattan": ("negative Manhattan distance", lambda first, second: -norm(first - second, ord=1, axis=1)),
}
"""The functions and their names in notes. As in sentence-transformers, a distance is negative, so that a greater number
always means more similar. Source: `pairwise_*` of sentence_transformers/util/similarity.py.
"""


def _rows(
    rows: Dataset, question: Question, texts: text.Texts, pooled: Pooling, columns: list[str], reference: str | None
) -> Iterator[Row]:
    for block in data.numbered_blocks(rows, [*columns, *([reference] if reference else [])], question):
        sentences = text.expect_columns(block, columns)
        encoded = [texts.encode([pooled.model_text(sentence) for sentence in of_column]) for of_column in sentences]
        (first, first_cut), (second, second_cut) = encoded
        for index, (number, row) in enumerate(block):
            score = data.expect_number(row[reference], reference, number) if reference else None
            counts = {"texts": 2, "cut": int(first_cut[index]) + int(second_cut[index])}
            yield Row([first[index], second[index]], score, counts=counts)
