"""The cache of keys and values of a decoder, as inputs and outputs of its graph.

Owns their names, which are those of optimum and Transformers.js, and the inputs of a call without a cache. Leaves the
export of such a graph to `benchcard.export.cache`.

Source: `ORTModelForCausalLM` of https://github.com/huggingface/optimum-onnx; `getKeyValueShapes` of Transformers.js.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchcard.graphs.signature import GraphInput

PAST, PRESENT = "past_key_values.", "present."
"""How the names of inputs and outputs with keys and values begin."""


def past_names(layers: int) -> list[str]:
    """Return the names of the inputs of a decoder with so many layers, in their order."""
    return [f"{PAST}{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def present_name(past: str) -> str:
    """Return the name of the output with the keys or values of an input and of the new tokens."""
    return PRESENT + past.removeprefix(PAST)


def has_cache(names: Iterable[str]) -> bool:
    """Return whether inputs of these names are those of a decoder with a cache."""
    return any(name.startswith(PAST) for name in names)


def positions(mask: np.ndarray, tokens: int) -> np.ndarray:
    """Return the positions `(batch, tokens) int64` of the last tokens under a mask `(batch, context)`, by which padding
    on the left does not count.

    Source: `GenerationMixin.prepare_inputs_for_generation` of transformers.
    """
    every: np.ndarray = np.maximum(mask.cumsum(axis=1) - 1, 0)
    return every[:, mask.shape[1] - tokens :]


def feed(inputs: Iterable[GraphInput], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays as inputs of a graph, in its types, as far as it has them; a graph that reads a cache is given an
    empty one, and the positions of the tokens, where there are none among the arrays.
    """
    taken = list(inputs)
    if has_cache(entry.name for entry in taken):
        arrays = _completed(taken, arrays)
    return {entry.name: entry.cast(arrays[entry.name]) for entry in taken if entry.name in arrays}


def _completed(inputs: Iterable[GraphInput], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    ids = arrays["input_ids"]
    mask = arrays.get("attention_mask", np.ones_like(ids))
    pasts = {
        entry.name: np.zeros((len(ids), *(0 if size is None else size for size in (entry.shape or ())[1:])))
        for entry in inputs
        if entry.name.startswith(PAST)
    }
    return {"attention_mask": mask, "position_ids": positions(mask, ids.shape[1]), **pasts, **arrays}
