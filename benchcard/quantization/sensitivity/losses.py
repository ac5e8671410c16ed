"""What quantization cost: the outputs against float32, and the layers that cost most.

This module owns the forward passes that compare a quantized model with its float model, one batch at a time. The layers
that cost most are found in `search`, the graphs that show layers alone are built in `grafts`.

A layer's loss can be told in three ways, and all three are reported:

- **effect**: what the outputs lose when this layer alone is quantized and all others compute in float32, also those
  that read the same tensor as it does (the format QDQ has one 8-bit form for all that read a tensor);
- **alone**: what the layer's own output loses then;
- **together**: what the layer's output has lost in the quantized model, where the layers before it are quantized too.

Layers are ranked by their effect. The other two do not name the culprits: in a vision transformer whose decomposed
layer norms are quantized, no sum before them loses much of its own (38 dB), for a few large numbers carry its power
while the norm scales the small ones up; and from there on everything has lost equally much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from benchcard.errors import ArtifactError
from benchcard.graphs import files
from benchcard.graphs.runtime import refusals
from benchcard.quantization.operators import Quantization
from benchcard.quantization.sensitivity import grafts
from benchcard.quantization.sensitivity.loss import Loss, Sum
from benchcard.quantization.sensitivity.pieces import Arrays, session
from benchcard.quantization.sensitivity.search import Batch, Search


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
        is_complete: False where the trials ended while another layer was expected to cost as much.
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
    optimization_level: int = 99,
    expected: Sequence[Arrays] | None = None,
    folder: Path | None = None,
) -> Losses:
    """What a quantized model lost, and the `limit` layers that cost most.

    Args:
        float_model: The float model.
        quantized_model: What became of it.
        batches: Inputs by name; iterated once. Memory is that of one batch and, for each of `searched_batches`, of its
            inputs and of what the pieces of the graph hand on.
        limit: How many layers to name; 0 for none, which runs no trial.
        how: The quantization, so that only nodes it asked for are named; None for every quantized layer.
        trials: Bound of the number of sets of layers that are tried.
        searched_batches: How many of the batches each trial runs, the first ones.
        threads: Threads of each session.
        optimization_level: The level at which both models are deployed: 0, 1, 2 or 99. Above 1 the runtime joins
            quantized nodes to what computes in 8 bits, where products may saturate.
        expected: What `outputs_of` gives for the float model and the same batches and level, where that is known.
        folder: Where graphs are written meanwhile, about the size of both models; None for the system's place.

    Raises:
        ArtifactError: There is no batch, or the float model gives a number that is not finite.
    """
    outputs = Sum()
    kept: list[Batch] = []
    count = 0
    plain = _deployed(float_model, threads, optimization_level) if expected is None else None
    quantized = _deployed(quantized_model, threads, optimization_level)
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
    with tempfile.TemporaryDirectory(prefix=".losses-", dir=folder) as place:
        if limit < 1:
            return Losses(outputs.loss(), count, (), 0, 0, len(kept), is_complete=True)
        search = Search(float_model, quantized_model, Path(place), kept, how, threads, trials)
        worst, certain = search.worst(limit)
        found_layers = _compared(search, worst, quantized_model, Path(place))
        return Losses(outputs.loss(), count, found_layers, len(search.layers), search.trials, len(kept), certain)


def outputs_of(
    model: Path, batches: Iterable[Batch], threads: int = 1, optimization_level: int = 99
) -> tuple[Arrays, ...]:
    """The outputs of a model by name, for each batch, run as it is deployed at this level."""
    session = _deployed(model, threads, optimization_level)
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
    folder: Path | None = None,
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
        folder: As for `losses`.

    Raises:
        ArtifactError: The float model gives a number that is not finite.
    """
    with tempfile.TemporaryDirectory(prefix=".losses-", dir=folder) as place:
        search = Search(float_model, quantized_model, Path(place), batches, how, threads)
        found: dict[str, tuple[float, int, Effect]] = {}
        for number, layer in enumerate(search.layers):
            cost = search.tried(number, number + 1).cost
            if layer.node not in found or cost > found[layer.node][0]:
                loss = search.effects[layer.tensor].loss()
                found[layer.node] = (cost, number, Effect(layer.node, layer.operator, loss))
            progress(number + 1, len(search.layers))
        return tuple(each[2] for each in sorted(found.values(), key=lambda each: (-each[0], each[1])))


def _compared(
    search: Search, worst: Sequence[grafts.Layer], quantized_model: Path, folder: Path
) -> tuple[LayerLoss, ...]:
    """The layers found, each with what it loses alone and together. `folder` is the one of the search."""
    if not worst:
        return ()
    model = onnx.load(str(folder / "float.onnx"), load_external_data=False)
    quantized = onnx.load(str(quantized_model))
    layers = {layer.tensor: layer for layer in grafts.exposed(model, quantized, {layer.node for layer in worst})}
    sessions: list[Any] = []
    for name, proto in (("exposed", model), ("together", quantized)):
        target = folder / f"{name}.onnx"
        files.write_model(proto, target)
        sessions.append(session(target, search.threads, 0))
    alone, together = ({layer.tensor: Sum() for layer in worst} for _ in range(2))
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


def _deployed(model: Path, threads: int, optimization_level: int) -> Any:
    """A session of this level; with the basic optimizations, where the runtime's own later ones break the model.

    A row that runs it with more than these fails, and says so.
    """
    try:
        return session(model, threads, optimization_level)
    except refusals():
        return session(model, threads, 1)


def _run(opened: Any, names: Sequence[str] | None, batch: Batch) -> Arrays:
    wanted = [output.name for output in opened.get_outputs()] if names is None else list(names)
    return dict(zip(wanted, opened.run(wanted, dict(batch)), strict=True))
