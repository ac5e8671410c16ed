"""Rows of a data set: loaded at one revision, chosen, and counted.

This module owns where rows come from and which ones are taken. What becomes of a row is a task's own matter.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchcard.errors import BenchcardError, Mistake, SpecError
from benchcard.tasks import Question
from benchcard.utils.files import content_digest, list_files, pointer_hint
from benchcard.utils.parsing import front_matter
from benchcard.utils.plain import digest
from benchcard.utils.text import did_you_mean, join_names

if TYPE_CHECKING:
    import datasets


DATA_SETTINGS = ".huggingface.yaml"
"""The file of a folder of data that says how `datasets` reads it, beside its README."""


def data_digest(path: Path) -> str:
    """Return the `content_digest` of local data, together with what the folder itself says of how `datasets` reads it.
    The rest of its README does not count.

    Source: https://huggingface.co/docs/hub/datasets-manual-configuration
    """
    content, settings = content_digest(path), path / DATA_SETTINGS
    readme = front_matter(path)
    how = [repr(readme[name]) for name in ("configs", "dataset_info") if name in readme]
    how += [settings.read_text(encoding="utf-8", errors="replace")] if settings.is_file() else []
    return digest([content, *how]) if how else content


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

# What `datasets` does not take literally in a path.
_MARKS = ("*", "?", "[", "::")
# The files by which a folder says how it is read, and those that `save_to_disk` writes.
_SETTINGS = ("README.md", DATA_SETTINGS)
_SAVED = ("dataset_info.json", "dataset_dict.json")
_LINKS = "data"


def load_dataset(
    location: str, name: str | None, split: str, revision: str | None, content: str | None = None
) -> datasets.Dataset:
    """Return one split of a data set: of a folder, a file, a folder written by `save_to_disk`, or a repository on the
    Hub.

    A file, and a folder with a single split that has no name, hold one split, of whatever name is asked. Part of a
    split is asked as `train[:500]` or `train[50%:]`, wherever it lies.

    Args:
        location: A local path, or an id on the Hub.
        name: The configuration; None for the only one.
        split: The split, or part of one.
        revision: The commit on the Hub.
        content: The `sources.data_digest` that a local path must have; None to take it as it is.

    Raises:
        SpecError: There is no such split, no such configuration, no row in it, or what lies there cannot be read; the
            message has those that there are, or the reader's own words. Or the files are not those of `content`.
    """
    from datasets.exceptions import DatasetsError
    from yaml import YAMLError

    path = Path(location)
    try:
        rows = _local(path, name, split, content) if path.exists() else _from_hub(location, name, split, revision)
    except (ValueError, RuntimeError, FileNotFoundError, YAMLError, DatasetsError) as error:
        raise _explained(error, location, name, split) from error
    if not len(rows):
        raise _empty(split)
    return rows


def _from_hub(location: str, name: str | None, split: str, revision: str | None) -> datasets.Dataset:
    import datasets

    try:
        return datasets.load_dataset(location, name, split=split, revision=revision)
    except ValueError:
        _expect_splits(split, datasets.get_dataset_split_names(location, name, revision=revision))
        raise


def _local(path: Path, name: str | None, split: str, content: str | None) -> datasets.Dataset:
    """Return a split of local files, and check that the files which were read are those which were digested."""
    files, saved = list(list_files(path).values()), any((path / file).exists() for file in _SAVED)
    stamps = _stamps(files)
    found = None if saved and content is None else data_digest(path)
    if content not in (None, found):
        raise _changed(path)
    if found is None or saved:
        _expect_pulled(path, files)
        with literal(path) as link:
            home, rows = path, _split(_saved(link, split), split)
    else:
        home = _linked(path, found)
        rows = _read(path, home, name, split)
    if _stamps(files) != stamps:
        if not saved:
            shutil.rmtree(home, ignore_errors=True)
        raise _changed(path)
    digested = set(map(str, files))
    for file in map(os.path.normpath, _kept_outside(rows)):
        if file not in digested and not Path(file).is_relative_to(home):
            raise _foreign(path, file, "put it into the folder, or save the data set with `save_to_disk`, which copies")
    return rows


def _read(path: Path, home: Path, name: str | None, split: str) -> datasets.Dataset:
    """Return a split that `datasets` reads by the links in `home`, beside which it keeps the rows."""
    import datasets

    link, cache = home / _LINKS / _link_name(path), str(home / "cache")
    if path.is_file():
        reader, settings = _reader(path)
        by_split = dict.fromkeys(_names(split), str(link))
        builder = datasets.load_dataset_builder(reader, data_files=by_split, cache_dir=cache, **settings)
    else:
        builder = datasets.load_dataset_builder(str(link), name, cache_dir=cache)
    files = [os.path.normpath(file) for files in (builder.config.data_files or {}).values() for file in files]
    for file in files:
        if not Path(file).is_relative_to(link):
            raise _foreign(
                path, file, "`data_files` in the README of a folder may name its own files only, by relative paths"
            )
    _expect_pulled(path, [Path(file).readlink() for file in files])
    builder.download_and_prepare()
    try:
        return builder.as_dataset(split=split)
    except ValueError:
        _expect_splits(split, builder.info.splits or {})
        raise


def _expect_pulled(path: Path, files: Iterable[Path]) -> None:
    if hint := next(filter(None, map(pointer_hint, files)), None):
        raise SpecError(Mistake("$.dataset.path", f"`{path}`", "files with rows", hint))


@contextlib.contextmanager
def literal(path: Path) -> Iterator[Path]:
    """Give a link to a path, for as long as the block lasts, that `datasets` does not take for a chain of file systems,
    as it does one with `::`.
    """
    with tempfile.TemporaryDirectory(prefix="benchcard-") as folder:
        link = Path(folder) / "data"
        link.symlink_to(path.absolute())
        yield link


def _linked(path: Path, content: str) -> Path:
    """Return a folder in the cache of `datasets` for data of one content, with links to its files.

    `datasets` takes paths for patterns and for chains of file systems, and what it has cached for good where a file has
    the path and the time that it had before. The links have a path that is only that, and another one for each content;
    the rows that were read from them are cached beside them.

    Raises:
        BenchcardError: The cache itself has a path that is taken for a pattern.
        SpecError: A file inside the folder has a name that is taken for a chain of file systems.
    """
    import datasets

    cache = Path(datasets.config.HF_DATASETS_CACHE).expanduser().resolve()
    if any(mark in str(cache) for mark in _MARKS):
        raise BenchcardError(
            f"The cache of `datasets` is {cache}, which `datasets` takes for a pattern. "
            f"Set HF_DATASETS_CACHE to a path without {join_names(_MARKS)}."
        )
    home = cache / "benchcard" / digest([os.fsencode(path).hex(), content])[:32]
    links = {f"{_link_name(path)}/{file}": target for file, target in list_files(path).items()}
    links |= {f"{_link_name(path)}/{file}": path / file for file in _SETTINGS if (path / file).is_file()}
    links = {_link_name(path): path} if path.is_file() else links
    if all((home / _LINKS / file).is_symlink() for file in links):
        return home
    # Whoever cleans up old files may have taken some of them.
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=home.parent))
    try:
        for file, target in links.items():
            if "::" in file:
                raise SpecError(
                    Mistake("$.dataset.path", f"the file `{target}`", "names without `::` in a folder", "rename it")
                )
            link = part / _LINKS / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target.absolute())
        try:
            part.rename(home)
        except OSError:
            # Another process was faster, whose links are the same.
            if not home.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return home


def _link_name(path: Path) -> str:
    """Return a name for the link to a file or folder of data: of a file only the endings that tell how it is read."""
    if path.is_file():
        return "rows" + "".join(ending for ending in path.suffixes if ending.lower() in PACKED | READERS.keys())
    return "data" if any(mark in path.name for mark in _MARKS) else path.name


def _stamps(files: Iterable[Path]) -> list[tuple[int, int, int]]:
    """Return what changes of files when they are written or replaced."""
    return [(found.st_mtime_ns, found.st_size, found.st_ino) for found in map(os.stat, files)]


def _kept_outside(rows: datasets.Dataset) -> Iterator[str]:
    """Yield the files in which images and sounds lie that are not in the rows themselves."""
    import datasets
    import pyarrow.compute as pc

    for name, feature in rows.features.items():
        if isinstance(feature, (datasets.Image, datasets.Audio)):
            media = rows.data.column(name)
            paths = pc.struct_field(media, "path").filter(pc.is_null(pc.struct_field(media, "bytes")))
            # In an archive: `zip://inside::archive`.
            yield from (file.rpartition("::")[2] for file in paths.to_pylist() if file)


def _changed(path: Path) -> SpecError:
    hint = "the files changed since the run began, or are being written: run it in a new directory"
    return SpecError(Mistake("$.dataset.path", f"other content in `{path}`", "what the run has the digest of", hint))


def _foreign(path: Path, file: str, hint: str) -> SpecError:
    return SpecError(Mistake("$.dataset.path", f"the file `{file}`", f"files in `{path}`, which are digested", hint))


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

    _expect_splits(split, saved)
    if split in saved:
        return saved[split]
    parts = datasets.ReadInstruction.from_spec(split).to_absolute({name: len(rows) for name, rows in saved.items()})
    return datasets.concatenate_datasets(
        [saved[part.splitname].select(range(part.from_ or 0, _end(part.to, saved[part.splitname]))) for part in parts]
    )


def _expect_splits(split: str, known: Iterable[str]) -> None:
    for name in _names(split):
        if name not in known:
            raise SpecError(Mistake("$.dataset", f"the split `{name}`", join_names(known), did_you_mean(name, known)))


def _end(end: int | None, rows: datasets.Dataset) -> int:
    return len(rows) if end is None else end


def _reader(path: Path) -> tuple[str, dict[str, Any]]:
    """The reader of `datasets` for a file, and what it must be told.

    Raises:
        SpecError: There is none for its ending.
    """
    endings = [ending for ending in path.suffixes if ending not in PACKED]
    if not endings or endings[-1].lower() not in READERS:
        raise SpecError(
            Mistake("$.dataset.path", f"the file `{path.name}`", f"a file that ends in {join_names(READERS)}")
        )
    ending = endings[-1].lower()
    return READERS[ending], {"sep": "\t"} if ending == ".tsv" else {}


def _explained(error: Exception, location: str, name: str | None, split: str) -> Exception:
    """What `datasets` found wrong, told by place."""
    said = str(error.__cause__ or error).strip() or type(error).__name__
    # The path that was given, in place of that of the link to it.
    said = re.sub(rf"\S*/benchcard/[0-9a-f]{{32}}/{_LINKS}/[\w.-]+", lambda _: location, said)
    if "corresponds to no data" in said:
        return _empty(split)
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


def evenly_spaced(rows: datasets.Dataset, most: int | None) -> tuple[datasets.Dataset, list[int]]:
    """All rows, or as many as asked, spread evenly, so that a split sorted by class is not cut to one class.

    Returns:
        The rows, and their numbers in the split.
    """
    if most is None or most >= len(rows):
        return rows, list(range(len(rows)))
    places = (np.arange(most) * len(rows) // most).tolist()
    return rows.select(places), places


def stratified_sample(
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


def describe_rows(rows: datasets.Dataset, places: Sequence[int], split_rows: int) -> dict[str, Any]:
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
            Mistake(place, f"the column `{name}`", join_names(rows.column_names), did_you_mean(name, rows.column_names))
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


def iter_rows(rows: datasets.Dataset, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The values of some columns, row by row, read in blocks."""
    for block in rows.with_format(None).select_columns(list(columns)).iter(batch_size=READ_ROWS):
        for values in zip(*(block[name] for name in columns)):
            yield dict(zip(columns, values))
