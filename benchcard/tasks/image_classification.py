"""Image classification: an image in, one of the model's labels out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.kinds import Kind, MappingOf
from benchcard.tasks import Prepared, Question, Row, data, labels
from benchcard.tasks.rows import output

if TYPE_CHECKING:
    import datasets


class ImageClassification:
    """The task `image-classification`."""

    metrics: tuple[str, ...] = ("accuracy",)
    has_length = False
    arguments: Mapping[str, Kind] = MappingProxyType({"label_mapping": MappingOf(open=True)})

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Rows as `pixel_values` `(channels, height, width) float32`, by the model's own image processor; a reference
        is a label's id in the model.
        """
        from transformers import AutoConfig

        key = data.primary(rows, question, "image")
        if not question.labelled:
            return Prepared(_rows(rows, question, key, None, None))
        reference = data.reference(rows, question, "label")
        config = AutoConfig.from_pretrained(question.model)
        alignment = labels.align(
            config.id2label, *labels.of_column(rows, reference), question.arguments.get("label_mapping")
        )
        return Prepared(
            _rows(rows, question, key, reference, alignment), {"labels": list(alignment.names)}, notes=alignment.notes
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
    """The model's own image processor, over PIL: there is no need of torchvision."""
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(model, backend="pil")
    except OSError as error:
        hint = "save the model's image processor beside it: preprocessor_config.json"
        raise SpecError(
            Mistake("$.model", f"`{model.name}`, without an image processor", "one that has one", hint)
        ) from error


def _rows(
    rows: datasets.Dataset, question: Question, key: str, reference: str | None, alignment: labels.Alignment | None
) -> Iterator[Row]:
    import datasets

    processor = image_processor(question.model)
    if not isinstance(rows.features[key], datasets.Image):
        rows = rows.cast_column(key, datasets.Image())
    for index in range(len(rows)):
        number = question.number(index)
        try:
            row = rows[index]
            image = row[key].convert("RGB")
            pixels = processor(images=image, return_tensors="np")["pixel_values"][0].astype(np.float32, copy=False)
        except (OSError, ValueError, AttributeError) as error:
            raise SpecError(
                Mistake(
                    "$.dataset.data_keys.primary", f"row {number} of `{key}`", "an image that can be read", str(error)
                )
            ) from error
        right = alignment.id(row[reference], number) if alignment is not None and reference is not None else None
        yield Row([{"pixel_values": pixels}], right)
