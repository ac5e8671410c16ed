"""The results of a run as numbers: frames, the configuration to ship, reasons and comparisons.

Publishing them is left to `results.Results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Self

import pandas as pd

from benchcard import registry
from benchcard.analysis import metric_info, reasons
from benchcard.analysis.choice import Choice, Chooser
from benchcard.analysis.compare import Comparison, compare_runs
from benchcard.analysis.cost import Cheapest, cheapest_row
from benchcard.analysis.files import ModelFile, describe_files, repository_files
from benchcard.analysis.frames.columns import to_records
from benchcard.analysis.frames.failures import failures_frame, incomplete_rows
from benchcard.analysis.frames.files import files_frame
from benchcard.analysis.frames.models import kernels_frame, models_frame
from benchcard.analysis.frames.noise import noise_frame
from benchcard.analysis.frames.quality import quality_frame
from benchcard.analysis.frames.time import time_frame, timing_notes
from benchcard.analysis.gains import Gains, compute_gains
from benchcard.analysis.pareto import pareto_front
from benchcard.analysis.records import Records, read_records
from benchcard.analysis.row_facts import RowQuality, row_quality
from benchcard.analysis.verdict import BROKEN
from benchcard.errors import BenchcardError
from benchcard.metrics.info import FidelityLimit, MetricInfo
from benchcard.spec.parameters import BACKEND_ARGUMENTS
from benchcard.spec.plan import Plan, unused_settings
from benchcard.spec.spec import Spec
from benchcard.utils.plain import as_plain, plain
from benchcard.utils.text import DisplayText, pluralize

FRAMES = ("quality", "time", "models", "kernels", "noise")


class RunResults:
    """The frames, choices and reasons of a run, finished or not. They are read from its directory; nothing is run."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self._gains: dict[tuple[str, str | None], Gains] = {}

    @classmethod
    def load(cls, path: str | Path, plan: Plan | None = None) -> Self:
        """Return the results in a run directory; `plan` is its plan, where that is known.

        Raises:
            BenchcardError: The directory holds no run.
        """
        return cls(read_records(Path(path), plan))

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.records.path

    @property
    def spec(self) -> Spec:
        """The spec of the run."""
        return self.records.plan.spec

    @property
    def plan(self) -> Plan:
        """The configurations."""
        return self.records.plan

    @cached_property
    def quality(self) -> pd.DataFrame:
        """One row per configuration: parameters, metrics, figures of the evaluation pass, and why some are missing."""
        return quality_frame(self.records)

    @cached_property
    def time(self) -> pd.DataFrame:
        """One row per configuration, batch size and input length: latencies, throughput, ratio to the baseline."""
        return time_frame(self.records)

    @cached_property
    def models(self) -> pd.DataFrame:
        """One row per configuration: its model, its size, what was quantized in it, and which row has the same."""
        return models_frame(self.records)

    @cached_property
    def kernels(self) -> pd.DataFrame:
        """One row per configuration and kernel of its model: numbers, nodes, and their share of a call's time."""
        return kernels_frame(self.records)

    @cached_property
    def noise(self) -> pd.DataFrame:
        """The noise certificate: for each group of models timed together, how two processes of the baseline differ."""
        return noise_frame(self.records)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the reader: on the data, such as truncated texts, on the timing, and on settings without effect."""
        outcomes = [record.outcomes for record in self.records.records]
        steps = [step for row in outcomes for step in (row.prepare, row.sample, row.score) if step]
        infos = {name: metric_info.info_of_metric(self.records, name) for name in self.metrics}
        notes = [
            *self.records.info.sources.notes,
            *(note for row in outcomes if row.export for note in row.export.values.report.renamed),
            *(note for step in steps for note in step.values.notes),
            *(metric_info.unknown_direction(name) for name, info in infos.items() if info == MetricInfo(None, None)),
            *timing_notes(self.records),
            *_backend_notes(self.spec),
            *reasons.run_notes(self.records),
            *metric_info.too_few_resamples(self.records),
            *unused_settings(self.plan),
        ]
        return tuple(dict.fromkeys(notes))

    @property
    def failures(self) -> pd.DataFrame:
        """What is missing in which row, with the stage, type, message and end of the log of each failure."""
        return failures_frame(self.records)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the quality metrics, in the order of their columns."""
        return metric_info.metric_names(self.records)

    @property
    def baseline(self) -> int | None:
        """The first of `baselines`: the only one if all rows have the same model, data and time settings."""
        return self.baselines[0]

    @property
    def baselines(self) -> tuple[int | None, ...]:
        """The rows that others are compared with, in the order of the table; only None where there are none."""
        return tuple(dict.fromkeys(row.baseline for row in self.plan)) or (None,)

    @property
    def machine_baselines(self) -> tuple[int | None, ...]:
        """The first of `baselines`, and those that differ from it in their machine alone."""
        parameters = [{} if row is None else dict(self.plan[row].parameters) for row in self.baselines]
        for each in parameters:
            each.pop(BACKEND_ARGUMENTS, None)
        return tuple(row for row, own in zip(self.baselines, parameters) if own == parameters[0])

    def best(
        self,
        max_drop: float | None = None,
        objective: str = "latency",
        metric: str | None = None,
        baseline: int | None = None,
        fidelity: FidelityLimit = None,
        phase: str | None = None,
    ) -> Choice:
        """Return the configuration to ship, why, and the alternatives; the baseline where nothing is surely better.

        The choice allows for comparing many rows: see `Choice.method` and docs/choosing.md. Where there are several
        `baselines`, it is among the rows of one of them, which the reason names.

        Args:
            max_drop: How much worse than the baseline's the metric may be, in its own unit; None for one point: 0.01,
                or 1 for a metric in %; for a divergence in nats, 0.05.
            objective: What to improve: `latency`, `memory` or `size`.
            metric: The metric or figure of fidelity that decides; the first metric by default, and `kl_mean` for
                text generation.
            baseline: The baseline among whose rows to choose, one of `baselines`; the first one by default.
            fidelity: How far outputs may be from the baseline's: limits by figure, as `{"kl_mean": 0.01}`, or one for
                the leading figure, the first that the task has of `kl_mean`, `rms_difference`, `cosine_mean` and
                `agreement`. The interval of a row must be within them.
            phase: Of generation with a cache, the latency that counts: `token`, the time per token, by default; or
                `prompt`, the time to first token. By memory, models are compared in both, unless one is given.

        Raises:
            BenchcardError: There is no such metric, objective, baseline, phase or figure of fidelity, `max_drop` is not
                a finite number of at least 0, or a limit cannot be meant.
        """
        if baseline is not None and baseline not in self.baselines:
            baselines = ", ".join(map(str, self.baselines)).lower()
            raise BenchcardError(f"row {baseline} is not a baseline; the baselines are: {baselines}")
        own = self.baseline if baseline is None else baseline
        return self._chooser(max_drop, objective, metric, own, fidelity, phase).choose()

    def _chooser(
        self,
        max_drop: float | None,
        objective: str,
        metric: str | None,
        baseline: int | None,
        fidelity: FidelityLimit,
        phase: str | None = None,
    ) -> Chooser:
        metric = self._deciding_metric(metric)
        info = metric_info.info_of_metric(self.records, metric)
        return Chooser(
            self._qualities(metric),
            self.gains(objective, self._phase(objective, phase)),
            baseline,
            metric,
            metric_info.allowed_loss(info.unit, max_drop),
            info.higher_is_better,
            metric_info.fidelity_limits(self.records, fidelity),
        )

    def cheapest(self, max_drop: float | None = None, fidelity: FidelityLimit = None) -> Cheapest | None:
        """Return the row that costs least for a million samples, among those of all machines that keep the quality of
        their baseline; None without a price. Baselines that differ in more than their machine are not compared: then
        the rows of the first one count. The arguments are those of `best`.
        """
        baselines = self.machine_baselines
        choosers = (self._chooser(max_drop, "latency", None, baseline, fidelity) for baseline in baselines)
        return cheapest_row(self.records, (row for chooser in choosers for row in chooser.good_enough()))

    def choices(self, max_drop: float | None = None, fidelity: FidelityLimit = None) -> tuple[Choice, ...]:
        """Return the best row of each of `baselines`, in their order."""
        return tuple(self.best(max_drop, baseline=baseline, fidelity=fidelity) for baseline in self.baselines)

    def pareto(self, objective: str = "latency", metric: str | None = None) -> pd.DataFrame:
        """Return the rows that no other row of the same examples beats in both quality and objective, cheapest first.

        Args:
            objective: `latency`, `memory` or `size`.
            metric: The metric that stands for quality; the first one by default.

        Raises:
            BenchcardError: There is no such metric or objective.
        """
        metric = self._deciding_metric(metric)
        higher = metric_info.info_of_metric(self.records, metric).higher_is_better
        gains = self.gains(objective, self._phase(objective))
        return pareto_front(self._qualities(metric), gains, metric, higher)

    def files(self, max_drop: float | None = None) -> pd.DataFrame:
        """Return one row per audited file of a repository: what it is, how it compares with the baseline, its verdict
        and why, and when to use it; nothing where the rows are no files (see `Benchmark.audit`).

        Args:
            max_drop: How much worse than the baseline's the first metric of a file may be that is not degraded, as in
                `best`.
        """
        return files_frame(self.describe_files(max_drop=max_drop), self._deciding_metric(None))

    def describe_files(
        self, files: Mapping[int, tuple[str, Path]] | None = None, max_drop: float | None = None
    ) -> tuple[ModelFile, ...]:
        """Return the model files of rows, by default those that were audited.

        `files` has their paths in the repository and on this machine, by row.
        """
        paths = repository_files(self.records) if files is None else files
        gains = self.gains("latency", self._phase("latency"))
        return describe_files(self.records, gains, paths, max_drop)

    def compare(
        self, other: RunResults, *, across_machines: bool = False, times: bool = True, trust_remote_code: bool = False
    ) -> Comparison:
        """Return the comparison of a later run with this one, row by row, with intervals.

        Args:
            other: The later run.
            across_machines: Whether to compare times although the runs are of two machines.
            times: Whether to compare times at all.
            trust_remote_code: Whether metric scripts and files of tasks that the runs name may run; without them the
                changes of these metrics have no interval.

        Raises:
            BenchcardError: The runs are of two machines, or have no row in common.
        """
        return compare_runs(self.records, other.records, across_machines, times, trust_remote_code)

    def explain(self, row: int) -> str:
        """Return sentences on a row: what was quantized, what that changed and where, which row it equals, what to do.

        Raises:
            BenchcardError: There is no such row.
        """
        if not 0 <= row < len(self.plan):
            raise BenchcardError(f"there is no row {row}: the rows are 0 to {len(self.plan) - 1}")
        metric = self._deciding_metric(None)
        values = {number: entry.figure.value for number, entry in self._qualities(metric).items() if entry.figure}
        sentences = reasons.explain_row(self.records, self.records.records[row], values, metric)
        return DisplayText(" ".join([f"Row {row} ({self.plan[row].label}).", *sentences]))

    def _qualities(self, metric: str | None) -> dict[int, RowQuality]:
        rows = {row.configuration.row: row_quality(self.records, row, metric) for row in self.records.records}
        return {row: replace(entry, broken=self._broken.get(row, "")) for row, entry in rows.items()}

    @cached_property
    def _broken(self) -> Mapping[int, str]:
        """Why audited files are broken, by row."""
        return {file.row: file.verdict.why for file in self.describe_files() if file.verdict.name == BROKEN}

    def gains(self, objective: str, phase: str | None = None) -> Gains:
        """Return what each row gains in `latency`, `memory` or `size`, with intervals that hold for all rows at once,
        in one phase of generation or in all.

        Raises:
            BenchcardError: There is no such objective or phase.
        """
        phases = dict.fromkeys(name for names in self.records.traits.phases.values() for name in names)
        if phase is not None and phase not in phases:
            known = ", ".join(phases) or "none, as `task_args: {use_cache: true}` gives them to text generation"
            raise BenchcardError(f"there is no phase `{phase}` in this run; its phases are: {known}")
        if (objective, phase) not in self._gains:
            self._gains[objective, phase] = compute_gains(self.records, objective, self.time, self.models, phase)
        return self._gains[objective, phase]

    def _phase(self, objective: str, phase: str | None = None) -> str | None:
        """Return the phase whose gains decide: the given one, else the first of the task for latency."""
        return phase or (self.records.traits.deciding_phase if objective == "latency" else None)

    def _deciding_metric(self, metric: str | None) -> str | None:
        """Return the metric, or what decides by default: the figure of fidelity that the task names, else the first
        metric; None where nothing was measured.
        """
        names, fidelity = self.metrics, metric_info.fidelity_names(self.records)
        if metric is not None and metric not in (*names, *fidelity):
            raise BenchcardError(
                f"the metric `{metric}` was not measured; the metrics are: {', '.join(names) or 'none'}"
            )
        default = self.records.traits.decides_by
        return metric or (default if default in fidelity else next(iter(names), None))

    def to_csv(self, folder: str | Path) -> list[Path]:
        """Write a file for each frame but `failures`, as `quality.csv`, into a folder; return their paths."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        paths = [target / f"{name}.csv" for name in FRAMES]
        for name, path in zip(FRAMES, paths):
            getattr(self, name).to_csv(path, index=False)
        return paths

    def to_json(self, max_drop: float | None = None, fidelity: FidelityLimit = None) -> dict[str, object]:
        """Return the results as plain data: `spec`, `machine` (`machines` by row, where there are several), `versions`,
        each frame as a list of rows, `files` of an audit, `notes`, the `choices` of `choices(max_drop, fidelity)`, the
        row of the first one as `best`, and `cheapest` where a price is known.
        """
        machines, cheapest = self.records.machines, self.cheapest(max_drop, fidelity)
        of_machines = {str(row): {**as_plain(own.machine), "versions": own.versions} for row, own in machines.items()}
        choices = self.choices(max_drop, fidelity)
        return {
            "spec": self.spec.as_dict(),
            "machine": as_plain(self.records.info.machine),
            **({"machines": of_machines} if of_machines else {}),
            "versions": self.records.info.versions,
            **{name: to_records(getattr(self, name)) for name in (*FRAMES, "failures")},
            **({} if (files := self.files(max_drop)).empty else {"files": to_records(files)}),
            "notes": list(self.notes),
            "best": choices[0].row,
            "choices": [plain(as_plain(choice)) for choice in choices],
            **({"cheapest": plain(as_plain(cheapest))} if cheapest else {}),
        }

    def __repr__(self) -> str:
        incomplete = len(incomplete_rows(self.records))
        failed = f", {incomplete} with failures" if incomplete else ""
        title = f"Results of {pluralize(len(self.plan), 'configuration')} in {self.path}{failed}"
        tables = [frame.to_string(index=False, na_rep="") for frame in (self.quality, self.time)]
        return "\n\n".join([title, *tables])


def _backend_notes(spec: Spec) -> list[str]:
    """Return the note of the backend, where it is installed and has one."""
    name = spec.get("backend")
    note = getattr(registry.backend(name), "note", "") if name in registry.backends() else ""
    return [note] if note else []
