"""Where in a graph the layers are that are worth leaving in float32: layer norms, GELUs, residual sums and the like.

This module owns finding them by structure, whether an exporter wrote one node or the arithmetic out, in operator sets
11 to 23. Names play no part. What an exclusion then comes to is told in `exclude`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard.graphs.graph import Graph

if TYPE_CHECKING:
    import onnx


Found = Iterator[tuple[str, ...]]

# Nodes that leave numbers as they are, and that exporters put anywhere.
_HOPS = frozenset(("Cast", "Identity"))
# Standard operators and those into which ONNX Runtime fuses the arithmetic.
# Source: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
_LAYER_NORMS = frozenset(
    (
        "LayerNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization",
        "EmbedLayerNormalization",
    )
)
_SKIP_NORMS = frozenset(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"))
_GELUS = frozenset(("Gelu", "BiasGelu", "FastGelu", "QuickGelu"))
# What may lie on the short side of a residual connection whose shape changes: a projection.
_PROJECTION = frozenset(
    ("Conv", "BatchNormalization", "MaxPool", "AveragePool", "Pad", "Slice", "Reshape", "Transpose", "Identity", "Cast")
)
# What makes the long side a branch of its own, and not a formula in which one number occurs twice.
_LAYERS = frozenset(
    (
        "MatMul",
        "Gemm",
        "Conv",
        "ConvTranspose",
        "Attention",
        "MultiHeadAttention",
        "GroupQueryAttention",
        "LSTM",
        "GRU",
        "FusedMatMul",
        "FusedConv",
        "FusedGemm",
        "Einsum",
    )
)


def layer_norms(graph: Graph) -> Found:
    """The nodes of each layer norm: `(x - mean) / sqrt(variance + epsilon) * weight + bias`, RMS norms included."""
    for node in graph.nodes.values():
        if node.op_type in _LAYER_NORMS:
            yield (node.name,)
        elif node.op_type == "Sqrt":
            found = _norm_around(graph, node)
            if found:
                yield tuple(dict.fromkeys(found))


def gelus(graph: Graph) -> Found:
    """The nodes of each GELU: `x / 2 * (1 + erf(x / sqrt(2)))`, or with `tanh`, or `x * sigmoid(1.702 x)`."""
    for node in graph.nodes.values():
        if node.op_type in _GELUS:
            yield (node.name,)
        elif node.op_type in ("Erf", "Tanh", "Sigmoid"):
            found = _gelu_around(graph, node)
            if found:
                yield tuple(dict.fromkeys(found))


def residuals(graph: Graph) -> Found:
    """Each `Add` that joins a branch of layers with what went into the branch, also where it is fused with a norm."""
    inside = {name for find in (layer_norms, gelus) for names in find(graph) for name in names if len(names) > 1}
    for node in graph.nodes.values():
        if node.op_type in _SKIP_NORMS or (
            node.op_type == "Add"
            and node.name not in inside
            # A mask, or a position bias, is shared by all layers: what it is added to depends on it from the second on.
            and not _next(graph, node, "Softmax")
            and _joins(graph, node.input[0], node.input[1])
        ):
            yield (node.name,)


def gathers(graph: Graph) -> Found:
    """Each `Gather` of floating-point numbers (an embedding, a token picked) with the `Add` that reads it."""
    for node in graph.nodes.values():
        if node.op_type in ("Gather", "GatherElements", "GatherND") and graph.is_float(node.output[0]):
            yield (node.name, *_next(graph, node, "Add"))
        elif node.op_type == "EmbedLayerNormalization":
            yield (node.name,)


def softmaxes(graph: Graph) -> Found:
    """Each `Softmax` with the `Add` (of a mask) before it."""
    for node in graph.nodes.values():
        if node.op_type == "Softmax":
            before = graph.producer(node.input[0])
            yield (before.name, node.name) if before is not None and before.op_type == "Add" else (node.name,)


def residual_add_relus(graph: Graph) -> Found:
    """Each residual `Add` that a `Relu` follows; the `Add` alone."""
    for (name,) in residuals(graph):
        if _next(graph, graph.nodes[name], "Relu"):
            yield (name,)


def residual_relu_convs(graph: Graph) -> Found:
    """Each `Relu` between a residual `Add` and a `Conv`; the `Relu` alone."""
    for (name,) in residuals(graph):
        for relu in _next(graph, graph.nodes[name], "Relu"):
            if _next(graph, graph.nodes[relu], "Conv"):
                yield (relu,)


FINDERS: Mapping[str, Callable[[Graph], Found]] = MappingProxyType(
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


def _back(graph: Graph, tensor: str) -> tuple[str, list[str]]:
    """The tensor that `tensor` copies, and the nodes between them."""
    hops: list[str] = []
    node = graph.producer(tensor)
    while node is not None and node.op_type in _HOPS and tensor not in graph.constants:
        hops.append(node.name)
        tensor = node.input[0]
        node = graph.producer(tensor)
    return tensor, hops


def _readers(graph: Graph, tensor: str) -> list[tuple[onnx.NodeProto, str, list[str]]]:
    """Who reads a tensor or a copy of it: the node, the name under which it reads, and the nodes between them."""
    found: list[tuple[onnx.NodeProto, str, list[str]]] = []
    for node in graph.readers(tensor):
        if node.op_type in _HOPS:
            found += [(reader, name, [node.name, *hops]) for reader, name, hops in _readers(graph, node.output[0])]
        else:
            found.append((node, tensor, []))
    return found


def _next(graph: Graph, node: onnx.NodeProto, operator: str) -> list[str]:
    """Names of the nodes of one operator that read what `node` gives."""
    return [
        reader.name for tensor in node.output for reader, _, _ in _readers(graph, tensor) if reader.op_type == operator
    ]


def _other(node: onnx.NodeProto, tensor: str) -> str:
    """The other input of a node with two."""
    return str(node.input[1] if node.input[0] == tensor else node.input[0])


def _split_constant(graph: Graph, node: onnx.NodeProto) -> str | None:
    """The input of a node with two that is not constant, where the other is."""
    free = [tensor for tensor in node.input[:2] if tensor not in graph.constants]
    return str(free[0]) if len(node.input) == 2 and len(free) == 1 else None


def _norm_around(graph: Graph, root: onnx.NodeProto) -> list[str]:
    """The nodes of the norm whose deviation `root` takes; none where it is no norm."""
    members = [root.name]

    def step(tensor: str) -> onnx.NodeProto | None:
        source, hops = _back(graph, tensor)
        members.extend(hops)
        return graph.producer(source)

    node = step(root.input[0])
    if node is not None and node.op_type == "Add":
        variance = _split_constant(graph, node)
        members.append(node.name)
        node = step(variance) if variance else None
    if node is None or node.op_type != "ReduceMean":
        return []
    members.append(node.name)
    square = step(node.input[0])
    if square is None or not (
        (square.op_type == "Pow" and square.input[1] in graph.constants)
        or (square.op_type == "Mul" and _back(graph, square.input[0])[0] == _back(graph, square.input[1])[0])
    ):
        return []
    members.append(square.name)
    centred, hops = _back(graph, square.input[0])
    members += hops
    differences, source = _centrings(graph, centred)
    members += differences
    scaled = _divided(graph, root, {centred, source, *(graph.nodes[name].output[0] for name in differences)}, members)
    if scaled is None:
        return []
    for operator in ("Mul", "Add") if differences else ("Mul",):
        readers = _readers(graph, scaled)
        if len(readers) != 1 or readers[0][0].op_type != operator or _split_constant(graph, readers[0][0]) is None:
            break
        members += [*readers[0][2], readers[0][0].name]
        scaled = readers[0][0].output[0]
    return members


def _centrings(graph: Graph, centred: str) -> tuple[list[str], str]:
    """The nodes that take a mean from `x` (some exporters do it twice), and `x`; no nodes where none is taken."""
    node = graph.producer(centred)
    if node is None or node.op_type != "Sub":
        return [], centred
    source = _back(graph, node.input[0])[0]
    mean, hops = _back(graph, node.input[1])
    average = graph.producer(mean)
    if average is None or average.op_type != "ReduceMean" or _back(graph, average.input[0])[0] != source:
        return [], centred
    twins = [reader.name for reader, _, _ in _readers(graph, source) if reader.op_type in ("Sub", "ReduceMean")]
    ours = [
        name
        for name in twins
        if graph.nodes[name].op_type == "Sub" and _is_mean_of(graph, graph.nodes[name].input[1], source)
    ]
    means = [_back(graph, graph.nodes[name].input[1])[0] for name in ours]
    return [*hops, *ours, *(graph.producers[tensor] for tensor in means)], source


def _is_mean_of(graph: Graph, tensor: str, source: str) -> bool:
    node = graph.producer(_back(graph, tensor)[0])
    return node is not None and node.op_type == "ReduceMean" and _back(graph, node.input[0])[0] == source


def _divided(graph: Graph, root: onnx.NodeProto, numerators: set[str], members: list[str]) -> str | None:
    """The tensor in which one of `numerators` is divided by what `root` gives; the nodes to it go to `members`."""
    for reader, name, hops in _readers(graph, root.output[0]):
        if reader.op_type == "Div" and reader.input[1] == name and reader.input[0] not in graph.constants:
            if _back(graph, reader.input[0])[0] in numerators:
                members += [*hops, reader.name]
                return str(reader.output[0])
        elif reader.op_type == "Reciprocal" or (reader.op_type == "Div" and reader.input[1] == name):
            for product, factor, more in _readers(graph, reader.output[0]):
                if product.op_type == "Mul" and _back(graph, _other(product, factor))[0] in numerators:
                    members += [*hops, reader.name, *more, product.name]
                    return str(product.output[0])
    return None


def _gelu_around(graph: Graph, root: onnx.NodeProto) -> list[str]:
    """The nodes of the GELU whose curve `root` is; none where it is no GELU."""
    members, curve = [root.name], str(root.output[0])
    if root.op_type != "Sigmoid":
        readers = _readers(graph, curve)
        if len(readers) != 1 or readers[0][0].op_type != "Add" or _split_constant(graph, readers[0][0]) is None:
            return []
        members += [*readers[0][2], readers[0][0].name]
        curve = readers[0][0].output[0]
    source: str | None = None
    halved = root.op_type == "Sigmoid"
    # Two products follow, with `x` and with a half, in either order, or one, with half of `x`.
    while source is None or not halved:
        readers = _readers(graph, curve)
        if len(readers) != 1 or readers[0][0].op_type not in ("Mul", "Div"):
            return []
        product, name, hops = readers[0]
        factor, between = _back(graph, _other(product, name))
        members += [*hops, *between, product.name]
        if factor in graph.constants:
            halved = True
        elif source is None and product.op_type == "Mul":
            source, half = _source_of_gelu(graph, root, factor)
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


def _source_of_gelu(graph: Graph, root: onnx.NodeProto, factor: str) -> tuple[str | None, list[str]]:
    """The `x` of a GELU, given what its curve is multiplied with: `x`, or half of it by the nodes given too."""
    if _formula(graph, root.input[0], factor) is not None:
        return factor, []
    node = graph.producer(factor)
    if node is not None and node.op_type in ("Mul", "Div"):
        free = _split_constant(graph, node)
        if free is not None:
            source, hops = _back(graph, free)
            if _formula(graph, root.input[0], source) is not None:
                return source, [node.name, *hops]
    return None, []


def _formula(graph: Graph, tensor: str, source: str) -> list[str] | None:
    """The nodes that compute `tensor` from `source` and constants by arithmetic alone; None where more goes into it."""
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
    """True where one of two tensors goes, unchanged or projected, into the layers that the other comes from."""
    if not (graph.is_activation(left) and graph.is_activation(right)):
        return False
    return any(
        _feeds(graph, fork, branch) for short, branch in ((left, right), (right, left)) for fork in _forks(graph, short)
    )


def _forks(graph: Graph, tensor: str) -> Iterator[str]:
    """A tensor, and those from which it comes by a projection alone: at most one `Conv` away."""
    yield tensor
    projected = False
    node = graph.producer(tensor)
    while node is not None and node.op_type in _PROJECTION and not (projected and node.op_type == "Conv"):
        projected = projected or node.op_type == "Conv"
        tensor = node.input[0]
        yield tensor
        node = graph.producer(tensor)


def _feeds(graph: Graph, fork: str, branch: str) -> bool:
    """True where `branch` depends on `fork` by way of a layer with weights, following floating-point numbers only."""
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
