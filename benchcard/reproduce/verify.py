"""Verdicts on the figures of a card: whether a run of the same configurations here reproduces each of them.

This module owns the verdicts. Reading the card is left to `source` and `results`, running its spec to the caller.

- A figure of quality is **reproduced** if it is the same to the digits of the card, else **different**; or, if the
  processor or versions differ or are unknown, **not comparable**, since int8 products may differ there.
- A figure of time is **not comparable** if the processor or versions differ. Otherwise it is **reproduced** if the
  intervals overlap, each widened by the factor by which the baseline differed from itself, and that of the card by the
  rounding of its digits. If they do not overlap, a ratio to the baseline is **different**, and any other figure not
  comparable: milliseconds also depend on the state of the machine that day. Where a card shows intervals at a shape, a
  figure without one is too precise for its digits to show one; where it shows none, no figure is comparable.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from benchcard.analysis import public_names
from benchcard.analysis.frames.columns import column, is_known
from benchcard.analysis.frames.noise import certificates
from benchcard.analysis.run_results import RunResults
from benchcard.card.facts import LATENCY_MEAN, OTHERS, THROUGHPUT, Row
from benchcard.card.layouts.classic import QUALITY_DECIMALS
from benchcard.card.layouts.figures import column_decimals
from benchcard.card.layouts.full_tables import RATIO, decimals_rule
from benchcard.errors import CardError
from benchcard.reproduce.source import PublishedCard
from benchcard.utils.plain import as_plain, canonical_json, plain
from benchcard.utils.values import Interval, Shape

if TYPE_CHECKING:
    import pandas as pd

REPRODUCED, DIFFERENT, NOT_COMPARABLE = "reproduced", "different", "not comparable"
_VALUES = tuple(f"{where}{bound}" for where in ("published", "here") for bound in ("", "_low", "_high"))
COLUMNS = ("row", "figure", *_VALUES, "verdict", "why")
# An interval whose upper bound is more than this many times the lower one overlaps with nearly everything.
_TOO_WIDE = 1.5
_PROCESSOR = ("processor", "architecture", "instructions", "physical_cores", "usable_cores")
# The libraries whose versions change figures.
_LIBRARIES = ("onnxruntime", "torch", "onnx", "transformers", "datasets", "evaluate", "scikit-learn", "numpy")

_Cells: TypeAlias = Mapping[Any, Any]
"""A row of a frame, by column."""
_Verdict: TypeAlias = tuple[str, str]
"""A verdict and its reason; the reason is empty for figures that are reproduced without remark."""


@dataclass(frozen=True)
class Verification:
    """The verdicts on a card.

    Attributes:
        frame: One row per figure: `row` of the card, `figure`, `published` and `here` with their bounds, `verdict`
            (reproduced, different or not comparable) and `why`.
        ground: The differences between this machine and these versions and those of the card, a sentence each.
    """

    frame: pd.DataFrame
    ground: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """The number of figures with each verdict."""
        return {name: int((self.frame["verdict"] == name).sum()) for name in (REPRODUCED, DIFFERENT, NOT_COMPARABLE)}

    @property
    def status(self) -> int:
        """The exit status: 1 where something is different, else 0 where something is reproduced, else 3."""
        counts = self.counts
        return 1 if counts[DIFFERENT] else 0 if counts[REPRODUCED] else 3

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>{self.frame.to_html(index=False, na_rep='', escape=True)}"


def verify(card: PublishedCard, results: RunResults) -> Verification:
    """Return the verdict on every figure of a card, from the results of the same configurations here.

    Raises:
        CardError: The results have none of its configurations.
    """
    import pandas as pd

    verifier = _Verifier(card, results)
    rows = list(verifier.rows())
    if not rows:
        raise CardError("the results have none of the card's configurations")
    frame = pd.DataFrame({name: column(list(values)) for name, values in zip(COLUMNS, zip(*rows))})
    return Verification(frame, verifier.ground)


class _Verifier:
    def __init__(self, card: PublishedCard, results: RunResults) -> None:
        self.facts, self.results = card.facts, results
        self.ground = tuple(_ground(card, results))
        published = (
            bound for noise in (card.run.noise if card.run else ()) for bound in (noise.ratio_low, noise.ratio_high)
        )
        here = (_number(bound) for name in ("ratio_low", "ratio_high") for bound in results.noise[name])
        # The largest factor between the baseline and itself: 1 where they were equal.
        self.noise = max((max(bound, 1 / bound) for bound in (*published, *here) if bound), default=1.0)
        disturbances = (each for certificate in certificates(results.records) for each in certificate.disturbances)
        disturbed = any(disturbance.kind == OTHERS for disturbance in disturbances)
        self.disturbed = "; other work used the processors while this was timed here" if disturbed else ""
        self.quality = {int(cells["row"]): cells for cells in results.quality.to_dict("records")}
        self.time = {(int(cells["row"]), _shape(cells)): cells for cells in results.time.to_dict("records")}
        self.decimals = {
            metric.name: max([QUALITY_DECIMALS, *(_decimals(row.metrics.get(metric.name)) for row in self.facts.rows)])
            for metric in self.facts.metrics
        }

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield the cells of `COLUMNS` for each figure."""
        rows_here = self._rows_by_parameters()
        for index, row in enumerate(self.facts.rows):
            here = rows_here.get(canonical_json(plain(dict(row.parameters))))
            if here is None:
                continue
            yield from self._figures(index, row, here)
            baseline = self.results.plan[here].baseline
            if row.original is not None and baseline is not None:
                original = Row(parameters={}, metrics=row.original.metrics, times=row.original.times)
                yield from self._figures(index, original, baseline, "original ")

    def _rows_by_parameters(self) -> dict[str, int]:
        """Return the rows of the run by their parameters as the card has them."""
        names = list(self.facts.benchmarked)
        # Each row of a card with originals is a quantized model beside its original.
        only_quantized = "apply_quantization" not in names and any(row.original for row in self.facts.rows)
        rows: dict[str, int] = {}
        for configuration in self.results.plan:
            if only_quantized and not configuration.quantized:
                continue
            axes = {
                name: public_names.public_parameter(self.results.records, name, value)
                for name, value in configuration.axes.items()
            }
            axes.setdefault("framework", configuration["framework"])
            rows.setdefault(canonical_json(plain({name: axes.get(name) for name in names})), configuration.row)
        return rows

    def _figures(self, index: int, row: Row, row_here: int, prefix: str = "") -> Iterator[tuple[object, ...]]:
        cells = self.quality[row_here]
        for name in (metric.name for metric in self.facts.metrics):
            published, here = row.metrics.get(name), _interval_here(cells, name)
            if published is None or here is None:
                verdict = self._missing(published, here, row, cells)
            else:
                verdict = self._quality(name, published, here)
            yield (index, f"{prefix}{name}", *_bounds(published), *_bounds(here), *verdict)
        for shape, figures in row.times.items():
            # Images have no length, though older cards show one.
            cells = self.time.get((row_here, shape)) or self.time.get((row_here, Shape(shape.batch_size)), {})
            for name in figures:
                if f"{name}_low" not in cells and not (cells and name == THROUGHPUT):
                    continue
                published, here = figures[name], _interval_here(cells, name)
                if name == THROUGHPUT:
                    published = _throughput(published, figures.get(LATENCY_MEAN), shape)
                    here = _throughput(here, _interval_here(cells, LATENCY_MEAN), shape)
                if published is None or here is None:
                    verdict = self._missing(published, here, row, cells)
                else:
                    verdict = self._time(name, shape, published, here)
                yield (index, f"{prefix}{name}, {shape}", *_bounds(published), *_bounds(here), *verdict)

    def _missing(self, published: Interval | None, here: Interval | None, row: Row, cells: _Cells) -> _Verdict:
        reason = str(cells["failure"]) if is_known(cells.get("failure")) else "no figure"
        if published is None and here is None:
            return REPRODUCED, f"neither has it: {reason}"
        if published is not None:
            return self._unequal(f"it failed here: {reason}")
        return self._unequal(f"it failed there ({row.failure})") if row.failure else (NOT_COMPARABLE, "not on the card")

    def _quality(self, name: str, published: Interval, here: Interval) -> _Verdict:
        difference = abs(here.value - published.value)
        if difference <= 0.500001 * 10 ** -self.decimals[name]:
            return REPRODUCED, ""
        return self._unequal(f"they differ by {difference:.{self.decimals[name]}f}")

    def _time(self, name: str, shape: Shape, published: Interval, here: Interval) -> _Verdict:
        if self.ground:
            return NOT_COMPARABLE, "; ".join(self.ground)
        if published.value == here.value:
            # As the ratio of the baseline to itself, which has no interval.
            return REPRODUCED, ""
        low, high = published.low, published.high
        if low is None and self._shows_intervals(shape):
            low = high = published.value
        if low is None or high is None or here.low is None or here.high is None:
            return NOT_COMPARABLE, "one of them has no interval"
        # Half a unit of the last digit in the card's column.
        figures = [row.times.get(shape, {}).get(name) for row in self.facts.rows]
        rounding = 0.5 * 10.0 ** -column_decimals(figures, decimals_rule(name))
        if low - rounding <= here.high * self.noise**2 and here.low <= (high + rounding) * self.noise**2:
            printed = 0.5 * 10.0 ** -_decimals(published)
            differs = abs(published.value - here.value) > 1.000001 * max(rounding, printed)
            if differs and here.high > _TOO_WIDE * here.low:
                return NOT_COMPARABLE, "too imprecise here to agree or not: give it a longer `duration`"
            return REPRODUCED, ""
        reason = f"the intervals do not overlap, even with the noise of both runs{self.disturbed}"
        if name == RATIO:
            return DIFFERENT, reason
        return NOT_COMPARABLE, f"{reason}; the machine of another day may be the reason: see the ratios"

    def _shows_intervals(self, shape: Shape) -> bool:
        figures = [figure for row in self.facts.rows for figure in row.times.get(shape, {}).values()]
        figures += [noise.ratio for noise in self.facts.noise if noise.shape == shape]
        return any(figure is not None and figure.low is not None for figure in figures)

    def _unequal(self, reason: str) -> _Verdict:
        return (NOT_COMPARABLE, f"{reason}; {'; '.join(self.ground)}") if self.ground else (DIFFERENT, reason)


def _ground(card: PublishedCard, results: RunResults) -> Iterator[str]:
    """Yield the differences in machine, versions, models and data between a card and a run, a sentence each."""
    there, here = card.facts.environment, results.records.info
    machine = as_plain(here.machine)
    differing = [name for name in _PROCESSOR if name in there and there[name] != machine.get(name)]
    if not there.get("processor"):
        yield "the card does not say on which processor"
    elif "processor" in differing:
        yield f"another CPU: {there['processor']}, here {here.machine.processor}"
    elif differing:
        yield f"another machine: {', '.join(name.replace('_', ' ') for name in differing)} differ"
    versions = there.get("versions") or {}
    if not versions:
        yield "the card does not say with which versions"
    changed = [
        f"{name} {versions[name]}, here {here.versions[name]}"
        for name in _LIBRARIES
        if name in versions and name in here.versions and versions[name] != here.versions[name]
    ]
    if changed:
        yield f"other versions: {', '.join(changed)}"
    if card.run is None:
        return
    for part, word, published, sources in (
        ("models", "model", card.run.sources.models, here.sources.models),
        ("datasets", "data set", card.run.sources.datasets, here.sources.datasets),
    ):
        digests = {source.name: source.digest for source in published}
        for source in sources.values():
            digest = digests.get(public_names.public_name(results.records, part, source.name))
            if digest is not None and digest != source.digest:
                yield f"another content or revision of the {word} {source.name}"


def _interval_here(cells: _Cells, name: str) -> Interval | None:
    value = _number(cells.get(name))
    if value is None:
        return None
    return Interval(value, _number(cells.get(f"{name}_low")), _number(cells.get(f"{name}_high")))


def _throughput(interval: Interval | None, latency_ms: Interval | None, shape: Shape) -> Interval | None:
    """Return a throughput; without bounds of its own it has those of the latency that it follows from."""
    if interval is None or interval.low is not None or latency_ms is None:
        return interval
    if latency_ms.low is None or latency_ms.high is None:
        return interval
    samples_ms = 1000 * shape.batch_size
    low = samples_ms / latency_ms.high if latency_ms.high > 0 else 0.0
    return Interval(interval.value, low, samples_ms / latency_ms.low if latency_ms.low > 0 else math.inf)


def _bounds(interval: Interval | None) -> tuple[float | None, float | None, float | None]:
    return (interval.value, interval.low, interval.high) if interval else (None, None, None)


def _number(value: Any) -> float | None:
    return float(value) if is_known(value) else None


def _shape(cells: _Cells) -> Shape:
    length = _number(cells["input_length"])
    return Shape(int(cells["batch_size"]), None if length is None else int(length))


def _decimals(figure: Interval | None) -> int:
    return len(repr(figure.value).partition(".")[2]) if figure is not None and "e" not in repr(figure.value) else 0
