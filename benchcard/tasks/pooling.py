"""How the embedding of a text is made from those of its tokens, as the files of sentence-transformers in the model's
folder configure it. What such a folder asks for is done or refused, never ignored.

Source: https://sbert.net/docs/sentence_transformer/usage/custom_models.html (`modules.json`, `1_Pooling/config.json`);
`Transformer.config_keys` and `SentenceTransformer._parse_model_config` of sentence-transformers 6.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError

T = TypeVar("T")
Pool = Callable[[NDArray[np.float32]], NDArray[np.floating]]

# The least divisor of torch.nn.functional.normalize.
_LEAST_NORM = 1e-12


# In the order in which sentence-transformers joins them where a folder asks for several by flags.
_POOLS: Mapping[str, Pool] = {
    "cls": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.max(axis=0),
    "mean": lambda tokens: tokens.mean(axis=0),
    "mean_sqrt_len_tokens": lambda tokens: tokens.sum(axis=0) / np.float32(np.sqrt(len(tokens))),
    "weightedmean": lambda tokens: np.average(tokens, axis=0, weights=np.arange(1, len(tokens) + 1)),
    "lasttoken": lambda tokens: tokens[-1],
}
# What the flag of a mode has after its name.
_FLAG_ENDINGS = {"cls": "_token", **dict.fromkeys(("max", "mean", "weightedmean"), "_tokens")}
# The modules of a folder, in this order; `Normalize` may be missing.
_MODULES = ["Transformer", "Pooling", "Normalize"]
# The kinds of `sentence_<kind>_config.json`, the configuration of a `Transformer`; the first file that exists counts.
_KINDS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
# Its settings that are obeyed here or do not change an embedding, and those that may have this value only.
_ACCEPTED = ("max_seq_length", "do_lower_case", "unpad_inputs", "query_length", "document_length", "query_expansion")
_FIXED = {"transformer_task": "feature-extraction", "module_output_name": "token_embeddings"}
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}


@dataclass(frozen=True)
class Pooling:
    """How the embedding of a text is made, and how embeddings are compared.

    Attributes:
        modes: What is computed over the tokens, a name of `_POOLS` each, joined one after the other.
        normalize: Whether the result is scaled to length 1.
        truncate_dim: How many of its first numbers are kept after that; None for all.
        similarity: The name of the similarity that the folder asks for; None where it names none.
        maximum: The most tokens that are read; None for the model's own maximum.
    """

    modes: tuple[str, ...] = ("mean",)
    normalize: bool = False
    truncate_dim: int | None = None
    similarity: str | None = None
    prompt: str = ""
    lower_case: bool = False
    maximum: int | None = None
    notes: tuple[str, ...] = ()

    def model_text(self, text: str) -> str:
        """Return the text that the tokenizer gets for `text`."""
        prompted = self.prompt + text
        return prompted.lower() if self.lower_case else prompted

    def text_code(self, text: str) -> str:
        """Return the Python expression of what `model_text` returns for an expression."""
        prompted = f"{self.prompt!r} + {text}" if self.prompt else text
        return f"({prompted}).lower()" if self.lower_case else prompted

    def embedding(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the embedding `(numbers,) float32` of a text from those of its tokens `(tokens, numbers) float32`,
        none of them padding.
        """
        return self.finished(np.concatenate([_POOLS[mode](tokens) for mode in self.modes]))

    def finished(self, joined: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return a pooled embedding `(numbers,)`, normalized and cut as the model's folder asks for."""
        if self.normalize:
            joined = joined / max(float(np.linalg.norm(joined)), _LEAST_NORM)
        return joined[: self.truncate_dim].astype(np.float32, copy=False)


@dataclass(frozen=True)
class SentenceTransformersConfig:
    """What benchcard reads of `config_sentence_transformers.json`; the names are those of the file."""

    model_type: str = "SentenceTransformer"
    prompts: dict[str, str | None] | None = None
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    activation_fn: str | None = None

    @property
    def prompt(self) -> str:
        """The text before every text where the caller chooses no prompt."""
        if self.default_prompt_name is None:
            return ""
        return (self.prompts or {}).get(self.default_prompt_name) or ""


@dataclass(frozen=True)
class _Module:
    """An entry of `modules.json`."""

    type: str
    path: str | None = None

    @property
    def name(self) -> str:
        """The class of the module; with its package where that is not sentence-transformers."""
        return self.type.rpartition(".")[2] if self.type.startswith("sentence_transformers.") else self.type


def load_pooling(
    model: Path, role: str = "text", prompt_names: Sequence[str] = (), prompt: str | None = None
) -> Pooling:
    """Return the pooling of the model in a folder; the mean of all tokens where the folder has none.

    Its prompt is that of the spec where `prompt` is given, else the first of `prompt_names` that the folder has, else
    the folder's default. `role` is what is encoded, in notes.
    """
    modules = read_json(model / "modules.json", list[_Module])
    if modules is None:
        mean = "their mean is taken, as sentence-transformers does, unless the graph gives embeddings of sentences"
        note = f"the model's folder does not say how token embeddings are pooled: {mean}"
        return Pooling(prompt=prompt or "", notes=(note, *_prompt_notes(role, prompt or "", "the spec's", {})))
    path = _pooling_folder(model, modules) / "config.json"
    config = read_json(path, dict[str, object]) or {}
    files = (read_json(model / f"sentence_{kind}_config.json", dict[str, object]) for kind in _KINDS)
    maximum, lower_case = _transformer_settings(model, next((file for file in files if file is not None), {}))
    settings = load_config(model)
    if (kind := settings.model_type) != "SentenceTransformer":
        raise ArtifactError(f"{model} is a {kind} of sentence-transformers; expected a SentenceTransformer")
    prompts, default = settings.prompts or {}, settings.default_prompt_name
    if default is not None and default not in prompts:
        raise ArtifactError(f"the default prompt `{default}` of {model} is not among its prompts: {', '.join(prompts)}")
    own = next((name for name in prompt_names if name in prompts), default)
    source, prompt = ("the model's", prompts.get(own or "") or "") if prompt is None else ("the spec's", prompt)
    if prompt and not config.get("include_prompt", True):
        raise ArtifactError(f"{model} leaves its prompt out when it pools, which is not supported")
    notes = _prompt_notes(role, prompt, source, prompts)
    if settings.truncate_dim is not None:
        notes.append(f"embeddings are cut to their first {settings.truncate_dim} numbers: the model's `truncate_dim`")
    modes, normalize = _modes(config, path), modules[-1].name == "Normalize"
    similarity, truncate_dim = settings.similarity_fn_name, settings.truncate_dim
    return Pooling(modes, normalize, truncate_dim, similarity, prompt, lower_case, maximum, tuple(notes))


def _prompt_notes(role: str, prompt: str, source: str, prompts: Mapping[str, str | None]) -> list[str]:
    if prompt:
        return [f"every {role} has {source} prompt before it: {prompt!r}"]
    names = [name for name, text in prompts.items() if text]
    if role != "text" or not names:
        return []
    reading = "texts are read without a prompt, as `encode` of sentence-transformers reads them"
    return [f"the model has prompts ({', '.join(names)}) and no default one: {reading}"]


def load_config(model: Path) -> SentenceTransformersConfig:
    """Return the configuration of sentence-transformers in a model's folder; the defaults where it has none."""
    path = model / "config_sentence_transformers.json"
    return read_json(path, SentenceTransformersConfig) or SentenceTransformersConfig()


def _pooling_folder(model: Path, modules: Sequence[_Module]) -> Path:
    """Return the folder of the pooling's configuration, the second of two modules, or of three with a normalization."""
    names = [module.name for module in modules]
    if unknown := [name for name in names if name not in _MODULES]:
        expected = ", ".join(_MODULES)
        raise ArtifactError(f"{model} passes its embeddings through {', '.join(unknown)}; expected only {expected}")
    if "Pooling" not in names:
        raise ArtifactError(f"{model / 'modules.json'} has no Pooling, so the model gives no embedding of a sentence")
    if names not in (_MODULES[:2], _MODULES) or modules[0].path:
        listing = ", ".join(f"{module.name} in `{module.path or '.'}`" for module in modules)
        expected = "a Transformer in the model's own folder, a Pooling and at most a Normalize"
        raise ArtifactError(f"{model / 'modules.json'} lists {listing}; expected {expected}")
    if names[-1] == "Normalize" and modules[-1].path:
        config = read_json(model / modules[-1].path / "config.json", dict[str, object]) or {}
        if values := {str(value) for value in config.values()} - {"None", "sentence_embedding"}:
            raise ArtifactError(f"{model} normalizes {', '.join(sorted(values))}; expected `sentence_embedding`")
    return model / (modules[1].path or "")


def _transformer_settings(model: Path, config: Mapping[str, object]) -> tuple[int | None, bool]:
    """Return the most tokens that are read, and whether texts are converted to lower case."""
    others = {name: value for name, value in config.items() if name not in _ACCEPTED and value}
    others = {name: value for name, value in others.items() if value != _FIXED.get(name)}
    modalities = others.get("modality_config")
    if isinstance(modalities, dict) and modalities.get("text") == _FORWARD and "message" not in modalities:
        del others["modality_config"]
    if others:
        raise ArtifactError(
            f"{model} asks for {', '.join(f'{name} {value!r}' for name, value in others.items())} in its "
            "configuration of the transformer (`sentence_bert_config.json`), which is not supported: remove it if the "
            "embeddings do not depend on it"
        )
    maximum = config.get("max_seq_length")
    return maximum if isinstance(maximum, int) and maximum else None, bool(config.get("do_lower_case"))


def _modes(config: Mapping[str, object], path: Path) -> tuple[str, ...]:
    """Return the modes of a pooling's configuration: flags or, in newer folders, one name or several."""
    names = config.get("pooling_mode") or [
        mode for mode in _POOLS if config.get(f"pooling_mode_{mode}{_FLAG_ENDINGS.get(mode, '')}")
    ]
    modes = tuple(map(str, names if isinstance(names, list) else [names]))
    unknown = [mode for mode in modes if mode not in _POOLS]
    if unknown or not modes:
        asked = ", ".join(unknown) or "of nothing"
        raise ArtifactError(f"{path} asks for the pooling {asked}; known: {', '.join(_POOLS)}")
    return modes


def read_json(path: Path, form: type[T]) -> T | None:
    """Return the JSON of a file as a value of this type; None where there is no file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=form)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
