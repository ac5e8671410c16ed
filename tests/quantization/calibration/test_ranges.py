"""Ranges from the statistics of one pass are those that onnxruntime's own calibrators give."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from calibration_oracle import (
    PATH_WEIGHTS,
    PATHS,
    PERCENTILE,
    WEIGHTS,
    Reader,
    bits,
    feeds,
    gather,
    mlp,
    off_by,
    oracle,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_graphs import export, normal, samples, saved, takes_ranges, written

from benchcard.errors import ArtifactError
from benchcard.quantization.calibration import histogram
from benchcard.quantization.calibration.histogram import Histogram, Scratch
from benchcard.quantization.calibration.ranges import Method, are_certain, compute_ranges
from benchcard.quantization.calibration.statistics import ActivationStatistics, WatchedTensors

EXACT = [
    Method("minmax"),
    Method("minmax", symmetric=True),
    Method("minmax", moving_average=True),
    Method("minmax", moving_average=True, symmetric=True),
    Method("entropy"),
    Method("entropy", symmetric=True),
    Method("distribution"),
    Method("distribution", num_bins=512),
]
BINNED = [
    Method("percentile"),
    Method("percentile", symmetric=False),
    Method("percentile", percentile=PERCENTILE),
    Method("percentile", percentile=PERCENTILE, symmetric=False),
    Method("percentile", percentile=90.017, symmetric=False),
    Method("percentile", percentile=60.011, num_bins=100),
    Method("percentile", percentile=100.0),
    Method("percentile", percentile=100.0, symmetric=False),
]


def words(method: Method) -> str:
    changed = {k: v for k, v in dataclasses.asdict(method).items() if v != getattr(Method(method.method), k)}
    return "-".join([method.method, *(f"{name}={value}" for name, value in changed.items())])


def shifted(kind: str) -> dict[str, np.ndarray]:
    """Weights that make the hidden tensor of the small network what its name says."""
    w, b = WEIGHTS["w"], WEIGHTS["b"]
    return {
        "plain": {},
        "zero": {"w": np.zeros_like(w), "b": np.zeros_like(b)},
        "equal": {"w": np.zeros_like(w), "b": np.full_like(b, 3.7)},
        "negative": {"b": b - 1000},
        "positive": {"b": b + 1000},
        "one-cold": {"b": b - 1e6 * (np.arange(48) == 5).astype(np.float32)},
        "tiny": {"w": w * np.float32(1e-30), "b": b * np.float32(1e-30)},
        "wide": {"w": w * np.logspace(-20, 15, 48).astype(np.float32)},
    }[kind]


KINDS = ("plain", "zero", "equal", "negative", "positive", "one-cold", "tiny", "wide")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """By kind: a model, 13 samples of which a late one has an outlier, and the statistics; these with so many values in
    the tail.
    """
    made: dict[Any, Any] = {}

    def of(kind: str, size: int = histogram.TAIL_SIZE) -> Any:
        if (kind, size) not in made:
            folder = tmp_path_factory.mktemp(kind)
            model = mlp(folder, **shifted(kind))
            given = feeds(13)
            given[11]["x"][20, 3] = 47.0
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(histogram, "TAIL_SIZE", size)
                made[kind, size] = model, given, gather(model, given, folder / "statistics.npz")[1]
        return made[kind, size]

    return of


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """By kind: a small network as exported, two layers."""
    made: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in made:
            made[kind] = export(kind, 13, tmp_path_factory.mktemp(kind) / "model.onnx")
        return made[kind]

    return of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", EXACT, ids=words)
def test_these_methods_agree_to_the_bit(collected, tmp_path, kind, method):
    """Least and greatest values, their averages, entropy and distribution: the same numbers, types and shapes."""
    model, given_feeds, statistics = collected(kind)
    theirs, _ = oracle(model, given_feeds, tmp_path, method)
    assert bits(compute_ranges(statistics, method)) == bits(theirs)
    assert are_certain(statistics, method)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", BINNED, ids=words)
def test_percentiles_agree_to_one_bin(collected, tmp_path, kind, method):
    """Both ends of every range lie on the same edge as onnxruntime's, or on the next one, also without the largest
    values; on the same one where that is said to be certain.
    """
    model, given_feeds, statistics = collected(kind)
    theirs, widths = oracle(model, given_feeds, tmp_path, method)
    for known in (statistics, collected(kind, 0)[2]):
        off = max(off_by(compute_ranges(known, method), theirs, widths).values())
        assert off <= (0 if are_certain(known, method) else 1.001)


def test_it_is_known_where_a_percentile_is_onnxruntimes(collected):
    """The default percentile is certain, and a lower one without the largest values where the bins tell enough; not
    the last value, whose place depends on rounding, and not where onnxruntime's histograms fail.
    """
    _, _, statistics = collected("plain")
    assert are_certain(statistics, Method("percentile"))
    assert are_certain(collected("plain", 0)[2], Method("percentile", percentile=90.017, symmetric=False))
    assert not are_certain(collected("plain", 0)[2], Method("percentile", percentile=PERCENTILE))
    assert not are_certain(statistics, Method("percentile", percentile=100.0))
    for value in (np.nan, np.inf):
        extremes = statistics.sample_extremes.copy()
        extremes[3, 1, 2] = value
        masked = dataclasses.replace(statistics, sample_extremes=extremes)
        assert are_certain(masked, Method())
        assert not are_certain(masked, Method("entropy"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [method for method in BINNED if method.percentile > 99], ids=words)
def test_percentiles_among_the_largest_values_agree_to_the_bit(collected, tmp_path, kind, method):
    """Where a range ends among the values that are kept as they are, its end is onnxruntime's."""
    model, given_feeds, statistics = collected(kind)
    theirs, _ = oracle(model, given_feeds, tmp_path, method)
    assert bits(compute_ranges(statistics, method)) == bits(theirs)


@pytest.mark.parametrize("method", [Method("percentile", PERCENTILE), Method("minmax"), Method("entropy")], ids=words)
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_whole_networks_agree(network, tmp_path, monkeypatch, kind, method):
    """The tensors of a small ViT and BERT, to the bit; without the largest values most to the bit, others to a bin."""
    # Not the addition of BERT's mask, whose constants are too large for onnxruntime's histograms.
    operators = ("MatMul", "Gemm", "Gather", "LayerNormalization", "Softmax", "Div") + ("Add",) * (kind == "vit")
    model, given_feeds = network(kind), samples(kind, 5)
    theirs, widths = oracle(model, given_feeds, tmp_path, method, operators)
    for size in (histogram.TAIL_SIZE, 0):
        monkeypatch.setattr(histogram, "TAIL_SIZE", size)
        statistics = gather(model, given_feeds, tmp_path / "statistics.npz", operators)[1]
        off = list(off_by(compute_ranges(statistics, method), theirs, widths).values())
        assert len(off) > 50
        assert max(off) <= (0 if size or method.method != "percentile" else 1.001)
        assert np.mean(np.array(off) == 0) > 0.9


def test_distribution_has_the_mean_and_deviation(collected, tmp_path):
    """Mean and deviation, from which float8 scales are computed, agree to a fraction of a bin."""
    model, given_feeds, statistics = collected("plain")
    method = Method("distribution")
    theirs, widths = oracle(model, given_feeds, tmp_path, method)
    ours = compute_ranges(statistics, method)
    for tensor in theirs:
        for one, other in zip(ours[tensor].avg_std, theirs[tensor].avg_std):
            assert abs(one - other) < 0.2 * widths[tensor]


def test_entropy_of_more_bins_keeps_about_the_same_range(collected, tmp_path):
    """With candidates to choose from, entropy chooses a threshold near that of onnxruntime."""
    model, given_feeds, statistics = collected("plain")
    method = Method("entropy", num_bins=512)
    theirs, widths = oracle(model, given_feeds, tmp_path, method)
    off = off_by(compute_ranges(statistics, method), theirs, widths)
    assert max(off.values()) < 512 / 20
    assert bits(compute_ranges(statistics, method)) != bits(compute_ranges(statistics, Method("minmax")))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("constant", [0.01, 0.3, 1.0])
def test_moving_average_constant_is_that_of_samples_one_by_one(collected, tmp_path, constant, symmetric):
    """A constant gives, to the bit, what onnxruntime gives when it is fed sample by sample."""
    model, given_feeds, statistics = collected("plain")
    method = Method("minmax", moving_average=True, moving_average_constant=constant, symmetric=symmetric)
    theirs, _ = oracle(model, given_feeds, tmp_path, method, one_by_one=True)
    got = bits(compute_ranges(statistics, method))
    assert got == bits(theirs)
    assert got != bits(compute_ranges(statistics, dataclasses.replace(method, moving_average_constant=None)))


@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("operators", [None, ("Add",), ("MatMul", "Gemm"), ("Softmax", "Gather")])
def test_the_tensors_are_those_that_onnxruntime_chooses(network, tmp_path, kind, operators):
    """Statistics of all operators give, for some of them, the tensors that onnxruntime calibrates for these."""
    from onnxruntime.quantization.calibrate import CalibraterBase

    model = network(kind)
    theirs = CalibraterBase(model, operators)
    chosen, _ = theirs.select_tensors_to_calibrate(theirs.model)
    statistics = gather(model, samples(kind, 1), tmp_path / "statistics.npz", None)[1]
    assert set(statistics.select(operators)) == chosen
    assert set(compute_ranges(statistics, Method(), operators)) == chosen


def test_values_in_another_order_or_shape_are_counted_once(tmp_path):
    """Tensors behind Reshape, Transpose, Identity, Cast, Squeeze and Unsqueeze share a histogram, with equal ranges."""
    model = saved(written(PATHS, PATH_WEIGHTS), tmp_path / "paths.onnx")
    given_feeds = [{"x": normal(2, 3, 4, seed=seed)} for seed in range(5)]
    report, statistics = gather(model, given_feeds, tmp_path / "statistics.npz", None)
    assert set(statistics.watched.tensors) == {"x", "flat", "turned", "same", "cast", "wide", "s", "narrow", "s1", "z"}
    assert report.tensors == 10
    assert report.histograms == 3
    assert report.values_counted == 5 * (24 + 16 + 16)
    for method in (Method(), Method("percentile", PERCENTILE), Method("percentile", PERCENTILE, symmetric=False)):
        theirs, widths = oracle(model, given_feeds, tmp_path, method, None)
        assert max(off_by(compute_ranges(statistics, method), theirs, widths).values()) <= 1.001


def test_a_cast_to_another_type_is_counted_apart(tmp_path):
    """float16 values are those of their own tensor, with ranges in float16."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    halves (float[n, 16] x) => (float[16, n] y) { h = Cast <to = 10> (x) t = Transpose (h) u = Identity (t)
        y = Cast <to = 1> (u) }"""
    model = saved(written(text), tmp_path / "halves.onnx")
    operators = ("Cast", "Transpose")
    report, statistics = gather(model, feeds(4), tmp_path / "statistics.npz", operators)
    assert report.histograms == 3
    theirs, _ = oracle(model, feeds(4), tmp_path, Method(), operators)
    ours = compute_ranges(statistics, Method())
    assert bits(ours) == bits(theirs)
    assert ours["h"].lowest.dtype == np.float16
    # Of more bins, neighbouring edges would be the same float16, and onnxruntime would fail.
    method = Method("percentile", 90.017, num_bins=100)
    got, (want, widths) = compute_ranges(statistics, method), oracle(model, feeds(4), tmp_path, method, operators)
    assert got["h"].highest.dtype == np.float16
    assert max(off_by(got, want, widths).values()) <= 1.001


@takes_ranges
@pytest.mark.parametrize("method", ["minmax", "entropy"])
@pytest.mark.parametrize("operators", [["MatMul"], ["Add", "MatMul"], ["Add", "MatMul", "Relu"]])
def test_the_quantized_model_is_that_of_a_plain_call(collected, tmp_path, method, operators):
    """With our ranges for some operators, the quantizer gives the model that its own calibration gives."""
    from onnxruntime.quantization import CalibrationMethod, quantize_static
    from onnxruntime.quantization.calibrate import save_tensors_data

    model, given_feeds, _ = collected("plain")
    gather(model, given_feeds, tmp_path / "statistics.npz", None)
    save_tensors_data(compute_ranges(tmp_path / "statistics.npz", Method(method), operators), tmp_path / "cache.json")
    arguments = {
        "op_types_to_quantize": operators,
        "calibrate_method": CalibrationMethod.MinMax if method == "minmax" else CalibrationMethod.Entropy,
    }
    quantize_static(model, tmp_path / "plain.onnx", Reader(given_feeds), **arguments)
    quantize_static(model, tmp_path / "ours.onnx", None, calibration_cache_path=tmp_path / "cache.json", **arguments)
    plain, ours = (onnx.load(tmp_path / f"{name}.onnx").graph for name in ("plain", "ours"))
    assert [node.SerializeToString() for node in ours.node] == [node.SerializeToString() for node in plain.node]
    assert {i.name: i.SerializeToString() for i in ours.initializer} == {
        i.name: i.SerializeToString() for i in plain.initializer
    }


def test_one_pass_for_all_operators_serves_each(collected, tmp_path):
    """Ranges for some operators are the same whether or not others were collected along with them."""
    model, given_feeds, _ = collected("plain")
    everything = gather(model, given_feeds, tmp_path / "all.npz", None)[1]
    alone = gather(model, given_feeds, tmp_path / "alone.npz", ["Relu"])[1]
    assert bits(compute_ranges(everything, Method(), ["Relu"])) == bits(compute_ranges(alone, Method()))
    assert set(compute_ranges(everything, Method(), ["Relu"])) == {"hb", "r"}
    with pytest.raises(ArtifactError, match=r"no statistics for Add: .* for Relu"):
        compute_ranges(alone, Method(), ["Add", "Relu"])
    assert list(compute_ranges(everything, Method(), ["Conv"])) == []


def test_every_tensor_of_a_masked_network_has_a_range(network, tmp_path):
    """All operators of BERT, the addition of its mask too: every range holds zero or more of its values."""
    statistics = gather(network("bert"), samples("bert", 2), tmp_path / "statistics.npz", None)[1]
    extremes_of = compute_ranges(statistics, Method())
    for name in ("percentile", "entropy", "distribution"):
        found = compute_ranges(statistics, Method(name))
        assert set(found) == set(extremes_of)
        assert all(np.isfinite(bound).all() for tensor in found for bound in found[tensor].range_value)


def test_a_mask_of_the_least_float_has_a_range(tmp_path):
    """Where values are further apart than float32 can hold, and onnxruntime's histogram fails, there is a range."""
    least = float(np.finfo(np.float32).min)
    model = mlp(tmp_path, b=np.where(np.arange(48) % 2, least, 0).astype(np.float32))
    statistics = gather(model, feeds(2), tmp_path / "statistics.npz", ["Relu"])[1]
    for symmetric in (False, True):
        low, high = compute_ranges(statistics, Method("percentile", symmetric=symmetric))["hb"].range_value
        assert low == pytest.approx(least, rel=1e-3)
        assert low < high < 1e37 or (symmetric and high == -low)
    assert not are_certain(statistics, Method("entropy"))


def test_samples_of_different_lengths_are_one_distribution(tmp_path, monkeypatch):
    """Texts of different lengths, which onnxruntime's percentile cannot hold, count as their values together."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    monkeypatch.setattr(histogram, "TAIL_SIZE", 0)
    model = mlp(tmp_path)
    given_feeds = [{"x": normal(rows, 16, seed=rows)} for rows in (3, 50, 11, 1)]
    statistics = gather(model, given_feeds, tmp_path / "statistics.npz", ["MatMul"])[1]
    assert bits(compute_ranges(statistics, Method())) == bits(
        oracle(model, given_feeds, tmp_path, Method(), ["MatMul"])[0]
    )
    for symmetric in (False, True):
        collector = HistogramCollector("percentile", symmetric, 2048, 128, PERCENTILE, "same")
        collector.collect({"x": np.concatenate([feed["x"] for feed in given_feeds])})
        low, high = collector.compute_collection_result()["x"][:2]
        width = np.diff(collector.histogram_dict["x"][1]).max()
        got = compute_ranges(statistics, Method("percentile", PERCENTILE, symmetric=symmetric))["x"].range_value
        assert abs(got[0] - low) <= 1.001 * width
        assert abs(got[1] - high) <= 1.001 * width


def test_a_sample_without_values_counts_as_zero(tmp_path):
    """An axis of length zero is no error; a tensor that never had a value has the range of zero."""
    model = mlp(tmp_path)
    empty = {"x": np.zeros((0, 16), dtype=np.float32)}
    statistics = gather(model, [empty], tmp_path / "never.npz")[1]
    for method in ("minmax", "percentile", "entropy", "distribution"):
        assert {
            tuple(map(float, map(np.squeeze, found.range_value)))
            for found in compute_ranges(statistics, Method(method)).values()
        } == {(0, 0)}
    ones = {"x": np.ones((2, 16), dtype=np.float32)}
    statistics = gather(model, [empty, ones], tmp_path / "once.npz")[1]
    assert compute_ranges(statistics, Method("percentile"))["x"].highest == 1


def test_statistics_that_were_damaged_are_an_error(collected, tmp_path):
    """Damage is found wherever it is, also in compressed data."""
    model, given_feeds, _ = collected("plain")
    path = tmp_path / "statistics.npz"
    gather(model, given_feeds, path)
    whole = path.read_bytes()
    place = whole.find(b"counts.npy") + 30
    for offset in range(0, 40, 4):
        path.write_bytes(whole[: place + offset] + b"\xff" * 8 + whole[place + offset + 8 :])
        with pytest.raises(ArtifactError, match="cannot be read as activation statistics"):
            compute_ranges(path, Method())


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 a broken archive"])
def test_a_file_without_statistics_is_an_error(tmp_path, content):
    """The error names a file in another format, a broken one, or a missing one."""
    path = tmp_path / "statistics.npz"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"statistics\.npz cannot be read as activation statistics"):
        compute_ranges(path, Method())
    np.savez(path, something=np.zeros(3))
    with pytest.raises(ArtifactError, match="cannot be read as activation statistics"):
        compute_ranges(path, Method())
    with pytest.raises(ArtifactError, match="cannot be read as activation statistics"):
        compute_ranges(tmp_path / "gone.npz", Method())


@pytest.mark.parametrize("size", [0, 8])
@settings(deadline=None, max_examples=40)
@given(
    values=arrays(np.float32, st.integers(1, 300), elements=st.floats(-100, 100, width=32, allow_subnormal=False)),
    percentile=st.floats(50, 100),
)
def test_a_percentile_is_one_of_the_values_within_a_bin(size, values, percentile):
    """The range ends at most one bin below the value of that rank, and not above the next value."""
    made, magnitudes = Histogram(), np.sort(np.abs(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histogram, "TAIL_SIZE", size)
        bounds = made.add(magnitudes, Scratch())
        made.tail.trim()
    if len(np.unique(magnitudes)) > 1 and magnitudes[-1] - magnitudes[0] < 1e-3 * magnitudes[-1]:
        return  # a band too narrow for 2048 edges in float32
    watched = WatchedTensors(("x",), (0,), ("float32",), ("Add",), np.ones((1, 1), dtype=np.bool_))
    sample_extremes = np.array([[[bounds.lowest], [bounds.highest]]], dtype=np.float32)
    statistics = ActivationStatistics(watched, (), (made,), sample_extremes)
    got = float(compute_ranges(statistics, Method("percentile", percentile))["x"].highest)
    rank = percentile / 100 * values.size
    below = magnitudes[max(math.ceil(rank * (1 - 1e-9)), 1) - 1]
    above = magnitudes[min(math.floor(rank * (1 + 1e-9)), values.size - 1)]
    width = max(
        (magnitudes[-1] - magnitudes[0]) / 2048, 2.0**made.exponent, 1 / 2048 if magnitudes[0] == magnitudes[-1] else 0
    )
    assert below - 2.001 * width <= got <= above + 1.001 * width
