"""Audio classification: figures as plain PyTorch gives them, sounds of several forms, and hostile ones."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import tiny_audio
import tiny_text

from benchcard import testing
from benchcard.errors import ArtifactError, SpecError
from benchcard.evaluation.rows import Rows
from benchcard.tasks.audio_classification import AudioClassification

TASK = "audio-classification"
NAMES = ["noise", "speech", "tone"]
SOUNDS = tiny_audio.sounds(9)
LABELS = [index % 3 for index in range(9)]
NAMED = datasets.ClassLabel(names=NAMES)
SAMPLES = datasets.List(datasets.Value("float32"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a classifier."""
    maps = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
    return tiny_audio.write_model(tmp_path_factory.mktemp("model"), "ForSequenceClassification", **maps)


def write_data(folder, values, feature=SAMPLES):
    """A data set of sounds and labels."""
    columns = {"audio": values, "label": LABELS[: len(values)]}
    if not isinstance(feature, datasets.Audio):
        return tiny_text.write_data(folder, columns, {"audio": feature, "label": NAMED})
    # `datasets` encodes sounds with torchcodec only, but takes files as they are.
    stored = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    table = datasets.Dataset.from_dict(columns, datasets.Features({"audio": stored, "label": NAMED}))
    folder.mkdir()
    table.cast_column("audio", feature).to_parquet(folder / "validation-00000-of-00001.parquet")
    return folder


def expected_logits(model):
    """The logits of PyTorch for each sound alone."""
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    network = AutoModelForAudioClassification.from_pretrained(model).eval()
    extractor = AutoFeatureExtractor.from_pretrained(model)
    with torch.inference_mode():
        made = [extractor(sound, sampling_rate=tiny_audio.RATE, return_tensors="pt") for sound in SOUNDS]
        return np.concatenate([network(**each).logits.numpy() for each in made])


@pytest.mark.parametrize("framework", ["pytorch", "onnxruntime"])
def test_figures_are_those_of_plain_pytorch(model, tmp_path, framework):
    """For sounds of other lengths than at the export."""
    data = write_data(tmp_path / "data", [sound.tolist() for sound in SOUNDS])
    passed = testing.pass_through(TASK, model, data, tmp_path, framework=framework)
    logits = expected_logits(model)
    np.testing.assert_allclose(passed.kept["scores"], logits, atol=1e-4)
    assert passed.predictions == logits.argmax(axis=1).tolist()
    assert passed.metrics["accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == LABELS))


def test_a_sound_is_the_same_in_every_form(model, tmp_path):
    """As a list of samples, an array with its rate, and a WAV file of floats, of integers or of two channels."""
    whole = [np.round(sound * 32768).clip(-32768, 32767).astype(np.int16) for sound in SOUNDS]
    floats = [(sound / 32768).astype(np.float32) for sound in whole]
    dictionary = {"array": SAMPLES, "sampling_rate": datasets.Value("int64")}
    files = datasets.Audio()
    forms = {
        "lists": ([sound.tolist() for sound in floats], SAMPLES),
        "arrays": ([{"array": sound.tolist(), "sampling_rate": 16000} for sound in floats], dictionary),
        "floats": ([{"bytes": tiny_audio.wav(sound), "path": None} for sound in floats], files),
        "integers": ([{"bytes": tiny_audio.wav(sound), "path": None} for sound in whole], files),
        "stereo": ([{"bytes": tiny_audio.wav(np.stack([sound] * 2, axis=1)), "path": None} for sound in whole], files),
    }
    features = {}
    for name, (values, feature) in forms.items():
        tiny_text.prepare(TASK, model, write_data(tmp_path / name, values, feature), tmp_path / f"{name}-prepared")
        rows = Rows(tmp_path / f"{name}-prepared")
        features[name] = [rows.items.item(index)["input_values"] for index in range(len(SOUNDS))]
    for name in forms:
        for actual, expected in zip(features[name], features["lists"], strict=True):
            np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_another_sampling_rate_is_converted_and_noted(model, tmp_path):
    """A tone keeps its pitch; the number of samples follows the rate."""
    tones = [np.sin(2 * np.pi * 440 * np.arange(rate // 5) / rate).astype(np.float32) for rate in (8000, 16000)]
    values = [{"array": tone.tolist(), "sampling_rate": len(tone) * 5} for tone in tones]
    data = write_data(tmp_path / "data", values, {"array": SAMPLES, "sampling_rate": datasets.Value("int64")})
    prepared = tiny_text.prepare(TASK, model, data, tmp_path / "prepared")
    assert "1 of 2 sounds was converted to the model's sampling rate" in prepared.notes
    rows = Rows(tmp_path / "prepared")
    converted, own = (rows.items.item(index)["input_values"] for index in range(2))
    assert converted.shape == own.shape
    np.testing.assert_allclose(converted[200:-200], own[200:-200], atol=0.02)


@pytest.mark.parametrize(
    ("value", "feature", "message"),
    [
        (None, SAMPLES, "there is none"),
        ([], SAMPLES, "want of samples"),
        ([float("nan")] * 400, SAMPLES, "not finite"),
        ({"bytes": b"ID3 music", "path": None}, datasets.Audio(), "no WAV file.*convert it"),
        ({"bytes": b"RIFFxxxx", "path": None}, datasets.Audio(), "take such rows out"),
        ("text", datasets.Value("string"), "of the type str"),
    ],
)
def test_what_is_no_sound_is_refused_with_its_row(model, tmp_path, value, feature, message):
    """The message has the reason and what to do."""
    data = write_data(tmp_path / "data", [value], feature)
    with pytest.raises(SpecError, match=rf"row 0 of `audio`.*{message}"):
        tiny_text.prepare(TASK, model, data, tmp_path / "prepared")


def test_timed_inputs_have_the_length_that_is_asked_for(model, tmp_path):
    """In samples; a second by default. A folder without a feature extractor is refused."""
    for length, expected in ((None, 16000), (4000, 4000)):
        inputs, actual = AudioClassification().inputs(model, 3, length, 0)
        assert (inputs["input_values"].shape, actual) == ((3, expected), expected)
        assert inputs["attention_mask"].dtype == np.int64
    with pytest.raises(ArtifactError, match=r"feature extractor of .* cannot be loaded.*save_pretrained"):
        AudioClassification().inputs(tmp_path, 1, None, 0)
