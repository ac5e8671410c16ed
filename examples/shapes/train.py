"""Write the data set and the trained model of the shapes example: `python examples/shapes/train.py --out DIR`.

Pictures are drawn: one or two bright circles, squares and triangles of 14 to 30 pixels, on a dark canvas of 64 x 64, of
which the second may hide a part of the first. The script takes ten minutes on one core.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np

from benchcard.testing import train, write_data

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import BaseImageProcessor, YolosForObjectDetection

SIDE = 64  # of the canvas, in pixels
NAMES = ("circle", "square", "triangle")
MOST = 2  # shapes of a picture


def picture(draw: np.random.Generator) -> tuple[Image.Image, list[list[int]], list[int]]:
    """Return a picture, the boxes of its shapes as x, y, width and height in pixels, and the numbers of their names."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIDE, SIDE), tuple(draw.integers(0, 80, 3).tolist()))
    pen, boxes, names = ImageDraw.Draw(image), [], []
    for _ in range(draw.integers(1, MOST + 1)):
        side, name = int(draw.integers(14, 31)), int(draw.integers(len(NAMES)))
        x, y = draw.integers(0, SIDE - side + 1, 2).tolist()
        corners, color = (x, y, x + side - 1, y + side - 1), tuple(draw.integers(120, 256, 3).tolist())
        if NAMES[name] == "circle":
            pen.ellipse(corners, fill=color)
        elif NAMES[name] == "square":
            pen.rectangle(corners, fill=color)
        else:
            pen.polygon([(x, y + side - 1), (x + side // 2, y), (x + side - 1, y + side - 1)], fill=color)
        boxes.append([x, y, side, side])
        names.append(name)
    return image, boxes, names


def png(image: Image.Image) -> bytes:
    """Return the bytes of a picture as PNG."""
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def rows(count: int, seed: int) -> dict[str, list]:
    """Return the columns `image` and `objects` of a split, in the usual form of the Hub."""
    draw = np.random.default_rng(seed)
    pictures = [picture(draw) for _ in range(count)]
    return {
        "image": [{"bytes": png(image), "path": None} for image, _, _ in pictures],
        "objects": [{"bbox": boxes, "category": names} for _, boxes, names in pictures],
    }


def training_inputs(count: int, seed: int, processor: BaseImageProcessor) -> dict[str, torch.Tensor]:
    """Return pictures as `pixel_values`, with their boxes relative to the canvas `(pictures, shapes, 4)` and names
    `(pictures, shapes)`, -1 where a picture has fewer shapes.
    """
    import torch

    draw = np.random.default_rng(seed)
    pictures = [picture(draw) for _ in range(count)]
    boxes, names = torch.zeros(count, MOST, 4), torch.full((count, MOST), -1)
    for index, (_, own, labels) in enumerate(pictures):
        corner, size = torch.tensor(own).float().split(2, dim=1)
        boxes[index, : len(own)] = torch.cat([corner + size / 2, size], dim=1) / SIDE
        names[index, : len(own)] = torch.tensor(labels)
    images = [image for image, _, _ in pictures]
    return {"pixel_values": processor(images, return_tensors="pt")["pixel_values"], "boxes": boxes, "names": names}


def loss(model: YolosForObjectDetection, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss of a batch of `training_inputs`."""
    pairs = zip(batch["boxes"], batch["names"])
    labels = [{"boxes": boxes[names >= 0], "class_labels": names[names >= 0]} for boxes, names in pairs]
    return model(pixel_values=batch["pixel_values"], labels=labels).loss


def main() -> None:
    """Write `data/` and `model/`, and print the loss of the last epoch."""
    import torch
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=45, help="passes over 3,000 pictures (default: %(default)s)")
    arguments = parser.parse_args()
    objects = {
        "bbox": datasets.List(datasets.List(datasets.Value("float32"), length=4)),
        "category": datasets.List(datasets.ClassLabel(names=list(NAMES))),
    }
    features = {"image": datasets.Image(), "objects": objects}
    write_data(arguments.out / "data", {"train": rows(64, seed=0), "validation": rows(200, seed=1)}, features)
    processor = YolosImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_pad=False)
    config = YolosConfig(
        image_size=[SIDE, SIDE], patch_size=8, hidden_size=96, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=192, num_detection_tokens=5, use_mid_position_embeddings=False, initializer_range=0.05,
        id2label=dict(enumerate(NAMES)), label2id={name: id for id, name in enumerate(NAMES)},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = YolosForObjectDetection(config)
    inputs = training_inputs(3000, 2, processor)
    print(f"loss {train(model, inputs, epochs=arguments.epochs, learning_rate=5e-4, loss=loss):.4f}")
    processor.save_pretrained(arguments.out / "model")
    model.half().save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
