"""The steps `metric`, `evaluate`, `score` and `compare`: predictions, and their metrics."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchcard import registry
from benchcard.errors import Mistake, SpecError
from benchcard.frameworks.kernels import Kernel
from benchcard.metrics.info import FigureUncertainty, MetricInfo
from benchcard.steps.data import RowsOutcome
from benchcard.steps.step import Count, Outcome, Positive, Progress, Request, local, need
from benchcard.utils.text import did_you_mean, join_names
from benchcard.utils.values import Interval

if TYPE_CHECKING:
    from benchcard.evaluation.rows import Rows
    from benchcard.metrics import MetricInputs
    from benchcard.metrics.info import Figure


@dataclass(frozen=True)
class MetricOutcome:
    """Nothing; that there is an outcome says that the metric can be loaded."""


@dataclass(frozen=True, kw_only=True)
class MetricRequest(Request[MetricOutcome]):
    """A check that a metric that is not one of benchcard's own can be loaded. `scripts` are local files, by name."""

    kind: ClassVar[str] = "metric"
    name: str
    scripts: Mapping[str, str] = local()


@dataclass(frozen=True, kw_only=True)
class EvaluateOutcome:
    """Predictions, in a file of the step, and the wall time of the pass.

    The kernels are those of a call, the longest first, if the framework reports them. `batches` is how inputs were
    batched, as in `evaluation.padding.Probe.batches`; None for a batch size of one.
    """

    elapsed_ns: Positive
    forward_ns: Count = 0
    items: Count = 0
    threads: Positive | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    kernels: tuple[Kernel, ...] = ()
    batches: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(Request[EvaluateOutcome]):
    """A prediction for every prepared row, `batch_size` rows in a call; None for the choice of the task."""

    kind: ClassVar[str] = "evaluate"
    model: str | None
    framework: str
    options: Mapping[str, Any]
    task: str
    batch_size: int | None
    inputs: Outcome[RowsOutcome] = need()
    model_path: Path = local()
    threads: int = local()

    def __str__(self) -> str:
        return f"evaluate {self.framework}"


@dataclass(frozen=True, kw_only=True)
class ScoreOutcome:
    """Metrics of predictions, with their units and directions, and the labels of those that are of one label.

    A metric is None where it is not defined for these predictions.
    """

    metrics: Mapping[str, float | None]
    readings: Mapping[str, MetricInfo] = field(default_factory=dict)
    positive_classes: Mapping[str, str] = field(default_factory=dict)
    samples: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ScoreRequest(Request[ScoreOutcome]):
    """The metrics of predictions. `higher_is_better` has the directions that the spec gives; `baseline_outputs` is what
    is kept of the baseline's outputs, for a task whose predictions are made with them.
    """

    kind: ClassVar[str] = "score"
    metrics: Sequence[str]
    task: str
    higher_is_better: Mapping[str, bool] | None = None
    inputs: Outcome[RowsOutcome] = need()
    predictions: Outcome[EvaluateOutcome] = need()
    baseline_outputs: Outcome[EvaluateOutcome] | None = need(default=None)
    scripts: Mapping[str, str] = local()
    task_files: Mapping[str, Path] = local(default_factory=dict)

    def __str__(self) -> str:
        return f"score {', '.join(self.metrics)}"


@dataclass(frozen=True, kw_only=True)
class CompareOutcome:
    """The interval of each metric and its difference from the baseline's, and how many predictions differ from its.

    `fidelity` has the figures of `metrics.info.FIDELITY` that the task has, None in runs of an earlier version; `ratio`
    is the first metric over the baseline's. Both are empty without a baseline.
    """

    figures: Mapping[str, FigureUncertainty]
    predictions_changed: Count | None = None
    fidelity: Mapping[str, Interval] | None = None
    ratio: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class CompareRequest(Request[CompareOutcome]):
    """Intervals of metrics and, where there is a baseline, of their differences from the baseline's.

    `models` is the number of models that are compared with this baseline, where it changes the number of resamples;
    `baseline_outputs` is that of `ScoreRequest`, which the baseline itself has, too.
    """

    kind: ClassVar[str] = "compare"
    metrics: Sequence[str]
    task: str
    seed: int
    models: int = 1
    inputs: Outcome[RowsOutcome] = need()
    predictions: Outcome[EvaluateOutcome] = need()
    baseline: Outcome[EvaluateOutcome] | None = need(default=None)
    baseline_outputs: Outcome[EvaluateOutcome] | None = need(default=None)
    scripts: Mapping[str, str] = local()
    task_files: Mapping[str, Path] = local(default_factory=dict)


def metric(request: MetricRequest, target: Path, progress: Progress) -> MetricOutcome:
    """Load a metric, so that a metric that cannot be loaded fails before anything slow is done."""
    from benchcard.metrics.compute import load_metric

    metric = load_metric(request.name, request.scripts.get(request.name))
    getattr(metric, "import_packages", lambda: None)()
    return MetricOutcome()


def evaluate(request: EvaluateRequest, target: Path, progress: Progress) -> EvaluateOutcome:
    """Write a prediction for every prepared row, in their order, and report the kernels of a call."""
    from benchcard.evaluation.passes import run_pass
    from benchcard.evaluation.rows import Rows, write_predictions

    framework, task = registry.framework(request.framework), registry.task(request.task)
    rows = Rows(request.inputs.folder)
    # Only a method of the class itself counts: a subclass may open models in another way.
    profiled = "open_profiled" in vars(type(framework))
    open_model = framework.open_profiled if profiled else framework.open
    with _temporary_files_in(target):
        model = open_model(request.model_path, {**request.options, "intra_op_num_threads": request.threads})
    result = run_pass(model, rows, task, request.batch_size, progress, profiled=profiled)
    write_predictions(target, result.kept, result.predictions)
    return EvaluateOutcome(
        items=len(rows.items),
        elapsed_ns=result.elapsed_ns,
        forward_ns=result.forward_ns,
        threads=request.threads,
        facts=dict(model.facts),
        kernels=tuple(result.kernels),
        batches=result.batches,
    )


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Make temporary files in a step's folder, so that those of a killed process are deleted with it."""
    earlier, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = earlier


def score(request: ScoreRequest, target: Path, progress: Progress) -> ScoreOutcome:
    """Compute each metric of the predictions."""
    from benchcard.evaluation.rows import Rows
    from benchcard.metrics import compute

    rows = Rows(request.inputs.folder)
    inputs = _metric_inputs(request, rows, request.predictions)
    directions = request.higher_is_better or {}
    by_metric: dict[str, dict[str, Figure]] = {}
    for name in request.metrics:
        by_metric[name] = compute.compute_metric(name, inputs, request.scripts.get(name), directions)
    figures = compute.merge_figures(by_metric, rows.meanings)
    if unknown := [name for name in directions if name not in figures and name not in request.metrics]:
        place = f"$.higher_is_better.{unknown[0]}"
        raise SpecError(Mistake(place, f"`{unknown[0]}`", join_names(figures), did_you_mean(unknown[0], figures)))
    notes = [f"{name} is not defined for these predictions" for name, figure in figures.items() if figure.value is None]
    positive, sentences = _positive_classes(figures, rows)
    return ScoreOutcome(
        metrics={name: figure.value for name, figure in figures.items()},
        readings={name: figure.info for name, figure in figures.items()},
        positive_classes=positive,
        samples=len(rows),
        notes=(*notes, *sentences),
    )


def _metric_inputs(
    request: ScoreRequest | CompareRequest, rows: Rows, predictions: Outcome[EvaluateOutcome]
) -> MetricInputs:
    """Return what metrics of these predictions are computed from."""
    from benchcard.evaluation.rows import metric_inputs

    outputs, task = request.baseline_outputs, registry.task(request.task)
    baseline = outputs.folder if outputs else None
    return metric_inputs(rows, predictions.folder, task, baseline, request.task_files.values())


def _positive_classes(figures: Mapping[str, Figure], rows: Rows) -> tuple[dict[str, str], list[str]]:
    """Return the name of the positive class of each figure that has one, and sentences for the reader."""
    metrics_of: dict[int, list[str]] = {}
    for name, figure in figures.items():
        if figure.positive_label is not None:
            metrics_of.setdefault(figure.positive_label, []).append(name)
    classes: dict[str, str] = {}
    sentences = []
    for label, metrics in metrics_of.items():
        positive = rows.labels[label] if label in range(len(rows.labels)) else str(label)
        is_default = label == rows.metric_defaults.get("pos_label")
        source = rows.positive_source if is_default else "as metric_args says"
        sentences.append(f"{', '.join(metrics)}: the positive class is `{positive}`, {source}")
        classes |= dict.fromkeys(metrics, positive)
    return classes, sentences


def compare(request: CompareRequest, target: Path, progress: Progress) -> CompareOutcome:
    """Compute the interval of each figure and, where there is a baseline, of its difference from the baseline's."""
    from benchcard.evaluation.fidelity import compare_outputs
    from benchcard.evaluation.rows import Rows
    from benchcard.metrics import uncertainty
    from benchcard.metrics.examples import examples_of
    from benchcard.metrics.fidelity import figure_ratio

    rows = Rows(request.inputs.folder)
    inputs = _metric_inputs(request, rows, request.predictions)
    baseline_inputs = _metric_inputs(request, rows, request.baseline) if request.baseline else None
    figures: dict[str, FigureUncertainty] = {}
    ratio = None
    for number, name in enumerate(request.metrics):
        script = request.scripts.get(name)
        model = examples_of(name, inputs, script)
        baseline = examples_of(name, baseline_inputs, script) if baseline_inputs else {}
        for figure, examples in model.items():
            test = None
            if figure in baseline:
                test = uncertainty.paired_test(baseline[figure], examples, request.seed, models=request.models)
                ratio = ratio if figures else figure_ratio(baseline[figure], examples, request.seed)
            figures[figure] = uncertainty.figure_uncertainty(uncertainty.interval(examples, request.seed), test)
        progress(number + 1, len(request.metrics))
    if request.baseline is None or baseline_inputs is None:
        return CompareOutcome(figures=figures, fidelity={})
    folders = request.baseline.folder, request.predictions.folder
    return CompareOutcome(
        figures=figures,
        predictions_changed=uncertainty.count_changed(baseline_inputs.predictions, inputs.predictions),
        fidelity=compare_outputs(registry.task(request.task), rows, *folders, request.seed),
        ratio=ratio,
    )
