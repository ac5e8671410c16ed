"""Compare how long runs of the examples are expected to take with how long they take.

    python benchmarks/estimate.py [SPEC ...]

Without specs, all of `examples/*.yaml` are run, in about five minutes. The expected seconds are those that `benchcard
plan` and the first line of a run show. They allow for no two models being equal, so a grid with equal ones takes less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchcard import Benchmark
from benchcard.run.budget import estimate

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the specs and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog="Times are in seconds."
    )
    parser.add_argument("specs", metavar="SPEC", type=Path, nargs="*", default=sorted(EXAMPLES.glob("*.yaml")))
    print(f"{'spec':<12} {'rows':>5} {'models':>6} {'expected':>8} {'took':>6} {'took/expected':>13}")
    for spec in parser.parse_args(argv).specs:
        benchmark = Benchmark.from_spec(spec)
        expected_s = estimate(benchmark.configurations).total_s
        with tempfile.TemporaryDirectory() as temporary:
            started = time.monotonic()
            results = benchmark.run(Path(temporary) / "run", progress=False)
            took_s = time.monotonic() - started
            rows, models = len(results.models), int(results.models["same_model_as"].isna().sum())
        print(f"{spec.stem:<12} {rows:>5} {models:>6} {expected_s:>8.0f} {took_s:>6.0f} {took_s / expected_s:>13.2f}")


if __name__ == "__main__":
    main()
