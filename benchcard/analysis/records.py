"""The records of a run, read from its directory, finished or not: outcomes of each row and raw times of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.errors import BenchcardError, SpecError
from benchcard.run import groups
from benchcard.run.directory import RunDirectory, TimedPart
from benchcard.run.pipeline import Pipeline
from benchcard.run.record import Record
from benchcard.sources.resolve import Sources, unresolved_sources
from benchcard.spec import spec as specs
from benchcard.spec.plan import Plan, make_plan
from benchcard.steps.step import Outcome, Step
from benchcard.utils.values import Failure, Interval

if TYPE_CHECKING:
    from benchcard.measure.blocks import Round

NOT_RUN = "NotRun"
"""The type of the failure that stands for a step without an outcome."""


@dataclass(frozen=True)
class Part:
    """Cells that were timed together.

    Attributes:
        names: The names of the cells.
        baseline: The name of the baseline's cell; None where there was none.
        rounds: The completed rounds, with raw latencies.
        outcome: What was measured beside them; None while rounds are missing.
    """

    names: tuple[str, ...]
    baseline: str | None
    rounds: tuple[Round, ...]
    outcome: Mapping[str, Any] | None

    def opened(self, name: str, *, twin: bool = False) -> list[Mapping[str, Any]]:
        """Return what opening a cell's model took in each launch of it, or of its twin, in nanoseconds and bytes."""
        entries = (self.outcome or {}).get("opened", ())
        return [entry for entry in entries if entry["name"] == name and entry["twin"] == twin]

    def failure(self, name: str, *, twin: bool = False) -> Failure | None:
        """Return why a cell, or its twin, could not be timed, or not to the end; None where it was."""
        for entry in (self.outcome or {}).get("failures", ()):
            if entry["name"] == name and entry["twin"] == twin:
                return Failure("time", entry["type"], f"{entry['stage']}: {entry['message']}", entry["log"])
        return None

    def medians_ns(self, name: str) -> Mapping[Any, float]:
        """Return the median latency of a cell by launch and round."""
        from benchcard.measure import latency

        return latency.block_medians(self.rounds, name)

    def peaks_bytes(self, name: str, *, twin: bool = False) -> list[int]:
        """Return the peak memory of each launch of a cell, or of its twin, over the memory before loading the model."""
        peaks = []
        for entry in self.opened(name, twin=twin):
            blocks = (
                block.peak_bytes
                for timed in self.rounds
                for block in timed.blocks
                if timed.launch == entry["launch"] and (block.name, block.twin) == (name, twin)
            )
            peaks.append(int(max([entry["peak_bytes"], *blocks]) - entry["base_bytes"]))
        return peaks

    def speedup(self, name: str, confidence: float | None = None) -> Interval | None:
        """Return how many times faster than the baseline a cell is, paired by round; None where that is not known.

        Args:
            name: The name of the cell.
            confidence: The confidence of the interval; 95 % by default.
        """
        from benchcard.measure import intervals

        if self.baseline is None or self.failure(self.baseline):
            return None
        baseline, model = self.medians_ns(self.baseline), self.medians_ns(name)
        if not baseline.keys() & model.keys():
            return None
        return intervals.paired_ratio(baseline, model, confidence or intervals.CONFIDENCE)

    @cached_property
    def noise_floor(self) -> Interval | None:
        """The ratio of the baseline to its twin; None where one of them could not be timed."""
        from benchcard.measure import latency

        try:
            return latency.noise_floor(self.rounds, self.baseline) if self.baseline is not None else None
        except ValueError:
            return None


@dataclass(frozen=True)
class Records:
    """Everything that a run directory holds.

    Attributes:
        path: The directory.
        about: The content of `run.json`: machine, versions, sources, time.
        plan: The rows.
        records: The record of each row.
        parts: The parts in which each cell was timed, by its name; a baseline is in several.
        timed: By row and shape, the part in which the row was timed beside its baseline, with its own settings.
    """

    path: Path
    about: Mapping[str, Any]
    plan: Plan
    records: tuple[Record, ...]
    parts: Mapping[str, tuple[Part, ...]]
    timed: Mapping[tuple[int, Any], Part]


def read_records(path: Path) -> Records:
    """Return the records of a run directory.

    Raises:
        BenchcardError: The directory holds no run, a damaged one, or one of a newer format.
    """
    # The working directory may change while the results are in use.
    path = path.absolute()
    directory = RunDirectory(path)
    about = directory.about
    try:
        spec = specs.read_spec({name: about["spec"][name] for name in ("task", "fixed", "grid")})
        plan = make_plan(replace(spec, trusted=False))
    except SpecError as error:
        raise BenchcardError(f"{path / 'run.json'} holds no spec that can be read: {error}") from error
    sources = _read_sources(path / "run.json", about, plan)

    def find_outcome(step: Step) -> Outcome:
        outcome = directory.outcome(step.kind, step.key)
        if outcome is None and step.kind == "metric":
            # The run was made where this metric was registered by a call; its values are in the step `score`.
            return Outcome(step.kind, step.key, Path())
        not_run = Failure(step.kind, NOT_RUN, f"`{step.kind}` has not been run yet: run the spec again")
        return outcome or Outcome(step.kind, step.key, Path(), failure=not_run)

    pipeline = Pipeline(plan, sources, find_outcome, about["default_threads"])
    records = tuple(pipeline.record(configuration) for configuration in plan)
    parts: dict[str, tuple[Part, ...]] = {}
    timed: dict[tuple[int, Any], Part] = {}
    # Parts of other groups are left from before, as from a run in which a row had failed.
    for group in groups.groups(records):
        for kept in directory.kept_parts(group.key):
            part = _read_part(kept)
            for name in kept.names:
                parts[name] = (*parts.get(name, ()), part)
            for row, shape in group.places:
                if records[row].cells[shape].name in kept.names:
                    timed.setdefault((row, shape), part)
    return Records(path, about, plan, records, parts, timed)


def _read_sources(path: Path, about: Mapping[str, Any], plan: Plan) -> Sources:
    """Return the sources in a `run.json`.

    Raises:
        BenchcardError: Something is missing in it.
    """
    missing = [name for name in ("created", "sources", "machine", "versions", "default_threads") if not about.get(name)]
    sources, expected = Sources.from_dict(about.get("sources") or {}), unresolved_sources(plan.spec)
    missing += [*expected.models.keys() - sources.models.keys(), *expected.datasets.keys() - sources.datasets.keys()]
    if missing:
        raise BenchcardError(f"{path} is damaged: {', '.join(missing)} is missing. Run the spec in a new folder")
    return sources


def _read_part(kept: TimedPart) -> Part:
    from benchcard.measure.blocks import read_rounds

    outcome = kept.outcome
    rounds = tuple(read_rounds(kept.rounds))
    if outcome is not None and len(rounds) != outcome["rounds"]:
        raise BenchcardError(
            f"{kept.rounds} is damaged: {len(rounds)} of {outcome['rounds']} rounds can be read. "
            "Run the spec again to time the missing ones"
        )
    return Part(kept.names, outcome["baseline"] if outcome else None, rounds, outcome)
