"""Data sets that are handed over in memory: `datasets.Dataset`, `DatasetDict`, pandas frames, and splits of these.

They stand in a spec by the digest of what they hold, and are written into the run directory, so that a run can be gone
on with, and read, without them. This module owns how they are told from paths, named and written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from benchcard.errors import Mistake, SpecError
from benchcard.sources.resolve import MEMORY

if TYPE_CHECKING:
    from pathlib import Path

    import datasets

    Handed = Mapping[str, datasets.DatasetDict]


# Digits of the digest that stand in a spec: enough that no two data sets of one run meet.
_DIGITS = 16
_ONE, _SEVERAL, _STREAMED = "a table", "tables by split", "a stream"


def as_splits(given: Mapping[str, Any]) -> tuple[dict[str, Any], Handed]:
    """The arguments of a benchmark with a name in the place of each data set in memory, and the data sets by name.

    A data set stands at `dataset`, or at `path` in it; under `grid`, in a list of such.

    Raises:
        SpecError: It cannot be written: a stream, or values that are no rows.
    """
    handed: dict[str, datasets.DatasetDict] = {}

    def named(dataset: Any, place: str) -> Any:
        alone = _form(dataset) is not None and not (isinstance(dataset, Mapping) and "path" in dataset)
        told = {"path": dataset} if alone else dataset
        if not isinstance(told, Mapping) or _form(told.get("path")) is None:
            return dataset
        splits = _splits(told["path"], told.get("eval_split"), place)
        name = f"{MEMORY}{_digest(splits)}"
        handed[name] = splits
        only = {"eval_split": next(iter(splits))} if len(splits) == 1 else {}
        return {**only, **told, "path": name}

    whole = dict(given)
    if "dataset" in whole:
        whole["dataset"] = named(whole["dataset"], "$.dataset")
    for part in ("fixed", "grid"):
        inside = whole.get(part)
        if isinstance(inside, Mapping) and "dataset" in inside:
            place, value = f"$.{part}.dataset", inside["dataset"]
            several = part == "grid" and isinstance(value, (list, tuple))
            new = [named(each, f"{place}[{index}]") for index, each in enumerate(value)] if several else value
            whole[part] = {**inside, "dataset": new if several else named(value, place)}
    return whole, handed


def write_splits(splits: datasets.DatasetDict, folder: Path) -> None:
    """Write a data set so that `tasks.data.load` reads it; images are written into it."""
    import datasets

    from benchcard.tasks.data import literal

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with literal(folder) as link:
            splits.save_to_disk(link)
    finally:
        if shown:
            datasets.enable_progress_bars()


def folder_name(name: str) -> str:
    """The name of its folder, from that in the spec."""
    return name.removeprefix(MEMORY)


def _form(value: Any) -> str | None:
    """What a value is, if it is data; nothing is imported for it."""
    kinds = {(base.__module__.partition(".")[0], base.__name__) for base in type(value).__mro__}
    if kinds & {("datasets", "IterableDataset"), ("datasets", "IterableDatasetDict")}:
        return _STREAMED
    if kinds & {("datasets", "Dataset"), ("pandas", "DataFrame")}:
        return _ONE
    if ("datasets", "DatasetDict") in kinds:
        return _SEVERAL
    if isinstance(value, Mapping) and value:
        tables = (not isinstance(each, Mapping) and _form(each) in (_ONE, _STREAMED) for each in value.values())
        return _SEVERAL if all(tables) else None
    return None


def _splits(value: Any, split: str | None, place: str) -> datasets.DatasetDict:
    import datasets

    form = _form(value)
    if form == _STREAMED:
        hint = "take the rows that are wanted: `datasets.Dataset.from_list(list(stream.take(1000)))`"
        raise SpecError(Mistake(place, type(value).__name__, "a data set that is whole", hint))
    if form == _SEVERAL:
        _expect_distinct(value, "splits", place)
        return datasets.DatasetDict({str(name): _rows(each, f"{place}.{name}") for name, each in value.items()})
    rows = _rows(value, place)
    name = split.partition("[")[0] if isinstance(split, str) else None
    return datasets.DatasetDict({name or str(rows.split or "validation"): rows})


def _rows(value: Any, place: str) -> datasets.Dataset:
    """A table as a data set; the index of a frame is left out."""
    import datasets

    if _form(value) == _STREAMED:
        return _splits(value, None, place)[""]
    if isinstance(value, datasets.Dataset):
        return value.with_format(None)
    _expect_distinct(value.columns, "columns", place)
    try:
        return datasets.Dataset.from_pandas(value, preserve_index=False)
    except (TypeError, ValueError, NotImplementedError):
        # Images and the like, which `datasets` knows and Arrow does not; Arrow's own errors are of these kinds.
        pass
    try:
        return datasets.Dataset.from_dict({str(name): values for name, values in value.to_dict("list").items()})
    except (TypeError, ValueError, NotImplementedError) as error:
        hint = f"{str(error).splitlines()[0]}: give each column values of one kind"
        raise SpecError(Mistake(place, "a frame", "columns that `datasets` can hold", hint)) from error


def _expect_distinct(names: Iterable[Any], what: str, place: str) -> None:
    """Raise where two names are the same text."""
    counts = Counter(map(str, names))
    if twice := [f"`{name}`" for name, count in counts.items() if count > 1]:
        raise SpecError(Mistake(place, f"{what} of the same name, {', '.join(twice)}", f"{what} of different names"))


def _digest(splits: datasets.DatasetDict) -> str:
    from benchcard.tasks.data import fingerprint
    from benchcard.utils.plain import digest

    return digest({name: fingerprint(rows) for name, rows in splits.items()})[:_DIGITS]
