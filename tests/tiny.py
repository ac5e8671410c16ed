"""A tiny image model and data set with rules that make it right, for tests that run the whole way."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from benchcard import testing

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
    return testing.write_image_model(folder, labels=labels or LABELS)


def importing(module: str) -> list[tuple[str, str, str]]:
    """What makes a child process import a module, in the place of `registry.called`: the pickle of a thing in it."""
    return [("tasks", module, base64.b64encode(f"c{module}\n__name__\n.".encode()).decode())]
