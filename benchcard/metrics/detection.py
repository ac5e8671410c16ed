"""The mean average precision of detected boxes, as COCO counts it, over pycocotools.

pycocotools matches boxes and objects, and computes the figures. For intervals, the figures of a choice of images are
computed from the same matches.

Source: T.-Y. Lin et al., Microsoft COCO (ECCV 2014); https://cocodataset.org/#detection-eval
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from benchcard.errors import Mistake, SpecError
from benchcard.metrics.examples import Computed, Indices
from benchcard.metrics.offline import Offline

_NUMBER, _ID = datasets.Value("float64"), datasets.Value("int64")
_BOXES = datasets.List(datasets.List(_NUMBER))
_DETECTIONS: dict[str, object] = {
    "predictions": {"boxes": _BOXES, "scores": datasets.List(_NUMBER), "labels": datasets.List(_ID)},
    "references": {
        "boxes": _BOXES,
        "labels": datasets.List(_ID),
        "areas": datasets.List(_NUMBER),
        "crowds": datasets.List(_ID),
    },
}
# The figures by the places of area and of IoU thresholds (0.50, 0.55, …, 0.95) in pycocotools' parameters.
_EVERY = slice(None)
_FIGURES = {
    "map": (0, _EVERY),
    "map_50": (0, slice(0, 1)),
    "map_75": (0, slice(5, 6)),
    "map_small": (1, _EVERY),
    "map_medium": (2, _EVERY),
    "map_large": (3, _EVERY),
}

Boxes = Sequence[Mapping[str, Any]]
"""Of each image: `boxes` as corners in pixels and `labels`, with `scores`, or with `areas` and `crowds`."""


class MeanAveragePrecision(Offline):
    """The mean average precision over labels and IoU thresholds, also at 0.50 and 0.75, and of small objects (up to
    32 x 32 pixels), medium and large ones (above 96 x 96), where there are any.

    With `class_metrics`, also that of each label, by its name in `labels`.
    """

    takes = (_DETECTIONS,)

    @staticmethod
    def import_packages() -> None:
        """Import pycocotools, or raise a `SpecError` that says how to install it."""
        try:
            import pycocotools.cocoeval  # noqa: F401
        except ImportError as error:
            hint = "install it: pip install 'benchcard[detection]'"
            raise SpecError(Mistake("$.metrics", "`map`, without pycocotools", "pycocotools", hint)) from error

    def _compute(
        self,
        predictions: Boxes,
        references: Boxes,
        labels: Sequence[str] | None = None,
        class_metrics: bool = False,
    ) -> dict[str, float]:
        evaluation = _evaluate(predictions, references)
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        # (thresholds, recalls, labels, areas); -1 for a label without objects of the area.
        precision = evaluation.eval["precision"][..., -1]

        def mean(area: int, thresholds: slice, of: slice = _EVERY) -> float:
            values = precision[thresholds, :, of, area]
            values = values[values > -1]
            return float(values.mean()) if values.size else math.nan

        figures = {name: mean(*place) for name, place in _FIGURES.items()}
        if class_metrics:
            for index, label in enumerate(evaluation.params.catIds):
                name = labels[label] if labels else label
                figures[f"map_of_{name}"] = mean(0, _EVERY, slice(index, index + 1))
        return {name: value for name, value in figures.items() if name == "map" or not math.isnan(value)}

    def examples(
        self,
        predictions: Boxes,
        references: Boxes,
        labels: Sequence[str] | None = None,
        class_metrics: bool = False,
    ) -> dict[str, Computed]:
        """Return the figures of the chosen images, from one matching of all."""
        evaluation = _evaluate(predictions, references)
        every, ids = np.arange(len(references)), evaluation.params.catIds
        places = {name: (*place, range(len(ids))) for name, place in _FIGURES.items()}
        if class_metrics:
            for index, label in enumerate(ids):
                places[f"map_of_{labels[label] if labels else label}"] = (0, _EVERY, range(index, index + 1))
        figures = {name: _Matches.of(evaluation, *place) for name, place in places.items()}
        return {
            name: Computed(matches.score, len(references))
            for name, matches in figures.items()
            if name == "map" or not math.isnan(matches.score(every))
        }


def _evaluate(predictions: Boxes, references: Boxes) -> Any:
    """Return a `COCOeval` that has matched the boxes of each image with its objects."""
    MeanAveragePrecision.import_packages()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels = sorted({label for reference in references for label in reference["labels"]})
    sides = []
    for rows in (references, predictions):
        annotations: list[dict[str, object]] = []
        for image, row in enumerate(rows):
            for index, (box, label) in enumerate(zip(row["boxes"], row["labels"], strict=True)):
                left, top, right, bottom = box
                width, height = right - left, bottom - top
                annotations.append(
                    {
                        "id": len(annotations) + 1,  # pycocotools takes 0 for no match
                        "image_id": image,
                        "category_id": label,
                        "bbox": [left, top, width, height],
                        "area": row["areas"][index] if "areas" in row else width * height,
                        "iscrowd": row["crowds"][index] if "crowds" in row else 0,
                        **({"score": row["scores"][index]} if "scores" in row else {}),
                    }
                )
        side = COCO()
        images, categories = [{"id": image} for image in range(len(rows))], [{"id": label} for label in labels]
        side.dataset = {"images": images, "categories": categories, "annotations": annotations}
        sides.append(side)
    with contextlib.redirect_stdout(io.StringIO()):
        for side in sides:
            side.createIndex()
        evaluation = COCOeval(*sides, iouType="bbox")
        evaluation.evaluate()
    return evaluation


@dataclass(frozen=True)
class _Matches:
    """The boxes of all images in the order of their scores, in segments of one label and one IoU threshold.

    Segments of one label that count the same boxes share these.

    Attributes:
        objects: `(images, labels)`, the number of objects.
        counted: `(boxes,)`, the image of each box that counts.
        images, places: `(hits,)`, the image of each box that matches an object, and its place in `counted`.
        starts: `(hits,)`, the place where the boxes of its segment start.
        segments: `(hits,)`, the number of its segment, ascending.
        recalls: The recalls at which the precision counts.
    """

    objects: NDArray[np.float64]
    counted: NDArray[np.intp]
    images: NDArray[np.intp]
    places: NDArray[np.intp]
    starts: NDArray[np.intp]
    segments: NDArray[np.intp]
    thresholds: int
    recalls: NDArray[np.float64]

    @classmethod
    def of(cls, evaluation: Any, area: int, thresholds: slice, labels: range) -> _Matches:
        """Return the matches of objects in one range of areas, for some IoU thresholds and labels, by their places."""
        parameters = evaluation.params
        count, areas = len(parameters.imgIds), len(parameters.areaRng)
        objects = np.zeros((count, len(labels)))
        counted: list[NDArray[np.intp]] = []
        hits: list[NDArray[np.intp]] = [np.empty((4, 0), dtype=np.intp)]
        segment, length, number = -1, 0, len(range(*thresholds.indices(len(parameters.iouThrs))))
        for column, label in enumerate(labels):
            first = (label * areas + area) * count
            found = [(i, e) for i, e in enumerate(evaluation.evalImgs[first : first + count]) if e is not None]
            for image, of_image in found:
                objects[image, column] = np.count_nonzero(of_image["gtIgnore"] == 0)
            scores = np.concatenate([[], *(of_image["dtScores"] for _, of_image in found)])
            order = np.argsort(-scores, kind="mergesort")
            owners = np.repeat([i for i, _ in found], [len(e["dtScores"]) for _, e in found]).astype(np.intp)[order]
            none = np.empty((len(parameters.iouThrs), 0))
            matched, ignored = (
                np.concatenate([none, *(e[name] for _, e in found)], axis=1)[thresholds, order].astype(bool)
                for name in ("dtMatches", "dtIgnore")
            )
            shared: dict[bytes, int] = {}
            for is_matched, is_ignored in zip(matched, ignored):
                segment += 1
                own = owners[~is_ignored]
                if (start := shared.get(is_ignored.tobytes())) is None:
                    start = shared[is_ignored.tobytes()] = length
                    counted.append(own)
                    length += len(own)
                at = np.flatnonzero(is_matched[~is_ignored])
                hits.append(np.stack([own[at], at + start, np.full_like(at, start), np.full_like(at, segment)]))
        joined = np.concatenate(hits, axis=1)
        boxes = np.concatenate([np.empty(0, dtype=np.intp), *counted])
        images, places, starts, segments = joined
        recalls = np.asarray(parameters.recThrs)
        return cls(objects, boxes, images, places, starts, segments, number, recalls)

    def score(self, indices: Indices) -> float:
        """Return the mean average precision of the images with these indices, which may repeat; NaN without objects."""
        weights = np.bincount(indices, minlength=len(self.objects))
        objects = weights @ self.objects
        if not objects.any():
            return math.nan
        starts_segment = np.diff(self.segments, prepend=-1) > 0
        boxes = np.concatenate([[0], np.cumsum(weights[self.counted])])
        hits = np.cumsum(weights[self.images])
        before = np.concatenate([[0], hits[:-1]])[starts_segment]
        hits = hits - np.repeat(before, np.diff(np.flatnonzero(np.append(starts_segment, True))))
        precision = hits / (boxes[self.places + 1] - boxes[self.starts] + np.spacing(1))
        # The highest precision at this recall or more. Offsets keep the segments apart.
        offsets = 2.0 * (self.segments.max(initial=0) - self.segments)
        highest = np.maximum.accumulate((precision + offsets)[::-1])[::-1] - offsets
        with np.errstate(divide="ignore", invalid="ignore"):
            recall = hits / objects[self.segments // self.thresholds]
        levels = np.searchsorted(self.recalls, recall, side="right")
        reached = levels - np.where(starts_segment, 0, np.concatenate([[0], levels[:-1]]))
        sums = np.bincount(self.segments, highest * reached, minlength=len(objects) * self.thresholds)
        means = sums.reshape(len(objects), self.thresholds) / len(self.recalls)
        return float(means[objects > 0].mean())
