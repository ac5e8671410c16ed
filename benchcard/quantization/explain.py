"""What quantization cost: the outputs against float32, and the layers that cost most.

This module owns the forward passes that compare a quantized model with its float model, one batch at a time, and the
sums kept of them: no tensor outlives its batch. The graphs that show layers alone are built in `grafts`.

A layer's loss can be told in three ways, and all three are reported:

- **effect**: what the outputs lose when this layer alone is quantized and all others compute in float32;
- **alone**: what the layer's own output loses then;
- **together**: what the layer's output has lost in the quantized model, where the layers before it are quantized too.

Layers are ranked by their effect. The other two do not name the culprits: in a vision transformer whose decomposed
layer norms are quantized, no sum before them loses much of its own (38 dB), for a few large numbers carry its power
while the norm scales the small ones up; and from there on everything has lost equally much.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchcard.errors import ArtifactError
from benchcard.frameworks.onnxruntime import refusals
from benchcard.quantization import grafts, operators
from benchcard.quantization import graph as graphs
from benchcard.quantization.operators import Quantization
from benchcard.quantization.pieces import Arrays, Pieces, session

Batch = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Loss:
    """How far numbers are from those in float32.

    Attributes:
        max_abs_difference: The largest absolute difference; None where a number is not finite.
        snr_db: Power of the float numbers over power of the differences, in decibels; None where there is no
            difference, or where a number is not finite.
        is_finite: False where a quantized number is infinite or none.
    """

    max_abs_difference: float | None
    snr_db: float | None
    is_finite: bool


@dataclass(frozen=True)
class LayerLoss:
    """What quantizing one layer costs.

    Attributes:
        node: Name of the float node, which can be excluded.
        operator: Its operator type.
        effect: The outputs, when this layer alone is quantized.
        alone: The layer's output, when this layer alone is quantized.
        together: The layer's output in the quantized model.
    """

    node: str
    operator: str
    effect: Loss
    alone: Loss
    together: Loss


@dataclass(frozen=True)
class Losses:
    """What a quantized model lost against its float model.

    Attributes:
        outputs: All floating-point outputs together, over all batches, the model run as it is deployed.
        batches: Number of batches.
        layers: The layers that cost most, by their effect, the worst first.
        layers_compared: Number of quantized layers among which they were found.
        trials: Number of sets of layers that were tried for it.
        searched_batches: Number of batches that each trial ran.
        is_complete: False where the trials ended before it was certain that no other layer costs more.
    """

    outputs: Loss
    batches: int
    layers: tuple[LayerLoss, ...]
    layers_compared: int
    trials: int
    searched_batches: int
    is_complete: bool


def losses(
    float_model: Path,
    quantized_model: Path,
    batches: Iterable[Batch],
    limit: int = 3,
    *,
    how: Quantization | None = None,
    trials: int = 32,
    searched_batches: int = 2,
    threads: int = 1,
    expected: Sequence[Arrays] | None = None,
) -> Losses:
    """What a quantized model lost, and the `limit` layers that cost most.

    The layers are found by halving: quantizing a set of layers costs at least as much as its worst member does, so the
    set that costs most is split, again and again, until single layers stand before every set that is left.

    Args:
        float_model: The float model.
        quantized_model: What became of it.
        batches: Inputs by name; iterated once. Memory is that of one batch and of the inputs of `searched_batches`.
        limit: How many layers to name; 0 for none, which runs no trial.
        how: The quantization, so that only nodes it asked for are named; None for every quantized layer.
        trials: Bound of the number of sets of layers that are tried.
        searched_batches: How many of the batches each trial runs, the first ones.
        threads: Threads of each session.
        expected: What `outputs_of` gives for the float model and the same batches, where that is known.

    Raises:
        ArtifactError: There is no batch, or the float model gives a number that is not finite.
    """
    outputs = _Sum()
    kept: list[Batch] = []
    count = 0
    plain = _deployed(float_model, threads) if expected is None else None
    quantized = _deployed(quantized_model, threads)
    for batch in batches:
        exact = _run(plain, None, batch) if expected is None else expected[count]
        found = _run(quantized, None, batch)
        for name, value in exact.items():
            outputs.add(value, found[name], name)
        count += 1
        if len(kept) < searched_batches:
            kept.append(batch)
    if not count:
        raise ArtifactError(
            "There is no batch to compare the quantized model on. Give it one calibration sample or more."
        )
    del plain, quantized
    with tempfile.TemporaryDirectory(prefix="losses-") as folder:
        search = _Search(float_model, quantized_model, Path(folder), kept, how, threads, trials)
        worst, certain = search.worst(limit) if limit > 0 else ([], True)
        found_layers = _compared(search, worst)
        return Losses(outputs.loss(), count, found_layers, len(search.layers), search.trials, len(kept), certain)


def outputs_of(model: Path, batches: Iterable[Batch], threads: int = 1) -> tuple[Arrays, ...]:
    """The outputs of a model by name, for each batch, run as it is deployed."""
    session = _deployed(model, threads)
    return tuple(_run(session, None, batch) for batch in batches)


@dataclass(frozen=True)
class Effect:
    """What the outputs lose when one node alone is quantized.

    Attributes:
        node: Name of the float node, which can be excluded.
        operator: Its operator type.
        effect: The loss of the outputs.
    """

    node: str
    operator: str
    effect: Loss


def ranking(
    float_model: Path,
    quantized_model: Path,
    batches: Sequence[Batch],
    *,
    how: Quantization,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Effect, ...]:
    """Every quantized layer, by what it costs the outputs when it alone is quantized, the worst first.

    A node's cost is that of its costliest output. One forward pass a batch and layer, and one a batch without any.

    Args:
        float_model: The float model.
        quantized_model: What became of it.
        batches: Inputs by name.
        how: The quantization; only nodes that it asked for are named.
        threads: Threads of the session.
        progress: Called after each layer with layers done and layers in all.

    Raises:
        ArtifactError: The float model gives a number that is not finite.
    """
    with tempfile.TemporaryDirectory(prefix="losses-") as folder:
        search = _Search(float_model, quantized_model, Path(folder), batches, how, threads, 0)
        search.open()
        found: dict[str, tuple[float, int, Effect]] = {}
        for place, layer in enumerate(search.layers):
            cost = search.cost(place, place + 1)
            if layer.node not in found or cost > found[layer.node][0]:
                loss = search.effects[layer.tensor].loss()
                found[layer.node] = (cost, place, Effect(layer.node, layer.operator, loss))
            progress(place + 1, len(search.layers))
        return tuple(each[2] for each in sorted(found.values(), key=lambda each: (-each[0], each[1])))


class _Sum:
    """Powers and the largest difference, summed over batches."""

    def __init__(self) -> None:
        self.signal = self.noise = self.largest = 0.0
        self.is_finite = True

    def add(self, expected: NDArray[Any], found: NDArray[Any], name: str) -> None:
        """Add one tensor of one batch; integers and truth values are passed over."""
        if expected.dtype.kind != "f" or not expected.size:
            return
        if not np.isfinite(expected).all():
            raise ArtifactError(
                f"The float model gives a number that is not finite in `{name}`. Check the model first."
            )
        if not np.isfinite(found).all():
            self.is_finite = False
            return
        exact = expected.astype(np.float64)
        difference = exact - found
        self.signal += float(np.vdot(exact, exact))
        self.noise += float(np.vdot(difference, difference))
        self.largest = max(self.largest, float(np.abs(difference).max()))

    def loss(self) -> Loss:
        """The sums as a loss."""
        if not self.is_finite:
            return Loss(None, None, False)
        return Loss(self.largest, decibels(self.signal, self.noise), True)


def decibels(signal: float, noise: float) -> float | None:
    """Ten times the logarithm of a ratio of powers; None where there is no noise.

    Source: ITU-T G.100.1, decibel of power; the same as `compute_signal_to_quantization_noice_ratio` of ONNX Runtime.
    """
    if noise == 0.0:
        return None
    return 10.0 * float(np.log10(max(signal, np.finfo(np.float64).tiny) / noise))


class _Search:
    """The search for the layers whose quantization costs the outputs most."""

    def __init__(
        self,
        float_model: Path,
        quantized_model: Path,
        folder: Path,
        batches: Sequence[Batch],
        how: Quantization | None,
        threads: int,
        bound: int,
    ) -> None:
        self.float_model, self.quantized_model, self.folder = float_model, quantized_model, folder
        self.batches, self.threads, self.bound, self.trials = batches, threads, bound, 0
        self.names = _asked(float_model, how)
        self.layers: tuple[grafts.Layer, ...] = ()
        self.effects: dict[str, _Sum] = {}
        self.pieces: Pieces | None = None
        self.before: list[list[Arrays]] = []
        self.reference: list[Arrays] = []

    def open(self) -> bool:
        """Whether there are layers to switch; the graph in which they are is then open."""
        graph, prepared, _ = graphs.prepare(self.float_model, self.folder)
        model = onnx.load(str(prepared), load_external_data=False)
        self.layers = grafts.switchable(model, onnx.load(str(self.quantized_model)), self.names)
        if not self.layers:
            return False
        marks = [layer.tensor for layer in self.layers]
        self.pieces = Pieces(model, graph.types, marks, self.folder, self.threads)
        self.before = [self.pieces.through({**batch, **self._switches(())}) for batch in self.batches]
        self.reference = [before[-1] for before in self.before]
        return True

    def worst(self, limit: int) -> tuple[list[grafts.Layer], bool]:
        """The `limit` layers that cost most, the worst first, and whether that is certain."""
        if not self.open():
            return [], True
        # A heap of sets of layers, the costliest first; places break ties, so that the order is always the same.
        first = self.cost(0, len(self.layers))
        heap: list[tuple[float, int, int]] = [(-first, 0, len(self.layers))]
        singles: list[tuple[float, int]] = []
        while heap and len(singles) < limit and self.trials + 2 <= self.bound:
            cost, start, stop = heapq.heappop(heap)
            if stop - start == 1:
                singles.append((-cost, start))
                continue
            middle = (start + stop) // 2
            for low, high in ((start, middle), (middle, stop)):
                heapq.heappush(heap, (-self.cost(low, high), low, high))
        certain = len(singles) >= min(limit, len(self.layers))
        # When the trials are used up, the single layers met on the way are the best that is known.
        rest = sorted((cost, start) for cost, start, stop in heap if stop - start == 1)
        singles += [(-cost, start) for cost, start in islice(rest, max(0, limit - len(singles)))]
        singles.sort(key=lambda single: (-single[0], single[1]))
        return [self.layers[start] for _, start in singles], certain

    def cost(self, start: int, stop: int) -> float:
        """The power of what the outputs lose when the layers from `start` to `stop` are quantized, over their own."""
        self.trials += 1
        total = _Sum()
        for found, expected in zip(self._switched(self.layers[start:stop]), self.reference, strict=True):
            for name, value in expected.items():
                total.add(value, found[name], name)
        if stop - start == 1:
            self.effects[self.layers[start].tensor] = total
        return total.noise / max(total.signal, np.finfo(np.float64).tiny) if total.is_finite else float("inf")

    def _switched(self, on: Sequence[grafts.Layer]) -> Iterator[Arrays]:
        """The outputs for each batch, with some layers quantized, the first of them given first."""
        if self.pieces is not None:
            first, switches = self.pieces.piece_of(on[0].tensor), self._switches(on)
            for batch, before in zip(self.batches, self.before, strict=True):
                yield self.pieces.run({**batch, **switches}, first, before)

    def _switches(self, on: Sequence[grafts.Layer]) -> Arrays:
        chosen = {layer.switch for layer in on}
        return {layer.switch: np.array(layer.switch in chosen) for layer in self.layers}


def _compared(search: _Search, worst: Sequence[grafts.Layer]) -> tuple[LayerLoss, ...]:
    """The layers found, each with what it loses alone and together."""
    if not worst:
        return ()
    model = onnx.load(str(search.folder / "float.onnx"), load_external_data=False)
    quantized = onnx.load(str(search.quantized_model))
    layers = {layer.tensor: layer for layer in grafts.exposed(model, quantized, {layer.node for layer in worst})}
    sessions: list[Any] = []
    for name, proto in (("exposed", model), ("together", quantized)):
        target = search.folder / f"{name}.onnx"
        graphs.write(proto, target)
        sessions.append(session(target, search.threads, 0))
    alone, together = ({layer.tensor: _Sum() for layer in worst} for _ in range(2))
    for batch in search.batches:
        wanted = [name for layer in worst for name in (layer.tensor, layers[layer.tensor].alone)]
        floats = _run(sessions[0], list(dict.fromkeys(wanted)), batch)
        integers = _run(sessions[1], list(dict.fromkeys(layers[layer.tensor].together for layer in worst)), batch)
        for layer in worst:
            grafted = layers[layer.tensor]
            alone[layer.tensor].add(floats[layer.tensor], floats[grafted.alone], layer.tensor)
            together[layer.tensor].add(floats[layer.tensor], integers[grafted.together], layer.tensor)
    return tuple(
        LayerLoss(
            layer.node,
            layer.operator,
            search.effects[layer.tensor].loss(),
            alone[layer.tensor].loss(),
            together[layer.tensor].loss(),
        )
        for layer in worst
    )


def _asked(float_model: Path, how: Quantization | None) -> frozenset[str] | None:
    """Names of the nodes that a quantization means to quantize; None where none is given."""
    return None if how is None else frozenset(operators.quantized_nodes(float_model, how))


def _deployed(model: Path, threads: int) -> Any:
    """A session with all graph optimizations; with the basic ones, where the runtime's own later ones break the model.

    A row that runs it with more than these fails, and says so.
    """
    try:
        return session(model, threads, 99)
    except refusals():
        return session(model, threads, 1)


def _run(opened: Any, names: Sequence[str] | None, batch: Batch) -> Arrays:
    wanted = [output.name for output in opened.get_outputs()] if names is None else list(names)
    return dict(zip(wanted, opened.run(wanted, dict(batch)), strict=True))
