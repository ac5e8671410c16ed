"""How a model's token embeddings become the embedding of a sentence, as its own folder says in the files of
sentence-transformers.

What such a folder asks for is done or refused, and never left out.

Source: https://sbert.net/docs/sentence_transformer/usage/custom_models.html (`modules.json`, `1_Pooling/config.json`);
`Transformer.config_keys` and `SentenceTransformer._parse_model_config` of sentence-transformers 6.2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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


# In the order in which sentence-transformers joins them where a folder asks for several by flags.
_POOLS: Mapping[str, Pool] = MappingProxyType(
    {
        "cls": lambda tokens: tokens[0],
        "max": lambda tokens: tokens.max(axis=0),
        "mean": lambda tokens: tokens.mean(axis=0),
        "mean_sqrt_len_tokens": lambda tokens: tokens.sum(axis=0) / np.float32(np.sqrt(len(tokens))),
        "weightedmean": _weighted,
        "lasttoken": lambda tokens: tokens[-1],
    }
)
# What a folder may consist of, in this order, a `Normalize` behind them.
_MODULES = ("Transformer", "Pooling")
_KEYS = {"cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens", "mean": "pooling_mode_mean_tokens"}
_KEYS |= {
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


# The names of the configuration of a `Transformer`, the first one that is there is read; and its values of which an
# embedding does not depend, or that describe what is done here in any case.
_READINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_HARMLESS = ("max_seq_length", "do_lower_case", "unpad_inputs", "query_length", "document_length", "query_expansion")
_AS_HERE = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}


@dataclass(frozen=True)
class Pooling:
    """How the embedding of a text is made of those of its tokens, and how embeddings are compared.

    Attributes:
        modes: What is taken over the tokens, joined one after the other: `cls`, `max`, `mean`, `mean_sqrt_len_tokens`,
            `weightedmean`, `lasttoken`.
        normalize: Whether the result is scaled to length 1.
        truncate_dim: How many of its first numbers are kept after that; None for all.
        similarity: The name of the similarity that the folder asks for; None where it does not say.
        maximum: The most tokens that are read; None for the model's own maximum.
        lower_case: Whether texts are lower-cased first.
        prompt: What stands before every text.
        notes: What a reader should know.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    truncate_dim: int | None = None
    similarity: str | None = None
    maximum: int | None = None
    lower_case: bool = False
    prompt: str = ""
    notes: tuple[str, ...] = ()

    def read(self, text: str) -> str:
        """Return the text that the tokenizer gets for `text`."""
        prompted = self.prompt + text
        return prompted.lower() if self.lower_case else prompted


def embedding(
    tokens: NDArray[np.float32], modes: Sequence[str], normalize: bool, truncate_dim: int | None = None
) -> NDArray[np.float32]:
    """Return the embedding `(numbers,) float32` of a text from those of its tokens `(tokens, numbers) float32`, none
    of them padding.
    """
    joined = np.concatenate([_POOLS[mode](tokens) for mode in modes])
    if normalize:
        joined = joined / max(float(np.linalg.norm(joined)), _LEAST_NORM)
    return joined[:truncate_dim].astype(np.float32, copy=False)


def load_pooling(model: Path) -> Pooling:
    """Return how the model in a folder makes embeddings; the mean of all tokens where the folder does not say.

    Raises:
        ArtifactError: It asks for something that is not done here, which is named.
    """
    modules = read_json(model / "modules.json", list)
    if modules is None:
        return Pooling(
            notes=(
                "the model's folder does not say how token embeddings are pooled: their mean is taken, "
                "as sentence-transformers does",
            )
        )
    path = _pooling_folder(model, modules) / "config.json"
    config = read_json(path) or {}
    reading: Mapping[str, Any] = next(
        (found for name in _READINGS if (found := read_json(model / name)) is not None), {}
    )
    _refuse_reading(model, reading)
    settings = read_json(model / "config_sentence_transformers.json") or {}
    if (kind := settings.get("model_type", "SentenceTransformer")) != "SentenceTransformer":
        raise ArtifactError(f"{model} is a {kind} of sentence-transformers; expected a SentenceTransformer")
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ArtifactError(f"the default prompt `{default}` of {model} is not among its prompts: {', '.join(prompts)}")
    prompt, notes = prompts.get(default, ""), []
    if prompt and not config.get("include_prompt", True):
        raise ArtifactError(f"{model} leaves its prompt out when it pools, which is not supported")
    if prompt:
        notes.append(f"every text has the model's prompt before it: {prompt!r}")
    elif names := [name for name, text in prompts.items() if text]:
        notes.append(
            f"the model has prompts ({', '.join(names)}) and no default one: texts are read without a prompt, "
            "as `encode` of sentence-transformers reads them"
        )
    truncate_dim = settings.get("truncate_dim")
    if truncate_dim is not None:
        notes.append(f"embeddings are cut to their first {truncate_dim} numbers: the model's `truncate_dim`")
    return Pooling(
        _modes(config, path),
        len(modules) > len(_MODULES),
        truncate_dim,
        settings.get("similarity_fn_name"),
        reading.get("max_seq_length") or None,
        bool(reading.get("do_lower_case")),
        prompt,
        tuple(notes),
    )


def _pooling_folder(model: Path, modules: Sequence[Any]) -> Path:
    """Return the folder of the pooling's configuration.

    Raises:
        ArtifactError: The modules are not a transformer at the root, a pooling and, if any, a normalisation.
    """
    if strange := [module for module in modules if not isinstance(module, Mapping) or "type" not in module]:
        raise ArtifactError(f"{model / 'modules.json'} cannot be read: {strange[0]!r} is no module, with its type")
    types = [str(module["type"]) for module in modules]
    own = [each.rpartition(".")[2] if each.startswith("sentence_transformers.") else each for each in types]
    if other := [kind for kind in own if kind not in (*_MODULES, "Normalize")]:
        raise ArtifactError(
            f"{model} passes its embeddings through {', '.join(other)}, which is not among "
            f"{', '.join(_MODULES)}, Normalize: they cannot be made here"
        )
    if "Pooling" not in own:
        raise ArtifactError(f"{model / 'modules.json'} has no Pooling: there is no embedding of a sentence")
    paths = [str(module.get("path") or "") for module in modules]
    if own not in ([*_MODULES], [*_MODULES, "Normalize"]) or paths[0]:
        listing = ", ".join(f"{kind} in `{path or '.'}`" for kind, path in zip(own, paths))
        raise ArtifactError(
            f"{model / 'modules.json'} lists {listing}; "
            "expected a Transformer in the model's own folder, a Pooling and, if any, a Normalize"
        )
    if own[-1] == "Normalize":
        given = read_json(model / paths[-1] / "config.json") if paths[-1] else None
        if values := {str(value) for value in (given or {}).values()} - {"None", "sentence_embedding"}:
            raise ArtifactError(f"{model} normalizes {', '.join(sorted(values))}; expected `sentence_embedding`")
    return model / paths[1]


def _refuse_reading(model: Path, reading: Mapping[str, Any]) -> None:
    """Refuse a configuration of the transformer that asks for more than is done here."""
    asked = {name: value for name, value in reading.items() if name not in _HARMLESS and value}
    asked = {name: value for name, value in asked.items() if value != _AS_HERE.get(name)}
    modalities = asked.get("modality_config")
    if isinstance(modalities, Mapping) and modalities.get("text") == _FORWARD and "message" not in modalities:
        del asked["modality_config"]
    if asked:
        raise ArtifactError(
            f"{model} asks for {', '.join(f'{name} {value!r}' for name, value in asked.items())} in its "
            "configuration of the transformer (`sentence_bert_config.json`), which is not supported: remove it if the "
            "embeddings do not depend on it"
        )


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
    return tuple(asked)


def read_json(path: Path, kind: type = dict) -> Any:
    """Return the JSON in a file, an object unless `kind` is `list`; None where there is no file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, kind):
        raise ArtifactError(f"{path} cannot be read: expected a JSON {'array' if kind is list else 'object'}")
    return content
