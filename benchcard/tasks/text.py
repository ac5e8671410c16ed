"""What the tasks on text share: the model's tokenizer, its longest input, padding, and generated token ids.

Leaves the use of the tokens to each task.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError
from benchcard.tasks import InputCode
from benchcard.tasks.config import load_config
from benchcard.tasks.data import bad_value
from benchcard.tasks.trust import trusted

if TYPE_CHECKING:
    import transformers

    from benchcard.tasks.protocol import Arrays, TimedInputs

DEFAULT_LENGTH = 128
"""Tokens in a timed input where the spec gives no length, or the model's maximum where that is less.

Source: `max_seq_length` of
https://github.com/huggingface/transformers/blob/main/examples/pytorch/text-classification/run_glue.py
"""
# A tokenizer without a maximum has 10**30 in its place.
_UNSET = 10**12
Items = list[dict[str, NDArray[np.int64]]]


@dataclass(frozen=True)
class Texts:
    """The tokenizer of a model, and which inputs the model takes from it.

    Attributes:
        names: The inputs that the tokenizer makes and the model takes.
        maximum: The most tokens that it takes; None where there is no limit.
        options: Arguments with which the tokenizer was loaded.
    """

    model: Path
    tokenizer: transformers.PreTrainedTokenizerBase
    config: transformers.PretrainedConfig
    names: tuple[str, ...]
    maximum: int | None
    options: Mapping[str, bool] = field(default_factory=dict)

    def pad(self) -> dict[str, float]:
        """Return the value that pads a shorter item, by input; empty for a model without an attention mask, which
        would read the padding.

        Raises:
            ArtifactError: The tokenizer has no pad token.
        """
        if "attention_mask" not in self.names:
            return {}
        if self.tokenizer.pad_token_id is None:
            lack = f"The tokenizer of {self.model} has no pad token, so texts of different lengths cannot share a batch"
            advice = "Give it one (`tokenizer.pad_token = tokenizer.eos_token`, and `config.pad_token_id` likewise)"
            raise ArtifactError(f"{lack}. {advice}, save both into a folder, and name that folder.")
        values = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        return {name: values.get(name, 0) for name in self.names}

    def cut_tally(self) -> dict[str, str]:
        """Return the sentence of `Prepared.tallies` for rows whose counts are `cut` and `texts`."""
        return {"cut": f"{{cut}} of {{texts}} texts {{cut:was|were}} cut to {self.maximum} tokens"}

    def code(self, *texts: str, **arguments: str) -> InputCode:
        """Return the code that encodes lists of texts, cut to the model's maximum; `texts` are expressions of a `row`,
        and so are the values of other arguments of the tokenizer.
        """
        limits = {"truncation": "True", "max_length": str(self.maximum)} if self.maximum else {}
        given = [*texts, *(f"{name}={value}" for name, value in {**limits, **arguments}.items())]
        return InputCode("AutoTokenizer", f"processor({', '.join(given)})", self.options)

    def items(self, encoding: Mapping[str, Sequence[Sequence[int]]]) -> Items:
        """Return the inputs of each text of an encoding, `(tokens,) int64` each."""
        return [
            {name: np.asarray(encoding[name][index], dtype=np.int64) for name in self.names}
            for index in range(len(encoding["input_ids"]))
        ]

    def encode(self, first: Sequence[str], second: Sequence[str] | None = None) -> tuple[Items, list[bool]]:
        """Return the inputs of each text or pair of texts, and whether it was cut to the model's maximum.

        The longer text of a pair is cut first, as in the reference scripts for GLUE.
        """
        columns = [list(column) for column in (first, second) if column is not None]
        items = self.items(self.tokenizer(*columns, verbose=False))
        is_long = [len(item["input_ids"]) > (self.maximum or math.inf) for item in items]
        if any(is_long):
            texts = [[text for text, long in zip(column, is_long) if long] for column in columns]
            cut = iter(self.items(self.tokenizer(*texts, truncation=True, max_length=self.maximum, verbose=False)))
            items = [next(cut) if long else item for item, long in zip(items, is_long)]
        return items, is_long

    def timed(self, batch_size: int, length: int | None, seed: int, pair: bool = False) -> TimedInputs:
        """Return generated inputs `(batch, tokens) int64` for time measurements, and their length.

        Ordinary tokens are drawn by `seed`; special tokens are where the tokenizer puts them; there is no padding. The
        default of `length` is `DEFAULT_LENGTH`. In a pair, the first text has an eighth of the tokens.

        Raises:
            ArtifactError: The model takes no rows of that length.
        """
        encoding = self.tokenizer(*([["a"]] * (2 if pair else 1)), return_special_tokens_mask=True, verbose=False)
        special = np.asarray(encoding["special_tokens_mask"][0], dtype=bool)
        if special.all():
            raise ArtifactError(f"No inputs can be generated: the tokenizer of {self.model} gives no token for `a`.")
        # The first token of each text stands for all of them, and is repeated.
        kept = special | np.append(True, special[:-1])
        special = special[kept]
        texts, least = np.flatnonzero(~special), len(special)
        if length is None:
            length = max(least, min(DEFAULT_LENGTH, self.maximum or DEFAULT_LENGTH))
        if self.maximum is not None and length > self.maximum:
            raise ArtifactError(f"The input length {length} is above {self.maximum}, the token limit of {self.model}.")
        if length < least:
            fewest = f"the minimum of {self.model} with its special tokens"
            raise ArtifactError(f"The input length {length} is below {least}, {fewest}.")
        free = length - least + len(texts)
        repeats = np.ones(least, dtype=int)
        repeats[texts[0]] = max(1, free // 8) if len(texts) > 1 else free
        repeats[texts[-1]] = free - repeats[texts[:-1]].sum()
        (item,) = self.items(encoding)
        inputs = {name: np.tile(np.repeat(ids[kept], repeats), (batch_size, 1)) for name, ids in item.items()}
        ordinary = np.repeat(~special, repeats)
        drawn = np.random.default_rng(seed).choice(self._ordinary_ids(), (batch_size, int(ordinary.sum())))
        inputs["input_ids"][:, ordinary] = drawn
        return inputs, length

    def _ordinary_ids(self) -> NDArray[np.int64]:
        """Return the ids of tokens that are not special, within the model's embeddings."""
        size = getattr(self.config.get_text_config(), "vocab_size", None) or len(self.tokenizer)
        ids = set(self.tokenizer.get_vocab().values()) & set(range(size))
        ids -= {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        if not ids:
            raise ArtifactError(f"The tokenizer of {self.model} has no tokens within the model's {size} embeddings.")
        return np.asarray(sorted(ids), dtype=np.int64)


def load_texts(
    model: Path, *, maximum: int | None = None, offsets_for: str | None = None, split: bool = False
) -> Texts:
    """Load the tokenizer of the model in a folder, whose maximum is at most the given one. With `split`, texts come as
    lists of words. `offsets_for` says, for messages, why the places of tokens in the text are needed.

    Raises:
        ArtifactError: The folder has no tokenizer, or none that gives the places of tokens.
    """
    from transformers import AutoTokenizer

    options: dict[str, bool] = {}
    try:
        config = load_config(model)
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trusted())
        # A tokenizer with `add_prefix_space` recognizes a word by the space before it. Without that space, a word
        # is read as the rest of another word.
        settings = inspect.signature(type(tokenizer).__init__).parameters
        if split and tokenizer.is_fast and "add_prefix_space" in settings and not tokenizer.add_prefix_space:
            options = {"add_prefix_space": True}
            tokenizer = AutoTokenizer.from_pretrained(model, **options, trust_remote_code=trusted())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ArtifactError(f"The tokenizer of {model} cannot be loaded: {error}") from error
    # For a folder without a tokenizer, transformers makes one that has nothing but special tokens.
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        advice = "Save the one that the model was trained with into it."
        raise ArtifactError(f"{model} has no tokenizer (`tokenizer.json`, or the files of a vocabulary). {advice}")
    if offsets_for is not None and not tokenizer.is_fast:
        slow = f"The tokenizer of {model} ({type(tokenizer).__name__}) is a slow one"
        need = f"which does not give the places of tokens in the text. They are needed {offsets_for}."
        raise ArtifactError(f"{slow}, {need} Convert it to a fast one (`tokenizer.json`).")
    inputs = _model_inputs(config)
    names = tuple(name for name in tokenizer.model_input_names if inputs is None or name in inputs)
    limits = [limit for limit in (_max_tokens(tokenizer, config), maximum) if limit is not None]
    return Texts(model, tokenizer, config, names, min(limits, default=None), options)


def expect_text(value: object, column: str, number: int, key: str = "primary") -> str:
    """Return the text of a row, which must not be empty."""
    if not isinstance(value, str) or not value.strip():
        place, hint = f"$.dataset.data_keys.{key}", "take such rows out of the data set"
        raise bad_value(value, column, number, place, "a text that is not empty", hint)
    return value


def expect_columns(block: Sequence[tuple[int, Mapping[str, object]]], columns: Sequence[str]) -> list[list[str]]:
    """Return the texts of a block of numbered rows, by column: the primary one, and the secondary one where given."""
    return [
        [expect_text(row[column], column, number, key) for number, row in block]
        for key, column in zip(("primary", "secondary"), columns)
    ]


def without_padding(values: np.ndarray, inputs: Arrays) -> list[np.ndarray]:
    """Return outputs `(batch, tokens, ...)` as one array per item, without padding tokens."""
    mask = inputs.get("attention_mask")
    return [row if mask is None else row[mask[index].astype(bool)] for index, row in enumerate(values)]


def _model_inputs(config: transformers.PretrainedConfig) -> set[str] | None:
    """Return the inputs that a model of this configuration takes; None where transformers has no such model."""
    from transformers import AutoModel

    try:
        known = AutoModel._model_mapping[type(config)]
    except KeyError:
        return None
    model = known[0] if isinstance(known, (list, tuple)) else known
    return set(inspect.signature(model.forward).parameters)


def _max_tokens(tokenizer: transformers.PreTrainedTokenizerBase, config: transformers.PretrainedConfig) -> int | None:
    """Return the most tokens that a model takes: the lower of the tokenizer's limit and the model's positions."""
    limit = int(tokenizer.model_max_length) if tokenizer.model_max_length < _UNSET else None
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return limit
    # A model with this many positions takes at least so many tokens, even if it counts from after the padding id.
    certain = positions - (getattr(config, "pad_token_id", None) or 0) - 1
    if limit is not None and limit <= certain:
        return limit
    try:
        padding_id = position_padding_id(config)
    except ArtifactError:
        padding_id = None
    usable = positions if padding_id is None else positions - padding_id - 1
    return usable if limit is None else min(limit, usable)


def position_padding_id(config: transformers.PretrainedConfig) -> int | None:
    """Return the padding id from whose successor a model like RoBERTa counts its tokens, which leaves the position
    embeddings before it unused; None for a model that counts from 0.

    Source: `create_position_ids_from_input_ids` in transformers/models/roberta/modeling_roberta.py.

    Raises:
        ArtifactError: transformers cannot make a model of this configuration.
    """
    import torch
    from transformers import AutoModel

    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=trusted())
    except (ValueError, KeyError, RuntimeError, ImportError) as error:
        raise ArtifactError(f"transformers makes no model of the type {config.model_type!r}: {error}") from error
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    padding_ids = [
        module.padding_idx
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding)
        and "position" in name
        and module.num_embeddings == positions
        and module.padding_idx is not None
    ]
    return max(padding_ids, default=None)
