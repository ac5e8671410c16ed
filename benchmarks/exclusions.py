"""What `node_exclusion: auto` finds, beside the fixed lists of patterns, on two models.

    python benchmarks/exclusions.py [--folder FOLDER]

Both read handwritten digits and are quantized statically at opset 13, where layer norms are written out: the ViT of
`examples/digits`, from images, and a DistilBERT of two layers that is trained here in about a minute, from the same
images as texts of 64 words, one a pixel. For each list: nodes kept in float32 that would have been quantized, nodes
that are quantized, accuracy, and trials. What is in FOLDER already is not made again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
EXCLUSIONS: list[Any] = [
    [],
    ["gelu"],
    ["layernorm"],
    ["residual"],
    ["softmax"],
    ["layernorm", "residual"],
    ["gelu", "gather", "layernorm", "residual", "softmax"],
    "auto",
]
WORDS = [f"gray{level}" for level in range(9)]


def write_texts(folder: Path) -> None:
    """Write the digits as texts, split as the images are: each pixel is a word for its gray value."""
    import datasets
    import numpy as np

    folder.mkdir(parents=True)
    images = datasets.load_dataset(str(DIGITS / "data"), cache_dir=str(folder.parent / "cache"))
    for split, rows in images.items():
        grays = [np.asarray(row["image"].convert("L")).ravel() for row in rows]
        texts = [" ".join(WORDS[int(gray) * 8 // 255] for gray in each) for each in grays]
        features = datasets.Features({"text": datasets.Value("string"), "label": rows.features["label"]})
        table = datasets.Dataset.from_dict({"text": texts, "label": rows["label"]}, features=features)
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


def train(folder: Path, data: Path, epochs: int = 25) -> None:
    """Train a DistilBERT of two layers on the texts, and write it with its tokenizer."""
    import datasets
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )
    rows = datasets.load_dataset(str(data), split="train", cache_dir=str(folder.parent / "cache"))
    names = rows.features["label"].names
    config = DistilBertConfig(
        vocab_size=len(words),
        max_position_embeddings=64,
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=128,
        id2label=dict(enumerate(names)),
        label2id={name: place for place, name in enumerate(names)},
    )
    model = DistilBertForSequenceClassification(config).train()
    inputs = torch.tensor(fast(rows["text"][:])["input_ids"])
    labels = torch.tensor(rows["label"][:])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps = epochs * (len(labels) // 64 + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(labels)).split(64):
            loss = model(input_ids=inputs[chosen], labels=labels[chosen]).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval().save_pretrained(folder)
    fast.save_pretrained(folder)


def compare(task: str, model: Path, data: Path, primary: str, run: Path) -> None:
    """Run the lists on one model and print what each came to."""
    from benchcard import Benchmark

    results = Benchmark(
        task=task,
        model=str(model),
        dataset={
            "path": str(data),
            "eval_split": "test",
            "calibration_split": "train",
            "data_keys": {"primary": primary},
            "ref_keys": ["label"],
        },
        metrics=["accuracy"],
        grid={"node_exclusion": EXCLUSIONS, "apply_quantization": [True, False]},
        fixed={
            "quantization_approach": "static",
            "operators_to_quantize": ["Add", "MatMul"],
            "calibration": {"method": "percentile", "num_calibration_samples": 128},
            "framework_args": {"opset": 13},
        },
        duration=0,
        explain=False,
    ).run(run, progress=False)
    accuracy = dict(zip(results.quality["row"], results.quality["accuracy"]))
    print(f"{model.name}, {task}: float32 {accuracy[results.baseline]:.3f}")
    for row, known in zip(results.plan, results.models.to_dict("records")):
        if row.quantized:
            excluded = row["node_exclusion"]
            name = excluded if isinstance(excluded, str) else ", ".join(excluded) or "nothing"
            found = f"  {known['auto_trials']} trials: {known['auto_exclusion']}" if name == "auto" else ""
            said = known["failure"] or f"{accuracy[row.row]:.3f}"
            nodes = f"{known['nodes_excluded']:4} in float32, {known['nodes_quantized']:4} quantized"
            print(f"  {name:48} {nodes}  {said}{found}")
    print()


def main() -> None:
    """Make what is missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where models, texts and runs are kept; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        texts, distilbert = folder / "texts", folder / "distilbert"
        if not texts.exists():
            write_texts(texts)
        if not distilbert.exists():
            train(distilbert, texts)
        compare("image-classification", DIGITS / "model", DIGITS / "data", "image", folder / "runs" / "vit")
        compare("text-classification", distilbert, texts, "text", folder / "runs" / "distilbert")


if __name__ == "__main__":
    main()
