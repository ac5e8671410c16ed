"""Whether a batch of items gives a model's outputs for each item alone.

Owns the question, which batches and items it is asked with, and the tolerance. `passes` asks it of every model before
it evaluates it, and batches items accordingly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchcard.evaluation.features import Features

Arrays = Mapping[str, NDArray[Any]]
Call = Callable[[Arrays], Arrays]
Kept = Callable[[Arrays, Arrays], Mapping[str, Sequence[NDArray[Any]]]]

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
"""What to tell a reader of the outputs of a model, by `Probe.batches`; nothing where padded batches are right."""

TOLERANCE = 1e-3
"""The largest difference that counts as none, as a share of the median spread of the outputs over the items.

Sums in another order move the outputs of float32 models by 1e-7 to 1e-5 of it, padding that is read by 1e-2 and more.
In float16 rounding may come to 1e-3: such a model is then batched by length, which changes no result. The spread counts
and not the size: predictions follow from how outputs differ, not from what they have in common. Source: measured on 30
architectures of transformers 5.23 with random weights, padded on the right and on the left.
"""
# Outputs that hardly differ from item to item are still rounded: float32 numbers by this share of their size.
_ROUNDING = 1e-5
# So many lengths, from the shortest to the longest, and so many items of each are padded to one another.
_LENGTHS, _EACH = 6, 2
# So many items of equal shapes share a batch.
_EQUAL = 4


@dataclass(frozen=True)
class Probe:
    """How much outputs differ from those of each item alone, in units of what counts as no difference.

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
        where not even the same item alone gives the same twice.
        """
        if self.repeated > 1:
            return RANDOM
        if self.equal > 1:
            return ALONE
        return EQUAL_SHAPES if self.padded > 1 else PADDED


def probe(call: Call, items: Features, kept: Kept, batch_size: int | None = None) -> Probe:
    """Compare a model's outputs for a few items in batches with those for each item alone.

    Quantized models are asked like any other. A statically quantized one may read padding that its float model ignores:
    the scale of an attention mask is taken from calibration samples that have no padding, and cuts the mask's large
    negative numbers to the smallest of the attention scores.

    Args:
        call: The model: outputs by name for inputs by name, both with a batch axis.
        items: The prepared items.
        kept: What of the outputs for these inputs counts, by name one array an item, without what stands at padding.
        batch_size: The most items in a batch; None for as many as the items themselves allow.
    """
    if not len(items):
        return Probe()
    alone: dict[int, dict[str, NDArray[Any]]] = {}

    def run(places: Sequence[int]) -> list[dict[str, NDArray[Any]]]:
        inputs = items.stacked(np.asarray(places))
        each = {name: list(values) for name, values in kept(call(inputs), inputs).items()}
        return [{name: np.asarray(values[index]) for name, values in each.items()} for index in range(len(places))]

    groups = list(items.groups(padded=False))
    padded, equal = list(_padded(items, groups)), _equal(groups)
    pairs: list[list[tuple[int, dict[str, NDArray[Any]]]]] = []
    for batches in (padded, equal):
        results: list[tuple[int, dict[str, NDArray[Any]]]] = []
        for places in batches:
            size = min(batch_size or len(places), *(items.fitting(place) for place in places))
            for start in range(0, len(places), size):
                batch = places[start : start + size]
                if len(batch) > 1:
                    alone |= {place: run([place])[0] for place in batch if place not in alone}
                    results += zip(batch, run(batch))
        pairs.append(results)
    if not alone:
        return Probe()
    again = next(int(place) for group in groups for place in group if int(place) in alone)
    pairs.append([(again, run([again])[0])])
    limits = _limits(list(alone.values()))

    def largest(found: Sequence[tuple[int, Arrays]]) -> float:
        shares = (
            _difference(alone[place][name], each[name]) / limits[name] for place, each in found for name in limits
        )
        return max(shares, default=0.0)

    return Probe(*map(largest, pairs))


def _padded(items: Features, groups: Sequence[NDArray[np.int64]]) -> Iterator[list[int]]:
    """Batches of items of different shapes, those at the ends shorter than those in the middle: of all lengths, and of
    the shorter ones alone.
    """
    together = set(max(items.groups(padded=True), key=len).tolist())
    lengths = [group for group in groups if int(group[0]) in together]
    chosen = np.unique(np.linspace(0, len(lengths) - 1, _LENGTHS).round().astype(int))[::-1]
    ascending = [[int(place) for place in lengths[index][:_EACH]] for index in chosen]
    for some in (ascending, ascending[: len(ascending) // 2]):
        if len(some) > 1:
            places = [place for each in some for place in each]
            yield places[::2] + places[1::2][::-1]


def _equal(groups: Sequence[NDArray[np.int64]]) -> list[list[int]]:
    """Batches of items of equal shapes: of the longest that there are several of, and of the most frequent shape."""
    several = [group for group in groups if len(group) > 1]
    chosen = {int(group[0]): group for group in (*several[:1], *sorted(several, key=len)[-1:])}
    return [[int(place) for place in group[:_EQUAL]] for group in chosen.values()]


def _limits(alone: Sequence[Arrays]) -> dict[str, float]:
    """The largest difference that counts as none, by name of what is kept of each item alone."""
    limits = {}
    for name in alone[0]:
        values = [np.nan_to_num(each[name].astype(np.float64), posinf=0.0, neginf=0.0) for each in alone]
        joined = np.concatenate([each.ravel() for each in values])
        is_one_shape = len({each.shape for each in values}) == 1
        centered = np.stack(values) - np.median(values, axis=0) if is_one_shape else joined - np.median(joined)
        spread, size = _quantile(centered, 0.5), _quantile(joined, 0.25)
        limits[name] = max(TOLERANCE * spread, _ROUNDING * size, np.finfo(float).tiny)
    return limits


def _quantile(values: NDArray[np.float64], share: float) -> float:
    """A quantile of the sizes of numbers other than 0: those that stand for infinity, as -1e30 does, do not move it."""
    sizes = np.abs(values[values != 0])
    return float(np.quantile(sizes, share, method="lower")) if sizes.size else 0.0


def _difference(alone: NDArray[Any], found: NDArray[Any]) -> float:
    """The largest difference; infinite where one number is finite and the other is not, where shapes differ, and where
    there are other than floating-point numbers: of two ids or truth values none is near the other.
    """
    if alone.dtype.kind != "f" or alone.shape != found.shape:
        return 0.0 if np.array_equal(alone, found) else math.inf
    one, other = alone.astype(np.float64), found.astype(np.float64)
    unequal = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    differences = np.abs(one[unequal] - other[unequal])
    return float(np.where(np.isnan(differences), math.inf, differences).max(initial=0.0))
