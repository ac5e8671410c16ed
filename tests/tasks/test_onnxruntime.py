"""Each text task through an exported graph: predictions that are PyTorch's, from the same prepared rows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny_text

from benchcard import registry
from benchcard.evaluation.rows import read_predictions
from benchcard.steps import evaluate, models

ROWS = {
    "text-classification": {"text": ["good film", "the dull film is bad", "anna lives"], "label": [0, 1, 2]},
    "token-classification": {
        "tokens": [["Anna", "lives"], ["Bob", "works", "in", "Rome", "films"]],
        "ner_tags": [["B-PER", "O"], ["B-PER", "O", "O", "B-LOC", "O"]],
    },
    "question-answering": {
        "question": ["Anna lives in", "who works"],
        "context": ["Anna lives in Paris.", "bob works for acme in rome and " * 8],
        "answers": ["Paris", ""],
    },
    "sentence-similarity": {
        "sentence1": ["good film", "anna lives"],
        "sentence2": ["bright film in paris", "bob"],
        "score": [4.0, 1.0],
    },
}
CLASSES = {
    "text-classification": ("ForSequenceClassification", ["A", "B", "C"]),
    "token-classification": ("ForTokenClassification", ["O", "B-PER", "B-LOC"]),
    "question-answering": ("ForQuestionAnswering", None),
    "sentence-similarity": ("Model", None),
}


@pytest.mark.slow
@pytest.mark.parametrize("task", ROWS)
def test_onnxruntime_predicts_what_pytorch_predicts(task, tmp_path):
    """A task's model can be exported, and fp32 in onnxruntime gives what PyTorch gives, padded batches and all."""
    torch, model = passed(task, tmp_path)
    predictions, kept = evaluated(task, torch.prepared, exported(task, model, tmp_path), tmp_path)
    agree(task, predictions, kept, torch)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "size"), [("text-classification", 1), ("sentence-similarity", 3)])
def test_a_graph_of_one_batch_size_predicts_the_same(task, size, tmp_path):
    """A graph that takes one batch size gets it, whether the rows fill the last batch or not."""
    torch, model = passed(task, tmp_path)
    path = exported(task, model, tmp_path)
    graph = onnx.load(path)
    for entry in graph.graph.input:
        entry.type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(graph, path)
    predictions, kept = evaluated(task, torch.prepared, path, tmp_path)
    agree(task, predictions, kept, torch)


def passed(task, folder):
    """What PyTorch came to over the task's rows, and the folder of the model."""
    kind, labels = CLASSES[task]
    tiny_text.write_tokenizer(folder / "model")
    model = tiny_text.write_model(folder / "model", kind, labels)
    data = tiny_text.write_data(folder / "data", ROWS[task])
    return tiny_text.passed(task, model, data, folder, registry.task(task).metrics), model


def exported(task, model, folder):
    """The model's graph."""
    (folder / "graph").mkdir()
    request = models.ExportRequest(
        model={}, task=task, opset=17, from_transformers=True, file_name=None, model_folder=model
    )
    outcome = models.export(request, folder / "graph", lambda done, total: None)
    return folder / "graph" / outcome.file


def evaluated(task, prepared, graph, folder):
    """Predictions of a graph, and what was kept of its outputs."""
    (folder / "onnx").mkdir()
    request = tiny_text.evaluate_request(task, prepared, graph, framework="onnxruntime")
    evaluate.evaluate(request, folder / "onnx", lambda done, total: None)
    return read_predictions(folder / "onnx")


def agree(task, predictions, kept, torch):
    """Both came to the same."""
    assert set(kept) == set(torch.kept)
    for name, values in kept.items():
        np.testing.assert_allclose(values, torch.kept[name], atol=1e-4)
    if task == "sentence-similarity":
        np.testing.assert_allclose(predictions, torch.predictions, atol=1e-5)
    elif task == "question-answering":
        assert [each["prediction_text"] for each in predictions] == [
            each["prediction_text"] for each in torch.predictions
        ]
    else:
        assert predictions == torch.predictions
