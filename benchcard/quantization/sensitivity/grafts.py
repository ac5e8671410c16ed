"""A float graph into which the quantized form of each of its layers is grafted, fed with the float layer's own inputs.

So a forward pass can tell what quantizing one layer, or a few, does to the layer and to the outputs, while all others
compute in float32. This module owns building such graphs, for dynamic quantization and for both static formats; the
passes are run in `explain`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import onnx
from onnx import TensorProto, helper

from benchcard.graphs.graph import Graph, graph_of, has_subgraph
from benchcard.quantization.report import is_integer

# Names that ONNX Runtime's quantizers give, in `onnxruntime.quantization.quant_utils`.
_FED = "_QuantizeLinear_Input"
_INTEGER = "_quantized"
# Ours, which no exporter uses.
_PREFIX = "benchcard.alone/"


@dataclass(frozen=True)
class Layer:
    """One quantized layer, and where its numbers are found.

    Attributes:
        node: Name of the float node.
        operator: Its operator type.
        tensor: What is compared, in the float graph: the node's output, or that of the `Relu` fused into it.
        alone: The same in the float graph, from the quantized layer fed with float inputs.
        together: The same in the quantized graph, where every layer before it is quantized too.
        switch: Name of an input of one truth value, by which `switchable` puts `alone` in the place of `tensor`.
    """

    node: str
    operator: str
    tensor: str
    alone: str
    together: str
    switch: str


def switchable(
    model: onnx.ModelProto, quantized: onnx.ModelProto, nodes: Collection[str] | None = None
) -> tuple[Layer, ...]:
    """The layers of a quantized graph, in the graph's order, each of which can be switched on in the float model.

    Args:
        model: The float model. Each layer in it becomes an `If` that asks a new input, and takes either form.
        quantized: The quantized model, with its weights. It is left unfit for use.
        nodes: The float nodes to consider; None for all.
    """
    layers: list[Layer] = []
    instead: dict[str, onnx.NodeProto] = {}
    nursery = _Nursery(model, quantized)
    makers = {tensor: node for node in model.graph.node for tensor in node.output}
    for layer, grown in nursery.layers(nodes):
        layers.append(layer)
        maker = makers[layer.tensor]
        instead[maker.name] = _either(layer, grown, maker, nursery.floats.types[layer.tensor])
        model.graph.input.append(helper.make_tensor_value_info(layer.switch, TensorProto.BOOL, []))
    rewritten = [instead.get(node.name, node) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(rewritten)
    _import_domains(model, quantized)
    return tuple(layers)


def exposed(model: onnx.ModelProto, quantized: onnx.ModelProto, nodes: Collection[str]) -> tuple[Layer, ...]:
    """The layers of a quantized graph that belong to `nodes`, whose tensors become the outputs of both models.

    What none of these tensors depends on is cut off.
    """
    layers: list[Layer] = []
    nursery = _Nursery(model, quantized)
    for layer, grown in nursery.layers(nodes):
        layers.append(layer)
        model.graph.node.extend(grown)
    kinds = [nursery.floats.types[layer.tensor] for layer in layers]
    _show(model, {name: kind for layer, kind in zip(layers, kinds) for name in (layer.tensor, layer.alone)})
    _show(quantized, {layer.together: kind for layer, kind in zip(layers, kinds)})
    _import_domains(model, quantized)
    return tuple(layers)


def _either(layer: Layer, grown: Sequence[onnx.NodeProto], maker: onnx.NodeProto, kind: int) -> onnx.NodeProto:
    """The node that computes a layer's output, of this element type, in one form or the other, as its switch says."""
    plain = onnx.NodeProto()
    plain.CopyFrom(maker)
    place = list(maker.output).index(layer.tensor)
    plain.output[place] = f"{layer.alone}/float"
    plain.name = f"{layer.switch}/float"
    outputs = (layer.alone, plain.output[place])
    branches = [
        helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, kind, None)])
        for name, nodes, output in (("quantized", grown, outputs[0]), ("float", [plain], outputs[1]))
    ]
    return helper.make_node(
        "If", [layer.switch], [layer.tensor], name=maker.name, then_branch=branches[0], else_branch=branches[1]
    )


def _show(model: onnx.ModelProto, tensors: Mapping[str, int]) -> None:
    """Make tensors, given with their element types, the outputs of a model, and cut off what they do not depend on."""
    graph = model.graph
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(tensor, kind, None) for tensor, kind in tensors.items())
    if any(has_subgraph(node) for node in graph.node):
        # Nodes inside read what is outside by its name alone.
        return
    makers = {tensor: node for node in graph.node for tensor in node.output}
    needed: set[str] = set()
    pending = list(tensors)
    while pending:
        tensor = pending.pop()
        if tensor not in needed:
            needed.add(tensor)
            pending.extend(makers[tensor].input if tensor in makers else ())
    for field in (graph.node, graph.initializer):
        names = ([part.name] if isinstance(part, TensorProto) else part.output for part in field)
        unneeded = [place for place, each in enumerate(names) if needed.isdisjoint(each)]
        for place in reversed(unneeded):
            del field[place]


def _import_domains(model: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
    there = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(entry for entry in quantized.opset_import if entry.domain not in there)


class _Nursery:
    """A float model while the layers of its quantized form are grafted into it."""

    def __init__(self, model: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
        self.model, self.quantized = model, quantized
        self.floats: Graph = graph_of(model)
        self.integers: Graph = graph_of(quantized, typed=False)
        self.weights: Mapping[str, TensorProto] = MappingProxyType(
            {weight.name: weight for weight in quantized.graph.initializer}
        )
        self.known = {*self.floats.producers, *self.floats.weights, *(value.name for value in model.graph.input)}
        self.taken: dict[str, str] = {}
        self.fused = frozenset(tensor for tensor in self.floats.producers if self._is_fused(tensor))

    def layers(self, nodes: Collection[str] | None) -> Iterator[tuple[Layer, list[onnx.NodeProto]]]:
        """Every quantized layer, or those of `nodes`, and the nodes that compute it from float inputs, in order."""
        for node in tuple(self.floats.nodes.values()):
            tensor = node.output[0] if node.output else ""
            if not self.floats.is_activation(tensor) or not self.floats.is_float(tensor) or tensor in self.fused:
                continue
            end = self._end(tensor)
            named = self._excludable(node)
            # A second output that somebody reads could not be switched along with the first.
            others = [other for other in node.output[1:] if other]
            single = not any(self.floats.readers(other) or other in self.floats.outputs for other in others)
            if end is None or not single or (nodes is not None and named.name not in nodes):
                continue
            grown: dict[str, onnx.NodeProto] = {}
            alone = self._grow(end, tensor, f"{_PREFIX}{node.name}/", grown)
            # The last pair only stores the output in 8 bits, for a reader's sake; a quantized layer computes in them.
            inner = set(grown).difference(self._closing(end))
            if any(is_integer(grown[name].op_type) for name in inner):
                layer = Layer(named.name, named.op_type, tensor, alone, end, f"{_PREFIX}{node.name}")
                yield layer, list(grown.values())

    def _is_fused(self, tensor: str) -> bool:
        """True for what goes only into a `Relu` or `Clip` whose range it has: it may be cut where that would cut it."""
        readers = self.floats.readers(tensor)
        if len(readers) != 1 or readers[0].op_type not in ("Relu", "Clip") or tensor in self.floats.outputs:
            return False
        stored = any(reader.op_type == "QuantizeLinear" for reader in self.integers.readers(tensor))
        return readers[0].name not in self.integers.nodes or stored

    def _end(self, tensor: str) -> str | None:
        """The floating-point tensor of the quantized graph that stands for `tensor`; None where it has none."""
        for name in (tensor, tensor + _FED):
            for reader in self.integers.readers(name):
                if reader.op_type == "QuantizeLinear":
                    for end in self.integers.readers(reader.output[0]):
                        if end.op_type == "DequantizeLinear":
                            return str(end.output[0])
        if tensor in self.integers.producers:
            return tensor
        source = self.floats.producer(tensor)
        for name in (tensor, *(source.input[:1] if source is not None and source.op_type in ("Relu", "Clip") else ())):
            if name + _INTEGER in self.integers.producers and f"{name}_scale" in self.weights:
                return self._dequantized(name, tensor)
        return None

    def _dequantized(self, name: str, tensor: str) -> str:
        """A new tensor of the quantized graph: the 8-bit tensor of a layer whose readers all take 8 bits, as floats."""
        end = f"{_PREFIX}{tensor}"
        node = helper.make_node(
            "DequantizeLinear", [name + _INTEGER, f"{name}_scale", f"{name}_zero_point"], [end], name=end
        )
        self.quantized.graph.node.append(node)
        self.integers = graph_of(self.quantized, typed=False)
        return end

    def _closing(self, end: str) -> frozenset[str]:
        """Names of the nodes that store a layer's output in 8 bits and read it back."""
        names: list[str] = []
        node = self.integers.producer(end)
        while node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            names.append(node.name)
            node = self.integers.producer(node.input[0])
        return frozenset(names)

    def _grow(self, tensor: str, target: str, prefix: str, grown: dict[str, onnx.NodeProto]) -> str:
        """The tensor of the float graph that equals `tensor` of the quantized one when its layer is fed with floats.

        The nodes between are put into `grown`, makers first.
        """
        if tensor in self.weights:
            return self._weight(tensor)
        original = tensor.removesuffix(_FED)
        if original != target and original in self.known and original not in self.fused:
            return original
        stored = tensor.removesuffix(_INTEGER)
        if stored not in (tensor, target) and stored in self.known and f"{stored}_scale" in self.weights:
            # In the format QOperator a `Relu` is no node any more: its output has the name of its input.
            fused = stored in self.fused
            source = self.floats.readers(stored)[0].output[0] if fused else stored
            if source != target:
                return self._stored(stored, source, prefix, grown)
        node = self.integers.producer(tensor)
        if node is None:
            return tensor
        if node.name not in grown:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            inputs = [self._grow(each, target, prefix, grown) if each else "" for each in node.input]
            del copy.input[:]
            copy.input.extend(inputs)
            copy.name = prefix + node.name
            outputs = [prefix + each if each else "" for each in node.output]
            del copy.output[:]
            copy.output.extend(outputs)
            grown[node.name] = copy
        return prefix + tensor

    def _stored(self, tensor: str, source: str, prefix: str, grown: dict[str, onnx.NodeProto]) -> str:
        """What a layer before would have handed on as `tensor`: the float `source` in the same 8 bits."""
        name = tensor + _INTEGER
        if name not in grown:
            inputs = [source, self._weight(f"{tensor}_scale"), self._weight(f"{tensor}_zero_point")]
            grown[name] = helper.make_node("QuantizeLinear", inputs, [prefix + name], name=prefix + name)
        return prefix + name

    def _weight(self, tensor: str) -> str:
        """The name, in the float graph, of a weight of the quantized one."""
        if tensor in self.floats.weights:
            return tensor
        if tensor not in self.taken:
            weight = self.model.graph.initializer.add()
            weight.CopyFrom(self.weights[tensor])
            weight.name = _PREFIX + tensor
            self.taken[tensor] = weight.name
        return self.taken[tensor]

    def _excludable(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """The node to name for a layer: what computes, and not the `Relu` after it."""
        while node.op_type in ("Relu", "Clip") and node.input[0] in self.fused:
            before = self.floats.producer(node.input[0])
            if before is None:
                break
            node = before
        return node
