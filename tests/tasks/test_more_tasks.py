"""Tasks in a whole run: drafted from a model and its data, exported, quantized and compared with the float model."""

from __future__ import annotations

import json

import datasets
import pytest
import tiny_audio
import tiny_text

from benchcard import Benchmark
from benchcard.drafting.draft import draft_spec
from benchcard.registry import tasks as names

TEXTS = ["anna lives in paris", "the good film", "bob works for acme", "a bright film", "the dull film lives"] * 5
NAMED = datasets.ClassLabel(names=["paris", "film"])
SOUND = datasets.List(datasets.Value("float32"))


def write_text(folder, kind, labels=None, tag=None):
    """A text model whose card says what it is for."""
    tiny_text.write_tokenizer(folder)
    tiny_text.write_model(folder, kind, labels)
    if tag:
        (folder / "README.md").write_text(f"---\npipeline_tag: {tag}\n---\n")


def fill_mask(folder):
    """A masked language model and texts."""
    write_text(folder, "ForMaskedLM")
    return {"text": TEXTS}, None


def zero_shot(folder):
    """A model of natural language inference, and texts with labels."""
    write_text(folder, "ForSequenceClassification", ["entailment", "contradiction"], "zero-shot-classification")
    features = {"text": datasets.Value("string"), "label": NAMED}
    return {"text": TEXTS, "label": [0, 1, 0, 1, 1] * 5}, features


def ranking(folder):
    """A cross-encoder, and queries with documents."""
    write_text(folder, "ForSequenceClassification", ["score"], "text-ranking")
    columns = {"query": TEXTS, "documents": [TEXTS[index : index + 3] or ["a"] * 3 for index in range(25)]}
    columns["labels"] = [[int(index % 2 == 0) for index, _ in enumerate(row)] for row in columns["documents"]]
    return columns, None


def retrieval(folder):
    """A model of embeddings, and queries with documents."""
    write_text(folder, "Model", tag="text-retrieval")
    columns = {"query": [f"{text} {index % 7}" for index, text in enumerate(TEXTS)]}
    columns["answer"] = [f"{text} {'good ' * (index % 4)}" for index, text in enumerate(TEXTS)]
    return columns, None


def write_sounds(**columns):
    """Files of sounds with other columns."""
    return {"audio": [{"bytes": tiny_audio.wav(sound), "path": None} for sound in tiny_audio.sounds(12)], **columns}


def audio_classification(folder):
    """A classifier of sounds."""
    maps = {"id2label": {0: "paris", 1: "film"}, "label2id": {"paris": 0, "film": 1}}
    tiny_audio.write_model(folder, "ForSequenceClassification", **maps)
    stored = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    return write_sounds(label=[0, 1] * 6), {"audio": stored, "label": NAMED}


def speech(folder):
    """A model with CTC."""
    from tasks.test_speech_recognition import TOKENS, write_tokenizer

    tiny_audio.write_model(folder, "ForCTC", vocab_size=len(TOKENS), pad_token_id=0)
    write_tokenizer(folder)
    stored = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    return write_sounds(text=["A B"] * 12), {"audio": stored, "text": datasets.Value("string")}


def detection(folder):
    """An object detector, and images with objects of three labels."""
    from tasks.test_object_detection import BOX, BOXES, CATEGORIES, NAMED, images, packed, write_model

    pytest.importorskip("pycocotools", reason="the extra `detection` is not installed")
    write_model(folder)
    objects = [{"bbox": boxes, "category": names} for boxes, names in zip(BOXES, CATEGORIES)]
    columns = {"image": [packed(image) for image in images()] * 3, "objects": objects * 3}
    feature = {"bbox": datasets.List(BOX), "category": datasets.List(NAMED)}
    return columns, {"image": datasets.Image(), "objects": feature}


RUNS = {
    "fill-mask": (fill_mask, "accuracy", "kl_mean"),
    "zero-shot-classification": (zero_shot, "accuracy", "kl_mean"),
    "text-ranking": (ranking, "ndcg_at_10", "rms_difference"),
    "text-retrieval": (retrieval, "float_index_ndcg_at_10", "cosine_mean"),
    "audio-classification": (audio_classification, "accuracy", "kl_mean"),
    "automatic-speech-recognition": (speech, "wer", "agreement"),
    "object-detection": (detection, "map", "predictions_changed"),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", RUNS)
def test_a_drafted_spec_runs_and_compares_int8_with_float(tmp_path, task):
    """The draft knows task, columns and metrics; the graph is PyTorch's, and the quantized row has all figures."""
    write, metric, fidelity = RUNS[task]
    assert task in names()
    model, data = tmp_path / "model", tmp_path / "data"
    model.mkdir()
    columns, features = write(model)
    data.mkdir()
    table = datasets.Dataset.from_dict(columns, datasets.Features(features) if features else None)
    if "audio" in columns:
        table = table.cast_column("audio", datasets.Audio())
    table.to_parquet(data / "validation-00000-of-00001.parquet")
    draft = draft_spec(model, data)
    assert not draft.missing, draft.missing
    values = draft.values()
    assert values["task"] == task
    assert metric in values["metrics"]
    grid = {"framework": ["onnxruntime", "pytorch"], "quantization_approach": ["dynamic", "static"]}
    grid["apply_quantization"] = [False, True]
    spec = {**values, "grid": grid, "duration": 0}
    spec["calibration"] = {"num_calibration_samples": 8}
    results = Benchmark(**spec).run(tmp_path / "run", progress=False)
    quality = results.quality
    assert quality.failure.isna().all(), list(quality.failure)
    is_float = ~quality.apply_quantization.astype(bool)
    assert quality[metric][is_float].nunique() == 1
    assert quality[fidelity][1:].notna().all()
    assert json.dumps(results.to_json())
