"""Write the data set and the trained model of the melodies example: `python examples/melodies/train.py --out DIR`.

Melodies are generated: five short notes with noise, which rise, fall, do one after the other, or stay. They are WAV
files of 8 bits at 2,000 samples a second, the sampling rate of the model. The script takes a minute on one core.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from datasets import ClassLabel, Value

from benchcard.testing import train, write_data

if TYPE_CHECKING:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

RATE = 2000  # samples a second
FILE = {"bytes": Value("binary"), "path": Value("string")}  # the feature `Audio` itself would need torchcodec
NOTES = [300 * 1.2**step for step in range(7)]  # in Hz
SHAPES = {"rising": (0, 1, 2, 3, 4), "falling": (4, 3, 2, 1, 0), "arch": (0, 1, 2, 1, 0), "dip": (2, 1, 0, 1, 2)}
SHAPES["level"] = (0, 0, 0, 0, 0)


def sound(notes: Sequence[int | None], length: int, noise: float, draw: np.random.Generator) -> bytes:
    """Return a WAV file of `length` samples: notes of about 50 ms each, by their numbers, of which None is a pause."""
    from scipy.io import wavfile

    samples, start = noise * draw.standard_normal(length), 0
    for note in notes:
        steps = np.arange(draw.integers(85, 115))
        if note is not None:
            envelope = draw.uniform(0.2, 0.5) * np.sin(np.pi * steps / len(steps))
            tone = np.sin(2 * np.pi * (NOTES[note] * steps / RATE + draw.random()))
            samples[start : start + len(steps)] += envelope * tone
        start += len(steps)
    file = io.BytesIO()
    wavfile.write(file, RATE, np.clip(np.round(samples * 128 + 128), 0, 255).astype(np.uint8))
    return file.getvalue()


def write_extractor(folder: Path) -> Wav2Vec2FeatureExtractor:
    """Save the feature extractor of the model, which gives a sound a mean of 0 and a variance of 1."""
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(sampling_rate=RATE, return_attention_mask=False)
    extractor.save_pretrained(folder)
    return extractor


def features(extractor: Wav2Vec2FeatureExtractor, files: Sequence[bytes]) -> torch.Tensor:
    """Return the inputs for WAV files of equal length, `(files, samples) float32`."""
    from scipy.io import wavfile

    sounds = [wavfile.read(io.BytesIO(file))[1] / 128 - 1 for file in files]
    return extractor(sounds, sampling_rate=RATE, return_tensors="pt")["input_values"].float()


def configuration(**settings: object) -> Wav2Vec2Config:
    """Return the configuration of a two-layer wav2vec 2.0 with a frame every 16 samples, without dropout."""
    from transformers import Wav2Vec2Config

    return Wav2Vec2Config(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        conv_dim=(32, 32, 32), conv_kernel=(8, 4, 4), conv_stride=(4, 2, 2), feat_extract_norm="layer",
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=8, do_stable_layer_norm=True,
        classifier_proj_size=64, initializer_range=0.1, apply_spec_augment=False, layerdrop=0.0,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, final_dropout=0.0, **settings,
    )  # fmt: skip


def rows(count: int, seed: int) -> dict[str, list]:
    """Return the columns `audio` and `label` of a split."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(len(SHAPES), size=count).tolist()
    files = []
    for label in labels:
        shape = list(SHAPES.values())[label]
        lowest = draw.integers(len(NOTES) - max(shape))
        files.append(sound([lowest + step for step in shape], 640, 0.22, draw))
    return {"audio": [{"bytes": file, "path": None} for file in files], "label": labels}


def main() -> None:
    """Write `data/` and `model/`, and print the loss and the accuracy on the split `validation`."""
    import torch
    from transformers import Wav2Vec2ForSequenceClassification

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=6, help="passes over 4,000 melodies (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": rows(64, seed=0), "validation": rows(240, seed=1)}
    names = list(SHAPES)
    write_data(arguments.out / "data", splits, {"audio": FILE, "label": ClassLabel(names=names)})
    extractor = write_extractor(arguments.out / "model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: id for id, name in enumerate(names)}}
        model = Wav2Vec2ForSequenceClassification(configuration(**labels))

    def inputs(melodies: dict[str, list]) -> dict[str, torch.Tensor]:
        values = features(extractor, [audio["bytes"] for audio in melodies["audio"]])
        return {"input_values": values, "labels": torch.tensor(melodies["label"])}

    print(f"loss {train(model, inputs(rows(4000, seed=2)), epochs=arguments.epochs):.4f}")
    held_out = inputs(splits["validation"])
    with torch.inference_mode():
        correct = model(**held_out).logits.argmax(-1) == held_out["labels"]
    print(f"validation accuracy {correct.double().mean():.4f}")
    model.half().save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
