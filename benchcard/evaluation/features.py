"""Prepared inputs on disk: items of any shape, read back in batches, in bounded memory.

An item is the inputs of one sample in a forward call, without a batch axis. The arrays of one name lie one after the
other in one file, with their shapes in a second one, so that only a batch is read into memory at a time.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from benchcard.tasks.protocol import Arrays

    Names = Iterable[str]

# A batch has at most this many items, and at most this many numbers in its largest input, or in its outputs: 64 MB of
# float32.
BATCH_ITEMS = 32
BATCH_NUMBERS = 1 << 24


@dataclass(frozen=True)
class _Description:
    """The content of `features.json`: arguments of `write_features`, number of items, and dtypes of arrays."""

    count: int
    types: Mapping[str, str]
    pad: Mapping[str, float]
    padding_side: str
    beside: Sequence[str]
    outputs_per_number: int = 1


def write_features(
    items: Iterable[Arrays],
    folder: Path,
    pad: Mapping[str, float],
    padding_side: str = "right",
    beside: Names = (),
    outputs_per_number: int = 1,
) -> int:
    """Write items, all with arrays of the same names, to an existing folder, and return their number.

    `pad` and what follows are those of `Prepared`.
    """
    files: dict[str, BinaryIO] = {}
    shapes: dict[str, list[tuple[int, ...]]] = {}
    types: dict[str, str] = {}
    count = 0
    with ExitStack() as stack:
        for item in items:
            for name, array in item.items():
                if name not in files:
                    files[name] = stack.enter_context((folder / f"{name}.bin").open("wb"))
                    shapes[name], types[name] = [], array.dtype.str
                files[name].write(array.tobytes())
                shapes[name].append(array.shape)
            count += 1
    for name, of_items in shapes.items():
        np.save(folder / f"{name}.shapes.npy", np.asarray(of_items, dtype=np.int64).reshape(count, -1))
    description = _Description(count, types, dict(pad), padding_side, sorted(beside), outputs_per_number)
    (folder / "features.json").write_text(json.dumps(vars(description)), encoding="utf-8")
    return count


class Features:
    """The items that `write_features` wrote, opened for reading."""

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        self._description = msgspec.convert(content, _Description)
        types, beside = self._description.types, self._description.beside
        self._inputs = [name for name in types if name not in beside]
        self._shapes: dict[str, NDArray[np.int64]] = {name: np.load(folder / f"{name}.shapes.npy") for name in types}
        sizes = {name: shapes.prod(axis=1) for name, shapes in self._shapes.items()}
        self._starts = {name: np.concatenate([[0], np.cumsum(size)]) for name, size in sizes.items()}
        self._numbers: dict[str, np.ndarray] = {
            name: np.memmap(folder / f"{name}.bin", dtype=np.dtype(dtype), mode="r")
            if sizes[name].sum()
            else np.empty(0, np.dtype(dtype))
            for name, dtype in types.items()
        }
        self._largest = np.max([sizes[name] for name in self._inputs], axis=0) if self._inputs else np.empty(0, int)
        self._length = 0

    def __len__(self) -> int:
        return self._description.count

    def padded_to(self, length: int | None) -> Features:
        """Return the same items, whose inputs have at least this length in every batch where they can be padded."""
        padded = copy.copy(self)
        padded._length = length or 0
        return padded

    def item(self, index: int) -> dict[str, np.ndarray]:
        """Return the inputs of one item, without a batch axis."""
        return {name: self._array(name, index) for name in self._inputs}

    def beside(self, index: int) -> dict[str, np.ndarray]:
        """Return the arrays of one item that are no inputs."""
        return {name: self._array(name, index) for name in self._shapes if name not in self._inputs}

    def batches(
        self, batch_size: int | None = None, *, padded: bool = True
    ) -> Iterator[tuple[NDArray[np.int64], dict[str, np.ndarray]]]:
        """Yield batches: the indices of their items, and their inputs with a batch axis.

        Items of similar size share a batch. The largest come first, so that a batch that is too large for the machine
        fails at once. Without a `batch_size`, a batch has as many items as fit. Inputs that are never padded (all
        inputs unless `padded`) have equal shapes in a batch, which may therefore be smaller than `batch_size`.
        """
        for group in self.groups(padded=padded):
            start = 0
            while start < len(group):
                indices = group[start : start + (batch_size or self.fitting(int(group[start])))]
                yield indices, self.stacked(indices)
                start += len(indices)

    def groups(self, *, padded: bool) -> Iterator[NDArray[np.int64]]:
        """Yield the indices of items that may share a batch, the largest items first; `padded` as in `batches`."""
        names = [name for name in self._inputs if not padded or name not in self._description.pad]
        fixed = np.concatenate([np.empty((len(self), 0), int), *(self._shapes[name] for name in names)], axis=1)
        order = np.lexsort((*fixed.T, -self._largest)).astype(np.int64)
        ends = np.flatnonzero((fixed[order][1:] != fixed[order][:-1]).any(axis=1)) + 1
        yield from np.split(order, ends) if len(order) else ()

    def fitting(self, index: int) -> int:
        """Return how many items of the size of item `index` fit into a batch."""
        numbers = int(self._largest[index]) * self._description.outputs_per_number
        return max(1, min(BATCH_ITEMS, BATCH_NUMBERS // max(1, numbers)))

    def stacked(self, indices: NDArray[np.int64]) -> dict[str, np.ndarray]:
        """Return the inputs of these items with a batch axis, shorter items padded."""
        batches = {}
        pads_left = self._description.padding_side == "left"
        for name in self._inputs:
            shapes = self._shapes[name][indices]
            largest = shapes.max(axis=0)
            if name in self._description.pad:
                largest[:1] = np.maximum(largest[:1], self._length)
            pad = self._description.pad.get(name, 0)
            batches[name] = np.full((len(indices), *largest), pad, dtype=self._numbers[name].dtype)
            for row, index, shape in zip(batches[name], indices, shapes):
                starts = largest - shape if pads_left else np.zeros_like(largest)
                row[tuple(map(slice, starts, starts + shape))] = self._array(name, int(index))
        return batches

    def _array(self, name: str, index: int) -> np.ndarray:
        start, end = self._starts[name][index], self._starts[name][index + 1]
        return np.asarray(self._numbers[name][start:end]).reshape(self._shapes[name][index])
