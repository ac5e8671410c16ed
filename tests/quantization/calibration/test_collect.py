"""One pass over the samples: what it stores, what it costs, and which errors it reports."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from calibration_oracle import (
    MLP,
    WEIGHTS,
    bits,
    feeds,
    gather,
    mlp,
)
from tiny_graphs import normal, saved, written

from benchcard.errors import ArtifactError
from benchcard.quantization.calibration.collect import collect_statistics, select_tensors
from benchcard.quantization.calibration.ranges import Method, compute_ranges


def test_weights_in_other_files_stay_where_they_are(tmp_path):
    """A model with external data gives the same statistics; nothing is written or left in its folder."""
    inline = gather(mlp(tmp_path), feeds(3), tmp_path / "inline.npz")[1]
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(
        onnx.load(tmp_path / "mlp.onnx"),
        folder / "big.onnx",
        save_as_external_data=True,
        location="big.bin",
        size_threshold=0,
    )
    assert all(
        initializer.data_location
        for initializer in onnx.load(folder / "big.onnx", load_external_data=False).graph.initializer
    )
    before = sorted(os.listdir(folder))
    folder.chmod(0o500)
    try:
        outside = gather(folder / "big.onnx", feeds(3), tmp_path / "out" / "statistics.npz")[1]
    finally:
        folder.chmod(0o700)
    assert bits(compute_ranges(outside, Method("percentile"))) == bits(compute_ranges(inline, Method("percentile")))
    assert sorted(os.listdir(folder)) == before
    assert os.listdir(tmp_path / "out") == ["statistics.npz"]


def test_the_file_is_the_same_for_the_same_samples(tmp_path):
    """Statistics have one form, so that a digest of the file tells whether they are equal."""
    model = mlp(tmp_path)
    for name in ("one", "two"):
        gather(model, feeds(3), tmp_path / f"{name}.npz")
    gather(model, feeds(4), tmp_path / "other.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert (tmp_path / "one.npz").read_bytes() != (tmp_path / "other.npz").read_bytes()


def test_the_report_says_what_was_done(tmp_path):
    """The report has counts, times and sizes, and progress is reported in ascending order up to the last sample."""
    done: list[int] = []
    report = collect_statistics(
        mlp(tmp_path),
        iter(feeds(5)),
        tmp_path / "statistics.npz",
        operators=["MatMul"],
        intra_op_num_threads=1,
        progress=done.append,
    )
    assert done == sorted(set(done))
    assert done[-1] == 5
    assert report.samples == 5
    assert report.tensors == report.histograms == 4
    assert report.values_counted == 5 * 37 * (16 + 48 + 48 + 4)
    assert 0 < report.forward_ns < report.elapsed_ns
    assert 0 < report.counting_ns < report.elapsed_ns
    assert report.statistics_bytes == (tmp_path / "statistics.npz").stat().st_size
    assert report.peak_memory_bytes > 10 << 20


def test_samples_may_share_their_memory(tmp_path):
    """The caller may write the next sample into the array of the last."""
    model, array = mlp(tmp_path), np.empty((37, 16), dtype=np.float32)

    def reused() -> Any:
        for feed in feeds(6):
            array[:] = feed["x"]
            yield {"x": array}

    got = gather(model, reused(), tmp_path / "reused.npz", ["MatMul"])[1]
    array[:] = 0
    assert bits(compute_ranges(got, Method())) == bits(
        compute_ranges(gather(model, feeds(6), tmp_path / "new.npz", ["MatMul"])[1], Method())
    )


def test_memory_does_not_grow_with_the_samples(tmp_path):
    """Eight times the samples, whose activations are 550 MB, need no more memory than the first few."""
    mlp(tmp_path)
    code = """
import resource, sys
import numpy as np
from pathlib import Path
from benchcard.quantization.calibration.collect import collect_statistics

folder = Path(sys.argv[1])

def peak(count):
    feeds = ({"x": np.random.default_rng(n).random((20_000, 16), dtype=np.float32)} for n in range(count))
    options = {"operators": ["Add", "MatMul"], "intra_op_num_threads": 1}
    collect_statistics(folder / "mlp.onnx", feeds, folder / "s.npz", **options)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

print(peak(6), peak(48))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    few, many = map(int, done.stdout.split())
    kept = 42 * 20_000 * (16 + 3 * 48 + 2 * 4) * 4
    assert kept > 500 << 20
    assert many - few < kept / 8


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_tensors_with_a_value_that_is_not_finite_have_no_range(tmp_path, value):
    """The tensors that it broke are named in the order of the graph and have no range by any method; others keep
    theirs.
    """
    given_feeds = feeds(5)
    given_feeds[3]["x"][7, 1] = value
    target = tmp_path / "statistics.npz"
    report, _ = gather(mlp(tmp_path), given_feeds, target)
    assert report.endless[:3] == ("x", "h", "hb")
    for method in ("minmax", "percentile", "entropy", "distribution"):
        found = compute_ranges(target, Method(method)).data
        for name, each in found.items():
            is_lost = name in report.endless
            assert np.isnan(each.range_value[0]).all() == is_lost, (method, name)


def test_an_overflow_inside_the_graph_is_named(tmp_path):
    """Where the samples are sound and the graph overflows, the first tensor named is the one that did; what stands
    before it has its range.
    """
    model, target = mlp(tmp_path, w=np.full((16, 48), 1e38, dtype=np.float32)), tmp_path / "statistics.npz"
    report, _ = gather(model, [{"x": np.full((1, 16), 9, dtype=np.float32)}], target)
    assert report.endless[0] == "h"
    assert float(np.squeeze(compute_ranges(target, Method())["x"].range_value[1])) == 9


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({}, "sample 0 cannot be run: .*x"),
        ({"x": np.zeros((2, 3), dtype=np.float32)}, "sample 0 cannot be run: .*dimensions"),
        ({"x": np.zeros((2, 16))}, "sample 0 cannot be run: .*double"),
        ({"x": np.zeros((2, 16), dtype=np.float32), "q": np.zeros(1)}, "sample 0 cannot be run: .*q"),
    ],
)
def test_inputs_that_do_not_fit_are_an_error(tmp_path, feed, message):
    """The error has the runtime's message on the sample."""
    with pytest.raises(ArtifactError, match=message):
        gather(mlp(tmp_path), [feed], tmp_path / "statistics.npz")


def test_no_samples_are_an_error(tmp_path):
    """An empty calibration set has no ranges."""
    with pytest.raises(ArtifactError, match="no calibration samples"):
        gather(mlp(tmp_path), [], tmp_path / "statistics.npz")


def test_a_graph_without_the_operators_is_an_error(tmp_path):
    """There is nothing to calibrate for operators that the graph does not have."""
    with pytest.raises(ArtifactError, match="no float input or output of the operators Conv, Gemm"):
        gather(mlp(tmp_path), feeds(1), tmp_path / "statistics.npz", ["Conv", "Gemm"])


def test_a_file_that_is_not_a_model_is_an_error(tmp_path):
    """The error names a missing file, one in another format, and a graph that the runtime refuses."""
    (tmp_path / "junk.onnx").write_bytes(b"not a model")
    unknown = MLP.replace("Relu", "Lure")
    saved(written(unknown, WEIGHTS), tmp_path / "unknown.onnx")
    for name, message in (
        ("gone", "gone.onnx"),
        ("junk", "junk.onnx cannot be read"),
        ("unknown", "cannot load .*Lure"),
    ):
        with pytest.raises(ArtifactError, match=message):
            gather(tmp_path / f"{name}.onnx", feeds(1), tmp_path / "statistics.npz")


def test_a_copy_of_a_weight_is_counted_itself():
    """A tensor that is a copy of a weight takes its values from no other tensor."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[4] x) => (float[4] y) { i = Identity (w) y = Add (x, i) }"""
    model = onnx.shape_inference.infer_shapes(written(text, {"w": normal(4)}))
    watched, sources = select_tensors(model.graph, ["Add"])
    assert watched.tensors == sources == ("x", "i", "y")
    assert watched.operator_types == ("Add",)


def test_tensors_after_a_resize_are_watched(tmp_path):
    """Types after a `Resize` are inferred only where the numbers of its scales are kept."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 3, 8, 8] x) => (float[1, 3, 16, 16] y) {
        r = Resize <mode = "nearest"> (x, , scales)
        h = Relu (r)
        y = Add (h, h)
    }"""
    model = saved(written(text, {"scales": np.array([1, 1, 2, 2], dtype=np.float32)}), tmp_path / "resize.onnx")
    statistics = gather(model, [{"x": normal(1, 3, 8, 8)}], tmp_path / "statistics.npz", ["Add"])[1]
    assert set(statistics.watched.tensors) == {"h", "y"}
