"""A model with code of its own, from the spec to the card: refused with a message, or run with a note."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import tiny_text
import torch
from safetensors.torch import save_file

from benchcard import Benchmark
from benchcard.tasks.trust import NOTE

CONFIGURATION = """
from transformers import PretrainedConfig


class BagConfig(PretrainedConfig):
    model_type = "bag-of-words"

    def __init__(self, vocab_size=24, hidden_size=8, **more):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**more)
"""
MODELING = """
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from .configuration_bag import BagConfig


class BagForSequenceClassification(PreTrainedModel):
    config_class = BagConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.head = torch.nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **others):
        mask = attention_mask.unsqueeze(-1).to(self.words.weight.dtype)
        return SequenceClassifierOutput(logits=self.head((self.words(input_ids) * mask).sum(1) / mask.sum(1)))
"""
SPEC = {
    "task": "text-classification",
    "model": "./model",
    "dataset": {"path": "./data", "eval_split": "validation", "data_keys": {"primary": "text"}, "ref_keys": ["label"]},
    "grid": {"framework": ["onnxruntime", "pytorch"]},
    "duration": 0,
}


@pytest.fixture
def ground(tmp_path, monkeypatch):
    """Make a folder with a model whose class transformers does not know, and rows for it, and change to it."""
    words, model = len(tiny_text.WORDS.split()), tmp_path / "model"
    tiny_text.write_tokenizer(model)
    (model / "configuration_bag.py").write_text(CONFIGURATION)
    (model / "modeling_bag.py").write_text(MODELING)
    named = {"AutoConfig": "configuration_bag.BagConfig"}
    named["AutoModelForSequenceClassification"] = "modeling_bag.BagForSequenceClassification"
    config = {"model_type": "bag-of-words", "auto_map": named, "vocab_size": words, "id2label": {0: "no", 1: "yes"}}
    (model / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    shapes = {"words.weight": (words, 8), "head.weight": (2, 8), "head.bias": (2,)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    texts = ["the good film", "the bad film", "a dull film", "anna lives in paris"]
    tiny_text.write_data(tmp_path / "data", {"text": texts * 4, "label": [1, 0, 0, 1] * 4})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    # Where a test before has put another place for such code on the path, children would look there first.
    there = [path for path in sys.path if not Path(path, "transformers_modules").exists()]
    monkeypatch.setattr(sys, "path", there)
    return tmp_path


@pytest.mark.slow
def test_code_of_a_model_runs_only_where_it_is_asked_for(ground):
    """Off, every row fails and says what a spec can do; on, the graph predicts what PyTorch does, and the card says
    that the code ran.
    """
    refused = Benchmark(**SPEC).run(ground / "off", progress=False)
    assert refused.failures["message"].str.contains("the spec has `trust_remote_code: true`").all()
    assert set(refused.failures["row"]) == {0, 1}
    results = Benchmark(**SPEC, trust_remote_code=True).run(ground / "on", progress=False)
    assert results.failures.empty, results.failures["message"].tolist()
    assert results.quality["predictions_changed"][1] == 0
    assert NOTE in results.notes
    assert "code of the model's repository ran" in results.card().text
    assert "trust_remote_code" in results.card("classic").text
