"""The steps `prepare`, `sample` and `shape`: rows of a data set, or generated inputs, as a model's inputs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchcard import registry
from benchcard.errors import SpecError
from benchcard.steps.step import Count, Positive, Progress, Request, local
from benchcard.tasks import InputCode
from benchcard.utils.values import Shape

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True, kw_only=True)
class RowsOutcome:
    """`samples` rows of a data set, with these numbers or all of them, divided into `items` inputs of a model.

    The fingerprint is that of all rows that were read, also of other splits. The facts become columns of the results,
    by name. The code makes the same inputs without benchcard; None where no plain lines do.
    """

    samples: Positive
    preprocessing_ns: Count
    split_rows: int = 0
    rows: tuple[int, ...] = ()
    rows_digest: str = ""
    items: int = 0
    fingerprint: str = ""
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    code: InputCode | None = None


@dataclass(frozen=True, kw_only=True)
class RowsRequest(Request[RowsOutcome]):
    """The fields that `prepare` and `sample` have in common.

    Attributes:
        dataset: The identity of the data set; `location` is the folder, file or id where it is read.
        name: The configuration of the data set.
        model: The identity of the model whose processor makes the inputs.
        content: The digest that local files of the data set must have.
        maximum: The most tokens that the graph takes; None where the model's folder alone decides.
        task_files: The paths of the task's arguments that are files.
    """

    dataset: Mapping[str, Any]
    name: str | None
    split: str
    data_keys: Mapping[str, Any] | None
    ref_keys: Sequence[str] | None
    task: str
    task_args: Mapping[str, Any] | None
    maximum: int | None = None
    model: Mapping[str, Any]
    trust_remote_code: bool = False
    model_folder: Path = local()
    location: str = local()
    revision: str | None = local()
    content: str | None = local()
    task_files: Mapping[str, Path] = local(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PrepareRequest(RowsRequest):
    """Rows to evaluate on: at most `max_samples`, evenly spaced."""

    kind: ClassVar[str] = "prepare"
    max_samples: int | None

    def __str__(self) -> str:
        return f"prepare {self.split}"


@dataclass(frozen=True, kw_only=True)
class SampleRequest(RowsRequest):
    """Rows to calibrate on: `num_samples`, drawn with a seed."""

    kind: ClassVar[str] = "sample"
    num_samples: int
    seed: int

    def __str__(self) -> str:
        return f"sample {self.num_samples} of {self.split}"


@dataclass(frozen=True, kw_only=True)
class ShapeOutcome:
    """Generated inputs: the dtype and shape of each, and their length; None where the task has no length."""

    input_length: int | None
    inputs: Mapping[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ShapeRequest(Request[ShapeOutcome]):
    """Inputs of one batch size and length, to time forward calls with, in a phase of tasks that have phases."""

    kind: ClassVar[str] = "shape"
    task: str
    model: Mapping[str, Any]
    batch_size: int
    input_length: int | None
    seed: int
    phase: str | None = None
    trust_remote_code: bool = False
    model_folder: Path = local()

    def __str__(self) -> str:
        return f"shape {Shape(self.batch_size, self.input_length, self.phase)}"


def _load(request: RowsRequest, name: str | None = None, split: str | None = None) -> datasets.Dataset:
    """Return all rows of a split of the data set of a request, and of a configuration: its own by default."""
    from benchcard.tasks import data

    return data.load_dataset(
        request.location, name or request.name, split or request.split, request.revision, request.content
    )


def prepare(request: PrepareRequest, target: Path, progress: Progress) -> RowsOutcome:
    """Write the rows of the evaluation split as model inputs, with their references."""
    from benchcard.tasks import data

    rows = _load(request)
    chosen, numbers = data.evenly_spaced(rows, request.max_samples)
    return _inputs(request, target, progress, chosen, data.describe_rows(numbers, len(rows)))


def sample(request: SampleRequest, target: Path, progress: Progress) -> RowsOutcome:
    """Write the rows drawn from the calibration split as model inputs, without references."""
    from benchcard.tasks import data

    rows = _load(request)
    label = request.ref_keys[0] if request.ref_keys else None
    chosen, numbers = data.stratified_sample(rows, request.num_samples, request.seed, label, request.split)
    description = {**data.describe_rows(numbers, len(rows)), "rows": numbers}
    return _inputs(request, target, progress, chosen, description)


def _inputs(
    request: RowsRequest, target: Path, progress: Progress, rows: datasets.Dataset, description: Mapping[str, Any]
) -> RowsOutcome:
    from benchcard.evaluation.rows import write_rows
    from benchcard.spec.schema import MappingOf
    from benchcard.tasks import Question, data
    from benchcard.tasks.trust import NOTE, trusted, trusting

    task, arguments = registry.task(request.task), request.task_args or {}
    fingerprints = [data.fingerprint(rows)]

    def load(name: str | None = None, split: str | None = None) -> datasets.Dataset:
        others = _load(request, name, split)
        fingerprints.append(data.fingerprint(others))
        return others

    form = MappingOf({**task.arguments, "metric_args": MappingOf(open=True)})
    if mistakes := list(form.mistakes({**arguments, **request.task_files}, "$.task_args")):
        raise SpecError(mistakes)
    with trusting(request.trust_remote_code):
        keys, references = request.data_keys or {}, request.ref_keys or []
        numbers, labelled = tuple(description.get("rows", ())), isinstance(request, PrepareRequest)
        labelled = labelled and request.ref_keys != []
        question = Question(
            request.model_folder,
            keys,
            references,
            arguments,
            labelled,
            request.maximum,
            numbers,
            evaluated=isinstance(request, PrepareRequest),
            load=load,
            files=request.task_files,
        )
        prepared = task.prepare(rows, question)
        notes = [NOTE] if trusted() else []
        # A published model comes without the code of its repository.
        code = None if trusted() else prepared.code
        context = {**prepared.context, "metric_args": arguments.get("metric_args", {})}
        moments: list[int] = []

        def tick(done: int) -> None:
            moments.append(time.perf_counter_ns())
            progress(done, len(rows))

        items, row_notes = write_rows(replace(prepared, context=context), target, tick)
    # The first row pays for imports: it counts as much as the others took on average.
    others = len(moments) - 1
    return RowsOutcome(
        # A task may join rows, as judgements of one query.
        **{**description, "rows": numbers, "samples": len(moments)},
        items=items,
        fingerprint=" ".join(fingerprints),
        preprocessing_ns=(moments[-1] - moments[0]) * len(moments) // others if others > 0 else 0,
        notes=(*notes, *row_notes),
        facts=dict(prepared.facts),
        code=code,
    )


def shape(request: ShapeRequest, target: Path, progress: Progress) -> ShapeOutcome:
    """Write inputs of one batch size and length."""
    import numpy as np

    from benchcard.tasks.trust import trusting

    # Only tasks with phases have a parameter for them.
    make: Any = registry.task(request.task).inputs
    phase = () if request.phase is None else (request.phase,)
    with trusting(request.trust_remote_code):
        arrays, length = make(request.model_folder, request.batch_size, request.input_length, request.seed, *phase)
    np.savez(target / "inputs.npz", **arrays)
    inputs = {name: (str(array.dtype), tuple(array.shape)) for name, array in arrays.items()}
    return ShapeOutcome(input_length=length, inputs=inputs)
