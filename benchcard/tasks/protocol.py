"""The protocol of a task: how rows of a data set become inputs of a model, and outputs become predictions.

A row has one item or more; an item is the inputs of one sample in a forward call. A text or an image is one item, a
long context several windows, a pair of sentences two. The task keeps something of each item's outputs, and makes the
row's prediction from what it kept of its items.

Leaves the choice of rows to `data`, the files of items and predictions to `benchcard.evaluation`, and figures to
`benchcard.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import datasets
    import numpy as np

    from benchcard.spec.schema import ValueType

    Arrays = Mapping[str, np.ndarray]
    Context = Mapping[str, object]
    Kept = Mapping[str, Sequence[np.ndarray]]
    TimedInputs = tuple[dict[str, np.ndarray], int]


def _load_nothing(name: str | None, split: str | None) -> datasets.Dataset:
    raise LookupError("these rows are of no data set")


@dataclass(frozen=True)
class Question:
    """What a task needs to know to prepare rows.

    Attributes:
        model: The folder of the model, with its processor and configuration.
        data_keys: The input columns: `primary` and, for pairs, `secondary`.
        ref_keys: The columns of the reference.
        arguments: `task_args` of the spec.
        labelled: Whether references are needed: not for calibration, and not where the spec has `ref_keys: []`.
        evaluated: Whether rows are evaluated; they are calibrated on otherwise.
        maximum: The most tokens that the graph takes; None where the model's folder alone decides.
        numbers: The numbers of the rows in their split, for messages; empty where all rows were taken.
        load: Returns all rows of a configuration and a split of the data set, by name; None for those of the rows.
        files: The paths of the `arguments` that name a file, relative to the spec or not; open no other.
    """

    model: Path
    data_keys: Mapping[str, str | None]
    ref_keys: Sequence[str]
    arguments: Mapping[str, object] = field(default_factory=dict)
    labelled: bool = True
    maximum: int | None = None
    numbers: Sequence[int] = ()
    evaluated: bool = True
    load: Callable[[str | None, str | None], datasets.Dataset] = _load_nothing
    files: Mapping[str, Path] = field(default_factory=dict)

    def number(self, index: int) -> int:
        """Return the number in the split of the row at this index."""
        return self.numbers[index] if self.numbers else index


@dataclass(frozen=True)
class Row:
    """One prepared row.

    Attributes:
        items: The arrays of each item, without a batch axis, as `pixel_values` `(channels, height, width) float32`.
        reference: The right answer, as plain data; None where it was not asked for.
        memo: What its prediction needs beside the outputs, as plain data: the text that an answer is cut from.
        counts: Numbers to be summed over all rows for `Prepared.tallies`: `{"cut": 1, "texts": 1}`.
    """

    items: Sequence[Arrays]
    reference: object = None
    memo: object = None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class InputCode:
    """Python that makes the inputs of a row without benchcard: `processor` in it is the model's own.

    Attributes:
        loader: The class of transformers whose `from_pretrained` loads the processor.
        batch: An expression of a `row`, whose value has a list of the row's items for each input.
        options: Arguments of `from_pretrained`.
    """

    loader: str
    batch: str
    options: Mapping[str, str | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """Prepared rows, and what holds for all of them.

    Attributes:
        rows: The rows, in order, each prepared when it is taken.
        context: What predictions need, as plain data: label names, thresholds.
        pad: The value that pads shorter items in a batch, by input; other inputs are never padded.
        padding_side: The end of an axis where padding stands: `right` or `left`.
        beside: The arrays that are kept with an item for its prediction, and are no inputs of the model.
        notes: What a reader should know, as far as it is known before the first row.
        tallies: By the name of a count, a sentence for the notes where its sum is above 0:
            `{cut} of {texts} texts {cut:was|were} cut`.
        meanings: The metric and figure that an id stands for in this task, as `seqeval.overall_f1` for `f1`.
        metric_defaults: Arguments that a metric gets where its `compute` has such a parameter and the spec gives none:
            `{"pos_label": 1}`. The path of a YAML file, as text, gets there as a `Path` if the spec may name the file.
        facts: What the model's folder or `task_args` decide of predictions, by the column of `Results.quality`:
            `{"similarity_fn_name": "dot"}`.
        outputs_per_number: How many numbers the model gives for each number of its largest input, as the logits of a
            whole vocabulary for each token; batches are small where they are many.
        code: The lines that make the same inputs, for the recipe of a model; None where no plain lines do.
    """

    rows: Iterator[Row]
    context: Mapping[str, object] = field(default_factory=dict)
    pad: Mapping[str, float] = field(default_factory=dict)
    padding_side: str = "right"
    beside: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    tallies: Mapping[str, str] = field(default_factory=dict)
    meanings: Mapping[str, str] = field(default_factory=dict)
    metric_defaults: Mapping[str, object] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    outputs_per_number: int = 1
    code: InputCode | None = None


@dataclass(frozen=True)
class Usage:
    """How a task is commonly used, from which the draft of a spec is made.

    Attributes:
        inputs: The usual names of the input columns, of one column or a pair, the preferred ones first.
        input_kind: What such a column holds: `image`, `audio`, `text` or `texts`, which are lists of words.
        second_kind: What the second column of a pair holds; empty for the same.
        references: The usual names of the column of the reference, the preferred one first.
        reference_kinds: What such a column may hold, the preferred first: `label` (with names), `integer`, `float`,
            `text`, lists of these (`labels`, `integers`, `texts`), `answers` as in SQuAD, or `objects` with boxes;
            empty where the input is
            its own reference.
        metrics: The metrics that a model card may name for it.
        metric_names: The metric that another name in model cards stands for.
        datasets: Common data sets, which are suggested where a model card names none.
        task_types: Other names of the task in the `model-index` of model cards.
        batch_sizes, input_length: What its models are commonly run with; None where inputs have no length.
    """

    inputs: tuple[tuple[str, ...], ...]
    input_kind: str
    references: tuple[str, ...]
    reference_kinds: tuple[str, ...]
    metrics: tuple[str, ...]
    datasets: tuple[str, ...]
    metric_names: Mapping[str, str] = field(default_factory=dict)
    task_types: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = (1,)
    input_length: int | None = None
    second_kind: str = ""


@dataclass(frozen=True)
class ComparedOutput:
    """How what is kept of a model's outputs is compared with what is kept of the baseline's.

    Attributes:
        kind: What the outputs are: the logits of one `label`, or of `labels` that are predicted independently; an
            `embedding`; the `number` or another `prediction` that is made of them; each `next_token` of a text, of
            which `top`, `top_log_probs` and `rest` are kept as in `TextGeneration`; or predictions that are the
            `detections` of an image, as those of `ObjectDetection`.
        kept: The name under which `Task.kept` keeps them; empty for predictions, next tokens and detections.
        positions: The name of an array beside each item with the positions on the first axis that are compared, as the
            first tokens of words; the prediction is then a list with one entry for each. Empty where there is no such
            axis.
    """

    kind: Literal["label", "labels", "embedding", "number", "prediction", "next_token", "detections"]
    kept: str = ""
    positions: str = ""


class Task(Protocol):
    """What a task has.

    Attributes:
        metrics: The metrics of a spec that names none. Where they depend on `task_args`, the task also has a method
            `metrics_for(arguments)` (see `default_metrics`).
        has_length: Whether the length of inputs (tokens, frames) can be chosen; images have none.
        arguments: The types of `task_args` by name; `metric_args` is allowed for every task.

    A task with `Prepared.meanings` may have an attribute `scorers`: the ids of the metrics that are meant, by which a
    spec may give `metric_args`, too.

    A task may have an attribute `outputs`, by which a graph with other names is read: the outputs that `kept` reads,
    with their numbers of axes (`{"logits": 2}`), as a sequence of alternatives, the preferred one first.

    A task may have a method `usage(arguments, names)`, which returns the `Usage` with these `task_args` of a model
    with labels of these names; without it, the draft of a spec leaves the lines on data to fill in.

    A task may have a method `compared_output(context)`, which returns the `ComparedOutput` of its models, or None;
    without it, results have no fidelity to the float model.

    A task in which predictions take the items of other rows, or what is kept of the baseline's outputs, has a method
    `predictions(kept, owners, memos, context, baseline)`, which metrics take their predictions from instead: from the
    arrays of all items by name, the row of each item, the memo of each row, and the arrays of the row's baseline (its
    own for the baseline itself), or None where there is none. What `prediction` returns is then stored and not read.

    A task may have an attribute `decides_by`: the figure of fidelity by which configurations and the exclusions of
    `node_exclusion: auto` are chosen instead of the first metric.

    A task may have the attributes `predicts_tokens`, whether its logits are of tokens and not of labels, and
    `counts_tokens`, whether throughput is shown in tokens, too; or `adds_class`, whether its logits may have another
    class beside the labels.

    A task may have a method `phases(arguments)`: the phases of generation in which models are timed with these
    `task_args`, the one by which configurations are chosen first, and none where a call is the whole work. `inputs`
    then has a fifth parameter `phase`, and graphs are exported with a cache of keys and values.

    A task whose name optimum's `TasksManager` does not know has an attribute `loads_as`: the name of a task that it
    knows, whose model class is loaded.
    """

    metrics: tuple[str, ...]
    has_length: bool
    arguments: Mapping[str, ValueType]

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Return the rows as inputs and references.

        Raises:
            SpecError: Data set and model do not fit: columns, labels. Taking a row raises it for the values of the row.
            ArtifactError: The model's processor cannot be loaded, or lacks something.
        """

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return what is kept of a batch of outputs: by name one array an item, without padding. Metrics of rankings
        read `scores`.
        """

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> object:
        """Return the prediction of a row, as plain data, from what is kept of its items and the arrays beside them."""

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return generated inputs for time measurements, and their actual length.

        Raises:
            ArtifactError: The model takes no inputs of that length.
        """


def task_phases(task: Task, arguments: Mapping[str, object]) -> tuple[str, ...]:
    """Return the phases in which a task's models are timed with these `task_args`; none for most tasks."""
    phases = getattr(task, "phases", None)
    return tuple(phases(arguments)) if phases else ()


def default_metrics(task: Task, arguments: Mapping[str, object]) -> tuple[str, ...]:
    """Return the metrics of a spec that names none, for a task with these `task_args`."""
    metrics_for = getattr(task, "metrics_for", None)
    return tuple(metrics_for(arguments)) if metrics_for else task.metrics
