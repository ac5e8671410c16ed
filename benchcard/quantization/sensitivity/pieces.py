"""A graph cut into pieces that run one after the other, so that a run can begin where it first differs from an earlier
one.

This module owns where a graph may be cut, the sessions of its pieces, and what is handed from one to the next. With all
graph optimizations off, as here, the pieces compute to the bit what the whole graph does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import AttributeProto

from benchcard.graphs import files
from benchcard.graphs.runtime import session_options

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Piece:
    """Nodes of the graph from `start` on, in a session.

    Attributes:
        inputs: Names of the tensors that it reads and does not make.
        outputs: Names of those that it makes for later pieces, or for whoever runs the graph.
        session: What runs it.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    session: Any


class Pieces:
    """A graph in pieces.

    Args:
        model: The graph. Weights that lie beside it lie in `folder`.
        types: Element types of its tensors, by name: it is cut only where those of all that crosses the cut are known.
        marks: Tensors of it, in its order: pieces begin at the nodes that make some of them, evenly spread.
        folder: Where files are written for as long as this lives.
        threads: Threads of each session.
        number: How many pieces, at the most.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        types: Mapping[str, int],
        marks: Sequence[str],
        folder: Path,
        threads: int,
        number: int,
    ) -> None:
        nodes = model.graph.node
        self._makers = {tensor: index for index, node in enumerate(nodes) for tensor in node.output if tensor}
        self._results = [value.name for value in model.graph.output]
        reads = [frozenset(_reads(node)) for node in nodes]
        last_reads = {tensor: index for index, each in enumerate(reads) for tensor in each}
        last_reads |= dict.fromkeys(self._results, len(nodes))
        self._starts = [0, *self._cuts(marks, last_reads, types, number)]
        declared = {value.name: value for value in (*model.graph.input, *model.graph.output)}
        weights = {weight.name: weight for weight in model.graph.initializer}
        given = {value.name for value in model.graph.input}.difference(weights)
        axes = _axes(model)
        self._pieces: list[_Piece] = []
        for start, end in pairwise([*self._starts, len(nodes)]):
            # A weight may be an output, too.
            fixed = [each for each in self._results if each in weights and end == len(nodes)]
            read = sorted(set().union(*reads[start:end], fixed))
            inputs = [tensor for tensor in read if tensor in given or self._makers.get(tensor, start) < start]
            outputs = [
                tensor
                for tensor, index in self._makers.items()
                if start <= index < end and last_reads.get(tensor, -1) >= end
            ] + fixed
            piece = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
            piece.functions.extend(model.functions)
            piece.graph.name = f"piece-{start}"
            piece.graph.node.extend(nodes[start:end])
            piece.graph.initializer.extend(weights[tensor] for tensor in read if tensor in weights)
            piece.graph.sparse_initializer.extend(
                weight for weight in model.graph.sparse_initializer if weight.values.name in read
            )
            for tensors, field in ((inputs, piece.graph.input), (outputs, piece.graph.output)):
                field.extend(
                    declared[each] if each in declared else _value(each, types[each], axes.get(each))
                    for each in tensors
                )
            target = folder / f"piece-{start}.onnx"
            files.write_model(piece, target)
            self._pieces.append(_Piece(tuple(inputs), tuple(outputs), session(target, threads, 0)))
        # Tensors that are read from each piece on, and at the end.
        self._wanted = [frozenset(self._results)]
        for each in reversed(self._pieces):
            self._wanted.insert(0, self._wanted[0].union(each.inputs))

    def _cuts(
        self, marks: Sequence[str], last_reads: Mapping[str, int], types: Mapping[str, int], number: int
    ) -> Iterator[int]:
        """The places of the nodes that pieces after the first begin with."""
        wanted = {self._makers[marks[len(marks) * part // number]] for part in range(1, number)} if marks else set()
        for cut in sorted(wanted - {0}):
            crossing = [tensor for tensor, made in self._makers.items() if made < cut <= last_reads.get(tensor, -1)]
            if all(tensor in types for tensor in crossing):
                yield cut

    def piece_of(self, tensor: str) -> int:
        """The number of the piece that makes a tensor."""
        return bisect_right(self._starts, self._makers[tensor]) - 1

    def through(self, feeds: Arrays) -> list[Arrays]:
        """What is known before each piece, for `run`, and at last the outputs by name."""
        known: dict[str, NDArray[Any]] = {}
        before: list[Arrays] = []
        for piece, wanted in zip(self._pieces, self._wanted):
            known = {name: value for name, value in known.items() if name in wanted}
            before.append(dict(known))
            self._go(piece, feeds, known)
        return [*before, self._outputs(feeds, known)]

    def piece(self, feeds: Arrays, number: int, before: Sequence[Arrays]) -> Arrays:
        """What one piece hands on, by name; the arguments are those of `run`."""
        known = dict(before[number])
        self._go(self._pieces[number], feeds, known)
        return {name: known[name] for name in self._pieces[number].outputs}

    def run(self, feeds: Arrays, first: int, before: Sequence[Arrays], made: Arrays | None = None) -> Arrays:
        """The outputs by name.

        Args:
            feeds: The inputs of the graph by name.
            first: The piece to begin at.
            before: What `through` gave for feeds that differ from these only in what pieces from `first` on read.
            made: What `piece` gave for the first one, where it is known.
        """
        known = {**before[first], **(made or {})}
        for piece in self._pieces[first if made is None else first + 1 :]:
            self._go(piece, feeds, known)
        return self._outputs(feeds, known)

    def _outputs(self, feeds: Arrays, known: Arrays) -> Arrays:
        return {name: known[name] if name in known else feeds[name] for name in self._results}

    @staticmethod
    def _go(piece: _Piece, feeds: Arrays, known: dict[str, NDArray[Any]]) -> None:
        given = {name: feeds[name] if name in feeds else known[name] for name in piece.inputs}
        known.update(zip(piece.outputs, piece.session.run(list(piece.outputs), given), strict=True))


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names of the tensors that a node reads, those that the graphs inside it read among them."""
    yield from (tensor for tensor in node.input if tensor)
    for entry in node.attribute:
        inner: Iterable[onnx.GraphProto] = ()
        if entry.type == AttributeProto.GRAPH:
            inner = (entry.g,)
        elif entry.type == AttributeProto.GRAPHS:
            inner = entry.graphs
        for graph in inner:
            yield from (value.name for value in graph.output)
            for each in graph.node:
                yield from _reads(each)


def _axes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """The axes of tensors, where ONNX infers them: how long each is, None where that is not fixed. Without them, the
    runtime's own inference takes the sizes that a `Resize` reads, joined from numbers of another piece, to be none.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(files.without_weights(model)).graph.value_info
    except onnx.shape_inference.InferenceError:
        return {}
    types = {value.name: value.type.tensor_type for value in inferred}
    return {
        name: [axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim]
        for name, kind in types.items()
        if kind.HasField("shape")
    }


def _value(tensor: str, kind: int, axes: list[int | None] | None) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(tensor, kind, axes)


def session(model: Path, threads: int, optimization_level: int) -> Any:
    """A graph in a session whose threads do not spin while they wait: they would take the cores of another's."""
    import onnxruntime

    options = session_options({"optimization_level": optimization_level, "intra_op_num_threads": threads})
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
