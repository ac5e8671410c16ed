"""Prepared rows on disk: items, references and what predictions need, and the predictions of a model.

Owns which items belong to a row, references and predictions. Leaves the arrays of items to `features`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchcard.errors import ArtifactError
from benchcard.evaluation.features import Features, write_features
from benchcard.metrics import MetricInputs
from benchcard.tasks import Prepared, Task
from benchcard.utils.harness import is_task_path

if TYPE_CHECKING:
    from benchcard.tasks.protocol import Arrays


@dataclass(frozen=True)
class _Description:
    """The content of `references.json`: attributes of `Row` and `Prepared`, and the row of each item (`owners`)."""

    references: list[object]
    memos: list[object]
    owners: list[int]
    context: dict[str, object]
    meanings: dict[str, str]
    metric_defaults: dict[str, object] = field(default_factory=dict)


def write_rows(prepared: Prepared, folder: Path, progress: Callable[[int], None]) -> tuple[int, tuple[str, ...]]:
    """Write prepared rows one at a time, and call `progress` with the number of rows done.

    Return the number of items, and notes for the reader.
    """
    context, meanings = dict(prepared.context), dict(prepared.meanings)
    description = _Description([], [], [], context, meanings, dict(prepared.metric_defaults))
    counts: Counter[str] = Counter()

    def items() -> Iterator[Arrays]:
        for number, row in enumerate(prepared.rows):
            for item in row.items:
                description.owners.append(number)
                yield item
            description.references.append(row.reference)
            description.memos.append(row.memo)
            counts.update(row.counts)
            progress(number + 1)

    count = write_features(
        items(), folder, prepared.pad, prepared.padding_side, prepared.beside, prepared.outputs_per_number
    )
    (folder / "references.json").write_text(json.dumps(vars(description)), encoding="utf-8")
    numbers = {name: _Count(count) for name, count in counts.items()}
    notes = [sentence.format(**numbers) for name, sentence in prepared.tallies.items() if counts[name]]
    return count, (*prepared.notes, *notes)


class _Count(int):
    """A number whose format selects singular or plural: `{cut:was|were}`."""

    def __format__(self, form: str) -> str:
        singular, is_choice, plural = form.partition("|")
        return (singular if self == 1 else plural) if is_choice else super().__format__(form)


class Rows:
    """The rows that `write_rows` wrote, opened for reading. `context` also has `metric_args` of the spec; `owners` has
    the row of each item, and `memos` the memo of each row.
    """

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / "references.json").read_text(encoding="utf-8"))
        description = msgspec.convert(content, _Description)
        self.references, self.context = description.references, description.context
        self.meanings, self.metric_defaults = description.meanings, description.metric_defaults
        self.owners, self.memos, self._folder = description.owners, description.memos, folder

    def __len__(self) -> int:
        return len(self.references)

    @cached_property
    def items(self) -> Features:
        """The items of all rows, in the order of the rows."""
        return Features(self._folder)

    @property
    def labels(self) -> Sequence[str]:
        """The label names of the model; empty where predictions are no labels."""
        return msgspec.convert(self.context.get("labels", []), list[str])

    @property
    def positive_source(self) -> str:
        """What makes a label the positive class of `metric_defaults`."""
        return str(self.context.get("positive_source", "as the task has it"))

    def predictions(self, task: Task, kept: Sequence[Arrays]) -> list[object]:
        """Return the prediction of each row, from what was kept of the outputs of each item."""
        groups: list[list[Arrays]] = [[] for _ in self.memos]
        for index, owner in enumerate(self.owners):
            groups[owner].append({**kept[index], **self.items.beside(index)})
        return [task.prediction(group, memo, self.context) for group, memo in zip(groups, self.memos)]


def write_predictions(folder: Path, kept: Sequence[Arrays], predictions: Sequence[object]) -> None:
    """Write predictions, and what they were made from, to a folder.

    `predictions.npz` has each kept name with one element per item on its first axis. Arrays of different shapes are
    joined to one axis, and `<name>.shapes` has their shapes. Numeric predictions are `predictions` in this file; others
    are in `predictions.json`.

    Raises:
        ArtifactError: Outputs are not finite, which no metric would show.
    """
    arrays: dict[str, np.ndarray] = {}
    for name in kept[0] if kept else ():
        of_items = [np.asarray(item[name]) for item in kept]
        if len({array.shape for array in of_items}) == 1:
            arrays[name] = np.stack(of_items)
        else:
            arrays[name] = np.concatenate([array.ravel() for array in of_items])
            arrays[f"{name}.shapes"] = np.asarray([array.shape for array in of_items], dtype=np.int64)
        if arrays[name].dtype.kind == "f" and not (finite := np.isfinite(arrays[name])).all():
            numbers = f"{int((~finite).sum())} of {finite.size} numbers"
            raise ArtifactError(f"The outputs of the model are not finite for {numbers}.")
    if all(isinstance(prediction, (int, float)) for prediction in predictions):
        arrays["predictions"] = np.asarray(predictions)
    else:
        (folder / "predictions.json").write_text(json.dumps(list(predictions)), encoding="utf-8")
    np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]  # its stub takes names for its own argument


def read_predictions(folder: Path) -> tuple[list[object], dict[str, np.ndarray]]:
    """Return the prediction of each row, and the arrays of all items, as `write_predictions` wrote them."""
    with np.load(folder / "predictions.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    if "predictions" in arrays:
        return arrays.pop("predictions").tolist(), arrays
    return json.loads((folder / "predictions.json").read_text(encoding="utf-8")), arrays


def items_of(arrays: Mapping[str, np.ndarray], name: str) -> Sequence[np.ndarray]:
    """Return what is kept of each item under a name, from the arrays of `read_predictions`."""
    shapes = arrays.get(f"{name}.shapes")
    if shapes is None:
        return list(arrays[name])
    parts = np.split(arrays[name], np.cumsum(shapes.prod(axis=1))[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes)]


def metric_inputs(
    rows: Rows,
    folder: Path,
    task: Task | None = None,
    baseline: Path | None = None,
    task_files: Collection[Path] = (),
) -> MetricInputs:
    """Return what metrics are computed from, for the predictions in a folder; `baseline` is that of the baseline's, for
    a `task` whose predictions are made with them.

    A text in `metric_defaults` that names one of the `task_files` becomes its path. Metrics open no other file, since
    the texts are those of a run directory, which may be somebody else's.
    """
    predictions, kept = read_predictions(folder)
    if join := getattr(task, "predictions", None):
        outputs = read_predictions(baseline)[1] if baseline else None
        predictions = join(kept, rows.owners, rows.memos, rows.context, outputs)
    scores = kept.get("scores")
    # Rows of several items, or of scores for each token, have no single list of scores.
    has_scores = scores is not None and scores.ndim == 2 and len(scores) == len(rows)
    arguments = msgspec.convert(rows.context.get("metric_args", {}), dict[str, dict[str, object]])
    files = {file.name: file for file in task_files}
    defaults = {
        name: files.get(PurePath(str(value)).name, value) if is_task_path(value) else value
        for name, value in rows.metric_defaults.items()
    }
    return MetricInputs(
        predictions, rows.references, scores if has_scores else None, defaults, rows.meanings, arguments
    )
