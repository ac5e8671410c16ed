"""Write the data set and the trained model of the digits example: `python examples/digits/train.py --out DIR`.

The script writes `data/` and `model/` beside it. The data are scikit-learn's handwritten digits, in a folder that
`datasets.load_dataset` reads. The model is a small vision transformer, trained from random weights on the split `train`
only. The number of epochs is fixed, so that neither `validation` nor `test` influences a run.
"""

from __future__ import annotations

import argparse
import io
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from torch import Tensor
    from transformers import BaseImageProcessor, ViTForImageClassification

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Recipe:
    """What the trained weights depend on, besides data and library versions.

    Attributes:
        seed: Seed of the weights, the order of the rows and the augmentation.
        epochs: Passes over the train split.
        batch_size: Rows per step; the last batch of an epoch may be smaller.
        learning_rate: Maximum, after a linear warm-up; it then falls to zero along a cosine.
        warmup_fraction: Share of all steps that is spent on the warm-up.
        weight_decay: Weight decay of AdamW.
        max_gradient_norm: Longer gradients are scaled down to this norm.
        max_rotation_deg: Largest rotation by augmentation, in both directions.
        max_shift_fraction: Largest shift by augmentation along each axis, as a fraction of the image's side.
        max_scale_fraction: Largest change of size by augmentation, as a fraction.
        width: Size of the hidden states; a head has 16 of it.
        layers: Number of transformer layers.

    Source:
        AdamW with warm-up, cosine decay and clipping at 1 is the fine-tuning recipe of Dosovitskiy et al. 2021
        (arXiv 2010.11929, appendix B) and Touvron et al. 2021 (arXiv 2012.12877, table 9); the sizes were chosen on the
        validation split.
    """

    seed: int = 0
    epochs: int = 120
    batch_size: int = 64
    learning_rate: float = 7e-4
    warmup_fraction: float = 0.1
    weight_decay: float = 0.3
    max_gradient_norm: float = 1.0
    max_rotation_deg: float = 12.0
    max_shift_fraction: float = 0.1
    max_scale_fraction: float = 0.1
    width: int = 64
    layers: int = 6


def write_data(folder: Path, held_out: int = 350, seed: int = 0) -> None:
    """Write the parquet files of the splits `train`, `validation` and `test` into `folder`.

    The rows are drawn by seed, stratified by label, and keep the drawn order, so that the first rows of a split are a
    fair sample of it. The file name of an image is the number of its row in `sklearn.datasets.load_digits`. The PNG
    streams are stored without compression, so that they do not depend on the version of a compressor.

    Args:
        folder: It is created if it does not exist; files of the same names are replaced.
        held_out: Number of rows of `validation`, and of `test`; the rest is `train`.
        seed: Seed of the split.
    """
    from datasets import ClassLabel, Dataset, Features, Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rest, test = train_test_split(
        np.arange(len(digits.target)), test_size=held_out, stratify=digits.target, random_state=seed
    )
    train, validation = train_test_split(rest, test_size=held_out, stratify=digits.target[rest], random_state=seed)
    features = Features({"image": Image(), "label": ClassLabel(names=list(NAMES))})
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", train), ("validation", validation), ("test", test)):
        columns = {
            "image": [{"path": f"{row:04d}.png", "bytes": _png(digits.images[row])} for row in rows],
            "label": [int(digits.target[row]) for row in rows],
        }
        Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def _png(counts: np.ndarray) -> bytes:
    """Return the bytes of a gray PNG from ink counts `(height, width) float64` in 0..16."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.rint(counts * (255 / 16)).astype(np.uint8)).save(stream, format="PNG", compress_level=0)
    return stream.getvalue()


def train(data: DatasetDict, recipe: Recipe) -> tuple[ViTForImageClassification, BaseImageProcessor]:
    """Return a model trained on the split `train` of `data`, in evaluation mode, and its image processor.

    The function sets one thread, deterministic algorithms and the seed of `recipe` for torch in the whole process. With
    the same library versions on the same kind of CPU, the weights are equal to the bit.
    """
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)

    model, processor = _build(recipe)
    images, labels = _tensors(data["train"], processor)
    steps = recipe.epochs * math.ceil(len(labels) / recipe.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=recipe.learning_rate,
        total_steps=steps,
        pct_start=recipe.warmup_fraction,
        cycle_momentum=False,
    )
    model.train()
    with tqdm(total=steps, unit="step", desc="train") as bar:
        for _ in range(recipe.epochs):
            for rows in torch.randperm(len(labels)).split(recipe.batch_size):
                loss = cross_entropy(model(_augment(images[rows], recipe)).logits, labels[rows])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_gradient_norm)
                optimizer.step()
                schedule.step()
                bar.update()
    return model.eval(), processor


def accuracy(model: ViTForImageClassification, processor: BaseImageProcessor, rows: Dataset) -> float:
    """Return the share of `rows` whose label the model predicts."""
    import torch

    images, labels = _tensors(rows, processor)
    with torch.inference_mode():
        return float((model(images).logits.argmax(-1) == labels).double().mean())


def _build(recipe: Recipe) -> tuple[ViTForImageClassification, BaseImageProcessor]:
    """Return an untrained model, with weights from torch's generator, and its image processor.

    Images are enlarged from 8 to 64 pixels a side, so that patches have the size of those of ViT-Base/16: 16 x 16 x 3
    values, here 2 x 2 pixels of the original. A forward pass has 16 patches and the class token.
    """
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil
    from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD

    side = 64
    config = ViTConfig(
        image_size=side,
        patch_size=16,
        num_channels=3,
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.width // 16,
        intermediate_size=4 * recipe.width,
        id2label=dict(enumerate(NAMES)),
        label2id={name: label for label, name in enumerate(NAMES)},
    )
    processor = ViTImageProcessorPil(
        do_convert_rgb=True,
        size={"height": side, "width": side},
        image_mean=IMAGENET_STANDARD_MEAN,
        image_std=IMAGENET_STANDARD_STD,
    )
    return ViTForImageClassification(config), processor


def _tensors(rows: Dataset, processor: BaseImageProcessor) -> tuple[Tensor, Tensor]:
    """Return the inputs `(rows, 3, height, width) float32` and the labels `(rows,) int64`."""
    import torch

    return processor(list(rows["image"]), return_tensors="pt")["pixel_values"], torch.tensor(rows["label"])


def _augment(images: Tensor, recipe: Recipe) -> Tensor:
    """Rotate, scale and shift gray images at random, and fill the edges with the paper's color.

    Args:
        images: `(batch, 3, height, width) float32`.
        recipe: Limits of the changes.

    Returns:
        Images of the same shape.
    """
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    def draw(limit: float) -> Tensor:
        return (2 * torch.rand(len(images)) - 1) * limit

    angle, scale = draw(math.radians(recipe.max_rotation_deg)), 1 + draw(recipe.max_scale_fraction)
    # A grid's side is 2 long, from -1 to 1.
    shift_x, shift_y = draw(2 * recipe.max_shift_fraction), draw(2 * recipe.max_shift_fraction)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    maps = torch.stack([cosine, -sine, shift_x, sine, cosine, shift_y], dim=1).view(-1, 2, 3)
    # grid_sample fills with zeros, so the paper (the lowest value) is shifted to zero first. All channels are equal, so
    # one is sampled.
    paper = images.min()
    gray = images[:, :1] - paper
    grid = affine_grid(maps, list(gray.shape), align_corners=False)
    return (grid_sample(gray, grid, align_corners=False) + paper).expand_as(images)


def _arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent,
        help="the folder for data/ and model/ (default: beside this file)",
    )
    parser.add_argument(
        "--epochs", type=int, default=Recipe.epochs, help="passes over the train split (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    """Write `data/` and `model/`, and print the accuracy on each split."""
    from datasets import load_dataset

    arguments = _arguments()
    write_data(arguments.out / "data")
    with tempfile.TemporaryDirectory() as cache:
        data = load_dataset(str(arguments.out / "data"), cache_dir=cache, keep_in_memory=True)
        model, processor = train(data, Recipe(epochs=arguments.epochs))
        for split, rows in data.items():
            print(f"{split:10} {len(rows):5} rows  accuracy {accuracy(model, processor, rows):.4f}")
    model.save_pretrained(arguments.out / "model")
    processor.save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
