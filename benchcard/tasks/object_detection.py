"""Object detection: an image in, boxes with labels and scores out.

Boxes are corners in pixels of the image, `(left, top, right, bottom)`, in predictions and references alike. Owns how
the boxes of a data set are read, and how outputs become boxes. Leaves mAP to `benchcard.metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.export.images import image_mode, processed_shapes
from benchcard.spec.schema import MappingOf, Number, Text, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, data, images, labels
from benchcard.tasks.config import load_config
from benchcard.tasks.outputs import output
from benchcard.utils.text import join_names

if TYPE_CHECKING:
    import datasets
    import transformers

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs

Floats = NDArray[np.float64]
FORMATS = ("coco", "pascal_voc", "yolo")
"""Boxes as x, y, width, height in pixels; as corners in pixels; as centre, width and height in shares of the image."""

# How the image processors of transformers make scores of logits, and how many boxes they keep: all where None, as many
# as there are queries where 0. Source: `post_process_object_detection` of each.
_POST_PROCESSING: Mapping[str, tuple[str, int | None]] = {
    "Yolos": ("softmax", None),
    "Detr": ("softmax", None),
    "ConditionalDetr": ("sigmoid", 100),
    "DeformableDetr": ("sigmoid", 100),
    "RTDetr": ("sigmoid", 0),
}
_BOXES = ("bbox", "bboxes", "boxes", "box")
_CATEGORIES = ("category", "categories", "label", "labels", "category_id", "class", "classes")
_OTHERS: Mapping[str, tuple[str, ...]] = {"areas": ("area",), "crowds": ("iscrowd", "is_crowd")}
_PLACE = "$.dataset.ref_keys"
_FORMAT = "task_args: {box_format: %s}"
# A box that is larger than its image by this share is no box of it; one that reaches over the edge by more than a pixel
# and this share is counted. Where this share of all boxes does, another format is looked for.
_LARGER, _BEYOND, _MANY = 1.1, 0.01, 0.2

_USAGE = Usage(
    inputs=(("image",), ("img",), ("pixel_values",)),
    input_kind="image",
    references=("objects", "annotations", "targets"),
    reference_kinds=("objects",),
    metrics=("map",),
    metric_names={"mean_average_precision": "map", "mAP": "map"},
    datasets=("detection-datasets/coco", "rishitdagli/cppe-5"),
)


class ObjectDetection:
    """The task `object-detection`."""

    metrics: tuple[str, ...] = ("map",)
    has_length = False
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 3, "pred_boxes": 3},)
    adds_class = True
    libraries = ("pycocotools",)
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {"label_mapping": MappingOf(open=True), "box_format": Text(lambda: FORMATS), "threshold": Number(0, 1)}
    )

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Return rows as `pixel_values` `(channels, height, width) float32`, and references as boxes, the model's ids,
        areas, and whether they are crowds, which are not counted.
        """
        column, config = data.primary(rows, question, "image"), load_config(question.model)
        processor = _processor(question.model)
        mode, takes_mask = image_mode(processor, config), _takes_mask(config)
        activation, most = _post_processing(processor, question.model)
        names = labels.model_names(config)
        context = {
            "labels": names,
            "image_mode": mode,
            "scores": activation,
            "most": most,
            "threshold": question.arguments.get("threshold", 0.0),
        }
        objects: _Objects | None = None
        notes: tuple[str, ...] = ()
        if question.labelled:
            objects = _Objects.of(rows, question)
            declared, values = objects.distinct_labels(rows)
            alignment = labels.align(config.id2label, declared, values, labels.label_mapping(question))
            objects.alignment, notes = alignment, alignment.notes

        def prepared() -> Iterator[Row]:
            references = objects.columns if objects else ()
            found = images.numbered_images(rows, question, processor, mode, column, references)
            for number, row, image, arrays, counts in found:
                item = _item(arrays, takes_mask)
                size = [image.height, image.width]
                if objects is None:
                    yield Row([item], None, size, counts)
                else:
                    reference, of_boxes = objects.read(row, number, size)
                    yield Row([item], reference, size, {**counts, **of_boxes})
            if objects is not None:
                objects.expect_format()

        return Prepared(
            prepared(),
            context,
            notes=notes,
            tallies={
                **images.TALLIES,
                "beyond": "{beyond} of {boxes} boxes {beyond:reaches|reach} over the edge of the image",
                "empty": "{empty} of {boxes} boxes {empty:has|have} no area: no prediction can match them",
            },
            metric_defaults={"labels": names},
            code=images.input_code(rows, column, mode),
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `logits` `(queries, classes) float32` and `boxes` `(queries, 4) float32`: centre, width and height in
        shares of the image.
        """
        logits, boxes = output(outputs, "logits"), output(outputs, "pred_boxes")
        names: Any = context["labels"]
        # A softmax has a class more, for no object.
        needed = len(names) + (context["scores"] == "softmax")
        if logits.shape[-1] != needed:
            has = f"The model gives {logits.shape[-1]} scores for each box"
            raise ArtifactError(f"{has}, and needs {needed} for the {len(names)} labels of config.json (`id2label`).")
        return {"logits": list(logits), "boxes": list(boxes)}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> dict[str, list[object]]:
        """Return boxes with `scores` and `labels`, as `post_process_object_detection` of the image processor."""
        size, most, threshold = memo, context["most"], context["threshold"]
        return post_process(items[0]["logits"], items[0]["boxes"], size, str(context["scores"]), most, threshold)  # type: ignore[arg-type]

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by what they detect."""
        return ComparedOutput("detections")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return normal noise as `pixel_values` `(batch, channels, height, width) float32`, at the size that the
        model's processor makes of an image of the model's own size, and its width.
        """
        config = load_config(model)
        shape, _ = processed_shapes(_processor(model), config)
        noise = np.random.default_rng(seed).standard_normal((batch_size, *shape), dtype=np.float32)
        mask = {"pixel_mask": np.ones((batch_size, *shape[1:]), np.int64)} if _takes_mask(config) else {}
        return {"pixel_values": noise, **mask}, int(shape[-1])


def post_process(
    logits: NDArray[np.float32],
    boxes: NDArray[np.float32],
    size: Sequence[int],
    activation: str,
    most: int | None,
    threshold: float,
) -> dict[str, list[object]]:
    """Return what one image shows: `boxes` as corners in pixels, `scores` above the threshold, and `labels` as ids.

    Args:
        logits: `(queries, classes) float32`; of a softmax the last class is none.
        boxes: `(queries, 4) float32`, centre x, centre y, width and height in shares of the image.
        size: Height and width of the image.
        activation: `softmax`: one box for each query with its likeliest label; `sigmoid`: the likeliest pairs of a
            query and a label.
        most: The most such pairs; 0 for as many as queries.
        threshold: Boxes of higher scores are kept.
    """
    classes = logits.shape[-1]
    if activation == "softmax":
        exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = (exponents / exponents.sum(axis=-1, keepdims=True))[:, :-1]
        scores, ids, queries = probabilities.max(axis=-1), probabilities.argmax(axis=-1), np.arange(len(logits))
    else:
        probabilities = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32).ravel()
        order = np.argsort(-probabilities, kind="stable")[: most or len(logits)]
        scores, ids, queries = probabilities[order], order % classes, order // classes
    chosen = scores > threshold
    corners = _corners(boxes[queries[chosen]].astype(np.float64), "yolo", size)
    return {
        "boxes": corners.astype(np.float32).tolist(),
        "scores": scores[chosen].tolist(),
        "labels": ids[chosen].tolist(),
    }


def _corners(boxes: Floats, form: str, size: Sequence[int]) -> Floats:
    """Return boxes `(boxes, 4)` of a format as corners in pixels, for an image of this height and width."""
    first, second = boxes[:, :2], boxes[:, 2:]
    scale = np.array([size[1], size[0]], dtype=np.float64)
    if form == "yolo":
        first, second = (first - second / 2) * scale, (first + second / 2) * scale
    elif form == "coco":
        second = first + second
    return np.concatenate([first, second], axis=1)


@dataclass
class _Objects:
    """The references in a data set: where they are, and what was seen of them.

    Attributes:
        boxes, categories: Column and field of the boxes and their labels; the field is empty for a column of its own.
        others: The fields of areas and crowds, as far as there are any.
        fitting: The other formats in which all boxes so far lie in their images.
        total, beyond: The number of boxes, and of those that reach over the edge of their image.
        largest: The largest number in a box.
    """

    boxes: tuple[str, str]
    categories: tuple[str, str]
    others: Mapping[str, tuple[str, str]]
    form: str
    alignment: labels.Alignment = field(default_factory=lambda: labels.Alignment({}, ()))
    fitting: set[str] = field(default_factory=set)
    total: int = 0
    beyond: int = 0
    largest: float = 0.0

    @classmethod
    def of(cls, rows: datasets.Dataset, question: Question) -> _Objects:
        """Return where the references are: in a column of objects, or in two that `ref_keys` name."""
        form = str(question.arguments.get("box_format", FORMATS[0]))
        keys = list(question.ref_keys) or ["objects"]
        if len(keys) == 1:
            column = data.column(rows, keys[0], f"{_PLACE}[0]")
            fields = _fields(rows.features[column])
            found = [next((name for name in known if name in fields), None) for known in (_BOXES, _CATEGORIES)]
            if None in found:
                actual = f"the column `{column}` " + (f"with {join_names(fields)}" if fields else "without fields")
                expected = "objects with boxes (`bbox`) and labels (`category`)"
                hint = f"name both: ref_keys: [{column}.boxes, {column}.labels], or two columns"
                raise SpecError(Mistake(f"{_PLACE}[0]", actual, expected, hint))
            keys = [f"{column}.{name}" for name in found]
        if len(keys) > 2:
            actual, expected = f"{len(keys)} columns", "one column of objects, or one of boxes and one of labels"
            raise SpecError(Mistake(_PLACE, actual, expected))
        boxes, categories = (_split(rows, key, f"{_PLACE}[{index}]") for index, key in enumerate(keys))
        fields = _fields(rows.features[boxes[0]]) if boxes[1] else {}
        others = {
            name: (boxes[0], own)
            for name, known in _OTHERS.items()
            # Only boxes in pixels have areas in pixels.
            if name != "areas" or form != "yolo"
            for own in known
            if own in fields
        }
        return cls(boxes, categories, others, form, fitting={*FORMATS})

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to read."""
        return self.boxes[0], self.categories[0]

    def distinct_labels(self, rows: datasets.Dataset) -> tuple[Sequence[str] | None, Sequence[labels.Label]]:
        """Return the names that the data set declares, or None, and the distinct labels in it."""
        column, name = self.categories
        feature = rows.features[column]
        feature = _fields(feature)[name] if name else feature
        values = (_value(row, self.categories) or [] for row in data.iter_rows(rows, [column]))
        return labels.distinct_labels(values, feature, ".".join(filter(None, self.categories)))

    def read(
        self, row: Mapping[str, object], number: int, size: Sequence[int]
    ) -> tuple[dict[str, object], dict[str, int]]:
        """Return the reference of a row, and the counts of its boxes."""
        values, names = _value(row, self.boxes), _value(row, self.categories)
        where = f"row {number} of `{'.'.join(filter(None, self.boxes))}`"
        try:
            boxes = np.asarray(values or [], dtype=np.float64).reshape(len(names or ()), 4)
        except (TypeError, ValueError) as error:
            expected = f"a box of four numbers for each of its {len(names or ())} labels"
            raise SpecError(Mistake(f"{_PLACE}[0]", where, expected, "correct the row")) from error
        corners = _corners(boxes, self.form, size)
        self._expect_boxes(boxes, corners, size, where)
        edges = np.array([size[1], size[0]] * 2)
        slack = 1 + _BEYOND * edges
        over = ((corners < -slack) | (corners > edges + slack)).any(axis=1)
        extents = corners[:, 2:] - corners[:, :2]
        empty = (extents <= 0).any(axis=1)
        self.total, self.beyond = self.total + len(boxes), self.beyond + int(over.sum())
        self.largest = max(self.largest, float(boxes.max(initial=0.0)))
        self.fitting = {form for form in self.fitting if _fit(boxes, form, size)}
        areas, crowds = (_value(row, self.others[name]) if name in self.others else None for name in _OTHERS)
        reference = {
            "boxes": corners.tolist(),
            "labels": [self.alignment.id(name, number) for name in names or ()],
            "areas": extents.prod(axis=1).tolist() if areas is None else [float(area) for area in areas],
            "crowds": [0] * len(boxes) if crowds is None else [int(bool(crowd)) for crowd in crowds],
        }
        return reference, {"boxes": len(boxes), "beyond": int(over.sum()), "empty": int(empty.sum())}

    def _expect_boxes(self, boxes: Floats, corners: Floats, size: Sequence[int], where: str) -> None:
        """Raise where a box cannot be one of the image in this format."""
        extents, edges = corners[:, 2:] - corners[:, :2], np.array([size[1], size[0]])
        problems = {
            "is not finite": ~np.isfinite(boxes).all(axis=1),
            "has a negative width or height": (extents < 0).any(axis=1),
            "is larger than the image": (extents > _LARGER * edges + 1).any(axis=1),
            "lies outside the image": (corners[:, :2] > edges + 1).any(axis=1) | (corners[:, 2:] < -1).any(axis=1),
        }
        for problem, of_boxes in problems.items():
            if of_boxes.any():
                box = [round(float(number), 3) for number in boxes[int(np.flatnonzero(of_boxes)[0])]]
                actual = f"the box {box} in {where}, which {problem} of {size[1]} x {size[0]} pixels"
                fitting = [form for form in FORMATS if form != self.form and _fit(boxes, form, size)]
                hint = f"if it has another format, say so: {_FORMAT % ' or '.join(fitting)}" if fitting else ""
                hint = hint or "correct it, or take the row out of the data set"
                raise SpecError(Mistake(f"{_PLACE}[0]", actual, f"boxes of the format `{self.form}`", hint))

    def expect_format(self) -> None:
        """Raise where the boxes of all rows together look like another format."""
        place = "$.task_args.box_format"
        expected = f"boxes in pixels, as `{self.form}` has them"
        if self.form != "yolo" and self.total and self.largest <= 1:
            actual, hint = f"no number above 1 in {self.total} boxes", f"shares of the image are {_FORMAT % 'yolo'}"
            raise SpecError(Mistake(place, actual, expected, hint))
        others = [form for form in FORMATS if form in self.fitting - {self.form}]
        if self.beyond > _MANY * self.total and others:
            actual = f"{self.beyond} of {self.total} boxes, which reach over the edge of the image"
            hint = f"all of them lie inside with {_FORMAT % ' or '.join(others)}"
            raise SpecError(Mistake(place, actual, f"boxes of the format `{self.form}`", hint))


def _fit(boxes: Floats, form: str, size: Sequence[int]) -> bool:
    """Return whether all boxes of a format lie in their image."""
    corners, edges = _corners(boxes, form, size), np.array([size[1], size[0]] * 2)
    return bool((corners[:, 2:] >= corners[:, :2]).all() and (corners >= -1).all() and (corners <= edges + 1).all())


def _fields(feature: object) -> Mapping[str, object]:
    """Return the features of the fields of a column: a mapping of lists, or a list of mappings; else none."""
    inner = feature if isinstance(feature, Mapping) else getattr(feature, "feature", None)
    return inner if isinstance(inner, Mapping) else {}


def _split(rows: datasets.Dataset, key: str, place: str) -> tuple[str, str]:
    """Return the column and the field of `column.field`; the field is empty for a column alone."""
    if key in rows.column_names or "." not in key:
        return data.column(rows, key, place), ""
    column, _, name = key.partition(".")
    fields = _fields(rows.features[data.column(rows, column, place)])
    if name not in fields:
        raise SpecError(Mistake(place, f"no field `{name}` in `{column}`", join_names(fields)))
    return column, name


def _value(row: Mapping[str, object], place: tuple[str, str]) -> Any:
    """Return the values of a field of a row's objects, or of a column."""
    column, name = place
    value = row[column]
    if not name or value is None:
        return value
    return value[name] if isinstance(value, Mapping) else [entry[name] for entry in value]  # type: ignore[attr-defined]


def _processor(model: Path) -> transformers.BaseImageProcessor:
    kind = "an object detector that takes pixel_values, with or without a pixel_mask"
    return images.load_image_processor(model, ("pixel_values", "pixel_mask"), kind)


def _post_processing(processor: transformers.BaseImageProcessor, model: Path) -> tuple[str, int | None]:
    name = type(processor).__name__
    kind = name.removesuffix("Pil").removesuffix("Fast").removesuffix("ImageProcessor")
    if kind not in _POST_PROCESSING:
        known = join_names([f"{kind}ImageProcessor" for kind in _POST_PROCESSING])
        hint = "it decides whether scores are those of a softmax, which the outputs do not show"
        raise SpecError(Mistake("$.model", f"`{model.name}` with the processor {name}", known, hint))
    return _POST_PROCESSING[kind]


def _takes_mask(config: transformers.PretrainedConfig) -> bool:
    """Return whether a model reads which pixels are no padding."""
    import inspect

    from transformers import AutoModelForObjectDetection

    model = AutoModelForObjectDetection._model_mapping.get(type(config), None)
    return model is not None and "pixel_mask" in inspect.signature(model.forward).parameters


def _item(arrays: Arrays, takes_mask: bool) -> dict[str, np.ndarray]:
    """Return the inputs of an image, whose mask is all ones where the processor makes none: it is not padded."""
    pixels = arrays["pixel_values"]
    if not takes_mask:
        return {"pixel_values": pixels}
    mask = arrays.get("pixel_mask")
    return {"pixel_values": pixels, "pixel_mask": np.ones(pixels.shape[1:], np.int64) if mask is None else mask}
