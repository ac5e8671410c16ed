"""The search for the layers whose quantization costs the outputs most.

This module owns which layers are tried, and in which order. The graph in which layers can be switched is built in
`grafts`; it is cut and run in `pieces`.

To quantize each layer alone and run on to the outputs would tell for certain, and take a forward pass a layer. Instead
all layers of a piece of the graph are quantized together and run on to the outputs, piece by piece: that tells how much
of an error at the end of a piece comes through to the outputs. Of the pieces that cost much, each layer is then
quantized alone and run on to the end of its piece only, a small part of a pass. Both together say what the layer will
cost the outputs; the most costly are tried to the end, until what is left is not expected to cost as much as those that
were found. No layer is named that was not tried alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchcard.graphs import graph as graphs
from benchcard.graphs.runtime import refusals
from benchcard.quantization import operators
from benchcard.quantization.operators import Quantization
from benchcard.quantization.sensitivity import grafts
from benchcard.quantization.sensitivity.loss import Sum
from benchcard.quantization.sensitivity.pieces import Arrays, Pieces

Batch = Mapping[str, NDArray[Any]]
# Layers are left untried that are expected to cost the outputs less than this part of what those cost that were found.
# With these two, 35 of 35 searches in tiny models named the three layers that trying each names, in 19 trials on
# average (`benchmarks/layers.py`); with a part of 1, 23 did, with 8 pieces, 31.
_PART = 0.25
_PIECES = 16
# Batches that layers are run on as far as the end of their piece: of the many numbers there, one batch has enough.
_NEAR_BATCHES = 1
_LEAST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class _Guess:
    """A piece or a layer whose cost is known, or expected, and that may hold or be one of the costliest layers.

    Attributes:
        start: The first of its layers.
        stop: The first after them.
        cost: Power of the errors of the outputs over that of the outputs.
        near: The same at the end of the piece, summed over the tensors that it hands on.
    """

    start: int
    stop: int
    cost: float
    near: float

    @property
    def is_layer(self) -> bool:
        """Whether it is one layer."""
        return self.stop - self.start == 1

    def __lt__(self, other: _Guess) -> bool:
        """The costliest first; places break ties, so that the order is always the same."""
        return (-self.cost, -self.near, self.start) < (-other.cost, -other.near, other.start)


class Search:
    """The search in one quantized model.

    Attributes:
        layers: The layers that can be switched, in the order of the graph.
        effects: What single layers cost the outputs, by tensor, as far as they were tried.
        trials: Number of sets that were tried.
        batches: Inputs by name that each trial runs.
        threads: Threads of each session.

    Args:
        float_model: The float model.
        quantized_model: What became of it.
        folder: Where files are written for as long as this lives; `float.onnx` among them, a copy of the float model.
        batches: Inputs by name that each trial runs.
        how: The quantization, so that only nodes it asked for are named; None for every quantized layer.
        threads: Threads of each session.
        bound: How many sets may be tried in `worst`.
    """

    def __init__(
        self,
        float_model: Path,
        quantized_model: Path,
        folder: Path,
        batches: Sequence[Batch],
        how: Quantization | None,
        threads: int,
        bound: int = 2 * _PIECES,
    ) -> None:
        self.batches, self.threads, self._bound, self.trials = batches, threads, bound, 0
        self.effects: dict[str, Sum] = {}
        names = None if how is None else frozenset(operators.quantized_nodes(float_model, how))
        graph, prepared, _ = graphs.prepare(float_model, folder)
        model = onnx.load(str(prepared), load_external_data=False)
        self.layers = grafts.switchable(model, onnx.load(str(quantized_model)), names)
        if self.layers:
            marks = [layer.tensor for layer in self.layers]
            number = max(1, min(_PIECES, bound // 2))
            try:
                self._pieces = Pieces(model, graph.types, marks, folder, threads, number)
            except refusals():
                # What the runtime infers of a whole graph it may miss in a piece: a run then begins at the beginning.
                self._pieces = Pieces(model, graph.types, marks, folder, threads, 1)
            off = self._switches(())
            self._before = [self._pieces.through({**batch, **off}) for batch in batches]

    def worst(self, limit: int) -> tuple[list[grafts.Layer], bool]:
        """The `limit` layers that cost most, the worst first, and whether no other is expected to cost as much."""
        if not self.layers or limit < 1:
            return [], True
        if self._bound < 1:
            return [], False
        tried = [self.tried(start, stop) for start, stop in self._spans()]
        found = [each for each in tried if each.is_layer]
        heap = [each for each in tried if not each.is_layer]
        heapq.heapify(heap)
        certain = True
        while heap and (len(found) < limit or heap[0].cost >= max(_LEAST, _PART * sorted(found)[limit - 1].cost)):
            if heap[0].is_layer and self.trials >= self._bound:
                certain = False
                break
            likely = heapq.heappop(heap)
            if likely.is_layer:
                found.append(self.tried(likely.start, likely.stop))
            else:
                for guess in self._members(likely):
                    heapq.heappush(heap, guess)
        return [self.layers[each.start] for each in sorted(found)[:limit]], certain

    def _spans(self) -> Iterator[tuple[int, int]]:
        """The first layer of each piece that has one, and the first after its last."""
        for _, places in groupby(range(len(self.layers)), self._piece_of):
            members = list(places)
            yield members[0], members[-1] + 1

    def _piece_of(self, place: int) -> int:
        return self._pieces.piece_of(self.layers[place].tensor)

    def _members(self, piece: _Guess) -> Iterator[_Guess]:
        """Each layer of a piece, with what it is expected to cost the outputs: as much of its error at the end of the
        piece comes through to them as of the errors of all its layers.
        """
        passed = piece.cost / piece.near if 0 < piece.near < np.inf else 1.0
        for place in range(piece.start, piece.stop):
            near = self._near(place)
            yield _Guess(place, place + 1, passed * near if 0 < near < np.inf else near, near)

    def _near(self, place: int) -> float:
        """What a layer, quantized alone, costs at the end of its piece."""
        number = self._piece_of(place)
        switches = self._switches(self.layers[place : place + 1])
        lost = _Lost()
        for batch, before in zip(self.batches[:_NEAR_BATCHES], self._before):
            lost.add(before[number + 1], self._pieces.piece({**batch, **switches}, number, before))
        return lost.share

    def tried(self, start: int, stop: int) -> _Guess:
        """What becomes of the outputs when the layers from `start` to `stop`, all of one piece, are quantized."""
        self.trials += 1
        total, near = Sum(), _Lost()
        switches = self._switches(self.layers[start:stop])
        number = self._piece_of(start)
        for batch, before in zip(self.batches, self._before, strict=True):
            feeds = {**batch, **switches}
            made = self._pieces.piece(feeds, number, before)
            near.add(before[number + 1], made)
            outputs = self._pieces.run(feeds, number, before, made)
            for name, value in before[-1].items():
                total.add(value, outputs[name], name)
        cost = total.noise / max(total.signal, _LEAST) if total.is_finite else float("inf")
        tried = _Guess(start, stop, cost, near.share)
        if tried.is_layer:
            self.effects[self.layers[start].tensor] = total
        return tried

    def _switches(self, on: Sequence[grafts.Layer]) -> Arrays:
        chosen = {layer.switch for layer in on}
        return {layer.switch: np.array(layer.switch in chosen) for layer in self.layers}


class _Lost:
    """Errors of several tensors, summed over batches."""

    def __init__(self) -> None:
        self._powers: dict[str, tuple[float, float]] = {}

    def add(self, expected: Arrays, found: Arrays) -> None:
        """Add what was found of one batch; integers and truth values are passed over, and what is not finite in the
        float model, as a mask may be.
        """
        for name, value in found.items():
            if value.dtype.kind == "f" and np.isfinite(expected[name]).all():
                exact = expected[name].astype(np.float64)
                error = exact - value if np.isfinite(value).all() else np.full(1, np.inf)
                signal, noise = self._powers.get(name, (0.0, 0.0))
                self._powers[name] = signal + float(np.vdot(exact, exact)), noise + float(np.vdot(error, error))

    @property
    def share(self) -> float:
        """Power of the errors over that of the tensors, summed over those that have any; infinite where a number is not
        finite.
        """
        return sum(noise / signal for signal, noise in self._powers.values() if signal > 0)
