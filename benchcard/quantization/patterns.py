"""The layers of a graph that are worth leaving in float32: layer norms, GELUs, residual sums and the like.

This module finds them by structure, not by name, whether an exporter wrote one node or the arithmetic out, in operator
sets 11 to 23. What an exclusion does with them is left to `exclusions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import TypeAlias

import onnx

from benchcard.graphs.graph import Graph

# The names of the nodes of each place where a pattern is found.
Matches = Iterator[tuple[str, ...]]

# Nodes that leave numbers as they are, and that exporters insert anywhere.
_COPIES = frozenset(("Cast", "Identity"))
# Standard operators and those into which ONNX Runtime fuses the arithmetic.
# Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
_SKIP_NORMS = frozenset(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"))
_LAYER_NORMS = _SKIP_NORMS | frozenset(
    ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "EmbedLayerNormalization")
)
_GELUS = frozenset(("Gelu", "BiasGelu", "FastGelu", "QuickGelu"))
# What may lie on the short side of a residual connection whose shape changes: a projection.
_PROJECTION = frozenset(
    ("Conv", "BatchNormalization", "MaxPool", "AveragePool", "Pad", "Slice", "Reshape", "Transpose", "Identity", "Cast")
)
# What makes the long side a branch of its own, and not a formula in which one number occurs twice.
_LAYER_NAMES = (
    "MatMul Gemm Conv ConvTranspose Attention MultiHeadAttention GroupQueryAttention LSTM GRU FusedMatMul FusedConv "
    "FusedGemm Einsum"
)
_LAYERS = frozenset(_LAYER_NAMES.split())


# How a tensor is computed: an operator with the formulas of its operands, a list of alternatives, or one of these:
# the same tensor everywhere in a formula, with its copies or without; a tensor that depends on no input; and arithmetic
# of `x` and such tensors.
_Formula: TypeAlias = "str | list[_Formula] | tuple[_Formula, ...]"
_X, _PLAIN_X, _CONSTANT, _ARITHMETIC = "x", "plain x", "constant", "arithmetic"


def _normalized(numerator: _Formula, centred: _Formula) -> _Formula:
    """Return the formulas of `numerator / sqrt(mean(centred ** 2) + epsilon)`."""
    variance: _Formula = ("ReduceMean", [("Pow", centred, _CONSTANT), ("Mul", centred, centred)])
    deviation: _Formula = ("Sqrt", [("Add", variance, _CONSTANT), variance])
    reciprocal: _Formula = [("Reciprocal", deviation), ("Div", _CONSTANT, deviation)]
    return [("Div", numerator, deviation), ("Mul", numerator, reciprocal)]


def _halved(formula: _Formula) -> _Formula:
    return [("Mul", formula, _CONSTANT), ("Div", formula, _CONSTANT)]


_CENTRED: _Formula = ("Sub", _PLAIN_X, ("ReduceMean", _PLAIN_X))
_LAYER_NORM = _normalized([_CENTRED, _PLAIN_X], _CENTRED)
_RMS_NORM = _normalized(_X, _X)
_NORM_FORMULAS: _Formula = [
    ("Add", ("Mul", _LAYER_NORM, _CONSTANT), _CONSTANT),
    ("Mul", [_LAYER_NORM, _RMS_NORM], _CONSTANT),
    _LAYER_NORM,
    _RMS_NORM,
]
_CURVE: _Formula = ("Add", [("Erf", [_ARITHMETIC, _X]), ("Tanh", [_ARITHMETIC, _X])], _CONSTANT)
_GELU_FORMULAS: _Formula = [
    ("Mul", _halved(_X), _CURVE),
    _halved(("Mul", _X, _CURVE)),
    ("Mul", _X, _halved(_CURVE)),
    ("Mul", _X, ("Sigmoid", _ARITHMETIC)),
]


def layer_norms(graph: Graph) -> Matches:
    """Yield the nodes of each layer norm: `(x - mean) / sqrt(variance + epsilon) * weight + bias`, RMS norms too."""
    yield from _places(graph, _LAYER_NORMS, _NORM_FORMULAS, ("Sqrt",))


def gelus(graph: Graph) -> Matches:
    """Yield the nodes of each GELU: `x / 2 * (1 + erf(x / sqrt(2)))`, or with `tanh`, or `x * sigmoid(1.702 x)`."""
    yield from _places(graph, _GELUS, _GELU_FORMULAS, ("Erf", "Tanh", "Sigmoid"))


def _places(graph: Graph, operators: frozenset[str], formulas: _Formula, roots: tuple[str, ...]) -> Matches:
    """Yield each node of one of `operators`, and the nodes of the longest formula around each node of `roots`."""
    longest: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes.values():
        if node.op_type in operators:
            yield (node.name,)
        elif node.op_type in ("Add", "Mul", "Div"):
            for _, members in _matches(graph, node.output[0], formulas, None):
                unique = tuple(dict.fromkeys(members))
                root = next(name for name in unique if graph.nodes[name].op_type in roots)
                longest[root] = max(longest.get(root, ()), unique, key=len)
    yield from longest.values()


def _matches(graph: Graph, tensor: str, formula: _Formula, x: str | None) -> Iterator[tuple[str | None, list[str]]]:
    """Yield the `x` of a formula and the nodes that compute it, for each way in which a tensor is computed like that.

    None stands for an `x` that is not known yet.
    """
    source, copies = _origin(graph, tensor)
    node = graph.producer(source)
    if isinstance(formula, list):
        for alternative in formula:
            yield from _matches(graph, tensor, alternative, x)
    elif formula == _CONSTANT:
        if source in graph.constants:
            yield x, copies
    elif formula in (_X, _PLAIN_X):
        if source not in graph.constants and x in (None, source):
            yield source, copies if formula == _X else []
    elif formula == _ARITHMETIC:
        if x is not None and (members := _arithmetic(graph, source, x)):
            yield x, [*copies, *members]
    elif node is not None and node.op_type == formula[0]:
        inputs = list(node.input[: len(formula) - 1])
        for operands in (inputs, inputs[::-1]) if node.op_type in ("Add", "Mul") else (inputs,):
            for bound, members in _match_operands(graph, operands, formula[1:], x):
                yield bound, [*copies, node.name, *members]


def _match_operands(
    graph: Graph, operands: Sequence[str], formulas: Sequence[_Formula], x: str | None
) -> Iterator[tuple[str | None, list[str]]]:
    """Yield the `x` of the formulas of all operands and the nodes that compute these, as `_matches` does for one."""
    if not operands:
        yield x, []
        return
    for bound, members in _matches(graph, operands[0], formulas[0], x):
        for last, others in _match_operands(graph, operands[1:], formulas[1:], bound):
            yield last, [*members, *others]


def _arithmetic(graph: Graph, tensor: str, x: str) -> list[str]:
    """Return the nodes that compute a tensor from `x` and constants by arithmetic alone; none where others do."""
    members: list[str] = []
    pending = [tensor]
    while pending:
        current = pending.pop()
        if current == x or current in graph.constants:
            continue
        node = graph.producer(current)
        if node is None or node.op_type not in ("Mul", "Div", "Add", "Pow", "Cast", "Identity"):
            return []
        members.append(node.name)
        pending.extend(node.input)
    return members


def residuals(graph: Graph) -> Matches:
    """Yield each `Add` that joins a branch of layers with the branch's input, also where it is fused with a norm."""
    inner = {name for find in (layer_norms, gelus) for names in find(graph) for name in names if len(names) > 1}
    for node in graph.nodes.values():
        if node.op_type in _SKIP_NORMS or (
            node.op_type == "Add"
            and node.name not in inner
            # All layers share a mask or a position bias, so from the second layer on what it is added to depends on it.
            and not _next(graph, node, "Softmax")
            and _joins(graph, node.input[0], node.input[1])
        ):
            yield (node.name,)


def gathers(graph: Graph) -> Matches:
    """Yield each `Gather` of floating-point numbers (an embedding, a token picked) with the `Add` that reads it."""
    for node in graph.nodes.values():
        if node.op_type in ("Gather", "GatherElements", "GatherND") and graph.is_float(node.output[0]):
            yield (node.name, *_next(graph, node, "Add"))
        elif node.op_type == "EmbedLayerNormalization":
            yield (node.name,)


def softmaxes(graph: Graph) -> Matches:
    """Yield each `Softmax` with the `Add` (of a mask) before it."""
    for node in graph.nodes.values():
        if node.op_type == "Softmax":
            before = graph.producer(node.input[0])
            yield (before.name, node.name) if before is not None and before.op_type == "Add" else (node.name,)


def residual_add_relus(graph: Graph) -> Matches:
    """Yield each residual `Add` before a `Relu`; the `Add` alone."""
    for (name,) in residuals(graph):
        if _next(graph, graph.nodes[name], "Relu"):
            yield (name,)


def residual_relu_convs(graph: Graph) -> Matches:
    """Yield each `Relu` between a residual `Add` and a `Conv`; the `Relu` alone."""
    for (name,) in residuals(graph):
        for relu in _next(graph, graph.nodes[name], "Relu"):
            if _next(graph, graph.nodes[relu], "Conv"):
                yield (relu,)


FINDERS: Mapping[str, Callable[[Graph], Matches]] = MappingProxyType(
    {
        "layernorm": layer_norms,
        "gelu": gelus,
        "residual": residuals,
        "gather": gathers,
        "softmax": softmaxes,
        "residual-add-relu": residual_add_relus,
        "residual-relu-conv": residual_relu_convs,
    }
)


def _origin(graph: Graph, tensor: str) -> tuple[str, list[str]]:
    """Return the tensor that `tensor` is a copy of, and the nodes between them."""
    copies: list[str] = []
    node = graph.producer(tensor)
    while node is not None and node.op_type in _COPIES and tensor not in graph.constants:
        copies.append(node.name)
        tensor = node.input[0]
        node = graph.producer(tensor)
    return tensor, copies


def _readers(graph: Graph, tensor: str) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that read a tensor or a copy of it."""
    for node in graph.readers(tensor):
        if node.op_type in _COPIES:
            yield from _readers(graph, node.output[0])
        else:
            yield node


def _next(graph: Graph, node: onnx.NodeProto, operator: str) -> list[str]:
    """Return the names of the nodes of one operator that read what `node` computes."""
    readers = chain.from_iterable(_readers(graph, tensor) for tensor in node.output)
    return [reader.name for reader in readers if reader.op_type == operator]


def _joins(graph: Graph, left: str, right: str) -> bool:
    """Return whether one of two tensors, unchanged or projected, is the input of the layers that give the other."""
    if not (graph.is_activation(left) and graph.is_activation(right)):
        return False
    return any(
        _feeds(graph, fork, branch) for short, branch in ((left, right), (right, left)) for fork in _forks(graph, short)
    )


def _forks(graph: Graph, tensor: str) -> Iterator[str]:
    """Yield a tensor and those that it is a projection of: at most one `Conv` away."""
    yield tensor
    projected = False
    node = graph.producer(tensor)
    while node is not None and node.op_type in _PROJECTION and not (projected and node.op_type == "Conv"):
        projected = projected or node.op_type == "Conv"
        tensor = node.input[0]
        yield tensor
        node = graph.producer(tensor)


def _feeds(graph: Graph, fork: str, branch: str) -> bool:
    """Return whether `branch` depends on `fork` through a layer with weights, over floating-point tensors only."""
    pending: list[tuple[str, bool]] = [(branch, False)]
    seen: set[tuple[str, bool]] = set()
    while pending:
        tensor, layered = pending.pop()
        if tensor == fork and layered:
            return True
        node = graph.producer(tensor)
        if node is None or (tensor, layered) in seen or not graph.is_activation(tensor):
            continue
        seen.add((tensor, layered))
        pending.extend((source, layered or node.op_type in _LAYERS) for source in node.input if source)
    return False
