"""Text classification: a text or a pair of texts in; a label, several labels, or a number out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.spec.schema import Boolean, MappingOf, Number, Text, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, data, labels, text
from benchcard.tasks.outputs import output
from benchcard.tasks.pooling import load_config
from benchcard.utils.text import join_names

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs

# The activations of the one output of a regression model, by the class of torch.nn, and what the number then is. This
# sigmoid keeps the order of outputs far below 0, too.
_ACTIVATIONS: Mapping[str, tuple[Callable[[float], float], str]] = {
    "identity": (lambda value: value, "the model's output as it is"),
    "sigmoid": (
        lambda value: math.exp(min(value, 0.0)) / (1 + math.exp(-abs(value))),
        "the sigmoid of the model's output",
    ),
    "tanh": (math.tanh, "the hyperbolic tangent of the model's output"),
}
# What a model predicts: one label, several labels, or a number. The values are names of `task_args`.
_ONE_LABEL, _MULTI_LABEL, _REGRESSION = "", "is_multi_label", "is_regression"
_PROBLEM_TYPES = {"regression": _REGRESSION, "multi_label_classification": _MULTI_LABEL}
_SEVERAL = "where a text may have several labels, and each column is one of them: `task_args: {is_multi_label: true}`"


@dataclass(frozen=True)
class _Arguments:
    """`task_args`. A label of several is predicted where its probability reaches the threshold."""

    is_regression: bool | None = None
    is_multi_label: bool | None = None
    threshold: float = 0.5
    activation_fn: str | None = None


@dataclass(frozen=True)
class _Context:
    """What a prediction needs of `Prepared.context`; `least_score` is the least logit of a label that is predicted."""

    problem: str
    least_score: float = 0.0
    activation: str = "identity"


@dataclass(frozen=True)
class _References:
    """The columns of references, and the function that reads the reference of a row, given its values and number."""

    columns: Sequence[str]
    read: Callable[[Mapping[str, Any], int], object]
    notes: tuple[str, ...] = ()
    alignment: labels.Alignment | None = None


_SCORES = ("score", "label", "similarity_score")
_USAGE = Usage(
    inputs=(
        *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence")),
        *(("text1", "text2"), ("query", "passage")),
        *(("text",), ("sentence",), ("content",), ("review",), ("tweet",), ("comment_text",)),
    ),
    input_kind="text",
    references=("label", "labels", "sentiment", "emotion", "intent", "target", "category", "class"),
    reference_kinds=("label", "integer", "text"),
    metrics=labels.METRICS,
    datasets=("nyu-mll/glue", "stanfordnlp/imdb", "fancyzhx/ag_news"),
    metric_names={"matthews_corrcoef": "matthews_correlation", "pearsonr": "pearson", "spearmanr": "spearman"},
    input_length=text.DEFAULT_LENGTH,
)


class TextClassification:
    """The task `text-classification`: what is predicted is named by `task_args` (`is_regression`, `is_multi_label`), or
    by `problem_type` of the model's configuration; else it is one label.
    """

    metrics: tuple[str, ...] = ("accuracy",)
    has_length = True
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 2},)
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "label_mapping": MappingOf(open=True),
            "is_regression": Boolean(),
            "is_multi_label": Boolean(),
            "threshold": Number(0.0, 1.0),
            "activation_fn": Text(lambda: tuple(_ACTIVATIONS)),
        }
    )

    def metrics_for(self, arguments: Mapping[str, object]) -> tuple[str, ...]:
        """Return the metrics of a spec that names none, for these `task_args`."""
        if arguments.get("is_regression"):
            return ("pearson", "spearman", "mse")
        return ("f1_micro", "f1_macro", "accuracy") if arguments.get("is_multi_label") else self.metrics

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return rows as token ids; a reference is a label's id in the model, a list with 0 or 1 for each of its
        labels, or a number.
        """
        from scipy.special import logit

        texts = text.load_texts(question.model, maximum=question.maximum)
        columns = [data.primary(rows, question, "text")]
        if secondary := data.secondary(rows, question):
            columns.append(secondary)
        arguments, config = msgspec.convert(question.arguments, _Arguments), texts.config
        problem = _problem(arguments, config)
        context: dict[str, object] = {"problem": problem, "labels": labels.model_names(config)}
        if problem == _MULTI_LABEL:
            context["least_score"] = float(logit(arguments.threshold))
        references = _references(rows, question, config, problem)
        notes, facts, defaults = references.notes, {}, {}
        if references.alignment is not None:
            context |= references.alignment.context
            defaults = {"pos_label": references.alignment.positive}
        if problem == _REGRESSION:
            activation, source = _activation(question.model, arguments, config)
            context |= {"activation": activation, "texts": len(columns), "maximum": texts.maximum}
            facts = {"activation_fn": activation}
            notes = (*notes, f"the number is {_ACTIVATIONS[activation][1]} ({source})")
        elif arguments.activation_fn is not None:
            actual = "a model that gives labels"
            raise SpecError(Mistake("$.task_args.activation_fn", actual, "a model with one output, for a number"))
        return Prepared(
            _rows(rows, question, texts, columns, references),
            context,
            texts.pad(),
            texts.tokenizer.padding_side,
            notes=notes,
            tallies=texts.cut_tally(),
            metric_defaults=defaults,
            facts=facts,
            code=texts.code(*(f"[row[{name!r}]]" for name in columns)),
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used with these `task_args`."""
        if arguments.get("is_regression"):
            metrics = self.metrics_for(arguments)
            return replace(_USAGE, references=_SCORES, reference_kinds=("float", "integer", "label"), metrics=metrics)
        if arguments.get("is_multi_label"):
            metrics = ("accuracy", *labels.AVERAGED)
            return replace(_USAGE, reference_kinds=("labels", "integers", "texts"), metrics=metrics)
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `scores` `(labels,) float32`, the logits."""
        return {"scores": list(output(outputs, "logits"))}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> int | float | list[int]:
        """Return the id of the most likely label, a list with 0 or 1 for each label, or a number."""
        scores, settings = items[0]["scores"], msgspec.convert(context, _Context)
        if settings.problem == _REGRESSION:
            return _ACTIVATIONS[settings.activation][0](float(scores[0]))
        if settings.problem == _MULTI_LABEL:
            return [int(score >= settings.least_score) for score in scores]
        return int(scores.argmax())

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their logits, or by the number that they predict."""
        problem = msgspec.convert(context, _Context).problem
        if problem == _REGRESSION:
            return ComparedOutput("number")
        return ComparedOutput("labels" if problem == _MULTI_LABEL else "label", "scores")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return token ids `(batch, tokens) int64` of single texts, without padding, and the other inputs."""
        return text.load_texts(model).timed(batch_size, input_length, seed)


def _problem(arguments: _Arguments, config: PretrainedConfig) -> str:
    """Return what the model predicts: as `task_args` ask, else by the `problem_type` of its configuration."""
    flags = {_REGRESSION: arguments.is_regression, _MULTI_LABEL: arguments.is_multi_label}
    asked = [name for name, flag in flags.items() if flag]
    if len(asked) > 1:
        raise SpecError(Mistake("$.task_args", join_names(asked), "one of them"))
    problem = asked[0] if asked else _ONE_LABEL
    if all(flag is None for flag in flags.values()):
        problem = _PROBLEM_TYPES.get(str(getattr(config, "problem_type", "")), _ONE_LABEL)
    if (problem == _REGRESSION) == (config.num_labels == 1):
        return problem
    place = "$.task_args.is_regression"
    if config.num_labels == 1:
        expected = "a model with an output for each label, or `is_regression: true`"
        raise SpecError(Mistake(place, "a model with one output, which can only give a number", expected))
    hint = "leave `is_regression` out" if asked else "its `problem_type` says so: `is_regression: false`"
    actual, expected = f"a model with {config.num_labels} outputs", "a model with one output for a number"
    raise SpecError(Mistake(place, actual, expected, f"{hint} where it gives labels"))


def _activation(model: Path, arguments: _Arguments, config: PretrainedConfig) -> tuple[str, str]:
    """Return the activation of a model's one output, and where it comes from: `task_args`, the files of
    sentence-transformers in the model's folder, or the default of both libraries.

    Source: `get_default_activation_fn` of `CrossEncoder`, sentence-transformers 6.2; `postprocess` of
    `TextClassificationPipeline`, transformers 5.23.
    """
    settings, own = load_config(model), getattr(config, "sentence_transformers", None)
    if prompt := settings.prompt:
        raise ArtifactError(f"{model} reads every text with the prompt {prompt!r}, which this task does not support")
    if arguments.activation_fn:
        return arguments.activation_fn, "`task_args.activation_fn`"
    places = {
        "`activation_fn` of `config_sentence_transformers.json`": settings.activation_fn,
        "`sentence_transformers.activation_fn`": own.get("activation_fn") if isinstance(own, Mapping) else None,
        "`sbert_ce_default_activation_function`": getattr(config, "sbert_ce_default_activation_function", None),
    }
    for place, path in places.items():
        if path is not None:
            name = str(path).rpartition(".")[2].lower()
            if not str(path).startswith("torch.nn.") or name not in _ACTIVATIONS:
                raise ArtifactError(
                    f"{model} asks for the activation `{path}` ({place}); expected Identity, Sigmoid or Tanh of "
                    f"torch.nn. Name the one to apply in `task_args: {{activation_fn: …}}`: {join_names(_ACTIVATIONS)}"
                )
            return name, f"{place} in the model's folder"
    if getattr(config, "problem_type", None) == "regression":
        return "identity", "the model's `problem_type` is regression"
    return "sigmoid", "as in transformers and sentence-transformers, where the model's folder asks for nothing else"


def _references(rows: Dataset, question: Question, config: PretrainedConfig, problem: str) -> _References:
    if not question.labelled:
        return _References((), lambda row, number: None)
    if problem == _MULTI_LABEL:
        return _multi_label_references(rows, question, config)
    name = data.reference(rows, question, "label", "" if problem else _SEVERAL)
    if problem == _REGRESSION:
        return _References([name], lambda row, number: data.expect_number(row[name], name, number))
    alignment = labels.align_column(rows, name, config, question)
    return _References([name], lambda row, number: alignment.id(row[name], number), alignment.notes, alignment)


def _multi_label_references(rows: Dataset, question: Question, config: PretrainedConfig) -> _References:
    """Return how several labels are read: from one column of 0 or 1 for each label, from a column of lists of labels,
    or from lists with 0 or 1 for each label of the model.
    """
    count = config.num_labels
    if len(question.ref_keys) > 1:
        names = list(question.ref_keys)
        for index, name in enumerate(names):
            data.column(rows, name, f"$.dataset.ref_keys[{index}]")
        alignment = labels.align(config.id2label, names, [], labels.label_mapping(question))

        def read_columns(row: Mapping[str, Any], number: int) -> list[int]:
            flags = [0] * count
            for index, name in enumerate(names):
                if row[name] not in (0, 1):
                    raise data.bad_value(row[name], name, number, "$.dataset.ref_keys", "0 or 1")
                flags[alignment.ids[index]] = int(row[name])
            return flags

        return _References(names, read_columns, alignment.notes)
    name = data.reference(rows, question, "labels")
    expected = "a column of lists, or one column for each label"
    feature = data.list_feature(rows, name, "$.dataset.ref_keys", expected)
    if _are_flags(rows, name, feature, count):
        note = f"`{name}` holds a 0 or 1 for each label: they were matched by number"
        return _References([name], lambda row, number: [int(flag) for flag in row[name]], (note,))
    alignment = labels.align_column(rows, name, config, question)

    def read_lists(row: Mapping[str, Any], number: int) -> list[int]:
        given = {alignment.id(value, number) for value in row[name] or []}
        return [int(label in given) for label in range(count)]

    return _References([name], read_lists, alignment.notes)


def _are_flags(rows: Dataset, name: str, feature: object, count: int) -> bool:
    """Return whether all lists of a column hold 0 or 1 for each of `count` labels."""
    numeric = ("int", "uint", "float", "bool")
    if getattr(feature, "names", None) is not None or not str(getattr(feature, "dtype", "")).startswith(numeric):
        return False
    lists = (row[name] for row in data.iter_rows(rows, [name]))
    return all(values and len(values) == count and set(values) <= {0, 1} for values in lists)


def _rows(
    rows: Dataset, question: Question, texts: text.Texts, columns: Sequence[str], references: _References
) -> Iterator[Row]:
    for block in data.numbered_blocks(rows, [*columns, *references.columns], question):
        items, was_cut = texts.encode(*text.expect_columns(block, columns))
        for (number, row), item, cut in zip(block, items, was_cut):
            if not item["input_ids"].size:
                place, expected = "$.dataset.data_keys.primary", "a text that gives a token"
                raise data.bad_value(row[columns[0]], columns[0], number, place, expected)
            yield Row([item], references.read(row, number), counts={"texts": 1, "cut": int(cut)})
