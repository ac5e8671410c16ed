"""A tiny image model and data set with rules that make it right, for tests that run the whole way."""

from __future__ import annotations

from pathlib import Path

import numpy as np

LABELS = ["dark", "middling", "light"]


def write_data(folder: Path, rows: int = 24, names: list[str] | None = None) -> Path:
    """A parquet folder of gray images, sorted by class, whose label is how light they are: `train` and `validation`."""
    import datasets
    from PIL import Image

    names = names or LABELS
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for split in ("train", "validation"):
        labels = sorted(index % 3 for index in range(rows))
        images = [
            Image.fromarray((generator.integers(0, 60, (8, 8)) + 80 * label).astype(np.uint8)) for label in labels
        ]
        table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
    return folder


def write_model(folder: Path, labels: list[str] | None = None) -> Path:
    """A seeded two-layer ViT of 8x8 images with its image processor."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    labels = labels or LABELS
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)
    return folder
