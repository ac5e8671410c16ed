"""How a model's token embeddings become the embedding of a sentence, as its own folder says in the files of
sentence-transformers.

Source: https://sbert.net/docs/sentence_transformer/usage/custom_models.html (`modules.json`, `1_Pooling/config.json`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError

Pool = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# What torch.nn.functional.normalize divides by at least.
_LEAST_NORM = 1e-12


def _weighted(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    weights = np.arange(1, len(tokens) + 1, dtype=np.float32)
    return np.asarray(weights @ tokens / weights.sum(), dtype=np.float32)


# In the order in which sentence-transformers joins them where a model asks for several.
_POOLS: Mapping[str, Pool] = MappingProxyType(
    {
        "cls": lambda tokens: tokens[0],
        "max": lambda tokens: tokens.max(axis=0),
        "mean": lambda tokens: tokens.mean(axis=0),
        "mean_sqrt_len": lambda tokens: tokens.sum(axis=0) / np.float32(np.sqrt(len(tokens))),
        "weightedmean": _weighted,
        "lasttoken": lambda tokens: tokens[-1],
    }
)
_KEYS = {"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "mean": "pooling_mode_mean_tokens"}
_KEYS |= {
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@dataclass(frozen=True)
class Pooling:
    """How token embeddings become one.

    Attributes:
        modes: What is taken over the tokens, joined one after the other: `cls`, `max`, `mean`, `mean_sqrt_len`,
            `weightedmean`, `lasttoken`.
        normalize: Whether the result is scaled to length 1.
        maximum: The most tokens that are read; None for the model's own maximum.
        lower_case: Whether texts are lower-cased first.
        prompt: What stands before every text.
        notes: What a reader should know.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    maximum: int | None = None
    lower_case: bool = False
    prompt: str = ""
    notes: tuple[str, ...] = ()


def embedding(tokens: NDArray[np.float32], modes: tuple[str, ...], normalize: bool) -> NDArray[np.float32]:
    """The embedding `(numbers,) float32` of a text from those of its tokens `(tokens, numbers) float32`, none of them
    padding.
    """
    joined = np.concatenate([_POOLS[mode](tokens) for mode in modes])
    if normalize:
        joined = joined / max(float(np.linalg.norm(joined)), _LEAST_NORM)
    return joined.astype(np.float32, copy=False)


def load(model: Path) -> Pooling:
    """How the model in a folder pools; the mean of all tokens where the folder does not say.

    Raises:
        ArtifactError: It does more than pool and normalize, or pools in a way that is not known here.
    """
    modules = _read(model / "modules.json")
    if modules is None:
        return Pooling(
            notes=(
                "the model's folder does not say how token embeddings are pooled: their mean is taken, "
                "as sentence-transformers does",
            )
        )
    kinds = [(str(module["type"]).rpartition(".")[2], module.get("path") or "") for module in modules]
    known = ("Transformer", "Pooling", "Normalize")
    if other := [kind for kind, _ in kinds if kind not in known]:
        raise ArtifactError(
            f"{model} passes its embeddings through {', '.join(other)}, which is not among {', '.join(known)}: "
            "they cannot be made here"
        )
    pooled = next((path for kind, path in kinds if kind == "Pooling"), None)
    if pooled is None:
        raise ArtifactError(f"{model / 'modules.json'} has no Pooling: there is no embedding of a sentence")
    config = _read(model / pooled / "config.json") or {}
    modes = _modes(config, model / pooled / "config.json")
    reading = _read(model / "sentence_bert_config.json") or {}
    told = _read(model / "config_sentence_transformers.json") or {}
    prompt = (told.get("prompts") or {}).get(told.get("default_prompt_name") or "", "")
    if prompt and not config.get("include_prompt", True):
        raise ArtifactError(f"{model} leaves its prompt out when it pools, which is not supported")
    notes = (f"every text has the model's prompt before it: {prompt!r}",) if prompt else ()
    normalize = any(kind == "Normalize" for kind, _ in kinds)
    return Pooling(modes, normalize, reading.get("max_seq_length"), bool(reading.get("do_lower_case")), prompt, notes)


def _modes(config: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The modes of a pooling's configuration: flags, or a name or several in newer folders."""
    named = config.get("pooling_mode")
    asked = (
        [named] if isinstance(named, str) else list(named or [mode for mode, key in _KEYS.items() if config.get(key)])
    )
    unknown = [mode for mode in asked if mode not in _POOLS]
    if unknown or not asked:
        raise ArtifactError(
            f"{path} asks for the pooling {', '.join(map(str, unknown)) or 'of nothing'}; known: {', '.join(_POOLS)}"
        )
    return tuple(mode for mode in _POOLS if mode in asked)


def _read(path: Path) -> Any:
    """The JSON in a file; None where there is no file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
