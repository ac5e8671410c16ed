"""Whether the figures of a card are what the same runs come to here: figure by figure, with the reason.

Owns the verdicts. Leaves reading the card to `card_results` and measuring to whoever ran its spec.

- A figure of quality is **reproduced** where it is the same to the digits of the card: model and data are the same, so
  nothing but the computation can move it. It is **different** where it is not, on the same ground; on another ground
  (another processor, other versions, unknown ones) it is **not comparable**, since int8 products may differ there.
- A figure of time is **not comparable** on another ground, whatever it is. On the same one it is reproduced where both
  intervals, each widened by the factor by which the baseline differed from itself, and that of the card by the rounding
  of its digits, have a point in common. Else a ratio to the baseline is **different**, and anything else not
  comparable: milliseconds of another day are the machine's too. A figure so precise that the card's digits show no
  interval is taken to be anywhere within their rounding; where the card shows none of that shape, too few launches may
  be the reason, and it is not comparable.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchcard.analysis import public_names
from benchcard.card.facts import Figures, Row
from benchcard.card.layouts.figures import column_decimals
from benchcard.card.layouts.full_tables import RATIO, time_rule
from benchcard.errors import CardError
from benchcard.measure.noise import disturbances
from benchcard.utils.parsing import plain
from benchcard.utils.plain import canonical_json
from benchcard.utils.values import Interval, Shape

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.analysis.run_results import RunResults
    from benchcard.reproduce.results import CardResults


REPRODUCED, DIFFERENT, NOT_COMPARABLE = "reproduced", "different", "not comparable"
COLUMNS = (
    "row",
    "figure",
    "published",
    "published_low",
    "published_high",
    "here",
    "here_low",
    "here_high",
    "verdict",
    "why",
)
# The digits of quality in a card; a column of round numbers has no fewer. Source: `card.classic.QUALITY_DECIMALS`.
_DECIMALS = 3
# An interval whose upper bound is further above the lower one than this, as a factor, agrees with nearly everything.
_TOO_WIDE = 1.5
_PROCESSOR = ("processor", "architecture", "instructions", "physical_cores", "usable_cores")
# The libraries whose versions move figures.
_LIBRARIES = ("onnxruntime", "torch", "onnx", "transformers", "datasets", "evaluate", "scikit-learn", "numpy")


@dataclass(frozen=True)
class Verification:
    """The verdicts on a card.

    Attributes:
        frame: one row per figure: `row` of the card, `figure`, `published` and `here` with their bounds, `verdict`
            (reproduced, different or not comparable) and `why`.
        ground: in what this machine and these versions differ from those of the card; empty where they do not.
    """

    frame: pd.DataFrame
    ground: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many figures have each verdict."""
        return {name: int((self.frame["verdict"] == name).sum()) for name in (REPRODUCED, DIFFERENT, NOT_COMPARABLE)}

    @property
    def status(self) -> int:
        """0: something was reproduced and nothing is different; 1: something is different; 3: nothing could be
        compared.
        """
        counts = self.counts
        return 1 if counts[DIFFERENT] else 0 if counts[REPRODUCED] else 3

    def __str__(self) -> str:
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(str(self))}</p>{self.frame.to_html(index=False, na_rep='', escape=True)}"


def verify(card: CardResults, results: RunResults) -> Verification:
    """The verdicts on every figure of a card, by results of the same configurations from here.

    Raises:
        CardError: the results are of none of its configurations.
    """
    import pandas as pd

    from benchcard.analysis.frames.columns import column

    checking = _Checking(card, results)
    rows = list(checking.rows())
    if not rows:
        raise CardError("the results have none of the card's configurations")
    frame = pd.DataFrame({name: column([row.get(name) for row in rows]) for name in COLUMNS})
    return Verification(frame, checking.ground)


class _Checking:
    """The comparison of one card with one run."""

    def __init__(self, card: CardResults, results: RunResults) -> None:
        self.card, self.facts, self.results = card, card.facts, results
        self.ground = tuple(_ground(card, results))
        self.noise = max(_noise((card.about or {}).get("noise") or []), _noise(results.noise.to_dict("records")))
        disturbed = any(
            disturbance.kind == "others"
            for parts in results.records.parts.values()
            for part in parts
            for disturbance in disturbances([(timed.before, timed.after) for timed in part.rounds])
        )
        self.disturbed = "; other work used the processors while this was timed here" if disturbed else ""
        self.quality = {int(row["row"]): row for row in results.quality.to_dict("records")}
        self.time = {
            (int(row["row"]), int(row["batch_size"]), _whole(row["input_length"])): row
            for row in results.time.to_dict("records")
        }
        names = list(self.facts.benchmarked)
        paired = "apply_quantization" not in names and any(row.original for row in self.facts.rows)
        self.found: dict[str, int] = {}
        for configuration in results.plan:
            axes = {
                name: public_names.public_parameter(results.records, name, value)
                for name, value in configuration.axes.items()
            }
            axes.setdefault("framework", configuration["framework"])
            # Each row of a card with originals is a quantized model beside its original.
            if paired and not configuration.quantized:
                continue
            self.found.setdefault(canonical_json(plain({name: axes.get(name) for name in names})), configuration.row)
        self.decimals = {
            metric.name: max([_DECIMALS, *(_decimals(row.metrics.get(metric.name)) for row in self.facts.rows)])
            for metric in self.facts.metrics
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        for index, row in enumerate(self.facts.rows):
            here = self.found.get(canonical_json(plain(dict(row.parameters))))
            if here is None:
                continue
            yield from self._model(index, row, here)
            if row.original is not None:
                baseline = self.results.plan[here].baseline
                if baseline is not None:
                    original = Row(parameters={}, metrics=row.original.metrics, times=row.original.times)
                    yield from self._model(index, original, baseline, "original ")

    def _model(self, index: int, row: Row, here: int, prefix: str = "") -> Iterator[dict[str, Any]]:
        for metric in self.facts.metrics:
            name = metric.name
            told = {"row": index, "figure": f"{prefix}{name}", **_published(row.metrics.get(name))}
            told |= _here(self.quality[here], name)
            yield {**told, **self._quality(name, told, row, self.quality[here].get("failure"))}
        for shape, figures in row.times.items():
            measured = self.time.get((here, shape.batch_size, shape.input_length))
            if measured is None and shape.input_length is not None:
                # Images have no length: older cards show one.
                measured = self.time.get((here, shape.batch_size, None))
            for name in figures:
                if measured is None or (f"{name}_low" not in measured and name != "throughput_per_s"):
                    continue
                told = {"row": index, "figure": f"{prefix}{name}, {_said(shape)}", **_timed(figures, name, shape)}
                told |= _timed_here(measured, name, shape)
                yield {**told, **self._time(name, shape, told, row, measured.get("failure"))}

    def _quality(self, name: str, told: Mapping[str, Any], row: Row, failure: Any) -> dict[str, str]:
        published, here = told["published"], told["here"]
        if published is None or here is None:
            return self._missing(published, here, row, failure)
        difference = abs(here - published)
        if difference <= 0.500001 * 10 ** -self.decimals[name]:
            return _verdict(REPRODUCED, "")
        return self._unequal(f"they differ by {difference:.{self.decimals[name]}f}")

    def _time(self, name: str, shape: Shape, told: Mapping[str, Any], row: Row, failure: Any) -> dict[str, str]:
        published, here = told["published"], told["here"]
        if published is None or here is None:
            return self._missing(published, here, row, failure)
        if self.ground:
            return _verdict(NOT_COMPARABLE, "; ".join(self.ground))
        if published == here:
            # As the ratio of the baseline to itself, which has no interval.
            return _verdict(REPRODUCED, "")
        there_low, there_high = told["published_low"], told["published_high"]
        if there_low is None and self._launched(shape):
            there_low = there_high = published
        here_low, here_high = told["here_low"], told["here_high"]
        if None in (there_low, there_high, here_low, here_high):
            return _verdict(NOT_COMPARABLE, "one of them has no interval")
        rounding = self._rounding(name, shape)
        there_low, there_high = there_low - rounding, there_high + rounding
        if there_low <= here_high * self.noise**2 and here_low <= there_high * self.noise**2:
            printed = 0.5 * 10.0 ** -_decimals(Interval(published))
            if abs(published - here) > 1.000001 * max(rounding, printed) and here_high > _TOO_WIDE * here_low:
                return _verdict(NOT_COMPARABLE, "too imprecise here to agree or not: give it a longer `duration`")
            return _verdict(REPRODUCED, "")
        apart = f"the intervals have no point in common, nor with the noise of both runs{self.disturbed}"
        if name == RATIO:
            return _verdict(DIFFERENT, apart)
        return _verdict(NOT_COMPARABLE, f"{apart}; the machine of another day may be the reason: see the ratios")

    def _launched(self, shape: Shape) -> bool:
        """Whether the card shows intervals of times at a shape: what has none there is too precise for its digits."""
        figures = [figure for row in self.facts.rows for figure in row.times.get(shape, {}).values()]
        figures += [noise.ratio for noise in self.facts.noise if noise.shape == shape]
        return any(figure is not None and figure.low is not None for figure in figures)

    def _rounding(self, name: str, shape: Shape) -> float:
        """Half a unit of the last digit that a column of times has."""
        column = [row.times.get(shape, {}).get(name) for row in self.facts.rows]
        return 0.5 * 10.0 ** -column_decimals(column, time_rule(name))

    def _missing(self, published: float | None, here: float | None, row: Row, failure: Any) -> dict[str, str]:
        reason = str(failure) if failure is not None and str(failure) not in ("None", "nan", "<NA>") else "no figure"
        if published is None and here is None:
            return _verdict(REPRODUCED, f"neither has it: {reason}")
        if published is None:
            there = f"it failed there ({row.failure})" if row.failure else "the card has no figure"
            return self._unequal(there) if row.failure else _verdict(NOT_COMPARABLE, there)
        return self._unequal(f"it failed here: {reason}")

    def _unequal(self, what: str) -> dict[str, str]:
        if self.ground:
            return _verdict(NOT_COMPARABLE, f"{what}; {'; '.join(self.ground)}")
        return _verdict(DIFFERENT, what)


def _verdict(verdict: str, why: str) -> dict[str, str]:
    return {"verdict": verdict, "why": why}


def _ground(card: CardResults, results: RunResults) -> Iterator[str]:
    """In what the ground of a run differs from that of a card, in words."""
    there, here = card.facts.environment, results.records.info
    if not there.get("processor"):
        yield "the card does not say on which processor"
    elif any(name in there and there[name] != here.machine.get(name) for name in _PROCESSOR):
        differing = [name for name in _PROCESSOR if name in there and there[name] != here.machine.get(name)]
        yield (
            f"another CPU: {there['processor']}, here {here.machine['processor']}"
            if "processor" in differing
            else f"another machine: {', '.join(name.replace('_', ' ') for name in differing)} differ"
        )
    versions = there.get("versions") or {}
    if not versions:
        yield "the card does not say with which versions"
    moved = [
        f"{name} {versions[name]}, here {here.versions[name]}"
        for name in _LIBRARIES
        if name in versions and name in here.versions and versions[name] != here.versions[name]
    ]
    if moved:
        yield f"other versions: {', '.join(moved)}"
    for part, word in (("models", "model"), ("datasets", "data set")):
        known = {each["name"]: each for each in ((card.about or {}).get("sources") or {}).get(part, ())}
        for source in getattr(here.sources, part).values():
            before = known.get(public_names.public_name(results.records, part, source["name"]))
            if before is not None and before["digest"] != source["digest"]:
                yield f"another content or revision of the {word} {source['name']}"


def _noise(rows: list[Any]) -> float:
    """How many times slower than itself the baseline may have been, at the most: 1 where it was equal."""
    bounds = [_number(row.get(name)) for row in rows for name in ("ratio_low", "ratio_high")]
    return max((max(bound, 1 / bound) for bound in bounds if bound), default=1.0)


def _published(figure: Interval | None) -> dict[str, float | None]:
    return {
        "published": figure.value if figure is not None else None,
        "published_low": figure.low if figure is not None else None,
        "published_high": figure.high if figure is not None else None,
    }


def _timed(figures: Figures, name: str, shape: Shape) -> dict[str, float | None]:
    """A published figure of time; throughput has the interval of the latency that it follows from."""
    told = _published(figures.get(name))
    latency = figures.get("latency_mean_ms")
    if name != "throughput_per_s" or told["published_low"] is not None or latency is None:
        return told
    if latency.low is not None and latency.high is not None:
        low, high = _inverse(latency.low, latency.high, shape)
        told |= {"published_low": low, "published_high": high}
    return told


def _here(row: Mapping[Any, Any], name: str) -> dict[str, float | None]:
    return {
        "here": _number(row.get(name)),
        "here_low": _number(row.get(f"{name}_low")),
        "here_high": _number(row.get(f"{name}_high")),
    }


def _timed_here(row: Mapping[Any, Any], name: str, shape: Shape) -> dict[str, float | None]:
    told = _here(row, name)
    low, high = _number(row.get("latency_mean_ms_low")), _number(row.get("latency_mean_ms_high"))
    if name == "throughput_per_s" and told["here_low"] is None and low is not None and high is not None:
        least, most = _inverse(low, high, shape)
        told |= {"here_low": least, "here_high": most}
    return told


def _inverse(low_ms: float, high_ms: float, shape: Shape) -> tuple[float, float]:
    """Bounds of samples in a second, from those of the latency; without an end where that may be 0."""
    samples_ms = 1000 * shape.batch_size
    return samples_ms / high_ms if high_ms > 0 else 0.0, samples_ms / low_ms if low_ms > 0 else math.inf


def _number(value: Any) -> float | None:
    if value is None or str(value) in ("None", "nan", "<NA>"):
        return None
    return float(value)


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _decimals(figure: Interval | None) -> int:
    return len(repr(figure.value).partition(".")[2]) if figure is not None and "e" not in repr(figure.value) else 0


def _said(shape: Shape) -> str:
    return str(shape)
