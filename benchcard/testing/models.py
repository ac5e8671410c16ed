"""Small models and data sets for tests and examples: real tokenizers, weights and parquet files, nothing downloaded.

The models have random weights from a seed. To predict anything they must be trained, as in `examples/*/train.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
"""The special tokens of `write_tokenizer`: the first five of its vocabulary."""

SHADES = ("dark", "middling", "light")
"""The labels of `write_image_data`, by the brightness of an image."""

_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def write_tokenizer(
    folder: Path, words: Iterable[str], *, maximum: int = 64, **settings: object
) -> PreTrainedTokenizerFast:
    """Save a lower-casing WordPiece tokenizer; texts become `[CLS] a [SEP]`, pairs `[CLS] a [SEP] b [SEP]`.

    Args:
        folder: The folder of the model; it is created.
        words: The vocabulary after the five special tokens; a word piece that continues a word begins with `##`.
        maximum: The largest number of tokens that the model takes.
        **settings: Arguments of transformers' `PreTrainedTokenizerFast`; None removes one that is set here, as in
            `pad_token=None`.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate(dict.fromkeys([*SPECIAL.values(), *words]))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    arguments = {**SPECIAL, "model_input_names": inputs, "model_max_length": maximum, **settings}
    given = {name: value for name, value in arguments.items() if value is not None}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given)
    fast.save_pretrained(folder)
    return fast


def text_model(
    kind: str, vocabulary: int, *, labels: Sequence[str] | None = None, seed: int = 0, **settings: object
) -> PreTrainedModel:
    """Return a two-layer BERT with random weights, large enough that its outputs differ between tokens.

    Args:
        kind: The name of its class after `Bert`, such as `ForTokenClassification`, or `Model` for one without a head.
        vocabulary: The number of tokens of its tokenizer.
        labels: The names of its labels.
        seed: The seed of the weights; the state of torch's generator is restored.
        **settings: Arguments of transformers' `BertConfig`.
    """
    import torch
    import transformers

    defaults = {**_SIZES, "max_position_embeddings": 64, "initializer_range": 0.5, **_label_maps(labels or ())}
    config = transformers.BertConfig(vocab_size=vocabulary, **{**defaults, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return getattr(transformers, f"Bert{kind}")(config).eval()


def _label_maps(labels: Sequence[str]) -> dict[str, object]:
    """Return the settings of a model's configuration that name its labels; none without labels."""
    maps = {"id2label": dict(enumerate(labels)), "label2id": {name: id for id, name in enumerate(labels)}}
    return maps if labels else {}


def write_text_model(
    folder: Path,
    kind: str,
    words: Iterable[str],
    *,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    **settings: object,
) -> Path:
    """Save a random text model with its tokenizer, and return its folder; see `write_tokenizer` and `text_model`."""
    maximum = settings.get("max_position_embeddings")
    tokenizer = write_tokenizer(folder, words, maximum=maximum if isinstance(maximum, int) else 64)
    text_model(kind, len(tokenizer), labels=labels, seed=seed, **settings).save_pretrained(folder)
    return folder


def write_image_model(folder: Path, *, labels: Sequence[str] = SHADES, seed: int = 0, **settings: object) -> Path:
    """Save a random two-layer ViT for images of 8 x 8 with its image processor, and return its folder.

    Args:
        folder: The folder of the model; it is created.
        labels: The names of its labels.
        seed: The seed of the weights; the state of torch's generator is restored.
        **settings: Arguments of transformers' `ViTConfig`.
    """
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    config = ViTConfig(**{**_SIZES, "image_size": 8, "patch_size": 4, **_label_maps(labels), **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ViTForImageClassification(config).save_pretrained(folder)
    size = {"height": config.image_size, "width": config.image_size}
    half = [0.5] * config.num_channels
    ViTImageProcessorPil(size=size, image_mean=half, image_std=half).save_pretrained(folder)
    return folder


def write_data(
    folder: Path,
    splits: Mapping[str, Mapping[str, Sequence[object]]],
    features: datasets.Features | Mapping[str, object] | None = None,
) -> Path:
    """Save a data set with one parquet file per split, as `datasets.load_dataset` reads it, and return its folder.

    Args:
        folder: The folder of the data set; it is created, and files of the same names are replaced.
        splits: The columns of each split, by its name.
        features: The `datasets` feature of each column; inferred from the values by default.
    """
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    for split, columns in splits.items():
        lists = {name: list(values) for name, values in columns.items()}
        table = datasets.Dataset.from_dict(lists, features=datasets.Features(features) if features else None)
        with open(folder / f"{split}-00000-of-00001.parquet", "wb") as file:
            table.to_parquet(file)
    return folder


def write_image_data(folder: Path, *, rows: int = 24, labels: Sequence[str] = SHADES) -> Path:
    """Save a data set of gray images of 8 x 8, and return its folder.

    It has the splits `train` and `validation` with the columns `image` and `label`. The label is the brightness of the
    image; rows are sorted by label.
    """
    import datasets
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    splits: dict[str, dict[str, Sequence[object]]] = {}
    for split in ("train", "validation"):
        numbers = sorted(index % len(labels) for index in range(rows))
        step = 240 // len(labels)
        grays = [(generator.integers(0, step, (8, 8)) + step * number).astype(np.uint8) for number in numbers]
        splits[split] = {"image": [Image.fromarray(gray) for gray in grays], "label": numbers}
    return write_data(folder, splits, {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(labels))})


def train(
    model: PreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    *,
    epochs: int,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    seed: int = 0,
    loss: Callable[[PreTrainedModel, Mapping[str, torch.Tensor]], torch.Tensor] | None = None,
) -> float:
    """Train a model in place, put it into evaluation mode, and return the mean loss of the last epoch.

    It uses one thread, a seed and deterministic algorithms: the same library versions on the same kind of processor
    give the same weights to the bit. The settings of torch are restored.

    Args:
        model: A transformers model.
        inputs: Its inputs by name with the labels, as tensors `(rows, ...)`.
        epochs: The number of passes over the rows.
        batch_size: The number of rows in a step.
        learning_rate: The peak of the learning rate of AdamW, after a warm-up of a tenth of all steps; it then falls
            along a cosine.
        seed: The seed of the order of rows and of dropout.
        loss: Returns the loss of a model for a batch, a scalar; the model's own `loss` by default.

    Source:
        AdamW with warm-up, decay and clipping at 1: Devlin et al. 2019, arXiv 1810.04805, A.2. The peak is higher here
        because the models are small.
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
                mean_loss = 0.0
                for indices in torch.randperm(rows).split(batch_size):
                    batch = {name: values[indices] for name, values in inputs.items()}
                    value = loss(model, batch) if loss else model(**batch).loss
                    optimizer.zero_grad()
                    value.backward()
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    schedule.step()
                    mean_loss += value.item() * len(indices) / rows
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    model.eval()
    return mean_loss
