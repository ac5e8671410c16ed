"""The form of exported graphs: what is taken out of them changes nothing that they compute."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
from tiny_graphs import written

from benchcard.export import normal_form
from benchcard.export.probes import ModelInput

BRANCHES = """
<ir_version: 8, opset_import: ["" : 13]>
main (float[n] x, bool c) => (float[n] y) {
    twice = Add(x, x)
    kept = Identity(twice)
    chosen = If(c) <
        then_branch = yes () => (float[n] a) { a = Identity(kept) },
        else_branch = no () => (float[n] b) { root = Sqrt(kept) b = Identity(root) }
    >
    again = If(c) <
        then_branch = yes2 () => (float[n] a2) { a2 = Identity(kept) },
        else_branch = no2 () => (float[n] b2) { b2 = Identity(x) }
    >
    y = Add(chosen, again)
}
"""


def test_a_branch_gives_only_what_it_makes():
    """An `Identity` by which a branch hands out a value from around it stays; the others go."""
    proto = written(BRANCHES)
    inputs = [ModelInput("x", ("batch",)), ModelInput("c", ())]
    graph = normal_form.normalize(ir.from_proto(proto), inputs, ["y"], "model")
    operators = [node.op_type for node in ir.traversal.RecursiveGraphIterator(graph.graph)]
    assert (operators.count("Identity"), operators.count("Sqrt")) == (3, 1)
    made = ir.to_proto(graph).SerializeToString()
    for chosen in (True, False):
        feeds = {"x": np.array([2, 8], np.float32), "c": np.array(chosen)}
        before, after = (
            onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
            for model in (proto.SerializeToString(), made)
        )
        np.testing.assert_array_equal(before, after)
