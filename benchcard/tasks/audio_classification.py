"""Audio classification: a sound in, one of the model's labels out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from benchcard.spec.schema import MappingOf, ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, audio, data, labels
from benchcard.tasks.config import load_config
from benchcard.tasks.outputs import output

if TYPE_CHECKING:
    import datasets

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs

_USAGE = Usage(
    inputs=(("audio",), ("sound",), ("speech",)),
    input_kind="audio",
    references=("label", "labels", "intent_class", "emotion", "genre"),
    reference_kinds=("label", "integer", "text"),
    metrics=labels.METRICS,
    datasets=("google/speech_commands", "PolyAI/minds14"),
)


class AudioClassification:
    """The task `audio-classification`; lengths of inputs are in samples."""

    metrics: tuple[str, ...] = ("accuracy",)
    has_length = True
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 2},)
    arguments: Mapping[str, ValueType] = MappingProxyType({"label_mapping": MappingOf(open=True)})

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Return sounds as the features of the model's extractor, and references as the model's ids."""
        sounds, config = audio.load_sounds(question.model), load_config(question.model)
        column, reference, alignment = data.primary(rows, question, "audio"), "", None
        if question.labelled:
            reference = data.reference(rows, question, "label")
            alignment = labels.align_column(rows, reference, config, question)
        return Prepared(
            _rows(rows, question, sounds, column, reference, alignment),
            {"labels": labels.model_names(config), **(alignment.context if alignment else {})},
            sounds.pad(),
            notes=alignment.notes if alignment else (),
            tallies=audio.TALLIES,
            metric_defaults={"pos_label": alignment.positive} if alignment else {},
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `scores` `(labels,) float32`, the logits."""
        return {"scores": list(output(outputs, "logits"))}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> int:
        """Return the id of the most likely label."""
        return int(items[0]["scores"].argmax())

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their logits."""
        return ComparedOutput("label", "scores")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return the features of quiet noise of as many samples, a second by default, and their number."""
        return audio.load_sounds(model).timed(batch_size, input_length, seed)


def _rows(
    rows: datasets.Dataset,
    question: Question,
    sounds: audio.Sounds,
    column: str,
    reference: str,
    alignment: labels.Alignment | None,
) -> Iterator[Row]:
    for number, row, features, counts in audio.numbered_sounds(rows, question, sounds, column, reference):
        label = None if alignment is None else alignment.id(row[reference], number)
        yield Row([features], label, counts=counts)
