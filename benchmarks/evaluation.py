"""Compare a pass over an evaluation split with bare forward calls: `python benchmarks/evaluation.py`.

The models are a small BERT and a small ViT with random weights. The rows are prepared once, as in a run. Then the step
`evaluate` processes them, and in turn the same model is called on the same batches, which are already in memory.
Besides the calls, the pass reads, pads, keeps outputs and makes predictions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchcard import registry
from benchcard.evaluation.rows import Rows
from benchcard.steps import data, evaluate
from benchcard.steps.step import Outcome

LABELS = ["a", "b", "c"]


def texts(folder: Path, rows: int) -> str:
    """Write a text model of six layers and rows of 5 to 120 words, and return the task."""
    import datasets
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = {word: index for index, word in enumerate(["[PAD]", "[UNK]", *(f"w{number}" for number in range(500))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.model_max_length = 128
    fast.save_pretrained(folder / "model")
    config = BertConfig(
        vocab_size=len(words), hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024,
        max_position_embeddings=128, id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder / "model")
    draw = np.random.default_rng(0)
    lines = [" ".join(f"w{word}" for word in draw.integers(0, 500, draw.integers(5, 120))) for _ in range(rows)]
    columns = {"text": lines, "label": draw.integers(0, 3, rows).tolist()}
    datasets.Dataset.from_dict(columns).to_parquet(folder / "data.parquet")
    return "text-classification"


def images(folder: Path, rows: int) -> str:
    """Write an image model of six layers at 224 pixels and rows of noise, and return the task."""
    import datasets
    from PIL import Image
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768,
        id2label=dict(enumerate(LABELS)),
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder / "model")
    ViTImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(folder / "model")
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(rows)]
    columns = {"image": pictures, "label": draw.integers(0, 3, rows).tolist()}
    datasets.Dataset.from_dict(columns).to_parquet(folder / "data.parquet")
    return "image-classification"


def bare_calls_ns(model: Any, batches: list[Any]) -> int:
    """Return the time of calling a model on batches, in nanoseconds."""
    started = time.perf_counter_ns()
    for batch in batches:
        model(batch)
    return time.perf_counter_ns() - started


def compare(folder: Path, task: str, repeats: int) -> tuple[float, float, float]:
    """Compare passes with bare calls on the same batches.

    Returns:
        The throughput of the pass relative to bare calls, as median, and the share of the pass that its calls take, as
        median and minimum. Other work on the machine hardly changes that share.
    """
    path, prepared = folder / "model", folder / "prepared"
    prepared.mkdir()
    rows = data.PrepareRequest(
        dataset={}, name=None, split="train", data_keys=None, ref_keys=None, task=task, task_args=None, model={},
        max_samples=None, model_folder=path, location=str(folder / "data.parquet"), revision=None, content=None,
        renamed="",
    )  # fmt: skip
    values = data.prepare(rows, prepared, lambda done, total: None)
    request = evaluate.EvaluateRequest(
        model=None, framework="pytorch", options={"task": task}, task=task, batch_size=None,
        inputs=Outcome("prepare", "", prepared, values), model_path=path, threads=2,
    )  # fmt: skip
    model = registry.framework("pytorch").open(path, {"task": task, "intra_op_num_threads": 2})
    batches = [batch for _, batch in Rows(prepared).items.batches()]
    model(batches[0])
    ratios, shares = [], []
    for number in range(repeats):
        target = folder / f"predicted-{number}"
        target.mkdir()
        # Bare calls before and after the pass cancel a drift of the machine.
        before = bare_calls_ns(model, batches)
        passed = evaluate.evaluate(request, target, lambda done, total: None)
        after = bare_calls_ns(model, batches)
        ratios.append((before + after) / 2 / passed.elapsed_ns)
        shares.append(passed.forward_ns / passed.elapsed_ns)
    return statistics.median(ratios), statistics.median(shares), min(shares)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for make in (texts, images):
        with tempfile.TemporaryDirectory() as folder:
            task = make(Path(folder), arguments.rows)
            ratio, median, least = compare(Path(folder), task, arguments.repeats)
        print(f"{task}, {arguments.rows} rows: {ratio:.1%} of the throughput of bare calls;", end=" ")
        print(f"calls take {median:.1%} of the pass (minimum {least:.1%})")


if __name__ == "__main__":
    main()
