"""Causal language models: how well a model predicts each next token of texts, and how fast it generates.

A text is divided into windows of tokens that overlap; each token but the first of a text is predicted once, in the
window where most tokens precede it. What is kept of a prediction is the log-probability of the true token, the most
likely tokens, and the probability of all others. Leaves perplexity to `benchcard.metrics.perplexity`, and the
comparison with the float model to `benchcard.metrics.fidelity`. With `use_cache`, models read and return a cache of
keys and values; quality is then measured with an empty one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchcard.errors import Mistake, SpecError
from benchcard.export.cache import cache_shape
from benchcard.graphs.cache import past_names
from benchcard.spec.schema import Boolean, Number, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, data, text
from benchcard.tasks.config import load_config
from benchcard.tasks.outputs import output
from benchcard.utils.values import PHASES

if TYPE_CHECKING:
    from datasets import Dataset

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs

TOP = 64
"""The number of most likely tokens that are kept of each position."""

# The most tokens of a window where the spec gives no length. Source:
# https://huggingface.co/docs/transformers/perplexity, for GPT-2.
_LONGEST = 1024
_SEPARATOR = "\n\n"
_PREFILL = "a timed call reads a whole text (prefill); generation of one token after the other was not timed"
# Positions whose probabilities are computed at a time: 100 MB in float64 for 200,000 tokens.
_POSITIONS = 64
_USAGE = Usage(
    inputs=(("text",), ("content",), ("document",), ("article",)),
    input_kind="text",
    references=(),
    reference_kinds=(),
    metrics=("perplexity",),
    datasets=("Salesforce/wikitext", "roneneldan/TinyStories"),
    input_length=text.DEFAULT_LENGTH,
)


@dataclass(frozen=True)
class _Arguments:
    """`task_args`."""

    window: int | None = None
    stride: int | None = None
    join_texts: bool = False
    use_cache: bool = False


class TextGeneration:
    """The task `text-generation`.

    `task_args` has `window`, the tokens of a forward call (by default the model's maximum, and at most 1,024);
    `stride`, the tokens from one window to the next (by default half a window); `join_texts`, by which all rows are
    one text, with a blank line between two of them, as published perplexities have it; and `use_cache`, by which models
    have a cache of keys and values, and are timed for a prompt and for each next token.
    """

    metrics: tuple[str, ...] = ("perplexity",)
    has_length = True
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 3},)
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "window": Number(2, whole=True),
            "stride": Number(1, whole=True),
            "join_texts": Boolean(),
            "use_cache": Boolean(),
        }
    )
    decides_by = "kl_mean"
    predicts_tokens = counts_tokens = True

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return the windows of each text; a reference is the number of tokens that are predicted."""
        texts = text.load_texts(question.model, maximum=question.maximum)
        arguments = msgspec.convert(question.arguments, _Arguments)
        windows = _windows(arguments, texts.maximum)
        if arguments.use_cache:
            cache_shape(texts.config)  # It says which model has none before anything slow is done.
        column = data.primary(rows, question, "text")
        # A causal model reads nothing to the right, so any token can stand for padding there.
        pad = dict.fromkeys(texts.names, 0) if "attention_mask" in texts.names else {}
        vocabulary = getattr(texts.config.get_text_config(), "vocab_size", None)
        rows_read = f"{len(rows)} texts, joined to one," if windows.joined else "{texts} {texts:text|texts}"
        how = f"in windows of at most {windows.window} tokens, each {windows.stride} after the one before"
        tallies = {
            "predicted": f"{{predicted}} tokens of {rows_read} were predicted, {how}",
            "short": "{short} of {texts} texts {short:has|have} fewer than two tokens: nothing is predicted",
        }
        return Prepared(
            _rows(rows, question, texts, column, windows),
            {"windows": asdict(windows), **({"use_cache": True} if arguments.use_cache else {})},
            pad,
            beside=frozenset({"predicted"}),
            notes=(_PREFILL,) if question.labelled and not arguments.use_cache else (),
            tallies=tallies if question.labelled else {},
            outputs_per_number=vocabulary or 1,
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return what is kept of the prediction of each token of a window but the first: `log_probs` `(tokens,)
        float32` of the true tokens, the most likely tokens `top` `(tokens, 64) int32`, the likeliest first, their
        `top_log_probs` `(tokens, 64) float32`, and `rest` `(tokens,) float32`, the probability of all others.
        """
        logits, ids = (text.without_padding(each, inputs) for each in (output(outputs, "logits"), inputs["input_ids"]))
        items = [_predictions(of_item[:-1], tokens[1:]) for of_item, tokens in zip(logits, ids)]
        return {name: [item[name] for item in items] for name in ("log_probs", "top", "top_log_probs", "rest")}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> float:
        """Return the log-probability of all predicted tokens of a text together, in nats; 0 where there are none."""
        return float(sum(item["log_probs"][item["predicted"]].sum(dtype=np.float64) for item in items))

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their next tokens."""
        return ComparedOutput("next_token", positions="predicted")

    def phases(self, arguments: Mapping[str, object]) -> tuple[str, ...]:
        """Return `token` and `prompt` for models with a cache."""
        return tuple(PHASES) if arguments.get("use_cache") else ()

    def inputs(
        self, model: Path, batch_size: int, input_length: int | None, seed: int, phase: str | None = None
    ) -> TimedInputs:
        """Return token ids `(batch, tokens) int64` of single texts, without padding, and the other inputs.

        In the phase `prompt`, the cache is empty. In the phase `token`, there is one token, with `input_length` before
        it, whose keys and values `(batch, heads, tokens, width) float32` are random numbers.

        Raises:
            SpecError: The model takes no token more than `input_length`, in the phase `token`.
            ArtifactError: The model takes no inputs of that length.
        """
        texts = text.load_texts(model)
        if phase is None:
            return texts.timed(batch_size, input_length, seed)
        if input_length is None:
            input_length = min(text.DEFAULT_LENGTH, (texts.maximum or text.DEFAULT_LENGTH + 1) - 1)
        past = input_length if phase == "token" else 0
        if past and texts.maximum is not None and past >= texts.maximum:
            expected = f"at most {texts.maximum - 1}, one token less than the token limit of {model}"
            hint = "with `use_cache`, the next token must fit into the model, too"
            raise SpecError(Mistake("$.input_lengths", str(past), expected, hint))
        arrays, _ = texts.timed(batch_size, input_length + (past > 0), seed)
        tokens = slice(past, None)
        cache, generator = cache_shape(load_config(model)), np.random.default_rng(seed)
        size = (batch_size, cache.heads, past, cache.width)
        return {
            **{name: ids if name == "attention_mask" else ids[:, tokens] for name, ids in arrays.items()},
            **{name: generator.standard_normal(size, dtype=np.float32) for name in past_names(cache.layers)},
        }, input_length


@dataclass(frozen=True)
class _Windows:
    """How texts are divided: the tokens of a window, and from one to the next, and whether all texts are one."""

    window: int
    stride: int
    joined: bool

    def of(self, tokens: Mapping[str, NDArray[np.int64]]) -> Iterator[dict[str, np.ndarray]]:
        """Yield the windows of a text; `predicted` has the positions whose next token no window before has predicted.

        Source: https://huggingface.co/docs/transformers/perplexity, the strided windows of "PPL with fixed-length
        models".
        """
        count, start, end = len(tokens["input_ids"]), 0, 1
        while end < count:
            first, end = end, min(start + self.window, count)
            item: dict[str, np.ndarray] = {name: values[start:end] for name, values in tokens.items()}
            yield {**item, "predicted": np.arange(first - start - 1, end - start - 1)}
            start += self.stride


def _windows(arguments: _Arguments, maximum: int | None) -> _Windows:
    """Return how texts are divided for a model that takes so many tokens."""
    window = arguments.window or min(maximum or _LONGEST, _LONGEST)
    if maximum is not None and window > maximum:
        expected = f"at most {maximum}, the token limit of the model"
        raise SpecError(Mistake("$.task_args.window", str(window), expected))
    stride = arguments.stride or window // 2
    if stride >= window:
        expected = f"less than the window of {window} tokens, so that each token has one before it"
        raise SpecError(Mistake("$.task_args.stride", str(stride), expected))
    return _Windows(window, stride, arguments.join_texts)


def _rows(rows: Dataset, question: Question, texts: text.Texts, column: str, windows: _Windows) -> Iterator[Row]:
    is_empty = True
    for encoded in _encoded(rows, question, texts, column, windows.joined):
        for tokens in texts.items(encoded):
            items = list(windows.of(tokens))
            is_empty = is_empty and not items
            # The windows of a joined text are examples of their own.
            for parts in [[item] for item in items] if windows.joined else [items]:
                count = sum(len(item["predicted"]) for item in parts)
                yield Row(parts, count, counts={"texts": 1, "predicted": count, "short": int(not parts)})
    if is_empty:
        actual, expected = f"a column `{column}` of texts of fewer than two tokens", "a text with a token to predict"
        raise SpecError(Mistake("$.dataset.data_keys.primary", actual, expected))


def _encoded(
    rows: Dataset, question: Question, texts: text.Texts, column: str, joined: bool
) -> Iterator[Mapping[str, Sequence[Sequence[int]]]]:
    """Yield the tokens of each text of a block, or those of all texts as one."""
    parts: list[str] = []
    for block in data.numbered_blocks(rows, [column], question):
        for number, row in block:
            if not isinstance(row[column], str):
                raise data.bad_value(row[column], column, number, "$.dataset.data_keys.primary", "a text")
        values = [row[column] for _, row in block]
        if joined:
            parts += values
        else:
            yield texts.tokenizer(values, verbose=False)
    if joined:
        yield texts.tokenizer([_SEPARATOR.join(parts)], verbose=False)


def _predictions(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> dict[str, np.ndarray]:
    """Return what is kept of the predictions of tokens `(tokens,)` by logits `(tokens, vocabulary)`."""
    parts = [_of_positions(logits[at : at + _POSITIONS], tokens[at : at + _POSITIONS]) for at in _starts(len(tokens))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _starts(count: int) -> range:
    return range(0, count, _POSITIONS)


def _of_positions(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> dict[str, np.ndarray]:
    from scipy.special import log_softmax

    log_probs = log_softmax(logits.astype(np.float64), axis=1)
    most = min(TOP, log_probs.shape[1])
    top = np.argpartition(-log_probs, most - 1, axis=1)[:, :most]
    order = np.argsort(-np.take_along_axis(log_probs, top, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, axis=1)
    others = np.exp(log_probs)
    np.put_along_axis(others, top, 0.0, axis=1)
    return {
        "log_probs": np.take_along_axis(log_probs, tokens[:, None], axis=1)[:, 0].astype(np.float32),
        "top": top.astype(np.int32),
        "top_log_probs": np.take_along_axis(log_probs, top, axis=1).astype(np.float32),
        "rest": others.sum(axis=1).astype(np.float32),
    }
