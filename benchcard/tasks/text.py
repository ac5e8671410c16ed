"""What the tasks on texts share: the model's tokenizer, its longest input, padding, and token ids to time with.

What becomes of the tokens is each task's own matter.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.tasks.trust import trusted
from benchcard.utils.text import format_value

DEFAULT_LENGTH = 128
"""Tokens in a timed input where nobody says how many, or the model's maximum where that is less.

Source: `max_seq_length` of
https://github.com/huggingface/transformers/blob/main/examples/pytorch/text-classification/run_glue.py
"""
# transformers writes this, and more, where a tokenizer knows no maximum.
_UNSET = 10**12
Items = list[dict[str, NDArray[np.int64]]]


@dataclass(frozen=True)
class Texts:
    """How a model reads text.

    Attributes:
        model: Its folder.
        tokenizer: Its own tokenizer.
        config: Its configuration.
        names: The inputs that the tokenizer makes and the model takes.
        maximum: The most tokens that it takes; None where there is no limit.
    """

    model: Path
    tokenizer: Any
    config: Any
    names: tuple[str, ...]
    maximum: int | None

    def pad(self) -> dict[str, float]:
        """The value that fills up a shorter item, by input name; empty for a model without an attention mask, which
        would read the padding.

        Raises:
            ArtifactError: The tokenizer has no pad token.
        """
        if "attention_mask" not in self.names:
            return {}
        if self.tokenizer.pad_token_id is None:
            raise ArtifactError(
                f"the tokenizer of {self.model} has no pad token, so texts of different lengths cannot share a batch: "
                "give it one (`tokenizer.pad_token = tokenizer.eos_token`, and `config.pad_token_id` alike), "
                "save both into a folder, and name that folder"
            )
        values = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        return {name: values.get(name, 0) for name in self.names}

    def items(self, encoding: Mapping[str, Any]) -> Items:
        """The inputs of each text of an encoding, `(tokens,) int64` each."""
        return [
            {name: np.asarray(encoding[name][index], dtype=np.int64) for name in self.names}
            for index in range(len(encoding["input_ids"]))
        ]

    def encode(self, first: Sequence[str], second: Sequence[str] | None = None) -> tuple[Items, list[bool]]:
        """The inputs of each text or pair of texts, and whether it had to be cut to the model's maximum.

        Of a pair the longer text is cut first, as the reference scripts for GLUE do.
        """
        both = [list(first)] + ([list(second)] if second is not None else [])
        items = self.items(self.tokenizer(*both, verbose=False))
        long = [self.maximum is not None and len(item["input_ids"]) > self.maximum for item in items]
        if any(long):
            over = [[text for text, cut in zip(texts, long) if cut] for texts in both]
            cut = iter(self.items(self.tokenizer(*over, truncation=True, max_length=self.maximum, verbose=False)))
            items = [next(cut) if is_long else item for item, is_long in zip(items, long)]
        return items, long

    def timed(
        self, batch_size: int, length: int | None, seed: int, pair: bool = False
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """Inputs `(batch, tokens) int64` to time with, and their length: ordinary tokens drawn by seed, special ones
        where the tokenizer puts them, no padding.

        Args:
            batch_size: Rows.
            length: Tokens in a row; None for `DEFAULT_LENGTH`.
            seed: Decides which tokens.
            pair: Whether rows are pairs of texts; the first is then an eighth of the row.

        Raises:
            ArtifactError: The model takes no rows of that length.
        """
        pattern = self._pattern(pair)
        runs = [index for index, (special, _) in enumerate(pattern) if not special]
        least = len(pattern)
        if length is None:
            length = max(least, min(DEFAULT_LENGTH, self.maximum or DEFAULT_LENGTH))
        if self.maximum is not None and length > self.maximum:
            raise ArtifactError(
                f"input length {length} is above {self.maximum}, the most tokens that {self.model} takes"
            )
        if length < least:
            raise ArtifactError(
                f"input length {length} is below {least}, the fewest that {self.model} takes with its special ones"
            )
        free = length - (least - len(runs))
        sizes = dict.fromkeys(runs, free)
        if len(runs) > 1:
            sizes[runs[0]] = max(1, free // 8)
            sizes[runs[-1]] = free - sizes[runs[0]]
        repeats = [sizes.get(index, 1) for index in range(len(pattern))]
        inputs = {name: np.repeat([values[name] for _, values in pattern], repeats) for name in self.names}
        ordinary = np.repeat([not special for special, _ in pattern], repeats)
        made: dict[str, NDArray[Any]] = {
            name: np.tile(values.astype(np.int64), (batch_size, 1)) for name, values in inputs.items()
        }
        drawn = np.random.default_rng(seed).choice(self._ordinary(), (batch_size, int(ordinary.sum())))
        made["input_ids"][:, ordinary] = drawn
        return made, length

    def _pattern(self, pair: bool) -> list[tuple[bool, dict[str, int]]]:
        """What an input is made of: special tokens one by one, and each run of ordinary ones as one, with the inputs'
        values there.
        """
        encoding = self.tokenizer(*([["a"]] * (2 if pair else 1)), return_special_tokens_mask=True, verbose=False)
        mask = [bool(special) for special in encoding["special_tokens_mask"][0]]
        values = [{name: int(encoding[name][0][index]) for name in self.names} for index in range(len(mask))]
        kept = [index for index, special in enumerate(mask) if special or index == 0 or mask[index - 1]]
        if all(mask):
            raise ArtifactError(
                f"the tokenizer of {self.model} gives no token for the text `a`: there is nothing to make inputs from"
            )
        return [(mask[index], values[index]) for index in kept]

    def _ordinary(self) -> NDArray[np.int64]:
        """Token ids that stand for text, within the model's embeddings."""
        size = getattr(self.config.get_text_config(), "vocab_size", None) or len(self.tokenizer)
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        ids = [
            index for index in sorted(set(self.tokenizer.get_vocab().values())) if index < size and index not in special
        ]
        if not ids:
            raise ArtifactError(f"the tokenizer of {self.model} has no tokens within the model's {size} embeddings")
        return np.asarray(ids, dtype=np.int64)


def load_texts(model: Path, *, offsets_for: str | None = None, split: bool = False) -> Texts:
    """How the model in a folder reads text.

    Args:
        model: Its folder.
        offsets_for: What the places of tokens in the text are needed for, in words; None where they are not.
        split: Whether texts come as lists of words.

    Raises:
        ArtifactError: The folder has no tokenizer, or none that tells places.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(model, trust_remote_code=trusted())
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trusted())
        # Such a tokenizer tells words apart by the space before them, and would take a word that comes alone for the
        # end of another.
        settings = inspect.signature(type(tokenizer).__init__).parameters
        if split and tokenizer.is_fast and "add_prefix_space" in settings and not tokenizer.add_prefix_space:
            tokenizer = AutoTokenizer.from_pretrained(model, add_prefix_space=True, trust_remote_code=trusted())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ArtifactError(f"the tokenizer of {model} cannot be loaded: {error}") from error
    # Where a folder has no tokenizer, transformers makes one that knows nothing but its special tokens.
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise ArtifactError(
            f"{model} has no tokenizer (`tokenizer.json`, or the files of a vocabulary): "
            "save the one that the model was trained with into it"
        )
    if offsets_for is not None and not tokenizer.is_fast:
        raise ArtifactError(
            f"the tokenizer of {model} ({type(tokenizer).__name__}) is a slow one, which does not tell where its "
            f"tokens stand in the text; that is needed {offsets_for}. Convert it to a fast one (`tokenizer.json`)"
        )
    taken = _taken(config)
    names = tuple(name for name in tokenizer.model_input_names if taken is None or name in taken)
    return Texts(model, tokenizer, config, names, _maximum(tokenizer, config))


def expect_text(value: Any, column: str, number: int, key: str = "primary") -> str:
    """A text that is not empty.

    Raises:
        SpecError: It is; the message names column and row.
    """
    if not isinstance(value, str) or not value.strip():
        found = f"{format_value(value)} in row {number} of `{column}`"
        raise SpecError(
            Mistake(
                f"$.dataset.data_keys.{key}", found, "a text that is not empty", "take such rows out of the data set"
            )
        )
    return value


def without_padding(values: NDArray[Any], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs `(batch, tokens, ...)` as one array an item, without what stands at padding."""
    mask = inputs.get("attention_mask")
    return [each if mask is None else each[mask[index].astype(bool)] for index, each in enumerate(values)]


def _taken(config: Any) -> set[str] | None:
    """The inputs that a model of this configuration takes; None where transformers knows no such model."""
    from transformers import AutoModel

    try:
        known = AutoModel._model_mapping[type(config)]
    except KeyError:
        return None
    return set(inspect.signature((known[0] if isinstance(known, (list, tuple)) else known).forward).parameters)


def _maximum(tokenizer: Any, config: Any) -> int | None:
    """The most tokens that a model takes: the tokenizer's limit or the model's positions, whichever is less."""
    own = tokenizer.model_max_length if tokenizer.model_max_length < _UNSET else None
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:
        return own
    # Up to here every model of this many positions can go; RoBERTa's kin lose those up to the padding id.
    certain = positions - (getattr(config, "pad_token_id", None) or 0) - 1
    if own is not None and own <= certain:
        return int(own)
    limit = positions - _lost_positions(config, positions)
    return limit if own is None else min(int(own), limit)


def _lost_positions(config: Any, positions: int) -> int:
    """How many position embeddings stand for no token: RoBERTa and its kin count from the one after the padding id's.

    Source: `create_position_ids_from_input_ids` in transformers/models/roberta/modeling_roberta.py.
    """
    import torch
    from transformers import AutoModel

    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=trusted())
    except (ValueError, KeyError, RuntimeError, ImportError):
        return 0
    lost = [
        module.padding_idx + 1
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding)
        and "position" in name
        and module.num_embeddings == positions
        and module.padding_idx is not None
    ]
    return max(lost, default=0)
