"""The mean average precision of detected boxes, as COCO counts it, over pycocotools.

pycocotools matches boxes and objects, and computes the figures. For intervals, the figures of a choice of images are
computed from the same matches.

Source: T.-Y. Lin et al., Microsoft COCO (ECCV 2014); https://cocodataset.org/#detection-eval
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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

Floats = NDArray[np.float64]
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
        every, thresholds = np.arange(len(references)), len(evaluation.params.iouThrs)
        means = [_once(_Matches.of(evaluation, area).means) for area in range(len(evaluation.params.areaRng))]
        places = {name: (area, range(thresholds)[chosen]) for name, (area, chosen) in _FIGURES.items()}
        if class_metrics:
            for index, label in enumerate(evaluation.params.catIds, thresholds):
                places[f"map_of_{labels[label] if labels else label}"] = (0, range(index, index + 1))
        figures = {name: partial(_mean, means[area], chosen) for name, (area, chosen) in places.items()}
        return {
            name: Computed(score, len(references))
            for name, score in figures.items()
            if name == "map" or not math.isnan(score(every))
        }


def _once(compute: Callable[[Indices], Floats]) -> Callable[[Indices], Floats]:
    """Return the function with its results kept: all figures, and intervals and tests, are drawn from the same choices
    of images.
    """
    results: dict[bytes, Floats] = {}

    def compute_once(indices: Indices) -> Floats:
        key = hashlib.blake2b(indices.tobytes(), digest_size=16).digest()
        if key not in results:
            results[key] = compute(indices)
        return results[key]

    return compute_once


def _mean(means: Callable[[Indices], Floats], places: range, indices: Indices) -> float:
    return float(means(indices)[places.start : places.stop].mean())


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
        evaluation.computeIoU = partial(_overlaps, evaluation)
        evaluation.evaluateImg = partial(_matches, evaluation)
        evaluation.evaluate()
    return evaluation


def _overlaps(evaluation: Any, image: int, label: int) -> Any:
    """Return what `COCOeval.computeIoU` does, at once where an image has no objects of a label."""
    return type(evaluation).computeIoU(evaluation, image, label) if evaluation._gts[image, label] else []


def _matches(evaluation: Any, image: int, label: int, areas: Sequence[float], most: int) -> Any:
    """Return what `COCOeval.evaluateImg` does, at once where an image has boxes and no objects of a label, as most have
    where all boxes count.
    """
    found = evaluation._dts[image, label]
    if evaluation._gts[image, label] or not found:
        return type(evaluation).evaluateImg(evaluation, image, label, areas, most)
    kept = sorted(found, key=lambda box: -float(box["score"]))[:most]
    outside = [not areas[0] <= box["area"] <= areas[1] for box in kept]
    thresholds = len(evaluation.params.iouThrs)
    return {
        "gtIgnore": np.empty(0),
        "dtScores": [box["score"] for box in kept],
        "dtMatches": np.zeros((thresholds, len(kept))),
        "dtIgnore": np.tile(outside, (thresholds, 1)),
    }


@dataclass(frozen=True)
class _Matches:
    """The boxes of all images in the order of their scores, in segments of one label and one IoU threshold.

    Segments of one label that count the same boxes share these.

    Attributes:
        objects: `(images, labels)`, the number of objects.
        counted: `(boxes,)`, the image of each box that counts.
        images, ends: `(hits,)`, the image of each box that matches an object, and the place after it in `counted`.
        starts: `(hits,)`, the place where the boxes of its segment start.
        segments: `(hits,)`, the number of its segment, ascending.
        firsts: `(hits,)`, the place of the first hit of its segment.
        recalls: The recalls at which the precision counts.
    """

    objects: Floats
    counted: NDArray[np.intp]
    images: NDArray[np.intp]
    ends: NDArray[np.intp]
    starts: NDArray[np.intp]
    segments: NDArray[np.intp]
    firsts: NDArray[np.intp]
    thresholds: int
    recalls: Floats

    @classmethod
    def of(cls, evaluation: Any, area: int) -> _Matches:
        """Return the matches of objects in one range of areas, by its place."""
        parameters = evaluation.params
        count, areas, thresholds = len(parameters.imgIds), len(parameters.areaRng), len(parameters.iouThrs)
        objects = np.zeros((count, len(parameters.catIds)))
        counted: list[NDArray[np.intp]] = []
        hits: list[NDArray[np.intp]] = [np.empty((4, 0), dtype=np.intp)]
        segment, length = -1, 0
        for label in range(len(parameters.catIds)):
            first = (label * areas + area) * count
            found = [(i, e) for i, e in enumerate(evaluation.evalImgs[first : first + count]) if e is not None]
            for image, of_image in found:
                objects[image, label] = np.count_nonzero(of_image["gtIgnore"] == 0)
            scores = np.concatenate([[], *(of_image["dtScores"] for _, of_image in found)])
            order = np.argsort(-scores, kind="mergesort")
            owners = np.repeat([i for i, _ in found], [len(e["dtScores"]) for _, e in found]).astype(np.intp)[order]
            none = np.empty((thresholds, 0))
            matched, ignored = (
                np.concatenate([none, *(e[name] for _, e in found)], axis=1)[:, order].astype(bool)
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
                hits.append(np.stack([own[at], at + start + 1, np.full_like(at, start), np.full_like(at, segment)]))
        boxes = np.concatenate([np.empty(0, dtype=np.intp), *counted])
        images, ends, starts, segments = np.concatenate(hits, axis=1)
        firsts = np.searchsorted(segments, segments)
        recalls = np.asarray(parameters.recThrs)
        return cls(objects, boxes, images, ends, starts, segments, firsts, thresholds, recalls)

    def means(self, indices: Indices) -> Floats:
        """Return the mean precision of the images with these indices, which may repeat: at each threshold over labels,
        then of each label over thresholds; NaN without objects.
        """
        weights = np.bincount(indices, minlength=len(self.objects))
        objects = (weights @ self.objects).astype(np.intp)
        boxes = np.concatenate([[0], np.cumsum(weights[self.counted])])
        hits = np.concatenate([[0], np.cumsum(weights[self.images])])
        hits = hits[1:] - hits[self.firsts]
        precision = hits / (boxes[self.ends] - boxes[self.starts] + np.spacing(1))
        # The highest precision at this recall or more. Offsets keep the segments apart.
        offsets = 2.0 * (self.segments.max(initial=0) - self.segments)
        highest = np.maximum.accumulate((precision + offsets)[::-1])[::-1] - offsets
        # How many recalls each number of hits of a label reaches.
        ends = np.cumsum(objects + 1)
        starts = ends - objects - 1
        counts = np.arange(ends[-1]) - np.repeat(starts, objects + 1) if len(ends) else np.empty(0)
        with np.errstate(invalid="ignore"):
            reached = np.searchsorted(self.recalls, counts / np.repeat(objects, objects + 1), side="right")
        levels = reached[hits + starts[self.segments // self.thresholds]] if len(hits) else hits
        added = np.diff(levels, prepend=0)
        is_first = self.firsts == np.arange(len(hits))
        added[is_first] = levels[is_first]
        sums = np.bincount(self.segments, highest * added, minlength=len(objects) * self.thresholds)
        means = sums.reshape(len(objects), self.thresholds) / len(self.recalls)
        has_objects = objects > 0
        means[~has_objects] = np.nan
        overall = means[has_objects].mean(axis=0) if has_objects.any() else np.full(self.thresholds, np.nan)
        return np.concatenate([overall, means.mean(axis=1)])
