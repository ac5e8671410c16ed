"""Rows of a data set: loaded at one revision, chosen, and counted.

This module owns where rows come from and which ones are taken. What becomes of a row is a task's own matter.
"""

from __future__ import annotations

import hashlib
import json
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
    ".txt": "text",
}
# Endings of packed files, which `datasets` unpacks by itself.
PACKED = frozenset({".gz", ".zst", ".bz2", ".xz"})


def load(location: str, name: str | None, split: str, revision: str | None) -> datasets.Dataset:
    """One split of a data set: of a folder, a file, a folder written by `save_to_disk`, or a repository on the Hub.

    A file, and a folder with a single split that has no name, hold one split, of whatever name is asked. Part of a
    split is asked as `train[:500]` or `train[50%:]`, wherever it lies.

    Raises:
        SpecError: There is no such split, no such configuration, no row in it, or what lies there cannot be read; the
            message has those that there are, or the reader's own words.
    """
    rows = _load(location, name, split, revision)
    if not len(rows):
        raise _empty(split)
    return rows


def _load(location: str, name: str | None, split: str, revision: str | None) -> datasets.Dataset:
    import datasets
    from datasets.exceptions import DatasetsError

    path = Path(location)
    try:
        if path.is_dir() and ((path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()):
            return _split(_saved(path, split), split)
        if path.is_file():
            files = dict.fromkeys(_names(split), location)
            reader, settings = _reader(path)
            return datasets.load_dataset(reader, data_files=files, split=split, **settings)
        return datasets.load_dataset(location, name, split=split, revision=revision)
    except (ValueError, RuntimeError, DatasetsError) as error:
        raise _explained(error, location, name, split) from error


def _names(split: str) -> list[str]:
    """The names of the splits in `train[:10]+validation`."""
    return [part.partition("[")[0].strip() for part in split.split("+")]


def _saved(path: Path, split: str) -> datasets.DatasetDict:
    """What `save_to_disk` wrote. A split without rows has no file, for which `load_from_disk` has no words: it is left
    out, and is a mistake where it is asked for.
    """
    import datasets

    listing = path / "dataset_dict.json"
    names = json.loads(listing.read_text(encoding="utf-8"))["splits"] if listing.exists() else [""]
    found = datasets.DatasetDict()
    for name in names:
        if json.loads((path / name / "state.json").read_text(encoding="utf-8"))["_data_files"]:
            rows = datasets.Dataset.load_from_disk(str(path / name))
            found[name or str(rows.split or _names(split)[0])] = rows
        elif not name or name in _names(split):
            raise _empty(name or split)
    return found


def _empty(split: str) -> SpecError:
    return SpecError(Mistake("$.dataset", f"the split `{split}`, which has no rows", "a split that has rows"))


def _split(saved: datasets.DatasetDict, split: str) -> datasets.Dataset:
    import datasets

    for name in _names(split):
        if name not in saved:
            raise SpecError(Mistake("$.dataset", f"the split `{name}`", listed(saved), near(name, saved)))
    if split in saved:
        return saved[split]
    parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in saved.items()})
    return datasets.concatenate_datasets(
        [saved[part.splitname].select(range(part.from_ or 0, _end(part.to, saved[part.splitname]))) for part in parts]
    )


def _end(end: int | None, rows: datasets.Dataset) -> int:
    return len(rows) if end is None else end


def _reader(path: Path) -> tuple[str, dict[str, Any]]:
    """The reader of `datasets` for a file, and what it must be told.

    Raises:
        SpecError: There is none for its ending.
    """
    endings = [ending for ending in path.suffixes if ending not in PACKED]
    if not endings or endings[-1].lower() not in READERS:
        raise SpecError(Mistake("$.dataset.path", f"the file `{path.name}`", f"a file that ends in {listed(READERS)}"))
    ending = endings[-1].lower()
    return READERS[ending], {"sep": "\t"} if ending == ".tsv" else {}


def _explained(error: Exception, location: str, name: str | None, split: str) -> Exception:
    """What `datasets` found wrong, told by place."""
    said = str(error.__cause__ or error).strip() or type(error).__name__
    if "corresponds to no data" in said:
        return _empty(split)
    if "split" in said.lower() and isinstance(error, ValueError):
        import datasets

        known = datasets.get_dataset_split_names(location, name)
        for each in _names(split):
            if each not in known:
                return SpecError(Mistake("$.dataset", f"the split `{each}`", listed(known), near(each, known)))
    if "scripts are no longer supported" in said:
        said = (
            "it is read by a script, which `datasets` no longer runs: `revision: refs/convert/parquet` has the same "
            "rows as parquet, where the Hub has converted it"
        )
    return SpecError(
        Mistake(
            "$.dataset",
            f"`{location}`" + (f" with name `{name}`" if name else ""),
            "a data set that can be loaded",
            said.splitlines()[0],
        )
    )


def fingerprint(rows: datasets.Dataset) -> str:
    """SHA-256 of what the rows hold: column names, label names and values, images and audio by their bytes.

    It is the same wherever the rows lie and whatever they were read from: a file, the Hub, or memory.
    """
    whole = hashlib.sha256()
    labels = {name: getattr(feature, "names", None) for name, feature in rows.features.items()}
    whole.update(json.dumps(labels).encode())
    for block in rows.with_format("arrow").iter(batch_size=READ_ROWS):
        for row in block.to_pylist():
            whole.update(json.dumps(_plain(row), default=str).encode())
    return whole.hexdigest()


def _plain(value: Any) -> Any:
    """A value with the digest of its bytes in their place."""
    if isinstance(value, dict):
        if set(value) == {"bytes", "path"} and (value["bytes"] or value["path"]):
            file = Path(value["path"] or "")
            return _plain(value["bytes"] or (file.read_bytes() if file.is_file() else str(file)))
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value


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
                f"a number of at most {len(rows)}" if len(rows) else "a calibration split that has rows",
                f"the split `{split}` has {len(rows)} row{'' if len(rows) == 1 else 's'}",
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


def reference(rows: datasets.Dataset, question: Question, usual: str, several: str = "") -> str:
    """The one column that holds what is right: what `ref_keys` says, or the task's usual name.

    Args:
        rows: The rows.
        question: What was asked.
        usual: The name where nothing is asked.
        several: What to do where several columns are meant; empty where the task has no use for them.

    Raises:
        SpecError: There is no such column, or several are named, of which all but one would be left out.
    """
    if len(question.ref_keys) > 1:
        raise SpecError(
            Mistake(
                "$.dataset.ref_keys",
                f"{len(question.ref_keys)} columns, {', '.join(f'`{name}`' for name in question.ref_keys)}",
                "one column",
                several,
            )
        )
    return column(rows, question.ref_keys[0] if question.ref_keys else usual, "$.dataset.ref_keys[0]")


def each(rows: datasets.Dataset, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The values of some columns, row by row, read in blocks."""
    for block in rows.with_format(None).select_columns(list(columns)).iter(batch_size=READ_ROWS):
        for values in zip(*(block[name] for name in columns)):
            yield dict(zip(columns, values))
