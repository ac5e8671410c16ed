"""The steps `calibrate`, `quantize`, `explain` and `rank`: int8 graphs, and what quantization costs."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from numpy.typing import NDArray

from benchcard.quantization.outcomes import Exclusion, LayerEffect, Losses, QuantizationReport
from benchcard.quantization.settings import Quantization
from benchcard.steps.data import RowsOutcome
from benchcard.steps.models import ModelFile, path_of
from benchcard.steps.step import Outcome, Progress, Request, local, named, need

if TYPE_CHECKING:
    from benchcard.quantization.calibration.ranges import Method

STATISTICS = "statistics.npz"
"""The file of `CalibrateOutcome`."""
# The fields of `Method` that have another name in a spec's `calibration`.
_METHOD_FIELDS = {
    "calibration_histogram_percentile": "percentile",
    "calibration_moving_average": "moving_average",
    "calibration_moving_average_constant": "moving_average_constant",
}


@dataclass(frozen=True, kw_only=True)
class CalibrateOutcome:
    """Statistics of activations, in `STATISTICS`; `report` is for the record."""

    report: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CalibrateRequest(Request[CalibrateOutcome]):
    """Statistics of a graph's activations over samples; `operators` None for those of all operators."""

    kind: ClassVar[str] = "calibrate"
    engine: ClassVar[str] = "onnx"
    operators: Sequence[str] | None
    graph: Outcome[ModelFile] = need()
    samples: Outcome[RowsOutcome] = need()
    threads: int = local()

    def __str__(self) -> str:
        return f"calibrate {'+'.join(self.operators or ['all operators'])}"


@dataclass(frozen=True, kw_only=True)
class QuantizeOutcome(ModelFile):
    """A quantized graph. `how` are its settings; `exclusions` say what each pattern matched."""

    report: QuantizationReport
    how: Quantization
    exclusions: tuple[Exclusion, ...]


@dataclass(frozen=True, kw_only=True)
class QuantizeRequest(Request[QuantizeOutcome]):
    """A quantized graph. Settings are those of `Quantization`, with exclusions as patterns.

    Static quantization has the statistics of activations, and what a spec's `calibration` says of ranges.
    """

    kind: ClassVar[str] = "quantize"
    approach: str
    operators_to_quantize: Sequence[str] | None
    per_channel: bool | None
    reduce_range: bool | None
    weights_dtype: str | None
    activations_dtype: str | None
    quant_format: str | None
    weights_symmetric: bool | None
    activations_symmetric: bool | None
    matmul_const_b_only: bool | None
    exclude: Sequence[str]
    bits: int | None = None
    block_size: int | None = None
    algorithm: str | None = None
    accuracy_level: int | None = None
    calibration: Mapping[str, Any] | None = None
    graph: Outcome[ModelFile] = need()
    statistics: Outcome[CalibrateOutcome] | None = need(default=None)

    def __str__(self) -> str:
        operators = self.operators_to_quantize
        approach = f"{self.algorithm} {self.bits} bits" if self.algorithm else self.approach
        return f"quantize {approach} {'all' if operators is None else '+'.join(operators) or 'none'}"

    @property
    def engine(self) -> str:
        """The kind of child process: `hqq` computes with torch."""
        return "torch" if self.algorithm == "hqq" else "onnx"

    @property
    def settings(self) -> Quantization:
        """The settings, with no nodes excluded yet."""
        return msgspec.convert(self, Quantization, from_attributes=True)


@dataclass(frozen=True, kw_only=True)
class ExplainOutcome(Losses):
    """What quantization cost the outputs and, if they are far from float32, the layers that cost most.

    `patterns` exclude the costliest layer.
    """

    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _ComparedModels:
    """A quantized graph, with its digest and settings, and its float graph, to compare on `samples` inputs."""

    engine: ClassVar[str] = "onnx"
    model: str
    float_digest: str = named("float")
    samples: int
    inputs: Outcome[RowsOutcome] = need()
    model_file: Path = local()
    float_file: Path = local()
    how: Quantization = local()
    threads: int = local()


@dataclass(frozen=True, kw_only=True)
class ExplainRequest(_ComparedModels, Request[ExplainOutcome]):
    """The losses of a quantized graph against its float graph, with the costliest `layers` if outputs are far."""

    kind: ClassVar[str] = "explain"
    layers: int
    optimization_level: int

    def __str__(self) -> str:
        return "explain losses"


@dataclass(frozen=True, kw_only=True)
class RankOutcome:
    """The names of all quantized nodes, the costliest first, and the losses of those that can be measured alone."""

    nodes: tuple[str, ...]
    layers: tuple[LayerEffect, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RankRequest(_ComparedModels, Request[RankOutcome]):
    """The order of all quantized nodes by their cost."""

    kind: ClassVar[str] = "rank"

    def __str__(self) -> str:
        return "rank layers"


def calibrate(request: CalibrateRequest, target: Path, progress: Progress) -> CalibrateOutcome:
    """Write statistics of a graph's activations, from one pass of the samples, for all static rows of the grid."""
    from benchcard.evaluation.features import Features
    from benchcard.evaluation.feeds import feeds
    from benchcard.quantization.calibration.collect import collect_statistics

    samples, model = Features(request.samples.folder), path_of(request.graph)
    # One sample at a time, as ONNX Runtime's own calibration does: moving averages and memory depend on it.
    report = collect_statistics(
        model,
        feeds(samples, model),
        target / STATISTICS,
        operators=request.operators,
        intra_op_num_threads=request.threads,
        progress=lambda done: progress(done, len(samples)),
    )
    return CalibrateOutcome(report=asdict(report))


def range_method(calibration: Mapping[str, Any]) -> Method:
    """Return the method of a request's `calibration`."""
    from benchcard.quantization.calibration.ranges import Method

    return Method(**{_METHOD_FIELDS.get(name, name): value for name, value in calibration.items()})


@functools.lru_cache(maxsize=4)
def _ranges(statistics: Path, method: Method, operators: tuple[str, ...] | None) -> Any:
    """Return ranges of activations, cached for several rows: do not change them."""
    from benchcard.quantization.calibration.ranges import compute_ranges

    return compute_ranges(statistics, method, operators)


def quantize(request: QuantizeRequest, target: Path, progress: Progress) -> QuantizeOutcome:
    """Write a quantized graph that the runtime can load and run, and report on its nodes."""
    from benchcard.graphs.weights import stored_weights
    from benchcard.quantization import exclusions
    from benchcard.quantization.loading import loading_note
    from benchcard.quantization.quantize import quantize_model

    model, how = path_of(request.graph), request.settings
    matched = exclusions.match_exclusions(model, request.exclude, how)
    ranges = None
    if request.statistics is not None:
        method = range_method(request.calibration or {})
        ranges = _ranges(request.statistics.folder / STATISTICS, method, how.operators_to_quantize)
    how = replace(how, nodes_to_exclude=exclusions.excluded_names(matched))
    report = quantize_model(model, target / "model.onnx", how, ranges)
    if note := loading_note(target / "model.onnx"):
        report = replace(report, notes=(*report.notes, note))
    stored = stored_weights(target / "model.onnx")
    return QuantizeOutcome(
        file="model.onnx",
        digest=report.digest,
        size_bytes=report.size_bytes,
        weights=stored.count,
        weight_bits=stored.bits,
        report=report,
        how=how,
        exclusions=matched,
    )


def explain(request: ExplainRequest, target: Path, progress: Progress) -> ExplainOutcome:
    """Compare a quantized graph's outputs with its float graph's, and find the costliest layers if they are far apart.

    The search takes dozens of forward passes. Where little was lost, its result is of no use.
    """
    from benchcard.quantization.exclusions import patterns_with
    from benchcard.quantization.sensitivity.losses import measure_losses

    model, level = request.float_file, request.optimization_level
    losses = measure_losses(
        model,
        request.model_file,
        _feeds(request.inputs.folder, model, request.samples),
        request.layers,
        only_far=True,
        settings=request.how,
        threads=request.threads,
        optimization_level=level,
        expected=_float_outputs(model, request.inputs.folder, request.samples, request.threads, level),
        folder=target,
    )
    patterns = patterns_with(model, losses.layers[0].node) if losses.layers else ()
    return ExplainOutcome(**vars(losses), patterns=tuple(patterns))


@functools.lru_cache(maxsize=2)
def _float_outputs(model: Path, inputs: Path, samples: int, threads: int, level: int) -> Any:
    """Return the outputs of a float graph, cached for the rows that are compared with it."""
    from benchcard.quantization.sensitivity.losses import model_outputs

    return model_outputs(model, _feeds(inputs, model, samples), threads, level)


def rank(request: RankRequest, target: Path, progress: Progress) -> RankOutcome:
    """Order all quantized nodes by what quantizing each alone costs the outputs, the costliest first."""
    from benchcard.quantization.operators import quantized_nodes
    from benchcard.quantization.sensitivity.losses import rank_layers

    model = request.float_file
    layers = rank_layers(
        model,
        request.model_file,
        list(_feeds(request.inputs.folder, model, request.samples)),
        settings=request.how,
        threads=request.threads,
        progress=progress,
        folder=target,
    )
    ranked = [layer.node for layer in layers]
    # Nodes that cannot be measured alone come last, so that all nodes of the list together give the float model.
    unmeasured = [name for name in quantized_nodes(model, request.how) if name not in ranked]
    return RankOutcome(nodes=(*ranked, *unmeasured), layers=tuple(layers))


def _feeds(inputs: Path, model: Path, samples: int) -> Iterator[dict[str, NDArray[Any]]]:
    from benchcard.evaluation.features import Features
    from benchcard.evaluation.feeds import feeds

    return feeds(Features(inputs), model, samples)
