"""Probes: example inputs of a transformers model at chosen shapes, with the outputs that PyTorch gives for them.

Owns: which inputs a model is fed with (the names that its own processor or tokenizer gives), which of their axes are
dynamic, the values that stand in for real data, and the reference outputs. Leaves writing a graph to `exporters`,
and comparing a graph with a probe to `parity`.

This module loads torch and transformers: import it inside a function.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchcard.errors import ArtifactError

TRACED = (2, 9)
"""Batch size and length at export: neither is 1, which `torch.export` would take for a constant."""

_LONGEST = 512
_SAMPLES_PER_STEP = 400  # an audio sample count is this many times the length: a wav2vec2 frame is 400 samples wide
_PER_TOKEN = ("batch", "sequence")
_PER_SAMPLE = ("batch", "samples")


@dataclass(frozen=True)
class ModelInput:
    """One input of a model.

    Attributes:
        name: the name that the processor or tokenizer gives it, as `pixel_values`.
        shape: one entry an axis: a name where the axis is dynamic (`batch`, `sequence`), its size where it is fixed.
    """

    name: str
    shape: tuple[int | str, ...]

    @property
    def dynamic_axes(self) -> dict[int, str]:
        """The dynamic axes: index to name."""
        return {axis: size for axis, size in enumerate(self.shape) if isinstance(size, str)}


@dataclass(frozen=True)
class Vocabulary:
    """What token ids may be.

    Attributes:
        size: ids are below it.
        pad_id: the id at padded positions.
        end_id: the id that closes every row and stands nowhere else; None where a model needs none.
        types: token types are below it.
        padding_side: `right` or `left`.
    """

    size: int
    pad_id: int = 0
    end_id: int | None = None
    types: int = 1
    padding_side: str = "right"


@dataclass(frozen=True, eq=False)
class Probe:
    """Inputs at one shape and what PyTorch makes of them.

    Attributes:
        inputs: name to array; ids and masks are int64, all else float32.
        outputs: name to array, float32 for most.
        real: which positions hold real tokens, (batch, tokens) bool; None where there is no mask of tokens.
        per_token: the outputs whose second axis runs along the tokens.
    """

    inputs: Mapping[str, np.ndarray[Any, Any]]
    outputs: Mapping[str, np.ndarray[Any, Any]]
    real: np.ndarray[Any, Any] | None = None
    per_token: frozenset[str] = frozenset()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every input."""
        return {name: array.shape for name, array in self.inputs.items()}


def model_inputs(model: Any, processor: Any | None) -> tuple[ModelInput, ...]:
    """The inputs that the model's processor gives and its forward takes, in the forward's order.

    Args:
        model: a `transformers.PreTrainedModel`.
        processor: the model's processor, tokenizer, image processor or feature extractor; None where it has none: the
            names then follow from the model's forward and its configuration.

    Raises:
        ArtifactError: an input is of a kind that no example can be made for.
    """
    accepted = list(inspect.signature(model.forward).parameters)
    offered = getattr(processor, "model_input_names", None)
    if offered is None:
        offered = [model.main_input_name]
        if model.main_input_name == "input_ids":
            offered += ["attention_mask"] + ["token_type_ids"] * (_setting(model.config, "type_vocab_size", 0) > 1)
    names = [name for name in accepted if name in offered]
    if not names:
        raise ArtifactError(
            f"{type(model).__name__} takes none of the inputs that its processor gives: {list(offered)}"
        )
    shapes = {
        "input_ids": _PER_TOKEN,
        "token_type_ids": _PER_TOKEN,
        "attention_mask": _PER_SAMPLE if "input_values" in names else _PER_TOKEN,
        **_image_shapes(model, processor, names),
        **_audio_shapes(processor, names),
    }
    unknown = [name for name in names if name not in shapes]
    if unknown:
        raise ArtifactError(
            f"{type(model).__name__} takes {', '.join(unknown)}: no example can be made for such an input. Inputs that"
            f" can be exported: {', '.join(sorted(shapes))}"
        )
    return tuple(ModelInput(name, shapes[name]) for name in names)


def vocabulary(model: Any, processor: Any | None) -> Vocabulary:
    """What the model's token ids may be, from its embedding table and its configuration."""
    config = model.config
    try:
        size = int(model.get_input_embeddings().num_embeddings)
    except (AttributeError, NotImplementedError):  # an image model's embeddings are no table
        size = int(_setting(config, "vocab_size", 1))
    end_id = _setting(config, "eos_token_id", None) if getattr(config, "is_encoder_decoder", False) else None
    return Vocabulary(
        size=size,
        pad_id=_setting(config, "pad_token_id", 0),
        end_id=end_id if isinstance(end_id, int) else None,
        types=max(1, _setting(config, "type_vocab_size", 1)),
        padding_side=getattr(processor, "padding_side", "right"),
    )


def check_shapes(model: Any, inputs: Sequence[ModelInput]) -> tuple[tuple[int, int], ...]:
    """The batch sizes and lengths at which an export is compared with PyTorch; none of them is the traced one.

    Images differ in the batch size alone. Texts are checked short, ragged, and near the model's maximum (at most 512
    tokens), where buffers, windows and position limits that were baked in show.
    """
    axes = {size for input_ in inputs for size in input_.shape}
    if "samples" in axes:
        return (1, 7), (3, 20)
    if "sequence" not in axes:
        return (1, 0), (3, 0)
    positions = _setting(model.config, "max_position_embeddings", None) or _LONGEST
    # RoBERTa and its kin lose the first positions to the padding id: 514 embeddings serve 512 tokens.
    longest = max(4, min(_LONGEST, positions) - 2)
    return (1, 3), (3, min(17, longest - 1)), (1, longest)


def example(
    inputs: Sequence[ModelInput], tokens: Vocabulary, batch: int, length: int
) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of a batch size and length: the same values for the same arguments, on every machine.

    Rows get shorter down the batch, so that the mask has padding; a single row is padded where it is long. Token ids
    are drawn from the whole vocabulary but for the padding id.
    """
    draw = np.random.default_rng([batch, length])
    sizes = {"batch": batch, "sequence": length, "samples": length * _SAMPLES_PER_STEP}
    made: dict[str, np.ndarray[Any, Any]] = {}
    for input_ in inputs:
        shape = tuple(sizes[size] if isinstance(size, str) else size for size in input_.shape)
        if input_.name == "input_ids":
            made[input_.name] = _ids(draw, tokens, shape)
        elif input_.name == "token_type_ids":
            made[input_.name] = draw.integers(0, tokens.types, shape)
        elif input_.name == "attention_mask":
            made[input_.name] = _mask(shape, tokens.padding_side)
        elif input_.name == "pixel_mask":
            made[input_.name] = np.ones(shape, dtype=np.int64)
        else:
            made[input_.name] = draw.standard_normal(shape, dtype=np.float32)
    return made


def reference(model: Any, examples: Sequence[Mapping[str, np.ndarray[Any, Any]]]) -> tuple[Probe, ...]:
    """The examples with the model's own outputs: every tensor among the fields of its output, in their order.

    Raises:
        ArtifactError: the model cannot run on an example, or gives outputs that are not finite for real tokens.
    """
    ran: list[tuple[Mapping[str, np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]] = []
    for inputs in examples:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        try:
            with torch.inference_mode():
                fields = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}, return_dict=True)
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            raise ArtifactError(f"{type(model).__name__} fails in PyTorch itself, at {shapes}: {error}") from error
        ran.append((inputs, {name: value.numpy() for name, value in fields.items() if isinstance(value, torch.Tensor)}))
    per_token = frozenset(
        name
        for name in ran[0][1]
        if all(
            "input_ids" in inputs and outputs[name].ndim > 1 and outputs[name].shape[1] == inputs["input_ids"].shape[1]
            for inputs, outputs in ran
        )
    )
    probes = tuple(Probe(inputs, outputs, _real_positions(inputs), per_token) for inputs, outputs in ran)
    for probe in probes:
        for name, array in probe.outputs.items():
            real = array[probe.real] if name in per_token and probe.real is not None else array
            if not np.isfinite(real).all():
                raise ArtifactError(
                    f"{type(model).__name__} gives {name} that is not finite, in PyTorch itself, at {probe.shapes}"
                )
    return probes


def _setting(config: Any, name: str, default: Any) -> Any:
    """A value of the configuration, or of its text or vision part; the default where it stands nowhere or is None."""
    for part in (config, getattr(config, "text_config", None), getattr(config, "vision_config", None)):
        value = getattr(part, name, None)
        if value is not None:
            return value
    return default


def _ids(draw: np.random.Generator, tokens: Vocabulary, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    kept_out = {tokens.pad_id, tokens.end_id}
    allowed = np.array([id_ for id_ in range(tokens.size) if id_ not in kept_out], dtype=np.int64)
    ids = draw.choice(allowed, shape)
    mask = _mask(shape, tokens.padding_side)
    if tokens.end_id is not None:
        last = shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
        ids[np.arange(shape[0]), last] = tokens.end_id
    return np.where(mask, ids, tokens.pad_id)


def _mask(shape: tuple[int, ...], padding_side: str) -> np.ndarray[Any, Any]:
    batch, length = shape
    padded = [row * length // (batch + 1) for row in range(batch)] if batch > 1 else [length // 4]
    kept = length - np.array(padded)[:, None]
    positions = np.arange(length)[None, :]
    return (positions < kept if padding_side == "right" else positions >= length - kept).astype(np.int64)


def _real_positions(inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any] | None:
    mask = inputs.get("attention_mask")
    return None if mask is None or "input_ids" not in inputs else mask.astype(bool)


def _image_shapes(model: Any, processor: Any | None, names: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """Shapes of `pixel_values` and `pixel_mask`, as the image processor makes them of a square image."""
    from PIL import Image

    if "pixel_values" not in names:
        return {}
    size = _setting(model.config, "image_size", 224)
    height, width = (size, size) if isinstance(size, int) else tuple(size)
    channels = _setting(model.config, "num_channels", 3)
    image_processor = getattr(processor, "image_processor", processor)
    if image_processor is not None:
        image = Image.new("RGB" if channels == 3 else "L", (width, height))
        try:
            height, width = np.asarray(image_processor(images=image, return_tensors="np")["pixel_values"]).shape[-2:]
        except ValueError as error:
            raise ArtifactError(f"the image processor takes no image of {channels} channels: {error}") from error
    return {
        "pixel_values": ("batch", channels, int(height), int(width)),
        "pixel_mask": ("batch", int(height), int(width)),
    }


def _audio_shapes(processor: Any | None, names: Sequence[str]) -> dict[str, tuple[int | str, ...]]:
    """Shapes of audio inputs, as the feature extractor makes them of a second of silence: samples, or a fixed image."""
    heard = [name for name in ("input_values", "input_features") if name in names]
    extractor = getattr(processor, "feature_extractor", processor)
    if extractor is None:
        return dict.fromkeys(heard, _PER_SAMPLE)
    shapes: dict[str, tuple[int | str, ...]] = {}
    for name in heard:
        silence = np.zeros(extractor.sampling_rate, dtype=np.float32)
        made = np.asarray(extractor(silence, sampling_rate=extractor.sampling_rate, return_tensors="np")[name])
        shapes[name] = _PER_SAMPLE if made.ndim == 2 else ("batch", *(int(size) for size in made.shape[1:]))
    return shapes
