"""The pipeline of one row: which steps it asks for, and in which order.

A row does not do its steps; it asks `Shared` for their outcomes. Which rows there are is left to `pipeline`, and the
search for exclusions to `auto_exclusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from benchcard import registry
from benchcard.frameworks.kernels import UNFUSED_LEVELS
from benchcard.metrics.info import NEEDING_PACKAGES
from benchcard.quantization.settings import PARAMETERS
from benchcard.run.failures import Failures
from benchcard.run.record import Cell, Outcomes, Record, Search
from benchcard.run.traits import Traits
from benchcard.sources.resolve import Sources
from benchcard.spec.parameters import AUTO_DEFAULTS
from benchcard.spec.plan import Configuration, Plan, calibration_method
from benchcard.spec.spec import task_files
from benchcard.steps.data import PrepareRequest, RowsOutcome, RowsRequest, SampleRequest, ShapeRequest
from benchcard.steps.evaluate import (
    CompareRequest,
    EvaluateOutcome,
    EvaluateRequest,
    MetricRequest,
    ScoreOutcome,
    ScoreRequest,
)
from benchcard.steps.models import CastRequest, ConvertRequest, ExportOutcome, ExportRequest, path_of
from benchcard.steps.quantize import CalibrateRequest, ExplainRequest, QuantizeOutcome, QuantizeRequest
from benchcard.steps.step import AnyRequest, Ask, Outcome, Request, StepFailed
from benchcard.utils.plain import canonical_json
from benchcard.utils.values import Failure, Shape

V = TypeVar("V")
R = TypeVar("R", bound=AnyRequest)
Rows = TypeVar("Rows", bound=RowsRequest)
Make = Callable[[Sequence[str]], Outcome[QuantizeOutcome]]
"""Returns the quantized model with these exclusions."""

# How many samples the outputs of a quantized model are compared on, and how many of its layers are named.
EXPLAINED_SAMPLES = 8
EXPLAINED_LAYERS = 3
# The resamples of an interval suffice to compare this many models; only a larger number is part of the request.
FEW_MODELS = 25
# The arguments of a framework that say which graph it is.
_GRAPH_ARGUMENTS = ("opset", "file_name", "inputs", "outputs", "layout")


def calibration_group(configuration: Configuration) -> str:
    """Return a key that is equal for rows that can share a calibration pass."""
    names = ("name_or_path", "from_transformers", "framework", "dataset", "task_args", "seed")
    arguments, samples = configuration["framework_args"], configuration["calibration"]["num_calibration_samples"]
    export = {name: value for name, value in arguments.items() if name in _GRAPH_ARGUMENTS}
    return canonical_json([*(configuration[name] for name in names), export, samples])


@dataclass(frozen=True)
class Shared:
    """What the rows of a plan share. `result` gives the outcome of a step or its failure, `search` finds exclusions."""

    plan: Plan
    sources: Sources
    traits: Traits
    default_threads: int
    result: Ask
    search: Callable[..., Search]
    _requests: dict[Hashable, Any] = field(default_factory=dict)
    _evaluated: dict[int, Outcomes] = field(default_factory=dict)

    @cached_property
    def calibrations(self) -> dict[str, list[str] | None]:
        """The operators that the calibration pass of each group covers, to serve all static rows; None for all."""
        covered: dict[str, set[str] | None] = {}
        for row in self.plan:
            if row["quantization_approach"] == "static":
                group, operators = calibration_group(row), row["operators_to_quantize"]
                others = covered.get(group, set())
                covered[group] = None if operators is None or others is None else others | set(operators)
        return {group: None if operators is None else sorted(operators) for group, operators in covered.items()}

    def row(self, number: int) -> RowPipeline:
        """Return a new pipeline of a row."""
        return RowPipeline(self, self.plan[number])

    def evaluated(self, number: int) -> Outcomes:
        """Return the outcomes of a row up to its predictions. A baseline may come after the rows compared with it."""
        if number not in self._evaluated:
            row = self.row(number)
            with suppress(StepFailed):
                row.prepare()
                row.make()
                row.predict()
            self._evaluated[number] = row.outcomes
        return self._evaluated[number]

    def ask(self, request: Request[V]) -> Outcome[V]:
        """Return the outcome of a step, or raise `StepFailed`."""
        outcome = self.result(request)
        if isinstance(outcome, Failure):
            raise StepFailed(outcome)
        return outcome

    def once(self, token: Hashable, make: Callable[[], R]) -> R:
        """Return the request that `make` returned for this token at first. Hashing a request anew would be slow."""
        if token not in self._requests:
            self._requests[token] = make()
        request: R = self._requests[token]
        return request


class RowPipeline:
    """The pipeline of one row, with its outcomes so far."""

    def __init__(self, shared: Shared, configuration: Configuration) -> None:
        self.shared = shared
        self.configuration = configuration
        self.task = shared.plan.spec.task
        self.source = shared.sources.models[configuration["name_or_path"]]
        self.framework = shared.traits.frameworks[configuration["framework"]]
        self.arguments: Mapping[str, Any] = configuration["framework_args"] or {}
        self.threads = configuration.threads or shared.default_threads
        self.outcomes = Outcomes()
        self.failures = Failures()
        self.cells: dict[Shape, Cell] = {}
        # The model that the row runs: the original one, until there is another.
        self.model: Path = self.source.folder
        self.digest: str | None = None
        self.scales_by_batch = False
        self.search: Search | None = None

    def record(self) -> Record:
        """Return the record of the row as it is now."""
        return Record(self.configuration, self.outcomes, self.digest, self.cells, self.failures, self.search)

    def ask(self, request: Request[V]) -> Outcome[V]:
        """Return the outcome of a step, which the row keeps, or raise `StepFailed`."""
        outcome = self.shared.ask(request)
        setattr(self.outcomes, request.kind, outcome)
        return outcome

    def metrics(self) -> list[str]:
        """Return the metrics of the row, or the default ones of its task."""
        return list(self.shared.traits.metrics_of(self.configuration))

    def prepare(self) -> Outcome[RowsOutcome]:
        """Return the rows to evaluate on. They come first, so that mistakes in the data show before slow steps."""
        for name in self.metrics():
            if name not in registry.metrics() or name in NEEDING_PACKAGES:
                self.shared.ask(MetricRequest(name=name, scripts=self.shared.sources.scripts))
        return self.ask(self._rows(PrepareRequest, "eval_split", max_samples=self.configuration["max_eval_samples"]))

    @property
    def calibrates(self) -> bool:
        """Whether the row has calibration samples: a static one, or one whose framework calibrates by itself."""
        row, traits = self.configuration, self.shared.plan.frameworks[self.configuration["framework"]]
        has_samples = row["calibration"] is not None and bool(row["dataset"].get("calibration_split"))
        return has_samples and (row.quantized or traits.calibrates(row.parameters))

    def sample(self) -> Outcome[RowsOutcome]:
        """Return the rows that the row calibrates on."""
        samples, seed = self.configuration["calibration"]["num_calibration_samples"], self.configuration["seed"]
        return self.ask(self._rows(SampleRequest, "calibration_split", num_samples=samples, seed=seed))

    def task_files(self) -> dict[str, Path]:
        """Return the paths of those `task_args` that are files, by their names."""
        return task_files(self.configuration["task_args"] or {}, self.shared.plan.spec.local_path)

    def _rows(self, kind: type[Rows], split: str, **limits: Any) -> Rows:
        dataset, task_args = self.configuration["dataset"], self.configuration["task_args"]
        maximum = self._input_length

        def make() -> Rows:
            source = self.shared.sources.dataset(dataset)
            return kind(
                **self._model(),
                **limits,
                dataset=source.identity,
                name=None if source.freely_named else dataset.get("name"),
                split=dataset[split],
                data_keys=dataset.get("data_keys"),
                ref_keys=dataset.get("ref_keys"),
                task=self.task,
                task_args=task_args,
                task_files=self.task_files(),
                maximum=maximum,
                location=source.location,
                revision=source.revision,
                content=source.content,
            )

        # The plan keeps these mappings alive, so that their addresses are unique.
        return self._once(kind.kind, id(dataset), id(task_args), maximum, *limits.values(), make=make)

    def _once(self, *token: Hashable, make: Callable[[], R]) -> R:
        """Return the request of a token, which only rows with the same model and the same trust in it share."""
        return self.shared.once((*token, self.source.name, self.configuration["trust_remote_code"]), make)

    def _model(self) -> dict[str, Any]:
        return {
            "model": self.source.identity,
            "model_folder": self.source.folder,
            "trust_remote_code": bool(self.configuration["trust_remote_code"]),
        }

    def make(self) -> None:
        """Make the model file that the row runs."""
        if self.framework.format == "transformers":
            self.digest = self.source.digest
            return
        graph = self._graph()
        quantized = self._quantize(graph) if self.configuration.quantized else None
        self.model, self.digest, self.scales_by_batch = self.converted(quantized or graph)

    def _graph(self) -> Outcome[ExportOutcome]:
        """Return the graph before it is quantized, in float16 if the row asks for it."""
        graph = self._export()
        return self.ask(CastRequest(graph=graph)) if self.configuration["dtype"] == "float16" else graph

    def _export(self) -> Outcome[ExportOutcome]:
        """Return the float graph; one of the model's folder is checked with inputs as the task makes them."""
        fields: dict[str, Any] = {name: self.arguments.get(name) for name in _GRAPH_ARGUMENTS}
        fields["from_transformers"] = self.configuration["from_transformers"]
        fields["with_cache"] = bool(self.shared.traits.phases_of(self.configuration))
        token = canonical_json(fields)
        if not fields["from_transformers"]:
            phase = next(iter(self.shared.traits.phases_of(self.configuration)), None)
            fields["example"] = self.shared.ask(self._shape(Shape(1, None, phase)))
        request = partial(ExportRequest, **self._model(), task=self.task, **fields)
        return self.ask(self._once("export", token, make=request))

    @cached_property
    def _input_length(self) -> int | None:
        """The only number of tokens that the graph of the model's folder takes; None where it takes any."""
        if self.framework.format == "transformers" or self.configuration["from_transformers"]:
            return None
        try:
            return self._export().values.report.input_length
        except StepFailed:  # The failure is that of making the model, which comes later.
            return None

    def converted(self, graph: Outcome[QuantizeOutcome] | Outcome[ExportOutcome]) -> tuple[Path, str, bool]:
        """Return a graph in the form that the row's framework opens, its digest, and whether it scales by the batch."""
        file: Outcome[Any] = graph
        if self.framework.format != "onnx":
            running = {*self.framework.running, "intra_op_num_threads"}
            making = {name: value for name, value in self.arguments.items() if name not in running}
            framework, samples = self.configuration["framework"], self.sample() if self.calibrates else None
            file = self.ask(ConvertRequest(framework=framework, arguments=making, graph=file, samples=samples))
        # A model scales by the batch if it computes the scales of its activations over the batch.
        return path_of(file), file.values.digest, graph.values.report.dynamic_quantize_nodes > 0

    def _quantize(self, graph: Outcome[ExportOutcome]) -> Outcome[QuantizeOutcome]:
        approach = self.configuration["quantization_approach"]
        statistics = self._calibrate(graph) if approach == "static" else None

        def make(exclude: Sequence[str]) -> Outcome[QuantizeOutcome]:
            request = QuantizeRequest(
                **{name: self.configuration[name] for name in PARAMETERS},
                approach=approach,
                exclude=list(exclude),
                calibration=calibration_method(self.configuration) if statistics else None,
                graph=graph,
                statistics=statistics,
            )
            return self.shared.ask(request)

        exclude = self.configuration["node_exclusion"] or []  # None where the framework has no exclusions
        if not isinstance(exclude, list):
            limits = {**AUTO_DEFAULTS, **(exclude["auto"] if isinstance(exclude, Mapping) else {})}
            self.search = self.shared.search(self, graph, make, **limits)
            exclude = self.search.nodes
        self.outcomes.quantize = quantized = make(exclude)
        return quantized

    def _calibrate(self, graph: Outcome[ExportOutcome]) -> Outcome[Any]:
        samples = self.sample()

        def make() -> CalibrateRequest:
            operators = self.shared.calibrations[calibration_group(self.configuration)]
            return CalibrateRequest(operators=operators, graph=graph, samples=samples, threads=self.threads)

        return self.ask(self.shared.once(("calibrate", graph.key, samples.key), make))

    def compared(self, graph: Outcome[ExportOutcome], quantized: Outcome[QuantizeOutcome]) -> dict[str, Any]:
        """Return the fields of a request that compares a quantized model with its float model."""
        return {
            "model": quantized.values.digest,
            "float_digest": graph.values.digest,
            "model_file": path_of(quantized),
            "float_file": path_of(graph),
            "how": quantized.values.how,
            "threads": self.threads,
        }

    def _options(self) -> dict[str, Any]:
        options = {name: value for name, value in self.arguments.items() if name in self.framework.running}
        # A graph runs no code of the model's repository.
        trusts = self.framework.format == "transformers" and self.configuration["trust_remote_code"]
        return {**options, "task": self.task, **({"trust_remote_code": True} if trusts else {})}

    def predict(self) -> Outcome[EvaluateOutcome]:
        """Return the predictions of the row's model."""
        return self.ask(self.evaluating(self.model, self.digest, self.scales_by_batch))

    def evaluate(self) -> Outcome[ScoreOutcome]:
        """Return the metrics of the row's model, computed from its predictions."""
        return self.ask(self.scoring(self.predict()))

    def evaluating(self, model: Path, digest: str | None, scales_by_batch: bool) -> EvaluateRequest:
        """Return the request for the predictions of a model of this row's framework."""
        return EvaluateRequest(
            model=digest,
            framework=self.configuration["framework"],
            options=self._options(),
            task=self.task,
            # The scales of dynamically quantized activations, and so the result of a row, depend on the whole batch.
            batch_size=1 if scales_by_batch else None,
            inputs=self.prepare_outcome(),
            model_path=model,
            threads=self.threads,
        )

    def scoring(self, predictions: Outcome[EvaluateOutcome]) -> ScoreRequest:
        """Return the request for the metrics of predictions."""
        return ScoreRequest(
            metrics=self.metrics(),
            task=self.task,
            higher_is_better=self.configuration["higher_is_better"] or None,
            inputs=self.prepare_outcome(),
            predictions=predictions,
            baseline_outputs=self.baseline_outputs(predictions),
            scripts=self.shared.sources.scripts,
            task_files=self.task_files(),
        )

    def comparing(self, predictions: Outcome[EvaluateOutcome]) -> CompareRequest:
        """Return the request for intervals of the metrics of predictions, and for differences from the baseline's."""
        baseline, number = self.baseline(), self.configuration.baseline
        models = self.shared.plan.compared_with(number) if baseline and number is not None else 0
        return CompareRequest(
            metrics=self.metrics(),
            task=self.task,
            seed=self.configuration["seed"],
            models=models if models > FEW_MODELS else 1,
            inputs=self.prepare_outcome(),
            predictions=predictions,
            baseline=baseline,
            baseline_outputs=self.baseline_outputs(predictions),
            scripts=self.shared.sources.scripts,
            task_files=self.task_files(),
        )

    def baseline(self) -> Outcome[EvaluateOutcome] | None:
        """Return the predictions of another row, the baseline of this one; None where there is none of the same
        examples, as only these can be paired.
        """
        number = self.configuration.baseline
        if number is None or number == self.configuration.row:
            return None
        outcomes = self.shared.evaluated(number)
        is_same = outcomes.prepare is not None and outcomes.prepare.key == self.prepare_outcome().key
        return outcomes.evaluate if is_same else None

    def baseline_outputs(self, predictions: Outcome[EvaluateOutcome]) -> Outcome[EvaluateOutcome] | None:
        """Return the outputs of the baseline for a task whose predictions are made with them: for the baseline itself
        its own, which are these predictions.
        """
        if not self.shared.traits.joins_rows:
            return None
        return predictions if self.configuration.baseline == self.configuration.row else self.baseline()

    def prepare_outcome(self) -> Outcome[RowsOutcome]:
        """Return the prepared rows, which `prepare` has asked for."""
        return self.outcomes.prepare or self.prepare()

    def explain(self) -> None:
        """Ask for the losses of the quantized model, on the calibration samples or else on the evaluation rows."""
        quantized, graph = self.outcomes.quantize, self.outcomes.float_graph
        inputs = self.outcomes.sample or self.outcomes.prepare
        if not (quantized and graph and inputs) or quantized.values.digest == graph.values.digest:
            return
        self.ask(
            ExplainRequest(
                **self.compared(graph, quantized),
                samples=EXPLAINED_SAMPLES,
                layers=EXPLAINED_LAYERS,
                optimization_level=1 if self.arguments.get("optimization_level") in UNFUSED_LEVELS else 99,
                inputs=inputs,
            )
        )

    def shape(self) -> None:
        """Ask for the inputs of each shape, and keep the cell to time, or why there is none."""
        options = {**self._options(), "intra_op_num_threads": self.threads}
        framework, digest = self.configuration["framework"], self.digest or ""
        for shape in self.shared.traits.shapes_of(self.configuration, self._input_length):
            try:
                inputs = self.shared.ask(self._shape(shape))
            except StepFailed as failed:
                self.failures.time[shape] = failed.failure
            else:
                length = inputs.values.input_length if self.shared.traits.has_length else None
                actual = replace(shape, input_length=length)
                self.cells[shape] = Cell(framework, self.model, digest, options, inputs, actual)

    def _shape(self, shape: Shape) -> ShapeRequest:
        """Return the request for inputs of a shape."""
        fields = {**asdict(shape), "seed": self.configuration["seed"]}
        request = partial(ShapeRequest, **self._model(), task=self.task, **fields)
        return self._once("shape", *fields.values(), make=request)
