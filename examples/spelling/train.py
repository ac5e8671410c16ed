"""Write the data set and the trained model of the spelling example: `python examples/spelling/train.py --out DIR`.

Words of the letters a to g are played: each letter is a note, and a pause is between two words. The sounds are made
like those of the melodies example, for a model of the same sizes, which is trained with CTC. The script takes a minute
on one core.
"""

from __future__ import annotations

import argparse
import json
import runpy
from pathlib import Path

import numpy as np
from datasets import Value

from benchcard.testing import train, write_data

MELODIES = runpy.run_path(str(Path(__file__).parents[1] / "melodies" / "train.py"))
WORDS = ["ace", "add", "age", "bad", "bag", "bed", "bee", "cab", "dab", "dad", "ebb", "egg", "fab", "fed", "gag", "gab"]
LETTERS = "abcdefg"


def rows(count: int, seed: int) -> dict[str, list]:
    """Return the columns `audio` and `text` of a split."""
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, size=draw.integers(1, 3))) for _ in range(count)]
    notes = [[None if letter == " " else LETTERS.index(letter) for letter in text] for text in texts]
    files = [MELODIES["sound"](sequence, 840, 0.15, draw) for sequence in notes]
    return {"audio": [{"bytes": file, "path": None} for file in files], "text": texts}


def main() -> None:
    """Write `data/` and `model/`, and print the loss and the share of right transcripts on the split `validation`."""
    import torch
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=12, help="passes over 2,000 sounds (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": rows(64, seed=0), "validation": rows(240, seed=1)}
    write_data(arguments.out / "data", splits, {"audio": MELODIES["FILE"], "text": Value("string")})
    extractor = MELODIES["write_extractor"](arguments.out / "model")
    vocabulary = arguments.out / "model" / "vocab.json"
    vocabulary.write_text(json.dumps({token: id for id, token in enumerate(["<pad>", "<unk>", "|", *LETTERS])}) + "\n")
    tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), bos_token=None, eos_token=None)
    tokenizer.save_pretrained(arguments.out / "model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        model = Wav2Vec2ForCTC(MELODIES["configuration"](**sizes, ctc_loss_reduction="mean"))

    def inputs(columns: dict[str, list]) -> dict[str, torch.Tensor]:
        values = MELODIES["features"](extractor, [audio["bytes"] for audio in columns["audio"]])
        labels = tokenizer(columns["text"], padding=True, return_tensors="pt")["input_ids"]
        return {"input_values": values, "labels": labels.masked_fill(labels == tokenizer.pad_token_id, -100)}

    print(f"loss {train(model, inputs(rows(2000, seed=2)), epochs=arguments.epochs):.4f}")
    with torch.inference_mode():
        tokens = model(inputs(splits["validation"])["input_values"]).logits.argmax(-1)
    right = [text == expected for text, expected in zip(tokenizer.batch_decode(tokens), splits["validation"]["text"])]
    print(f"validation: {np.mean(right):.4f} of the transcripts are right")
    model.half().save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
