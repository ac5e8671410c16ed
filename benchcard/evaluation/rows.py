"""Rows of a data set on disk: on their way in, as items with what is right, and on their way out, as predictions.

The arrays of items lie as `features` lays them; this module owns what stands beside them: which items are a row's,
references, and predictions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchcard.errors import ArtifactError
from benchcard.evaluation import features
from benchcard.tasks import Prepared, Task


@dataclass(frozen=True)
class Written:
    """What was laid down.

    Attributes:
        rows: Rows.
        items: Items; more than rows where a row has several.
        notes: What a reader should know.
    """

    rows: int
    items: int
    notes: tuple[str, ...]


def write_rows(prepared: Prepared, folder: Path, progress: Callable[[int], None] = lambda done: None) -> Written:
    """What now lies in `folder`: items, references, and what the way out needs.

    Args:
        prepared: The rows; each is taken once, so that memory holds one at a time.
        folder: An existing folder.
        progress: Called with the number of rows done.
    """
    references: list[Any] = []
    memos: list[Any] = []
    owners: list[int] = []
    counts: Counter[str] = Counter()

    def items() -> Iterator[Mapping[str, NDArray[Any]]]:
        for number, row in enumerate(prepared.rows):
            for item in row.items:
                owners.append(number)
                yield item
            references.append(row.reference)
            memos.append(row.memo)
            counts.update(row.counts)
            progress(number + 1)

    count = features.write_features(items(), folder, prepared.pad, prepared.padding_side, prepared.beside)
    told = {
        "references": references,
        "memos": memos,
        "owners": owners,
        "context": prepared.context,
        "meanings": prepared.meanings,
        "metric_defaults": prepared.metric_defaults,
    }
    (folder / "references.json").write_text(json.dumps(told), encoding="utf-8")
    numbers = {name: _Count(count) for name, count in counts.items()}
    said = [sentence.format(**numbers) for name, sentence in prepared.tallies.items() if counts[name]]
    return Written(len(references), count, (*prepared.notes, *said))


class _Count(int):
    """A number that chooses between the forms of a word: `{cut:was|were}`."""

    def __format__(self, form: str) -> str:
        one, is_choice, more = form.partition("|")
        return (one if self == 1 else more) if is_choice else super().__format__(form)


class Rows:
    """Rows that `write` laid down, opened for reading."""

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "references.json").read_text(encoding="utf-8"))
        self.references: list[Any] = told["references"]
        self.context: Mapping[str, Any] = told["context"]
        self.meanings: Mapping[str, str] = told["meanings"]
        self.metric_defaults: Mapping[str, Any] = told.get("metric_defaults", {})
        self._memos: list[Any] = told["memos"]
        self._owners: list[int] = told["owners"]
        self._folder = folder

    def __len__(self) -> int:
        return len(self.references)

    @cached_property
    def items(self) -> features.Features:
        """The items of all rows, in the order of the rows."""
        return features.Features(self._folder)

    def predictions(self, task: Task, kept: Sequence[Mapping[str, NDArray[Any]]]) -> list[Any]:
        """The prediction for each row, from what was kept of the outputs for each item."""
        groups: list[list[Mapping[str, NDArray[Any]]]] = [[] for _ in self._memos]
        for index, owner in enumerate(self._owners):
            groups[owner].append({**kept[index], **self.items.beside(index)})
        return [task.prediction(group, memo, self.context) for group, memo in zip(groups, self._memos)]


def write_predictions(folder: Path, kept: Sequence[Mapping[str, NDArray[Any]]], predictions: Sequence[Any]) -> None:
    """Keep predictions, and what they were made of, in `folder`.

    `predictions.npz` has each kept name with one element an item on its first axis; where items differ in shape, they
    lie one after the other and `<name>.shapes` has their shapes. Predictions that are numbers are `predictions` in it;
    all others lie in `predictions.json`.

    Raises:
        ArtifactError: Something in it is not finite: the model is broken, and no metric would say so.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name in kept[0] if kept else ():
        each = [np.asarray(item[name]) for item in kept]
        shapes = {array.shape for array in each}
        if len(shapes) == 1:
            arrays[name] = np.stack(each)
        else:
            arrays[name] = np.concatenate([array.ravel() for array in each])
            arrays[f"{name}.shapes"] = np.asarray([array.shape for array in each], dtype=np.int64)
        if arrays[name].dtype.kind == "f" and not (finite := np.isfinite(arrays[name])).all():
            raise ArtifactError(
                f"the model gives {name} that are not finite for {int((~finite).sum())} of {finite.size} numbers"
            )
    if all(isinstance(prediction, (int, float)) for prediction in predictions):
        arrays["predictions"] = np.asarray(predictions)
    else:
        (folder / "predictions.json").write_text(json.dumps(list(predictions)), encoding="utf-8")
    np.savez(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]  # its stub takes names for its own argument


def read_predictions(folder: Path) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """The prediction for each row, and what was kept for each item, as `write_predictions` laid them down."""
    with np.load(folder / "predictions.npz", allow_pickle=False) as archive:
        arrays = dict(archive)
    if "predictions" in arrays:
        return arrays.pop("predictions").tolist(), arrays
    return json.loads((folder / "predictions.json").read_text(encoding="utf-8")), arrays


def metric_inputs(rows: Rows, folder: Path) -> dict[str, Any]:
    """Return what metrics take: kept predictions, their scores by row where there is one of each, what is right, and
    `metric_defaults`, as `Prepared` has them.
    """
    predictions, kept = read_predictions(folder)
    scores = kept.get("scores")
    by_row = scores if scores is not None and scores.ndim == 2 and len(scores) == len(rows) else None
    return {
        "predictions": predictions,
        "references": rows.references,
        "prediction_scores": by_row,
        "metric_defaults": rows.metric_defaults,
    }
