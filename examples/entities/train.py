"""Write the data set and the trained model of the entities example: `python examples/entities/train.py --out DIR`.

Sentences are generated. Names are put together from syllables, so most names of the split `validation` do not occur in
`train`, and a person, a place and a company may have the same name. Only the neighbours show what a name is. One name
in twenty has a wrong label, as in real data. The script takes half a minute on one core.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from benchcard.testing import text_model, train, write_data, write_tokenizer

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
FIRST = [
    "al",
    "bo",
    "ca",
    "da",
    "el",
    "fi",
    "ga",
    "ha",
    "is",
    "jo",
    "ka",
    "li",
    "mo",
    "na",
    "or",
    "pa",
    "ro",
    "sa",
    "ti",
    "va",
]
LAST = ["berg", "ford", "dale", "mont", "stone", "well", "wick", "ton", "vale", "ria", "nes", "lin", "ker", "sen"]
BEFORE = {"LOC": ("san", "new", "port"), "PER": ("maria", "john", "peter"), "ORG": ("royal", "united", "first")}
FRAMES = (
    "PER lives in LOC .",
    "PER and PER work for ORG .",
    "ORG opened an office in LOC .",
    "yesterday PER left ORG for ORG .",
    "the mayor of LOC met PER .",
    "shares of ORG fell , said PER .",
    "trains from LOC to LOC are late .",
    "in LOC it rained , and PER stayed at home .",
    "PER , who was born in LOC , founded ORG .",
)
WORDS = sorted({word for frame in FRAMES for word in frame.split() if not word.isupper()})
PIECES = [*FIRST, *(f"##{piece}" for piece in [*FIRST, *LAST]), *(word for words in BEFORE.values() for word in words)]


def sentence(draw: random.Random) -> tuple[list[str], list[str]]:
    """Return the words of a sentence and their labels."""
    words, labels = [], []
    for word in draw.choice(FRAMES).split():
        if not word.isupper():
            words.append(word)
            labels.append("O")
            continue
        name = [(draw.choice(FIRST) + draw.choice(["", *FIRST]) + draw.choice(LAST)).capitalize()]
        if draw.random() < 0.4:
            name.insert(0, draw.choice(draw.choice(list(BEFORE.values()))).capitalize())
        kind = draw.choice(list(BEFORE)) if draw.random() < 0.05 else word
        words += name
        labels += [f"B-{kind}", f"I-{kind}"][: len(name)]
    return words, labels


def rows(count: int, seed: int) -> dict[str, list]:
    """Return the columns `tokens` and `ner_tags` of a split."""
    draw = random.Random(seed)
    tokens, tags = zip(*(sentence(draw) for _ in range(count)))
    return {"tokens": list(tokens), "ner_tags": [[LABELS.index(label) for label in labels] for labels in tags]}


def main() -> None:
    """Write `data/` and `model/`, and print the loss and the accuracy of words on the split `validation`."""
    import datasets
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the train split (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": rows(2000, seed=0), "validation": rows(400, seed=1)}
    tags = datasets.List(datasets.ClassLabel(names=list(LABELS)))
    features = {"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags}
    write_data(arguments.out / "data", splits, features)
    tokenizer = write_tokenizer(arguments.out / "model", [*WORDS, *PIECES], maximum=64)
    model = text_model(
        "ForTokenClassification", len(tokenizer), labels=LABELS,
        hidden_size=64, intermediate_size=128, initializer_range=0.1, hidden_dropout_prob=0.0,
    )  # fmt: skip

    def inputs(split: str) -> dict[str, torch.Tensor]:
        encoded = tokenizer(splits[split]["tokens"], is_split_into_words=True, padding=True, return_tensors="pt")
        labels = torch.full(encoded["input_ids"].shape, -100)
        for row, tags in enumerate(splits[split]["ner_tags"]):
            words = encoded.word_ids(row)
            for place, word in enumerate(words):
                if word is not None and word != words[place - 1]:
                    labels[row, place] = tags[word]
        return {**encoded, "labels": labels}

    print(f"loss {train(model, inputs('train'), epochs=arguments.epochs):.4f}")
    held_out = inputs("validation")
    counted = held_out["labels"] >= 0
    with torch.inference_mode():
        correct = (model(**held_out).logits.argmax(-1) == held_out["labels"])[counted]
    print(f"validation accuracy of words {correct.double().mean():.4f}")
    model.save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
