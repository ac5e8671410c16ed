"""Rows of a data set: loaded at one revision, chosen, and counted.

This module owns where rows come from and which ones are taken. What becomes of a row is a task's own matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchcard.errors import Mistake, SpecError
from benchcard.kinds import listed, near
from benchcard.spec import digest
from benchcard.tasks import Question

if TYPE_CHECKING:
    import datasets

# Rows that are read at once: few enough that a block of images stays small.
READ_ROWS = 256
# Files that a path may name, by their ending, and the reader of `datasets` for each.
READERS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".arrow": "arrow",
}


def load(location: str, name: str | None, split: str, revision: str | None) -> datasets.Dataset:
    """One split of a data set: of a folder, a file, a folder written by `save_to_disk`, or a repository on the Hub.

    Raises:
        SpecError: There is no such split, or no such configuration; the message has those that there are.
    """
    import datasets

    path = Path(location)
    try:
        if path.is_dir() and ((path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()):
            saved = datasets.load_from_disk(location)
            if isinstance(saved, datasets.Dataset):
                raise SpecError(
                    Mistake(
                        "$.dataset.path",
                        f"`{location}`",
                        "a data set with splits",
                        "a single split was saved: save a DatasetDict",
                    )
                )
            return _split(saved, split)
        if path.is_file():
            return datasets.load_dataset(READERS.get(path.suffix, "text"), data_files={split: location}, split=split)
        return datasets.load_dataset(location, name, split=split, revision=revision)
    except ValueError as error:
        raise _explained(error, location, name, split) from error


def _split(saved: Any, split: str) -> datasets.Dataset:
    if split not in saved:
        raise SpecError(Mistake("$.dataset.eval_split", f"the split `{split}`", listed(saved), near(split, saved)))
    return saved[split]


def _explained(error: ValueError, location: str, name: str | None, split: str) -> Exception:
    """What `datasets` found wrong, told by place."""
    said = str(error)
    if "split" in said.lower():
        import datasets

        known = datasets.get_dataset_split_names(location, name)
        if split not in known:
            return SpecError(Mistake("$.dataset", f"the split `{split}`", listed(known), near(split, known)))
    return SpecError(
        Mistake(
            "$.dataset",
            f"`{location}`" + (f" with name `{name}`" if name else ""),
            "a data set that can be loaded",
            said.splitlines()[0],
        )
    )


def first(rows: datasets.Dataset, most: int | None) -> tuple[datasets.Dataset, list[int]]:
    """All rows, or as many as asked, spread evenly, so that a split sorted by class is not cut to one class.

    Returns:
        The rows, and their numbers in the split.
    """
    if most is None or most >= len(rows):
        return rows, list(range(len(rows)))
    places = (np.arange(most) * len(rows) // most).tolist()
    return rows.select(places), places


def drawn(
    rows: datasets.Dataset, count: int, seed: int, label: str | None, split: str
) -> tuple[datasets.Dataset, list[int]]:
    """Rows drawn by seed, in the same shares of each label as the split has.

    Shares are rounded by the largest remainder, so that they add up to `count`. Without a label of a few values the
    draw is plain.

    Returns:
        The rows, and their numbers in the split, in ascending order.

    Raises:
        SpecError: The split has fewer rows.
    """
    if count > len(rows):
        raise SpecError(
            Mistake(
                "$.calibration.num_calibration_samples",
                str(count),
                f"a number of at most {len(rows)}",
                f"the split `{split}` has {len(rows)} rows",
            )
        )
    generator = np.random.default_rng(seed)
    labels = _labels(rows, label)
    if labels is None:
        places = generator.choice(len(rows), size=count, replace=False)
    else:
        values, counts = np.unique(labels, return_counts=True)
        shares = counts * count / len(rows)
        wanted = np.floor(shares).astype(int)
        for index in np.argsort(-(shares - wanted), kind="stable")[: count - wanted.sum()]:
            wanted[index] += 1
        places = np.concatenate(
            [
                generator.choice(np.flatnonzero(labels == value), size=number, replace=False)
                for value, number in zip(values, wanted)
            ]
        )
    chosen = sorted(int(place) for place in places)
    return rows.select(chosen), chosen


def _labels(rows: datasets.Dataset, label: str | None) -> Any:
    """The labels of all rows, if there is one to a row and they are few enough to be classes."""
    import datasets

    if label is None or not isinstance(rows.features.get(label), (datasets.Value, datasets.ClassLabel)):
        return None
    values = np.asarray(rows.with_format(None)[label][:])
    if values.dtype.kind not in "iuUS" or len(np.unique(values)) > max(2, len(values) // 2):
        return None
    return values


def about(rows: datasets.Dataset, places: Sequence[int], split_rows: int) -> dict[str, Any]:
    """Which rows were read, for the record: how many of how many, and the digest of their numbers."""
    whole = len(places) == split_rows
    told: dict[str, Any] = {"samples": len(places), "split_rows": split_rows, "rows_digest": digest(list(places))}
    if not whole:
        told["rows"] = list(places)
    return told


def column(rows: datasets.Dataset, name: str, place: str) -> str:
    """The name of a column that is there.

    Raises:
        SpecError: It is not; the message has the columns that are.
    """
    if name not in rows.column_names:
        raise SpecError(
            Mistake(place, f"the column `{name}`", listed(rows.column_names), near(name, rows.column_names))
        )
    return name


def primary(rows: datasets.Dataset, question: Question, usual: str) -> str:
    """The column that goes in: what `data_keys` says, or the task's usual name."""
    return column(rows, question.data_keys.get("primary") or usual, "$.dataset.data_keys.primary")


def secondary(rows: datasets.Dataset, question: Question, usual: str | None = None) -> str | None:
    """The second column that goes in: what `data_keys` says, or the task's usual name; None where there is neither."""
    name = question.data_keys.get("secondary") or usual
    return column(rows, name, "$.dataset.data_keys.secondary") if name else None


def reference(rows: datasets.Dataset, question: Question, usual: str) -> str:
    """The column that holds what is right: what `ref_keys` says, or the task's usual name."""
    return column(rows, question.ref_keys[0] if question.ref_keys else usual, "$.dataset.ref_keys[0]")


def each(rows: datasets.Dataset, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The values of some columns, row by row, read in blocks."""
    for block in rows.with_format(None).select_columns(list(columns)).iter(batch_size=READ_ROWS):
        for values in zip(*(block[name] for name in columns)):
            yield dict(zip(columns, values))
