"""Tasks of lm-eval for causal language models: how likely each continuation of a prompt is, in forward calls.

lm-eval itself makes the prompts and continuations of a row (its requests), and the scores of a row from their
log-probabilities, so that both are equal to its own. An item is one request. Leaves the scores to
`benchcard.metrics.lm_eval`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchcard.errors import Mistake, SpecError
from benchcard.spec.schema import Number, ValueType
from benchcard.tasks import Prepared, Question, Row, text
from benchcard.tasks.outputs import output
from benchcard.utils.harness import OUTPUT_TYPES, dataset_of, is_task_path, load_task, output_type, task_file
from benchcard.utils.text import format_value

if TYPE_CHECKING:
    from datasets import Dataset

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs

# Positions whose probabilities are computed at a time: 100 MB in float64 for 200,000 tokens.
_POSITIONS = 64
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class _TaskName:
    """The name of a task of lm-eval or the path of its YAML file."""

    expected: str = "the name of a task of lm-eval, or the path of its YAML file"

    def mistakes(self, value: object, place: str) -> Iterator[Mistake]:
        """Yield a mistake for a task that lm-eval does not have, and for one that needs more than log-probabilities."""
        file = task_file(value) if isinstance(value, (str, Path)) and str(value).strip() else None
        if file is None:
            start = "relative paths start at the folder of the spec or card"
            hint = start if is_task_path(value) else "for a group, name one of its tasks"
            yield Mistake(place, format_value(value), self.expected, hint)
        elif (kind := output_type(file)) not in OUTPUT_TYPES:
            written = "a task that is written in Python" if kind == "class" else f"a task of the type `{kind}`"
            yield Mistake(place, f"{written} ({value})", f"a task of the type {' or '.join(OUTPUT_TYPES)}")


@dataclass(frozen=True)
class _Arguments:
    """`task_args`."""

    name: str
    num_fewshot: int | None = None


class LmEval:
    """The task `lm-eval`: `task_args` has `name`, a task of lm-eval, and `num_fewshot`, the number of examples in a
    prompt (by default that of the task).
    """

    metrics: tuple[str, ...] = ("lm_eval",)
    has_length = True
    loads_as = "text-generation"
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 3},)
    arguments: Mapping[str, ValueType] = MappingProxyType({"name": _TaskName(), "num_fewshot": Number(0, whole=True)})
    predicts_tokens = counts_tokens = True
    libraries = ("lm_eval",)

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return the requests of each row; a reference is the row as lm-eval reads it, in JSON."""
        if "name" not in question.arguments:
            raise SpecError(Mistake("$.task_args.name", "nothing", _TaskName.expected))
        arguments = msgspec.convert(dict(question.arguments), _Arguments)
        texts = text.load_texts(question.model, maximum=question.maximum)
        pad = dict.fromkeys(texts.names, 0) if "attention_mask" in texts.names else {}
        tallies = {
            "requests": f"{{requests}} continuations of {{rows}} prompts of the task {arguments.name} of lm-eval",
            "cut": f"{{cut}} of {{requests}} prompts {{cut:was|were}} cut on the left to {texts.maximum} tokens",
        }
        return Prepared(
            _rows(rows, question, arguments, texts),
            {},
            pad,
            beside=frozenset({"predicted"}),
            tallies=tallies if question.labelled else {},
            metric_defaults={"task": str(_place(question, arguments))},
            outputs_per_number=getattr(texts.config.get_text_config(), "vocab_size", None) or 1,
        )

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return of each token of an item but the first `log_probs` `(tokens,) float32`, and `is_greedy`
        `(tokens,) bool`, whether it is the most likely one.
        """
        logits, ids = (text.without_padding(each, inputs) for each in (output(outputs, "logits"), inputs["input_ids"]))
        items = [_scores(of_item[:-1], tokens[1:]) for of_item, tokens in zip(logits, ids)]
        return {"log_probs": [log_probs for log_probs, _ in items], "is_greedy": [greedy for _, greedy in items]}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> list[list[float]]:
        """Return of each request the log-probability of its continuation, and 1.0 where greedy decoding gives it."""
        places = [(item, item["predicted"]) for item in items]
        return [
            [float(item["log_probs"][at].sum(dtype=np.float64)), float(item["is_greedy"][at].all())]
            for item, at in places
        ]

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return token ids `(batch, tokens) int64` of single texts, without padding, and the other inputs."""
        return text.load_texts(model).timed(batch_size, input_length, seed)


def _place(question: Question, arguments: _Arguments) -> str | Path:
    """Return the name of the task, or the path of its file."""
    return question.files.get("name", arguments.name)


def _rows(rows: Dataset, question: Question, arguments: _Arguments, texts: text.Texts) -> Iterator[Row]:
    from jinja2 import TemplateError

    place = _place(question, arguments)
    try:
        task = load_task(place, rows, arguments.num_fewshot)
        encoder, shots = _encoder(texts), task.config.num_fewshot or 0
        for number, doc in enumerate(task.eval_docs):
            prompt = task.fewshot_context(doc, num_fewshot=shots, gen_prefix=task.doc_to_prefix(doc))
            made = task.construct_requests(doc=doc, ctx=prompt, metadata=(arguments.name, number, 1))
            pairs = encoder.loglikelihood(made if isinstance(made, list) else [made], disable_tqdm=True)
            items = [_item(texts, before, after, question.number(number)) for before, after in pairs]
            cut = sum(len(before) + len(after) > (texts.maximum or np.inf) for before, after in pairs)
            reference = json.dumps(doc, default=str) if question.labelled else None
            yield Row(items, reference, counts={"rows": 1, "requests": len(items), "cut": cut})
    except (KeyError, ValueError, TypeError, AssertionError, SyntaxError, TemplateError) as error:
        columns = f"the columns {', '.join(rows.column_names)}, which the task cannot read ({error})"
        expected = f"the data set of {arguments.name} ({dataset_of(place)})"
        raise SpecError(Mistake("$.dataset.path", columns, expected)) from error


def _item(texts: text.Texts, prompt: list[int], continuation: list[int], number: int) -> dict[str, np.ndarray]:
    """Return the inputs of a request, cut on the left, and the positions that predict its continuation."""
    tokens = (prompt + continuation)[-(texts.maximum or 0) :]
    if not 0 < len(continuation) < len(tokens):
        actual = f"row {number} with a continuation of {len(continuation)} tokens"
        raise SpecError(Mistake("$.dataset.path", actual, f"1 to {(texts.maximum or len(tokens)) - 1} tokens"))
    values = {"input_ids": tokens, "attention_mask": [1] * len(tokens)}
    inputs = {name: np.asarray(values.get(name, [0] * len(tokens)), np.int64) for name in texts.names}
    return {**inputs, "predicted": np.arange(len(tokens) - len(continuation) - 1, len(tokens) - 1)}


def _encoder(texts: text.Texts) -> Any:
    """Return a model of lm-eval whose `loglikelihood` gives the tokens of prompt and continuation for each request.

    Source: lm_eval/models/huggingface.py, HFLM.tok_encode and prefix_token_id.
    """
    from lm_eval.api.model import TemplateLM

    tokenizer = texts.tokenizer
    prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    start = None if prefix is None else tokenizer.decode(prefix)

    class Encoder(TemplateLM):  # type: ignore[misc]  # lm-eval is not typed
        eot_token_id = tokenizer.eos_token_id
        prefix_token_id = prefix

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
            if add_special_tokens is None and start and string.startswith(start):
                add_special_tokens = False
            given = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
            return list(tokenizer.encode(string, **given))

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: object
        ) -> list[Pair]:
            return [(before, after) for _, before, after in requests]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            raise NotImplementedError

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            raise NotImplementedError

    return Encoder()


def _scores(logits: NDArray[np.float32], tokens: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the log-probabilities of tokens `(tokens,)` by logits `(tokens, vocabulary)`, and which are greedy."""
    from scipy.special import log_softmax

    log_probs = np.empty(len(tokens), np.float32)
    for at in range(0, len(tokens), _POSITIONS):
        part = log_softmax(logits[at : at + _POSITIONS].astype(np.float64), axis=1)
        log_probs[at : at + _POSITIONS] = np.take_along_axis(part, tokens[at : at + _POSITIONS, None], axis=1)[:, 0]
    return log_probs, logits.argmax(axis=1) == tokens
