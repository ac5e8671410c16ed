"""The inputs of a graph, as its file and a session declare them."""

from __future__ import annotations

import onnx
import pytest
from tiny_graphs import saved, written

from benchcard.graphs.graph import rename_values
from benchcard.graphs.runtime import open_session
from benchcard.graphs.signature import graph_inputs, only_batch_size, only_length, session_inputs


@pytest.mark.parametrize(
    ("inputs", "batch_size", "length"),
    [
        ("int64[2, 7] a, int64[2, 7] b_", 2, 7),
        ("int64[b, 7] a, int64[b, 7] b_", None, 7),
        ("int64[b, 7] a, int64[b, s] b_", None, None),
        ("float[1, 3, 8, 8] a", 1, None),
        ("float16[b, 9] a, bool[4] b_", None, None),
    ],
)
def test_sizes_are_alike_in_a_file_and_in_a_session(inputs, batch_size, length, tmp_path):
    """File and session have the same names, types and sizes; the length is that of whole numbers alone."""
    text = f'<ir_version: 8, opset_import: ["" : 13]> g ({inputs}) => (int64[n] s) {{ s = Shape(a) }}'
    path = saved(written(text), tmp_path / "g.onnx")
    found = graph_inputs(onnx.load(path).graph)
    assert found == session_inputs(open_session(path, 0))
    assert only_batch_size(found) == batch_size
    assert only_length(found) == length


def test_values_change_their_names_everywhere():
    """Nodes, outputs and subgraphs follow; two tensors may exchange their names."""
    body = (
        "c = Add(a, b_) y = If (yes) <then_branch = t () => (float z) { z = Neg(a) }, "
        "else_branch = e () => (float z2) { z2 = Neg(c) }>"
    )
    model = written(
        f'<ir_version: 8, opset_import: ["" : 13]> g (float a, float b_, bool yes) => (float y) {{ {body} }}'
    )
    rename_values(model, {"a": "b_", "b_": "a", "y": "c"})
    assert [value.name for value in model.graph.input] == ["b_", "a", "yes"]
    assert [value.name for value in model.graph.output] == ["c"]
    add, choice = model.graph.node
    assert [*add.input, *add.output] == ["b_", "a", "c_"]
    assert [branch.g.node[0].input[0] for branch in choice.attribute] == ["b_", "c_"]
    onnx.checker.check_model(model)
