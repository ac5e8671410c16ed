"""Zero-shot classification: a text and candidate labels in, one of them out, by a model of natural language inference.

Each candidate becomes a hypothesis, and the label is that whose hypothesis the text entails most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchcard.errors import ArtifactError, Mistake, SpecError
from benchcard.spec.schema import ListOf, MappingOf, Text, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, data, labels, text
from benchcard.tasks.outputs import output

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs

_USAGE = Usage(
    inputs=(("text",), ("sentence",), ("content",), ("review",), ("tweet",)),
    input_kind="text",
    references=("label", "labels", "topic", "category", "intent"),
    reference_kinds=("text", "label"),  # Its labels are not matched with those of the model.
    metrics=labels.METRICS,
    datasets=("fancyzhx/ag_news", "stanfordnlp/imdb"),
    input_length=text.DEFAULT_LENGTH,
)


@dataclass(frozen=True)
class _Arguments:
    """`task_args`. Source of the template: `ZeroShotClassificationArgumentHandler` and `preprocess` of transformers."""

    candidate_labels: tuple[str, ...] = ()
    hypothesis_template: str = "This example is {}."


class ZeroShotClassification:
    """The task `zero-shot-classification`: the candidates are those of `task_args`, else the labels of the data set."""

    metrics: tuple[str, ...] = ("accuracy",)
    has_length = True
    loads_as = "text-classification"
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 2},)
    arguments: Mapping[str, ValueType] = MappingProxyType(
        {
            "candidate_labels": ListOf(Text(), least=1),
            "hypothesis_template": Text(),
            "label_mapping": MappingOf(open=True),
        }
    )

    def prepare(self, rows: Dataset, question: Question) -> Prepared:
        """Return the pair of text and hypothesis of each candidate as token ids; a reference is the number of the right
        candidate.
        """
        texts = text.load_texts(question.model, maximum=question.maximum)
        arguments = msgspec.convert(question.arguments, _Arguments)
        if "{}" not in arguments.hypothesis_template:
            expected = "a text with `{}`, where the label is put: `This example is {}.`"
            raise SpecError(Mistake("$.task_args.hypothesis_template", f"`{arguments.hypothesis_template}`", expected))
        column = data.primary(rows, question, "text")
        reference = "" if question.labelled is False and arguments.candidate_labels else _reference(rows, question)
        names = arguments.candidate_labels or _label_names(rows, reference)
        hypotheses = [arguments.hypothesis_template.replace("{}", name) for name in names]
        alignment = None
        if question.labelled:
            declared, values = labels.column_labels(rows, reference)
            alignment = labels.align(dict(enumerate(names)), declared, values, labels.label_mapping(question))
        form = f"the candidates are {', '.join(names)}, as `{arguments.hypothesis_template}`"
        return Prepared(
            _rows(rows, question, texts, column, hypotheses, reference, alignment),
            {
                "labels": list(names),
                "entailment": _entailment(texts.config),
                **(alignment.context if alignment else {}),
            },
            texts.pad(),
            texts.tokenizer.padding_side,
            notes=(form, *(alignment.notes if alignment else ())),
            tallies={
                "cut": f"{{cut}} of {{texts}} texts {{cut:was|were}} cut to {texts.maximum} tokens with a hypothesis"
            },
            metric_defaults={"pos_label": alignment.positive} if alignment else {},
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `scores` `(labels of the model,) float32`, the logits of one candidate."""
        return {"scores": list(output(outputs, "logits"))}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> int:
        """Return the number of the candidate with the highest logit of entailment."""
        entailment = msgspec.convert(context["entailment"], int)
        return int(np.argmax([item["scores"][entailment] for item in items]))

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their logits of each candidate."""
        return ComparedOutput("label", "scores")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return token ids `(batch, tokens) int64` of pairs of texts, without padding, and the other inputs."""
        return text.load_texts(model).timed(batch_size, input_length, seed, pair=True)


def _reference(rows: Dataset, question: Question) -> str:
    return data.reference(rows, question, "label")


def _label_names(rows: Dataset, column: str) -> tuple[str, ...]:
    """Return the candidates that a column of labels has: the names that it declares, else the texts in it, sorted."""
    declared, values = labels.column_labels(rows, column)
    names = declared or sorted(value for value in values if isinstance(value, str))
    if not names:
        actual = f"the column `{column}`, whose labels are numbers without names"
        hint = "say what they stand for, in their order: `task_args: {candidate_labels: [sports, politics]}`"
        raise SpecError(Mistake("$.dataset.ref_keys[0]", actual, "names of labels", hint))
    return tuple(names)


def _entailment(config: PretrainedConfig) -> int:
    """Return the id of the label `entailment`, as the pipeline of transformers finds it."""
    names = labels.model_names(config)
    ids = [index for index, name in enumerate(names) if name.lower().startswith("entail")]
    if len(ids) != 1:
        advice = "Use a model of natural language inference, with the names of its labels in `id2label` of config.json."
        raise ArtifactError(f"The model has the labels {', '.join(names)}; expected one `entailment`. {advice}")
    return ids[0]


def _rows(
    rows: Dataset,
    question: Question,
    texts: text.Texts,
    column: str,
    hypotheses: Sequence[str],
    reference: str,
    alignment: labels.Alignment | None,
) -> Iterator[Row]:
    columns = [column] if alignment is None else [column, reference]
    for block in data.numbered_blocks(rows, columns, question):
        (sentences,) = text.expect_columns(block, [column])
        for (number, row), sentence in zip(block, sentences):
            items, was_cut = texts.encode([sentence] * len(hypotheses), hypotheses)
            label = None if alignment is None else alignment.id(row[reference], number)
            yield Row(items, label, counts={"texts": 1, "cut": int(any(was_cut))})
