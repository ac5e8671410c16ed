"""The model files of a run: what each is, how it compares with the baseline, its verdict, and when to use it.

An audit has one row for each file of a repository; a push has one file for each of some rows. The rule of the verdict
is left to `verdict`, tables to `frames` and `publishing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import pstdev
from typing import TYPE_CHECKING

from benchcard.analysis import metric_info
from benchcard.analysis.gains import Gains, mean_ratio
from benchcard.analysis.public_names import public_message
from benchcard.analysis.records import Records
from benchcard.analysis.row_facts import RowQuality, row_quality
from benchcard.analysis.verdict import (
    BROKEN,
    DEGRADED,
    FAITHFUL,
    REFERENCE,
    UNKNOWN,
    Evidence,
    Verdict,
    chance_agreement,
    judge,
)
from benchcard.errors import ArtifactError, UnfitGraphError
from benchcard.evaluation.rows import read_predictions
from benchcard.metrics.info import FIDELITY, leading_figure
from benchcard.run.record import Record
from benchcard.spec.parameters import FILE_NAME
from benchcard.steps.models import ConvertOutcome, path_of
from benchcard.steps.step import NotRun
from benchcard.utils.values import Interval

if TYPE_CHECKING:
    from benchcard.graphs.weights import StoredWeights

# The types of failures that say nothing bad about a file: it may be one for another task, or too large for the machine.
_NO_FAULT = (UnfitGraphError.__name__, NotRun.__name__, "MemoryError", "OSError", "SIGKILL", "TimeoutError")
_STAGES = ("export", "evaluate")
_SATURATION = "products of 8 bits can saturate on this processor, and the file may be good on another"
_MEANINGS = {
    REFERENCE: "the reference",
    FAITHFUL: "as good, but others are smaller, faster or closer",
    DEGRADED: "only where its loss is acceptable",
    BROKEN: "not at all",
}


@dataclass(frozen=True)
class ModelFile:
    """A model file.

    Attributes:
        name: Its path in the repository; the name of the framework for a baseline that is no file.
        weights: What its weights are stored in; None where that is not known.
        size_bytes: Its size with external data; None where it is not known.
        quality: The first metric; None where it was not measured.
        fidelity: The figures of its outputs against the baseline's.
        ratio: How many times as fast as the baseline it is, on average over shapes.
        is_detectable: Whether that differs from 1 beyond chance and noise, at every shape.
        uses: When to use it, a few words each.
        cpu_ratio: The baseline's processor time over its own, on average over shapes.
    """

    row: int
    name: str
    weights: StoredWeights | None
    size_bytes: int | None
    quality: Interval | None
    fidelity: Mapping[str, Interval]
    ratio: Interval | None
    is_detectable: bool
    verdict: Verdict
    uses: tuple[str, ...] = ()
    cpu_ratio: Interval | None = None

    @property
    def leading(self) -> str | None:
        """The figure of fidelity that ranks files; None where it was not compared."""
        return leading_figure(self.fidelity)[0] or None


def repository_files(records: Records) -> dict[int, tuple[str, Path]]:
    """Return the files of the model's folder that are rows, by row: their paths in the folder and on this machine.

    A baseline that is no file has the name of its framework. A file that is no longer there, as after a download was
    deleted, is the run's copy of it. Nothing is returned where no rows are files.
    """
    files = {}
    for record in records.records:
        row, export = record.configuration, record.outcomes.export
        folder = records.info.sources.models[row["name_or_path"]].folder
        name = (row["framework_args"] or {}).get("file_name")
        if name is not None:
            path = folder / name
            files[row.row] = (name, path_of(export) if export and not path.is_file() else path)
        elif row.baseline == row.row:
            files[row.row] = (row["framework"], folder)
    return files if FILE_NAME in records.plan.spec.grid else {}


@dataclass(frozen=True)
class Examples:
    """Which examples files were evaluated on: how many of the rows of a split, which are 0 where that is not known."""

    evaluated: int
    split_rows: int
    dataset: str
    split: str

    def __str__(self) -> str:
        of = f" of {self.split_rows}" if self.split_rows else ""
        return f"{self.evaluated}{of} examples of {self.dataset}, {self.split}"


def evaluated_examples(records: Records) -> Examples | None:
    """Return the examples that the files were evaluated on; None where none are known."""
    for record in records.records:
        if record.outcomes.prepare:
            rows, dataset = record.outcomes.prepare.values, record.configuration["dataset"]
            name = public_message(records, records.info.sources.dataset(dataset).name)
            return Examples(rows.samples, rows.split_rows, name, dataset["eval_split"])
    return None


def describe_files(
    records: Records, gains: Gains, files: Mapping[int, tuple[str, Path]], max_drop: float | None = None
) -> tuple[ModelFile, ...]:
    """Return the files of rows, by their paths in the repository and on this machine, with the uses of the good ones.

    `gains` are those in latency.
    """
    described = [_describe(records, gains, row, *paths, max_drop) for row, paths in files.items()]
    return tuple(replace(file, uses=uses) for file, uses in zip(described, _uses(described)))


def _describe(records: Records, gains: Gains, row: int, name: str, path: Path, max_drop: float | None) -> ModelFile:
    record, metric = records.records[row], next(iter(metric_info.metric_names(records)), None)
    convert = record.outcomes.convert
    weights, size_bytes = _converted(convert.values) if convert else _read(path)
    of_row = gains.by_row.get(row, ())
    quality = row_quality(records, record, metric)
    compared = () if row == record.configuration.baseline else of_row
    return ModelFile(
        row,
        name,
        weights,
        size_bytes,
        quality.figure,
        quality.fidelity,
        mean_ratio(compared) if any(gain.ratio for gain in compared) else None,
        bool(of_row) and all(gain.ratio is not None and gain.ratio.excludes(1.0) and not gain.doubt for gain in of_row),
        _verdict(records, record, quality, metric, weights, max_drop),
        cpu_ratio=mean_ratio(compared, of_cpu=True) if any(gain.cpu_ratio for gain in compared) else None,
    )


def _converted(convert: ConvertOutcome) -> tuple[StoredWeights | None, int]:
    from benchcard.graphs.weights import StoredWeights

    count, bits = convert.weights, convert.weight_bits
    return StoredWeights(count, bits, convert.kinds) if count and bits else None, convert.size_bytes


def _read(path: Path) -> tuple[StoredWeights | None, int | None]:
    # Not above: results without files are read without onnx.
    from benchcard.graphs.files import model_files
    from benchcard.graphs.weights import stored_weights

    try:
        weights, size_bytes = stored_weights(path), sum(file.stat().st_size for file in model_files(path))
    except (ArtifactError, OSError, ValueError):
        return None, path.stat().st_size if path.is_file() else None
    return weights if weights.count else None, size_bytes


def _verdict(
    records: Records,
    record: Record,
    quality: RowQuality,
    metric: str | None,
    weights: StoredWeights | None,
    max_drop: float | None,
) -> Verdict:
    row, failure = record.configuration, record.failures.of_quality()
    if failure is not None:
        is_broken = failure.stage in _STAGES and failure.type not in _NO_FAULT
        why = public_message(records, f"{failure.type}: {failure.message}")
        return Verdict(BROKEN if is_broken else UNKNOWN, " ".join(why.split()))
    if row.baseline == row.row:
        return Verdict(REFERENCE)
    baseline = None if row.baseline is None else records.records[row.baseline]
    if baseline and quality.model == row_quality(records, baseline, metric).model:
        return Verdict(FAITHFUL, f"it is the same model as row {row.baseline}")
    chance, spread = _predictions(record, baseline)
    evidence = Evidence(
        metric or "",
        metric_info.info_of_metric(records, metric),
        quality.difference,
        quality.fidelity,
        record.outcomes.prepare.values.samples if record.outcomes.prepare else 0,
        weights.fewest_bits if weights else None,
        chance,
        spread,
    )
    verdict = judge(evidence, max_drop)
    may_saturate = (
        weights is not None and "int8" in weights.names and records.info_of(record).machine.int8.u8s8_saturates
    )
    is_bad = verdict.name in (BROKEN, DEGRADED)
    return replace(verdict, why=f"{verdict.why}; {_SATURATION}") if is_bad and may_saturate else verdict


def _predictions(record: Record, baseline: Record | None) -> tuple[float | None, float | None]:
    """Return the agreement of a row with its baseline by chance, and the spread of the numbers that this predicts."""
    outcomes = [each.outcomes.evaluate for each in (baseline, record) if each and each.outcomes.evaluate]
    if len(outcomes) < 2:
        return None, None
    expected, actual = (read_predictions(outcome.folder)[0] for outcome in outcomes)
    numbers = [value for value in expected if isinstance(value, float)]
    if numbers and len(numbers) == len(expected):
        return None, pstdev(numbers)
    return chance_agreement(expected, actual), None


def _uses(files: Sequence[ModelFile]) -> list[tuple[str, ...]]:
    """Return when to use each file: the smallest and the fastest of the faithful ones, and the closest ones by their
    bits; what the verdicts on the others mean, and that there are better ones than the remaining faithful ones.
    """
    good = [file for file in files if file.verdict.name == FAITHFUL]
    ranked = sorted((file for file in good if file.weights and file.leading), key=_distance)
    sized = [(file.size_bytes, file) for file in good if file.size_bytes is not None]
    ratios = [(file.ratio, file) for file in good if file.ratio and file.is_detectable]
    fast = [(ratio.value, file) for ratio, file in ratios if ratio.low is not None and ratio.low > 1]
    best = {
        "smallest faithful": min(sized, key=lambda pair: pair[0])[1] if sized else None,
        "fastest faithful": max(fast, key=lambda pair: pair[0])[1] if fast else None,
        "closest of those measured in 16 bits": next((file for file in ranked if _bits(file) == 16), None),
        "closest of those measured in 8 bits": next((file for file in ranked if _bits(file) == 8), None),
        "closest of those measured below 8 bits": next((file for file in ranked if _bits(file) < 8), None),
    }
    labels = [tuple(label for label, chosen in best.items() if chosen is file) for file in files]
    meanings = [(_MEANINGS[file.verdict.name],) if file.verdict.name in _MEANINGS else () for file in files]
    return [of_file or meaning for of_file, meaning in zip(labels, meanings)]


def _bits(file: ModelFile) -> int:
    return file.weights.fewest_bits if file.weights else 0


def _distance(file: ModelFile) -> float:
    """Return the leading figure of fidelity, turned so that a lower one is better."""
    name = file.leading or ""
    value = file.fidelity[name].value
    return -value if FIDELITY[name].higher_is_better else value
