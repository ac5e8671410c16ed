"""Speech recognition: transcripts as the tokenizer of transformers decodes PyTorch's outputs, and hostile rows."""

from __future__ import annotations

import json

import datasets
import pytest
import tiny_audio
import tiny_text

from benchcard import testing
from benchcard.errors import ArtifactError, SpecError
from benchcard.tasks.speech_recognition import _Decoder

TASK = "automatic-speech-recognition"
TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDE", "'"]
SOUNDS = tiny_audio.sounds(8)
TEXTS = ["A B", "CAB", "DEAD BEE", "A'", "EBB", "CAB A", "B", "ABED"]
FEATURES = {"audio": datasets.List(datasets.Value("float32")), "text": datasets.Value("string")}


def write_tokenizer(folder, **settings):
    """A tokenizer of these letters."""
    from transformers import Wav2Vec2CTCTokenizer

    vocabulary = folder / "letters.json"
    vocabulary.write_text(json.dumps({token: index for index, token in enumerate(TOKENS)}))
    Wav2Vec2CTCTokenizer(str(vocabulary), **settings).save_pretrained(folder)
    vocabulary.unlink()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model with CTC."""
    folder = tmp_path_factory.mktemp("model")
    tiny_audio.write_model(folder, "ForCTC", vocab_size=len(TOKENS), pad_token_id=0)
    write_tokenizer(folder)
    return folder


def write_data(folder, texts=TEXTS):
    """A data set of sounds and transcripts."""
    sounds = [sound.tolist() for sound in SOUNDS[: len(texts)]]
    return tiny_text.write_data(folder, {"audio": sounds, "text": texts}, FEATURES)


def expected_texts(model):
    """The transcript of each sound alone, by PyTorch and the processor of transformers."""
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer

    network, tokenizer = AutoModelForCTC.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model)
    extractor = AutoFeatureExtractor.from_pretrained(model)
    texts = []
    for sound in SOUNDS:
        made = extractor(sound, sampling_rate=tiny_audio.RATE, return_tensors="pt")
        with torch.inference_mode():
            texts += tokenizer.batch_decode(network(**made).logits.argmax(-1))
    return texts


@pytest.mark.parametrize("framework", ["pytorch", "onnxruntime"])
def test_transcripts_are_those_of_transformers(model, tmp_path, framework):
    """For sounds of other lengths than at the export, in one pass."""
    from benchcard.metrics.transcripts import edits

    passed = testing.pass_through(TASK, model, write_data(tmp_path / "data"), tmp_path, framework=framework)
    expected = expected_texts(model)
    assert passed.predictions == expected
    assert len({*expected}) > 1
    wrong = sum(edits(predicted.split(), actual.split()) for predicted, actual in zip(expected, TEXTS))
    assert passed.metrics["wer"] == pytest.approx(wrong / sum(len(text.split()) for text in TEXTS))


@pytest.mark.parametrize("ids", [[], [0, 0], [5, 5, 0, 5, 4, 4, 6], [4, 6, 0, 6, 10, 7, 4], [3, 8, 0]])
def test_frames_become_text_as_in_transformers(tmp_path, ids):
    """Repeated tokens count once unless a blank is between them, and the delimiter is a space."""
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path)
    assert _Decoder(tuple(TOKENS), 0, "|").text(ids) == AutoTokenizer.from_pretrained(tmp_path, config=None).decode(ids)


@pytest.mark.parametrize("text", [None, " "])
def test_a_sound_without_a_transcript_is_refused(model, tmp_path, text):
    """The message names its row."""
    with pytest.raises(SpecError, match=r"a transcript that is not empty.*row 1 of `text`"):
        tiny_text.prepare(TASK, model, write_data(tmp_path / "data", ["A", text]), tmp_path / "prepared")


def test_a_model_without_letters_is_refused(tmp_path):
    """A tokenizer of words is none for CTC; a folder without one is told, too."""
    model = tiny_audio.write_model(tmp_path / "model", "ForCTC", vocab_size=len(TOKENS), pad_token_id=0)
    with pytest.raises(ArtifactError, match="tokenizer"):
        tiny_text.prepare(TASK, model, write_data(tmp_path / "data"), tmp_path / "prepared")
    tiny_text.write_tokenizer(model)
    with pytest.raises(ArtifactError, match="expected a Wav2Vec2CTCTokenizer"):
        tiny_text.prepare(TASK, model, write_data(tmp_path / "more"), tmp_path / "prepared")
