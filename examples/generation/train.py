"""Write the data set and the trained model of the generation example: `python examples/generation/train.py --out DIR`.

The texts are passages of Python's language reference, as `pydoc` ships them; those of every fourth topic are held out.
The model is a three-layer Llama of 0.6 million weights, over a vocabulary of 512 byte pairs. The script takes some
minutes on one core.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING

from benchcard.testing import train, write_data

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

START = "<s>"
LENGTH = 128  # tokens that the model takes
PASSAGE = 800  # least number of characters of a passage, except the last of a topic


def passages(text: str) -> Iterator[str]:
    """Yield a text in passages of whole paragraphs."""
    passage = ""
    for paragraph in text.strip().split("\n\n"):
        passage += f"{paragraph.rstrip()}\n\n"
        if len(passage) >= PASSAGE:
            yield passage.rstrip()
            passage = ""
    if passage:
        yield passage.rstrip()


def texts(held_out: bool) -> list[str]:
    """Return the passages of the held-out topics, or of all others."""
    names = [name for number, name in enumerate(sorted(topics)) if (number % 4 == 3) == held_out]
    return [passage for name in names for passage in passages(topics[name])]


def write_tokenizer(folder: Path, train_texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Save a byte-pair tokenizer, which puts a start token before each text; there is no other special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=[START], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(train_texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=LENGTH,
    )
    fast.save_pretrained(folder)
    return fast


def rows(tokenizer: PreTrainedTokenizerFast, of_texts: Sequence[str]) -> torch.Tensor:
    """Return all texts, one after the other, as rows of tokens `(rows, tokens) int64`."""
    import torch

    ids = [token for tokens in tokenizer(list(of_texts), verbose=False)["input_ids"] for token in tokens]
    return torch.tensor(ids[: len(ids) // LENGTH * LENGTH]).reshape(-1, LENGTH)


def main() -> None:
    """Write `data/` and `model/`, and print the perplexity of rows of both splits."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for data/ and model/")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the train split (default: %(default)s)")
    arguments = parser.parse_args()
    splits = {"train": texts(held_out=False), "validation": texts(held_out=True)}
    write_data(arguments.out / "data", {name: {"text": of_split} for name, of_split in splits.items()})
    tokenizer = write_tokenizer(arguments.out / "model", splits["train"])
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=320, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=LENGTH, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    tokens = rows(tokenizer, splits["train"])
    loss = train(model, {"input_ids": tokens, "labels": tokens}, epochs=arguments.epochs, batch_size=16)
    held_out = rows(tokenizer, splits["validation"])
    with torch.inference_mode():
        held_out_loss = model(input_ids=held_out, labels=held_out).loss.item()
    print(f"perplexity: train {math.exp(loss):.2f}, validation {math.exp(held_out_loss):.2f}")
    model.half().save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
