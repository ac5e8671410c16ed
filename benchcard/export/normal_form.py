"""The normal form of the graphs of all exporters: readable names, nothing of the machine, the same bytes every time.

Owns names of nodes, values and dynamic axes, constants as initializers, and writing the file. Does not change what the
graph computes. Leaves creating graphs to `exporters`.

The name of a node is its module and its operator, `bert.encoder.layer.0.attention.self.query/MatMul`, with `_1`, `_2`,
... where a module has several. Its results are `<node>_output_0` and so on. Weights have their names in the checkpoint.
A weight that an exporter rewrote (a transposed matrix) is `<first node>_input_<index>`.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes import common

from benchcard.export.probes import ModelInput
from benchcard.graphs.files import INLINE_LIMIT_BYTES

_SCOPES = "pkg.torch.onnx.name_scopes"


def normalize(graph: ir.Model, inputs: Sequence[ModelInput], outputs: Sequence[str], wrapper: str) -> ir.Model:
    """Bring a graph of an exporter into the normal form, in place, and return it.

    The inputs and the outputs to keep are given in the order for the graph. An unused input is removed; the comparison
    with PyTorch shows whether that is right. `wrapper` names the module around the traced model; no name begins with it
    afterwards.

    Raises:
        ValueError: The graph lacks an output.
    """
    _keep_outputs(graph.graph, outputs)
    _name_axes(graph.graph, inputs)
    for change in (
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        _IdentityElimination(),
        common.RemoveUnusedNodesPass(),
    ):
        change(graph)
    # TorchScript leaves out an unused input, and torch.export keeps it. The normal form has none.
    graph.graph.inputs[:] = [value for value in graph.graph.inputs if value.uses() or value in graph.graph.outputs]
    _name_nodes(graph, wrapper)
    for part in graph.graphs():
        _name_weights(part, wrapper)
    _remove_metadata(graph)
    return graph


def write_normalized(graph: ir.Model, folder: Path) -> tuple[Path, ...]:
    """Write the graph as `model.onnx`, with `model.onnx.data` for too many weights, and return the files."""
    size = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value is not None)
    path, weights = folder / "model.onnx", folder / "model.onnx.data"
    if size < INLINE_LIMIT_BYTES:
        ir.save(graph, path)
        return (path,)
    ir.save(graph, path, external_data=weights.name)
    return path, weights


class _IdentityElimination(common.IdentityEliminationPass):
    """The pass of onnx_ir, without its error in subgraphs, as of `If`: they would return values of the outer graph."""

    def _try_eliminate_identity_node(self, node: ir.Node) -> bool:
        is_output = node.op_type == "Identity" and node.outputs[0].is_graph_output()
        if is_output and node.inputs[0] is not None and node.inputs[0].graph is not node.graph:
            return False
        return bool(super()._try_eliminate_identity_node(node))


def _keep_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    values = {value.name: value for value in graph.outputs}
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(f"the graph has no output {', '.join(missing)}; it has {', '.join(map(str, values))}")
    graph.outputs[:] = [values[name] for name in names]


def _name_axes(graph: ir.Graph, inputs: Sequence[ModelInput]) -> None:
    """Sort the inputs, name their dynamic axes, and use the same names for these axes in the outputs."""
    values = {value.name: value for value in graph.inputs}
    used = [input_ for input_ in inputs if input_.name in values]
    graph.inputs[:] = [values[input_.name] for input_ in used]
    renamed: dict[str, str] = {}
    for input_ in used:
        value = values[input_.name]
        old = value.shape if value.shape is not None else ir.Shape(input_.shape)
        for before, now in zip(old, input_.shape):
            if isinstance(before, ir.SymbolicDim) and before.value is not None and isinstance(now, str):
                renamed[before.value] = now
        value.shape = ir.Shape(input_.shape)
    for value in graph.outputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                [renamed.get(str(size.value)) if isinstance(size, ir.SymbolicDim) else size for size in value.shape]
            )


def _name_nodes(graph: ir.Model, wrapper: str) -> None:
    counts: Counter[str] = Counter()
    ends = {*graph.graph.inputs, *graph.graph.outputs}
    for node in ir.traversal.RecursiveGraphIterator(graph.graph):
        name = "/".join(part for part in (_module(node, wrapper), node.op_type) if part)
        counts[name] += 1
        node.name = name if counts[name] == 1 else f"{name}_{counts[name] - 1}"
        for index, value in enumerate(node.outputs):
            if value not in ends:
                value.name = f"{node.name}_output_{index}"


def _module(node: ir.Node, wrapper: str) -> str:
    """Return the dotted path of the module of a node; empty for the model itself, and where it is unknown."""
    scopes = node.metadata_props.get(_SCOPES)
    if scopes is not None:  # torch.export: ['', 'bert', 'bert.embeddings', 'add_10'], the last one the operation
        modules = [scope for scope in ast.literal_eval(scopes)[:-1] if not scope.startswith("_empty_nn_module_stack")]
        path = str(modules[-1]) if modules else ""
    else:  # TorchScript: /model/bert/encoder/layer.0/attention/MatMul_1
        path = ".".join((node.name or "").strip("/").split("/")[:-1])
    return "" if path == wrapper else path.removeprefix(f"{wrapper}.")


def _name_weights(graph: ir.Graph, wrapper: str) -> None:
    """Name weights as in the checkpoint, and those that the exporter named by their first use."""
    for value in list(graph.initializers.values()):
        name = str(value.name).removeprefix(f"{wrapper}.")
        use = next(iter(value.uses()), None)
        if use is not None and not _is_checkpoint_name(name):
            name = f"{use.node.name}_input_{use.idx}"
        value.name = name


def _is_checkpoint_name(name: str) -> bool:
    """Return whether PyTorch gave a name, `encoder.layer.0.weight`, and not an exporter, `onnx::MatMul_370`."""
    return "." in name and all(part.isidentifier() or part.isdigit() for part in name.split("."))


def _remove_metadata(graph: ir.Model) -> None:
    """Remove what varies or becomes wrong: source files, stacks, and the shapes of inner values."""
    common.ClearMetadataAndDocStringPass()(graph)
    graph.metadata_props.clear()
    graph.doc_string = None
    graph.graph.name = "main_graph"
    ends = {value for part in graph.graphs() for value in (*part.inputs, *part.outputs)}
    inner = {value for node in ir.traversal.RecursiveGraphIterator(graph.graph) for value in node.outputs}
    weights = {value for part in graph.graphs() for value in part.initializers.values()}
    for value in ends | inner | weights:
        value.metadata_props.clear()
        value.doc_string = None
        if value not in ends:
            value.shape = value.type = None
        if value.const_value is not None:
            value.const_value.metadata_props.clear()
