"""Records of a run, read from its directory, finished or not: outcomes of each row and raw times of each cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from benchcard.utils.values import Failure

if TYPE_CHECKING:
    from benchcard.measure.blocks import Round


@dataclass(frozen=True)
class Part:
    """Cells that were timed together.

    Attributes:
        names: The cells' names.
        baseline: The name of the baseline's cell; None where there was none.
        rounds: Every round that was kept, with raw latencies.
        outcome: What was found out beside them; None while rounds are missing.
    """

    names: tuple[str, ...]
    baseline: str | None
    rounds: tuple[Round, ...]
    outcome: Mapping[str, Any] | None

    def opened(self, name: str, *, twin: bool = False) -> list[Mapping[str, Any]]:
        """What opening a cell's model cost, nanoseconds and bytes, each time that it, or its twin, was launched."""
        told = (self.outcome or {}).get("opened", ())
        return [each for each in told if each["name"] == name and each["twin"] == twin]

    def failure(self, name: str, *, twin: bool = False) -> Failure | None:
        """Why a cell, or its twin, has no times, or no more of them."""
        told = (self.outcome or {}).get("failures", ())
        found = next((each for each in told if each["name"] == name and each["twin"] == twin), None)
        return Failure("time", found["type"], f"{found['stage']}: {found['message']}", found["log"]) if found else None


@dataclass(frozen=True)
class Records:
    """Everything that a run directory holds.

    Attributes:
        path: The directory.
        about: What `run.json` says: machine, versions, sources, when.
        plan: The rows.
        records: What each row came to.
        parts: By the name of a cell, the parts in which it was timed; a baseline stands in several.
        timed: By row and shape, the part in which the row was timed, beside its baseline and as it asks.
    """

    path: Path
    about: Mapping[str, Any]
    plan: Plan
    records: tuple[Record, ...]
    parts: Mapping[str, tuple[Part, ...]]
    timed: Mapping[tuple[int, Any], Part]


def read_records(path: Path) -> Records:
    """The records of a run directory.

    Raises:
        BenchcardError: It holds no run, a damaged one, or one of a newer format.
    """
    # A process may go elsewhere while it holds the results.
    path = path.absolute()
    directory = RunDirectory(path)
    about = directory.about
    try:
        spec = specs.read_spec({name: about["spec"][name] for name in ("task", "fixed", "grid")})
        plan = make_plan(replace(spec, trusted=False))
    except SpecError as error:
        raise BenchcardError(f"{path / 'run.json'} holds no spec that can be read: {error}") from error
    sources = _sources(path / "run.json", about, plan)

    def look(step: Step) -> Outcome:
        kept = directory.outcome(step.kind, step.key)
        if kept is None and step.kind == "metric":
            # A program that knew this metric by a call made the run: what it came to is in `score`.
            return Outcome(step.kind, step.key, Path())
        return kept or Outcome(
            step.kind,
            step.key,
            Path(),
            failure=Failure(step.kind, "NotRun", f"`{step.kind}` has not been run yet: run the spec again"),
        )

    walk = Pipeline(plan, sources, look, about["default_threads"])
    records = tuple(walk.record(configuration) for configuration in plan)
    parts: dict[str, tuple[Part, ...]] = {}
    timed: dict[tuple[int, Any], Part] = {}
    # What was timed for other groups is no longer asked for, as that of a run in which a row had failed.
    for group in groups.groups(records):
        for kept in directory.kept_parts(group.key):
            part = _part(kept)
            for name in kept.names:
                parts[name] = (*parts.get(name, ()), part)
            for row, shape in group.places:
                if records[row].cells[shape].name in kept.names:
                    timed.setdefault((row, shape), part)
    return Records(path, about, plan, records, parts, timed)


def _sources(path: Path, about: Mapping[str, Any], plan: Plan) -> Sources:
    """What the names of a plan stood for, as `run.json` says it.

    Raises:
        BenchcardError: It does not say it, or not of all.
    """
    missing = [name for name in ("created", "sources", "machine", "versions", "default_threads") if not about.get(name)]
    sources, wanted = Sources.from_dict(about.get("sources") or {}), unresolved_sources(plan.spec)
    missing += [*wanted.models.keys() - sources.models.keys(), *wanted.datasets.keys() - sources.datasets.keys()]
    if missing:
        names = ", ".join(missing)
        raise BenchcardError(f"{path} is damaged: it says nothing of {names}. Run the spec in a new folder")
    return sources


def _part(kept: TimedPart) -> Part:
    from benchcard.measure.blocks import read_rounds

    outcome = kept.outcome
    rounds = tuple(read_rounds(kept.rounds))
    if outcome is not None and len(rounds) != outcome["rounds"]:
        raise BenchcardError(
            f"{kept.rounds} is damaged: {len(rounds)} of {outcome['rounds']} rounds can be read. "
            "Run the spec again to time what is missing"
        )
    return Part(kept.names, outcome["baseline"] if outcome else None, rounds, outcome)
