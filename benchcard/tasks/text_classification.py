"""Text classification: a text or a pair of texts in; a label, several labels, or a number out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.spec.schema import Boolean, MappingOf, Number, Text, ValueType
from benchcard.tasks import Prepared, Question, Row, data, labels, text
from benchcard.tasks.outputs import output
from benchcard.tasks.pooling import read_json
from benchcard.utils.text import format_value, join_names

if TYPE_CHECKING:
    import datasets


Reference = Callable[[Mapping[str, Any], int], Any]

# What becomes of the one output of a model that gives a number, by the name of the class of torch.nn. The sigmoid keeps
# the order of outputs far below 0, too.
_ACTIVATIONS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "identity": lambda value: value,
        "sigmoid": lambda value: math.exp(min(value, 0.0)) / (1 + math.exp(-abs(value))),
        "tanh": math.tanh,
    }
)
_NUMBERS = {
    "identity": "the number is the model's output as it is",
    "sigmoid": "the number is the sigmoid of the model's output",
    "tanh": "the number is the hyperbolic tangent of the model's output",
}
# A label of several counts as given where its probability reaches this: the better half.
_THRESHOLD = 0.5
_PROBLEMS = {"regression": "is_regression", "multi_label_classification": "is_multi_label"}
_SEVERAL = "where a text may have several labels, and each column is one of them: `task_args: {is_multi_label: true}`"


class TextClassification:
    """The task `text-classification`.

    What a model gives is told by `task_args` (`is_regression`, `is_multi_label`), or by `problem_type` of its
    configuration; else it is one label.
    """

    metrics: tuple[str, ...] = ("accuracy",)
    has_length = True
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "label_mapping": MappingOf(open=True),
            "is_regression": Boolean(),
            "is_multi_label": Boolean(),
            "threshold": Number(0.0, 1.0),
            "activation_fn": Text(lambda: tuple(_ACTIVATIONS)),
        }
    )

    def metrics_for(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The metrics that are measured when the spec names none, for these `task_args`."""
        if arguments.get("is_regression"):
            return ("pearson", "spearman", "mse")
        return ("f1_micro", "f1_macro", "accuracy") if arguments.get("is_multi_label") else self.metrics

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Rows as token ids; a reference is a label's id in the model, a list with 0 or 1 for each of its labels, or a
        number.
        """
        texts = text.load_texts(question.model)
        columns = [data.primary(rows, question, "text"), data.secondary(rows, question)]
        context, notes, names, reference = _references(rows, question, texts.config)
        defaults = {"pos_label": context["positive"]} if "positive" in context else {}
        tallies = {"cut": f"{{cut}} of {{texts}} texts {{cut:was|were}} cut to {texts.maximum} tokens"}
        given = [column for column in columns if column]
        made = _rows(rows, question, texts, given, names, reference)
        facts = {}
        if context["problem"] == "is_regression":
            activation, whose = _activation(question, texts.config)
            context |= {"activation": activation, "texts": len(given), "maximum": texts.maximum}
            facts = {"activation_fn": activation}
            notes = (*notes, f"{_NUMBERS[activation]} ({whose})")
        elif "activation_fn" in question.arguments:
            found = "a model that gives labels"
            raise SpecError(Mistake("$.task_args.activation_fn", found, "a model with one output, for a number"))
        return Prepared(
            made,
            context,
            texts.pad(),
            texts.tokenizer.padding_side,
            notes=notes,
            tallies=tallies,
            metric_defaults=defaults,
            facts=facts,
        )

    def kept(
        self, outputs: Mapping[str, NDArray[Any]], inputs: Mapping[str, NDArray[Any]], context: Mapping[str, Any]
    ) -> Mapping[str, Sequence[NDArray[Any]]]:
        """`scores` `(labels,) float32`, the logits."""
        return {"scores": list(output(outputs, "logits"))}

    def prediction(self, items: Sequence[Mapping[str, NDArray[Any]]], memo: Any, context: Mapping[str, Any]) -> Any:
        """The id of the most likely label, a list with 0 or 1 for each label, or a number."""
        scores = items[0]["scores"]
        if context["problem"] == "is_regression":
            return _ACTIVATIONS[context["activation"]](float(scores[0]))
        if context["problem"] == "is_multi_label":
            return [int(score >= context["least_score"]) for score in scores]
        return int(scores.argmax())

    def inputs(
        self, model: Path, batch_size: int, input_length: int | None, seed: int
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """Token ids `(batch, tokens) int64` of single texts, without padding, and what the model takes beside them."""
        return text.load_texts(model).timed(batch_size, input_length, seed)


def _references(
    rows: datasets.Dataset, question: Question, config: Any
) -> tuple[dict[str, Any], tuple[str, ...], list[str], Reference]:
    """What the way out needs, notes, the columns that hold what is right, and how they become a reference."""
    given = question.arguments
    asked = [name for name in _PROBLEMS.values() if given.get(name)]
    if len(asked) > 1:
        raise SpecError(Mistake("$.task_args", join_names(asked), "one of them"))
    silent = not any(name in given for name in _PROBLEMS.values())
    problem = asked[0] if asked else _PROBLEMS.get(getattr(config, "problem_type", None) or "", "") if silent else ""
    context: dict[str, Any] = {
        "problem": problem,
        "labels": [config.id2label[index] for index in sorted(config.id2label)],
    }
    if (problem == "is_regression") != (config.num_labels == 1):
        raise SpecError(_outputs(config.num_labels, told=bool(asked)))
    if problem == "is_multi_label":
        threshold = given.get("threshold", _THRESHOLD)
        context["least_score"] = (
            math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else math.copysign(math.inf, threshold - 0.5)
        )
    if not question.labelled:
        return context, (), [], lambda row, number: None
    if problem == "is_multi_label":
        return context, *_several(rows, question, config)
    name = data.reference(rows, question, "label", "" if problem else _SEVERAL)
    if problem == "is_regression":
        return context, (), [name], lambda row, number: _number(row[name], name, number)
    alignment = labels.align(config.id2label, *labels.of_column(rows, name), given.get("label_mapping"))
    context |= alignment.context
    return context, alignment.notes, [name], lambda row, number: alignment.id(row[name], number)


def _activation(question: Question, config: Any) -> tuple[str, str]:
    """Return what is done with a model's one output, and who asks for it: `task_args`, what sentence-transformers keeps
    in the model's folder, or what both libraries do where a folder says nothing.

    Source: `get_default_activation_fn` of `CrossEncoder`, sentence-transformers 6.2; `postprocess` of
    `TextClassificationPipeline`, transformers 5.23.

    Raises:
        ArtifactError: The folder asks for one that is not known here.
    """
    settings, own = _settings(question.model), getattr(config, "sentence_transformers", None)
    places = {
        "`activation_fn` of `config_sentence_transformers.json`": settings.get("activation_fn"),
        "`sentence_transformers.activation_fn`": own.get("activation_fn") if isinstance(own, Mapping) else None,
        "`sbert_ce_default_activation_function`": getattr(config, "sbert_ce_default_activation_function", None),
    }
    if name := question.arguments.get("activation_fn"):
        return name, "`task_args.activation_fn`"
    for place, path in places.items():
        if path is not None:
            name = str(path).rpartition(".")[2].lower()
            if not str(path).startswith("torch.nn.") or name not in _ACTIVATIONS:
                raise ArtifactError(
                    f"{question.model} asks for the activation `{path}` ({place}); expected Identity, Sigmoid or Tanh "
                    f"of torch.nn. Name the one to apply in `task_args: {{activation_fn: …}}`: "
                    f"{join_names(_ACTIVATIONS)}"
                )
            return name, f"{place} in the model's folder"
    if getattr(config, "problem_type", None) == "regression":
        return "identity", "the model's `problem_type` is regression"
    return "sigmoid", "as in transformers and sentence-transformers, where the model's folder asks for nothing else"


def _settings(model: Path) -> Mapping[str, Any]:
    """Return what sentence-transformers keeps beside a cross-encoder; empty where there is nothing.

    Raises:
        ArtifactError: It reads texts with a prompt, which is not done here.
    """
    settings = read_json(model / "config_sentence_transformers.json") or {}
    default = settings.get("default_prompt_name")
    if default is not None and (prompt := (settings.get("prompts") or {}).get(default)):
        raise ArtifactError(f"{model} reads every text behind the prompt {prompt!r}, which is not supported here")
    return settings


def _outputs(count: int, told: bool) -> Mistake:
    """What is wrong where a model with one output is to give labels, or one with several a number."""
    place = "$.task_args.is_regression"
    if count == 1:
        expected = "a model with an output for each label, or `is_regression: true`"
        return Mistake(place, "a model with one output, which can only give a number", expected)
    said = "leave `is_regression` out" if told else "its `problem_type` says so: `is_regression: false`"
    hint = f"{said} where it gives labels"
    return Mistake(place, f"a model with {count} outputs", "a model with one output for a number", hint)


def _several(rows: datasets.Dataset, question: Question, config: Any) -> tuple[tuple[str, ...], list[str], Reference]:
    """Several labels to a row: one column with 0 or 1 for each label, one with lists of labels, or lists with 0 or 1
    for each label of the model.
    """
    count, mapping = config.num_labels, question.arguments.get("label_mapping")
    if len(question.ref_keys) > 1:
        for index, name in enumerate(question.ref_keys):
            data.column(rows, name, f"$.dataset.ref_keys[{index}]")
        alignment = labels.align(config.id2label, list(question.ref_keys), [], mapping)

        def columns(row: Mapping[str, Any], number: int) -> list[int]:
            values = [0] * count
            for index, name in enumerate(question.ref_keys):
                values[alignment.ids[index]] = _flag(row[name], name, number)
            return values

        return alignment.notes, list(question.ref_keys), columns
    name = data.reference(rows, question, "labels")
    feature = getattr(rows.features[name], "feature", None)
    if feature is None:
        raise SpecError(
            Mistake(
                "$.dataset.ref_keys",
                f"the column `{name}` of {rows.features[name]}",
                "a column of lists, or one column for each label",
            )
        )
    if _are_flags(rows, name, feature, count):
        note = f"`{name}` holds a 0 or 1 for each label: they were matched by number"
        return (note,), [name], lambda row, number: [_flag(value, name, number) for value in row[name]]
    alignment = labels.align(config.id2label, *labels.of_column(rows, name), mapping)

    def lists(row: Mapping[str, Any], number: int) -> list[int]:
        values = [0] * count
        for value in row[name] or ():
            values[alignment.id(value, number)] = 1
        return values

    return alignment.notes, [name], lists


def _are_flags(rows: datasets.Dataset, name: str, feature: Any, count: int) -> bool:
    """Whether lists hold 0 or 1 for each of `count` labels, and not the labels that are given."""
    if getattr(feature, "names", None) is not None or not str(getattr(feature, "dtype", "")).startswith(
        ("int", "uint", "float", "bool")
    ):
        return False
    return all(len(row[name] or ()) == count and set(row[name]) <= {0, 1} for row in data.iter_rows(rows, [name]))


def _flag(value: Any, name: str, number: int) -> int:
    if value not in (0, 1):
        raise SpecError(Mistake("$.dataset.ref_keys", f"{format_value(value)} in row {number} of `{name}`", "0 or 1"))
    return int(value)


def _number(value: Any, name: str, number: int) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise SpecError(
            Mistake("$.dataset.ref_keys[0]", f"{format_value(value)} in row {number} of `{name}`", "a number")
        )
    return float(value)


def _rows(
    rows: datasets.Dataset,
    question: Question,
    texts: text.Texts,
    columns: Sequence[str],
    names: Sequence[str],
    reference: Reference,
) -> Iterator[Row]:
    numbered = (
        (question.number(index), row)
        for index, row in enumerate(data.iter_rows(rows, [*dict.fromkeys([*columns, *names])]))
    )
    while block := list(islice(numbered, data.READ_ROWS)):
        told = [
            [text.expect_text(row[column], column, number, key) for number, row in block]
            for key, column in zip(("primary", "secondary"), columns)
        ]
        items, cut = texts.encode(*told)
        for (number, row), item, was_cut in zip(block, items, cut):
            if not item["input_ids"].size:
                raise SpecError(
                    Mistake(
                        "$.dataset.data_keys.primary",
                        f"{format_value(row[columns[0]])} in row {number} of `{columns[0]}`",
                        "a text that gives a token",
                    )
                )
            yield Row([item], reference(row, number), counts={"texts": 1, "cut": int(was_cut)})
