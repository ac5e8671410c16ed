"""Probes: example inputs of a transformers model at selected shapes, with PyTorch's outputs for them.

Owns the names, dynamic axes and example values of the inputs, and the reference outputs. Leaves writing a graph to
`exporters`, and comparing a graph with a probe to `parity`. This module loads torch, so import it inside a function.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin

from benchcard.errors import ArtifactError
from benchcard.export.cache import CacheShape, call
from benchcard.export.images import image_size, processed_shapes
from benchcard.graphs.cache import PRESENT, past_names, positions

Array: TypeAlias = NDArray[np.generic]
AxisSizes: TypeAlias = tuple[int | str, ...]

TRACED = (2, 9)
"""Batch size and length at export; neither is 1, which `torch.export` would make a constant."""

TRACED_WITH_CACHE = (2, 3, 4)
"""Batch size, length, and number of tokens in the cache at export. One row has padding: a mask of ones may be left
out of the graph.
"""

_MAX_TOKENS = 512
_SAMPLES_PER_STEP = 400  # audio samples per unit of length: a wav2vec2 frame is 400 samples wide
_IMAGE_STEP = 32  # a multiple of the patches and strides of most models
_PER_TOKEN = ("batch", "sequence")
_PER_SAMPLE = ("batch", "samples")


@dataclass(frozen=True)
class ModelInput:
    """One input of a model, by its name in the output of the processor or tokenizer, as `pixel_values`.

    `shape` has one entry per axis: a name where the axis is dynamic (`batch`, `sequence`), its size where it is fixed.
    `least` has the smallest size of dynamic axes of images.
    """

    name: str
    shape: AxisSizes
    least: Mapping[str, int] = field(default_factory=dict)

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """The names of the dynamic axes by index."""
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, str)}


@dataclass(frozen=True)
class Vocabulary:
    """The valid token ids of a model, which are less than `size`, and its number of token types.

    `end_id` is at the end of every row and nowhere else; None where a model needs none.
    """

    size: int
    pad_id: int = 0
    end_id: int | None = None
    types: int = 1
    padding_side: str = "right"


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs of one shape, and PyTorch's outputs for them; ids and masks are int64, all others mostly float32.

    `real` tells which positions hold real tokens, `(batch, tokens) bool`, those in a cache included; None where there
    is no mask of tokens. The second axis of the outputs in `per_token` is that of the tokens.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    real: NDArray[np.bool_] | None = None
    per_token: frozenset[str] = frozenset()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every input."""
        return {name: array.shape for name, array in self.inputs.items()}

    def at_real(self, name: str, array: Array) -> Array:
        """Return an output at the positions of real tokens."""
        if self.real is None or not (name in self.per_token or name.startswith(PRESENT)):
            return array
        # Keys and values are `(batch, heads, tokens, width)`.
        by_token = np.moveaxis(array, 2, 1) if name.startswith(PRESENT) else array
        real: Array = by_token[self.real[:, self.real.shape[1] - by_token.shape[1] :]]
        return real


def model_inputs(
    model: PreTrainedModel, processor: ProcessorMixin | None, *, many_sizes: bool = False
) -> tuple[ModelInput, ...]:
    """Return the inputs that the processor creates and the model's `forward` takes, in the order of `forward`.

    Without a processor, the names are inferred from `forward` and the configuration. With `many_sizes`, images have
    dynamic heights and widths where the processor makes images of several sizes.

    Raises:
        ArtifactError: No example can be created for an input.
    """
    accepted = list(inspect.signature(model.forward).parameters)
    offered = getattr(processor, "model_input_names", None)
    if offered is None:
        offered = [model.main_input_name]
        if model.main_input_name == "input_ids":
            offered += ["attention_mask"] + ["token_type_ids"] * (_setting(model.config, "type_vocab_size", 0) > 1)
    # A processor of speech also makes `labels` to train with.
    names = [name for name in accepted if name in offered and name != "labels"]
    kind = type(model).__name__
    if not names:
        raise ArtifactError(f"{kind} takes none of the inputs that its processor creates: {list(offered)}")
    shapes = {
        "input_ids": _PER_TOKEN,
        "token_type_ids": _PER_TOKEN,
        "attention_mask": _PER_SAMPLE if "input_values" in names else _PER_TOKEN,
        **_audio_shapes(processor, names),
    }
    inputs = {name: ModelInput(name, shape) for name, shape in shapes.items()}
    inputs |= _image_inputs(model, processor, many_sizes) if "pixel_values" in names else {}
    if unknown := [name for name in names if name not in inputs]:
        raise ArtifactError(
            f"{kind} takes {', '.join(unknown)}: no example can be created for such an input. Inputs that can be "
            f"exported: {', '.join(sorted(inputs))}"
        )
    return tuple(inputs[name] for name in names)


def with_cache(model: PreTrainedModel, inputs: Sequence[ModelInput], cache: CacheShape) -> tuple[ModelInput, ...]:
    """Return the inputs of a decoder that also reads a cache: its mask covers the cache, too, and positions are given
    where it takes them, as `generate` of transformers gives them.
    """
    names = [input_.name for input_ in inputs if input_.name != "attention_mask"]
    named = [ModelInput(name, _PER_TOKEN) for name in names]
    named.insert(1, ModelInput("attention_mask", ("batch", "context")))
    if "position_ids" in inspect.signature(model.forward).parameters:
        named.insert(2, ModelInput("position_ids", _PER_TOKEN))
    size = ("batch", cache.heads, "past", cache.width)
    return (*named, *(ModelInput(name, size) for name in past_names(cache.layers)))


def vocabulary(model: PreTrainedModel, processor: ProcessorMixin | None) -> Vocabulary:
    """Return the model's valid token ids, from its embedding table and its configuration."""
    config = model.config
    try:
        size = int(model.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError):  # An image model has no embedding table.
        size = int(_setting(config, "vocab_size", 1))
    end_id = _setting(config, "eos_token_id", None) if getattr(config, "is_encoder_decoder", False) else None
    return Vocabulary(
        size=size,
        pad_id=_setting(config, "pad_token_id", 0),
        end_id=end_id if isinstance(end_id, int) else None,
        types=max(1, _setting(config, "type_vocab_size", 1)),
        padding_side=getattr(processor, "padding_side", "right"),
    )


def check_shapes(model: PreTrainedModel, inputs: Sequence[ModelInput]) -> tuple[tuple[int, int], ...]:
    """Return the batch sizes and lengths at which an export is compared with PyTorch, all different from `TRACED`.

    Images differ in the batch size alone, unless their size is dynamic. Texts are short, of mixed lengths, and near the
    model's maximum (at most 512 tokens), which reveals buffers, windows and position limits that became constants.
    """
    axes = {size for input_ in inputs for size in input_.shape}
    if "samples" in axes:
        return (1, 7), (3, 20)
    if "height" in axes:
        return (1, 1), (3, 2)
    if "sequence" not in axes:
        return (1, 0), (3, 0)
    positions = _setting(model.config, "max_position_embeddings", None) or _MAX_TOKENS
    # RoBERTa and its relatives start positions after the padding id: 514 embeddings are enough for 512 tokens.
    longest = max(4, min(_MAX_TOKENS, positions) - 2)
    return (1, 3), (3, min(17, longest - 1)), (1, longest)


def cache_shapes(model: PreTrainedModel) -> tuple[tuple[int, int, int], ...]:
    """Return the batch sizes, lengths and numbers of tokens in the cache at which an export with a cache is compared
    with PyTorch: prompts, single tokens after them, and several at once.
    """
    positions = _setting(model.config, "max_position_embeddings", None) or _MAX_TOKENS
    longest = max(4, min(_MAX_TOKENS, positions) - 2)
    middle = min(17, longest - 1)
    return (1, 3, 0), (3, middle, 0), (1, longest, 0), (1, 1, 2), (3, 1, middle - 1), (1, 1, longest - 1), (2, 2, 2)


def example(
    inputs: Sequence[ModelInput], tokens: Vocabulary, batch: int, length: int, past: int = 0
) -> dict[str, Array]:
    """Return inputs of a batch size and length, the same for the same arguments on every machine; `past` is the number
    of tokens in the cache.

    Later rows of a batch are shorter, so that the mask has padding. A single long row is padded, too. Token ids are
    drawn from all but those of padding and end.
    """
    generator = np.random.default_rng([batch, length, past] if past else [batch, length])
    sizes = {"batch": batch, "sequence": length, "samples": length * _SAMPLES_PER_STEP}
    sizes |= {"past": past, "context": past + length}
    mask = _mask((batch, past + length), tokens.padding_side)
    arrays: dict[str, Array] = {}
    for input_ in inputs:
        # The lengths 9, 1 and 2 give three heights and two widths.
        grown = zip(input_.least.items(), (length % 3, length % 2))
        sizes |= {axis: least + steps * _IMAGE_STEP for (axis, least), steps in grown}
        shape = tuple(sizes[size] if isinstance(size, str) else size for size in input_.shape)
        if input_.name == "input_ids":
            arrays[input_.name] = _ids(generator, tokens, shape, mask[:, past:])
        elif input_.name == "token_type_ids":
            arrays[input_.name] = generator.integers(0, tokens.types, shape)
        elif input_.name == "attention_mask":
            arrays[input_.name] = _mask(shape, tokens.padding_side)
        elif input_.name == "position_ids":
            arrays[input_.name] = positions(mask, length)
        elif input_.name == "pixel_mask":
            arrays[input_.name] = np.ones(shape, dtype=np.int64)
        else:
            arrays[input_.name] = generator.standard_normal(shape, dtype=np.float32)
    return arrays


def reference(model: PreTrainedModel, examples: Sequence[Mapping[str, Array]]) -> tuple[Probe, ...]:
    """Return the examples with the model's outputs: every tensor among the fields of its output, in their order.

    Raises:
        ArtifactError: The model cannot run on an example, or an output is not finite for real tokens.
    """
    runs: list[dict[str, Array]] = []
    for inputs in examples:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        try:
            with torch.inference_mode():
                fields = call(model, {name: torch.from_numpy(array) for name, array in inputs.items()})
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise ArtifactError(f"{type(model).__name__} fails in PyTorch itself, at {shapes}: {error}") from error
        runs.append({name: value.numpy() for name, value in fields.items() if isinstance(value, torch.Tensor)})
    per_token = set(runs[0])
    for inputs, outputs in zip(examples, runs):
        tokens = inputs["input_ids"].shape[1:2] if "input_ids" in inputs else None
        per_token -= {name for name, array in outputs.items() if array.shape[1:2] != tokens}
    probes: list[Probe] = []
    for inputs, outputs in zip(examples, runs):
        mask = inputs.get("attention_mask") if "input_ids" in inputs else None
        probe = Probe(inputs, outputs, None if mask is None else mask.astype(bool), frozenset(per_token))
        probes.append(probe)
        for name, array in probe.outputs.items():
            if not np.isfinite(probe.at_real(name, array)).all():
                kind = type(model).__name__
                raise ArtifactError(f"{kind} computes {name} that is not finite, in PyTorch itself, at {probe.shapes}")
    return tuple(probes)


def _setting(config: PretrainedConfig, name: str, default: Any) -> Any:
    """Return a value of the configuration or of its text or vision part; the default where it is missing or None."""
    for part in (config, getattr(config, "text_config", None), getattr(config, "vision_config", None)):
        value = getattr(part, name, None)
        if value is not None:
            return value
    return default


def _ids(
    generator: np.random.Generator, tokens: Vocabulary, shape: tuple[int, ...], mask: NDArray[np.int64]
) -> NDArray[np.int64]:
    reserved = {tokens.pad_id, tokens.end_id}
    allowed = np.array([id_ for id_ in range(tokens.size) if id_ not in reserved], dtype=np.int64)
    ids = generator.choice(allowed, shape)
    if tokens.end_id is not None:
        last = shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
        ids[np.arange(shape[0]), last] = tokens.end_id
    return np.where(mask, ids, tokens.pad_id)


def _mask(shape: tuple[int, ...], padding_side: str) -> NDArray[np.int64]:
    batch, length = shape
    padding = [row * length // (batch + 1) for row in range(batch)] if batch > 1 else [length // 4]
    lengths = length - np.array(padding)[:, None]
    positions = np.arange(length)[None, :]
    return (positions < lengths if padding_side == "right" else positions >= length - lengths).astype(np.int64)


def _image_inputs(model: PreTrainedModel, processor: ProcessorMixin | None, many_sizes: bool) -> dict[str, ModelInput]:
    """Return `pixel_values` and `pixel_mask` as the image processor creates them: of any size, if it makes several and
    `many_sizes` are asked for, else of that of a square image.
    """
    height, width = image_size(None, model.config)
    channels, is_one_size = _setting(model.config, "num_channels", 3), True
    image_processor = getattr(processor, "image_processor", processor)
    if image_processor is not None:
        (channels, height, width), is_one_size = processed_shapes(image_processor, model.config)
    least = {} if is_one_size or not many_sizes else {"height": height, "width": width}
    sizes = tuple(least) or (height, width)
    return {
        "pixel_values": ModelInput("pixel_values", ("batch", channels, *sizes), least),
        "pixel_mask": ModelInput("pixel_mask", ("batch", *sizes), least),
    }


def _audio_shapes(processor: ProcessorMixin | None, names: Sequence[str]) -> dict[str, AxisSizes]:
    """Return the shapes that the feature extractor creates for a second of silence: samples, or a fixed image."""
    audio_names = [name for name in ("input_values", "input_features") if name in names]
    extractor = getattr(processor, "feature_extractor", processor)
    if extractor is None:
        return dict.fromkeys(audio_names, _PER_SAMPLE)
    shapes: dict[str, AxisSizes] = {}
    for name in audio_names:
        silence = np.zeros(extractor.sampling_rate, dtype=np.float32)
        array = np.asarray(extractor(silence, sampling_rate=extractor.sampling_rate, return_tensors="np")[name])
        shapes[name] = _PER_SAMPLE if array.ndim == 2 else ("batch", *(int(size) for size in array.shape[1:]))
    return shapes
