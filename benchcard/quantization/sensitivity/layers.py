"""A float graph extended by the quantized form of each of its layers, which reads the float layer's own inputs.

A forward pass then shows what quantizing a few layers does to the outputs while all others compute in float32. This
module builds such graphs, for dynamic quantization and for both static formats; `losses` and `search` run them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from benchcard.graphs.graph import Graph, graph_of, has_subgraph
from benchcard.quantization.operators import is_integer_operator

# Suffixes of the names that ONNX Runtime's quantizers give. Source: `onnxruntime.quantization.quant_utils`.
_QUANTIZER_INPUT = "_QuantizeLinear_Input"
_QUANTIZED = "_quantized"
# The prefix of the names that this module gives, which no exporter uses.
_PREFIX = "benchcard.alone/"


@dataclass(frozen=True)
class Layer:
    """One quantized layer, and the tensors that hold its output.

    Attributes:
        tensor: In the float graph: the node's output, or that of the `Relu` fused into it.
        alone: In the float graph: the output of the quantized layer that reads float inputs.
        together: In the quantized graph, where every layer before it is quantized too.
        switch: Name of a boolean input by which `add_switches` puts `alone` in the place of `tensor`.
    """

    node: str
    operator: str
    tensor: str
    alone: str
    together: str
    switch: str


def add_switches(
    model: onnx.ModelProto, quantized: onnx.ModelProto, nodes: Collection[str] | None = None
) -> tuple[Layer, ...]:
    """Make each layer of the float model switchable to its quantized form, and return the layers in graph order.

    Each layer becomes an `If` with an input of its own, which selects the form. `quantized` is the model with its
    weights; it cannot be used afterwards. Only layers of `nodes` are considered; None for all.
    """
    builder = _LayerBuilder(model, quantized)
    makers = {tensor: node for node in model.graph.node for tensor in node.output}
    built = list(builder.layers(nodes))
    replacements: dict[str, onnx.NodeProto] = {}
    for layer, copies in built:
        maker = makers[layer.tensor]
        replacements[maker.name] = _switch_node(layer, copies, maker, builder.floats.types[layer.tensor])
        model.graph.input.append(helper.make_tensor_value_info(layer.switch, TensorProto.BOOL, []))
    rewritten = [replacements.get(node.name, node) for node in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(rewritten)
    return tuple(layer for layer, _ in built)


def expose_layers(model: onnx.ModelProto, quantized: onnx.ModelProto, nodes: Collection[str]) -> tuple[Layer, ...]:
    """Make the tensors of the layers of `nodes` the outputs of both models, and return these layers.

    What none of these tensors depends on is removed.
    """
    builder = _LayerBuilder(model, quantized)
    types: dict[Layer, int] = {}
    for layer, copies in builder.layers(nodes):
        types[layer] = builder.floats.types[layer.tensor]
        model.graph.node.extend(copies)
    _set_outputs(model, {name: dtype for layer, dtype in types.items() for name in (layer.tensor, layer.alone)})
    _set_outputs(quantized, {layer.together: dtype for layer, dtype in types.items()})
    return tuple(types)


def _switch_node(layer: Layer, copies: Sequence[onnx.NodeProto], maker: onnx.NodeProto, dtype: int) -> onnx.NodeProto:
    """Return an `If` that computes a layer's output, of element type `dtype`, by `copies` in 8 bits or by `maker`."""
    float_node = onnx.NodeProto()
    float_node.CopyFrom(maker)
    output = f"{layer.alone}/float"
    float_node.output[list(maker.output).index(layer.tensor)] = output
    float_node.name = f"{layer.switch}/float"
    branches = {
        branch: helper.make_graph(nodes, branch, [], [helper.make_tensor_value_info(tensor, dtype, None)])
        for branch, nodes, tensor in (("then_branch", copies, layer.alone), ("else_branch", [float_node], output))
    }
    return helper.make_node("If", [layer.switch], [layer.tensor], maker.name, **branches)


def _set_outputs(model: onnx.ModelProto, types: Mapping[str, int]) -> None:
    """Make tensors, given with their element types, the outputs of a model, and remove what none depends on."""
    graph = model.graph
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(tensor, dtype, None) for tensor, dtype in types.items())
    if any(has_subgraph(node) for node in graph.node):
        # Nodes of a subgraph read outer tensors by name alone.
        return
    makers = {tensor: node for node in graph.node for tensor in node.output}
    needed: set[str] = set()
    pending = list(types)
    while pending:
        tensor = pending.pop()
        if tensor not in needed:
            needed.add(tensor)
            pending.extend(makers[tensor].input if tensor in makers else ())
    for field in (graph.node, graph.initializer):
        names = ([part.name] if isinstance(part, TensorProto) else part.output for part in field)
        unneeded = [index for index, outputs in enumerate(names) if needed.isdisjoint(outputs)]
        for index in reversed(unneeded):
            del field[index]


class _LayerBuilder:
    """Copies the layers of a quantized model, whose graph is `integers`, into its float model, `floats`."""

    def __init__(self, model: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
        self._model, self._quantized = model, quantized
        self.floats: Graph = graph_of(model)
        self.integers: Graph = graph_of(quantized, infer_types=False)
        self._weights: Mapping[str, TensorProto] = {weight.name: weight for weight in quantized.graph.initializer}
        self._tensors = {*self.floats.producers, *self.floats.weights, *(value.name for value in model.graph.input)}
        self._copied_weights: set[str] = set()
        self._fused = frozenset(tensor for tensor in self.floats.producers if self._is_fused(tensor))
        domains = {entry.domain for entry in model.opset_import}
        model.opset_import.extend(entry for entry in quantized.opset_import if entry.domain not in domains)

    def layers(self, nodes: Collection[str] | None) -> Iterator[tuple[Layer, list[onnx.NodeProto]]]:
        """Yield every quantized layer, or those of `nodes`, with the nodes that compute it from float inputs."""
        for node in tuple(self.floats.nodes.values()):
            tensor = node.output[0] if node.output else ""
            if not self.floats.is_activation(tensor) or not self.floats.is_float(tensor) or tensor in self._fused:
                continue
            end = self._find_end(tensor)
            excludable = self._excludable_node(node)
            # A second output that is read could not be switched along with the first.
            is_single = not any(self.floats.readers(other) or other in self.floats.outputs for other in node.output[1:])
            if end is None or not is_single or (nodes is not None and excludable.name not in nodes):
                continue
            copies: dict[str, onnx.NodeProto] = {}
            alone = self._copy(end, tensor, f"{_PREFIX}{node.name}/", copies)
            # The last pair only stores the output in 8 bits, for its readers; a quantized layer computes in them.
            inner = set(copies).difference(self._closing_nodes(end))
            if any(is_integer_operator(copies[name].op_type) for name in inner):
                layer = Layer(excludable.name, excludable.op_type, tensor, alone, end, f"{_PREFIX}{node.name}")
                yield layer, list(copies.values())

    def _is_fused(self, tensor: str) -> bool:
        """Return whether only a `Relu` or `Clip` reads a tensor, which then may be cut to the range of the reader."""
        readers = self.floats.readers(tensor)
        if len(readers) != 1 or readers[0].op_type not in ("Relu", "Clip") or tensor in self.floats.outputs:
            return False
        is_stored = any(reader.op_type == "QuantizeLinear" for reader in self.integers.readers(tensor))
        return readers[0].name not in self.integers.nodes or is_stored

    def _find_end(self, tensor: str) -> str | None:
        """Return the floating-point tensor of the quantized graph that stands for `tensor`; None where none does."""
        for name in (tensor, tensor + _QUANTIZER_INPUT):
            for reader in self.integers.readers(name):
                if reader.op_type == "QuantizeLinear":
                    for end in self.integers.readers(reader.output[0]):
                        if end.op_type == "DequantizeLinear":
                            return str(end.output[0])
        if tensor in self.integers.producers:
            return tensor
        source = self.floats.nodes[self.floats.producers[tensor]]
        is_cut = source.op_type in ("Relu", "Clip")
        for name in (tensor, source.input[0]) if is_cut else (tensor,):
            if name + _QUANTIZED in self.integers.producers and f"{name}_scale" in self._weights:
                return self._add_dequantized(name, tensor)
        return None

    def _add_dequantized(self, name: str, tensor: str) -> str:
        """Add to the quantized graph, as floats, the 8-bit output of a layer whose readers all take 8 bits."""
        end = f"{_PREFIX}{tensor}"
        inputs = [name + _QUANTIZED, f"{name}_scale", f"{name}_zero_point"]
        self._quantized.graph.node.append(helper.make_node("DequantizeLinear", inputs, [end], name=end))
        self.integers = graph_of(self._quantized, infer_types=False)
        return end

    def _closing_nodes(self, end: str) -> frozenset[str]:
        """Return the names of the nodes that store a layer's output in 8 bits and read it back."""
        names: list[str] = []
        node = self.integers.producer(end)
        while node is not None and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            names.append(node.name)
            node = self.integers.producer(node.input[0])
        return frozenset(names)

    def _copy(self, tensor: str, target: str, prefix: str, copies: dict[str, onnx.NodeProto]) -> str:
        """Return the tensor of the float graph that equals `tensor` of the quantized one when its layer reads floats.

        Copies of the nodes that compute it are added to `copies` in topological order.
        """
        if tensor in self._weights:
            return self._copy_weight(tensor)
        original = tensor.removesuffix(_QUANTIZER_INPUT)
        if original != target and original in self._tensors and original not in self._fused:
            return original
        stored = tensor.removesuffix(_QUANTIZED)
        if stored not in (tensor, target) and stored in self._tensors and f"{stored}_scale" in self._weights:
            # In the format QOperator a `Relu` has no node: its output has the name of its input.
            source = self.floats.readers(stored)[0].output[0] if stored in self._fused else stored
            if source != target:
                return self._quantize_input(stored, source, prefix, copies)
        node = self.integers.producer(tensor)
        if node is None:
            return tensor
        if node.name not in copies:
            inputs = [self._copy(name, target, prefix, copies) if name else "" for name in node.input]
            outputs = [prefix + name if name else "" for name in node.output]
            copy = helper.make_node(node.op_type, inputs, outputs, prefix + node.name, domain=node.domain)
            copy.attribute.extend(node.attribute)
            copies[node.name] = copy
        return prefix + tensor

    def _quantize_input(self, tensor: str, source: str, prefix: str, copies: dict[str, onnx.NodeProto]) -> str:
        """Return what the layer before hands on as `tensor`, computed from floats: `source` in the same 8 bits."""
        name = tensor + _QUANTIZED
        if name not in copies:
            inputs = [source, self._copy_weight(f"{tensor}_scale"), self._copy_weight(f"{tensor}_zero_point")]
            copies[name] = helper.make_node("QuantizeLinear", inputs, [prefix + name], name=prefix + name)
        return prefix + name

    def _copy_weight(self, tensor: str) -> str:
        """Return the name, in the float graph, of a weight of the quantized one."""
        if tensor in self.floats.weights:
            return tensor
        name = _PREFIX + tensor
        if name not in self._copied_weights:
            self._copied_weights.add(name)
            self._model.graph.initializer.append(self._weights[tensor])
            self._model.graph.initializer[-1].name = name
        return name

    def _excludable_node(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return the node to name for a layer: the one that computes, and not the `Relu` after it."""
        while node.op_type in ("Relu", "Clip") and node.input[0] in self._fused:
            node = self.floats.nodes[self.floats.producers[node.input[0]]]
        return node
