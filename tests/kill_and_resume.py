"""Kill a run at random moments, resume it, and compare its results with those of an undisturbed run.

    python tests/kill_and_resume.py examples/digits.yaml --kills 20

The same command runs again after every kill. At the end, the rows and their quality figures must be those of the
undisturbed run, no step that was finished before a kill may have been repeated, and no process may be left.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil


def command(spec: Path, out: Path) -> list[str]:
    """Return the command that runs again after every kill."""
    return [sys.executable, "-m", "benchcard.cli", "run", str(spec), "--out", str(out), "--quiet"]


def finished(out: Path) -> dict[str, int]:
    """Return when each successful step was written, by the name of its folder; failed steps may be retried."""
    times = {}
    for path in out.glob("steps/*/outcome.json"):
        if not path.parent.name.startswith(".") and json.loads(path.read_text())["failure"] is None:
            times[path.parent.name] = path.stat().st_mtime_ns
    return times


def show(out: Path, frame: str) -> str:
    """Return a frame of a run as CSV."""
    return subprocess.run(
        [sys.executable, "-m", "benchcard.cli", "show", str(out), "--csv", frame],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def quality(out: Path) -> list[dict[str, str]]:
    """Return the rows with their parameters and quality figures, without columns measured in seconds."""
    import csv
    import io

    timed = {"total_time_in_seconds", "samples_per_second", "latency_in_seconds"}
    return [
        {name: value for name, value in row.items() if name not in timed}
        for row in csv.DictReader(io.StringIO(show(out, "quality")))
    ]


def kill_and_resume(spec: Path, folder: Path, kills: int, seed: int = 0) -> str:
    """Kill runs `kills` times, and return a summary.

    A run that ends between two kills is compared, and another one starts, until there were enough kills.

    Raises:
        AssertionError: A disturbed run differs from the undisturbed one.
    """
    undisturbed = folder / "undisturbed"
    start_s = time.monotonic()
    subprocess.run(command(spec, undisturbed), check=True, capture_output=True)
    duration_s = time.monotonic() - start_s
    draw = random.Random(seed)
    killed, runs, done = 0, 0, 0
    while killed < kills:
        out, steps = folder / f"killed-{runs}", dict[str, int]()
        runs += 1
        while killed < kills:
            run_s = kill(spec, out, draw.uniform(0.2, duration_s * 0.7))
            if run_s is not None:
                # The undisturbed run was slower, on a busier machine or with cold caches, so kill earlier from now on.
                duration_s = min(duration_s, run_s)
                break
            killed += 1
            steps = expect_unrepeated(steps, out)
        subprocess.run(command(spec, out), check=True, capture_output=True)
        expect_unrepeated(steps, out)
        expect_equal(undisturbed, out)
        done += len(steps)
    rows = f"{len(quality(undisturbed))} rows with equal figures"
    return f"{killed} kills in {runs} runs; {done} steps were finished before a kill, none was repeated; {rows}"


def kill(spec: Path, out: Path, after_s: float) -> float | None:
    """Start a run and kill it after `after_s` seconds.

    Returns:
        None if the run was killed, else its duration in seconds.
    """
    start_s = time.monotonic()
    process = subprocess.Popen(command(spec, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive, f"processes were left: {alive}"
        return None
    return time.monotonic() - start_s


def expect_unrepeated(steps: dict[str, int], out: Path) -> dict[str, int]:
    """Return the steps that are finished now.

    Raises:
        AssertionError: A step that was finished before was repeated.
    """
    now = finished(out)
    repeated = [name for name, when in steps.items() if now.get(name) != when]
    assert not repeated, f"finished steps were repeated: {repeated}"
    return now


def expect_equal(undisturbed: Path, out: Path) -> None:
    """Raise AssertionError if two finished runs differ in their steps, quality figures or timed rows."""
    assert set(finished(out)) == set(finished(undisturbed)), "the steps differ"
    assert quality(out) == quality(undisturbed), "the figures differ"
    rows = [[row.split(",")[0] for row in show(run, "time").splitlines()] for run in (undisturbed, out)]
    assert rows[0] == rows[1], "the timed rows differ"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(kill_and_resume(arguments.spec, Path(folder), arguments.kills, arguments.seed) + "\n")


if __name__ == "__main__":
    main()
