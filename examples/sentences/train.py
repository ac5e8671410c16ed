"""Write the data set and the trained model of the sentences example: `python examples/sentences/train.py --out DIR`.

Pairs of sentences are generated: who does what to what, each in one of several words for the same thing. The similarity
of two sentences, from 0 to 5, is how much of their meaning they share, with some noise, as in ratings by people. The
model is trained so that the cosine of its mean token embeddings predicts it. The script takes half a minute on one
core.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.testing import text_model, train, write_data, write_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

WHO = ("boy lad youngster", "woman lady mother", "dog hound puppy", "doctor physician surgeon", "thief robber burglar")
WHAT = ("eats devours swallows", "buys purchases acquires", "finds discovers spots", "paints draws sketches")
WHICH = ("house home cottage", "car automobile vehicle", "stone rock pebble", "meal dinner supper", "coat jacket parka")
HOW = ("old ancient aged", "big large huge", "red scarlet crimson", "small little tiny")
PARTS = tuple([group.split() for group in groups] for groups in (WHO, WHAT, HOW, WHICH))
WEIGHTS = (1.5, 1.0, 0.5, 2.0)  # of who, what, how and which; they add up to 5, the same meaning
WORDS = [*(word for groups in PARTS for group in groups for word in group), "the", "a", "now", "today", "."]


def pair(draw: random.Random) -> tuple[str, str, float]:
    """Return two sentences and their similarity."""
    score, words = 0.0, []
    for groups, weight in zip(PARTS, WEIGHTS):
        first, same = draw.choice(groups), draw.random() < 0.5
        second = first if same else draw.choice([group for group in groups if group is not first])
        score += weight * same
        words.append((draw.choice(first), draw.choice(second)))
    frames = draw.choices(("the {} {} a {} {} .", "a {} {} the {} {} now .", "today the {} {} the {} {} ."), k=2)
    sentences = [frame.format(*values) for frame, values in zip(frames, zip(*words))]
    return *sentences, round(min(5.0, max(0.0, score + draw.gauss(0, 0.3))), 2)


def rows(count: int, seed: int) -> dict[str, list]:
    """Return the columns `sentence1`, `sentence2` and `score` of a split."""
    draw = random.Random(seed)
    return dict(zip(("sentence1", "sentence2", "score"), zip(*(pair(draw) for _ in range(count)))))


def cosines(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the cosine of the mean token embeddings of each pair.

    Args:
        model: The model.
        batch: Inputs of both sentences, with the prefixes `first_` and `second_`.

    Returns:
        `(rows,) float32`.
    """
    import torch

    def embedding(prefix: str) -> Tensor:
        inputs = {name.removeprefix(prefix): values for name, values in batch.items() if name.startswith(prefix)}
        mask = inputs["attention_mask"][:, :, None]
        return (model(**inputs).last_hidden_state * mask).sum(1) / mask.sum(1)

    return torch.nn.functional.cosine_similarity(embedding("first_"), embedding("second_"))


def write_pooling(folder: Path) -> None:
    """Write the files that tell sentence-transformers to pool by the mean of the token embeddings."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    pooling = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")


def main() -> None:
    """Write `data/` and `model/`, and print the loss and Spearman's correlation on the split `validation`."""
    import datasets
    import torch
    from scipy.stats import spearmanr

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the train split (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": rows(2000, seed=0), "validation": rows(400, seed=1)}
    text = datasets.Value("string")
    features = {"sentence1": text, "sentence2": text, "score": datasets.Value("float32")}
    write_data(arguments.out / "data", splits, features)
    tokenizer = write_tokenizer(arguments.out / "model", WORDS, maximum=64)
    model = text_model(
        "Model", len(tokenizer),
        hidden_size=64, intermediate_size=128, initializer_range=0.1, hidden_dropout_prob=0.0,
    )  # fmt: skip

    def inputs(split: str) -> dict[str, torch.Tensor]:
        tensors = {}
        for prefix, column in (("first_", "sentence1"), ("second_", "sentence2")):
            encoded = tokenizer(list(splits[split][column]), padding=True, return_tensors="pt")
            tensors |= {f"{prefix}{name}": values for name, values in encoded.items()}
        return {**tensors, "score": torch.tensor(splits[split]["score"])}

    def loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        return ((cosines(model, batch) - batch["score"] / 5) ** 2).mean()

    print(f"loss {train(model, inputs('train'), epochs=arguments.epochs, loss=loss):.4f}")
    held_out = inputs("validation")
    with torch.inference_mode():
        predicted = cosines(model, held_out)
    print(f"validation spearman {spearmanr(predicted, held_out['score']).statistic:.4f}")
    model.save_pretrained(arguments.out / "model")
    write_pooling(arguments.out / "model")


if __name__ == "__main__":
    main()
