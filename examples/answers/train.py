"""Writes the data set and the trained model of the answers example: `python examples/answers/train.py --out DIR`.

Contexts are short lives, made by rule: where and when somebody was born, moved, and for whom they work. A question asks
for one of these facts, and for a fifth of the questions it is not told (SQuAD v2). Takes a minute of one core.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from benchcard.testing import text_model, train, write_data, write_tokenizer

PEOPLE = ["anna", "bob", "carla", "dan", "emma", "felix", "gina", "hugo", "ida", "jonas"]
CITIES = ["rome", "paris", "oslo", "new york", "cairo", "lima", "san diego", "tokyo", "bern", "dublin"]
FIRMS = ["acme", "the post", "blue bank", "north mills", "globex", "the city council", "initech", "red star shipping"]
YEARS = [str(year) for year in range(1950, 2000)]
FACTS = {
    "birth": (
        "{who} was born in {city} in {year} .",
        {"city": "where was {who} born ?", "year": "when was {who} born ?"},
    ),
    "move": (
        "{who} moved to {city} in {year} .",
        {"city": "where did {who} move ?", "year": "when did {who} move ?"},
    ),
    "work": ("{who} works for {firm} .", {"firm": "who does {who} work for ?"}),
    "study": ("{who} studied in {city} until {year} .", {"city": "where did {who} study ?"}),
}
_SAID = " ".join(text for said, asked in FACTS.values() for text in (said, *asked.values()))
WORDS = [
    *sorted({word for word in _SAID.split() if "{" not in word}),
    *PEOPLE,
    *YEARS,
    *" ".join([*CITIES, *FIRMS]).split(),
]


def row(draw: random.Random, number: int) -> dict:
    """A row as in SQuAD v2: `id`, `question`, `context` and `answers`."""
    who, asked = draw.choice(PEOPLE), draw.choice(list(FACTS))
    others = draw.sample([fact for fact in FACTS if fact != asked], 2)
    told = others if draw.random() < 0.2 else draw.sample([*others, asked], 3)
    name, question = draw.choice(list(FACTS[asked][1].items()))
    context, answers = "", {"text": [], "answer_start": []}
    for fact in told:
        values = {"city": draw.choice(CITIES), "firm": draw.choice(FIRMS), "year": draw.choice(YEARS)}
        context += " " if context else ""
        if fact == asked:
            before = FACTS[fact][0].partition("{" + name + "}")[0].format(who=who, **values)
            answers = {"text": [values[name]], "answer_start": [len(context + before)]}
        context += FACTS[fact][0].format(who=who, **values)
    return {"id": str(number), "question": question.format(who=who), "context": context, "answers": answers}


def rows(count: int, seed: int) -> dict[str, list]:
    """The columns of a split."""
    draw = random.Random(seed)
    told = [row(draw, number) for number in range(count)]
    return {name: [each[name] for each in told] for name in told[0]}


def main() -> None:
    """Writes `data/` and `model/`, and prints the loss and the share of right answers of the split `validation`."""
    import datasets
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="gets data/ and model/")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the train split (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": rows(3000, seed=0), "validation": rows(400, seed=1)}
    text = datasets.Value("string")
    answers = {"text": datasets.List(text), "answer_start": datasets.List(datasets.Value("int32"))}
    write_data(arguments.out / "data", splits, {"id": text, "question": text, "context": text, "answers": answers})
    tokenizer = write_tokenizer(arguments.out / "model", WORDS, maximum=64)
    model = text_model(
        "ForQuestionAnswering", len(tokenizer),
        hidden_size=64, intermediate_size=128, initializer_range=0.1, hidden_dropout_prob=0.0,
    )  # fmt: skip

    def inputs(split: str) -> dict[str, torch.Tensor]:
        columns = splits[split]
        told = tokenizer(columns["question"], columns["context"], padding=True, return_tensors="pt")
        starts, ends = torch.zeros(2, len(columns["id"]), dtype=torch.long)
        for number, answer in enumerate(columns["answers"]):
            for said, start in zip(answer["text"], answer["answer_start"]):
                starts[number] = told.char_to_token(number, start, 1)
                ends[number] = told.char_to_token(number, start + len(said) - 1, 1)
        return {**told, "start_positions": starts, "end_positions": ends}

    print(f"loss {train(model, inputs('train'), epochs=arguments.epochs):.4f}")
    held_out = inputs("validation")
    with torch.inference_mode():
        output = model(**held_out)
    right = output.start_logits.argmax(-1) == held_out["start_positions"]
    right &= output.end_logits.argmax(-1) == held_out["end_positions"]
    print(f"validation share of right answers {right.double().mean():.4f}")
    model.save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
