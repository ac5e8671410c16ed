"""Write the model of the quickstart example: `python examples/quickstart/train.py --out DIR`.

It is trained like that of the digits example, on the same data, but wider: an int8 model pays off only where matrix
products take most of the time. The weights are stored in half precision, which halves the file; the configuration says
float32, so transformers loads them as such.
"""

from __future__ import annotations

import argparse
import runpy
import tempfile
from pathlib import Path

DIGITS = Path(__file__).parents[1] / "digits"


def main() -> None:
    """Write `model/`, and print the accuracy on each split."""
    from datasets import load_dataset

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="the folder for model/")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the train split (default: %(default)s)")
    arguments = parser.parse_args()
    digits = runpy.run_path(str(DIGITS / "train.py"))
    with tempfile.TemporaryDirectory() as cache:
        data = load_dataset(str(DIGITS / "data"), cache_dir=cache, keep_in_memory=True)
        recipe = digits["Recipe"](epochs=arguments.epochs, width=192, layers=3)
        model, processor = digits["train"](data, recipe)
        for split, rows in data.items():
            print(f"{split:10} {len(rows):5} rows  accuracy {digits['accuracy'](model, processor, rows):.4f}")
    halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.save_pretrained(arguments.out / "model", state_dict=halves)
    processor.save_pretrained(arguments.out / "model")


if __name__ == "__main__":
    main()
