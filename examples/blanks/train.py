"""Write the data set and the trained model of the fill-mask example: `python examples/blanks/train.py --out DIR`.

Texts are generated: who somebody is, and what she or he does, where and when. Most words follow from the others, some
from nothing, as names, so that no model can reach an accuracy of 1. In training one token of each text is hidden, as
in the evaluation. The script takes half a minute on one core.
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

NAMES = {"she": "anna carla emma ines maria olga", "he": "bob david felix hugo liam omar"}
JOBS = {  # what they do, with what, and where
    "baker": ("bakes kneads", "bread cake dough", "bakery"),
    "farmer": ("plants harvests", "wheat barley maize", "field"),
    "painter": ("draws frames", "portraits landscapes murals", "studio"),
    "nurse": ("treats comforts", "patients children visitors", "hospital"),
    "teacher": ("corrects explains", "homework essays poems", "school"),
    "sailor": ("mends hoists", "sails ropes nets", "harbour"),
    "gardener": ("waters prunes", "roses tulips hedges", "park"),
    "mechanic": ("repairs tests", "engines brakes trucks", "garage"),
}
TIMES = {"mornings": "early", "evenings": "late", "winter": "indoors", "summer": "outdoors"}
FRAMES = (
    "{name} is a {job} . in {time} {who} {verb} {what} {how} .",
    "{name} the {job} {verb} {what} in the {place} , {how} in {time} .",
    "the {job} in the {place} is {name} , and {who} {verb} {what} .",
)
WORDS = " ".join([*NAMES, *NAMES.values(), *JOBS, *map(" ".join, JOBS.values()), *TIMES, *TIMES.values()]).split()
WORDS += ["is", "a", "the", "in", "and", ".", ","]


def text(draw: random.Random) -> str:
    """Return a text. In one of ten, somebody does what belongs to another job."""
    who, job, time = draw.choice(list(NAMES)), draw.choice(list(JOBS)), draw.choice(list(TIMES))
    verbs, things, place = JOBS[draw.choice(list(JOBS)) if draw.random() < 0.1 else job]
    values = {"verb": draw.choice(verbs.split()), "what": draw.choice(things.split()), "place": place}
    name = draw.choice(NAMES[who].split())
    return draw.choice(FRAMES).format(name=name, who=who, job=job, time=time, how=TIMES[time], **values)


def rows(count: int, seed: int) -> dict[str, list[str]]:
    """Return the column `text` of a split."""
    draw = random.Random(seed)
    return {"text": [text(draw) for _ in range(count)]}


def main() -> None:
    """Write `data/` and `model/`, and print the loss and the accuracy on the split `validation`."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the train split (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": rows(2000, seed=0), "validation": rows(500, seed=1)}
    write_data(arguments.out / "data", splits)
    tokenizer = write_tokenizer(arguments.out / "model", WORDS, maximum=64)
    model = text_model(
        "ForMaskedLM", len(tokenizer),
        hidden_size=64, intermediate_size=128, initializer_range=0.1, hidden_dropout_prob=0.0,
    )  # fmt: skip

    def inputs(split: str) -> dict[str, Tensor]:
        return tokenizer(splits[split]["text"], padding=True, return_tensors="pt")

    def hide(batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Return inputs in which one ordinary token of each row is hidden, and labels, -100 but for that token."""
        ids = batch["input_ids"]
        ordinary = ids > max(tokenizer.all_special_ids)
        hidden = torch.nn.functional.one_hot(torch.multinomial(ordinary.float(), 1)[:, 0], ids.shape[1]).bool()
        return {**batch, "input_ids": ids.masked_fill(hidden, tokenizer.mask_token_id)}, ids.masked_fill(~hidden, -100)

    def loss(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        masked, labels = hide(batch)
        return model(**masked, labels=labels).loss

    print(f"loss {train(model, inputs('train'), epochs=arguments.epochs, learning_rate=4e-3, loss=loss):.4f}")
    torch.manual_seed(0)
    masked, labels = hide(inputs("validation"))
    with torch.inference_mode():
        correct = model(**masked).logits.argmax(-1) == labels
    print(f"validation accuracy {correct.sum() / len(labels):.4f}")
    model.half().save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
