"""The search for the layers whose quantization costs the outputs most.

This module owns which sets of layers are tried, and what is concluded from a trial. The graph in which layers can be
switched is built in `grafts` and run in `pieces`.

Layers are found by halving: quantizing a set of layers costs at least as much as its worst member does, so the set that
costs most is split, again and again, until single layers stand before every set that is left. Of the two halves of a
set one is tried, the later one, of which fewer pieces need be run. What the other one does to the outputs is taken to
be the difference between both: small errors add up, number by number. It is taken for costlier than that says, since
errors that cancel out in a set do not in a part of it. Where the outputs have lost more than a tenth of their power,
errors no longer add up, and both halves are tried. No layer is named that was not tried alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchcard.quantization import grafts, operators
from benchcard.quantization import graph as graphs
from benchcard.quantization.loss import Sum
from benchcard.quantization.operators import Quantization
from benchcard.quantization.pieces import Arrays, Pieces

Batch = Mapping[str, NDArray[Any]]
# Errors of a tenth of the power, which is a third of the amplitude, still add up to about a tenth of themselves.
_ADDING_UP = 0.1
# With this margin 33 of 35 searches of tiny models named what trying both halves names; with none, 24.
_MARGIN = 4.0


@dataclass(frozen=True)
class _Set:
    """Layers that are quantized together, and what that does to the outputs.

    Attributes:
        start: The first of them.
        stop: The first after them.
        errors: How far the outputs are from those in float32, one flat array a batch; None where one is not finite.
        cost: Power of the errors over that of the outputs, at the most.
        is_tried: False where that is concluded from other sets.
    """

    start: int
    stop: int
    errors: tuple[NDArray[np.float64], ...] | None
    cost: float
    is_tried: bool

    @property
    def is_single(self) -> bool:
        """Whether it is one layer."""
        return self.stop - self.start == 1

    def __lt__(self, other: _Set) -> bool:
        """The costliest first; places break ties, so that the order is always the same."""
        return (-self.cost, self.start) < (-other.cost, other.start)


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
        bound: int = 0,
    ) -> None:
        self.batches, self.threads, self._bound, self.trials = batches, threads, bound, 0
        self.effects: dict[str, Sum] = {}
        names = None if how is None else frozenset(operators.quantized_nodes(float_model, how))
        graph, prepared, _ = graphs.prepare(float_model, folder)
        model = onnx.load(str(prepared), load_external_data=False)
        self.layers = grafts.switchable(model, onnx.load(str(quantized_model)), names)
        if self.layers:
            marks = [layer.tensor for layer in self.layers]
            self._pieces = Pieces(model, graph.types, marks, folder, threads)
            off = self._switches(())
            self._before = [self._pieces.through({**batch, **off}) for batch in batches]
            power = sum(float(np.vdot(each, each)) for each in map(_flat, (before[-1] for before in self._before)))
            self._power = max(power, np.finfo(np.float64).tiny)

    def worst(self, limit: int) -> tuple[list[grafts.Layer], bool]:
        """The `limit` layers that cost most, the worst first, and whether that is certain."""
        if not self.layers or limit < 1:
            return [], True
        heap = [self.tried(0, len(self.layers))]
        singles: list[_Set] = []
        while heap and len(singles) < limit:
            worst = heap[0]
            if worst.is_single and worst.is_tried:
                singles.append(heapq.heappop(heap))
            elif self.trials + 2 > self._bound:
                break
            elif worst.is_single:
                heapq.heapreplace(heap, self.tried(worst.start, worst.stop))
            else:
                heapq.heappop(heap)
                for half in self._halves(worst):
                    heapq.heappush(heap, half)
        certain = len(singles) >= min(limit, len(self.layers))
        # When the trials are used up, the single layers met on the way are the best that is known.
        rest = sorted(each for each in heap if each.is_single and each.is_tried)
        singles += islice(rest, max(0, limit - len(singles)))
        return [self.layers[each.start] for each in sorted(singles)], certain

    def tried(self, start: int, stop: int) -> _Set:
        """What becomes of the outputs when the layers from `start` to `stop` are quantized."""
        self.trials += 1
        total = Sum()
        switches = self._switches(self.layers[start:stop])
        first = self._pieces.piece_of(self.layers[start].tensor)
        errors = []
        for batch, before in zip(self.batches, self._before, strict=True):
            found = self._pieces.run({**batch, **switches}, first, before)
            for name, value in before[-1].items():
                total.add(value, found[name], name)
            errors.append(_flat(found) - _flat(before[-1]))
        if stop - start == 1:
            self.effects[self.layers[start].tensor] = total
        if not total.is_finite:
            return _Set(start, stop, None, float("inf"), is_tried=True)
        return self._set(start, stop, tuple(errors), is_tried=True)

    def _set(self, start: int, stop: int, errors: tuple[NDArray[np.float64], ...], *, is_tried: bool) -> _Set:
        cost = sum(float(np.vdot(each, each)) for each in errors) / self._power
        return _Set(start, stop, errors, cost if is_tried else _MARGIN * cost, is_tried)

    def _halves(self, whole: _Set) -> tuple[_Set, _Set]:
        """Both halves of a set: the later one tried, the earlier one, too, where it cannot be told from both."""
        middle = (whole.start + whole.stop) // 2
        later = self.tried(middle, whole.stop)
        if whole.errors is None or later.errors is None or max(whole.cost, later.cost) > _ADDING_UP:
            return self.tried(whole.start, middle), later
        errors = tuple(both - one for both, one in zip(whole.errors, later.errors, strict=True))
        return self._set(whole.start, middle, errors, is_tried=False), later

    def _switches(self, on: Sequence[grafts.Layer]) -> Arrays:
        chosen = {layer.switch for layer in on}
        return {layer.switch: np.array(layer.switch in chosen) for layer in self.layers}


def _flat(outputs: Arrays) -> NDArray[np.float64]:
    """All numbers of the outputs that are floating-point ones, in a row."""
    floats = [value.astype(np.float64).ravel() for value in outputs.values() if value.dtype.kind == "f"]
    return np.concatenate(floats) if floats else np.empty(0)
