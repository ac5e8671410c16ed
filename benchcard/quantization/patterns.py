"""The layers of a graph that are worth leaving in float32: layer norms, GELUs, residual sums and the like.

This module finds them by structure, not by name, whether an exporter wrote one node or the arithmetic out, in operator
sets 11 to 23. What an exclusion does with them is left to `exclusions`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard.graphs.graph import Graph

if TYPE_CHECKING:
    import onnx


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


def layer_norms(graph: Graph) -> Matches:
    """Yield the nodes of each layer norm: `(x - mean) / sqrt(variance + epsilon) * weight + bias`, RMS norms too."""
    yield from _decomposed(graph, _LAYER_NORMS, ("Sqrt",), _norm_around)


def gelus(graph: Graph) -> Matches:
    """Yield the nodes of each GELU: `x / 2 * (1 + erf(x / sqrt(2)))`, or with `tanh`, or `x * sigmoid(1.702 x)`."""
    yield from _decomposed(graph, _GELUS, ("Erf", "Tanh", "Sigmoid"), _gelu_around)


def _decomposed(
    graph: Graph,
    operators: frozenset[str],
    roots: tuple[str, ...],
    members_around: Callable[[Graph, onnx.NodeProto], list[str]],
) -> Matches:
    """Yield the nodes of one of `operators`, and those of its formula around each node of `roots`."""
    for node in graph.nodes.values():
        if node.op_type in operators:
            yield (node.name,)
        elif node.op_type in roots and (members := members_around(graph, node)):
            yield tuple(dict.fromkeys(members))


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


def _readers(graph: Graph, tensor: str) -> list[tuple[onnx.NodeProto, str, list[str]]]:
    """Return the readers of a tensor or of a copy of it: the node, the name it reads, and the nodes between."""
    readers: list[tuple[onnx.NodeProto, str, list[str]]] = []
    for node in graph.readers(tensor):
        if node.op_type in _COPIES:
            readers += [
                (reader, name, [node.name, *copies]) for reader, name, copies in _readers(graph, node.output[0])
            ]
        else:
            readers.append((node, tensor, []))
    return readers


def _only_reader(graph: Graph, tensor: str, operators: tuple[str, ...]) -> tuple[onnx.NodeProto, str, list[str]] | None:
    """Return the reader of a tensor, as `_readers` does, where there is one only and it is of these operators."""
    readers = _readers(graph, tensor)
    return readers[0] if len(readers) == 1 and readers[0][0].op_type in operators else None


def _next(graph: Graph, node: onnx.NodeProto, operator: str) -> list[str]:
    """Return the names of the nodes of one operator that read what `node` computes."""
    return [
        reader.name for tensor in node.output for reader, _, _ in _readers(graph, tensor) if reader.op_type == operator
    ]


def _other_input(node: onnx.NodeProto, tensor: str) -> str:
    return str(node.input[1] if node.input[0] == tensor else node.input[0])


def _variable_input(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Return the input of a node with two that is not constant, where the other one is."""
    variable = [tensor for tensor in node.input[:2] if tensor not in graph.constants]
    return str(variable[0]) if len(node.input) == 2 and len(variable) == 1 else None


def _norm_around(graph: Graph, root: onnx.NodeProto) -> list[str]:
    """Return the nodes of the norm whose standard deviation `root` computes; none where it is not a norm."""
    members = [root.name]

    def step_back(tensor: str) -> onnx.NodeProto | None:
        source, copies = _origin(graph, tensor)
        members.extend(copies)
        return graph.producer(source)

    node = step_back(root.input[0])
    if node is not None and node.op_type == "Add":
        variance = _variable_input(graph, node)
        members.append(node.name)
        node = step_back(variance) if variance else None
    if node is None or node.op_type != "ReduceMean":
        return []
    members.append(node.name)
    square = step_back(node.input[0])
    if square is None or not (
        (square.op_type == "Pow" and square.input[1] in graph.constants)
        or (square.op_type == "Mul" and _origin(graph, square.input[0])[0] == _origin(graph, square.input[1])[0])
    ):
        return []
    members.append(square.name)
    centred, copies = _origin(graph, square.input[0])
    members += copies
    differences, source = _centring_nodes(graph, centred)
    members += differences
    numerators = {centred, source, *(graph.nodes[name].output[0] for name in differences)}
    scaled = _quotient(graph, root, numerators, members)
    if scaled is None:
        return []
    for operator in ("Mul", "Add") if differences else ("Mul",):
        reader = _only_reader(graph, scaled, (operator,))
        if reader is None or _variable_input(graph, reader[0]) is None:
            break
        members += [*reader[2], reader[0].name]
        scaled = reader[0].output[0]
    return members


def _centring_nodes(graph: Graph, centred: str) -> tuple[list[str], str]:
    """Return the nodes that subtract the mean from `x` (some exporters do so twice), and `x`; none for an RMS norm."""
    node = graph.producer(centred)
    if node is None or node.op_type != "Sub":
        return [], centred
    source = _origin(graph, node.input[0])[0]
    copies = _origin(graph, node.input[1])[1]
    if not _is_mean_of(graph, node.input[1], source):
        return [], centred
    differences = [
        reader.name
        for reader, _, _ in _readers(graph, source)
        if reader.op_type == "Sub" and _is_mean_of(graph, reader.input[1], source)
    ]
    means = [_origin(graph, graph.nodes[name].input[1])[0] for name in differences]
    return [*copies, *differences, *(graph.producers[tensor] for tensor in means)], source


def _is_mean_of(graph: Graph, tensor: str, source: str) -> bool:
    node = graph.producer(_origin(graph, tensor)[0])
    return node is not None and node.op_type == "ReduceMean" and _origin(graph, node.input[0])[0] == source


def _quotient(graph: Graph, root: onnx.NodeProto, numerators: set[str], members: list[str]) -> str | None:
    """Return the tensor in which one of `numerators` is divided by the output of `root`; add its nodes to `members`."""
    for reader, name, copies in _readers(graph, root.output[0]):
        if reader.op_type == "Div" and reader.input[1] == name and reader.input[0] not in graph.constants:
            if _origin(graph, reader.input[0])[0] in numerators:
                members += [*copies, reader.name]
                return str(reader.output[0])
        elif reader.op_type == "Reciprocal" or (reader.op_type == "Div" and reader.input[1] == name):
            for product, factor, more in _readers(graph, reader.output[0]):
                if product.op_type == "Mul" and _origin(graph, _other_input(product, factor))[0] in numerators:
                    members += [*copies, reader.name, *more, product.name]
                    return str(product.output[0])
    return None


def _gelu_around(graph: Graph, root: onnx.NodeProto) -> list[str]:
    """Return the nodes of the GELU whose curve `root` computes; none where it is not a GELU."""
    members, curve = [root.name], str(root.output[0])
    if root.op_type != "Sigmoid":
        sum_ = _only_reader(graph, curve, ("Add",))
        if sum_ is None or _variable_input(graph, sum_[0]) is None:
            return []
        members += [*sum_[2], sum_[0].name]
        curve = sum_[0].output[0]
    source: str | None = None
    halved = root.op_type == "Sigmoid"
    # Two products follow, with `x` and with a half, in either order, or one, with half of `x`.
    while source is None or not halved:
        reader = _only_reader(graph, curve, ("Mul", "Div"))
        if reader is None:
            return []
        product, name, copies = reader
        factor, between = _origin(graph, _other_input(product, name))
        members += [*copies, *between, product.name]
        if factor in graph.constants:
            halved = True
        elif source is None and product.op_type == "Mul":
            source, half = _gelu_input(graph, root, factor)
            if source is None:
                return []
            halved = halved or bool(half)
            members += half
        else:
            return []
        curve = product.output[0]
    inner = _formula(graph, root.input[0], source)
    if inner is None or (root.op_type == "Sigmoid" and not inner):
        return []
    return [*members, *inner]


def _gelu_input(graph: Graph, root: onnx.NodeProto, factor: str) -> tuple[str | None, list[str]]:
    """Return the `x` of a GELU whose curve is multiplied by `factor`, and the nodes where that is half of `x`."""
    if _formula(graph, root.input[0], factor) is not None:
        return factor, []
    node = graph.producer(factor)
    if node is not None and node.op_type in ("Mul", "Div"):
        variable = _variable_input(graph, node)
        if variable is not None:
            source, copies = _origin(graph, variable)
            if _formula(graph, root.input[0], source) is not None:
                return source, [node.name, *copies]
    return None, []


def _formula(graph: Graph, tensor: str, source: str) -> list[str] | None:
    """Return the nodes that compute `tensor` from `source` and constants by arithmetic alone; None where others do."""
    members: dict[str, None] = {}
    pending = [tensor]
    while pending:
        current = pending.pop()
        if current == source or current in graph.constants:
            continue
        node = graph.producer(current)
        if node is None or node.op_type not in ("Mul", "Div", "Add", "Pow", "Cast", "Identity"):
            return None
        members[node.name] = None
        pending.extend(node.input)
    return list(members)


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
