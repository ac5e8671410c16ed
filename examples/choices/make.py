"""Write the data of the choices example: `python examples/choices/make.py --out DIR`.

A row is the beginning of a sentence of Python's language reference, and four endings: its own, and the words of that in
three other orders. The columns are those of SWAG, so lm-eval's task `swag` reads them. The passages are those of
`examples/generation/data`, of whose split `validation` the model has seen nothing.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import datasets
import numpy as np

from benchcard.testing import write_data

GENERATION = Path(__file__).parent.parent / "generation" / "data"
START, END = 8, 5  # words
CHOICES = 4


def sentences(split: str) -> list[list[str]]:
    """Return the words of each sentence of a split that is long enough."""
    passages = datasets.load_dataset(str(GENERATION), split=split)["text"]
    # Indented lines are code.
    prose = [" ".join(line for line in passage.splitlines() if line[:1].isalpha()) for passage in passages]
    words = [sentence.split() for text in prose for sentence in re.split(r"(?<=[.]) +", text)]
    return [sentence for sentence in words if len(sentence) >= START + END]


def shuffled(words: list[str], draw: np.random.Generator) -> list[str]:
    """Return words in another order."""
    while (order := draw.permutation(words).tolist()) == words:
        pass
    return order


def rows(split: str, count: int, seed: int) -> dict[str, list]:
    """Return the columns of a split, with at most `count` rows."""
    draw, found = np.random.default_rng(seed), sentences(split)
    columns: dict[str, list] = {name: [] for name in ("startphrase", *(f"ending{place}" for place in range(CHOICES)))}
    columns["label"] = []
    for number in draw.permutation(len(found))[:count]:
        words, label = found[number], int(draw.integers(CHOICES))
        columns["startphrase"].append(" ".join(words[:START]))
        for place in range(CHOICES):
            ending = words[START : START + END]
            columns[f"ending{place}"].append(" ".join(ending if place == label else shuffled(ending, draw)))
        columns["label"].append(label)
    return columns


def main() -> None:
    """Write `data/`, and print how many rows it has."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/")
    splits = {"train": rows("train", 64, seed=0), "validation": rows("validation", 300, seed=1)}
    write_data(parser.parse_args().out / "data", splits)
    print({name: len(columns["label"]) for name, columns in splits.items()})


if __name__ == "__main__":
    main()
