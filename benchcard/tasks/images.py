"""What the tasks on images share: the model's image processor, and the images of a data set.

Leaves the use of the pixels to each task.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchcard.errors import Mistake, SpecError
from benchcard.tasks import InputCode, Question
from benchcard.tasks.trust import trusted
from benchcard.utils.text import first_line

if TYPE_CHECKING:
    import datasets
    import transformers
    from PIL import Image

TALLIES = {
    "deep": "{deep} of {images} images {deep:has|have} more than 8 bits a channel: what is above 255 was cut to it, as "
    "transformers does"
}
"""The sentence of `Prepared.tallies` for rows whose counts are `deep` and `images`."""

_PLACE = "$.dataset.data_keys.primary"
# Modes of more than 8 bits a channel, which Pillow silently cuts to 8 bits.
# Source: https://pillow.readthedocs.io/en/stable/handbook/concepts.html#concept-modes
_DEEP_MODES = ("I", "F")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def load_image_processor(model: Path, inputs: Collection[str], kind: str) -> transformers.BaseImageProcessor:
    """Return the model's own image processor, on PIL, which does not need torchvision.

    Raises:
        SpecError: The folder has none, or it makes other inputs than these; the task needs a model of this `kind`.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(model, backend="pil", trust_remote_code=trusted())
    except (OSError, ValueError) as error:
        has_file = any((model / name).exists() for name in _PROCESSOR_FILES)
        reason = first_line(error) if has_file else "the folder has no such file"
        actual = f"`{model}`, whose image processor cannot be loaded: {reason}"
        expected = "a model with its image processor, `preprocessor_config.json`"
        hint = "save the one that it was trained with into the folder: `processor.save_pretrained(folder)`"
        raise SpecError(Mistake("$.model", actual, expected, hint)) from error
    if not set(processor.model_input_names) <= set(inputs):
        actual = f"`{model.name}`, which takes {', '.join(processor.model_input_names)}"
        raise SpecError(Mistake("$.model", actual, kind))
    return processor


def input_code(rows: datasets.Dataset, column: str, mode: str) -> InputCode | None:
    """Return the lines that make the inputs of a row; None where the column does not hold Pillow's images."""
    if not getattr(rows.features[column], "decode", False):
        return None
    batch = f'processor(images=[row[{column!r}].convert({mode!r})], return_tensors="np")'
    return InputCode("AutoImageProcessor", batch, {"backend": "pil"})


def numbered_images(
    rows: datasets.Dataset,
    question: Question,
    processor: transformers.BaseImageProcessor,
    mode: str,
    column: str,
    references: Sequence[str] = (),
) -> Iterator[tuple[int, dict[str, Any], Image.Image, dict[str, np.ndarray], dict[str, int]]]:
    """Yield the number in the split, the values, the image, the inputs without a batch axis, and the counts for
    `TALLIES` of each row.
    """
    import datasets

    rows = rows.with_format(None).select_columns(list(dict.fromkeys([column, *references])))
    try:
        rows = rows.cast_column(column, datasets.Image())
    except (TypeError, ValueError, NotImplementedError) as error:
        actual = f"the column `{column}` of {rows.features[column]}"
        raise SpecError(Mistake(_PLACE, actual, "a column of images")) from error
    for index in range(len(rows)):
        number = question.number(index)
        try:
            row = rows[index]
            image = row[column]
            if image is None:
                raise ValueError("there is none")
            made = processor(images=image.convert(mode), return_tensors="np")
        # Pillow raises any of these for a file that is no image, that is truncated, or that is damaged.
        except (OSError, ValueError, SyntaxError, EOFError, ZeroDivisionError, struct.error) as error:
            actual, hint = f"row {number} of `{column}`", f"{error}: repair it, or take the row out of the data set"
            raise SpecError(Mistake(_PLACE, actual, "an image that can be read", hint)) from error
        arrays = {name: np.asarray(values)[0] for name, values in made.items()}
        arrays["pixel_values"] = arrays["pixel_values"].astype(np.float32, copy=False)
        yield number, row, image, arrays, {"images": 1, "deep": int(image.mode.startswith(_DEEP_MODES))}
