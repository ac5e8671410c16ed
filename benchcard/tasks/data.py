"""Rows of a data set: loading them at one revision, choosing some of them, and reading their columns.

Leaves the use of a row to the tasks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.errors import BenchcardError, Mistake, SpecError
from benchcard.tasks import Question
from benchcard.tasks.hub_cache import cached_builder
from benchcard.utils.files import content_digest, list_files, pointer_hint
from benchcard.utils.parsing import front_matter
from benchcard.utils.plain import digest
from benchcard.utils.progress import no_dataset_progress
from benchcard.utils.text import did_you_mean, format_value, join_names, pluralize, quote_names

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset, DatasetBuilder, DatasetDict, Features, IterableDataset


DATA_SETTINGS = ".huggingface.yaml"
"""The file of a data folder that configures how `datasets` reads it, beside its README."""

# Rows that are read at once: few enough that a block of images stays small.
READ_ROWS = 256
# So many rows of a split on the Hub are counted: more than are needed to calibrate by default.
_COUNTED = 100
# The reader of `datasets` for a file, by its ending.
READERS = {f".{name}": name for name in ("parquet", "csv", "json", "arrow")}
READERS |= {".tsv": "csv", ".jsonl": "json", ".txt": "text"}
# Endings of compressed files, which `datasets` unpacks.
PACKED = frozenset({".gz", ".zst", ".bz2", ".xz"})

_TEXT_TYPES = ("string", "large_string")
# The texts that pandas takes for missing values. Source: the argument `na_values` of `pandas.read_csv`.
_MISSING = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
# What `datasets` does not take literally in a path.
_PATTERN_MARKS = ("*", "?", "[", "::")
# The files that configure how a folder is read, and those that `save_to_disk` writes.
_SETTINGS = ("README.md", DATA_SETTINGS)
_SAVED = ("dataset_info.json", "dataset_dict.json")
_LINKS = "data"


def data_digest(path: Path) -> str:
    """Return the `content_digest` of local data, combined with the settings by which `datasets` reads the folder.

    Of a README only `configs` and `dataset_info` count.
    Source: https://huggingface.co/docs/hub/datasets-manual-configuration
    """
    content, settings = content_digest(path), path / DATA_SETTINGS
    readme = front_matter(path)
    reading = [repr(readme[name]) for name in ("configs", "dataset_info") if name in readme]
    reading += [settings.read_text(encoding="utf-8", errors="replace")] if settings.is_file() else []
    return digest([content, *reading]) if reading else content


def is_configured(path: Path) -> bool:
    """Return whether a local data set has configurations, of which `name` selects one."""
    return "configs" in front_matter(path) or (path / DATA_SETTINGS).is_file()


def load_dataset(
    location: str, name: str | None, split: str, revision: str | None, content: str | None = None
) -> Dataset:
    """Return one split of a data set: of a folder, a file, a folder written by `save_to_disk`, or a repository.

    A file, or a folder whose only split has no name, counts as the split that is asked for. `split` may also be a part,
    such as `train[:500]` or `train[50%:]`. `name` is the configuration, `revision` the commit on the Hub,
    and `content` the `data_digest` that a local path must have.

    Raises:
        SpecError: There is no such split or configuration, it has no rows, it cannot be read, or the files changed.
    """
    path = Path(location)
    with _reporting_load_errors(location, name, split):
        rows = (
            _load_local(path, name, split, content)
            if path.exists()
            else _read(_hub_reader(location, name, revision), split)
        )
    if not len(rows):
        raise _empty_split(split)
    return rows


@dataclass(frozen=True)
class Layout:
    """What a data set has, read without its rows where that is possible.

    Attributes:
        configurations: The names of its configurations; empty where they are not known.
        configuration: The one that was read; empty where there are several and none was named or is the default, and
            so nothing was read.
        splits: The number of rows of each split; None where more than `_COUNTED` would have to be read to know it. A
            file, or a folder whose only split has no name, has the split `train`.
        features: The features of the columns of the configuration.
    """

    configurations: tuple[str, ...]
    configuration: str
    splits: Mapping[str, int | None]
    features: Features


def read_layout(location: str, name: str | None, revision: str | None) -> Layout:
    """Return the configurations, splits and columns of a data set, by the arguments of `load_dataset`.

    Of a data set on the Hub, the first rows are read at most, and only where its README does not name the columns.

    Raises:
        SpecError: There is no such configuration, or the data set cannot be read.
    """
    import datasets

    path = Path(location)
    with no_dataset_progress(), _reporting_load_errors(location, name, "train"):
        if any((path / file).exists() for file in _SAVED):
            with literal(path) as link:
                saved = _load_saved(link, "train")
                features = next(iter(saved.values())).features
                return Layout((), "", {split: len(rows) for split, rows in saved.items()}, features)
        if path.exists():
            home = _link_files(path, data_digest(path))
            names, default = (
                _configurations(str(home / _LINKS / _link_name(path)), None) if path.is_dir() else ((), None)
            )
            open_reader = _local_reader(path, home, name or default, "train")
        else:
            names, default = _configurations(location, revision)
            open_reader = _hub_reader(location, name or default, revision)
        if name is None and default is None and len(names) > 1:
            return Layout(names, "", {}, datasets.Features())
        reader = open_reader()
        if path.exists():
            reader.download_and_prepare()
        features = reader.info.features
        splits = {split: info.num_examples for split, info in (reader.info.splits or {}).items()}
        if features is None or not splits:
            streams = reader.as_streaming_dataset()
            splits = {str(split): _count(stream) for split, stream in streams.items()}
            stream = next(iter(streams.values()))
            features = stream.features or stream._resolve_features().features
        return Layout(names, name or default or "", splits, features)


def _count(stream: IterableDataset) -> int | None:
    """Return the number of rows of a split; None where it is above `_COUNTED`."""
    count = sum(len(table) for table in islice(stream.with_format("arrow"), _COUNTED + 1))
    return count if count <= _COUNTED else None


def _configurations(location: str, revision: str | None) -> tuple[tuple[str, ...], str | None]:
    """Return the names of the configurations of a data set, and the default one; those of the cache are not known."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE and not Path(location).exists():
        return (), None
    names = datasets.get_dataset_config_names(location, revision=revision)
    return tuple(names), datasets.get_dataset_default_config_name(location, revision=revision)


@contextlib.contextmanager
def _reporting_load_errors(location: str, name: str | None, split: str) -> Iterator[None]:
    from datasets.exceptions import DatasetsError
    from yaml import YAMLError

    try:
        yield
    except (ValueError, RuntimeError, FileNotFoundError, YAMLError, DatasetsError) as error:
        raise _load_error(error, location, name, split) from error


def _hub_reader(location: str, name: str | None, revision: str | None) -> Callable[..., DatasetBuilder]:
    import datasets

    def open_reader(**settings: object) -> DatasetBuilder:
        if datasets.config.HF_HUB_OFFLINE and "://" not in location:
            return cached_builder(location, name, revision, settings)
        return datasets.load_dataset_builder(location, name, revision=revision, **settings)

    return open_reader


def _load_local(path: Path, name: str | None, split: str, content: str | None) -> Dataset:
    """Return a split of local files, and check that `datasets` read exactly the files that were digested."""
    files, saved = list(list_files(path).values()), any((path / file).exists() for file in _SAVED)
    stamps = _stamps(files)
    if content is not None and content != data_digest(path):
        raise _changed(path)
    if saved:
        _expect_pulled(path, files)
        with literal(path) as link:
            home, rows = path, _select_split(_load_saved(link, split), split)
    else:
        home = _link_files(path, content or data_digest(path))
        rows = _read_links(path, home, name, split)
    if _stamps(files) != stamps:
        if not saved:
            shutil.rmtree(home, ignore_errors=True)
        raise _changed(path)
    digested = set(map(str, files))
    for file in map(os.path.normpath, _media_files(rows)):
        if file not in digested and not Path(file).is_relative_to(home):
            raise _foreign(path, file, "put it into the folder, or save the data set with `save_to_disk`, which copies")
    return rows


def _local_reader(path: Path, home: Path, name: str | None, split: str) -> Callable[..., DatasetBuilder]:
    """Return what opens the reader of local files through the links in `home`, where it also caches the rows."""
    import datasets

    link, cache = home / _LINKS / _link_name(path), str(home / "cache")
    # A folder that configures nothing has no names to choose from: the name is the one that a card shows.
    selected = name if is_configured(path) else None

    def open_reader(**settings: object) -> DatasetBuilder:
        if path.is_file():
            name_of_reader, own = _reader(path)
            by_split = dict.fromkeys(_split_names(split), str(link))
            return datasets.load_dataset_builder(
                name_of_reader, data_files=by_split, cache_dir=cache, **own, **settings
            )
        return datasets.load_dataset_builder(str(link), selected, cache_dir=cache, **settings)

    return open_reader


def _read_links(path: Path, home: Path, name: str | None, split: str) -> Dataset:
    """Return a split that `datasets` reads through the links in `home`."""
    link, open_reader = home / _LINKS / _link_name(path), _local_reader(path, home, name, split)
    data_files = open_reader().config.data_files or {}
    files = [os.path.normpath(file) for of_split in data_files.values() for file in of_split]
    for file in files:
        if not Path(file).is_relative_to(link):
            hint = "`data_files` in the README of a folder may name its own files only, by relative paths"
            raise _foreign(path, file, hint)
    _expect_pulled(path, [Path(file).readlink() for file in files])
    return _read(open_reader, split)


def _read(open_reader: Callable[..., DatasetBuilder], split: str) -> Dataset:
    """Return a split of the reader that is opened with some settings.

    In a column of texts of a CSV file only an empty cell is a missing value: `null`, `NA` and `None` are texts there.
    For pandas, which reads the file, they are missing values in every column, as they are here in columns of numbers.
    """
    reader = open_reader()
    rows = _split_of(reader, split)
    if reader.info.builder_name != "csv" or not _reads_words_as_missing(reader):
        return rows
    gaps = {name: rows.data.column(name).null_count for name in rows.column_names}
    types = {name: getattr(feature, "dtype", "") for name, feature in rows.features.items()}
    # A column in which all cells are missing has no type.
    is_text = {name: types[name] in _TEXT_TYPES or count == len(rows) for name, count in gaps.items()}
    if not any(gaps[name] and is_text[name] for name in gaps):
        return rows
    missing = {name: [""] if is_text[name] else list(_MISSING) for name in gaps}
    return _split_of(open_reader(keep_default_na=False, na_values=missing), split)


def _reads_words_as_missing(reader: DatasetBuilder) -> bool:
    """Return whether a reader of CSV files has the defaults of pandas, which the README of a data set may change."""
    return getattr(reader.config, "keep_default_na", True) and getattr(reader.config, "na_values", None) is None


def _split_of(reader: DatasetBuilder, split: str) -> Dataset:
    reader.download_and_prepare()
    try:
        return reader.as_dataset(split=split)
    except ValueError:
        _expect_splits(split, reader.info.splits or {})
        raise


def _expect_pulled(path: Path, files: Iterable[Path]) -> None:
    if hint := next(filter(None, map(pointer_hint, files)), None):
        raise SpecError(Mistake("$.dataset.path", f"`{path}`", "files with rows", hint))


@contextlib.contextmanager
def literal(path: Path) -> Iterator[Path]:
    """Yield a temporary link to a path, which `datasets` takes literally even where the path contains `::`."""
    with tempfile.TemporaryDirectory(prefix="benchcard-") as folder:
        link = Path(folder) / "data"
        link.symlink_to(path.absolute())
        yield link


def _link_files(path: Path, content: str) -> Path:
    """Return a folder in the cache of `datasets` with links to the files of data with this digest.

    `datasets` reads marks such as `*` and `::` in a path as a pattern or a chain of file systems, and uses its cache
    again for a file with the same path and time. The paths of these links have no such marks, and differ for each
    content. The rows read through them are cached beside them. Several processes may make the same links at once.
    """
    import datasets

    cache = Path(datasets.config.HF_DATASETS_CACHE).expanduser().resolve()
    if any(mark in str(cache) for mark in _PATTERN_MARKS):
        advice = f"Set HF_DATASETS_CACHE to a path without {join_names(_PATTERN_MARKS)}."
        raise BenchcardError(f"The cache of `datasets` is {cache}, which `datasets` takes for a pattern. {advice}")
    home, name = cache / "benchcard" / digest([os.fsencode(path).hex(), content])[:32], _link_name(path)
    targets = {"": path}
    if path.is_dir():
        targets = list_files(path) | {file: path / file for file in _SETTINGS if (path / file).is_file()}
    for file, target in targets.items():
        if "::" in file:
            actual, expected = f"the file `{target}`", "names without `::` in a folder"
            raise SpecError(Mistake("$.dataset.path", actual, expected, "rename it"))
        link = home / _LINKS / name / file
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            link.symlink_to(target.absolute())
    return home


def _link_name(path: Path) -> str:
    """Return the name of the link to a file or folder; a file keeps only the endings that select its reader."""
    if path.is_file():
        return "rows" + "".join(ending for ending in path.suffixes if ending.lower() in PACKED | READERS.keys())
    return "data" if any(mark in path.name for mark in _PATTERN_MARKS) else path.name


def _stamps(files: Iterable[Path]) -> list[tuple[int, int, int]]:
    """Return the time, size and inode of each file, which change when it is written or replaced."""
    return [(status.st_mtime_ns, status.st_size, status.st_ino) for status in map(os.stat, files)]


def _media_files(rows: Dataset) -> Iterator[str]:
    """Yield the files of images and sounds that are not stored in the rows themselves."""
    import datasets
    import pyarrow.compute as pc

    for name, feature in rows.features.items():
        if isinstance(feature, (datasets.Image, datasets.Audio)):
            media = rows.data.column(name)
            paths = pc.struct_field(media, "path").filter(pc.is_null(pc.struct_field(media, "bytes")))
            # The path of a file in an archive is `zip://inside::archive`.
            yield from (file.rpartition("::")[2] for file in paths.to_pylist() if file)


def _changed(path: Path) -> SpecError:
    actual, expected = f"other content in `{path}`", "the content that the run began with"
    hint = "the files changed since the run began, or are being written: start a new run in another directory"
    return SpecError(Mistake("$.dataset.path", actual, expected, hint))


def _foreign(path: Path, file: str, hint: str) -> SpecError:
    return SpecError(Mistake("$.dataset.path", f"the file `{file}`", f"only files inside `{path}`", hint))


def _split_names(split: str) -> list[str]:
    """Return the names of the splits in `train[:10]+validation`."""
    return [part.partition("[")[0].strip() for part in split.split("+")]


def _load_saved(path: Path, split: str) -> DatasetDict:
    """Return the splits that `save_to_disk` wrote, except those without rows, on which `load_from_disk` fails without a
    reason. A `split` without rows is a mistake.
    """
    import datasets

    listing = path / "dataset_dict.json"
    names = json.loads(listing.read_text(encoding="utf-8"))["splits"] if listing.exists() else [""]
    splits = datasets.DatasetDict()
    for name in names:
        if json.loads((path / name / "state.json").read_text(encoding="utf-8"))["_data_files"]:
            rows = datasets.Dataset.load_from_disk(str(path / name))
            splits[name or str(rows.split or _split_names(split)[0])] = rows
        elif not name or name in _split_names(split):
            raise _empty_split(name or split)
    return splits


def _empty_split(split: str) -> SpecError:
    return SpecError(Mistake("$.dataset", f"the split `{split}`, which has no rows", "a split that has rows"))


def _select_split(saved: DatasetDict, split: str) -> Dataset:
    import datasets

    _expect_splits(split, saved)
    if split in saved:
        return saved[split]
    parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in saved.items()})
    return datasets.concatenate_datasets([saved[part.splitname].select(range(part.from_, part.to)) for part in parts])


def _expect_splits(split: str, known: Iterable[str]) -> None:
    for name in _split_names(split):
        if name not in known:
            raise SpecError(Mistake("$.dataset", f"the split `{name}`", join_names(known), did_you_mean(name, known)))


def _reader(path: Path) -> tuple[str, dict[str, str]]:
    """Return the reader of `datasets` for a file, and its settings."""
    ending = next((ending.lower() for ending in reversed(path.suffixes) if ending not in PACKED), "")
    if ending not in READERS:
        expected = f"a file that ends in {join_names(READERS)}"
        raise SpecError(Mistake("$.dataset.path", f"the file `{path.name}`", expected))
    return READERS[ending], {"sep": "\t"} if ending == ".tsv" else {}


def _load_error(error: Exception, location: str, name: str | None, split: str) -> SpecError:
    """Return the mistake in the spec behind an error of `datasets`."""
    message = str(error.__cause__ or error).strip() or type(error).__name__
    # The user knows the path of the data, and not the path of the link to it.
    message = re.sub(rf"\S*/benchcard/[0-9a-f]{{32}}/{_LINKS}/[\w.-]+", lambda _: location, message)
    if "corresponds to no data" in message:
        return _empty_split(split)
    if "scripts are no longer supported" in message:
        parquet = "`revision: refs/convert/parquet` has the same rows as parquet, where the Hub has converted it"
        message = f"it is read by a script, which `datasets` no longer runs: {parquet}"
    actual = f"`{location}`" + (f" with name `{name}`" if name else "")
    return SpecError(Mistake("$.dataset", actual, "a data set that can be loaded", message.splitlines()[0]))


def fingerprint(rows: Dataset) -> str:
    """Return the SHA-256 of column names, label names and values; images and audio count by their bytes.

    It does not depend on where the rows were read from: a file, the Hub, or memory.
    """
    labels = {name: getattr(feature, "names", None) for name, feature in rows.features.items()}
    total = hashlib.sha256(json.dumps(labels).encode())
    for block in rows.with_format("arrow").iter(batch_size=READ_ROWS):
        for row in block.to_pylist():
            total.update(json.dumps(_hash_bytes(row), default=str).encode())
    return total.hexdigest()


def _hash_bytes(value: object) -> object:
    """Return a value with bytes, and the files of media, replaced by their digests."""
    if isinstance(value, dict):
        if set(value) == {"bytes", "path"} and (value["bytes"] or value["path"]):
            file = Path(value["path"] or "")
            return _hash_bytes(value["bytes"] or (file.read_bytes() if file.is_file() else str(file)))
        return {name: _hash_bytes(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_hash_bytes(part) for part in value]
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else value


def evenly_spaced(rows: Dataset, most: int | None) -> tuple[Dataset, list[int]]:
    """Return at most `most` rows, evenly spaced so that sorted classes are all represented, and their numbers."""
    if most is None or most >= len(rows):
        return rows, list(range(len(rows)))
    numbers = [index * len(rows) // most for index in range(most)]
    return rows.select(numbers), numbers


def stratified_sample(rows: Dataset, count: int, seed: int, label: str | None, split: str) -> tuple[Dataset, list[int]]:
    """Return `count` rows, drawn with the same share of each label as in the split, and their ascending numbers.

    Shares are rounded by the largest remainder, so that they add up to `count`. Without a column of classes the draw is
    not stratified.
    """
    import numpy as np

    if count > len(rows):
        expected = f"a number of at most {len(rows)}" if len(rows) else "a calibration split that has rows"
        hint = f"the split `{split}` has {pluralize(len(rows), 'row')}"
        raise SpecError(Mistake("$.calibration.num_calibration_samples", str(count), expected, hint))
    generator = np.random.default_rng(seed)
    labels = _classes(rows, label)
    if labels is None:
        drawn = generator.choice(len(rows), size=count, replace=False)
    else:
        values, counts = np.unique(labels, return_counts=True)
        shares = counts * count / len(rows)
        sizes = np.floor(shares).astype(int)
        sizes[np.argsort(sizes - shares, kind="stable")[: count - sizes.sum()]] += 1
        of_labels = [np.flatnonzero(labels == value) for value in values]
        drawn = np.concatenate([generator.choice(own, size, replace=False) for own, size in zip(of_labels, sizes)])
    numbers = np.sort(drawn).tolist()
    return rows.select(numbers), numbers


def _classes(rows: Dataset, label: str | None) -> np.ndarray | None:
    """Return the labels of all rows; None unless each row has one, and they are few enough to be classes."""
    import datasets
    import numpy as np

    if label is None or not isinstance(rows.features.get(label), (datasets.Value, datasets.ClassLabel)):
        return None
    values = np.asarray(rows.with_format(None)[label][:])
    are_names = values.dtype.kind in "biuUS" or (values.dtype.kind == "f" and bool((values % 1 == 0).all()))
    are_classes = are_names and len(np.unique(values)) <= max(2, len(values) // 2)
    return values if are_classes else None


def describe_rows(numbers: Sequence[int], split_rows: int) -> dict[str, object]:
    """Return which rows of a split were taken, for the outcome of a step; with their numbers unless all were taken."""
    about = {"samples": len(numbers), "split_rows": split_rows, "rows_digest": digest(list(numbers))}
    return about if len(numbers) == split_rows else {**about, "rows": list(numbers)}


def column(rows: Dataset, name: str, place: str) -> str:
    """Return the name of a column, which must exist."""
    if name not in (known := rows.column_names):
        raise SpecError(Mistake(place, f"the column `{name}`", join_names(known), did_you_mean(name, known)))
    return name


def list_feature(rows: Dataset, name: str, place: str, expected: str) -> object:
    """Return the feature of the elements of a column, which must hold lists; the spec names it at `place`."""
    feature: object = getattr(rows.features[name], "feature", None)
    if feature is None:
        raise SpecError(Mistake(place, f"the column `{name}` of {rows.features[name]}", expected))
    return feature


def primary(rows: Dataset, question: Question, default: str) -> str:
    """Return the input column: that of `data_keys`, else the task's default."""
    return column(rows, question.data_keys.get("primary") or default, "$.dataset.data_keys.primary")


def secondary(rows: Dataset, question: Question, default: str | None = None) -> str | None:
    """Return the second input column: that of `data_keys`, else the task's default; None where there is neither."""
    name = question.data_keys.get("secondary") or default
    return column(rows, name, "$.dataset.data_keys.secondary") if name else None


def reference(rows: Dataset, question: Question, default: str, hint: str = "") -> str:
    """Return the column of the reference: the only one of `ref_keys`, else the task's default.

    `hint` tells what to do where the spec names several.
    """
    if len(question.ref_keys) > 1:
        actual = f"{len(question.ref_keys)} columns, {quote_names(question.ref_keys)}"
        raise SpecError(Mistake("$.dataset.ref_keys", actual, "one column", hint))
    return column(rows, question.ref_keys[0] if question.ref_keys else default, "$.dataset.ref_keys[0]")


def iter_rows(rows: Dataset, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the values of some columns row by row. They are read in blocks."""
    for block in rows.with_format(None).select_columns(list(columns)).iter(batch_size=READ_ROWS):
        for values in zip(*(block[name] for name in columns)):
            yield dict(zip(columns, values))


def numbered_blocks(
    rows: Dataset, columns: Sequence[str], question: Question
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Yield the values of some columns in blocks of rows, each row with its number in the split."""
    unique = list(dict.fromkeys(columns))
    numbered = ((question.number(index), row) for index, row in enumerate(iter_rows(rows, unique)))
    while block := list(islice(numbered, READ_ROWS)):
        yield block


def expect_number(value: object, column: str, number: int) -> float:
    """Return the reference of a row, which must be a finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise bad_value(value, column, number, "$.dataset.ref_keys[0]", "a number")
    return float(value)


def bad_value(value: object, column: str, number: int, place: str, expected: str, hint: str = "") -> SpecError:
    """Return the mistake that a row has a wrong value; `place` is where the spec names the column."""
    return SpecError(Mistake(place, f"{format_value(value)} in row {number} of `{column}`", expected, hint))
