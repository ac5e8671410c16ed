"""Data sets in memory: `datasets.Dataset`, `DatasetDict`, pandas frames, and mappings of split to these.

This module recognizes them, names each by the digest of its content, which a spec can hold, and writes the rows into
the run directory, so that a run can be continued and read without the objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from benchcard.errors import Mistake, SpecError
from benchcard.tasks.data import fingerprint, literal
from benchcard.utils.plain import digest
from benchcard.utils.progress import no_dataset_progress
from benchcard.utils.text import quote_names
from benchcard.utils.values import MEMORY_PREFIX

if TYPE_CHECKING:
    from pathlib import Path

    import datasets

    InMemory = Mapping[str, datasets.DatasetDict]


# Hexadecimal digits of the digest in a name: enough that two data sets of one run do not share a name.
_DIGITS = 16


# The kinds of data: a table, a mapping of split to table, and a stream.
_TABLE, _SPLITS, _STREAM = "table", "splits", "stream"


def extract_datasets(arguments: Mapping[str, object]) -> tuple[dict[str, object], InMemory]:
    """Return the arguments of a benchmark with a name in place of each data set in memory, and these by name.

    A data set is the value of `dataset` or of its `path`; in `grid`, it is an element of a list of such values.
    """
    extracted: dict[str, datasets.DatasetDict] = {}

    def named(dataset: object, place: str) -> object:
        is_data = _kind(dataset) is not None and not (isinstance(dataset, Mapping) and "path" in dataset)
        fields = {"path": dataset} if is_data else dataset
        if not isinstance(fields, Mapping) or _kind(fields.get("path")) is None:
            return dataset
        splits = _splits(fields["path"], fields.get("eval_split"), place)
        content = digest({name: fingerprint(rows) for name, rows in splits.items()})
        name = f"{MEMORY_PREFIX}{content[:_DIGITS]}"
        extracted[name] = splits
        only_split = {"eval_split": next(iter(splits))} if len(splits) == 1 else {}
        return {**only_split, **fields, "path": name}

    result = dict(arguments)
    if "dataset" in result:
        result["dataset"] = named(result["dataset"], "$.dataset")
    for part in ("fixed", "grid"):
        fields = result.get(part)
        if isinstance(fields, Mapping) and "dataset" in fields:
            place, value = f"$.{part}.dataset", fields["dataset"]
            if part == "grid" and isinstance(value, (list, tuple)):
                value = [named(dataset, f"{place}[{index}]") for index, dataset in enumerate(value)]
            else:
                value = named(value, place)
            result[part] = {**fields, "dataset": value}
    return result, extracted


def write_splits(splits: datasets.DatasetDict, folder: Path) -> None:
    """Write a data set so that `tasks.data.load_dataset` reads it; images are written into the files."""
    with no_dataset_progress(), literal(folder) as link:
        splits.save_to_disk(link)


def _kind(value: object) -> str | None:
    """Return which kind of data a value is, without importing its library; None for anything else."""
    classes = {(base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__}
    if classes & {("datasets", "IterableDataset"), ("datasets", "IterableDatasetDict")}:
        return _STREAM
    if classes & {("datasets", "Dataset"), ("pandas", "DataFrame")}:
        return _TABLE
    if ("datasets", "DatasetDict") in classes:
        return _SPLITS
    if isinstance(value, Mapping) and value:
        kinds = {None if isinstance(table, Mapping) else _kind(table) for table in value.values()}
        return _SPLITS if kinds <= {_TABLE, _STREAM} else None
    return None


def _splits(value: Any, split: object, place: str) -> datasets.DatasetDict:
    """Return a data set as its splits; a single table is the split that the spec evaluates."""
    import datasets

    if _kind(value) == _SPLITS:
        _expect_distinct(value, "splits", place)
        return datasets.DatasetDict({str(name): _rows(table, f"{place}.{name}") for name, table in value.items()})
    rows = _rows(value, place)
    name = split.partition("[")[0] if isinstance(split, str) else None
    return datasets.DatasetDict({name or str(rows.split or "validation"): rows})


def _rows(value: Any, place: str) -> datasets.Dataset:
    """Return a table as a data set, without the index of a frame."""
    import datasets

    if _kind(value) == _STREAM:
        hint = "take the rows you need: `datasets.Dataset.from_list(list(stream.take(1000)))`"
        raise SpecError(Mistake(place, type(value).__name__, "a data set with all of its rows", hint))
    if isinstance(value, datasets.Dataset):
        return value.with_format(None)
    _expect_distinct(value.columns, "columns", place)
    # Arrow raises these for values, as images, that `datasets` can encode and Arrow cannot.
    with suppress(TypeError, ValueError, NotImplementedError):
        return datasets.Dataset.from_pandas(value, preserve_index=False)
    try:
        return datasets.Dataset.from_dict({str(name): values for name, values in value.to_dict("list").items()})
    except (TypeError, ValueError, NotImplementedError) as error:
        hint = f"{str(error).splitlines()[0]}: give each column values of one type"
        raise SpecError(Mistake(place, "a frame", "columns that `datasets` can hold", hint)) from error


def _expect_distinct(names: Iterable[object], kind: str, place: str) -> None:
    counts = Counter(map(str, names))
    if duplicates := [name for name, count in counts.items() if count > 1]:
        actual = f"{kind} of the same name, {quote_names(duplicates)}"
        raise SpecError(Mistake(place, actual, f"{kind} of different names"))
