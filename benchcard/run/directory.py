"""The run directory: the only store of a run, and its single source of truth.

This module owns the layout, and that a file or folder under its final name is complete. What steps mean is left to
`steps`. The format is documented in `docs/run-directory.md`.

    runs/beans/
    ├── run.json                      the spec, its sources (revisions, digests), and the machine and versions
    ├── steps/export-1f0c…/           a folder for each step: outcome.json, log.txt and the files that it made
    └── times/9ab2…/part-0/           a folder for models that were open together: rounds.bin, outcome.json
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from msgspec import ValidationError, convert

from benchcard.errors import BenchcardError, Mistake, SpecError
from benchcard.measure.blocks import OpenedModel
from benchcard.measure.machine import Machine
from benchcard.measure.machine_state import MachineState
from benchcard.run.traits import Traits
from benchcard.sources.resolve import Sources
from benchcard.spec.parameters import BACKEND_ARGUMENTS, split_name
from benchcard.spec.spec import Spec, measured_digest
from benchcard.steps.models import ModelFile
from benchcard.steps.step import AnyRequest, Count, Outcome, Request, V, decode
from benchcard.utils.files import reporting_disk_errors, sync, write_atomically, write_bytes_atomically
from benchcard.utils.parsing import UnreadableError, load_json
from benchcard.utils.plain import as_plain
from benchcard.utils.text import format_value
from benchcard.utils.values import Failure

T = TypeVar("T")
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class StoredSpec:
    """A spec as `run.json` holds it."""

    task: str
    fixed: dict[str, Any]
    grid: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The content of `run.json`, with the digest of the spec and the time when the run was begun, in ISO 8601.

    Rows that give no threads have `default_threads`. Runs of earlier versions have no traits. `price_per_hour` is that
    of the service whose machine it is, where it names one.
    """

    format: Count
    digest: str
    spec: StoredSpec
    created: str = ""
    sources: Sources = field(default_factory=Sources)
    machine: Machine = Machine()
    versions: Mapping[str, str | None] = field(default_factory=dict)
    default_threads: Count = 0
    traits: Traits | None = None
    price_per_hour: float | None = None


@dataclass(frozen=True, kw_only=True)
class _StoredStep:
    """The content of `outcome.json` of a step."""

    values: dict[str, Any]
    files: Mapping[str, Count]
    failure: Failure | None = None


@dataclass(frozen=True, kw_only=True)
class PartFailure(Failure):
    """Why the timing of a cell ended early; that of the second process of the baseline if `twin`."""

    name: str
    twin: bool


@dataclass(frozen=True, kw_only=True)
class PartOutcome:
    """What was recorded beside the latencies of models that were timed together.

    Attributes:
        before: The machine before the first model was opened; `after` that after the last block.
        opened: What it took to open each model, once for each launch.
        sizes: Bytes on disk of each model, by the name of its cell.
    """

    rounds: Count
    baseline: str | None
    before: MachineState
    after: MachineState
    opened: tuple[OpenedModel, ...]
    failures: tuple[PartFailure, ...]
    sizes: Mapping[str, Count] = field(default_factory=dict)
    duration_s: float = 0.0
    precision: float | None = None


@dataclass(frozen=True)
class _Parts:
    """The content of `group.json`: the names of the cells of each part."""

    parts: tuple[tuple[str, ...], ...]


MEMORY_FOLDER = "data"
"""The folder of data sets that were passed in memory."""
DRAFT = "spec.yaml"
"""The spec that was drafted for the run."""
JOB = "job.json"
"""Where the run is done, which `backends` reads and writes."""
REPORT = "worker.json"
"""How the worker of a run elsewhere has ended, by itself."""


class RunDirectory:
    """A run directory, open for reading or, inside `locked()`, for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def info(self) -> RunInfo:
        """The content of `run.json`; `BenchcardError` if there is none, or a newer benchcard wrote it."""
        info = _read(self.path / "run.json", RunInfo)
        if info is None:
            reason = "it does not exist"
            if self.path.exists():
                reason = "it has no run.json" if self.path.is_dir() else "it is a file"
            expected = "Expected a run directory, as `benchcard run SPEC --out FOLDER` makes one"
            raise BenchcardError(f"{self.path} holds no run: {reason}. {expected}")
        if info.format > FORMAT:
            problem = f"{self.path} has format {info.format}, and this benchcard reads up to {FORMAT}"
            raise BenchcardError(f"{problem}. Install a newer one")
        return info

    def holds(self, spec: Spec) -> bool:
        """Return whether the run is of a spec, perhaps with other names for the card, or other machines in its grid."""
        info = self.info
        own, other = as_plain(info.spec), spec.as_dict()
        if BACKEND_ARGUMENTS in own["grid"] and BACKEND_ARGUMENTS in other["grid"]:
            own, other = (
                {**values, **{part: _without_machines(values[part]) for part in ("fixed", "grid")}}
                for values in (own, other)
            )
        free = info.sources.freely_named
        return measured_digest(own, free) == measured_digest(other, free)

    def expect_spec(self, spec: Spec) -> None:
        """Raise `SpecError` if the run is of another spec."""
        if not self.holds(spec):
            found, expected = f"a run of another spec in {self.path}", "a folder of its own for each spec"
            hint = f"they differ in {_difference(as_plain(self.info.spec), spec.as_dict())}"
            raise SpecError(Mistake("$", found, expected, hint))

    def begin(self, spec: Spec, about: Mapping[str, Any]) -> None:
        """Begin a run of a spec in the directory; one that it holds already gets the spec's names for the card.

        Raises:
            SpecError: It holds a run of another spec. Nothing is changed.
        """
        path, content = self.path / "run.json", {"digest": spec.digest, "spec": spec.as_dict()}
        if path.exists():
            self.expect_spec(spec)
            if as_plain(self.info.spec) != content["spec"]:
                write_atomically(path, {**load_json(path.read_bytes()), **content})
            return
        self.refuse_unusable()
        with reporting_disk_errors(self.path):
            (self.path / "steps").mkdir(parents=True, exist_ok=True)
            (self.path / "times").mkdir(exist_ok=True)
        write_atomically(path, {"format": FORMAT, **content, **about})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory until the block ends; `BenchcardError` if another process has locked it."""
        self.refuse_unusable()
        with reporting_disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / "lock", timeout=0)
        try:
            try:
                with reporting_disk_errors(self.path):
                    lock.acquire()
            except Timeout:
                problem = f"another process is working on {self.path}"
                raise BenchcardError(f"{problem}. Wait for it, or give another folder") from None
            # A process that was killed left its unfinished steps.
            for folder in self.path.glob("steps/.unfinished-*"):
                shutil.rmtree(folder, ignore_errors=True)
            yield
        finally:
            # Also where an interrupt came just after the lock was acquired.
            lock.release(force=True)

    def expect_present(self, error: Exception | None = None) -> None:
        """Raise `BenchcardError` if the directory of a begun run is missing now, which may have caused `error`."""
        if not (self.path / "run.json").exists():
            problem = f"{self.path} was removed or moved during the run"
            advice = "Put it back and give the same command again, or run from the start"
            raise BenchcardError(f"{problem}. {advice}") from error

    def refuse_unusable(self) -> None:
        """Raise `BenchcardError` if the path cannot be a folder, or holds something other than a run."""
        with reporting_disk_errors(self.path):
            if not self.path.exists() or (self.path / "run.json").exists():
                return
            # A run that was killed before it wrote `run.json` has empty folders.
            foreign = not self.path.is_dir() or any(
                entry.name not in ("lock", MEMORY_FOLDER, DRAFT, JOB, REPORT)
                and (entry.name not in ("steps", "times") or not entry.is_dir() or any(entry.iterdir()))
                for entry in self.path.iterdir()
            )
        if foreign:
            raise BenchcardError(f"{self.path} exists and holds no run of benchcard. Give another folder")

    def keep_draft(self, text: str) -> bool:
        """Write the YAML of the spec that was drafted for a new run, and return whether it was not there yet.

        Raises:
            BenchcardError: There is another one already, which somebody may have edited.
        """
        self.refuse_unusable()
        path = self.path / DRAFT
        if (self.path / "run.json").exists():
            return False
        is_new = not path.exists()
        with reporting_disk_errors(self.path):
            if not is_new and path.read_text(encoding="utf-8") != text:
                problem = f"{path} is another spec than the one that was drafted"
                advice = f"Run it with `benchcard run {path} --out {self.path}`, or give another folder"
                raise BenchcardError(f"{problem}. {advice}")
            self.path.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(path, text.encode())
        return is_new

    @contextmanager
    def new_memory_folder(self, name: str) -> Iterator[Path | None]:
        """Yield a folder to write an in-memory data set into, or None if that was written already.

        The folder gets its final name when the block ends.
        """
        self.refuse_unusable()
        folder = self.path / MEMORY_FOLDER / name
        if folder.is_dir():
            yield None
            return
        part = folder.with_name(f".{name}.part")
        with reporting_disk_errors(self.path):
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            yield part
            os.replace(part, folder)

    def has(self, *kinds: str) -> bool:
        """Return whether a step of one of these kinds was finished or failed."""
        return any(next((self.path / "steps").glob(f"{kind}-*"), None) for kind in kinds)

    def clear(self) -> None:
        """Delete everything that a run wrote, and the folder if it is empty then."""
        for name in ("steps", "times", MEMORY_FOLDER):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("run.json", "lock", JOB, REPORT):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def outcome(self, request: Request[V]) -> Outcome[V] | Failure | None:
        """Return the outcome of a step, or its failure; None if it was never finished or its files are damaged."""
        folder = self._folder(request)
        path = folder / "outcome.json"
        stored = _read(path, _StoredStep)
        if stored is None or stored.files.items() - _file_sizes(folder).items():
            return None
        if stored.failure is not None:
            return stored.failure
        try:
            values = request.read_values(stored.values)
        except ValidationError as error:
            raise _unreadable(path, str(error).replace("`$", "`$.values")) from error
        if isinstance(values, ModelFile):
            file = folder / values.file
            if values.file not in stored.files:
                raise _unreadable(path, f"$.values.file is {format_value(values.file)}, which is not in $.files")
            if not file.resolve().is_relative_to(self.path.resolve()):
                raise BenchcardError(f"{folder} names a file outside of the run directory, {file}. Delete the folder")
        return Outcome(request.kind, request.key, folder, values)

    def _folder(self, request: AnyRequest) -> Path:
        return self.path / "steps" / f"{request.kind}-{request.key[:20]}"

    def unfinished(self, request: AnyRequest) -> Path:
        """Return an empty folder for a step to work in. It does not count until the step is finished."""
        self.expect_present()
        folder = self.path / "steps" / f".unfinished-{request.kind}-{request.key[:20]}"
        shutil.rmtree(folder, ignore_errors=True)
        with reporting_disk_errors(self.path):
            folder.mkdir(parents=True)
        return folder

    def finish(
        self, work: Path, request: Request[V], values: Mapping[str, Any], seconds: float, failure: Failure | None = None
    ) -> Outcome[V] | Failure:
        """Write the outcome of a step into `work`, the folder of `unfinished`, and give the folder its final name."""
        final = self._folder(request)
        if failure is not None:
            for path in work.iterdir():
                if path.name != "log.txt":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        needs = {name: f"{outcome.kind}-{outcome.key[:20]}" for name, outcome in request.needs.items()}
        content = {
            "kind": request.kind,
            "key": request.key,
            "asked": {**request.asked, "needs": needs},
            "values": values,
            "files": _file_sizes(work),
            "seconds": round(seconds, 3),
            "failure": as_plain(failure),
        }
        with reporting_disk_errors(self.path):
            write_atomically(work / "outcome.json", content)
            if final.exists():
                shutil.rmtree(final)
            os.replace(work, final)
            sync(final.parent)
        return failure or Outcome(request.kind, request.key, final, request.read_values(values))

    def parts(self, key: str, divide: Callable[[], list[list[str]]]) -> list[TimedPart]:
        """Return the parts in which a group of cells is timed. `divide` decides them when the group is begun."""
        folder = self._group(key)
        if not (folder / "group.json").exists():
            content = {"parts": divide()}
            self.expect_present()
            with reporting_disk_errors(self.path):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "group.json", content)
        return self.stored_parts(key)

    def stored_parts(self, key: str) -> list[TimedPart]:
        """Return the parts of a group that was begun; none where it was not."""
        folder = self._group(key)
        stored = _read(folder / "group.json", _Parts) or _Parts(())
        return [TimedPart(folder / f"part-{index}", names) for index, names in enumerate(stored.parts)]

    def _group(self, key: str) -> Path:
        return self.path / "times" / key[:20]


@dataclass(frozen=True)
class TimedPart:
    """The folder of models that are timed together, which may not exist yet. The first name is the baseline's."""

    path: Path
    names: tuple[str, ...]

    @property
    def outcome(self) -> PartOutcome | None:
        """What was recorded beside the latencies; None until all rounds are there."""
        return _read(self.path / "outcome.json", PartOutcome)

    @property
    def rounds(self) -> Path:
        """The file of latencies, to which `measure.blocks.append_round` adds each round."""
        return self.path / "rounds.bin"

    def begin(self) -> None:
        """Make the folder, and delete the outcome of an earlier attempt. Its latencies stay."""
        with reporting_disk_errors(self.path):
            # Not its parents: if these are missing, the run was removed.
            self.path.mkdir(exist_ok=True)
            (self.path / "outcome.json").unlink(missing_ok=True)

    def finish(self, outcome: PartOutcome) -> None:
        """Write the outcome. The part is finished then."""
        self.begin()
        # The facts of a framework may hold numbers that are not finite, which become text.
        content = json.loads(json.dumps(as_plain(outcome)), parse_constant=str)
        write_atomically(self.path / "outcome.json", content)


def _read(path: Path, form: type[T]) -> T | None:
    try:
        return convert(load_json(path.read_bytes()), form, dec_hook=decode)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnreadableError, ValidationError) as error:
        raise _unreadable(path, str(error)) from error


def _file_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of the files of a step, its log aside, by their path in its folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "log.txt"]
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def _unreadable(path: Path, problem: str) -> BenchcardError:
    return BenchcardError(f"{path} cannot be read ({problem}). Delete its folder and run again")


def _without_machines(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if split_name(name)[0] != BACKEND_ARGUMENTS}


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    names = ["`task`"] if one["task"] != other["task"] else []
    for part in ("fixed", "grid"):
        parameters = sorted({*one[part], *other[part]})
        names += [f"`{part}.{name}`" for name in parameters if one[part].get(name, ...) != other[part].get(name, ...)]
    return ", ".join(names) or "the order of the grid"
