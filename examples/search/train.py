"""Write the data set and the trained model of the text-ranking example: `python examples/search/train.py --out DIR`.

Each question asks how to do something with something, and comes with six documents: one answers it (2), two are about
one half of it (1), and three about neither (0). Documents say the same in other words, and some only `it`, so that no
model can find all answers. The loss compares the documents of a question. The script takes half a minute on one core.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.testing import text_model, train, write_data, write_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

ACTIONS = ("clean wash scrub", "repair mend fix", "sell auction trade", "store keep stow", "paint colour varnish")
THINGS = ("boat ship yacht", "bicycle bike tandem", "sofa couch settee", "coat jacket anorak", "clock watch timer")
PARTS = tuple([group.split() for group in groups] for groups in (ACTIONS, THINGS))
SHARED = ((True, True), (True, False), (False, True), (False, False), (False, False), (False, False))
FRAMES = ("{} your {} in an hour", "you can {} a {} at home", "before you {} the {} , read this", "why we {} every {}")
QUESTION = "how do i {} my {} ?"
WORDS = [word for groups in PARTS for group in groups for word in group]
WORDS += " ".join([*FRAMES, QUESTION, "it"]).replace("{}", "").split()


def question(draw: random.Random) -> tuple[str, list[str], list[int]]:
    """Return a question, its documents and their relevance, in a random order."""
    asked = [draw.choice(groups) for groups in PARTS]
    documents = []
    for shared in draw.sample(SHARED, len(SHARED)):
        words = []
        for groups, group, same in zip(PARTS, asked, shared):
            said = group if same else draw.choice([other for other in groups if other is not group])
            words.append(draw.choice(said))
        if draw.random() < 0.15:
            words[1] = "it"
        documents.append((draw.choice(FRAMES).format(*words), sum(shared)))
    texts, relevance = map(list, zip(*documents))
    return QUESTION.format(*(draw.choice(group) for group in asked)), texts, relevance


def rows(count: int, seed: int) -> dict[str, list]:
    """Return the columns `query`, `documents` and `labels` of a split."""
    draw = random.Random(seed)
    return dict(zip(("query", "documents", "labels"), map(list, zip(*(question(draw) for _ in range(count))))))


def main() -> None:
    """Write `data/` and `model/`, and print the loss, and how often the best document of `validation` comes first."""
    import datasets
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the train split (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": rows(1500, seed=0), "validation": rows(250, seed=1)}
    text, numbers = datasets.Value("string"), datasets.List(datasets.Value("int8"))
    write_data(arguments.out / "data", splits, {"query": text, "documents": datasets.List(text), "labels": numbers})
    tokenizer = write_tokenizer(arguments.out / "model", WORDS, maximum=64)
    model = text_model(
        "ForSequenceClassification", len(tokenizer), labels=["relevance"],
        hidden_size=64, intermediate_size=128, initializer_range=0.1, hidden_dropout_prob=0.0,
    )  # fmt: skip

    def inputs(split: str) -> dict[str, Tensor]:
        queries, documents, labels = splits[split].values()
        pairs = [query for query in queries for _ in SHARED], [text for texts in documents for text in texts]
        encoded = tokenizer(*pairs, padding=True, return_tensors="pt")
        tensors = {name: values.reshape(len(queries), len(SHARED), -1) for name, values in encoded.items()}
        return {**tensors, "labels": torch.tensor(labels)}

    def scores(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the score of each document `(questions, documents) float32`."""
        pairs = {name: values.flatten(0, 1) for name, values in batch.items() if name != "labels"}
        return model(**pairs).logits.reshape(-1, len(SHARED))

    def loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        shares = batch["labels"] / batch["labels"].sum(1, keepdim=True)
        return torch.nn.functional.cross_entropy(scores(model, batch), shares)

    print(f"loss {train(model, inputs('train'), epochs=arguments.epochs, batch_size=16, loss=loss):.4f}")
    held_out = inputs("validation")
    with torch.inference_mode():
        first = scores(model, held_out).argmax(1)
    correct = held_out["labels"].gather(1, first[:, None]) == 2
    print(f"validation: the best document is first for {correct.double().mean():.4f}")
    model.half().save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
