"""Whether the search for the layers that cost most names those that trying each names, and how many samples it takes to
say how far outputs are from those in float32.

    python benchmarks/layers.py [--run runs/digits]

Models of a few layers, of five architectures, are quantized in seven ways. In each, every layer is tried alone to the
outputs, and the search is made. With `--run`, the signal-to-noise ratio and the largest difference of that run's static
models on 8, on 16 and on all of its calibration samples.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
KINDS = ("vit", "resnet", "convnext", "bert", "distilbert")
NAMED = 3


def searches() -> None:
    """Print how often the search names the right layers."""
    from test_search import WAYS
    from tiny_graphs import calibrated, export, samples

    from benchcard.quantization.quantize import quantize_model
    from benchcard.quantization.sensitivity.search import Search

    found: list[tuple[int, bool, bool, bool, float]] = []
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        # The exporter warns of its own age.
        warnings.simplefilter("ignore")
        folder = Path(temporary)
        for kind in KINDS:
            path, feeds = export(kind, 13, folder / f"{kind}.onnx"), samples(kind, 4)
            ranges = calibrated(path, feeds, folder)
            for how in WAYS:
                quantize_model(path, folder / "q.onnx", how, ranges)
                place = Path(tempfile.mkdtemp(dir=folder))
                search = Search(path, folder / "q.onnx", place, feeds[:2], how, 1)
                layers, certain = search.worst(NAMED)
                trials = search.trials
                costs = {layer.tensor: search.tried(at, at + 1).cost for at, layer in enumerate(search.layers)}
                best = sorted(costs, key=lambda tensor: -costs[tensor])[:NAMED]
                names = [layer.tensor for layer in layers]
                share = sum(costs[each] for each in names) / sum(costs[each] for each in best)
                found.append((trials, certain, names == best, names[:1] == best[:1], share))
    trials, certain, three, first, share = (sum(each) for each in zip(*found))
    print("searches  trials each  certain  right three  right first  share of the cost of the right three")
    each = f"{trials / len(found):13.1f}{certain:9}{three:13}{first:13}{share / len(found):12.3f}"
    print(f"{len(found):8}{each}")


def samples_needed(run: Path) -> None:
    """Print how far the outputs of a run's quantized models are, on few and on all of its samples."""
    from benchcard import Results
    from benchcard.evaluation.features import Features
    from benchcard.quantization.sensitivity.losses import losses

    seen: set[str] = set()
    print("\nrow  signal-to-noise ratio in dB, and largest difference, on 8, 16 and all samples")
    for record in Results.load(run).records.records:
        made = record.outcomes
        if not {"explain", "sample", "quantize"} <= made.keys() or made["quantize"].values.digest in seen:
            continue
        seen.add(made["quantize"].values.digest)
        items = Features(made["sample"].folder)
        told = []
        for count in (8, 16, len(items)):
            outputs = losses(
                made["export"].folder / made["export"].values.file,
                made["quantize"].folder / made["quantize"].values.file,
                ({name: array[None] for name, array in items.item(index).items()} for index in range(count)),
                0,
                optimization_level=json.loads((made["explain"].folder / "outcome.json").read_text())["asked"][
                    "optimization_level"
                ],
            ).outputs
            told.append(f"{outputs.snr_db or float('inf'):8.1f}{outputs.max_abs_difference or 0.0:8.2f}")
        print(f"{record.configuration.row:3}  {'   '.join(told)}")


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory with static rows")
    options = parser.parse_args()
    searches()
    if options.run:
        samples_needed(options.run)


if __name__ == "__main__":
    main()
