"""Image classification: an image in, one of the model's labels out."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.spec.schema import MappingOf, ValueType
from benchcard.tasks import Prepared, Question, Row, data, labels
from benchcard.tasks.outputs import output
from benchcard.tasks.trust import trusted

if TYPE_CHECKING:
    import datasets


# What Pillow cuts to 8 bits without a word.
# Source: https://pillow.readthedocs.io/en/stable/handbook/concepts.html#concept-modes
_DEEP_MODES = ("I", "F")
_TALLIES = {
    "deep": "{deep} of {images} images {deep:has|have} more than 8 bits a channel: what is above 255 was cut to it, as "
    "transformers does"
}


class ImageClassification:
    """The task `image-classification`."""

    metrics: tuple[str, ...] = ("accuracy",)
    has_length = False
    arguments: Mapping[str, ValueType] = MappingProxyType({"label_mapping": MappingOf(open=True)})

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Rows as `pixel_values` `(channels, height, width) float32`, by the model's own image processor; a reference
        is a label's id in the model.
        """
        from transformers import AutoConfig

        key = data.primary(rows, question, "image")
        if not question.labelled:
            return Prepared(_rows(rows, question, key, None, None), tallies=_TALLIES)
        reference = data.reference(rows, question, "label")
        config = AutoConfig.from_pretrained(question.model, trust_remote_code=trusted())
        alignment = labels.align(
            config.id2label, *labels.of_column(rows, reference), question.arguments.get("label_mapping")
        )
        return Prepared(
            _rows(rows, question, key, reference, alignment),
            {"labels": list(alignment.names), **alignment.context},
            notes=alignment.notes,
            tallies=_TALLIES,
            metric_defaults={"pos_label": alignment.positive},
        )

    def kept(
        self, outputs: Mapping[str, NDArray[Any]], inputs: Mapping[str, NDArray[Any]], context: Mapping[str, Any]
    ) -> Mapping[str, Sequence[NDArray[Any]]]:
        """`scores` `(labels,) float32`, the logits."""
        return {"scores": list(output(outputs, "logits"))}

    def prediction(self, items: Sequence[Mapping[str, NDArray[Any]]], memo: Any, context: Mapping[str, Any]) -> int:
        """The id of the most likely label."""
        return int(items[0]["scores"].argmax())

    def inputs(
        self, model: Path, batch_size: int, input_length: int | None, seed: int
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """Normal noise as `pixel_values` `(batch, channels, height, width) float32`, at the size that the model's
        processor gives.
        """
        from PIL import Image

        blank = Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8))
        try:
            shape = image_processor(model)(images=blank, return_tensors="np")["pixel_values"].shape[1:]
        except (KeyError, ValueError) as error:
            raise ArtifactError(f"the image processor of {model} cannot make inputs: {error}") from error
        noise = np.random.default_rng(seed).standard_normal((batch_size, *shape), dtype=np.float32)
        return {"pixel_values": noise}, int(shape[-1])


def image_processor(model: Path) -> Any:
    """Return the model's own image processor, over PIL: there is no need of torchvision.

    Raises:
        SpecError: The model has none, or one that makes anything but `pixel_values` of an image.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(model, backend="pil", trust_remote_code=trusted())
    except OSError as error:
        hint = "save the model's image processor beside it: preprocessor_config.json"
        raise SpecError(
            Mistake("$.model", f"`{model.name}`, without an image processor", "one that has one", hint)
        ) from error
    if processor.model_input_names != ["pixel_values"]:
        found = f"`{model.name}`, which is fed with {', '.join(processor.model_input_names)}"
        raise SpecError(Mistake("$.model", found, "an image classifier that is fed with pixel_values alone"))
    return processor


def _rows(
    rows: datasets.Dataset, question: Question, key: str, reference: str | None, alignment: labels.Alignment | None
) -> Iterator[Row]:
    import datasets

    processor = image_processor(question.model)
    rows = rows.with_format(None).select_columns(list(dict.fromkeys([key, *([reference] if reference else [])])))
    try:
        rows = rows.cast_column(key, datasets.Image())
    except (TypeError, ValueError, NotImplementedError) as error:
        found = f"the column `{key}` of {rows.features[key]}"
        raise SpecError(Mistake("$.dataset.data_keys.primary", found, "a column of images")) from error
    for index in range(len(rows)):
        number = question.number(index)
        row, image = _decoded(rows, index, key, number)
        try:
            pixels = processor(images=image.convert("RGB"), return_tensors="np")["pixel_values"][0]
        except (OSError, ValueError, SyntaxError, ZeroDivisionError) as error:
            raise _unreadable(key, number, str(error)) from error
        right = alignment.id(row[reference], number) if alignment is not None and reference is not None else None
        counts = {"images": 1, "deep": int(image.mode.startswith(_DEEP_MODES))}
        yield Row([{"pixel_values": pixels.astype(np.float32, copy=False)}], right, counts=counts)


def _decoded(rows: datasets.Dataset, index: int, key: str, number: int) -> tuple[Mapping[str, Any], Any]:
    """A row, and its image.

    Raises:
        SpecError: There is no image, or one that is broken.
    """
    try:
        row = rows[index]
    # Pillow says in all these ways that a file is no image, ends too early, or is broken inside.
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:
        raise _unreadable(key, number, str(error)) from error
    if row[key] is None:
        raise _unreadable(key, number, "there is none")
    return row, row[key]


def _unreadable(key: str, number: int, said: str) -> SpecError:
    return SpecError(
        Mistake(
            "$.dataset.data_keys.primary",
            f"row {number} of `{key}`",
            "an image that can be read",
            f"{said}: mend it, or take the row out of the data set",
        )
    )
