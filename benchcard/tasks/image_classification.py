"""Image classification: an image in, one of the model's labels out."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from benchcard.errors import Mistake, SpecError
from benchcard.export.images import image_mode, processed_shapes
from benchcard.spec.schema import MappingOf, ValueType
from benchcard.tasks import ComparedOutput, InputCode, Prepared, Question, Row, Usage, data, labels
from benchcard.tasks.config import load_config
from benchcard.tasks.outputs import output
from benchcard.tasks.trust import trusted
from benchcard.utils.text import first_line

if TYPE_CHECKING:
    import datasets
    import transformers

    from benchcard.tasks.labels import Alignment
    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs


# Modes of more than 8 bits a channel, which Pillow silently cuts to 8 bits.
# Source: https://pillow.readthedocs.io/en/stable/handbook/concepts.html#concept-modes
_DEEP_MODES = ("I", "F")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_TALLIES = {
    "deep": "{deep} of {images} images {deep:has|have} more than 8 bits a channel: what is above 255 was cut to it, as "
    "transformers does"
}


_USAGE = Usage(
    inputs=(("image",), ("img",), ("pixel_values",)),
    input_kind="image",
    references=("label", "labels", "fine_label"),
    reference_kinds=("label", "integer", "text"),
    metrics=labels.METRICS,
    datasets=("AI-Lab-Makerere/beans", "uoft-cs/cifar10", "ethz/food101"),
)


class ImageClassification:
    """The task `image-classification`."""

    metrics: tuple[str, ...] = ("accuracy",)
    has_length = False
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 2},)
    arguments: Mapping[str, ValueType] = MappingProxyType({"label_mapping": MappingOf(open=True)})

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Return rows as `pixel_values` `(channels, height, width) float32`, and references as the model's ids."""
        image, config = data.primary(rows, question, "image"), load_config(question.model)
        processor = image_processor(question.model)
        mode = image_mode(processor, config)
        prepare = partial(_rows, rows, question, processor, mode, image)
        if not question.labelled:
            # Without Pillow's images in the column, more is needed than a line.
            is_image = getattr(rows.features[image], "decode", False)
            return Prepared(prepare(), tallies=_TALLIES, code=_code(image, mode) if is_image else None)
        reference = data.reference(rows, question, "label")
        alignment = labels.align_column(rows, reference, config, question)
        return Prepared(
            prepare(reference, alignment),
            {"labels": list(alignment.names), "image_mode": mode, **alignment.context},
            notes=alignment.notes,
            tallies=_TALLIES,
            metric_defaults={"pos_label": alignment.positive},
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `scores` `(labels,) float32`, the logits."""
        return {"scores": list(output(outputs, "logits"))}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> int:
        """Return the id of the most likely label."""
        return int(items[0]["scores"].argmax())

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their logits."""
        return ComparedOutput("label", "scores")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return normal noise as `pixel_values` `(batch, channels, height, width) float32`, at the size that the
        model's processor makes of an image of the model's own size, and its width.
        """
        shape, _ = processed_shapes(image_processor(model), load_config(model))
        noise = np.random.default_rng(seed).standard_normal((batch_size, *shape), dtype=np.float32)
        return {"pixel_values": noise}, int(shape[-1])


def image_processor(model: Path) -> transformers.BaseImageProcessor:
    """Return the model's own image processor, on PIL, which does not need torchvision."""
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
    if processor.model_input_names != ["pixel_values"]:
        actual = f"`{model.name}`, which takes {', '.join(processor.model_input_names)}"
        raise SpecError(Mistake("$.model", actual, "an image classifier that takes pixel_values alone"))
    return processor


def _code(column: str, mode: str) -> InputCode:
    batch = f'processor(images=[row[{column!r}].convert({mode!r})], return_tensors="np")'
    return InputCode("AutoImageProcessor", batch, {"backend": "pil"})


def _rows(
    rows: datasets.Dataset,
    question: Question,
    processor: transformers.BaseImageProcessor,
    mode: str,
    column: str,
    reference: str = "",
    alignment: Alignment | None = None,
) -> Iterator[Row]:
    import datasets

    columns = [column] if reference in ("", column) else [column, reference]
    rows = rows.with_format(None).select_columns(columns)
    try:
        rows = rows.cast_column(column, datasets.Image())
    except (TypeError, ValueError, NotImplementedError) as error:
        actual = f"the column `{column}` of {rows.features[column]}"
        raise SpecError(Mistake("$.dataset.data_keys.primary", actual, "a column of images")) from error
    for index in range(len(rows)):
        number = question.number(index)
        try:
            row = rows[index]
            image = row[column]
            if image is None:
                raise ValueError("there is none")
            pixels = processor(images=image.convert(mode), return_tensors="np")["pixel_values"][0]
        # Pillow raises any of these for a file that is no image, that is truncated, or that is damaged.
        except (OSError, ValueError, SyntaxError, EOFError, ZeroDivisionError, struct.error) as error:
            actual, hint = f"row {number} of `{column}`", f"{error}: repair it, or take the row out of the data set"
            place, expected = "$.dataset.data_keys.primary", "an image that can be read"
            raise SpecError(Mistake(place, actual, expected, hint)) from error
        label = alignment.id(row[reference], number) if alignment is not None else None
        counts = {"images": 1, "deep": int(image.mode.startswith(_DEEP_MODES))}
        yield Row([{"pixel_values": pixels.astype(np.float32, copy=False)}], label, counts=counts)
