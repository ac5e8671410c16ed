"""Prepared inputs on disk: items of any shape, read back in batches, in bounded memory.

An item is one forward call's share of inputs, without a batch axis. Each array's items lie one after the other in one
file, with their shapes beside them, so that a thousand images or a thousand sentences of different lengths are read
without unpacking more than a batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# A batch holds at most this many items, and at most this many numbers in its largest input: 64 MB of float32.
BATCH_ITEMS = 32
BATCH_NUMBERS = 1 << 24


def write_features(
    items: Iterable[Mapping[str, NDArray[Any]]],
    folder: Path,
    pad: Mapping[str, float],
    padding_side: str = "right",
    beside: Iterable[str] = (),
) -> int:
    """The number of items, which now lie in `folder`.

    Args:
        items: For each item its arrays by name, without a batch axis; every item has the same names.
        folder: An existing folder.
        pad: The value that fills up shorter items in a batch, by input name; other inputs are never filled up.
        padding_side: The end of the axes at which it fills up: `right` or `left`.
        beside: Names of arrays that are no inputs of the model, and come in no batch.
    """
    files: dict[str, BinaryIO] = {}
    shapes: dict[str, list[tuple[int, ...]]] = {}
    types: dict[str, str] = {}
    count = 0
    try:
        for item in items:
            for name, array in item.items():
                if name not in files:
                    files[name] = (folder / f"{name}.bin").open("wb")
                    shapes[name], types[name] = [], array.dtype.str
                files[name].write(np.ascontiguousarray(array).tobytes())
                shapes[name].append(array.shape)
            count += 1
    finally:
        for file in files.values():
            file.close()
    for name, each in shapes.items():
        np.save(folder / f"{name}.shapes.npy", np.asarray(each, dtype=np.int64).reshape(count, -1))
    told = {"count": count, "types": types, "pad": dict(pad), "padding_side": padding_side, "beside": sorted(beside)}
    (folder / "features.json").write_text(json.dumps(told), encoding="utf-8")
    return count


class Features:
    """Items that `write` laid down, opened for reading."""

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        self._pad: dict[str, float] = told["pad"]
        self._left: bool = told["padding_side"] == "left"
        self._count: int = told["count"]
        self._beside = [name for name in told["types"] if name in told["beside"]]
        self._inputs = [name for name in told["types"] if name not in told["beside"]]
        self._shapes: dict[str, NDArray[np.int64]] = {
            name: np.load(folder / f"{name}.shapes.npy") for name in told["types"]
        }
        sizes = {name: shapes.prod(axis=1) for name, shapes in self._shapes.items()}
        self._starts = {name: np.concatenate([[0], np.cumsum(size)]) for name, size in sizes.items()}
        self._numbers = {
            name: np.memmap(folder / f"{name}.bin", dtype=np.dtype(kind), mode="r")
            if sizes[name].sum()
            else np.empty(0, np.dtype(kind))
            for name, kind in told["types"].items()
        }
        self._largest = (
            np.max([sizes[name] for name in self._inputs], axis=0) if self._inputs else np.empty(0, np.int64)
        )
        # What must be equal within a batch: the shapes of inputs that are never filled up.
        self._alike = self._joined([name for name in self._inputs if name not in self._pad])

    def _joined(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The shapes of these inputs side by side, `(items, sizes)`."""
        shapes = [self._shapes[name] for name in names]
        return np.concatenate(shapes, axis=1) if shapes else np.empty((self._count, 0), np.int64)

    def __len__(self) -> int:
        return self._count

    def item(self, index: int) -> dict[str, NDArray[Any]]:
        """The inputs of one item, without a batch axis."""
        return {name: self._piece(name, index) for name in self._inputs}

    def beside(self, index: int) -> dict[str, NDArray[Any]]:
        """What is kept with one item and is no input."""
        return {name: self._piece(name, index) for name in self._beside}

    def batches(
        self, batch_size: int | None = None, *, padded: bool = True
    ) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]:
        """Batches of items of like size, longest first: their places in the data, and their arrays with a batch axis,
        shorter items filled up.

        The longest come first, so that a batch that is too large for the machine shows at once. Inputs that may not be
        filled up have one shape in a batch, so that batches may be smaller than asked.

        Args:
            batch_size: Items in a batch; None for what fits.
            padded: Whether shorter items are filled up; otherwise all items of a batch have equal shapes.
        """
        for group in self.groups(padded=padded):
            start = 0
            while start < len(group):
                places = group[start : start + (batch_size or self.fitting(int(group[start])))]
                yield places, self.stacked(places)
                start += len(places)

    def groups(self, *, padded: bool) -> Iterator[NDArray[np.int64]]:
        """The places of items that may share a batch, the largest items first.

        Args:
            padded: As for `batches`.
        """
        alike = self._alike if padded else self._joined(self._inputs)
        order = np.lexsort((*alike.T, -self._largest)).astype(np.int64)
        ends = np.flatnonzero((alike[order][1:] != alike[order][:-1]).any(axis=1)) + 1
        yield from np.split(order, ends) if len(order) else ()

    def fitting(self, place: int) -> int:
        """How many items fit into a batch of items as large as this one."""
        return max(1, min(BATCH_ITEMS, BATCH_NUMBERS // max(1, int(self._largest[place]))))

    def _piece(self, name: str, index: int) -> NDArray[Any]:
        start, end = self._starts[name][index], self._starts[name][index + 1]
        return np.asarray(self._numbers[name][start:end]).reshape(self._shapes[name][index])

    def stacked(self, places: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """The inputs of the items at these places, with a batch axis, shorter items filled up."""
        stacked = {}
        for name in self._inputs:
            shapes = self._shapes[name][places]
            whole = shapes.max(axis=0)
            batch = np.full((len(places), *whole), self._pad.get(name, 0), dtype=self._numbers[name].dtype)
            for index, place in enumerate(places):
                starts = whole - shapes[index] if self._left else np.zeros_like(whole)
                part = tuple(slice(int(start), int(start + length)) for start, length in zip(starts, shapes[index]))
                batch[index][part] = self._piece(name, int(place))
            stacked[name] = batch
        return stacked
