"""Boxes that were detected in an image: how much they overlap, and which of two models' boxes are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Detections = Mapping[str, Any]
"""Of one image, as lists: `boxes` as corners (left, top, right, bottom), their `scores` and their `labels`."""

SURE = 0.5
"""The score above which a box counts as detected. Source: the default of transformers' `post_process_object_detection`
and pipeline."""
_SAME_BOX = 0.5  # the least overlap of boxes of one object. Source: the threshold of PASCAL VOC, and the lowest of COCO


def overlaps(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return the intersection over union of each pair of boxes, corners `(n, 4)` and `(m, 4)`, as `(n, m) float64`."""
    one, other = (np.asarray(boxes, dtype=np.float64).reshape(-1, 4) for boxes in (first, second))
    corners = np.maximum(one[:, None, :2], other[None, :, :2]), np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(corners[1] - corners[0], 0, None).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0), dtype=np.float64)


def match(first: Detections, second: Detections) -> tuple[Floats, int]:
    """Return the overlaps of the boxes that both detect, and the number of those that only one detects.

    The same box has the same label and an overlap of 0.5 at least. Pairs are chosen so that they overlap most.
    """
    from scipy.optimize import linear_sum_assignment

    labels, boxes = [], []
    for one in (first, second):
        is_sure = np.asarray(one["scores"], dtype=np.float64) > SURE
        labels.append(np.asarray(one["labels"], dtype=np.int64)[is_sure])
        boxes.append(np.asarray(one["boxes"], dtype=np.float64).reshape(-1, 4)[is_sure])
    pairs = overlaps(*boxes) * np.equal.outer(*labels)
    best = pairs[linear_sum_assignment(pairs, maximize=True)]
    same = best[best >= _SAME_BOX]
    return same, sum(map(len, labels)) - 2 * len(same)
