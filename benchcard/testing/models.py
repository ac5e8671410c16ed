"""Toy models and data sets, made in a moment: real tokenizers, real weights, real parquet files, nothing downloaded.

This module owns what a test or an example needs to go the whole way through a task. The models are random, but seeded;
to be right about something they must be trained (`examples/*/train.py`) or follow a rule. Images and their model follow
none: how light an image is is its label, and the model guesses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
"""The special tokens of `write_tokenizer`, the first five of its vocabulary."""

SHADES = ("dark", "middling", "light")
"""The labels of `write_image_data`."""


def write_tokenizer(folder: Path, words: Iterable[str], *, maximum: int = 64, **settings: Any) -> Any:
    """A lower-casing WordPiece tokenizer, saved in `folder`: `[CLS] a [SEP]`, and `[CLS] a [SEP] b [SEP]` for pairs.

    Args:
        folder: The folder of the model; it is made.
        words: The vocabulary beside the five special tokens, `##` before a piece that goes on with a word.
        maximum: The most tokens that the model takes.
        **settings: Of transformers' `PreTrainedTokenizerFast`; None takes one of those set here away, as
            `pad_token=None`.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    places = {word: index for index, word in enumerate(dict.fromkeys([*SPECIAL.values(), *words]))}
    tokenizer = Tokenizer(models.WordPiece(places, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", places["[CLS]"]), ("[SEP]", places["[SEP]"])],
    )
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    told = {**SPECIAL, "model_input_names": inputs, "model_max_length": maximum, **settings}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{name: value for name, value in told.items() if value is not None}
    )
    fast.save_pretrained(folder)
    return fast


def text_model(
    kind: str, vocabulary: int, *, labels: Sequence[str] | None = None, seed: int = 0, **settings: Any
) -> Any:
    """A two-layer BERT with weights drawn from `seed`, large enough that its outputs differ from token to token.

    Args:
        kind: The end of its class's name, as `ForTokenClassification`, or `Model` for the bare one.
        vocabulary: How many tokens its tokenizer has.
        labels: The names of its labels.
        seed: Of the weights; torch's own generator is left as it was.
        **settings: Of transformers' `BertConfig`.
    """
    import torch
    import transformers

    names = list(labels or ())
    named = {"id2label": dict(enumerate(names)), "label2id": {name: id for id, name in enumerate(names)}}
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "initializer_range": 0.5,
    }
    config = transformers.BertConfig(vocab_size=vocabulary, **{**small, **(named if labels else {}), **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, f"Bert{kind}")(config).eval()


def write_text_model(
    folder: Path,
    kind: str,
    words: Iterable[str],
    *,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Path:
    """The folder of a random text model with its tokenizer; see `write_tokenizer` and `text_model`."""
    tokenizer = write_tokenizer(folder, words, maximum=settings.get("max_position_embeddings", 64))
    text_model(kind, len(tokenizer), labels=labels, seed=seed, **settings).save_pretrained(folder)
    return folder


def write_image_model(folder: Path, *, labels: Sequence[str] = SHADES, seed: int = 0, **settings: Any) -> Path:
    """The folder of a random two-layer ViT of 8 x 8 images with its image processor.

    Args:
        folder: It is made.
        labels: The names of its labels.
        seed: Of the weights; torch's own generator is left as it was.
        **settings: Of transformers' `ViTConfig`.
    """
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    small = {
        "image_size": 8,
        "patch_size": 4,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "id2label": dict(enumerate(labels)),
        "label2id": {name: id for id, name in enumerate(labels)},
    }
    config = ViTConfig(**{**small, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": config.image_size, "width": config.image_size}).save_pretrained(folder)
    return folder


def write_data(folder: Path, splits: Mapping[str, Mapping[str, Sequence[Any]]], features: Any = None) -> Path:
    """A folder with one parquet file a split, as `datasets.load_dataset` reads it.

    Args:
        folder: It is made; files of the same names are replaced.
        splits: By name of a split its columns.
        features: By name of a column its feature of `datasets`; found out from the values where it is left out.
    """
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    for split, columns in splits.items():
        told = {name: list(values) for name, values in columns.items()}
        table = datasets.Dataset.from_dict(told, features=datasets.Features(features) if features else None)
        with open(folder / f"{split}-00000-of-00001.parquet", "wb") as file:
            table.to_parquet(file)
    return folder


def write_image_data(folder: Path, *, rows: int = 24, labels: Sequence[str] = SHADES) -> Path:
    """A folder with the splits `train` and `validation` of 8 x 8 gray images, sorted by label, which is how light they
    are; columns `image` and `label`.
    """
    import datasets
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    splits: dict[str, dict[str, list[Any]]] = {}
    for split in ("train", "validation"):
        shades = sorted(index % len(labels) for index in range(rows))
        step = 240 // len(labels)
        grays = [(generator.integers(0, step, (8, 8)) + step * shade).astype(np.uint8) for shade in shades]
        splits[split] = {"image": [Image.fromarray(gray) for gray in grays], "label": shades}
    return write_data(folder, splits, {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(labels))})


def train(
    model: Any,
    inputs: Mapping[str, Any],
    *,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    seed: int = 0,
    loss: Callable[[Any, Mapping[str, Any]], Any] | None = None,
) -> float:
    """The mean loss of the last epoch of a model that is trained in place, in evaluation mode again.

    One thread, a seed and deterministic algorithms: the same library versions on the same kind of processor give the
    same weights to the bit. torch's own settings are put back.

    Args:
        model: A transformers model.
        inputs: Its inputs by name, labels among them, as tensors `(rows, ...)`.
        epochs: Passes over the rows.
        batch_size: Rows in a step.
        learning_rate: Its peak, of AdamW, after a warm-up of a tenth of all steps; then it falls along a cosine.
        seed: Of the order of rows, and of dropout.
        loss: From model and batch to a scalar tensor; the model's own `loss` where it is left out.

    Source:
        AdamW with warm-up, decay and clipping at 1 is how such models are trained (Devlin et al. 2019,
        arXiv 1810.04805, A.2); the peak is higher since the models are small.
    """
    import torch

    rows = len(next(iter(inputs.values())))
    steps = epochs * -(-rows // batch_size)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, learning_rate, total_steps=steps, pct_start=0.1, cycle_momentum=False
            )
            model.train()
            for _ in range(epochs):
                told = 0.0
                for places in torch.randperm(rows).split(batch_size):
                    batch = {name: values[places] for name, values in inputs.items()}
                    value = loss(model, batch) if loss else model(**batch).loss
                    optimizer.zero_grad()
                    value.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    schedule.step()
                    told += value.item() * len(places) / rows
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    model.eval()
    return told
