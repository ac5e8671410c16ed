"""The search for the layers whose quantization costs the outputs most.

This module owns which layers are tried, and in which order. The graph in which layers can be switched is built in
`layers`; it is cut and run in `segments`.

Quantizing each layer alone and running on to the outputs gives exact costs, but takes one forward pass a layer. So the
layers of a segment of the graph are first quantized together and run on to the outputs: that shows how much of an error
at the end of the segment reaches the outputs. In the costly segments, each layer is then quantized alone and run to the
end of its segment only. Both together predict the layer's cost. The most costly layers are tried to the outputs, until
no other one is expected to cost as much. Only layers that were tried alone are named.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import onnx

from benchcard.graphs.graph import prepare_model
from benchcard.graphs.runtime import runtime_errors
from benchcard.quantization.operators import quantized_nodes
from benchcard.quantization.sensitivity.layers import Layer, add_switches
from benchcard.quantization.sensitivity.loss import LossSum
from benchcard.quantization.sensitivity.segments import Arrays, SegmentedModel
from benchcard.quantization.settings import Quantization

# Layers whose expected cost is less than this share of the cost of those found are not tried. With these two, 35 of 35
# searches in tiny models named the three layers that trying each names, in 19 trials (`benchmarks/layers.py`); with a
# share of 1, 23 did, with 8 segments, 31.
_SHARE = 0.25
_SEGMENTS = 16
# Batches that layers are run on as far as the end of their segment, where the many numbers of one batch are enough.
_NEAR_BATCHES = 1
_LEAST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class _Candidate:
    """A segment or a layer, the layers from `start` to before `stop`, whose cost is known or expected.

    Costs are powers of errors over those of exact values: of the outputs, and (`near`) of what the segment hands on.
    """

    start: int
    stop: int
    cost: float
    near: float

    @property
    def is_layer(self) -> bool:
        return self.stop - self.start == 1

    def __lt__(self, other: _Candidate) -> bool:
        """Order the costliest first; the index breaks ties, so that the order is always the same."""
        return (-self.cost, -self.near, self.start) < (-other.cost, -other.near, other.start)


class LayerSearch:
    """The search in one quantized model, of which each trial runs `batches`.

    Files that must exist as long as this object are written to `folder`: `float.onnx`, a copy of the float model, and
    the segments. Only nodes that `settings` asked for are named; for None, every quantized layer. `find_worst` tries at
    most `bound` sets.
    """

    def __init__(
        self,
        float_model: Path,
        quantized_model: Path,
        folder: Path,
        batches: Sequence[Arrays],
        settings: Quantization | None,
        threads: int,
        bound: int = 2 * _SEGMENTS,
    ) -> None:
        self.batches, self.threads, self._bound, self.trials = batches, threads, bound, 0
        self.effects: dict[str, LossSum] = {}
        names = None if settings is None else frozenset(quantized_nodes(float_model, settings))
        prepared = prepare_model(float_model, folder)
        model = onnx.load(str(prepared.path), load_external_data=False)
        self.layers = add_switches(model, onnx.load(str(quantized_model)), names)
        if self.layers:
            marks = [layer.tensor for layer in self.layers]
            number = max(1, min(_SEGMENTS, bound // 2))
            try:
                self._model = SegmentedModel(model, prepared.graph.types, marks, folder, threads, number)
            except runtime_errors():
                # The runtime may infer less of a segment than of the whole graph: every run then starts at its start.
                self._model = SegmentedModel(model, prepared.graph.types, marks, folder, threads, 1)
            off = self._switches(())
            self._before = [self._model.run_all({**batch, **off}) for batch in batches]

    def find_worst(self, limit: int) -> tuple[list[Layer], bool]:
        """Return the `limit` costliest layers, the worst first, and whether no other is expected to cost as much."""
        if not self.layers or self._bound < 1:
            return [], not self.layers
        segments = [list(group) for _, group in groupby(range(len(self.layers)), self._segment_of)]
        tried = [self.try_layers(indices[0], indices[-1] + 1) for indices in segments]
        layers = [candidate for candidate in tried if candidate.is_layer]
        heap = [candidate for candidate in tried if not candidate.is_layer]
        heapq.heapify(heap)
        while heap and (len(layers) < limit or heap[0].cost >= max(_LEAST, _SHARE * sorted(layers)[limit - 1].cost)):
            if heap[0].is_layer and self.trials >= self._bound:
                return self._worst_of(layers, limit), False
            costliest = heapq.heappop(heap)
            if costliest.is_layer:
                layers.append(self.try_layers(costliest.start, costliest.stop))
            else:
                for candidate in self._members(costliest):
                    heapq.heappush(heap, candidate)
        return self._worst_of(layers, limit), True

    def _worst_of(self, candidates: list[_Candidate], limit: int) -> list[Layer]:
        return [self.layers[candidate.start] for candidate in sorted(candidates)[:limit]]

    def _segment_of(self, index: int) -> int:
        return self._model.segment_of(self.layers[index].tensor)

    def _members(self, segment: _Candidate) -> Iterator[_Candidate]:
        """Yield each layer of a segment with its expected cost.

        The same share of its error as of that of all layers together is expected to pass from the end of the segment to
        the outputs.
        """
        passed = segment.cost / segment.near if 0 < segment.near < np.inf else 1.0
        number = self._segment_of(segment.start)
        for index in range(segment.start, segment.stop):
            switches, errors = self._switches(self.layers[index : index + 1]), _ErrorSum()
            for batch, before in zip(self.batches[:_NEAR_BATCHES], self._before):
                errors.add(before[number + 1], self._model.run_segment({**batch, **switches}, number, before))
            near = errors.share
            yield _Candidate(index, index + 1, passed * near if 0 < near < np.inf else near, near)

    def try_layers(self, start: int, stop: int) -> _Candidate:
        """Return the cost of quantizing the layers from `start` to `stop`, all of one segment."""
        self.trials += 1
        total, near = LossSum(), _ErrorSum()
        switches = self._switches(self.layers[start:stop])
        number = self._segment_of(start)
        for batch, before in zip(self.batches, self._before, strict=True):
            feeds = {**batch, **switches}
            handed_on = self._model.run_segment(feeds, number, before)
            near.add(before[number + 1], handed_on)
            outputs = self._model.run(feeds, number, before, handed_on)
            for name, value in before[-1].items():
                total.add(value, outputs[name], name)
        candidate = _Candidate(start, stop, total.noise / max(total.signal, _LEAST), near.share)
        if candidate.is_layer:
            self.effects[self.layers[start].tensor] = total
        return candidate

    def _switches(self, on: Sequence[Layer]) -> Arrays:
        names = {layer.switch for layer in on}
        return {layer.switch: np.array(layer.switch in names) for layer in self.layers}


class _ErrorSum:
    """Errors of several tensors, summed over batches."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, LossSum] = defaultdict(LossSum)

    def add(self, expected: Arrays, actual: Arrays) -> None:
        """Add the tensors of one batch; integers, truth values and what is not finite in float (a mask) are ignored."""
        for name, value in actual.items():
            if value.dtype.kind == "f" and np.isfinite(expected[name]).all():
                self._sums[name].add(expected[name], value, name)

    @property
    def share(self) -> float:
        """Power of the errors over that of the tensors, summed over tensors; infinite for NaN and infinities."""
        return sum(tensor.noise / tensor.signal for tensor in self._sums.values() if tensor.signal > 0)
