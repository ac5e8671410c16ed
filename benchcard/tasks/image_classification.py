"""Image classification: an image in, one of the model's labels out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from benchcard.export.images import image_mode, processed_shapes
from benchcard.spec.schema import MappingOf, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, data, images, labels
from benchcard.tasks.config import load_config
from benchcard.tasks.outputs import output

if TYPE_CHECKING:
    import datasets
    import transformers

    from benchcard.tasks.labels import Alignment
    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs


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
        processor = _processor(question.model)
        mode = image_mode(processor, config)
        prepare = partial(_rows, rows, question, processor, mode, image)
        if not question.labelled:
            return Prepared(prepare(), tallies=images.TALLIES, code=images.input_code(rows, image, mode))
        reference = data.reference(rows, question, "label")
        alignment = labels.align_column(rows, reference, config, question)
        return Prepared(
            prepare(reference, alignment),
            {"labels": list(alignment.names), "image_mode": mode, **alignment.context},
            notes=alignment.notes,
            tallies=images.TALLIES,
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
        shape, _ = processed_shapes(_processor(model), load_config(model))
        noise = np.random.default_rng(seed).standard_normal((batch_size, *shape), dtype=np.float32)
        return {"pixel_values": noise}, int(shape[-1])


def _processor(model: Path) -> transformers.BaseImageProcessor:
    return images.load_image_processor(model, ("pixel_values",), "an image classifier that takes pixel_values alone")


def _rows(
    rows: datasets.Dataset,
    question: Question,
    processor: transformers.BaseImageProcessor,
    mode: str,
    column: str,
    reference: str = "",
    alignment: Alignment | None = None,
) -> Iterator[Row]:
    references = [reference] if alignment is not None else []
    for number, row, _, arrays, counts in images.numbered_images(rows, question, processor, mode, column, references):
        label = alignment.id(row[reference], number) if alignment is not None else None
        yield Row([{"pixel_values": arrays["pixel_values"]}], label, counts=counts)
