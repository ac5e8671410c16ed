"""The pipeline of one row: which steps it asks for, and in which order.

A row does not do its steps; it asks `Shared` for their outcomes. How rows share steps is left to `pipeline`, and the
search for exclusions to `auto_exclusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar

from benchcard import registry
from benchcard.frameworks.kernels import UNFUSED_LEVELS
from benchcard.quantization.settings import PARAMETERS, Quantization
from benchcard.run.failures import Failures
from benchcard.run.record import Cell, Outcomes, Record, Search
from benchcard.run.traits import Traits
from benchcard.sources.resolve import Sources
from benchcard.spec.parameters import AUTO_DEFAULTS
from benchcard.spec.plan import Configuration, calibration_method
from benchcard.steps.data import PrepareRequest, RowsOutcome, SampleRequest, ShapeRequest
from benchcard.steps.evaluate import EvaluateOutcome, EvaluateRequest, MetricRequest, ScoreRequest
from benchcard.steps.models import ConvertRequest, ExportOutcome, ExportRequest, ModelFile, path_of
from benchcard.steps.quantize import CalibrateRequest, ExplainRequest, QuantizeOutcome, QuantizeRequest
from benchcard.steps.step import Outcome, Request, StepFailed
from benchcard.utils.plain import canonical_json
from benchcard.utils.values import Shape

V = TypeVar("V")
R = TypeVar("R", bound=Request[Any])
Make = Callable[[Sequence[str]], Outcome[QuantizeOutcome]]
"""Returns the quantized model with these exclusions."""

# How many samples the outputs of a quantized model are compared on, and how many of its layers are named.
EXPLAINED_SAMPLES = 8
EXPLAINED_LAYERS = 3


def scales_by_batch(model: Outcome[QuantizeOutcome] | Outcome[ExportOutcome]) -> bool:
    """Return whether a model computes the scales of its activations over the batch."""
    return model.values.report.dynamic_quantize_nodes > 0


def calibration_group(configuration: Configuration) -> str:
    """Return a key that is equal for rows that can share a calibration pass."""
    making = {name: value for name, value in configuration["framework_args"].items() if name in ("opset", "file_name")}
    samples = configuration["calibration"]["num_calibration_samples"]
    shared = [
        configuration[name]
        for name in ("name_or_path", "from_transformers", "framework", "dataset", "task_args", "seed")
    ]
    return canonical_json([*shared, making, samples])


class Shared(Protocol):
    """What a row needs of the pipeline of all rows."""

    default_threads: int
    sources: Sources
    task_name: str
    traits: Traits

    @property
    def calibrations(self) -> Mapping[str, Sequence[str] | None]:
        """The operators that each calibration pass covers, by `calibration_group`; None for all."""

    def ask(self, request: Request[V]) -> Outcome[V]:
        """Return the outcome of a step, or raise `StepFailed`."""

    def once(self, token: Hashable, make: Callable[[], R]) -> R:
        """Return the request that `make` returned when it was first called with this token."""

    def search(self, row: RowPipeline, graph: Outcome[ExportOutcome], make: Make, limits: Mapping[str, Any]) -> Search:
        """Search for the nodes that `node_exclusion: auto` keeps in float32."""


class RowPipeline:
    """The pipeline of one row, with its outcomes so far."""

    def __init__(self, shared: Shared, configuration: Configuration) -> None:
        self.shared = shared
        self.configuration = configuration
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
        return Record(
            self.configuration,
            replace(self.outcomes),
            self.digest,
            dict(self.cells),
            replace(self.failures),
            self.search,
        )

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
            if name not in registry.metrics():
                self.shared.ask(MetricRequest(name=name, scripts=self.shared.sources.scripts))
        max_samples = self.configuration["max_eval_samples"]

        def make() -> PrepareRequest:
            return PrepareRequest(**self._rows("eval_split"), max_samples=max_samples)

        return self.ask(self.shared.once(("prepare", *self._rows_token(), max_samples), make))

    def sample(self) -> Outcome[RowsOutcome]:
        """Return the rows that a static row calibrates on."""
        samples, seed = self.configuration["calibration"]["num_calibration_samples"], self.configuration["seed"]

        def make() -> SampleRequest:
            return SampleRequest(**self._rows("calibration_split"), num_samples=samples, seed=seed)

        return self.ask(self.shared.once(("sample", *self._rows_token(), samples, seed), make))

    def _rows_token(self) -> tuple[Hashable, ...]:
        # The plan keeps these mappings alive, so that their addresses are unique.
        addresses = (id(self.configuration["dataset"]), id(self.configuration["task_args"]))
        return self.source.name, *addresses, self.configuration["trust_remote_code"]

    def _rows(self, split: str) -> dict[str, Any]:
        dataset = self.configuration["dataset"]
        source = self.shared.sources.dataset(dataset)
        return {
            "dataset": source.identity,
            "name": dataset.get("name"),
            "split": dataset[split],
            "data_keys": dataset.get("data_keys"),
            "ref_keys": dataset.get("ref_keys"),
            "task": self.shared.task_name,
            "task_args": self.configuration["task_args"],
            "location": source.location,
            "revision": source.revision,
            "content": source.content,
            "renamed": source.rename_note,
            **self._model(),
        }

    def _model(self) -> _ModelFields:
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
        token = (
            "export",
            self.source.name,
            self.configuration["from_transformers"],
            self.configuration["trust_remote_code"],
        )
        opset, file_name = self.arguments.get("opset"), self.arguments.get("file_name")
        graph = self.ask(self.shared.once((*token, opset, file_name), self._export))
        quantized = self._quantize(graph) if self.configuration.quantized else None
        self.scales_by_batch = scales_by_batch(quantized or graph)
        file = self.converted(quantized or graph)
        self.model, self.digest = path_of(file), file.values.digest

    def converted(self, graph: Outcome[Any]) -> Outcome[ModelFile]:
        """Return a graph in the form that the row's framework opens."""
        if self.framework.format == "onnx":
            return graph
        running = {*self.framework.running, "intra_op_num_threads"}
        making = {name: value for name, value in self.arguments.items() if name not in running}
        return self.ask(ConvertRequest(framework=self.configuration["framework"], arguments=making, graph=graph))

    def _export(self) -> ExportRequest:
        return ExportRequest(
            **self._model(),
            task=self.shared.task_name,
            opset=self.arguments.get("opset"),
            from_transformers=self.configuration["from_transformers"],
            file_name=self.arguments.get("file_name"),
        )

    def _quantize(self, graph: Outcome[ExportOutcome]) -> Outcome[QuantizeOutcome]:
        approach = self.configuration["quantization_approach"]
        statistics = calibration = None
        if approach == "static":
            samples = self.sample()
            token = ("calibrate", graph.key, samples.key)
            statistics = self.ask(self.shared.once(token, partial(self._calibrate, graph, samples)))
            calibration = calibration_method(self.configuration)
        request = partial(
            QuantizeRequest,
            **{name: self.configuration[name] for name in PARAMETERS},
            approach=approach,
            calibration=calibration,
            graph=graph,
            statistics=statistics,
        )

        def make(exclude: Sequence[str]) -> Outcome[QuantizeOutcome]:
            return self.shared.ask(request(exclude=list(exclude)))

        exclude = self.configuration["node_exclusion"] or []  # None where the framework has no exclusions
        if not isinstance(exclude, list):
            limits = {**AUTO_DEFAULTS, **(exclude["auto"] if isinstance(exclude, Mapping) else {})}
            self.search = self.shared.search(self, graph, make, limits)
            exclude = self.search.nodes
        self.outcomes.quantize = quantized = make(exclude)
        return quantized

    def _calibrate(self, graph: Outcome[ExportOutcome], samples: Outcome[RowsOutcome]) -> CalibrateRequest:
        operators = self.shared.calibrations[calibration_group(self.configuration)]
        return CalibrateRequest(operators=operators, graph=graph, samples=samples, threads=self.threads)

    def compared(self, graph: Outcome[ExportOutcome], quantized: Outcome[QuantizeOutcome]) -> _ComparedFields:
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
        return {**options, "task": self.shared.task_name, **({"trust_remote_code": True} if trusts else {})}

    def predict(self) -> Outcome[EvaluateOutcome]:
        """Return the predictions of the row's model."""
        return self.ask(self.evaluating(self.model, self.digest, self.scales_by_batch))

    def evaluate(self) -> None:
        """Ask for the predictions of the row's model and their metrics."""
        self.ask(self.scoring(self.predict()))

    def evaluating(self, model: Path, digest: str | None, scales_by_batch: bool) -> EvaluateRequest:
        """Return the request for the predictions of a model of this row's framework."""
        return EvaluateRequest(
            model=digest,
            framework=self.configuration["framework"],
            options=self._options(),
            task=self.shared.task_name,
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
            task=self.shared.task_name,
            higher_is_better=self.configuration["higher_is_better"] or None,
            inputs=self.prepare_outcome(),
            predictions=predictions,
            scripts=self.shared.sources.scripts,
        )

    def prepare_outcome(self) -> Outcome[RowsOutcome]:
        """Return the prepared rows, which `prepare` has asked for."""
        return self.outcomes.prepare or self.prepare()

    def explain(self) -> None:
        """Ask for the losses of the quantized model, on the calibration samples or else on the evaluation rows."""
        quantized, graph = self.outcomes.quantize, self.outcomes.export
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
        lengths = (
            self.configuration["input_lengths"]
            if self.shared.traits.has_length and self.configuration["input_lengths"]
            else [None]
        )
        for batch_size in self.configuration["batch_sizes"]:
            for length in lengths:
                token = (
                    "shape",
                    self.source.name,
                    batch_size,
                    length,
                    self.configuration["seed"],
                    self.configuration["trust_remote_code"],
                )
                shape = Shape(batch_size, length)
                try:
                    inputs = self.shared.ask(self.shared.once(token, partial(self._inputs, shape)))
                    options = {**self._options(), "intra_op_num_threads": self.threads}
                    actual = Shape(batch_size, inputs.values.input_length)
                    framework, digest = self.configuration["framework"], self.digest or ""
                    self.cells[shape] = Cell(framework, self.model, digest, options, inputs, actual)
                except StepFailed as failed:
                    self.failures.time[shape] = failed.failure

    def _inputs(self, shape: Shape) -> ShapeRequest:
        return ShapeRequest(
            **self._model(),
            task=self.shared.task_name,
            batch_size=shape.batch_size,
            input_length=shape.input_length,
            seed=self.configuration["seed"],
        )


class _ModelFields(TypedDict):
    model: Mapping[str, Any]
    model_folder: Path
    trust_remote_code: bool


class _ComparedFields(TypedDict):
    model: str
    float_digest: str
    model_file: Path
    float_file: Path
    how: Quantization
    threads: int
