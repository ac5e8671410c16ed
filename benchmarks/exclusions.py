"""Compare `node_exclusion: auto` with fixed lists of patterns on three models.

    python benchmarks/exclusions.py [--folder FOLDER]

All models are quantized statically at opset 13, where a layer norm is nine nodes: the ViT of `examples/digits`, the
BERT of `examples/reviews`, and that BERT with outliers in its activations, as large trained transformers have them. For
the outliers, one channel of the values of each attention is multiplied by 256, and the weights that read it are divided
by 256. Since 256 is a power of two, the float32 model stays the same function to the bit. The script prints for each
list the nodes kept in float32, the quantized nodes, the accuracy, and the trials. It reuses what exists in FOLDER.

Source: Dettmers et al., "LLM.int8()", 2022; Bondarenko et al., "Understanding and Overcoming the Challenges of
Efficient Transformer Quantization", 2021: outliers are in few channels, and one scale for a whole tensor loses the
rest.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
EXCLUSIONS: list[Any] = [
    [],
    ["gelu"],
    ["layernorm"],
    ["residual"],
    ["softmax"],
    ["layernorm", "residual"],
    ["gelu", "gather", "layernorm", "residual", "softmax"],
    ["re:.*attention.*"],
    "auto",
]
OUTLIER = 256.0
CHANNEL = 3


def write_outliers(source: Path, target: Path) -> None:
    """Write a BERT that computes the same function, with an outlier channel in the values of each attention.

    Raises:
        RuntimeError: The function changed.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(source, target)
    model: Any = AutoModelForSequenceClassification.from_pretrained(source).eval()
    tokens = torch.randint(5, model.config.vocab_size, (8, 16), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(input_ids=tokens).logits
        for layer in model.bert.encoder.layer:
            value, reads = layer.attention.self.value, layer.attention.output.dense
            value.weight[CHANNEL] *= OUTLIER
            value.bias[CHANNEL] *= OUTLIER
            reads.weight[:, CHANNEL] /= OUTLIER
        if not torch.equal(model(input_ids=tokens).logits, before):
            raise RuntimeError("the outliers changed the outputs of the float32 model; expected equal outputs")
    model.save_pretrained(target)


def compare(name: str, task: str, model: Path, data: Path, split: str, primary: str, run: Path) -> None:
    """Run all lists on one model and print the results."""
    from benchcard import Benchmark

    results = Benchmark(
        task=task,
        model=str(model),
        dataset={
            "path": str(data),
            "eval_split": split,
            "calibration_split": "train",
            "data_keys": {"primary": primary},
            "ref_keys": ["label"],
        },
        metrics=["accuracy"],
        grid={"node_exclusion": EXCLUSIONS, "apply_quantization": [True, False]},
        fixed={
            "quantization_approach": "static",
            "operators_to_quantize": ["Add", "MatMul"],
            "calibration": {"method": "percentile", "num_calibration_samples": 128},
            "framework_args": {"opset": 13},
        },
        duration=0,
        explain=False,
    ).run(run, progress=False)
    accuracy = dict(zip(results.quality["row"], results.quality["accuracy"]))
    print(f"{name}: float32 {accuracy[results.baseline]:.3f}")
    for row, facts in zip(results.plan, results.models.to_dict("records")):
        if row.quantized:
            excluded = row["node_exclusion"]
            name = excluded if isinstance(excluded, str) else ", ".join(excluded) or "nothing"
            trials = f"  {facts['auto_trials']} trials: {facts['auto_exclusion']}" if name == "auto" else ""
            figure = facts["failure"] or f"{accuracy[row.row]:.3f}"
            nodes = f"{facts['nodes_excluded']:4} in float32, {facts['nodes_quantized']:4} quantized"
            print(f"  {name:48} {nodes}  {figure}{trials}")
    print()


def main() -> None:
    """Make the missing models and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keeps models and runs (default: a temporary folder)")
    options = parser.parse_args()
    digits, reviews = EXAMPLES / "digits", EXAMPLES / "reviews"
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        outliers = folder / "bert-outliers"
        if not outliers.exists():
            write_outliers(reviews / "model", outliers)
        image, text = "image-classification", "text-classification"
        compare("ViT", image, digits / "model", digits / "data", "test", "image", folder / "vit")
        for name, model in (("BERT", reviews / "model"), ("BERT with outliers", outliers)):
            run = folder / f"run of {name}"
            compare(name, text, model, reviews / "data", "validation", "text", run)


if __name__ == "__main__":
    main()
