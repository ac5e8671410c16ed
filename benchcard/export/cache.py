"""A decoder that reads a cache of keys and values: the shape of the cache, and a call with it in PyTorch.

Owns which models have such a cache. Leaves the names of its parts to `benchcard.graphs.cache`, and example inputs to
`probes`. torch is imported by the functions that are given a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchcard.errors import Mistake, SpecError
from benchcard.graphs.cache import has_cache, past_names, present_name

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

# Kinds of layers whose keys and values can all be kept; a window is then a matter of the mask.
# Source: `ALLOWED_LAYER_TYPES` of transformers/configuration_utils.py.
_KINDS = frozenset(("full_attention", "sliding_attention", "chunked_attention"))
_EXPECTED = "a decoder whose layers all have attention with keys and values of one size"
_HINT = "leave out `use_cache`: quality and the time to read a prompt need no cache"


@dataclass(frozen=True)
class CacheShape:
    """The cache of a model: for each of its layers keys and values `(batch, heads, tokens, width) float32`."""

    layers: int
    heads: int
    width: int


def cache_shape(config: PretrainedConfig) -> CacheShape:
    """Return the cache of a model by its configuration.

    Raises:
        SpecError: The model keeps something else than keys and values, as state-space and hybrid models do.
    """
    text = config.get_text_config()
    layers, heads = (getattr(text, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    others = sorted(set(getattr(text, "layer_types", None) or ()) - _KINDS)
    lack = f"layers of the kind {', '.join(others)}" if others else ""
    if not lack and not (isinstance(layers, int) and isinstance(heads, int) and heads > 0):
        lack = "no attention heads in its config.json"
    if not lack:
        lack = _lack_of_class(config)
    if lack or not isinstance(layers, int) or not isinstance(heads, int):
        actual = f"a model of the type `{config.model_type}`, which has {lack}"
        raise SpecError(Mistake("$.task_args.use_cache", actual, _EXPECTED, _HINT))
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return CacheShape(layers, getattr(text, "num_key_value_heads", None) or heads, width)


def _lack_of_class(config: PretrainedConfig) -> str:
    """Return what the model class of a configuration lacks; empty where it lacks nothing, or is not known."""
    import inspect

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if model is None or "past_key_values" in inspect.signature(model.forward).parameters:
        return "a state beside keys and values" if getattr(model, "_is_stateful", False) else ""
    return "no `past_key_values` in its `forward`"


def expect_cache(model: PreTrainedModel) -> CacheShape:
    """Return the cache of a loaded model, as a call of it gives it.

    Raises:
        SpecError: It is none of keys and values, or not of the size that its configuration says.
    """
    import torch

    shape = cache_shape(model.config)
    with torch.inference_mode():
        cache = model(input_ids=torch.zeros((1, 2), dtype=torch.int64), use_cache=True, return_dict=True)
    parts = [part for layer in getattr(cache.past_key_values, "layers", ()) for part in (layer.keys, layer.values)]
    found = [tuple(part.shape) if isinstance(part, torch.Tensor) else () for part in parts]
    if found != [(1, shape.heads, 2, shape.width)] * (2 * shape.layers):
        sizes = " and ".join(map(str, dict.fromkeys(found))) or "nothing"
        actual = f"{type(model).__name__}, whose cache has {sizes} after two tokens"
        raise SpecError(Mistake("$.task_args.use_cache", actual, _EXPECTED, _HINT))
    return shape


def call(model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
    """Return the outputs of a model by name; with keys and values among the inputs, `logits` and those after the call.

    The tensors that are given are not changed.
    """
    if not has_cache(inputs):
        outputs: Mapping[str, Any] = model(**inputs, return_dict=True)
        return outputs
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache, given = DynamicCache(), dict(inputs)
    names = past_names(sum(map(has_cache, ([name] for name in inputs))) // 2)
    for key, value in zip(names[::2], names[1::2]):
        layer = DynamicLayer()
        keys, values = given.pop(key), given.pop(value)
        layer.keys, layer.values, layer.is_initialized = keys, values, True
        layer.dtype, layer.device = keys.dtype, keys.device
        cache.layers.append(layer)
    fields = model(**given, past_key_values=cache, use_cache=True, return_dict=True)
    parts = [part for layer in fields.past_key_values.layers for part in (layer.keys, layer.values)]
    return {"logits": fields.logits, **dict(zip(map(present_name, names), parts))}
