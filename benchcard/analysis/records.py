"""The records of a run, read from its directory, finished or not: outcomes of each row and raw times of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from benchcard import registry
from benchcard.errors import BenchcardError, SpecError
from benchcard.measure import machine_state
from benchcard.measure.blocks import OpenedModel, Round, read_rounds
from benchcard.measure.intervals import CONFIDENCE, Ratio, RoundId
from benchcard.measure.latency import block_medians, cpu_times
from benchcard.measure.machine import Machine
from benchcard.measure.noise import Timed, distinguishable, ratios
from benchcard.run.directory import PartFailure, PartOutcome, RunDirectory, RunInfo
from benchcard.run.groups import groups
from benchcard.run.machines import FOLDER, machine_plans
from benchcard.run.pipeline import Pipeline
from benchcard.run.record import Record
from benchcard.run.traits import Traits, traits_of
from benchcard.sources.resolve import Sources, unresolved_sources
from benchcard.spec.plan import Plan, make_plan
from benchcard.spec.spec import read_stored_spec
from benchcard.steps.evaluate import MetricRequest
from benchcard.steps.step import NotRun, Outcome, Request, V
from benchcard.utils.plain import as_plain
from benchcard.utils.values import Failure, Interval, Shape


@dataclass(frozen=True)
class Part:
    """Cells that were timed together, by name. The outcome is None while rounds are missing, and so is the baseline."""

    names: tuple[str, ...]
    baseline: str | None
    rounds: tuple[Round, ...]
    outcome: PartOutcome | None

    def opened(self, name: str, *, twin: bool = False) -> list[OpenedModel]:
        """Return what it took to open a cell's model, or its twin's, once for each launch."""
        entries = self.outcome.opened if self.outcome else ()
        return [opened for opened in entries if opened.name == name and opened.twin == twin]

    def process_failure(self, name: str, *, twin: bool = False) -> PartFailure | None:
        """Return why the process of a cell, or of its twin, ended early, with its stage; None where it did not."""
        entries = self.outcome.failures if self.outcome else ()
        return next((failure for failure in entries if failure.name == name and failure.twin == twin), None)

    def failure(self, name: str, *, twin: bool = False) -> Failure | None:
        """Return why a cell, or its twin, could not be timed, or not to the end; None where it was."""
        failure = self.process_failure(name, twin=twin)
        return failure and Failure("time", failure.type, f"{failure.stage}: {failure.message}", failure.log)

    def medians_ns(self, name: str) -> Mapping[RoundId, float]:
        """Return the median latency of a cell by launch and round."""
        return block_medians(self.rounds, name)

    def peaks_bytes(self, name: str, *, twin: bool = False) -> list[int]:
        """Return the peak memory of each launch of a cell, or of its twin, over the memory before loading the model."""
        blocks = [
            (timed.launch, block.peak_bytes)
            for timed in self.rounds
            for block in timed.blocks
            if (block.name, block.twin) == (name, twin)
        ]
        return [
            max([opened.peak_bytes, *(peak for launch, peak in blocks if launch == opened.launch)]) - opened.base_bytes
            for opened in self.opened(name, twin=twin)
        ]

    @cached_property
    def ratios(self) -> dict[Timed, Ratio]:
        """How many times faster than the baseline each cell and the twin is; empty where that is not known."""
        if self.baseline is None or self.failure(self.baseline):
            return {}
        return ratios(self.rounds, self.baseline, self.names)

    @cached_property
    def cpu_ratios(self) -> dict[Timed, Ratio]:
        """The baseline's processor time per call over that of each cell and the twin; empty where that is not known."""
        if self.baseline is None or self.failure(self.baseline):
            return {}
        return ratios(self.rounds, self.baseline, self.names, cpu_times)

    def speedup(self, name: str, confidence: float = CONFIDENCE) -> Interval | None:
        """Return how many times faster than the baseline a cell is, paired by round; None where that is not known."""
        return self._interval(self.ratios, name, confidence)

    def cpu_speedup(self, name: str, confidence: float = CONFIDENCE) -> Interval | None:
        """Return the baseline's processor time over that of a cell, paired by launch; None where it is not known."""
        return self._interval(self.cpu_ratios, name, confidence)

    def _interval(self, ratios: Mapping[Timed, Ratio], name: str, confidence: float) -> Interval | None:
        if name == self.baseline and ratios:
            return Interval(1.0, 1.0, 1.0)
        ratio = ratios.get((name, False))
        return None if ratio is None else ratio.interval(confidence)

    @cached_property
    def noise_floor(self) -> Interval | None:
        """The ratio of the baseline to its twin; None where one of them could not be timed."""
        ratio = self.ratios.get((self.baseline or "", True))
        return None if ratio is None else ratio.interval()

    @cached_property
    def cpu_noise_floor(self) -> Interval | None:
        """The same for processor time."""
        ratio = self.cpu_ratios.get((self.baseline or "", True))
        return None if ratio is None else ratio.interval()

    @cached_property
    def is_disturbed(self) -> bool:
        """Whether others used so much of the processors that ratios of latencies may be wrong."""
        return machine_state.is_disturbed([(timed.before, timed.after) for timed in self.rounds])

    @cached_property
    def disturbance(self) -> str:
        """Why no ratio counts as detectable; empty where ratios can. Intervals do not hold on a disturbed machine."""
        if self.is_disturbed:
            return "the machine was disturbed"
        twin = (self.baseline or "", True)
        if twin not in self.ratios or self.ratios[twin].p_value is None:
            return "the noise is not known"
        if twin in distinguishable(self.ratios):
            return "two processes of the baseline differ by more than their interval"
        return ""

    @cached_property
    def detectable(self) -> frozenset[str]:
        """The cells whose ratio differs from 1, by one test for all of them."""
        names = () if self.disturbance else distinguishable(self.ratios)
        return frozenset(name for name, twin in names if not twin)


@dataclass(frozen=True)
class Records:
    """Everything that a run directory holds.

    Attributes:
        parts: By name of a cell, the parts in which it was timed: several for a baseline, and for several machines.
        timed: By row and shape, the part in which the row was timed beside its baseline.
        machines: What is known of the machine of each row, where the grid has several; `info` is of the first one then.
    """

    path: Path
    info: RunInfo
    plan: Plan
    records: tuple[Record, ...]
    parts: Mapping[str, tuple[Part, ...]]
    timed: Mapping[tuple[int, Shape], Part]
    machines: Mapping[int, RunInfo] = field(default_factory=dict)

    def info_of(self, record: Record) -> RunInfo:
        """Return the run of a row, with its machine and versions."""
        return self.machines.get(record.configuration.row, self.info)

    @cached_property
    def traits(self) -> Traits:
        """The traits of the task and frameworks. Runs of earlier versions do not hold them."""
        return traits_of(self.plan, self.info.traits)


def read_records(path: Path, plan: Plan | None = None) -> Records:
    """Return the records of a run directory; `plan` is its plan, where that is known.

    Raises:
        BenchcardError: The directory holds no run, a damaged one, or one of a newer format.
    """
    # The working directory may change while the results are in use.
    path = path.absolute()
    directory = RunDirectory(path)
    info = directory.info
    if plan is None or plan.spec.digest != info.digest:
        try:
            traits = info.traits.frameworks if info.traits else {}
            missing = {name: traits[name] for name in traits.keys() - {*registry.frameworks()}}
            plan = make_plan(read_stored_spec(as_plain(info.spec)), missing)
        except SpecError as error:
            raise BenchcardError(f"the spec in {path / 'run.json'} cannot be read: {error}") from error
    if (path / FOLDER).is_dir():
        return _join_machines(path, info, plan)
    _expect_complete(path / "run.json", info, plan)
    return _read_machine(path, info, plan)


def _join_machines(path: Path, info: RunInfo, plan: Plan) -> Records:
    """Return the records of all machines of a plan; a machine from which nothing has come home yet has done nothing."""
    records: dict[int, Record] = {}
    parts: dict[str, tuple[Part, ...]] = {}
    timed: dict[tuple[int, Shape], Part] = {}
    machines: dict[int, RunInfo] = {}
    for machine in machine_plans(plan):
        folder = path / FOLDER / machine.name
        if (folder / "run.json").exists():
            own = read_records(folder, machine.plan)
        else:
            own = _read_machine(folder, replace(info, default_threads=1), machine.plan)
        for row, record in zip(machine.rows, own.records, strict=True):
            records[row], machines[row] = replace(record, configuration=plan[row]), own.info
        for name, those in own.parts.items():
            parts[name] = (*parts.get(name, ()), *those)
        timed |= {(machine.rows[row], shape): part for (row, shape), part in own.timed.items()}
    known = next((found for found in machines.values() if found.versions), info)
    about = {name: getattr(known, name) for name in ("machine", "versions", "default_threads")}
    ordered = tuple(records[row.row] for row in plan)
    return Records(path, replace(info, **about), plan, ordered, parts, timed, machines)


def _read_machine(path: Path, info: RunInfo, plan: Plan) -> Records:
    """Return the records of a run on one machine."""
    directory = RunDirectory(path)

    def look_up(request: Request[V]) -> Outcome[V] | Failure:
        outcome, kind = directory.outcome(request), request.kind
        if outcome is None and kind == MetricRequest.kind:
            # The metric was registered in the program that made the run: its result is in `score`.
            return Outcome(kind, request.key, Path(), request.read_values({}))
        return outcome or NotRun(kind, "NotRun", f"`{kind}` has not been run yet: run the spec again")

    pipeline = Pipeline(plan, info.sources, traits_of(plan, info.traits), look_up, info.default_threads)
    records = tuple(pipeline.record(configuration) for configuration in plan)
    parts: dict[str, tuple[Part, ...]] = {}
    timed: dict[tuple[int, Shape], Part] = {}
    # Groups that no row asks for any more are left out, such as those of a run in which a row had failed.
    for group in groups(records):
        for stored in directory.stored_parts(group.key):
            outcome, rounds = stored.outcome, tuple(read_rounds(stored.rounds))
            if outcome is not None and len(rounds) != outcome.rounds:
                raise BenchcardError(
                    f"{stored.rounds} is damaged: {len(rounds)} of {outcome.rounds} rounds can be read. "
                    "Run the spec again to time the missing ones"
                )
            part = Part(stored.names, outcome.baseline if outcome else None, rounds, outcome)
            for name in part.names:
                parts[name] = (*parts.get(name, ()), part)
            for row, shape in group.places:
                if records[row].cells[shape].name in part.names:
                    timed.setdefault((row, shape), part)
    return Records(path, info, plan, records, parts, timed)


def _expect_complete(path: Path, info: RunInfo, plan: Plan) -> None:
    """Raise `BenchcardError` if `run.json` lacks what results need."""
    names = ("created", "sources", "machine", "versions", "default_threads")
    missing = [name for name in names if getattr(info, name) in ("", 0, {}, Sources(), Machine())]
    expected, sources = unresolved_sources(plan.spec), info.sources
    missing += [*expected.models.keys() - sources.models.keys(), *expected.datasets.keys() - sources.datasets.keys()]
    if missing:
        raise BenchcardError(f"{path} is damaged: it has no {', '.join(missing)}. Run the spec in a new folder")
