"""A graph cut into segments that run one after the other, so that a run can start where it first differs from another.

This module owns where a graph may be cut, the sessions of the segments, and the tensors handed from one to the next.
With all graph optimizations off, as here, the segments compute to the bit what the whole graph does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import onnx
import onnxruntime

from benchcard.graphs.files import without_weights, write_model
from benchcard.graphs.graph import captured_tensors
from benchcard.graphs.runtime import open_session
from benchcard.quantization.sensitivity.loss import Array

# Tensors by name.
Arrays: TypeAlias = Mapping[str, Array]


@dataclass(frozen=True)
class _Segment:
    """A session of consecutive nodes; `outputs` are the tensors that later segments read or the graph returns."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    session: onnxruntime.InferenceSession

    def run(self, feeds: Arrays, tensors: dict[str, Array]) -> None:
        """Run the segment on the graph's inputs and on `tensors`, to which its outputs are added."""
        inputs = {name: feeds[name] if name in feeds else tensors[name] for name in self.inputs}
        tensors.update(zip(self.outputs, self.session.run(list(self.outputs), inputs), strict=True))


class SegmentedModel:
    """A model in at most `number` segments, which start at the nodes that compute some of `marks`, evenly spread.

    The marks are in graph order. The model is cut only where the element types of all that crosses the cut are known:
    `types`, by name. `folder` has its external weights, and gets files that must exist as long as this object.
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
        reads = [captured_tensors(node).union(filter(None, node.input)) for node in nodes]
        last_reads = {tensor: index for index, tensors in enumerate(reads) for tensor in tensors}
        last_reads |= dict.fromkeys(self._results, len(nodes))
        self._starts = [0, *self._cuts(marks, last_reads, types, number)]
        declared = {value.name: value for value in (*model.graph.input, *model.graph.output)}
        weights = {weight.name: weight for weight in model.graph.initializer}
        feeds = {value.name for value in model.graph.input}.difference(weights)
        axes = _infer_axes(model)
        self._segments: list[_Segment] = []
        for start, end in pairwise([*self._starts, len(nodes)]):
            # A weight may be an output, too.
            weight_outputs = [tensor for tensor in self._results if tensor in weights and end == len(nodes)]
            read = sorted(set().union(*reads[start:end], weight_outputs))
            inputs = [tensor for tensor in read if tensor in feeds or self._makers.get(tensor, start) < start]
            made = [tensor for tensor, index in self._makers.items() if start <= index < end]
            outputs = [tensor for tensor in made if last_reads.get(tensor, -1) >= end] + weight_outputs
            for tensor in set(inputs + outputs).difference(declared):
                declared[tensor] = onnx.helper.make_tensor_value_info(tensor, types[tensor], axes.get(tensor))
            graph = onnx.GraphProto(
                name=f"segment-{start}",
                node=nodes[start:end],
                initializer=[weights[tensor] for tensor in read if tensor in weights],
                sparse_initializer=[weight for weight in model.graph.sparse_initializer if weight.values.name in read],
                input=[declared[tensor] for tensor in inputs],
                output=[declared[tensor] for tensor in outputs],
            )
            target = folder / f"segment-{start}.onnx"
            segment = onnx.ModelProto(
                ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions, graph=graph
            )
            write_model(segment, target)
            self._segments.append(_Segment(tuple(inputs), tuple(outputs), open_session(target, 0, threads)))

    def _cuts(
        self, marks: Sequence[str], last_reads: Mapping[str, int], types: Mapping[str, int], number: int
    ) -> Iterator[int]:
        """Yield the indices of the nodes that segments after the first start with."""
        starts = {self._makers[marks[len(marks) * part // number]] for part in range(1, number)} if marks else set()
        for cut in sorted(starts - {0}):
            crossing = [tensor for tensor, maker in self._makers.items() if maker < cut <= last_reads.get(tensor, -1)]
            if all(tensor in types for tensor in crossing):
                yield cut

    def segment_of(self, tensor: str) -> int:
        """Return the number of the segment that computes a tensor."""
        return bisect_right(self._starts, self._makers[tensor]) - 1

    def run_all(self, feeds: Arrays) -> list[Arrays]:
        """Run all segments; return, for `run`, the tensors known before each of them, and last the outputs."""
        tensors: dict[str, Array] = {}
        before: list[Arrays] = []
        for number, segment in enumerate(self._segments):
            needed = set(self._results).union(*(later.inputs for later in self._segments[number:]))
            tensors = {name: value for name, value in tensors.items() if name in needed}
            before.append(dict(tensors))
            segment.run(feeds, tensors)
        return [*before, self._outputs(feeds, tensors)]

    def run_segment(self, feeds: Arrays, number: int, before: Sequence[Arrays]) -> Arrays:
        """Run one segment and return the tensors that it hands on; the arguments are those of `run`."""
        tensors = dict(before[number])
        segment = self._segments[number]
        segment.run(feeds, tensors)
        return {name: tensors[name] for name in segment.outputs}

    def run(self, feeds: Arrays, first: int, before: Sequence[Arrays], made: Arrays | None = None) -> Arrays:
        """Run the segments from `first` on and return the outputs of the graph by name.

        `before` is what `run_all` returned for feeds that differ only in what these segments read; `made` is what
        `run_segment` returned for the first segment, where it was run.
        """
        tensors = {**before[first], **(made or {})}
        for segment in self._segments[first if made is None else first + 1 :]:
            segment.run(feeds, tensors)
        return self._outputs(feeds, tensors)

    def _outputs(self, feeds: Arrays, tensors: Arrays) -> Arrays:
        return {name: tensors[name] if name in tensors else feeds[name] for name in self._results}


def _infer_axes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """Return the axes of tensors that ONNX infers: the length of each, None where it is not fixed.

    Without them, the runtime infers that the sizes which a `Resize` reads, concatenated in another segment, are empty.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(without_weights(model)).graph.value_info
    except onnx.shape_inference.InferenceError:
        return {}
    types = {value.name: value.type.tensor_type for value in inferred}
    return {
        name: [axis.dim_value if axis.HasField("dim_value") else None for axis in tensor_type.shape.dim]
        for name, tensor_type in types.items()
        if tensor_type.HasField("shape")
    }
