"""Iteration over a graph includes its subgraphs."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_graphs import written

from benchcard.graphs.graph import captured_tensors
from benchcard.graphs.traversal import all_nodes, all_tensors, subgraphs


@pytest.fixture
def nested():
    """A graph with an `If`, of which one branch holds another `If` and a weight."""
    return written(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[4] x, bool c) => (float[4] y) {
            h = Relu(x)
            y = If(c) <
                then_branch = a () => (float[4] p) <float[4] b = {1, 2, 3, 4}> {
                    p = If(c) <then_branch = i () => (float[4] q) { q = Add(b, w) },
                               else_branch = j () => (float[4] r) { r = Neg(h) }>
                },
                else_branch = e () => (float[4] s) { k = Constant<value = float[1] {2}>() s = Mul(h, k) }
            >
        }""",
        {"w": np.ones(4, np.float32)},
    ).graph


def test_nodes_of_all_levels_are_visited(nested):
    """Nodes of branches, and of branches in branches, follow the node that holds them."""
    assert [node.op_type for node in all_nodes(nested)] == ["Relu", "If", "If", "Add", "Neg", "Constant", "Mul"]
    assert [graph.name for graph in subgraphs(nested.node[1])] == ["a", "e"]


def test_tensors_of_all_levels_are_visited(nested):
    """Initializers and tensor attributes of every level are visited, each once."""
    tensors = list(all_tensors(nested))
    assert [tensor.name for tensor in tensors if tensor.name] == ["w", "b"]
    assert len(tensors) == 3


def test_captured_tensors_come_from_outside(nested):
    """What a subgraph reads and does not define, at any depth, is captured by the node that holds it."""
    assert captured_tensors(nested.node[1]) == {"c", "h", "w"}
