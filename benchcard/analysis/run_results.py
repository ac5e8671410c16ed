"""The numbers of a run: frames, the configuration to ship, reasons and comparisons.

What is published of them is left to `results.Results`.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchcard.analysis import choice, gains, metric_info, reasons
from benchcard.analysis import compare as two_runs
from benchcard.analysis import pareto as front
from benchcard.analysis import records as read_back
from benchcard.analysis.frames import models as models_
from benchcard.analysis.frames import quality as frames
from benchcard.analysis.frames import time as time_
from benchcard.analysis.frames.failures import failures_frame, lacking
from benchcard.analysis.frames.noise import noise_frame
from benchcard.errors import BenchcardError
from benchcard.metrics.info import MetricInfo
from benchcard.spec.plan import Plan, unused_settings
from benchcard.spec.spec import Spec
from benchcard.utils.text import pluralize

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.analysis.choice import Choice
    from benchcard.analysis.compare import Comparison


FRAMES = ("quality", "time", "models", "kernels", "noise")


class RunResults:
    """The frames, choices and reasons of a run, finished or not: read from its directory, and nothing is measured."""

    def __init__(self, records: read_back.Records) -> None:
        self.records = records
        self._known_gains: dict[str, gains.Gains] = {}

    @classmethod
    def load(cls, path: str | Path, plan: Plan | None = None) -> Self:
        """The results in a run directory.

        Raises:
            BenchcardError: The directory holds no run.
        """
        return cls(read_back.read_records(Path(path), plan))

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.records.path

    @property
    def spec(self) -> Spec:
        """What was asked."""
        return self.records.plan.spec

    @property
    def plan(self) -> Plan:
        """The configurations."""
        return self.records.plan

    @cached_property
    def quality(self) -> pd.DataFrame:
        """One row per configuration: parameters, metrics, figures of the evaluation pass, and why some are missing."""
        return frames.quality(self.records)

    @cached_property
    def time(self) -> pd.DataFrame:
        """One row per configuration, batch size and input length: latencies, throughput, and the ratio to the baseline
        with its interval.
        """
        return time_.time(self.records)

    @cached_property
    def models(self) -> pd.DataFrame:
        """One row per configuration: its model, its size, what was quantized in it, and which row is the same model."""
        return models_.models(self.records)

    @cached_property
    def kernels(self) -> pd.DataFrame:
        """One row per configuration and kernel that its model comes to when it runs: in what numbers it computes, how
        many nodes there are, and their share of a call's time.
        """
        return models_.kernels(self.records)

    @cached_property
    def noise(self) -> pd.DataFrame:
        """The noise certificate: for each group of models timed together, what the baseline differs from itself by."""
        return noise_frame(self.records)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know: of the data, as that labels were matched by number or texts were cut, and of what
        was asked for in vain.
        """
        outcomes = [record.outcomes for record in self.records.records]
        steps = [step for row in outcomes for step in (row.prepare, row.sample, row.score) if step]
        said = [note for step in steps for note in step.values.notes]
        unread = [
            choice.unknown_direction(name)
            for name in self.metrics
            if metric_info.info_of_metric(self.records, name) == MetricInfo(None, None)
        ]
        told = [*said, *unread, *time_.timing_notes(self.records), *reasons.notes(self.records)]
        told += [*metric_info.too_few_resamples(self.records), *unused_settings(self.records.plan)]
        return tuple(dict.fromkeys(told))

    @property
    def failures(self) -> pd.DataFrame:
        """What is missing of which row, each with stage, type, message and the end of the log."""
        return failures_frame(self.records)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the quality metrics, in the order of their columns."""
        return metric_info.names(self.records)

    @property
    def baseline(self) -> int | None:
        """The first of `baselines`: that of all rows, where these are of one model, on the same data, timed alike."""
        return self.baselines[0]

    @property
    def baselines(self) -> tuple[int | None, ...]:
        """The rows that others are compared with, in the order of the table; None alone where there are none."""
        return tuple(dict.fromkeys(self._baselines.values())) or (None,)

    def best(
        self,
        max_drop: float | None = None,
        objective: str = "latency",
        metric: str | None = None,
        baseline: int | None = None,
    ) -> Choice:
        """The configuration to ship, why, and what it was chosen over; the baseline where nothing is surely better.

        Looking at many rows is allowed for: see `Choice.method` and docs/choosing.md. Where there are several
        `baselines`, it is chosen among the rows of one of them, and the reason says of which.

        Args:
            max_drop: How much of the metric may be lost against the baseline, in the metric's own unit; None for a
                point: 0.01, or 1 of a metric in %.
            objective: What is to be gained: `latency`, `memory` or `size`.
            metric: The metric that decides; the first one by default.
            baseline: The baseline among whose rows is chosen, of `baselines`; the first one by default.

        Raises:
            BenchcardError: No such metric, objective or baseline, or `max_drop` is no finite number of at least 0.
        """
        if baseline is not None and baseline not in self.baselines:
            there = ", ".join(map(str, self.baselines)).lower()
            raise BenchcardError(f"row {baseline} is no baseline; there is {there}")
        deciding = self._deciding(metric)
        reading = metric_info.info_of_metric(self.records, deciding)
        return choice.choose_row(
            self.quality,
            self._gains(objective),
            self._baselines,
            self.baseline if baseline is None else baseline,
            self._axes,
            deciding,
            metric_info.allowed_loss(reading.unit, max_drop),
            reading.higher_is_better,
        )

    def choices(self, max_drop: float | None = None) -> tuple[Choice, ...]:
        """What is best beside each of `baselines`, in their order."""
        return tuple(self.best(max_drop, baseline=baseline) for baseline in self.baselines)

    def pareto(self, objective: str = "latency", metric: str | None = None) -> pd.DataFrame:
        """The rows that no other row of the same examples beats in both quality and the objective, the cheapest first.

        Args:
            objective: `latency`, `memory` or `size`.
            metric: The metric that stands for quality; the first one by default.

        Raises:
            BenchcardError: There is no such metric or objective.
        """
        deciding = self._deciding(metric)
        data = {row.row: row.evaluation_key for row in self.plan}
        higher = metric_info.info_of_metric(self.records, deciding).higher_is_better
        return front.pareto(self.quality, self._gains(objective), self._baselines, data, self._axes, deciding, higher)

    def compare(
        self,
        other: RunResults,
        *,
        across_machines: bool = False,
        times: bool = True,
        trust_remote_code: bool = False,
    ) -> Comparison:
        """A later run against this one, row by row: what became better and what worse, with intervals.

        Args:
            other: The later run.
            across_machines: Whether to compare times although they are of two machines.
            times: Whether to compare times at all.
            trust_remote_code: Whether scripts of metrics that the runs name may run: their changes have no interval
                else.

        Raises:
            BenchcardError: The runs are of two machines, or have no row in common.
        """
        return two_runs.compare_runs(
            self.records,
            other.records,
            across_machines=across_machines,
            times=times,
            trust_remote_code=trust_remote_code,
        )

    @property
    def _baselines(self) -> dict[int, int | None]:
        return {row.row: row.baseline for row in self.plan}

    @property
    def _axes(self) -> list[str]:
        return list(self.spec.grid) or ["framework"]

    def _gains(self, objective: str) -> gains.Gains:
        if objective not in self._known_gains:
            self._known_gains[objective] = gains.gains(self.records, objective, self.time, self.models)
        return self._known_gains[objective]

    def _deciding(self, metric: str | None) -> str | None:
        """The metric that decides."""
        known = self.metrics
        if metric is not None and metric not in known:
            raise BenchcardError(f"no metric `{metric}` was measured; there is {', '.join(known) or 'none'}")
        return metric or next(iter(known), None)

    def explain(self, row: int) -> str:
        """A few sentences on why a row is as it is: what was quantized, what it lost and where, which row it equals,
        and what to do.

        Raises:
            BenchcardError: There is no such row.
        """
        if not 0 <= row < len(self.plan):
            raise BenchcardError(f"there is no row {row}: the rows are 0 to {len(self.plan) - 1}")
        metric = self._deciding(None)
        known = self.quality[self.quality[metric].notna()] if metric else self.quality.iloc[:0]
        value = {int(each): float(figure) for each, figure in zip(known["row"], known[metric or "row"])}
        told = reasons.sentences(self.records, self.records.records[row], value, metric)
        return " ".join([f"Row {row} ({self.plan[row].label}).", *told])

    def to_csv(self, folder: str | Path) -> list[Path]:
        """A file for each frame but `failures`, as `quality.csv`, written into a folder."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        written = []
        for name in FRAMES:
            path = target / f"{name}.csv"
            getattr(self, name).to_csv(path, index=False)
            written.append(path)
        return written

    def to_json(self) -> dict[str, Any]:
        """`spec`, `machine`, `versions`, and each frame but `failures` as a list of rows: plain data."""
        told: dict[str, Any] = {
            "spec": self.spec.as_dict(),
            "machine": self.records.info.machine,
            "versions": self.records.info.versions,
        }
        for name in FRAMES:
            told[name] = json.loads(getattr(self, name).to_json(orient="records", double_precision=12))
        return told

    def __repr__(self) -> str:
        failed = len(lacking(self.failures))
        said = f"Results of {pluralize(len(self.plan), 'configuration')} in {self.path}"
        said += f", {failed} with failures" if failed else ""
        tables = [frame.to_string(index=False, na_rep="") for frame in (self.quality, self.time)]
        return "\n\n".join([said, *tables])
