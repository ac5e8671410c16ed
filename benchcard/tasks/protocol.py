"""What happens to a row of a data set on its way into a model and out of it: one file per task, here what a task is.

A row becomes items; an item is one forward call's share of inputs. Of each item's outputs something is kept, and from
what was kept of a row's items comes the row's prediction, which metrics compare with its reference. A text or an image
is one item; a long context is several windows, a pair of sentences two.

`benchcard.registry` knows tasks by name. How rows are chosen is told in `data`; how items and predictions are kept on
disk, in `rows` and `features`; how predictions are scored, in `metrics`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray

    from benchcard.spec.schema import ValueType

    Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Question:
    """What a task needs to know to turn rows into inputs.

    Attributes:
        model: The folder of the model, with its processor and configuration.
        data_keys: The columns that go in: `primary` and, for pairs, `secondary`.
        ref_keys: The columns that hold what is right.
        arguments: `task_args` of the spec.
        labelled: Whether references are needed; calibration rows need none.
        numbers: The rows' numbers in their split, for messages; empty where all rows were taken.
    """

    model: Path
    data_keys: Mapping[str, str | None]
    ref_keys: Sequence[str]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    labelled: bool = True
    numbers: Sequence[int] = ()

    def number(self, index: int) -> int:
        """The number in the split of the row at a place among those that were taken."""
        return self.numbers[index] if self.numbers else index


@dataclass(frozen=True)
class Row:
    """One row on its way in.

    Attributes:
        items: For each forward call's item its arrays without a batch axis, as `pixel_values` `(channels, height,
            width) float32`.
        reference: What is right, as plain data; None where it was not asked for.
        memo: What the way out needs of this row, as plain data: the text that an answer is cut from.
        counts: What happened to it that a reader should know, as numbers to be summed over all rows: `{"cut": 1,
            "texts": 1}`.
    """

    items: Sequence[Mapping[str, NDArray[Any]]]
    reference: Any = None
    memo: Any = None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """Rows on their way in, and what holds for all of them.

    Attributes:
        rows: The rows, in order, made as they are asked for.
        context: What the way out needs, as plain data: label names, thresholds.
        pad: The value that fills up a shorter item in a batch, by input name; inputs that are not named are never
            padded.
        padding_side: The end at which it fills up: `right` or `left`.
        beside: Names of arrays that are kept with an item for the way out, and that the model does not take.
        notes: What a reader should know, as far as it is known before the first row.
        tallies: By name of a count, the sentence to say where its sum is above 0, as `{cut} of {texts} texts
            {cut:was|were} cut`.
        meanings: By id of a metric that means something of its own here, the metric and the figure of it:
            `seqeval.overall_f1` for `f1`.
        metric_defaults: Arguments that a metric gets where its `compute` takes them by this name and the spec does not
            give them: `{"pos_label": 1}`.
        facts: What predictions are, where the model's folder or `task_args` decides it, by the name of a column of
            `Results.quality`: `{"similarity_fn_name": "dot"}`.
    """

    rows: Iterator[Row]
    context: Mapping[str, Any] = field(default_factory=dict)
    pad: Mapping[str, float] = field(default_factory=dict)
    padding_side: str = "right"
    beside: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    tallies: Mapping[str, str] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    metric_defaults: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


class Task(Protocol):
    """What a task is.

    Attributes:
        metrics: The metrics that are measured when the spec names none. Where they depend on `task_args`, the task has
            `metrics_for(arguments)` beside it (see `default_metrics`).
        has_length: Whether inputs have a length (tokens, frames) that can be chosen; images have none.
        arguments: What may stand in `task_args`, by name; `metric_args` may stand there for every task.

    A task of which a metric means something of its own (`Prepared.meanings`) may have `scorers` beside it: the ids of
    the metrics that are meant, whose arguments a spec may give by these names, too.

    A task whose name optimum's `TasksManager` does not know has `loads_as` beside it: the name of a task that it knows,
    whose model class is loaded.
    """

    metrics: tuple[str, ...]
    has_length: bool
    arguments: Mapping[str, ValueType]

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """The rows, on their way in.

        Raises:
            SpecError: The data set and the model do not fit: columns, labels. Also while rows are taken: what a row
                holds.
            ArtifactError: The model's processor cannot be loaded, or lacks something.
        """

    def kept(
        self, outputs: Mapping[str, NDArray[Any]], inputs: Mapping[str, NDArray[Any]], context: Mapping[str, Any]
    ) -> Mapping[str, Sequence[NDArray[Any]]]:
        """What is kept of a batch of outputs, by name: one array an item, without what belongs to padding. `scores` are
        what ranking metrics read.
        """

    def prediction(self, items: Sequence[Mapping[str, NDArray[Any]]], memo: Any, context: Mapping[str, Any]) -> Any:
        """The prediction for one row, as plain data, from what was kept of its items and what stands beside them."""

    def inputs(
        self, model: Path, batch_size: int, input_length: int | None, seed: int
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """Inputs to time a forward call with, and the length that they really have.

        Raises:
            ArtifactError: The model takes no inputs of that length.
        """


def default_metrics(task: Task, arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """The metrics that are measured when the spec names none, for a task with these `task_args`."""
    found = getattr(task, "metrics_for", None)
    return tuple(found(arguments)) if found else task.metrics
