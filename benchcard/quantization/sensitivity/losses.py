"""What quantization cost: the outputs compared with float32, and the layers that cost most.

This module owns the forward passes that compare both models, one batch at a time. The layers that cost most are found
in `search`, the graphs that show single layers are built in `layers`. The loss of a layer is measured in three ways:

- **effect**: what the outputs lose when this layer alone is quantized; other readers of its inputs stay in float32;
- **alone**: what the layer's own output loses then;
- **together**: what the layer's output has lost in the quantized model, where the layers before it are quantized too.

Layers are ranked by their effect. The other two do not show which layers to exclude: in a vision transformer whose
decomposed layer norms are quantized, no sum before them loses much of its own (38 dB), because a few large numbers
carry its power while the norm scales the small ones up; and from there on every layer has lost equally much.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import onnx
import onnxruntime

from benchcard.errors import ArtifactError
from benchcard.graphs.files import write_model
from benchcard.graphs.runtime import open_session, runtime_errors
from benchcard.quantization.outcomes import LayerEffect, LayerLoss, Losses
from benchcard.quantization.sensitivity.layers import Layer, expose_layers
from benchcard.quantization.sensitivity.loss import LossSum
from benchcard.quantization.sensitivity.search import LayerSearch
from benchcard.quantization.sensitivity.segments import Arrays
from benchcard.quantization.settings import Quantization

# The first batches, on which sets of layers are tried.
_SEARCHED_BATCHES = 2


def measure_losses(
    float_model: Path,
    quantized_model: Path,
    batches: Iterable[Arrays],
    limit: int = 3,
    *,
    only_far: bool = False,
    settings: Quantization | None = None,
    trials: int = 32,
    threads: int = 1,
    optimization_level: int = 99,
    expected: Sequence[Arrays] | None = None,
    folder: Path | None = None,
) -> Losses:
    """Return what a quantized model lost, and the `limit` layers that cost most; none for 0, which runs no trial.

    Both models are run at the `optimization_level` at which they are deployed: above 1 the runtime fuses quantized
    nodes into nodes that compute in 8 bits, where products may saturate. At most `trials` sets of layers are tried, on
    the first two batches. Memory is that of one batch and, for each of these, of its inputs and of what the segments of
    the graph hand on. Only nodes that `settings` asked for are named; for None, every quantized layer. With `only_far`,
    there is no search in a model whose outputs are close to those in float32.

    `expected` is what `model_outputs` returns for the float model and the same batches and level, where it is known.
    Temporary graphs, about the size of both models, are written to `folder`; for None, to the system's folder.

    Raises:
        ArtifactError: There is no batch, or the float model gives a number that is not finite.
    """
    outputs, kept, count = LossSum(), list[Arrays](), 0
    float_session = _open_deployed(float_model, threads, optimization_level) if expected is None else None
    quantized_session = _open_deployed(quantized_model, threads, optimization_level)
    for count, batch in enumerate(batches, start=1):
        exact = _run(float_session, batch) if expected is None else expected[count - 1]
        actual = _run(quantized_session, batch)
        for name, value in exact.items():
            outputs.add(value, actual[name], name)
        if len(kept) < _SEARCHED_BATCHES:
            kept.append(batch)
    if not count:
        raise ArtifactError("There is no batch to compare the quantized model on. Give one calibration sample or more.")
    del float_session, quantized_session
    loss = outputs.loss()
    if limit < 1 or (only_far and not loss.is_far):
        return Losses(loss, count, (), 0, 0, len(kept), is_complete=True)
    with tempfile.TemporaryDirectory(prefix=".losses-", dir=folder) as temporary:
        search = LayerSearch(float_model, quantized_model, Path(temporary), kept, settings, threads, trials)
        worst, is_complete = search.find_worst(limit)
        layers = _compare_layers(search, worst, quantized_model, Path(temporary))
        return Losses(loss, count, layers, len(search.layers), search.trials, len(kept), is_complete)


def model_outputs(
    model: Path, batches: Iterable[Arrays], threads: int = 1, optimization_level: int = 99
) -> tuple[Arrays, ...]:
    """Return the outputs of a model by name, for each batch, run as it is deployed at this level."""
    session = _open_deployed(model, threads, optimization_level)
    return tuple(_run(session, batch) for batch in batches)


def rank_layers(
    float_model: Path,
    quantized_model: Path,
    batches: Sequence[Arrays],
    *,
    settings: Quantization,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    folder: Path | None = None,
) -> tuple[LayerEffect, ...]:
    """Return every quantized layer by its effect on the outputs when it alone is quantized, the worst first.

    The effect of a node is that of its costliest output. Only nodes that `settings` asked for are named. `progress` is
    called after each layer with the number of layers done and of all layers. Temporary graphs are written to `folder`.
    """
    with tempfile.TemporaryDirectory(prefix=".losses-", dir=folder) as temporary:
        search = LayerSearch(float_model, quantized_model, Path(temporary), batches, settings, threads)
        costs: dict[Layer, float] = {}
        for index, layer in enumerate(search.layers):
            costs[layer] = search.try_layers(index, index + 1).cost
            progress(index + 1, len(search.layers))
        costliest: dict[str, LayerEffect] = {}
        for layer in sorted(costs, key=lambda layer: -costs[layer]):
            effect = LayerEffect(layer.node, layer.operator, search.effects[layer.tensor].loss())
            costliest.setdefault(layer.node, effect)
        return tuple(costliest.values())


def _compare_layers(
    search: LayerSearch, worst: Sequence[Layer], quantized_model: Path, folder: Path
) -> tuple[LayerLoss, ...]:
    """Return the layers of a search, each with what it loses alone and together. `folder` is that of the search."""
    if not worst:
        return ()
    model = onnx.load(str(folder / "float.onnx"), load_external_data=False)
    quantized = onnx.load(str(quantized_model))
    layers = {layer.tensor: layer for layer in expose_layers(model, quantized, {layer.node for layer in worst})}
    sessions: list[onnxruntime.InferenceSession] = []
    for name, proto in (("exposed", model), ("together", quantized)):
        target = folder / f"{name}.onnx"
        write_model(proto, target)
        sessions.append(open_session(target, 0, search.threads))
    alone, together = ({layer.tensor: LossSum() for layer in worst} for _ in range(2))
    for batch in search.batches:
        names = [name for layer in worst for name in (layer.tensor, layers[layer.tensor].alone)]
        floats = _run(sessions[0], batch, names)
        integers = _run(sessions[1], batch, [layers[layer.tensor].together for layer in worst])
        for layer in worst:
            exposed = layers[layer.tensor]
            alone[layer.tensor].add(floats[layer.tensor], floats[exposed.alone], layer.tensor)
            together[layer.tensor].add(floats[layer.tensor], integers[exposed.together], layer.tensor)
    sums = (search.effects, alone, together)
    return tuple(
        LayerLoss(layer.node, layer.operator, *(losses[layer.tensor].loss() for losses in sums)) for layer in worst
    )


def _open_deployed(model: Path, threads: int, optimization_level: int) -> onnxruntime.InferenceSession:
    """Return a session of this level, or of level 1 where the runtime's own later optimizations break the model.

    A row that runs the model at the higher level fails and reports why.
    """
    try:
        return open_session(model, optimization_level, threads)
    except runtime_errors():
        return open_session(model, 1, threads)


def _run(session: onnxruntime.InferenceSession, batch: Arrays, names: Iterable[str] | None = None) -> Arrays:
    unique = list(dict.fromkeys([output.name for output in session.get_outputs()] if names is None else names))
    return dict(zip(unique, session.run(unique, dict(batch)), strict=True))
