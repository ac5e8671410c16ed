"""A graph in segments computes what the whole graph does, wherever a run starts."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_graphs
from tiny_graphs import normal, written

from benchcard.graphs.graph import graph_of
from benchcard.graphs.runtime import runtime_errors
from benchcard.quantization.sensitivity import segments
from benchcard.quantization.sensitivity.segments import SegmentedModel


@pytest.fixture(scope="module", params=["vit", "bert", "resnet"])
def exported(request, tmp_path_factory):
    """A model of a few layers, and three feeds."""
    folder = tmp_path_factory.mktemp("segments")
    return onnx.load(tiny_graphs.export(request.param, 13, folder / "m.onnx")), tiny_graphs.samples(request.param, 3)


def cut(model, folder, marks=None, types=None):
    marks = [node.output[0] for node in model.graph.node] if marks is None else marks
    return SegmentedModel(model, graph_of(model).types if types is None else types, marks, folder, 1, 8)


def whole(model, feeds):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip((each.name for each in session.get_outputs()), session.run(None, feeds)))


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, strict=True)


def test_segments_give_what_the_whole_graph_gives(exported, tmp_path):
    """To the bit, for several feeds, from every segment on."""
    model, feeds = exported
    segmented = cut(model, tmp_path)
    numbers = [segmented.segment_of(node.output[0]) for node in model.graph.node]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(8))
    for feed in feeds:
        before = segmented.run_all(feed)
        assert len(before) == 9
        expected = whole(model, feed)
        assert_same(before[-1], expected)
        for first in range(8):
            assert_same(segmented.run(feed, first, before), expected)
            made = segmented.run_segment(feed, first, before)
            assert made
            for name, value in made.items():
                np.testing.assert_array_equal(before[first + 1][name], value, strict=True)
            assert_same(segmented.run(feed, first, before, made), expected)


SWITCHED = """<ir_version: 8, opset_import: ["" : 13]>
    g (float[N, 4] x, bool first, bool second) => (float[N, 4] y, float[N, 4] early, float[N, 4] x, float[4] w) {
        [a] early = Relu(x)
        [b] h = If(first) <
            then_branch = t () => (float[N, 4] t1) { t1 = Add(early, w) },
            else_branch = e () => (float[N, 4] e1) { e1 = Identity(early) }
        >
        [c] i = Mul(h, h)
        [d] y = If(second) <
            then_branch = u () => (float[N, 4] u1) { u1 = Sub(i, early) },
            else_branch = f () => (float[N, 4] f1) { f1 = Add(i, w) }
        >
    }"""


@pytest.fixture
def switched():
    """A graph that reads outside tensors from within branches, and gives out an input, a weight and an early tensor."""
    return written(SWITCHED, {"w": normal(4, seed=1)})


def test_a_run_starts_where_its_feeds_differ(switched, tmp_path):
    """A switch that only later segments read makes the difference that it makes in the whole graph."""
    segmented = cut(switched, tmp_path)
    off = {"x": normal(2, 4), "first": np.array(False), "second": np.array(False)}
    on = {**off, "second": np.array(True)}
    before = segmented.run_all(off)
    assert_same(before[-1], whole(switched, off))
    assert segmented.segment_of("y") > segmented.segment_of("h") > 0
    assert_same(segmented.run(on, segmented.segment_of("y"), before), whole(switched, on))
    earlier = {**off, "first": np.array(True)}
    assert_same(segmented.run(earlier, segmented.segment_of("h"), before), whole(switched, earlier))
    # What an earlier segment read is taken from `before`.
    assert_same(segmented.run(earlier, segmented.segment_of("y"), before), whole(switched, off))


def test_a_graph_is_not_cut_where_a_type_is_unknown(switched, tmp_path):
    """Nothing can be handed on whose type is not known; without types, or without marks, the graph is one segment."""
    off = {"x": normal(2, 4), "first": np.array(True), "second": np.array(False)}
    types = graph_of(switched).types
    less = {name: kind for name, kind in types.items() if name != "h"}
    for number, (given, marks, count) in enumerate(
        [(types, None, 4), (less, None, 3), ({}, None, 1), (types, [], 1), (types, ["h"], 2)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        segmented = cut(switched, folder, marks, given)
        before = segmented.run_all(off)
        assert len(before) == count + 1
        assert_same(before[-1], whole(switched, off))


def test_sparse_weights_go_to_the_segments_that_read_them(tmp_path):
    """A weight that the file keeps as places and values is read like any other."""
    text = """<ir_version: 8, opset_import: ["" : 13]>
        g (float[N, 4] x) => (float[N, 4] y) { h = Relu(x) i = Add(h, w) j = Neg(i) y = Mul(j, w) }"""
    model = written(text)
    values = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [3.0, -2.0])
    places = onnx.helper.make_tensor("places", onnx.TensorProto.INT64, [2], [0, 2])
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [4]))
    segmented = cut(model, tmp_path, types=dict.fromkeys("hij", onnx.TensorProto.FLOAT))
    feeds, weight = {"x": normal(2, 4)}, np.array([3, 0, -2, 0], np.float32)
    expected = {"y": -(np.maximum(feeds["x"], 0) + weight) * weight}
    before = segmented.run_all(feeds)
    assert len(before) == 5
    assert_same(before[-1], expected)
    assert_same(segmented.run(feeds, 3, before), expected)


def test_sizes_that_are_joined_from_scalars_may_cross_a_cut(tmp_path, monkeypatch):
    """The sizes of a `Resize`, which another segment computes, have declared axes; else the runtime infers none."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[1, 1, h, w] x) => (float[1, 1, p, q] y) {
            shape = Shape(x)
            height = Gather(shape, two)
            width = Gather(shape, three)
            high = Mul(height, two)
            wide = Mul(width, two)
            rows = Unsqueeze(high, zero)
            columns = Unsqueeze(wide, zero)
            sizes = Concat<axis = 0>(ones, rows, columns)
            y = Resize<mode = "nearest">(x, , , sizes)
        }""",
        {
            "two": np.array(2),
            "three": np.array(3),
            "zero": np.array([0]),
            "ones": np.array([1, 1]),
        },
    )
    marks = [node.output[0] for node in model.graph.node]
    feeds = {"x": normal(1, 1, 3, 5)}
    found = cut(model, tmp_path, marks).run_all(feeds)[-1]
    assert found["y"].shape == (1, 1, 6, 10)
    assert_same(found, whole(model, feeds))
    monkeypatch.setattr(segments, "_infer_axes", lambda model: {})
    with pytest.raises(runtime_errors()):
        cut(model, tmp_path, marks)
