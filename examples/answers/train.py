"""Write the data set and the trained model of the answers example: `python examples/answers/train.py --out DIR`.

Contexts are generated short biographies: where and when somebody was born, moved and studied, and for whom they work. A
question asks for one of these facts. A fifth of the questions have no answer in the context (SQuAD v2). The script
takes a minute on one core.
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
_TEMPLATES = " ".join(text for statement, questions in FACTS.values() for text in (statement, *questions.values()))
WORDS = [
    *sorted({word for word in _TEMPLATES.split() if "{" not in word}),
    *PEOPLE,
    *YEARS,
    *" ".join([*CITIES, *FIRMS]).split(),
]


def row(draw: random.Random, number: int) -> dict:
    """Return a row as in SQuAD v2: `id`, `question`, `context` and `answers`."""
    who, asked = draw.choice(PEOPLE), draw.choice(list(FACTS))
    others = draw.sample([fact for fact in FACTS if fact != asked], 2)
    facts = others if draw.random() < 0.2 else draw.sample([*others, asked], 3)
    name, question = draw.choice(list(FACTS[asked][1].items()))
    context, answers = "", {"text": [], "answer_start": []}
    for fact in facts:
        values = {"city": draw.choice(CITIES), "firm": draw.choice(FIRMS), "year": draw.choice(YEARS)}
        context += " " if context else ""
        if fact == asked:
            before = FACTS[fact][0].partition("{" + name + "}")[0].format(who=who, **values)
            answers = {"text": [values[name]], "answer_start": [len(context + before)]}
        context += FACTS[fact][0].format(who=who, **values)
    return {"id": str(number), "question": question.format(who=who), "context": context, "answers": answers}


def rows(count: int, seed: int) -> dict[str, list]:
    """Return the columns of a split."""
    draw = random.Random(seed)
    examples = [row(draw, number) for number in range(count)]
    return {name: [example[name] for example in examples] for name in examples[0]}


def main() -> None:
    """Write `data/` and `model/`, and print the loss and the share of correct answers on the split `validation`."""
    import datasets
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
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
        encoded = tokenizer(columns["question"], columns["context"], padding=True, return_tensors="pt")
        starts, ends = torch.zeros(2, len(columns["id"]), dtype=torch.long)
        for number, answer in enumerate(columns["answers"]):
            for text, start in zip(answer["text"], answer["answer_start"]):
                starts[number] = encoded.char_to_token(number, start, 1)
                ends[number] = encoded.char_to_token(number, start + len(text) - 1, 1)
        return {**encoded, "start_positions": starts, "end_positions": ends}

    print(f"loss {train(model, inputs('train'), epochs=arguments.epochs):.4f}")
    held_out = inputs("validation")
    with torch.inference_mode():
        output = model(**held_out)
    correct = output.start_logits.argmax(-1) == held_out["start_positions"]
    correct &= output.end_logits.argmax(-1) == held_out["end_positions"]
    print(f"validation share of correct answers {correct.double().mean():.4f}")
    model.save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
