"""Write the data set and the trained model of the reviews example: `python examples/reviews/train.py --out DIR`.

Reviews are generated: what is praised or blamed, how much, and whether that is negated. About one label in twenty is
flipped, as in real data, so that no model can reach an accuracy of 1. The script takes half a minute on one core.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from benchcard.testing import text_model, train, write_data, write_tokenizer

LABELS = ("negative", "positive")
GOOD = [
    "good",
    "great",
    "fine",
    "funny",
    "lovely",
    "bright",
    "clever",
    "moving",
    "brilliant",
    "superb",
    "charming",
    "gripping",
]
BAD = ["bad", "dull", "poor", "weak", "boring", "awful", "slow", "silly", "flat", "tedious", "dreadful", "tiresome"]
THINGS = ["film", "story", "plot", "cast", "script", "music", "ending", "hero", "camera", "dialogue", "scenery", "pace"]
DEGREES = ("", "very", "really", "quite", "rather", "so", "almost")
NOT = ("not", "never", "hardly")
OPENINGS = ("", "i thought", "we found that", "my friend says", "critics say")
WORDS = [*GOOD, *BAD, *THINGS, *DEGREES[1:], *NOT, *" ".join(OPENINGS).split(), "the", "was", "and", "but", ",", "."]


def review(draw: random.Random) -> tuple[str, int]:
    """Return a review and its label: one judgement, or two joined by `but`, of which the second one counts."""

    def judgement() -> tuple[str, int]:
        good, negated = draw.random() < 0.5, draw.random() < 0.4
        words = ["the", draw.choice(THINGS), "was", draw.choice(NOT) if negated else "", draw.choice(DEGREES)]
        return " ".join(filter(None, [*words, draw.choice(GOOD if good else BAD)])), int(good != negated)

    opening, (text, label) = draw.choice(OPENINGS), judgement()
    for _ in range(draw.choice((0, 0, 1))):
        more, label = judgement()
        text += f" , but {more}"
    return f"{opening} {text} .".strip(), label


def rows(count: int, seed: int) -> dict[str, list]:
    """Return the columns `text` and `label` of a split."""
    draw = random.Random(seed)
    texts, labels = zip(*(review(draw) for _ in range(count)))
    return {"text": list(texts), "label": [1 - label if draw.random() < 0.05 else label for label in labels]}


def main() -> None:
    """Write `data/` and `model/`, and print the loss and the accuracy on the split `validation`."""
    import datasets
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=12, help="passes over the train split (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": rows(4000, seed=0), "validation": rows(600, seed=1)}
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(LABELS))}
    write_data(arguments.out / "data", splits, features)
    tokenizer = write_tokenizer(arguments.out / "model", WORDS, maximum=64)
    model = text_model(
        "ForSequenceClassification", len(tokenizer), labels=LABELS,
        hidden_size=64, intermediate_size=128, initializer_range=0.1, hidden_dropout_prob=0.0,
    )  # fmt: skip

    def inputs(split: str) -> dict[str, torch.Tensor]:
        encoded = tokenizer(splits[split]["text"], padding=True, return_tensors="pt")
        return {**encoded, "labels": torch.tensor(splits[split]["label"])}

    print(f"loss {train(model, inputs('train'), epochs=arguments.epochs):.4f}")
    held_out = inputs("validation")
    with torch.inference_mode():
        correct = model(**held_out).logits.argmax(-1) == held_out["labels"]
    print(f"validation accuracy {correct.double().mean():.4f}")
    model.save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
