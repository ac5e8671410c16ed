"""The images that a model takes: their mode, and the sizes that its image processor makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchcard.errors import ArtifactError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# The modes of Pillow by the number of channels.
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_DEFAULT_SIZE = 224


def image_mode(processor: Any, config: PretrainedConfig) -> str:
    """Return the mode of Pillow in which an image processor takes images.

    A processor that normalizes each channel takes as many as it has means; else the model's configuration decides.
    """
    mean = getattr(processor, "image_mean", None)
    channels = getattr(config, "num_channels", None) or 3
    if getattr(processor, "do_convert_rgb", False):
        channels = 3
    elif getattr(processor, "do_normalize", False) and isinstance(mean, (list, tuple)):
        channels = len(mean)
    if channels not in _MODES:
        expected = "1 (gray), 2 (with transparency), 3 (RGB) or 4 (RGBA)"
        advice = "set `num_channels` in config.json, or as many values of `image_mean` in preprocessor_config.json"
        raise ArtifactError(f"the model takes images of {channels} channels; expected {expected}: {advice}")
    return _MODES[channels]


def processed_shapes(processor: Any, config: PretrainedConfig) -> tuple[tuple[int, ...], bool]:
    """Return the shape `(channels, height, width)` that a processor makes of an image of the model's own size, and
    whether it makes the same of every image.

    Raises:
        ArtifactError: The processor cannot process images of the model's mode.
    """
    from PIL import Image

    mode = image_mode(processor, config)
    height, width = image_size(processor, config)
    try:
        own, wide = (
            tuple(np.asarray(processor(images=Image.new(mode, size), return_tensors="np")["pixel_values"][0]).shape)
            for size in ((width, height), (2 * width + 1, height))
        )
        if len(own) < 3:
            raise ValueError(f"it makes an array of {list(own)}, and not of channels, height and width")
    except (KeyError, ValueError) as error:
        raise ArtifactError(f"the image processor cannot process an image of the mode {mode}: {error}") from error
    return own[-3:], own == wide


def image_size(processor: Any, config: PretrainedConfig) -> tuple[int, int]:
    """Return the height and width of the images of a model: of its configuration or the vision part of it, else of its
    processor, which may be None.
    """
    parts = (config, getattr(config, "vision_config", None))
    size: Any = next(filter(None, (getattr(part, "image_size", None) for part in parts)), None)
    if size is None:
        own = dict(getattr(processor, "size", None) or {})
        size = (own.get("height") or _DEFAULT_SIZE, own.get("width") or _DEFAULT_SIZE)
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)
