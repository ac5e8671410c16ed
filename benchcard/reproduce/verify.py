"""Verdicts on the figures of a card: whether a run of the same configurations here reproduces each of them.

- A figure of quality is **reproduced** if it is the same to the digits of the card, else **different**; or, if the
  processor or versions differ or are unknown, **not comparable**, since int8 products may differ there. So are figures
  of other examples. A run of another task, model or data set is refused.
- A figure of fidelity is judged likewise, and may differ by 1 % of its distance from perfect fidelity, since the order
  in which floats are added depends on the number of threads.
- A figure of time is **not comparable** if the processor or versions differ. Otherwise it is **reproduced** if the
  intervals overlap, each widened by the factor by which the baseline differed from itself, and that of the card by the
  rounding of its digits. If they do not overlap, a ratio to the baseline is **different**, and any other figure not
  comparable: milliseconds also depend on the state of the machine that day. Where a card shows intervals at a shape, a
  figure without one is too precise for its digits to show one; where it shows none, no figure is comparable.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from benchcard.analysis import public_names
from benchcard.analysis.frames.columns import frame_of, is_known, to_records, with_bounds
from benchcard.analysis.frames.noise import certificates
from benchcard.analysis.run_results import RunResults
from benchcard.card.facts import LATENCY_MEAN, OTHERS, THROUGHPUT, Facts, Measured, Row, figure
from benchcard.card.layouts.classic import QUALITY_DECIMALS
from benchcard.card.layouts.figures import column_decimals, quality_decimals
from benchcard.card.layouts.full_tables import RATIO, decimals_rule, format_comparison
from benchcard.errors import CardError
from benchcard.metrics.info import COMPARISONS
from benchcard.reproduce import spec as card_spec
from benchcard.reproduce.source import PublishedCard
from benchcard.run.directory import RunInfo
from benchcard.sources.resolve import RENAMED, Source
from benchcard.spec.parameters import BACKEND_ARGUMENTS, split_name
from benchcard.utils.plain import as_plain, canonical_json, plain
from benchcard.utils.text import format_value, quote_names
from benchcard.utils.values import Failure, Interval, Shape

if TYPE_CHECKING:
    import pandas as pd

REPRODUCED, DIFFERENT, NOT_COMPARABLE = "reproduced", "different", "not comparable"
COLUMNS = ("row", "figure", *with_bounds("published"), *with_bounds("here"), "verdict", "why")
# An interval whose upper bound is more than this many times the lower one overlaps with nearly everything.
_TOO_WIDE = 1.5
# How much of the distance from perfect fidelity two runs may differ by, and where that is, for units of real numbers.
_ROUNDING = 0.01
_PERFECT = {"nats": 0.0, "error": 0.0, "coefficient": 1.0}
# Figures that follow from processor time and the price.
_FOLLOWING = ("core_seconds_per_1000", "cost_per_million")
_PROCESSOR = ("processor", "architecture", "instructions", "physical_cores", "usable_cores", "quota_cpus")
# The libraries whose versions change figures.
_RUNTIMES = ("onnxruntime", "torch", "openvino", "nncf")
_LIBRARIES = (*_RUNTIMES, "onnx", "transformers", "datasets", "evaluate", "scikit-learn", "numpy")

_EXPECTED_RUN = (
    "Expected a run of the card's own benchmark: `benchcard verify CARD` runs it, and its options `--model` and "
    "`--dataset` say where model and data are now"
)

# A row of a frame by column, and a verdict with its reason.
_Cells: TypeAlias = Mapping[Any, Any]
_Verdict: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Verification:
    """The verdicts on a card.

    `frame` has one row per figure: `row` of the card, `figure`, `published` and `here` with their bounds, `verdict`
    (reproduced, different or not comparable) and `why`. `ground` are the differences between this machine and these
    versions and those of the card, a sentence each.
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

    def to_json(self) -> dict[str, object]:
        """Return `figures`, the rows of the frame, `counts`, `status` and the `conditions` of `ground`: plain data."""
        return {
            "figures": to_records(self.frame),
            "counts": self.counts,
            "status": self.status,
            "conditions": list(self.ground),
        }

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>{self.frame.to_html(index=False, na_rep='', escape=True)}"


def verify(card: PublishedCard, results: RunResults, given: Collection[str] = ()) -> Verification:
    """Return the verdict on every figure of a card, from the results of the same configurations here.

    `given` are names of models and data of the run that the user says are those of the card.

    Raises:
        CardError: The run is of another task, model or data, or has none of the card's configurations.
    """
    if card.facts.task != results.spec.task:
        raise _other_benchmark("task", [card.facts.task], [results.spec.task])
    verifier = _Verifier(card, results, given)
    rows = list(verifier.rows())
    if not rows:
        names = quote_names(card.facts.benchmarked)
        raise CardError(f"{results.path} has none of the card's configurations of {names}. {_EXPECTED_RUN}")
    frame = frame_of([dict(zip(COLUMNS, row)) for row in rows], COLUMNS)
    return Verification(frame, (*dict.fromkeys(verifier.grounds), *verifier.examples))


class _Verifier:
    def __init__(self, card: PublishedCard, results: RunResults, given: Collection[str]) -> None:
        self.facts, self.results = card.facts, results
        self.sources = tuple(_other_sources(card, results, given))
        # The differences for the row that is compared, and for all.
        self.ground: tuple[str, ...] = ()
        self.grounds: list[str] = []
        self.examples = tuple(_other_examples(card, results))
        published = [(noise.ratio_low, noise.ratio_high) for noise in (card.run.noise if card.run else ())]
        here = zip(results.noise["ratio_low"], results.noise["ratio_high"])
        bounds = [_number(bound) for pair in (*published, *here) for bound in pair]
        # The largest factor between the baseline and itself: 1 where they were equal.
        self.noise = max((max(bound, 1 / bound) for bound in bounds if bound), default=1.0)
        kinds = [each.kind for certificate in certificates(results.records) for each in certificate.disturbances]
        self.disturbed = "; other work used the processors while this was timed here" if OTHERS in kinds else ""
        self.quality = {int(cells["row"]): cells for cells in results.quality.to_dict("records")}
        self.time = {}
        for cells in results.time.to_dict("records"):
            length = int(cells["input_length"]) if is_known(cells["input_length"]) else None
            phase = cells.get("phase")
            phase = str(phase) if is_known(phase) else None
            self.time[int(cells["row"]), Shape(int(cells["batch_size"]), length, phase)] = cells

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield the cells of `COLUMNS` for each figure."""
        rows_here = self._rows_by_parameters()
        for index, row in enumerate(self.facts.rows):
            here = rows_here.get(canonical_json(self._matched(row.parameters)))
            if here is None:
                continue
            info = self.results.records.info_of(self.results.records.records[here])
            self.ground = (*_ground(_environment(self.facts, index), info), *self.sources)
            self.grounds += self.ground
            yield from self._figures(index, row, row.failure, here)
            baseline = self.results.plan[here].baseline
            if row.original is not None and baseline is not None:
                yield from self._figures(index, row.original, None, baseline, "original ")

    def _rows_by_parameters(self) -> dict[str, int]:
        """Return the rows of the run by their parameters as the card has them."""
        # Each row of a card with originals is a quantized model beside its original.
        has_originals = any(row.original for row in self.facts.rows)
        only_quantized = has_originals and "apply_quantization" not in self.facts.benchmarked
        rows: dict[str, int] = {}
        for configuration in self.results.plan:
            if only_quantized and not configuration.quantized:
                continue
            axes = {
                name: public_names.public_parameter(self.results.records, name, value)
                for name, value in configuration.axes.items()
            }
            axes.setdefault("framework", configuration["framework"])
            parameters = {name: axes.get(name) for name in self.facts.benchmarked}
            rows.setdefault(canonical_json(plain(self._matched(parameters))), configuration.row)
        return rows

    def _matched(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the benchmarked parameters that match rows: where this run has one machine, without the machine."""
        several = bool(self.results.records.machines)
        return {
            name: value for name, value in parameters.items() if several or split_name(name)[0] != BACKEND_ARGUMENTS
        }

    def _figures(
        self, index: int, measured: Measured, failure: Failure | None, row_here: int, prefix: str = ""
    ) -> Iterator[tuple[object, ...]]:
        """Yield the cells for each figure of a model of the card; `failure` says why figures are missing there."""
        cells = self.quality[row_here]
        names = [metric.name for metric in self.facts.metrics]
        compared = measured.figures if isinstance(measured, Row) else {}
        names += [name for name in COMPARISONS if compared.get(name)]
        for name in names:
            published = compared.get(name) if name in COMPARISONS else measured.metrics.get(name)
            here = _interval_here(cells, name)
            if name not in cells:
                verdict = NOT_COMPARABLE, "this run does not measure it"
            elif self.examples:
                verdict = NOT_COMPARABLE, "; ".join(self.examples)
            elif published is None or here is None:
                verdict = self._missing(published, here, failure, cells)
            elif name in COMPARISONS:
                verdict = self._fidelity(name, published, here)
            else:
                verdict = self._quality(name, published, here)
            yield (index, f"{prefix}{name}", *_bounds(published), *_bounds(here), *verdict)
        for shape, figures in measured.times.items():
            # Images have no length, though older cards show one.
            cells = self.time.get((row_here, shape)) or self.time.get((row_here, Shape(shape.batch_size)), {})
            for name, published in figures.items():
                if name in _FOLLOWING or (f"{name}_low" not in cells and not (cells and name == THROUGHPUT)):
                    continue
                here = _interval_here(cells, name)
                if name == THROUGHPUT:
                    published = _throughput(published, figures.get(LATENCY_MEAN), shape)
                    here = _throughput(here, _interval_here(cells, LATENCY_MEAN), shape)
                if published is None or here is None:
                    verdict = self._missing(published, here, failure, cells)
                else:
                    verdict = self._time(name, shape, published, here)
                yield (index, f"{prefix}{name}, {shape}", *_bounds(published), *_bounds(here), *verdict)

    def _missing(
        self, published: Interval | None, here: Interval | None, failure: Failure | None, cells: _Cells
    ) -> _Verdict:
        reason = str(cells["failure"]) if is_known(cells.get("failure")) else "no figure"
        if published is None and here is None:
            return REPRODUCED, f"neither has it: {reason}"
        if published is not None:
            return self._unequal(f"it failed here: {reason}")
        return self._unequal(f"it failed there ({failure})") if failure else (NOT_COMPARABLE, "not on the card")

    def _quality(self, name: str, published: Interval, here: Interval) -> _Verdict:
        difference = abs(here.value - published.value)
        # The digits of the card's column: those read, and for trailing zeros those that the full layout has at least.
        column = [row.metrics.get(name) for row in self.facts.rows]
        least = min(QUALITY_DECIMALS, column_decimals(column, quality_decimals))
        decimals = max(least, *map(_decimals, column))
        if difference <= 0.500001 * 10**-decimals:
            return REPRODUCED, ""
        return self._unequal(f"they differ by {difference:.{decimals}f}")

    def _fidelity(self, name: str, published: Interval, here: Interval) -> _Verdict:
        unit = COMPARISONS[name].unit or ""
        there_shown, here_shown = (format_comparison(Interval(each.value), name, unit) for each in (published, here))
        perfect = _PERFECT.get(unit)
        distance = 0.0 if perfect is None else abs(published.value - perfect)
        if there_shown == here_shown or abs(here.value - published.value) <= _ROUNDING * distance:
            return REPRODUCED, ""
        return self._unequal(f"it is {here_shown} here, and {there_shown} on the card")

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
        figures = [row.time(shape, name) for row in self.facts.rows]
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
        times = [interval for row in self.facts.rows for interval in row.times.get(shape, {}).values()]
        ratios = [noise.ratio for noise in self.facts.noise if noise.shape == shape]
        return any(interval and interval.low is not None for interval in (*times, *ratios))

    def _unequal(self, reason: str) -> _Verdict:
        return (NOT_COMPARABLE, f"{reason}; {'; '.join(self.ground)}") if self.ground else (DIFFERENT, reason)


def _environment(facts: Facts, row: int) -> Mapping[str, Any]:
    """Return machine and versions of a row of a card."""
    machine = facts.machines[row] if facts.machines else None
    return {
        name: value[machine] if isinstance(value, dict) and machine in value else value
        for name, value in facts.environment.items()
    }


def _ground(there: Mapping[str, Any], here: RunInfo) -> Iterator[str]:
    """Yield the differences in machine and versions between a row of a card and a run, a sentence each."""
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


def _other_sources(card: PublishedCard, results: RunResults, given: Collection[str]) -> Iterator[str]:
    """Yield how models and data of a run may differ from those of a card, a sentence each; raise where they are others.

    Without digests on the card, a folder is known by its last name, since the card has no other name of most folders.
    """
    published, names_by_part = card.run.sources if card.run else {}, card_spec.source_names(card)
    data = card.facts.data
    for part, word in (("models", "model"), ("datasets", "data set")):
        digests = {source.name: source.digest for source in published.get(part, ())}
        if part == "datasets" and not digests and data is not None and data.revision and len(names_by_part[part]) == 1:
            digests = dict.fromkeys(names_by_part[part], data.revision)
        names = {*names_by_part[part], *(RENAMED.get(name, name) for name in names_by_part[part])}
        sources: list[Source] = list(getattr(results.records.info.sources, part).values())
        is_shared = False
        for source in sources:
            name = public_names.public_name(results.records, part, source.name)
            expected = {digests[name]} if name in digests else {*digests.values()}
            # A full card shows the first digits of a digest.
            is_equal = not expected.isdisjoint((source.digest, source.digest[:12], source.revision))
            is_named = source.name in given or not names.isdisjoint((name, source.name, source.location))
            is_named |= source.local and _last_name(name) in map(_last_name, names)
            is_shared |= is_named or is_equal
            if is_named and expected and not is_equal:
                yield f"another content or revision of the {word} {source.name}"
        if not is_shared:
            here = [source.name for source in sources]
            if digests or not any(source.local for source in sources):
                raise _other_benchmark(word, names_by_part[part], here)
            yield f"the {word} is {quote_names(here)} here, and {quote_names(names_by_part[part])} on the card"


def _other_examples(card: PublishedCard, results: RunResults) -> Iterator[str]:
    """Yield how the examples of a run differ from those of a card, a sentence each."""
    there, here = card_spec.fixed_dataset(card), results.spec.get("dataset")
    if there is not None and isinstance(here, Mapping):
        is_shown_only = here.get("path") in results.records.info.sources.freely_named
        for name in (*(() if is_shown_only else ("name",)), "eval_split", "data_keys", "ref_keys"):
            if there.get(name) and here.get(name) and there[name] != here[name]:
                yield f"other examples: `{name}` is {format_value(here[name])}, on the card {format_value(there[name])}"
    if "max_eval_samples" not in {*card.facts.benchmarked, *results.spec.grid}:
        limits = (results.spec.get("max_eval_samples"), card.facts.max_eval_samples)
        if limits[0] != limits[1]:
            counts = ["all" if limit is None else str(limit) for limit in limits]
            yield f"other examples: `max_eval_samples` is {counts[0]}, on the card {counts[1]}"


def _last_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _other_benchmark(word: str, there: Iterable[str], here: Iterable[str]) -> CardError:
    return CardError(
        f"the card is of the {word} {quote_names(there)}, and the run of {quote_names(here)}. {_EXPECTED_RUN}"
    )


def _interval_here(cells: _Cells, name: str) -> Interval | None:
    return figure(*(_number(cells.get(column)) for column in with_bounds(name)))


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


def _decimals(interval: Interval | None) -> int:
    text = repr(interval.value) if interval else ""
    return len(text.partition(".")[2]) if "e" not in text else 0
