"""The mean average precision of boxes: that of pycocotools, also of chosen images, and which boxes are the same."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from benchcard.errors import SpecError
from benchcard.metrics import boxes, detection, fidelity
from benchcard.metrics.compute import MetricInputs, compute_metric
from benchcard.metrics.detection import MeanAveragePrecision
from benchcard.metrics.examples import examples_of
from benchcard.metrics.info import NEEDING_PACKAGES
from benchcard.metrics.uncertainty import count_changed, interval, paired_test
from benchcard.steps.evaluate import MetricRequest, metric


@pytest.fixture
def pycocotools():
    """Skip a test that needs the extra."""
    return pytest.importorskip("pycocotools", reason="the extra `detection` is not installed")


def images(count, seed, labels=4, largest=150):
    """References with crowds, and predictions that are near them, or anywhere; some images have neither."""
    draw = np.random.default_rng(seed)
    references, predictions = [], []
    for _ in range(count):
        number = draw.integers(0, 6)
        corners = draw.uniform(0, 200, (number, 2))
        own = np.concatenate([corners, corners + draw.uniform(5, largest, (number, 2))], axis=1)
        names = draw.integers(0, labels, number)
        near = own[draw.random(number) < 0.8]
        near = near + draw.normal(0, 4, near.shape)
        others = np.concatenate([draw.uniform(0, 90, (3, 2)), draw.uniform(100, 200, (3, 2))], axis=1)
        found = np.concatenate([near, others])[: draw.integers(0, 9)]
        references.append(
            {
                "boxes": own.tolist(),
                "labels": names.tolist(),
                "areas": (0.8 * (own[:, 2:] - own[:, :2]).prod(axis=1)).tolist(),
                "crowds": (draw.random(number) < 0.1).astype(int).tolist(),
            }
        )
        predictions.append(
            {
                "boxes": found.tolist(),
                "scores": draw.random(len(found)).tolist(),
                "labels": np.where(
                    draw.random(len(found)) < 0.7, np.resize(names, len(found)) if number else 0, labels - 1
                ).tolist(),
            }
        )
    return predictions, references


@pytest.mark.usefixtures("pycocotools")
@pytest.mark.parametrize(("count", "labels", "largest"), [(60, 4, 150), (40, 1, 30), (100, 9, 120)])
def test_figures_of_chosen_images_are_those_of_pycocotools(count, labels, largest):
    """Of all images, of some, and of some that are chosen several times; for each size, threshold and label."""
    predictions, references = images(count, count, labels, largest)
    metric = MeanAveragePrecision()
    names = [f"label {index}" for index in range(labels)]
    figures = metric.examples(predictions, references, names, class_metrics=True)
    draw = np.random.default_rng(0)
    every = np.arange(count)
    for indices in (every, every[::3], draw.integers(0, count, count), draw.integers(0, count, count)):
        chosen = [[rows[index] for index in indices] for rows in (predictions, references)]
        expected = metric._compute(*chosen, names, class_metrics=True)
        for name, figure in figures.items():
            assert figure.score(indices) == pytest.approx(expected.get(name, math.nan), abs=1e-9, nan_ok=True), name
    assert {"map", "map_50", "map_75", "map_small"} <= set(figures)
    assert ("map_large" in figures) == (largest > 100)
    assert 0 < figures["map"].score(every) < figures["map_50"].score(every) < 1


@pytest.mark.usefixtures("pycocotools")
def test_shortcuts_give_what_pycocotools_gives(monkeypatch):
    """For images with boxes of labels that they have no objects of, more than count of one label among them."""
    predictions, references = images(40, 3, labels=6)
    draw = np.random.default_rng(0)
    corners = draw.uniform(0, 90, (150, 2))
    many = {"boxes": np.concatenate([corners, corners + 40], axis=1).tolist(), "labels": [5] * 150}
    predictions.append({**many, "scores": draw.random(150).round(1).tolist()})
    references.append({"boxes": [], "labels": [], "areas": [], "crowds": []})
    figures = MeanAveragePrecision()._compute(predictions, references, class_metrics=True)
    monkeypatch.setattr(
        detection, "_overlaps", lambda evaluation, *where: type(evaluation).computeIoU(evaluation, *where)
    )
    monkeypatch.setattr(
        detection, "_matches", lambda evaluation, *where: type(evaluation).evaluateImg(evaluation, *where)
    )
    assert figures == MeanAveragePrecision()._compute(predictions, references, class_metrics=True)


@pytest.mark.usefixtures("pycocotools")
def test_a_choice_of_images_is_computed_once_for_all_figures(monkeypatch):
    """Also for the interval and the test of each."""
    chosen = []
    compute = detection._Matches.means
    monkeypatch.setattr(detection._Matches, "means", lambda self, indices: chosen.append(1) or compute(self, indices))
    figures = MeanAveragePrecision().examples(*images(20, 3), class_metrics=True)
    assert len(figures) > 8
    for _ in range(2):
        for indices in (np.arange(20), np.arange(10)):
            scores = [figure.score(indices) for figure in figures.values()]
    assert len(set(scores)) > 4
    assert len(chosen) == 2 * 4  # all, small, medium and large objects


@pytest.mark.usefixtures("pycocotools")
def test_plain_cases():
    """What is found exactly scores 1; half of it, found first, 51 of 101 recalls; nothing found 0."""
    box, other = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]
    reference = {"boxes": [box, other], "labels": [0, 0], "areas": [100.0, 100.0], "crowds": [0, 0]}

    def score(found):
        row = {"boxes": found, "scores": [0.9 - index / 10 for index in range(len(found))], "labels": [0] * len(found)}
        return compute_metric("map", MetricInputs([row], [reference]))["map"].value

    assert score([box, other]) == pytest.approx(1)
    assert score([box]) == pytest.approx(51 / 101)
    assert score([[20.0, 20.0, 25.0, 25.0], box]) == pytest.approx(51 / 101 / 2)
    assert score([]) == 0


@pytest.mark.usefixtures("pycocotools")
def test_nothing_to_find_has_no_figure():
    """Images without objects have no mean average precision, and other figures are left out."""
    empty = {"boxes": [], "labels": [], "areas": [], "crowds": []}
    found = {"boxes": [[0.0, 0.0, 1.0, 1.0]], "scores": [0.5], "labels": [0]}
    figures = compute_metric("map", MetricInputs([found] * 2, [empty] * 2))
    assert {name: figure.value for name, figure in figures.items()} == {"map": None}


@pytest.mark.usefixtures("pycocotools")
def test_intervals_and_paired_tests_are_those_of_the_bootstrap():
    """The interval holds the figure, and worse boxes of the same images are told apart."""
    predictions, references = images(80, 5)
    draw = np.random.default_rng(1)
    worse = [
        {**row, "boxes": (np.reshape(row["boxes"], (-1, 4)) + draw.normal(0, 8, (len(row["boxes"]), 4))).tolist()}
        for row in predictions
    ]
    given = [MetricInputs(rows, references, defaults={"labels": list("abcd")}) for rows in (predictions, worse)]
    baseline, model = (examples_of("map", inputs)["map"] for inputs in given)
    estimate, test = interval(baseline, 0), paired_test(baseline, model, 0)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.value == pytest.approx(compute_metric("map", given[0])["map"].value, abs=1e-9)
    assert test.difference.high < 0
    assert test.p_value < 0.05


def test_a_missing_package_is_named(monkeypatch):
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    predictions, references = images(2, 0)
    assert "map" in NEEDING_PACKAGES
    with pytest.raises(SpecError, match="without pycocotools"):
        metric(MetricRequest(name="map", scripts={}), None, lambda done, total: None)
    with pytest.raises(SpecError, match=r"pip install 'benchcard\[detection\]'"):
        compute_metric("map", MetricInputs(predictions, references))


def test_the_same_boxes():
    """Of both models: by label and overlap, whatever their order, and without boxes of low scores."""
    first = {
        "boxes": [[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 9, 9]],
        "scores": [0.9, 0.8, 0.1],
        "labels": [0, 1, 0],
    }
    moved = {"boxes": [[20, 20, 30, 30], [0, 0, 10, 8]], "scores": [0.7, 0.6], "labels": [1, 0]}
    assert boxes.overlaps([[0, 0, 10, 10]], [[5, 0, 15, 10], [0, 0, 0, 0]]).tolist() == [[pytest.approx(1 / 3), 0]]
    same, others = boxes.match(first, moved)
    assert sorted(same.tolist()) == [pytest.approx(0.8), 1]
    assert others == 0
    renamed = {**moved, "labels": [1, 1]}
    assert boxes.match(first, renamed)[1] == 2
    empty = {"boxes": [], "scores": [], "labels": []}
    assert count_changed([first, first, empty, first], [moved, renamed, empty, empty]) == 2
    figures = fidelity.detection_figures([first, empty, first], [moved, empty, renamed])
    assert figures["agreement"].value == pytest.approx(3 / 5)
    assert figures["iou_mean"].value == pytest.approx((1 + 0.8 + 1) / 3)
    assert fidelity.detection_figures([empty], [empty]) == {}
    assert set(fidelity.detection_figures([first], [empty])) == {"agreement"}
