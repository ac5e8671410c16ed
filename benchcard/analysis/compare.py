"""Two runs side by side, row by row: what became better, what became worse, and what cannot be told apart.

Rows are matched by their parameters. Quality is compared by paired tests where both runs looked at the same examples,
else by the intervals of each; latency beside a baseline that is the same in both (`two_times`), by Welch's interval
over launches, widened by the noise floor of both runs. All intervals of a kind hold together at 95 % (Bonferroni), so
that a check in a CI does not fail by chance alone in more than one run of twenty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchcard import registry
from benchcard.analysis import compare_times, gains
from benchcard.analysis.frames.columns import column, is_known
from benchcard.analysis.records import Records
from benchcard.errors import BenchcardError
from benchcard.measure import machine
from benchcard.run.record import Record
from benchcard.sources.resolve import code_of_metrics
from benchcard.spec.parameters import split_name
from benchcard.utils.plain import canonical_json
from benchcard.utils.plaindata import plain

if TYPE_CHECKING:
    import pandas as pd

    from benchcard.metrics.examples import Computed, Examples


BETTER, WORSE, ALIKE = "better", "worse", "no detectable difference"
# A loss that its own 95 % interval shows, and that may be chance among all figures that are looked at.
PERHAPS_WORSE = "may be worse"
# Values longer than this are told below the table, once.
_WIDE = 24
# Differences of sums of floating-point numbers.
_ROUNDING = 1e-12
COLUMNS = ("row_a", "row_b", "figure", "a", "b", "change", "change_low", "change_high", "paired", "verdict")


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        frame: One row for each configuration and figure: `row_a`, `row_b`, the benchmarked parameters, `figure` (a
            metric, or `latency_ms` and the shape), its value `a` and `b` in both, `change` with its interval (a
            difference for metrics; for latency how many times faster B is, beside the same baseline where there is
            one), whether the comparison is `paired`, and the `verdict`.
        notes: What could not be compared, and what else a reader should know.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def worse(self) -> pd.DataFrame:
        """The rows of the frame that got worse by more than their interval, or have no figure any more."""
        return self.frame[self.frame["verdict"].str.startswith(WORSE)]

    def brief(self) -> tuple[pd.DataFrame, list[str]]:
        """The frame without the parameters that do not help to tell its rows apart, and what these are, in a line
        each: the row's number stands for them.
        """
        frame = self.frame
        numbers = ["row_a", "row_b"]
        if (frame["row_a"] == frame["row_b"]).all():
            frame = frame.drop(columns="row_b").rename(columns={"row_a": "row"})
            numbers = ["row"]
        axes = [str(name) for name in frame if name not in (*numbers, *COLUMNS)]
        rows = frame.drop_duplicates(numbers[0])
        same, rest = [], []
        for name in axes:
            values = [canonical_json(plain(value) if is_known(value) else None) for value in rows[name]]
            if len(set(values)) == 1:
                same.append(f"{name}={rows[name].iloc[0]}")
            elif max(len(str(value)) for value in rows[name]) > _WIDE:
                rest.append(in_rows(rows, name, numbers[0], "" if numbers == ["row"] else " of A"))
            else:
                continue
            frame = frame.drop(columns=name)
        return frame, [*([f"in all rows: {', '.join(same)}"] if same else []), *rest]

    def __str__(self) -> str:
        frame, told = self.brief()
        return "\n".join([frame.to_string(index=False, na_rep=""), *told, *self.notes])

    def _repr_html_(self) -> str:
        import html

        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"{self.frame.to_html(index=False, na_rep='', escape=True)}{notes}"


def in_rows(frame: pd.DataFrame, name: str, numbers: str = "row", run: str = "") -> str:
    """A column that is too wide for a table, in a line: each of its values, and the numbers of the rows with it."""
    rows = frame.drop_duplicates(numbers)
    places: dict[str, list[str]] = {}
    for number, value in zip(rows[numbers], rows[name]):
        places.setdefault(str(value), []).append(str(number))
    told = [f"{value} in row{'s' if len(each) > 1 else ''} {', '.join(each)}{run}" for value, each in places.items()]
    return f"{name}: {'; '.join(told)}"


def compare_runs(
    a: Records, b: Records, *, across_machines: bool = False, times: bool = True, trust_remote_code: bool = False
) -> Comparison:
    """Run B against run A.

    Args:
        a: The earlier run.
        b: The later one.
        across_machines: Whether to compare times of two machines, too.
        times: Whether to compare times at all.
        trust_remote_code: Whether scripts of metrics that the runs name may run.

    Raises:
        BenchcardError: They are of two machines, and times were not given up; or they have no row in common.
    """
    import pandas as pd

    one, other = a.info.machine, b.info.machine
    if times and not across_machines and machine.fingerprint(one) != machine.fingerprint(other):
        raise BenchcardError(
            f"the runs are of two machines ({one['processor']}, {one['usable_cores']} cores; {other['processor']}, "
            f"{other['usable_cores']} cores), and their times say nothing of the models: compare quality alone "
            "(--quality-only), or times all the same (--across-machines)"
        )
    pairs, notes = _matched(a, b)
    if not pairs:
        raise BenchcardError(f"{a.path} and {b.path} have no row in common: {'; '.join(notes)}")
    notes += [
        f"{name} was {before} in A and is {b.info.versions.get(name)} in B"
        for name, before in a.info.versions.items()
        if b.info.versions.get(name) != before
    ]
    notes += _differing(a, b)
    if not trust_remote_code and (scripts := {name for each in (a, b) for name in code_of_metrics(each.plan.spec)}):
        ids = ", ".join(f"`{name}`" for name in sorted(scripts))
        notes.append(
            f"the scripts of {ids} were not run, so their changes have no interval: "
            "if you trust them, compare with --trust-remote-code (`trust_remote_code=True`)"
        )
    timed, moved = _all_times(pairs, a, b) if times else ([], ())
    rows = [*_all_quality(pairs, a, b, trust_remote_code), *timed]
    axes = list(dict.fromkeys([*a.plan.spec.grid, *b.plan.spec.grid]))
    names = ["row_a", "row_b", *axes, *COLUMNS[2:]]
    for row, (first, second) in ((row, _records(pairs, row)) for row in rows):
        row |= {name: _value(second, name) if name in b.plan.spec.grid else _value(first, name) for name in axes}
    return Comparison(pd.DataFrame({name: column([row.get(name) for row in rows]) for name in names}), (*notes, *moved))


def _differing(a: Records, b: Records) -> list[str]:
    """The parameters that neither run benchmarks and that are not the same in both: A and B differ in them, too."""
    first, second = a.plan.spec, b.plan.spec
    names = dict.fromkeys(split_name(name)[0] for name in (*first.fixed, *second.fixed))
    benchmarked = {split_name(name)[0] for name in (*first.grid, *second.grid)}
    return [
        f"`{name}` is {_short(first.get(name))} in A and {_short(second.get(name))} in B"
        for name in names
        if name not in benchmarked and first.get(name) != second.get(name)
    ]


def _short(value: Any) -> str:
    return "not given" if value is None else f"`{value}`"


def _records(pairs: list[tuple[Record, Record]], row: Mapping[str, Any]) -> tuple[Record, Record]:
    return next(pair for pair in pairs if pair[0].configuration.row == row["row_a"])


def _matched(a: Records, b: Records) -> tuple[list[tuple[Record, Record]], list[str]]:
    """The rows of both runs that are alike in every parameter that either of them benchmarks, and what is left over."""
    names = sorted({"framework", *a.plan.spec.grid, *b.plan.spec.grid})

    def keyed(records: Records) -> dict[str, Record]:
        return {canonical_json([_value(record, name) for name in names]): record for record in records.records}

    first, second = keyed(a), keyed(b)
    pairs = [(record, second[key]) for key, record in first.items() if key in second]
    only = [
        f"row {record.configuration.row} of {which} ({record.configuration.label}) is only there"
        for which, mine, theirs in (("A", first, second), ("B", second, first))
        for key, record in mine.items()
        if key not in theirs
    ]
    return pairs, only


def _value(record: Record, name: str) -> Any:
    parameter, part = split_name(name)
    value = record.configuration[parameter]
    return value if part is None else (value or {}).get(part)


def _all_quality(
    pairs: list[tuple[Record, Record]], a: Records, b: Records, trust_remote_code: bool
) -> list[dict[str, Any]]:
    """Every metric of every row of both runs."""
    figures = [
        (pair, name) for pair in pairs for name in dict.fromkeys(name for record in pair for name in _metrics(record))
    ]
    found: dict[int, tuple[dict[str, Examples | Computed], dict[str, Examples | Computed], bool]] = {}
    rows = []
    for (one, other), name in figures:
        row = _row(one, other, name, _metrics(one).get(name), _metrics(other).get(name))
        if row["verdict"] is None:
            place = one.configuration.row
            if place not in found:
                examples = [_examples(record, run, trust_remote_code) for record, run in ((one, a), (other, b))]
                found[place] = (examples[0], examples[1], _same_examples(one, other, a, b))
            first, second, same = found[place]
            row |= _quality(first.get(name), second.get(name), same, one.configuration["seed"], len(figures))
            verdict = _verdict(row, 0.0, _higher(other, name))
            if verdict == ALIKE and len(figures) > 1:
                alone = _quality(first.get(name), second.get(name), same, one.configuration["seed"], 1)
                verdict = PERHAPS_WORSE if _verdict(alone, 0.0, _higher(other, name)) == WORSE else ALIKE
            row["verdict"] = verdict
        rows.append(row)
    return rows


def _quality(
    first: Examples | Computed | None, second: Examples | Computed | None, same: bool, seed: int, comparisons: int
) -> dict[str, Any]:
    from benchcard.measure import significance
    from benchcard.measure.intervals import CONFIDENCE
    from benchcard.metrics import uncertainty

    if first is None or second is None:
        return {"verdict": None}
    level = 1 - (1 - CONFIDENCE) / comparisons
    if same:
        found = uncertainty.paired_test(first, second, seed, level)
        change, p_value = found.difference, found.p_value
    else:
        change = significance.independent(*(uncertainty.interval(each, seed, level) for each in (first, second)))
        p_value = None
    told = {"change": change.value, "change_low": change.low, "change_high": change.high, "paired": same}
    # a change that is the same on every draw has no bounds, and yet no doubt about its sign
    return told | {"sure": p_value is not None and p_value < 1 - level}


def _all_times(
    pairs: list[tuple[Record, Record]], a: Records, b: Records
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """The latency of every row at every shape of both runs, and what there is to know about them."""
    cells = [
        (pair, shape) for pair in pairs for shape in dict.fromkeys(shape for record in pair for shape in record.cells)
    ]
    changes, notes = compare_times.compare_latencies(cells, a, b)
    rows = []
    for ((one, other), shape), change in zip(cells, changes):
        row = _row(one, other, f"latency_ms {gains.text_of(shape)}", change.a_ms, change.b_ms)
        if change.ratio is not None:
            ratio = change.ratio
            row |= {"change": ratio.value, "change_low": ratio.low, "change_high": ratio.high, "paired": False}
            row["verdict"] = change.unjudged or _verdict(row, 1.0, True)
        rows.append(row)
    return rows, notes


def _row(one: Record, other: Record, figure: str, a: float | None, b: float | None) -> dict[str, Any]:
    verdict = None
    if a is None or b is None:
        lacking = ("A" if a is None else "") + (" and " if a is None and b is None else "") + ("B" if b is None else "")
        verdict = f"{WORSE}: no figure in B" if a is not None else f"not compared: no figure in {lacking}"
    rows = {"row_a": one.configuration.row, "row_b": other.configuration.row}
    return {**rows, "figure": figure, "a": a, "b": b, "verdict": verdict}


def _verdict(row: Mapping[str, Any], nothing: float, higher: bool | None) -> str:
    low, high = row.get("change_low"), row.get("change_high")
    if low is None or high is None:
        change = row.get("change")
        if change is not None and abs(change - nothing) <= _ROUNDING:
            return ALIKE
        if change is None or not row.get("sure"):
            return "not compared: no interval"
        low = high = change
    if higher is None:
        return ALIKE if low <= nothing <= high else "differs"
    if (high < nothing) if higher else (low > nothing):
        return WORSE
    return BETTER if ((low > nothing) if higher else (high < nothing)) else ALIKE


def _metrics(record: Record) -> Mapping[str, float | None]:
    return record.outcomes.score.values.metrics if record.outcomes.score else {}


def _higher(record: Record, name: str) -> bool | None:
    reading = record.outcomes.score.values.readings.get(name) if record.outcomes.score else None
    return reading.higher_is_better if reading else None


def _examples(record: Record, records: Records, trust_remote_code: bool) -> dict[str, Examples | Computed]:
    """The figures of a row as functions of examples, from its kept predictions; without those of metrics whose script
    may not run.
    """
    from benchcard.evaluation.rows import Rows, metric_inputs
    from benchcard.metrics import examples
    from benchcard.metrics.info import split_column

    row = record.configuration
    prepared, evaluated = record.outcomes.prepare, record.outcomes.evaluate
    if prepared is None or evaluated is None:
        return {}
    rows = Rows(prepared.folder)
    given = metric_inputs(rows, evaluated.folder)
    names = records.traits.metrics_of(row)
    scripts = records.info.sources.metrics
    told: dict[str, Examples | Computed] = {}
    for name in names:
        if not trust_remote_code and split_column(name)[0] not in registry.metrics():
            continue
        script = scripts[name].location if name in scripts else None
        told |= examples.examples_of(name, given, rows.meanings, rows.context["metric_args"], script)
    return told


def _same_examples(one: Record, other: Record, a: Records, b: Records) -> bool:
    """Whether two rows were evaluated on the same rows of the same data, matched with the same references."""
    from benchcard.evaluation.rows import Rows

    return bool(_data(one, a) == _data(other, b) and _references(one, Rows) == _references(other, Rows))


def _data(record: Record, records: Records) -> Any:
    row = record.configuration
    dataset = {name: value for name, value in row["dataset"].items() if name not in ("path", "calibration_split")}
    source = records.info.sources.dataset(row["dataset"])
    return dataset, source.revision, source.digest, row["max_eval_samples"]


def _references(record: Record, reader: Any) -> Any:
    if record.outcomes.prepare is None:
        return None
    rows = reader(record.outcomes.prepare.folder)
    return rows.references, rows.context, dict(rows.meanings)
