"""Write the data set and the trained model of the zero-shot example: `python examples/topics/train.py --out DIR`.

A model of natural language inference is trained on generated pairs: a sentence about somebody, and a hypothesis that
follows from it (entailment), that may be true (neutral), or that cannot be (contradiction). The data set asks it for
the topic of sentences, by hypotheses such as `this is about music .`. Some verbs belong to two topics, and some
sentences name no thing, so that no model can reach an accuracy of 1. The model first learns the topics of single words,
since it learns nothing about topics from sentences at once. The script takes half a minute on one core.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from benchcard.testing import text_model, train, write_data, write_tokenizer

LABELS = ("contradiction", "entailment", "neutral")
TEMPLATE = "this is about {} ."
NAMES = ["anna", "bob", "carla", "david", "emma", "felix", "ines", "liam", "maria", "omar"]
TOPICS = {  # verbs and things
    "music": ("plays sings practises writes", "waltz melody song symphony ballad tune"),
    "food": ("cooks tastes fries orders", "soup pasta cheese cake rice salad"),
    "sport": ("plays wins loses watches", "match race football tennis marathon final"),
    "travel": ("misses catches books orders", "flight train taxi ferry tour bus"),
    "film": ("shoots directs watches writes", "comedy thriller western drama scene sequel"),
}
EXTRAS = ["today", "again", "slowly", "alone", "gladly"]
FRAMES = (
    "{name} {verb} {thing} {extra} .",
    "{extra} {name} {verb} {thing} .",
    "it is {name} who {verb} {thing} {extra} .",
)
WORDS = " ".join([*NAMES, *TOPICS, *map(" ".join, TOPICS.values()), *EXTRAS]).split()
WORDS += ["it", "is", "who", "this", "about", "the", "one", "somebody", "nobody", "."]


def other(draw: random.Random, values: list[str], value: str) -> str:
    """Return one of the values that is not `value`."""
    return draw.choice([candidate for candidate in values if candidate != value])


def sentence(draw: random.Random) -> tuple[str, dict[str, str]]:
    """Return a sentence and its parts: the topic, who does what to what, and how."""
    topic = draw.choice(list(TOPICS))
    verbs, things = TOPICS[topic]
    thing = f"the {draw.choice(things.split())}" if draw.random() < 0.6 else "one"
    parts = {"topic": topic, "name": draw.choice(NAMES), "verb": draw.choice(verbs.split())}
    parts |= {"thing": thing, "extra": draw.choice(EXTRAS)}
    return draw.choice(FRAMES).format(**parts), parts


def word_pair(draw: random.Random) -> tuple[str, str, int]:
    """Return a verb or a thing, a topic, and the number of the label: whether it is the topic of the word."""
    topic, right = draw.choice(list(TOPICS)), draw.random() < 0.5
    word = draw.choice(" ".join(TOPICS[topic]).split())
    return word, topic if right else other(draw, list(TOPICS), topic), int(right)


def pair(draw: random.Random) -> tuple[str, str, int]:
    """Return a sentence, a hypothesis, and the number of its label."""
    premise, parts = sentence(draw)
    label = draw.choice(LABELS)
    if label == "neutral":
        part, values = draw.choice((("name", NAMES), ("extra", EXTRAS)))
        hypothesis = FRAMES[0].format(**{**parts, part: other(draw, values, parts[part])})
    elif draw.random() < 0.7:
        entailed = label == "entailment"
        hypothesis = TEMPLATE.format(parts["topic"] if entailed else other(draw, list(TOPICS), parts["topic"]))
    else:
        hypothesis = FRAMES[0].format(**{**parts, "name": "somebody" if label == "entailment" else "nobody"})
    return premise, hypothesis, LABELS.index(label)


def rows(count: int, seed: int) -> dict[str, list]:
    """Return the columns `text` and `label` of a split."""
    draw = random.Random(seed)
    texts, parts = zip(*(sentence(draw) for _ in range(count)))
    return {"text": list(texts), "label": [list(TOPICS).index(values["topic"]) for values in parts]}


def main() -> None:
    """Write `data/` and `model/`, and print the loss and the accuracy on the split `validation`."""
    import datasets
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the pairs (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": rows(300, seed=0), "validation": rows(300, seed=1)}
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=list(TOPICS))}
    write_data(arguments.out / "data", splits, features)
    tokenizer = write_tokenizer(arguments.out / "model", WORDS, maximum=64)
    model = text_model(
        "ForSequenceClassification", len(tokenizer), labels=LABELS,
        hidden_size=64, intermediate_size=128, initializer_range=0.1, hidden_dropout_prob=0.0,
    )  # fmt: skip
    for draw_pair, epochs in ((word_pair, 5), (pair, arguments.epochs)):
        draw = random.Random(2)
        premises, hypotheses, labels = map(list, zip(*(draw_pair(draw) for _ in range(4000))))
        inputs = tokenizer(premises, hypotheses, padding=True, return_tensors="pt")
        print(f"loss {train(model, {**inputs, 'labels': torch.tensor(labels)}, epochs=epochs):.4f}")
    texts, answers = splits["validation"].values()
    pairs = [text for text in texts for _ in TOPICS], [TEMPLATE.format(topic) for _ in texts for topic in TOPICS]
    with torch.inference_mode():
        scores = model(**tokenizer(*pairs, padding=True, return_tensors="pt")).logits[:, LABELS.index("entailment")]
    predicted = scores.reshape(-1, len(TOPICS)).argmax(1)
    print(f"validation accuracy {(predicted == torch.tensor(answers)).double().mean():.4f}")
    model.half().save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
