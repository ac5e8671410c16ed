"""Each text task through an exported graph: predictions that are PyTorch's, from the same prepared rows."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_text

from benchcard import registry

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
    from benchcard import actions
    from benchcard.tasks.rows import read_predictions
    from benchcard.worker import Need

    kind, labels = CLASSES[task]
    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", kind, labels)
    data = tiny_text.write_data(tmp_path / "data", ROWS[task])
    metrics = registry.task(task).metrics
    torch = tiny_text.passed(task, model, data, tmp_path, metrics)
    (tmp_path / "graph").mkdir()
    asked = {"from_transformers": True, "task": task, "opset": 17}
    graph = actions.export(asked, {}, {"model": str(model)}, tmp_path / "graph", lambda done, total: None)
    (tmp_path / "onnx").mkdir()
    actions.evaluate(
        {"framework": "onnxruntime", "options": {"task": task}, "task": task, "batch_size": None},
        {"inputs": Need(torch.prepared, {})},
        {"model": str(tmp_path / "graph" / graph["file"]), "threads": 1},
        tmp_path / "onnx",
        lambda done, total: None,
    )
    predictions, kept = read_predictions(tmp_path / "onnx")
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
