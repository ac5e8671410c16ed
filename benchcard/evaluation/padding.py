"""Whether a model gives each item in a batch the same outputs as the item alone.

Owns the batches to test, and the tolerance. `passes` tests every model before it evaluates it, and chooses the batches
of the evaluation by the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchcard.evaluation.features import Features

if TYPE_CHECKING:
    from benchcard.tasks.protocol import Arrays, Kept

    Call = Callable[[Arrays], Arrays]
    Keep = Callable[[Arrays, Arrays], Kept]

PADDED, EQUAL_SHAPES, ALONE, RANDOM = "padded", "equal shapes", "alone", "random"
NOTES: Mapping[str, str] = MappingProxyType(
    {
        EQUAL_SHAPES: "depend on padding: a padded batch does not give what each example gives alone, so only examples "
        "of equal length were evaluated in one batch",
        ALONE: "depend on what else is in a batch, even among examples of equal length: every example was evaluated "
        "alone",
        RANDOM: "differ from call to call for the same example, which was evaluated alone: another run may give other "
        "figures",
    }
)
"""Notes on the outputs of a model, by `Probe.batches`; there is none where padded batches are right."""

TOLERANCE = 1e-3
"""The largest difference of outputs that counts as equal, as a share of their median spread over the items.

Another order of sums moves the outputs of float32 models by 1e-7 to 1e-5 of it; padding that is read moves them by 1e-2
and more. Rounding in float16 may reach 1e-3: such a model is then batched by length, which changes no result. The
spread counts and not the size, since predictions depend on how outputs differ and not on what they have in common.
Source: measured on 30 architectures of transformers 5.23 with random weights, padded on the right and on the left.
"""
# The rounding of float32 outputs as a share of their size, which matters where items hardly differ.
_ROUNDING = 1e-5
# The number of lengths, from the shortest to the longest, in the padded batches, and of items of each length.
_LENGTHS, _ITEMS_OF_LENGTH = 6, 2
# The number of items of equal shapes in a batch.
_EQUAL = 4


@dataclass(frozen=True)
class Probe:
    """How much outputs differ from those of each item alone, as multiples of the largest difference that is accepted.

    Attributes:
        padded: In batches of items of different lengths, the shorter ones before and after the longest; 0 where no
            items of different lengths may share a batch.
        equal: In batches of items of equal shapes; 0 where no two items have equal shapes.
        repeated: In a second call with the longest of these items alone.
    """

    padded: float = 0.0
    equal: float = 0.0
    repeated: float = 0.0

    @property
    def batches(self) -> str:
        """The largest batches that give what each item gives alone: `padded`, `equal shapes`, or `alone`; `random`
        where even the same item alone gives other outputs in a second call.
        """
        if self.repeated > 1:
            return RANDOM
        if self.equal > 1:
            return ALONE
        return EQUAL_SHAPES if self.padded > 1 else PADDED


def probe(call: Call, items: Features, keep: Keep, batch_size: int | None = None) -> Probe:
    """Compare a model's outputs for a few items in batches with those for each item alone.

    Quantized models are probed like any other. A statically quantized one may read padding that its float model
    ignores: the scale of an attention mask comes from calibration samples without padding, and limits the mask's large
    negative numbers to the smallest of the attention scores. `keep` returns the outputs that count, as `Task.kept`.
    """
    if not len(items):
        return Probe()
    alone: dict[int, Arrays] = {}

    def run(indices: Sequence[int]) -> list[Arrays]:
        inputs = items.stacked(np.asarray(indices))
        kept = keep(call(inputs), inputs)
        return [{name: np.asarray(values[row]) for name, values in kept.items()} for row in range(len(indices))]

    def run_batches(batches: Iterable[Sequence[int]]) -> list[tuple[int, Arrays]]:
        """Return index and outputs of each item in these batches, and add its outputs alone to `alone`."""
        outputs: list[tuple[int, Arrays]] = []
        for indices in batches:
            size = min(batch_size or len(indices), *(items.fitting(index) for index in indices))
            for start in range(0, len(indices), size):
                batch = indices[start : start + size]
                if len(batch) > 1:
                    alone.update({index: run([index])[0] for index in batch if index not in alone})
                    outputs += zip(batch, run(batch))
        return outputs

    groups = list(items.groups(padded=False))
    padded = run_batches(_padded_batches(items, groups))
    equal = run_batches(_equal_batches(groups))
    if not alone:
        return Probe()
    longest = next(int(index) for group in groups for index in group if int(index) in alone)
    limits = _limits(list(alone.values()))

    def largest(outputs: Sequence[tuple[int, Arrays]]) -> float:
        named = ((alone[index][name], kept[name], limit) for index, kept in outputs for name, limit in limits.items())
        return max((_difference(first, second) / limit for first, second, limit in named), default=0.0)

    return Probe(largest(padded), largest(equal), largest([(longest, run([longest])[0])]))


def _padded_batches(items: Features, groups: Sequence[NDArray[np.int64]]) -> Iterator[list[int]]:
    """Yield batches of items of different shapes, the shorter ones at both ends: one of all lengths, and one of the
    shorter half of them.
    """
    together = set(max(items.groups(padded=True), key=len).tolist())
    lengths = [group for group in groups if int(group[0]) in together]
    chosen = np.unique(np.linspace(0, len(lengths) - 1, _LENGTHS).round().astype(int))[::-1]
    ascending = [[int(index) for index in lengths[length][:_ITEMS_OF_LENGTH]] for length in chosen]
    for some in (ascending, ascending[: len(ascending) // 2]):
        if len(some) > 1:
            indices = [index for of_length in some for index in of_length]
            yield indices[::2] + indices[1::2][::-1]


def _equal_batches(groups: Sequence[NDArray[np.int64]]) -> list[list[int]]:
    """Return batches of items of equal shapes: of the longest shape of several items, and of the most frequent."""
    several = [group for group in groups if len(group) > 1]
    chosen = {int(group[0]): group for group in (*several[:1], *sorted(several, key=len)[-1:])}
    return [[int(index) for index in group[:_EQUAL]] for group in chosen.values()]


def _limits(alone: Sequence[Arrays]) -> dict[str, float]:
    """Return the largest difference that counts as equal, by output name, from the outputs of each item alone.

    Ids that are kept beside numbers are left out: they follow from these, and change places where two are almost equal.
    """
    limits = {}
    floats = [name for name in alone[0] if alone[0][name].dtype.kind == "f"]
    for name in floats or alone[0]:
        values = [np.nan_to_num(kept[name].astype(np.float64), posinf=0.0, neginf=0.0) for kept in alone]
        joined = np.concatenate([array.ravel() for array in values])
        is_one_shape = len({array.shape for array in values}) == 1
        centered = np.stack(values) - np.median(values, axis=0) if is_one_shape else joined - np.median(joined)
        spread, size = _quantile(centered, 0.5), _quantile(joined, 0.25)
        limits[name] = max(TOLERANCE * spread, _ROUNDING * size, np.finfo(float).tiny)
    return limits


def _quantile(values: NDArray[np.float64], share: float) -> float:
    """Return a quantile of the absolute nonzero values; stand-ins for infinity such as -1e30 hardly change it."""
    sizes = np.abs(values[values != 0])
    return float(np.quantile(sizes, share, method="lower")) if sizes.size else 0.0


def _difference(alone: np.ndarray, batched: np.ndarray) -> float:
    """Return the largest difference; infinity where only one number is finite, where shapes differ, and for unequal
    arrays of ids or booleans, which are equal or not.
    """
    if alone.dtype.kind != "f" or alone.shape != batched.shape:
        return 0.0 if np.array_equal(alone, batched) else math.inf
    first, second = alone.astype(np.float64), batched.astype(np.float64)
    unequal = ~((first == second) | (np.isnan(first) & np.isnan(second)))
    differences = np.abs(first[unequal] - second[unequal])
    return float(np.where(np.isnan(differences), math.inf, differences).max(initial=0.0))
