"""Frameworks: what was asked for is what the runtime has, and what cannot be opened is said."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper

from benchcard import registry
from benchcard.errors import ArtifactError, BenchcardError
from benchcard.export import existing
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.settings import Quantization
from benchcard.steps import models


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A graph that adds a constant of zero, twice: from level 1 on, the runtime takes both additions out."""
    nodes = [helper.make_node("Identity", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["y"])]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])
    made = helper.make_graph(nodes, "copies", [value], [result])
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize("level", [0, 1, 2, 99])
@pytest.mark.parametrize("threads", [1, 2])
def test_level_and_threads_reach_the_runtime(graph, level, threads):
    """The session's own options, read back, are what was asked."""
    model = registry.framework("onnxruntime").open(
        graph, {"optimization_level": level, "intra_op_num_threads": threads}
    )
    options = model.session.get_session_options()
    assert int(options.graph_optimization_level.value) == level
    assert options.intra_op_num_threads == threads
    assert (model.facts["optimization_level"], model.facts["intra_op_num_threads"]) == (level, threads)


def test_the_level_changes_what_the_runtime_runs(graph, tmp_path):
    """At level 0 the graph that runs is the one that was given; at level 1 needless nodes are gone."""
    import onnxruntime

    from benchcard.graphs.runtime import session_options

    counts = {}
    for level in (0, 1):
        settings = session_options({"optimization_level": level})
        settings.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        onnxruntime.InferenceSession(str(graph), settings, providers=["CPUExecutionProvider"])
        counts[level] = len(onnx.load(tmp_path / f"{level}.onnx").graph.node)
    assert counts[0] == 2
    assert counts[1] < counts[0]


@pytest.mark.parametrize(("asked", "found"), [(None, False), (False, False), (True, True)])
def test_spinning_is_off_unless_asked_for(graph, asked, found):
    """Threads that spin slow their neighbours: they do so only where the spec asks."""
    model = registry.framework("onnxruntime").open(graph, {"allow_spinning": asked})
    assert model.facts["allow_spinning"] is found


def test_a_call_takes_what_the_graph_takes_in_its_types(graph):
    """Inputs that the graph does not know are left out, and numbers are cast to its types."""
    model = registry.framework("onnxruntime").open(graph, {})
    outputs = model({"x": np.ones((3, 2), dtype=np.float64), "z": np.zeros(1)})
    assert outputs["y"].dtype == np.float32
    assert outputs["y"].shape == (3, 2)


def test_a_file_that_is_no_graph_is_said(tmp_path):
    """What the runtime cannot load is an ArtifactError with the runtime's words."""
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ArtifactError, match=r"cannot load model\.onnx"):
        registry.framework("onnxruntime").open(tmp_path / "model.onnx", {})


def test_pytorch_has_the_asked_threads_and_no_gradients(tmp_path):
    """PyTorch runs under inference mode, in evaluation mode, with as many threads as were asked."""
    import torch

    before = torch.get_num_threads()
    try:
        folder = tiny.write_model(tmp_path / "model")
        model = registry.framework("pytorch").open(folder, {"task": "image-classification", "intra_op_num_threads": 1})
        assert model.facts["intra_op_num_threads"] == torch.get_num_threads() == 1
        assert not model.module.training
        prepared = model.prepare({"pixel_values": np.zeros((2, 3, 8, 8), dtype=np.float32)})
        assert model.run(prepared).logits.is_inference()
        assert model({"pixel_values": np.zeros((2, 3, 8, 8), dtype=np.float32)})["logits"].shape == (2, 3)
    finally:
        torch.set_num_threads(before)


def test_pytorch_without_weights_is_said(tmp_path):
    """A folder that transformers cannot load is an ArtifactError with its words."""
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        registry.framework("pytorch").open(tmp_path, {"task": "image-classification"})


def test_an_unknown_framework_is_said_with_a_near_miss():
    """Asking the registry for what it has not names what it has."""
    with pytest.raises(BenchcardError, match="did you mean `onnxruntime`"):
        registry.framework("onnxruntim")


def test_a_given_graph_is_found_where_repositories_keep_it(graph, tmp_path):
    """`onnx/model.onnx` and the only ONNX file are found; of several, one must be named; a near miss is told."""
    model = tmp_path / "model"
    (model / "onnx").mkdir(parents=True)
    (tmp_path / "target").mkdir()
    with pytest.raises(ArtifactError, match="has no ONNX file"):
        existing.take_existing(model, None, None, tmp_path / "target")
    (model / "onnx" / "first.onnx").write_bytes(graph.read_bytes())
    assert existing.take_existing(model, None, 13, tmp_path / "target")[1]["opset"] == 13
    (model / "onnx" / "second.onnx").write_bytes(graph.read_bytes())
    with pytest.raises(ArtifactError, match="several graphs"):
        existing.take_existing(model, None, None, tmp_path / "target")
    assert existing.take_existing(model, "onnx/second.onnx", None, tmp_path / "target")[0] == "second.onnx"
    with pytest.raises(ArtifactError, match=r"did you mean `onnx/second\.onnx`"):
        existing.take_existing(model, "onnx/secnd.onnx", None, tmp_path / "target")
    (model / "onnx" / "model.onnx").write_bytes(graph.read_bytes())
    assert existing.take_existing(model, None, None, tmp_path / "target")[0] == "model.onnx"
    with pytest.raises(ArtifactError, match="has opset 13"):
        existing.take_existing(model, None, 17, tmp_path / "target")


def test_a_given_graph_comes_with_its_weights(tmp_path):
    """Weights beside the graph are copied with it; weights that are not there, or outside, are refused."""
    model, target = tmp_path / "model", tmp_path / "target"
    model.mkdir()
    target.mkdir()
    weight = onnx.numpy_helper.from_array(np.arange(512, dtype=np.float32), "w")
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [512])
    made = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [value], [weight])
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(whole, model / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    existing.take_existing(model, None, None, target)
    assert (target / "weights.bin").read_bytes() == (model / "weights.bin").read_bytes()
    (model / "weights.bin").unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        existing.take_existing(model, None, None, target)
    whole = onnx.load(target / "model.onnx")
    for place in (tmp_path / "away.bin", "../away.bin"):
        onnx.external_data_helper.set_external_data(whole.graph.initializer[0], str(place))
        (model / "model.onnx").write_bytes(whole.SerializeToString())
        with pytest.raises(ArtifactError, match="outside of its own folder"):
            existing.take_existing(model, None, None, target)


def test_a_given_graph_of_the_cache_is_taken(tmp_path):
    """The Hub's cache has links to files elsewhere, of graphs and of weights in folders and in branches of an `If`."""
    blobs, model, target = tmp_path / "blobs", tmp_path / "snapshot", tmp_path / "target"
    for folder in (blobs, model / "data", target):
        folder.mkdir(parents=True)
    branch = onnx.parser.parse_graph("g () => (float[4] r) { r = Identity(w) }")
    weight = onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, "data/w.bin")
    weight.ClearField("raw_data")
    branch.initializer.append(weight)
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    ends = [helper.make_tensor_value_info("c", TensorProto.BOOL, []), helper.make_tensor_value_info("y", 1, [4])]
    made = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), ir_version=8)
    (blobs / "1").write_bytes(made.SerializeToString())
    (blobs / "2").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (model / "model.onnx").symlink_to("../blobs/1")
    (model / "data" / "w.bin").symlink_to("../../blobs/2")
    assert existing.take_existing(model, None, None, target)[0] == "model.onnx"
    assert (target / "data" / "w.bin").read_bytes() == (blobs / "2").read_bytes()
    assert not (target / "model.onnx").is_symlink()


POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 12345\n".encode()


def weighted(target, text="y = MatMul(x, w)", **settings):
    """A graph with one matrix of weights, in a file of its own unless the settings say otherwise."""
    graph = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[b, 64] x) => (float[b, 64] y) {{ {text} }}'
    )
    graph.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w"))
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph, target, **{"save_as_external_data": True, "location": "w.bin", "size_threshold": 0, **settings})
    return target


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, r"model\.onnx is a Git LFS pointer.*git lfs pull"),
        (b"", "empty, damaged or in another format\\. Download or export it again"),
        (b"<!DOCTYPE html><html>Not Found</html>", "in another format"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "in another format"),
        (helper.make_tensor("t", TensorProto.FLOAT, [2], [1, 2]).SerializeToString(), "in another format"),
        (slice(None, -20), "damaged"),
        ((b"MatMul", b"Mat\xdeul"), "damaged"),
    ],
)
def test_a_given_file_that_is_no_graph_is_refused(content, message, tmp_path):
    """Pointers, files cut short, pages, other messages and names that are no text are told with what to do."""
    model = weighted(tmp_path / "model" / "model.onnx")
    good = model.read_bytes()
    if isinstance(content, slice):
        content = good[content]
    model.write_bytes(content if isinstance(content, bytes) else good.replace(*content))
    (tmp_path / "target").mkdir()
    with pytest.raises(ArtifactError, match=rf"model\.onnx cannot be read as an ONNX model.*{message}"):
        existing.take_existing(model.parent, None, None, tmp_path / "target")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (POINTER, r"w\.bin is a Git LFS pointer.*git lfs pull"),
        (b"short", r"external weights of model\.onnx.*Download or export"),
    ],
)
def test_given_weights_that_cannot_be_read_are_refused(weights, message, tmp_path):
    """Weights beside a graph that are a pointer, or cut short, end the export and nothing later."""
    model = weighted(tmp_path / "model" / "model.onnx")
    (model.parent / "w.bin").write_bytes(weights)
    (tmp_path / "target").mkdir()
    request = models.ExportRequest(
        model={},
        task="feature-extraction",
        opset=None,
        from_transformers=False,
        file_name=None,
        model_folder=model.parent,
    )
    with pytest.raises(ArtifactError, match=message):
        models.export(request, tmp_path / "target", lambda done, total: None)


@pytest.mark.parametrize("text", ["y = MatMul(x)", "y = Gemm(x)", "y = Clip()"])
def test_a_node_without_its_inputs_is_refused(text, tmp_path):
    """A node with fewer inputs than its operator has is named; one of another domain, or of a version that there is
    not, is the runtime's to judge.
    """
    model = weighted(tmp_path / "model" / "model.onnx", text)
    (tmp_path / "target").mkdir()
    with pytest.raises(ArtifactError, match=r"not a valid graph: its node.*inputs and needs.*Export the model again"):
        existing.take_existing(model.parent, None, None, tmp_path / "target")
    graph = onnx.load(model)
    for domain, version in (("my.own", 1), ("", 2**40)):
        graph.graph.node[0].domain = domain
        graph.opset_import[0].domain, graph.opset_import[0].version = domain, version
        graph.graph.node[0].op_type = "Own"
        onnx.save(graph, model)
        assert existing.take_existing(model.parent, None, None, tmp_path / "target")[0] == "model.onnx"


def test_a_model_may_have_any_path(tmp_path):
    """Graph and weights of a folder whose name could be a pattern or a chain of file systems are its own: the
    neighbour's are others.
    """
    folder = tmp_path / "mo[d]e*l?::1"
    model = weighted(folder / "model.onnx")
    weighted(tmp_path / "model" / "model.onnx", "y = Relu(x)")
    (folder / "target").mkdir()
    file, _ = existing.take_existing(model.parent, None, None, folder / "target")
    outputs = registry.framework("onnxruntime").open(folder / "target" / file, {})({"x": np.ones((1, 64))})
    np.testing.assert_array_equal(outputs["y"], np.full((1, 64), 64))
    # Products of 7 bits do not saturate on any processor.
    settings = Quantization("dynamic", reduce_range=True)
    report = quantize_model(folder / "target" / file, folder / "quantized.onnx", settings)
    assert report.digest
    outputs = registry.framework("onnxruntime").open(folder / "quantized.onnx", {})({"x": np.ones((1, 64))})
    np.testing.assert_allclose(outputs["y"], np.full((1, 64), 64), rtol=0.02)
