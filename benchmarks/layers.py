"""Check the search for the most costly layers against trying each layer, and the number of samples it needs.

    python benchmarks/layers.py [--run runs/digits]

Models of a few layers, of five architectures, are quantized in seven ways. For each, the script tries every layer
alone, to the outputs, and runs the search. With `--run` it also prints the signal-to-noise ratio and the largest
difference of that run's static models on 8, on 16 and on all of its calibration samples.
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


def print_searches() -> None:
    """Print how often the search names the right layers, and in how many trials."""
    from quantization.sensitivity.test_search import WAYS
    from tiny_graphs import calibrated, export, samples

    from benchcard.quantization.quantize import quantize_model
    from benchcard.quantization.sensitivity.search import LayerSearch

    searches: list[tuple[int, bool, bool, bool, float]] = []
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        # The exporter warns that it is deprecated.
        warnings.simplefilter("ignore")
        folder = Path(temporary)
        for kind in KINDS:
            path, feeds = export(kind, 13, folder / f"{kind}.onnx"), samples(kind, 4)
            ranges = calibrated(path, feeds, folder)
            for how in WAYS:
                quantize_model(path, folder / "q.onnx", how, ranges)
                place = Path(tempfile.mkdtemp(dir=folder))
                search = LayerSearch(path, folder / "q.onnx", place, feeds[:2], how, 1)
                layers, complete = search.find_worst(NAMED)
                trials = search.trials
                costs = {layer.tensor: search.try_layers(at, at + 1).cost for at, layer in enumerate(search.layers)}
                best = sorted(costs, key=lambda tensor: -costs[tensor])[:NAMED]
                names = [layer.tensor for layer in layers]
                share = sum(costs[name] for name in names) / sum(costs[name] for name in best)
                searches.append((trials, complete, names == best, names[:1] == best[:1], share))
    trials, complete, three, first, share = (sum(values) for values in zip(*searches))
    print("searches  mean trials  complete  right three  right first  share of the cost of the right three")
    count = len(searches)
    print(f"{count:8}{trials / count:13.1f}{complete:10}{three:13}{first:13}{share / count:12.3f}")


def print_sample_counts(run: Path) -> None:
    """Print the output differences of a run's quantized models on few and on all of its samples."""
    from benchcard import Results
    from benchcard.evaluation.features import Features
    from benchcard.quantization.sensitivity.losses import measure_losses
    from benchcard.steps.models import path_of

    digests: set[str] = set()
    print("\nrow  signal-to-noise ratio in dB and largest difference, on 8, 16 and all samples")
    for record in Results.load(run).records.records:
        outcomes = record.outcomes
        export, quantize, sample, explain = outcomes.export, outcomes.quantize, outcomes.sample, outcomes.explain
        if not (export and quantize and sample and explain) or quantize.values.digest in digests:
            continue
        digests.add(quantize.values.digest)
        items = Features(sample.folder)
        columns = []
        for count in (8, 16, len(items)):
            outputs = measure_losses(
                path_of(export),
                path_of(quantize),
                ({name: array[None] for name, array in items.item(index).items()} for index in range(count)),
                0,
                optimization_level=json.loads((explain.folder / "outcome.json").read_text())["asked"][
                    "optimization_level"
                ],
            ).outputs
            columns.append(f"{outputs.snr_db or float('inf'):8.1f}{outputs.max_abs_difference or 0.0:8.2f}")
        print(f"{record.configuration.row:3}  {'   '.join(columns)}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run directory with static rows")
    options = parser.parse_args()
    print_searches()
    if options.run:
        print_sample_counts(options.run)


if __name__ == "__main__":
    main()
