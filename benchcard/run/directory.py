"""The run directory: everything about one run, on disk, and the only source of truth.

This module owns the layout and the promise that what stands under its final name is whole. It knows nothing of what
steps mean. The format is written down in `docs/run-directory.md`.

    runs/beans/
    ├── run.json                      the spec, what its names came to (revisions, digests), and what made it
    ├── steps/export-1f0c…/           one folder a step: outcome.json, log.txt and the files that it made
    └── times/9ab2…/part-0/           one folder for models that were open together: rounds.bin, outcome.json
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchcard.errors import BenchcardError, Mistake, SpecError
from benchcard.measure.blocks import OPENED, READING
from benchcard.spec.spec import Spec
from benchcard.steps.step import Outcome
from benchcard.utils.files import reporting_disk_errors, sync, write_atomically
from benchcard.utils.parsing import UnreadableError, load_json
from benchcard.utils.plaindata import is_count, is_positive, known, mismatches
from benchcard.utils.text import format_value
from benchcard.utils.values import Failure

FORMAT = 1
_NUMBER, _MAYBE = (int, float), (int, float, type(None))
_SOURCE = {
    **dict.fromkeys(("name", "location", "digest"), str),
    "local": bool,
    "revision?": str,
    "inherited?": {"*": str},
}
_RUN = {
    "format": is_count,
    "digest": str,
    "spec": {"task": str, "fixed": dict, "grid": dict},
    "created?": str,
    "sources?": {"models": {"*": _SOURCE}, "datasets": {"*": _SOURCE}, "metrics?": {"*": _SOURCE}},
    "machine?": {"processor?": str, "int8": {"u8s8_saturates": (bool, type(None))}},
    "versions?": {"*": (str, type(None))},
    "default_threads?": is_positive,
}
_FAILURE = dict.fromkeys(("stage", "type", "message", "log"), str)
_OUTCOME = {"values": dict, "files": {"*": is_count}, "seconds": _NUMBER, "failure?": _FAILURE}
_PART = {
    "rounds": is_count,
    "baseline": (str, type(None)),
    "before": READING,
    "after": READING,
    "opened": [OPENED],
    "failures": [{"name": str, "twin": bool, **_FAILURE}],
    "sizes?": {"*": is_count},
}
_MODEL = {"file": str, "digest": str, "size_bytes": is_count}
_LOSS = {"max_abs_difference": _MAYBE, "snr_db": _MAYBE, "is_finite": bool}
_DATA = {"facts?": {"*": str}, "samples": is_positive, "preprocessing_ns": is_count, "notes?": [str]}
_REPORT = {
    "digest": str,
    "is_float_model": bool,
    "notes": [str],
    **dict.fromkeys(("size_bytes", "nodes_quantized", "nodes_eligible", "quantize_nodes"), is_count),
    **dict.fromkeys(("dequantize_nodes", "dynamic_quantize_nodes"), is_count),
    **dict.fromkeys(("weights_quantized", "weights_per_channel"), is_count),
    "operators": [{"operator": str, "eligible": is_count, "excluded": is_count, "quantized": is_count}],
}
_HOW = {
    "approach": str,
    **{f"{name}?": [str] for name in ("operators_to_quantize", "nodes_to_exclude")},
    **{f"{name}?": str for name in ("weights_dtype", "activations_dtype", "quant_format")},
    **{f"{name}?": bool for name in ("weights_symmetric", "activations_symmetric", "matmul_const_b_only")},
    **{f"{name}?": bool for name in ("per_channel", "reduce_range")},
}
# What the values of a finished step must hold, by its kind: what is read from them relies on it.
_VALUES: Mapping[str, Any] = {
    "prepare": _DATA,
    "sample": _DATA,
    "export": {**_MODEL, "report": {"opset?": int, "max_abs_difference?": _NUMBER}},
    "convert": {"file": str, "digest": str},
    "quantize": {
        **_MODEL,
        "report": _REPORT,
        "how": _HOW,
        "exclusions": [
            {"pattern": str, "instances": is_count, "nodes": [str], "would_be_quantized": [str], "remark": str}
        ],
    },
    "evaluate": {
        "items?": is_count,
        "elapsed_ns": is_positive,
        "threads?": is_positive,
        "batches?": str,
        "kernels?": [{"name": str, "numbers": str, "nodes": is_count, "time_share": _NUMBER}],
    },
    "explain": {
        "outputs": _LOSS,
        "layers": [{"node": str, "effect": _LOSS}],
        "is_complete": bool,
        "trials": is_count,
        "patterns?": [str],
    },
    "score": {
        "metrics": {"*": _MAYBE},
        "readings?": {"*": {"higher_is_better?": bool, "unit?": str}},
        "positive_classes?": {"*": str},
        "notes?": [str],
    },
    "compare": {"figures": {"*": {"*": _MAYBE}}, "predictions_changed?": is_count},
    "rank": {"nodes": [str]},
    "shape": {"input_length": (int, type(None))},
}
HANDED = "data"
"""The folder in a run directory of data sets that were handed over in memory."""


class RunDirectory:
    """One run directory, opened for reading or, inside `locked()`, for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def about(self) -> dict[str, Any]:
        """What `run.json` says.

        Raises:
            BenchcardError: There is no run here, or a newer benchcard wrote it.
        """
        try:
            about = _read(self.path / "run.json", _RUN)
        except NotADirectoryError:
            about = None
        if about is None:
            raise BenchcardError(f"{self.path} holds no run: it has no run.json")
        if about["format"] > FORMAT:
            raise BenchcardError(
                f"{self.path} was written in format {about['format']}, and this benchcard reads up to {FORMAT}: "
                "install a newer one"
            )
        return about

    def begin(self, spec: Spec, about: Mapping[str, Any]) -> None:
        """Make the directory this spec's, unless it is already.

        Raises:
            SpecError: It belongs to another spec; nothing is changed.
            BenchcardError: It holds something that is no run, or cannot be written.
        """
        if (self.path / "run.json").exists():
            other = self.about
            if other["digest"] != spec.digest:
                differing = _difference(other["spec"], spec.as_dict())
                raise SpecError(
                    Mistake(
                        "$",
                        f"a run of another spec in {self.path}",
                        "a folder of its own for each spec",
                        f"they differ in {differing}",
                    )
                )
            return
        self.refuse_unusable()
        with reporting_disk_errors(self.path):
            (self.path / "steps").mkdir(parents=True, exist_ok=True)
            (self.path / "times").mkdir(exist_ok=True)
        write_atomically(
            self.path / "run.json", {"format": FORMAT, "digest": spec.digest, "spec": spec.as_dict(), **about}
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The directory for this process alone, until the block ends.

        Raises:
            BenchcardError: Another process is writing here.
        """
        from filelock import FileLock, Timeout

        self.refuse_unusable()
        with reporting_disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / "lock", timeout=0)
        try:
            try:
                with reporting_disk_errors(self.path):
                    lock.acquire()
            except Timeout:
                raise BenchcardError(
                    f"another process is working on {self.path}: wait for it, or give another folder"
                ) from None
            self._sweep()
            yield
        finally:
            # Also where an interrupt came between taking it and knowing of it.
            lock.release(force=True)

    def expect_present(self, error: Exception | None = None) -> None:
        """Raise where a run was begun here, and its directory is gone.

        Args:
            error: What failed, perhaps for that.

        Raises:
            BenchcardError: It was removed, or moved.
        """
        if not (self.path / "run.json").exists():
            raise BenchcardError(
                f"{self.path} was removed or moved while the run was at work: put it back and give the same command "
                "again, or run from the start"
            ) from error

    def refuse_unusable(self) -> None:
        """Raise where the path can be no folder, or holds something that is no run of ours; nothing is touched.

        Raises:
            BenchcardError: So it is.
        """
        with reporting_disk_errors(self.path):
            if not self.path.exists() or (self.path / "run.json").exists():
                return
            # A run that was killed before its first word has its folders, and nothing in them.
            foreign = not self.path.is_dir() or any(
                entry.name not in ("lock", HANDED)
                and (entry.name not in ("steps", "times") or not entry.is_dir() or any(entry.iterdir()))
                for entry in self.path.iterdir()
            )
        if foreign:
            raise BenchcardError(f"{self.path} exists and holds no run of benchcard: give another folder")

    @contextmanager
    def handed(self, name: str) -> Iterator[Path | None]:
        """A folder to write a data set into that was handed over in memory; it stands under its name when the block
        ends. None where it is there.

        Raises:
            BenchcardError: The path holds something that is no run, or cannot be written.
        """
        self.refuse_unusable()
        folder = self.path / HANDED / name
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
        """Whether a step of one of these kinds was finished here, or failed."""
        return any(next((self.path / "steps").glob(f"{kind}-*"), None) for kind in kinds)

    def clear(self) -> None:
        """Take away everything that a run wrote here, and the folder, if nothing else is in it."""
        for name in ("steps", "times", HANDED):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in ("run.json", "lock"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def _sweep(self) -> None:
        """Take away what a killed process left unfinished."""
        for left in self.path.glob("steps/.unfinished-*"):
            shutil.rmtree(left, ignore_errors=True)

    def outcome(self, kind: str, key: str) -> Outcome | None:
        """What a step came to, or None where it was never finished."""
        folder = self.path / "steps" / f"{kind}-{key[:20]}"
        told = _read(folder / "outcome.json", _OUTCOME)
        if told is None:
            return None
        failed = told.get("failure")
        problem = None if failed else next(mismatches(told["values"], _VALUES.get(kind, {}), "$.values"), None)
        file = told["values"].get("file")
        if problem or (file is not None and (failed or file not in told["files"] or ".." in Path(file).parts)):
            raise _unreadable(
                folder / "outcome.json", problem or f"$.values.file is {format_value(file)}, which it has not"
            )
        if any(
            not (folder / name).is_file() or (folder / name).stat().st_size != size
            for name, size in told["files"].items()
        ):
            return None
        file = folder / str(told["values"].get("file", ""))
        if not file.resolve().is_relative_to(self.path.resolve()):
            raise BenchcardError(f"{folder} names a file outside of the run directory, {file}: take the folder away")
        failure = Failure(**known(Failure, failed)) if failed else None
        return Outcome(kind, key, folder, told["values"], told["seconds"], failure)

    def unfinished(self, kind: str, key: str) -> Path:
        """An empty folder for a step to work in, which counts for nothing until it is finished."""
        self.expect_present()
        folder = self.path / "steps" / f".unfinished-{kind}-{key[:20]}"
        shutil.rmtree(folder, ignore_errors=True)
        with reporting_disk_errors(self.path):
            folder.mkdir(parents=True)
        return folder

    def finish(
        self,
        work: Path,
        kind: str,
        key: str,
        asked: Mapping[str, Any],
        values: Mapping[str, Any],
        seconds: float,
        failure: Failure | None,
    ) -> Outcome:
        """The outcome of a step, now on disk under its final name, whole."""
        final = self.path / "steps" / f"{kind}-{key[:20]}"
        if failure is not None:
            for left in work.iterdir():
                if left.name != "log.txt":
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
        files = {
            str(path.relative_to(work)): path.stat().st_size
            for path in sorted(work.rglob("*"))
            if path.is_file() and path.name != "log.txt"
        }
        told = {
            "kind": kind,
            "key": key,
            "asked": asked,
            "values": values,
            "files": files,
            "seconds": round(seconds, 3),
            "failure": asdict(failure) if failure else None,
        }
        with reporting_disk_errors(self.path):
            write_atomically(work / "outcome.json", told)
            if final.exists():
                shutil.rmtree(final)
            os.replace(work, final)
            sync(final.parent)
        return Outcome(kind, key, final, values, seconds, failure)

    def parts(self, key: str, divide: Callable[[], list[list[str]]]) -> list[TimedPart]:
        """The parts in which a group of cells is timed, as they were divided when it was begun, or as `divide` says
        now.
        """
        folder = self._group(key)
        if not (folder / "group.json").exists():
            told = {"parts": divide()}
            self.expect_present()
            with reporting_disk_errors(self.path):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "group.json", told)
        return self.kept_parts(key)

    def kept_parts(self, key: str) -> list[TimedPart]:
        """The parts of a group, as they were divided when it was begun; none where it was not."""
        folder = self._group(key)
        told = _read(folder / "group.json", {"parts": [[str]]}) or {"parts": []}
        return [TimedPart(folder / f"part-{index}", tuple(names)) for index, names in enumerate(told["parts"])]

    def _group(self, key: str) -> Path:
        return self.path / "times" / key[:20]


@dataclass(frozen=True)
class TimedPart:
    """Models that are timed together, open at the same time: raw latencies, kept round by round as they come, and in
    the end an outcome.

    Attributes:
        path: Its folder, which may not exist yet.
        names: The names of its cells; the baseline's first, where there is one.
    """

    path: Path
    names: tuple[str, ...]

    @property
    def outcome(self) -> dict[str, Any] | None:
        """What was found out beside the latencies (load times, memory, failures); None until all rounds are there."""
        return _read(self.path / "outcome.json", _PART)

    @property
    def rounds(self) -> Path:
        """The file of raw latencies, to which each round is added as it comes (`measure.blocks.append_round`)."""
        return self.path / "rounds.bin"

    def begin(self) -> None:
        """Make the folder; what an earlier attempt came to, other than latencies, no longer counts."""
        with reporting_disk_errors(self.path):
            # Not its parents: where these are gone, so is the run.
            self.path.mkdir(exist_ok=True)
            (self.path / "outcome.json").unlink(missing_ok=True)

    def finish(self, outcome: Mapping[str, Any]) -> None:
        """Keep what was found out beside the latencies; the part is finished with it."""
        self.begin()
        # What a framework says of its model may hold what is no number, which is kept as a word.
        write_atomically(self.path / "outcome.json", json.loads(json.dumps(outcome), parse_constant=str))


def _read(path: Path, form: Mapping[str, Any]) -> dict[str, Any] | None:
    """The mapping in a file of JSON, which has this form; None where there is no file."""
    try:
        told = load_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, UnreadableError) as error:
        raise _unreadable(path, str(error)) from error
    problem = next(mismatches(told, form), None)
    if problem is not None:
        raise _unreadable(path, problem)
    found: dict[str, Any] = told
    return found


def _unreadable(path: Path, problem: str) -> BenchcardError:
    return BenchcardError(f"{path} cannot be read ({problem}): take its folder away and run again")


def _difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The parameters in which two specs differ, as text."""
    differing = [
        f"`{part}.{name}`"
        for part in ("fixed", "grid")
        for name in sorted({*one[part], *other[part]})
        if one[part].get(name, ...) != other[part].get(name, ...)
    ]
    differing += ["`task`"] if one["task"] != other["task"] else []
    return ", ".join(differing) or "the order of the grid"
