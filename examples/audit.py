"""Publish variants of a text classifier to a Hub on this machine, and audit all files of the repository.

    python examples/audit.py [FOLDER] [--duration SECONDS]

The audit knows only the repository and a data set, as if somebody else had published the files. Its table becomes a
section of the README there. Nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

# huggingface_hub reads this when it is imported. The local Hub accepts large files by LFS, not by Xet.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")

from benchcard import Benchmark
from benchcard.testing import LocalHub

HERE = Path(__file__).parent
REPOSITORY = "me/reviews"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help="the folder of both runs")
    parser.add_argument("--duration", default="1", help="seconds of timing for each file; use 15 for published figures")
    arguments = parser.parse_args()
    data = HERE / "reviews" / "data"
    benchmark = Benchmark(
        task="text-classification",
        model=HERE / "reviews" / "model",
        dataset={"path": data, "eval_split": "validation", "calibration_split": "train"},
        grid={"apply_quantization": [False, True], "quantization_approach": ["dynamic", "static"]},
        duration=float(arguments.duration),
        input_lengths=[16],
    )
    results = benchmark.run(arguments.folder / "published")
    with LocalHub(user="me") as hub:
        results.push_to_hub(REPOSITORY, artifacts="all", endpoint=hub.endpoint, token=hub.token)
        command = [sys.executable, "-m", "benchcard", "audit", REPOSITORY, "--dataset", str(data)]
        command += ["--duration", arguments.duration, "--out", str(arguments.folder / "audit"), "--push", REPOSITORY]
        # The status is 1 if a file is broken.
        subprocess.run(command, env=os.environ | hub.environment(), check=True)
        section = hub.read(REPOSITORY, "README.md").decode().rpartition("### Model files")[2]
        print(f"\nIn the README of {REPOSITORY}:{section.partition('###')[0]}")


if __name__ == "__main__":
    main()
