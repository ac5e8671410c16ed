"""What a pass over an evaluation set costs beside the bare forward calls: `python benchmarks/evaluation.py`.

A small BERT and a small ViT of random weights, and as many rows as asked. The rows are prepared once, as a run does;
then the step `evaluate` goes over them, and beside it, in turn, the same model is called on the same batches, which lie
ready in memory. What the pass does beside the calls is reading, padding, keeping outputs and making predictions.
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
from benchcard.steps.step import Need

LABELS = ["a", "b", "c"]


def texts(folder: Path, rows: int) -> dict[str, Any]:
    """A text model of six layers, and rows of 5 to 120 words: what `prepare` is asked."""
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
    return {"task": "text-classification"}


def images(folder: Path, rows: int) -> dict[str, Any]:
    """An image model of six layers at 224 pixels, and rows of noise: what `prepare` is asked."""
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
    return {"task": "image-classification"}


def bare(called: Any, batches: list[Any]) -> int:
    """Nanoseconds for calling a model on batches, and nothing else."""
    started = time.perf_counter_ns()
    for batch in batches:
        called(batch)
    return time.perf_counter_ns() - started


def share(folder: Path, asked: dict[str, Any], repeats: int) -> tuple[float, float, float]:
    """The throughput of the pass over that of bare calls on the same batches, in the median; and the share of the
    pass's own time that its calls took, in the median and at the least, which other work on the machine hardly shifts.
    """
    model, prepared = folder / "model", folder / "prepared"
    prepared.mkdir()
    columns = {"name": None, "split": "train", "max_samples": None, "data_keys": None, "ref_keys": None}
    extra = {"dataset": str(folder / "data.parquet"), "revision": None, "model": str(model)}
    told = data.prepare({**columns, "task_args": None, **asked}, {}, extra, prepared, lambda done, total: None)
    options = {"task": asked["task"], "intra_op_num_threads": 2}
    called = registry.framework("pytorch").open(model, options)
    batches = [batch for _, batch in Rows(prepared).items.batches()]
    called(batches[0])
    way = {"framework": "pytorch", "options": {"task": asked["task"]}, "task": asked["task"], "batch_size": None}
    ratios, inside = [], []
    for number in range(repeats):
        target = folder / f"predicted-{number}"
        target.mkdir()
        needs = {"inputs": Need(prepared, told)}
        # Before and after the pass, so that a machine that grows slower or faster meanwhile shifts neither.
        before = bare(called, batches)
        passed = evaluate.evaluate(way, needs, {"model": str(model), "threads": 2}, target, lambda done, total: None)
        after = bare(called, batches)
        ratios.append((before + after) / 2 / passed["elapsed_ns"])
        inside.append(passed["forward_ns"] / passed["elapsed_ns"])
    return statistics.median(ratios), statistics.median(inside), min(inside)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for make in (texts, images):
        with tempfile.TemporaryDirectory() as folder:
            asked = make(Path(folder), arguments.rows)
            ratio, median, least = share(Path(folder), asked, arguments.repeats)
        print(f"{asked['task']}, {arguments.rows} rows: {ratio:.1%} of the throughput of bare calls;", end=" ")
        print(f"{median:.1%} of the pass is its calls (at the least {least:.1%})")


if __name__ == "__main__":
    main()
