"""The pipeline of one row: which steps it asks for, in which order.

A row does not do its steps: it asks `Shared` for them. How rows share steps is left to `pipeline`, the search for
exclusions to `auto_exclusion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchcard import registry
from benchcard.frameworks.kernels import UNJOINED
from benchcard.run.record import Cell, Record, Search
from benchcard.sources.resolve import Sources
from benchcard.spec.parameters import AUTO_DEFAULTS
from benchcard.spec.plan import Configuration, calibration_method
from benchcard.steps.step import Outcome, Step, StepFailed
from benchcard.tasks import default_metrics
from benchcard.utils.plain import canonical_json
from benchcard.utils.values import Failure


def scales_by_batch(made: Outcome) -> bool:
    """Whether a model takes the scales of its activations over the whole batch."""
    return bool(made.values.get("report", {}).get("dynamic_quantize_nodes", 0))


QUANTIZING = (
    "operators_to_quantize",
    "per_channel",
    "reduce_range",
    "weights_dtype",
    "activations_dtype",
    "quant_format",
    "weights_symmetric",
    "activations_symmetric",
    "matmul_const_b_only",
)
# How many samples the outputs of a quantized model are compared on, and how many of its layers are named.
EXPLAINED_SAMPLES = 8
EXPLAINED_LAYERS = 3


def calibration_group(configuration: Configuration) -> str:
    """Equal for rows whose calibration can be one pass."""
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

    @property
    def sources(self) -> Sources:
        """What the names of models and data sets stand for."""

    @property
    def task_name(self) -> str:
        """The name of the task."""

    @property
    def task(self) -> Any:
        """The task."""

    @property
    def calibrations(self) -> Mapping[str, Mapping[str, Any]]:
        """What static rows ask of a calibration pass, by `calibration_group`."""

    def ask(self, step: Step) -> Outcome:
        """Return the outcome of a step.

        Raises:
            StepFailed: It failed.
        """

    def step(self, token: tuple[Any, ...], make: Callable[[], Step]) -> Step:
        """Return the step that many rows ask for, made once."""

    def search(
        self, row: RowPipeline, graph: Outcome, make: Callable[[Sequence[str]], Outcome], limits: Mapping[str, Any]
    ) -> Search:
        """Search for the nodes that `node_exclusion: auto` leaves in float32."""


class RowPipeline:
    """The way of one row, while it is gone."""

    def __init__(self, walk: Shared, configuration: Configuration) -> None:
        self.walk = walk
        self.row = configuration
        self.source = walk.sources.model(configuration["name_or_path"])
        self.framework = registry.framework(configuration["framework"])
        self.arguments = configuration["framework_args"] or {}
        self.threads = configuration.threads or walk.default_threads
        self.outcomes: dict[str, Outcome] = {}
        self.failures: dict[str, Failure] = {}
        self.cells: dict[tuple[int, int | None], Cell] = {}
        self.model: Path | None = None
        self.digest: str | None = None
        self.scales_by_batch = False
        self.search: Search | None = None

    def record(self) -> Record:
        """Return what the row came to so far."""
        return Record(self.row, dict(self.outcomes), self.digest, dict(self.cells), dict(self.failures), self.search)

    def ask(self, step: Step) -> Outcome:
        """Return the outcome of a step, kept as the row's own.

        Raises:
            StepFailed: It failed.
        """
        outcome = self.walk.ask(step)
        self.outcomes[step.kind] = outcome
        return outcome

    def prepare(self) -> None:
        """The rows that the model is evaluated on; asked for first, so that what is wrong with the data shows before
        anything slow is done.
        """
        for name in self.metrics():
            if name not in registry.metrics():
                self.walk.ask(Step("metric", "torch", {"name": name}, extra=self.walk.sources.scripts))
        self._samples("prepare", {"max_samples": self.row["max_eval_samples"]})

    def sample(self) -> Outcome:
        """The rows that a static row calibrates on."""
        wanted = {"num_samples": self.row["calibration"]["num_calibration_samples"], "seed": self.row["seed"]}
        return self._samples("sample", wanted)

    def metrics(self) -> list[str]:
        """Return the metrics of the row, or those that its task has by default."""
        return self.row["metrics"] or list(default_metrics(self.walk.task, self.row["task_args"] or {}))

    def make(self) -> None:
        """The model file that the row runs."""
        if self.framework.format == "transformers":
            self.model, self.digest = self.source.folder, self.source.digest
            return
        token = (
            "export",
            self.source.name,
            self.row["from_transformers"],
            self.row["trust_remote_code"],
            self.arguments.get("opset"),
            self.arguments.get("file_name"),
        )
        graph = self.ask(self.walk.step(token, self._export))
        made = self._quantize(graph) if self.row.quantized else graph
        self.scales_by_batch, made = scales_by_batch(made), self.opened(made)
        self.model, self.digest = made.folder / made.values["file"], made.values["digest"]

    def opened(self, graph: Outcome) -> Outcome:
        """A graph in the form that the row's framework opens."""
        if self.framework.format == "onnx":
            return graph
        running = {*self.framework.running, "intra_op_num_threads"}
        making = {name: value for name, value in self.arguments.items() if name not in running}
        asked = {"framework": self.row["framework"], "arguments": making}
        return self.ask(Step("convert", self.framework.engine, asked, needs={"graph": graph}))

    def _export(self) -> Step:
        return Step(
            "export",
            "torch" if self.row["from_transformers"] else "onnx",
            {
                "model": self.source.identity,
                "task": self.walk.task_name,
                "opset": self.arguments.get("opset"),
                "from_transformers": self.row["from_transformers"],
                "file_name": self.arguments.get("file_name"),
                **self._trust(),
            },
            extra={"model": str(self.source.folder)},
        )

    def _quantize(self, graph: Outcome) -> Outcome:
        approach = self.row["quantization_approach"]
        asked: dict[str, Any] = {"approach": approach, **{name: self.row[name] for name in QUANTIZING}}
        needs = {"graph": graph}
        if approach == "static":
            samples = self.sample()
            calibrate = self.walk.step(("calibrate", graph.key, samples.key), lambda: self._calibrate(graph, samples))
            needs["statistics"] = self.ask(calibrate)
            asked["calibration"] = calibration_method(self.row)

        def make(exclude: Sequence[str]) -> Outcome:
            return self.walk.ask(Step("quantize", "onnx", {**asked, "exclude": list(exclude)}, needs=needs))

        exclude = self.row["node_exclusion"] or []  # None where the framework knows of none
        if not isinstance(exclude, list):
            limits = {**AUTO_DEFAULTS, **(exclude["auto"] if isinstance(exclude, Mapping) else {})}
            self.search = self.walk.search(self, graph, make, limits)
            exclude = self.search.nodes
        self.outcomes["quantize"] = quantized = make(exclude)
        return quantized

    def compared(self, graph: Outcome, quantized: Outcome) -> dict[str, Any]:
        """Where a quantized model and its float model lie, and how the one came from the other."""
        files = {
            name: str(made.folder / made.values["file"]) for name, made in (("model", quantized), ("float", graph))
        }
        return {**files, "threads": self.threads, "how": quantized.values.get("how")}

    def _calibrate(self, graph: Outcome, samples: Outcome) -> Step:
        wanted = self.walk.calibrations[calibration_group(self.row)]
        return Step(
            "calibrate", "onnx", wanted, needs={"graph": graph, "samples": samples}, extra={"threads": self.threads}
        )

    def _samples(self, kind: str, chosen: Mapping[str, Any]) -> Outcome:
        """Rows of the data set as the model's inputs: `prepare` for evaluation, `sample` for calibration."""
        # The plan keeps these mappings alive, so that their addresses tell them apart.
        ids = [id(self.row[name]) for name in ("dataset", "task_args")]
        token = (kind, self.source.name, *ids, self.row["trust_remote_code"], *chosen.values())
        return self.ask(self.walk.step(token, lambda: self._reading(kind, chosen)))

    def _reading(self, kind: str, chosen: Mapping[str, Any]) -> Step:
        dataset = self.row["dataset"]
        source = self.walk.sources.dataset(dataset)
        asked = {
            "dataset": source.identity,
            "name": dataset.get("name"),
            "split": dataset["calibration_split" if kind == "sample" else "eval_split"],
            "data_keys": dataset.get("data_keys"),
            "ref_keys": dataset.get("ref_keys"),
            "task": self.walk.task_name,
            "task_args": self.row["task_args"],
            "model": self.source.identity,
            **chosen,
        }
        where = {"model": str(self.source.folder), "dataset": source.location, "revision": source.revision}
        where |= {"content": source.content}
        return Step(kind, "torch", {**asked, **self._trust()}, extra={**where, "moved": source.rename_note})

    def _options(self) -> dict[str, Any]:
        options = {name: value for name, value in self.arguments.items() if name in self.framework.running}
        trust = self._trust() if self.framework.format == "transformers" else {}
        return {**options, "task": self.walk.task_name, **trust}

    def _trust(self) -> dict[str, bool]:
        """That the model's own code may run, where that was asked for: it decides what comes out. No graph needs it."""
        return {"trust_remote_code": True} if self.row["trust_remote_code"] else {}

    def predict(self) -> Outcome:
        """Predictions over the evaluation split."""
        return self.ask(self.evaluating(self.model or self.source.folder, self.digest, self.scales_by_batch))

    def evaluate(self) -> None:
        """Predictions over the evaluation split, and what metrics say of them."""
        self.ask(self.scoring(self.predict()))

    def evaluating(self, model: Path, digest: str | None, scales_by_batch: bool) -> Step:
        """The predictions of a model of this row's framework over the evaluation split."""
        asked = {
            "model": digest,
            "framework": self.row["framework"],
            "options": self._options(),
            "task": self.walk.task_name,
            # The scale of a dynamically quantized activation is taken over the whole batch: only alone is a row's
            # result its own.
            "batch_size": 1 if scales_by_batch else None,
        }
        needs, where = {"inputs": self.outcomes["prepare"]}, {"model": str(model), "threads": self.threads}
        return Step("evaluate", self.framework.engine, asked, needs=needs, extra=where)

    def scoring(self, predictions: Outcome) -> Step:
        """What metrics say of predictions."""
        given = self.row["higher_is_better"]
        asked = {
            "metrics": self.metrics(),
            "task": self.walk.task_name,
            **({"higher_is_better": given} if given else {}),
        }
        needs = {"inputs": self.outcomes["prepare"], "predictions": predictions}
        return Step("score", "torch", asked, needs=needs, extra=self.walk.sources.scripts)

    def explain(self) -> None:
        """What quantization cost the outputs, and which layers cost most: on the calibration samples, or else on the
        first rows of evaluation.
        """
        quantized, graph = self.outcomes.get("quantize"), self.outcomes.get("export")
        if quantized is None or graph is None or quantized.values["digest"] == graph.values["digest"]:
            return
        inputs = self.outcomes.get("sample") or self.outcomes.get("prepare")
        if inputs is None:
            return
        asked = {
            "model": quantized.values["digest"],
            "float": graph.values["digest"],
            "samples": EXPLAINED_SAMPLES,
            "layers": EXPLAINED_LAYERS,
            "optimization_level": 1 if self.arguments.get("optimization_level") in UNJOINED else 99,
        }
        where = self.compared(graph, quantized)
        self.ask(Step("explain", "onnx", asked, needs={"inputs": inputs}, extra=where))

    def shape(self) -> None:
        """What the row is timed with: one cell a batch size and input length, or the reason why there is none."""
        lengths = self.row["input_lengths"] if self.walk.task.has_length and self.row["input_lengths"] else [None]
        for batch_size in self.row["batch_sizes"]:
            for length in lengths:
                token = ("shape", self.source.name, batch_size, length, self.row["seed"], self.row["trust_remote_code"])
                try:
                    inputs = self.walk.ask(self.walk.step(token, partial(self._inputs, batch_size, length)))
                    self.cells[batch_size, length] = self._cell(batch_size, inputs)
                except StepFailed as failed:
                    self.failures[f"time {batch_size}x{length}"] = failed.failure

    def _inputs(self, batch_size: int, length: int | None) -> Step:
        asked = {
            "task": self.walk.task_name,
            "model": self.source.identity,
            "batch_size": batch_size,
            "input_length": length,
            "seed": self.row["seed"],
            **self._trust(),
        }
        return Step("shape", "torch", asked, extra={"model": str(self.source.folder)})

    def _cell(self, batch_size: int, inputs: Outcome) -> Cell:
        options = {**self._options(), "intra_op_num_threads": self.threads}
        model = self.model or self.source.folder
        return Cell(
            self.row["framework"], model, self.digest or "", options, inputs, batch_size, inputs.values["input_length"]
        )
