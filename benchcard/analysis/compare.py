"""The comparison of two runs, row by row: what became better or worse, and what may be chance.

Rows are matched by their parameters, in runs of one task and model. Quality is compared by paired tests where both runs
used the same examples, by the interval of each run where they used others of the same data, and not at all on other
data, or on other documents of a corpus; latency as `compare_times` says. All intervals of a kind hold together at 95 %
(Bonferroni), so that a check in CI fails by chance alone in at most one run of twenty.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchcard import registry
from benchcard.analysis.compare_times import Pair, compare_latencies
from benchcard.analysis.frames.columns import frame_of, interval_columns, to_records, with_bounds
from benchcard.analysis.records import Records
from benchcard.analysis.row_facts import number_rows
from benchcard.errors import BenchcardError
from benchcard.evaluation.rows import Rows, metric_inputs
from benchcard.measure import significance
from benchcard.measure.intervals import CONFIDENCE
from benchcard.metrics import uncertainty
from benchcard.metrics.examples import Computed, Examples, examples_of
from benchcard.metrics.info import split_column
from benchcard.run.machines import FOLDER
from benchcard.run.record import Record
from benchcard.sources.resolve import script_metrics, task_code
from benchcard.spec.parameters import split_name
from benchcard.utils.harness import is_task_path
from benchcard.utils.plain import canonical_json
from benchcard.utils.text import quote_names, shorten
from benchcard.utils.values import Interval

MetricExamples = dict[str, Examples | Computed]

BETTER, WORSE, ALIKE, DIFFERENT = "better", "worse", "no detectable difference", "differs"
# The figure is worse by its own 95 % interval, which may be chance among all figures that are compared.
PERHAPS_WORSE = "may be worse"
NO_INTERVAL = "not compared: no interval"
MISSING_IN_A, MISSING_IN_B = "not compared: no figure in A", "worse: no figure in B"
MISSING_IN_BOTH = "not compared: no figure in A and B"
OTHER_DATA = "not compared: other data"
_VERDICTS = (BETTER, WORSE, PERHAPS_WORSE, ALIKE, DIFFERENT, MISSING_IN_B)
_NUMBERS = ("row_a", "row_b")
_FIGURE = ("figure", "a", "b", *with_bounds("change"), "paired", "verdict")
# Rows that a note names; more are counted.
_MOST_ROWS = 20
# The rounding error of differences of floating-point sums.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs.

    Attributes:
        frame: One row for each configuration and figure: `row_a`, `row_b`, the benchmarked parameters, `figure` (a
            metric, or `latency_ms` and the shape), its value `a` and `b` in both runs, `change` with its interval (a
            difference for metrics; for latency how many times faster B is, relative to the baseline where both runs
            have the same one), whether the comparison is `paired`, and the `verdict`.
        notes: What could not be compared, and other remarks.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def worse(self) -> pd.DataFrame:
        """The rows of the frame that are worse by more than their interval, or have no figure in B."""
        return self.frame[self.frame["verdict"].isin((WORSE, MISSING_IN_B))]

    @property
    def compared(self) -> pd.DataFrame:
        """The rows of the frame that have a verdict."""
        return self.frame[self.frame["verdict"].isin(_VERDICTS)]

    def to_json(self) -> dict[str, object]:
        """Return the rows as `figures`, how many are `compared` and how many `worse`, and `notes`: plain data."""
        counts = {"compared": len(self.compared), "worse": len(self.worse)}
        return {"figures": to_records(self.frame), **counts, "notes": list(self.notes)}

    def __str__(self) -> str:
        return "\n".join([self.frame.to_string(index=False, na_rep=""), *self.notes])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return f"{self.frame.to_html(index=False, na_rep='', escape=True)}{notes}"


def compare_runs(a: Records, b: Records, across_machines: bool, times: bool, trust_remote_code: bool) -> Comparison:
    """Return the comparison of the later run B with run A; see `RunResults.compare`.

    Raises:
        BenchcardError: The runs are of two tasks or models, of two machines and times were to be compared, or they have
            no row in common.
    """
    if a.plan.spec.task != b.plan.spec.task:
        raise _incomparable("tasks", a.plan.spec.task, b.plan.spec.task, "Compare runs of one task")
    if a.machines or b.machines:
        raise BenchcardError(f"{(a if a.machines else b).path} has several machines: compare two of its `{FOLDER}`")
    first, second = a.info.machine, b.info.machine
    if times and not across_machines and first.fingerprint != second.fingerprint:
        raise BenchcardError(
            f"the runs are of two machines ({first}; {second}), so a change in time may not be one of the models: "
            "compare quality alone (--quality-only), or times all the same (--across-machines)"
        )
    pairs, notes = _match_rows(a, b)
    if not pairs:
        labels = [next((shorten(row.label) for row in records.plan), "none") for records in (a, b)]
        raise BenchcardError(
            f"{a.path} and {b.path} have no row in common: the first row is {' in A, and '.join(labels)} in B. "
            "Rows are matched by the benchmarked parameters: give both runs the same values of "
            f"{quote_names(_matched_by(a, b))}"
        )
    notes += _model_notes(pairs, a, b)
    notes += [
        f"{name} was {version} in A and is {b.info.versions.get(name)} in B"
        for name, version in a.info.versions.items()
        if b.info.versions.get(name) != version
    ]
    notes += _differing_parameters(a, b)
    scripts = {name for records in (a, b) for name in script_metrics(records.plan.spec)}
    if scripts and not trust_remote_code:
        notes.append(
            f"the scripts of {quote_names(sorted(scripts))} were not run, so their changes have no interval: "
            "if you trust them, compare with --trust-remote-code (`trust_remote_code=True`)"
        )
    files = {value for records in (a, b) for _, value in task_code(records.plan.spec)}
    if files and not trust_remote_code:
        notes.append(
            f"the task files {quote_names(sorted(files))} were not read, so the changes of their figures have no "
            "interval: if you trust them, compare with --trust-remote-code (`trust_remote_code=True`)"
        )
    changes = list(_compare_quality(pairs, a, b, trust_remote_code))
    if times:
        latencies, time_notes = _compare_times(pairs, a, b)
        changes += latencies
        notes += time_notes
    axes = list(dict.fromkeys([*a.plan.spec.grid, *b.plan.spec.grid]))
    pair_by_row = {pair[0].configuration.row: pair for pair in pairs}
    for change in changes:
        in_a, in_b = pair_by_row[change["row_a"]]
        # The value in B, where B benchmarks the parameter.
        change |= {name: _parameter(in_b if name in b.plan.spec.grid else in_a, name) for name in axes}
    return Comparison(frame_of(changes, [*_NUMBERS, *axes, *_FIGURE]), tuple(notes))


def _differing_parameters(a: Records, b: Records) -> list[str]:
    """Return a note for each parameter that neither run benchmarks and that differs between them."""
    first, second = a.plan.spec, b.plan.spec
    names = dict.fromkeys(split_name(name)[0] for name in (*first.fixed, *second.fixed))
    benchmarked = {split_name(name)[0] for name in (*first.grid, *second.grid)}
    notes = []
    for name in names:
        values = first.get(name), second.get(name)
        if name not in benchmarked and values[0] != values[1]:
            if all(isinstance(value, Mapping) for value in values):
                values = _difference_of(*values)
            in_a, in_b = ("not set" if value is None else f"`{shorten(str(value))}`" for value in values)
            notes.append(f"`{name}` is {in_a} in A and {in_b} in B")
    return notes


def _difference_of(
    first: Mapping[str, object], second: Mapping[str, object]
) -> tuple[dict[str, object], dict[str, object]]:
    """Return the entries of two mappings that the other one lacks, or has with another value."""
    one, other = (
        {name: value for name, value in mapping.items() if name not in others or others[name] != value}
        for mapping, others in ((first, second), (second, first))
    )
    return one, other


def _match_rows(a: Records, b: Records) -> tuple[list[Pair], list[str]]:
    """Return the rows that are equal in every parameter that either run benchmarks, and notes on the other rows."""
    names = _matched_by(a, b)
    first, second = (
        {canonical_json([_parameter(record, name) for name in names]): record for record in records.records}
        for records in (a, b)
    )
    pairs = [(record, second[key]) for key, record in first.items() if key in second]
    notes = []
    for run, records, others in (("A", first, second), ("B", second, first)):
        if rows := [record.configuration for key, record in records.items() if key not in others]:
            which = f" ({shorten(rows[0].label)})" if len(rows) == 1 else ""
            numbers = number_rows([row.row for row in rows]) if len(rows) <= _MOST_ROWS else f"{len(rows)} rows"
            notes.append(f"{numbers} of {run}{which} {'is' if len(rows) == 1 else 'are'} only in this run")
    return pairs, notes


def _matched_by(a: Records, b: Records) -> list[str]:
    """Return the parameters by which rows are matched: those that either run benchmarks."""
    return sorted({"framework", *a.plan.spec.grid, *b.plan.spec.grid})


def _model_notes(pairs: Sequence[Pair], a: Records, b: Records) -> list[str]:
    """Return a note for each model that has other content in B; raise `BenchcardError` where it is another model."""
    notes: dict[str, None] = {}
    names = [tuple(record.configuration["name_or_path"] for record in pair) for pair in pairs]
    # A folder and the repository that it was downloaded from give the same graph.
    same = {both for both, (one, other) in zip(names, pairs) if one.digest is not None and one.digest == other.digest}
    for both in dict.fromkeys(names):
        in_a, in_b = (records.info.sources.models[name] for name, records in zip(both, (a, b)))
        if in_a.digest == in_b.digest or both in same:
            continue
        if in_a.name != in_b.name:
            advice = f"To compare them, benchmark both in one run: `name_or_path: [{in_a.name}, {in_b.name}]`"
            raise _incomparable("models", in_a.name, in_b.name, advice)
        notes[f"the model `{in_a.name}` has another content or revision in B"] = None
    return list(notes)


def _incomparable(kind: str, in_a: str, in_b: str, advice: str) -> BenchcardError:
    return BenchcardError(
        f"the runs are of two {kind}, `{in_a}` in A and `{in_b}` in B: no figure of B is better or worse than one of "
        f"A. {advice}"
    )


def _parameter(record: Record, name: str) -> object:
    parameter, field_name = split_name(name)
    value = record.configuration[parameter]
    return value if field_name is None else (value or {}).get(field_name)


def _change(
    pair: Pair,
    figure: str,
    values: Sequence[float | None],
    verdict: str,
    change: Interval | None = None,
    paired: bool | None = None,
) -> dict[str, Any]:
    """Return a row of `Comparison.frame`, without the benchmarked parameters; see there."""
    rows = [record.configuration.row for record in pair]
    figures = {**dict(zip("ab", values)), **interval_columns("change", change)}
    return {**dict(zip(_NUMBERS, rows)), "figure": figure, **figures, "paired": paired, "verdict": verdict}


def _compare_quality(
    pairs: Sequence[Pair], a: Records, b: Records, trust_remote_code: bool
) -> Iterator[dict[str, Any]]:
    metrics = [(pair, name) for pair in pairs for name in dict.fromkeys(name for run in pair for name in _metrics(run))]
    examples: dict[int, tuple[MetricExamples, MetricExamples, bool]] = {}
    for pair, name in metrics:
        first, second = pair
        row, values = first.configuration, [_metrics(record).get(name) for record in pair]
        if reason := _missing_figure(*values) if _is_same_data(pair, a, b) else OTHER_DATA:
            yield _change(pair, name, values, reason)
            continue
        if row.row not in examples:
            examples[row.row] = (
                _examples(first, a, trust_remote_code),
                _examples(second, b, trust_remote_code),
                _fingerprint(first) == _fingerprint(second) and _references(first) == _references(second),
            )
        in_a, in_b, paired = examples[row.row]
        if name not in in_a or name not in in_b:
            yield _change(pair, name, values, NO_INTERVAL)
            continue
        info = second.outcomes.score.values.readings.get(name) if second.outcomes.score else None
        higher = info.higher_is_better if info else None
        change, is_sure = _difference(in_a[name], in_b[name], paired, row["seed"], len(metrics))
        verdict = _verdict(change, 0.0, higher, is_sure)
        if verdict == ALIKE and len(metrics) > 1:
            alone, is_sure = _difference(in_a[name], in_b[name], paired, row["seed"], 1)
            verdict = PERHAPS_WORSE if _verdict(alone, 0.0, higher, is_sure) == WORSE else ALIKE
        yield _change(pair, name, values, verdict, change, paired)


def _difference(
    first: Examples | Computed, second: Examples | Computed, paired: bool, seed: int, comparisons: int
) -> tuple[Interval, bool]:
    """Return the difference of a metric between two runs, and whether a paired test is significant."""
    level = 1 - (1 - CONFIDENCE) / comparisons
    if paired:
        test = uncertainty.paired_test(first, second, seed, level)
        return test.difference, test.p_value is not None and test.p_value < 1 - level
    intervals = (uncertainty.interval(figure, seed, level) for figure in (first, second))
    return significance.independent(*intervals), False


def _compare_times(pairs: Sequence[Pair], a: Records, b: Records) -> tuple[list[dict[str, Any]], list[str]]:
    cells = [(pair, shape) for pair in pairs for shape in dict.fromkeys(shape for run in pair for shape in run.cells)]
    latencies, notes = compare_latencies(cells, a, b)
    changes = []
    for (pair, shape), latency in zip(cells, latencies):
        figure, values, ratio = f"latency_ms {shape}", latency.medians_ms, latency.ratio
        if ratio is None:
            changes.append(_change(pair, figure, values, _missing_figure(*values)))
        else:
            verdict = latency.not_compared or _verdict(ratio, 1.0, True, False)
            changes.append(_change(pair, figure, values, verdict, ratio, paired=False))
    return changes, notes


def _missing_figure(a: float | None, b: float | None) -> str:
    """Return the verdict where a figure is missing; empty where it is not."""
    if a is None:
        return MISSING_IN_BOTH if b is None else MISSING_IN_A
    return MISSING_IN_B if b is None else ""


def _verdict(change: Interval, unchanged: float, higher_is_better: bool | None, is_sure: bool) -> str:
    """Return the verdict on a change, where `unchanged` is the value of no change.

    `is_sure` says whether a change without an interval is significant; a direction of None is not known.
    """
    low, high = change.low, change.high
    if low is None or high is None:
        if abs(change.value - unchanged) <= _ROUNDING:
            return ALIKE
        if not is_sure:
            return NO_INTERVAL
        low = high = change.value
    if low <= unchanged <= high:
        return ALIKE
    if higher_is_better is None:
        return DIFFERENT
    return BETTER if (low > unchanged) == higher_is_better else WORSE


def _metrics(record: Record) -> Mapping[str, float | None]:
    return record.outcomes.score.values.metrics if record.outcomes.score else {}


def _examples(record: Record, records: Records, trust_remote_code: bool) -> MetricExamples:
    """Return the metrics of a row as functions of examples, without those whose code may not run."""
    prepared, evaluated = record.outcomes.prepare, record.outcomes.evaluate
    if prepared is None or evaluated is None:
        return {}
    rows, scripts = Rows(prepared.folder), records.info.sources.scripts
    task, number, outputs = None, record.configuration.baseline, None
    if records.traits.joins_rows:
        task = registry.task(records.plan.spec.task)
        baseline = records.records[number].outcomes if number is not None else None
        if baseline and baseline.prepare and baseline.prepare.key == prepared.key:
            outputs = baseline.evaluate
    files = [Path(str(value)) for value in rows.metric_defaults.values() if is_task_path(value)]
    if files and not trust_remote_code:
        return {}
    inputs = metric_inputs(rows, evaluated.folder, task, outputs.folder if outputs else None, files)
    metrics: MetricExamples = {}
    for name in records.traits.metrics_of(record.configuration):
        if trust_remote_code or split_column(name)[0] in registry.metrics():
            metrics |= examples_of(name, inputs, scripts.get(name))
    return metrics


def _is_same_data(pair: Pair, a: Records, b: Records) -> bool:
    """Return whether both rows were evaluated on the same columns of one split, though perhaps on other rows of it
    where each row has a figure of its own.
    """
    first, second = pair
    one, other = first.configuration["dataset"], second.configuration["dataset"]
    # A column that one of them does not name is the default one, or the same by another way.
    if any(one.get(name) and other.get(name) and one[name] != other[name] for name in ("data_keys", "ref_keys")):
        return False
    if _fingerprint(first) == _fingerprint(second) != "":
        return True
    if a.traits.joins_rows:  # The figure of a row depends on the others, as a ranking on the corpus.
        return False
    sources = (a.info.sources.dataset(one), b.info.sources.dataset(other))
    parts = [
        (source.digest, dataset["eval_split"].partition("[")[0], None if source.freely_named else dataset.get("name"))
        for source, dataset in zip(sources, (one, other))
    ]
    return parts[0] == parts[1]


def _fingerprint(record: Record) -> str:
    """Return the digest of the rows that a row of the run was evaluated on."""
    return record.outcomes.prepare.values.fingerprint if record.outcomes.prepare else ""


def _references(record: Record) -> tuple[object, ...] | None:
    if record.outcomes.prepare is None:
        return None
    rows = Rows(record.outcomes.prepare.folder)
    return rows.references, rows.context, dict(rows.meanings)
