"""Speech recognition by connectionist temporal classification (CTC): a sound in, its transcript out.

The transcript is that of the most likely token of each frame, without a language model. Sounds are never padded: they
share a batch only where they have the same length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from benchcard.errors import ArtifactError
from benchcard.spec.schema import ValueType
from benchcard.tasks import ComparedOutput, Prepared, Question, Row, Usage, audio, data
from benchcard.tasks.outputs import output
from benchcard.tasks.trust import trusted
from benchcard.utils.text import first_line

if TYPE_CHECKING:
    import datasets

    from benchcard.tasks.protocol import Arrays, Context, Kept, TimedInputs

_USAGE = Usage(
    inputs=(("audio",), ("speech",), ("file",)),
    input_kind="audio",
    references=("text", "sentence", "transcription", "transcript", "normalized_text"),
    reference_kinds=("text",),
    metrics=("wer", "cer"),
    datasets=("openslr/librispeech_asr", "google/fleurs"),
)


@dataclass(frozen=True)
class _Decoder:
    """How the ids of frames become a text: `tokens` by id, the id of the `blank`, and the token between words."""

    tokens: tuple[str, ...]
    blank: int
    delimiter: str

    def text(self, ids: Sequence[int]) -> str:
        """Return the transcript of the ids of frames.

        Source: `convert_tokens_to_string` of transformers/models/wav2vec2/tokenization_wav2vec2.py.
        """
        letters = [self.tokens[token] for token, _ in groupby(ids) if token != self.blank]
        return "".join(" " if letter == self.delimiter else letter for letter in letters).strip()


class SpeechRecognition:
    """The task `automatic-speech-recognition` of models with CTC; lengths of inputs are in samples."""

    metrics: tuple[str, ...] = ("wer",)
    has_length = True
    outputs: tuple[Mapping[str, int], ...] = ({"logits": 3},)
    arguments: Mapping[str, ValueType] = MappingProxyType({})

    def prepare(self, rows: datasets.Dataset, question: Question) -> Prepared:
        """Return sounds as the features of the model's extractor; a reference is the transcript."""
        sounds, decoder = audio.load_sounds(question.model), _load_decoder(question.model)
        column = data.primary(rows, question, "audio")
        reference = data.reference(rows, question, "text") if question.labelled else ""
        note = "transcripts are compared as they are: case and punctuation count"
        return Prepared(
            _rows(rows, question, sounds, column, reference), asdict(decoder), notes=(note,), tallies=audio.TALLIES
        )

    def usage(self, arguments: Mapping[str, object], names: Sequence[str]) -> Usage:
        """Return how the task is commonly used."""
        return _USAGE

    def kept(self, outputs: Arrays, inputs: Arrays, context: Context) -> Kept:
        """Return `tokens` `(frames,) int32`, the most likely token of each frame."""
        return {"tokens": list(output(outputs, "logits").argmax(axis=-1).astype(np.int32))}

    def prediction(self, items: Sequence[Arrays], memo: object, context: Context) -> str:
        """Return the transcript."""
        return msgspec.convert(context, _Decoder).text(items[0]["tokens"].tolist())

    def compared_output(self, context: Context) -> ComparedOutput:
        """Return that models are compared by their transcripts."""
        return ComparedOutput("prediction")

    def inputs(self, model: Path, batch_size: int, input_length: int | None, seed: int) -> TimedInputs:
        """Return the features of quiet noise of as many samples, a second by default, and their number."""
        return audio.load_sounds(model).timed(batch_size, input_length, seed)


def _load_decoder(model: Path) -> _Decoder:
    """Return the decoder of the tokenizer in a model's folder.

    Raises:
        ArtifactError: It has none, or none for CTC.
    """
    from transformers import AutoTokenizer, Wav2Vec2CTCTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trusted())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        advice = "Save that of its training into the folder."
        raise ArtifactError(f"The tokenizer of {model} cannot be loaded: {first_line(error)}. {advice}") from error
    if not isinstance(tokenizer, Wav2Vec2CTCTokenizer) or tokenizer.do_lower_case:
        kind = f"{type(tokenizer).__name__}{' in lower case' if getattr(tokenizer, 'do_lower_case', False) else ''}"
        needed = (
            "a Wav2Vec2CTCTokenizer, whose tokens are letters. Models with a decoder, as Whisper, are not supported"
        )
        raise ArtifactError(f"{model} has a {kind}; expected {needed}.")
    names = {index: token for token, index in tokenizer.get_vocab().items()}
    unknown = str(tokenizer.unk_token)
    tokens = tuple(names.get(index, unknown) for index in range(max(names) + 1))
    return _Decoder(tokens, int(tokenizer.pad_token_id), str(tokenizer.word_delimiter_token))


def _rows(
    rows: datasets.Dataset, question: Question, sounds: audio.Sounds, column: str, reference: str
) -> Iterator[Row]:
    for number, row, features, counts in audio.numbered_sounds(rows, question, sounds, column, reference):
        transcript = row[reference] if reference else None
        if reference and (not isinstance(transcript, str) or not transcript.strip()):
            hint = "take such rows out of the data set"
            place, expected = "$.dataset.ref_keys[0]", "a transcript that is not empty"
            raise data.bad_value(transcript, reference, number, place, expected, hint)
        yield Row([features], transcript, counts=counts)
