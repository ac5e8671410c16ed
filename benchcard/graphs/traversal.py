"""Iteration over the nodes and tensors of an ONNX graph and of its subgraphs (of `If`, `Loop`, `Scan`)."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that a node holds as attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """Yield every node of a graph and of its subgraphs."""
    for node in graph.node:
        yield node
        for subgraph in subgraphs(node):
            yield from all_nodes(subgraph)


def all_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every tensor that a graph and its subgraphs store, as an initializer or as an attribute."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors
        for subgraph in subgraphs(node):
            yield from all_tensors(subgraph)
