"""`LocalHub.environment`: libraries without an endpoint argument use the Hub from a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchcard.testing import LocalHub

CHILD = """
import sys
import numpy as np
from transformers import AutoImageProcessor, AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("someone/tiny", revision=sys.argv[1])
processor = AutoImageProcessor.from_pretrained("someone/tiny", revision=sys.argv[1])
assert model.classifier.bias.tolist() == [1.0, 2.0], model.classifier.bias
assert processor(np.zeros((40, 40, 3), np.uint8), return_tensors="np")["pixel_values"].shape == (1, 3, 32, 32)
from datasets import load_dataset
whole = load_dataset("someone/data")
assert {split: len(rows) for split, rows in whole.items()} == {"train": 3, "validation": 2}
part = load_dataset("someone/data", split="validation", revision=sys.argv[2])
assert part["text"] == ["d", "e"]
assert [row["label"] for row in load_dataset("someone/data", split="train", streaming=True)] == [0, 1, 0]
whole.push_to_hub("local-user/copy", private=True)
assert load_dataset("local-user/copy", split="train")["text"] == ["a", "b", "c"]
"""


@pytest.mark.slow
def test_transformers_and_datasets_load_from_it(tmp_path: Path) -> None:
    """A process with this environment loads a model and a data set by name, and pushes one."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet
    from safetensors.numpy import save_file

    model, data = tmp_path / "model", tmp_path / "data" / "data"
    model.mkdir()
    data.mkdir(parents=True)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"], "image_size": 32, "patch_size": 16}
    (model / "config.json").write_text(json.dumps({**config, **sizes, "id2label": {"0": "a", "1": "b"}}))
    processor = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    (model / "preprocessor_config.json").write_text(json.dumps(processor))
    # transformers initializes the missing tensors; this one shows that the file was read.
    bias = {"classifier.bias": np.array([1.0, 2.0], np.float32)}
    save_file(bias, model / "model.safetensors", metadata={"format": "pt"})
    for split, rows in {
        "train": {"text": ["a", "b", "c"], "label": [0, 1, 0]},
        "validation": {"text": ["d", "e"], "label": [1, 1]},
    }.items():
        parquet.write_table(pa.table(rows), data / f"{split}-00000-of-00001.parquet")
    with LocalHub() as hub:
        shas = [hub.add_model("someone/tiny", model), hub.add_dataset("someone/data", tmp_path / "data")]
        environment = os.environ | hub.environment() | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", CHILD, *shas], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert hub.repo("local-user/copy", "dataset").private
