"""Kills a run at random moments, again and again, and shows that it comes to what an undisturbed run comes to.

    python tests/kill_and_resume.py examples/digits.yaml --kills 20

The same command is given after every kill. In the end the rows and their quality figures must be those of a run that
nobody disturbed, every step that was finished before a kill must have been done only once, and no process may be left.
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
    """The command that is given again after every kill."""
    return [sys.executable, "-m", "benchcard.cli", "run", str(spec), "--out", str(out), "--quiet"]


def finished(out: Path) -> dict[str, int]:
    """When each finished step was written, by its folder's name; steps that failed may be tried again."""
    times = {}
    for path in out.glob("steps/*/outcome.json"):
        if not path.parent.name.startswith(".") and json.loads(path.read_text())["failure"] is None:
            times[path.parent.name] = path.stat().st_mtime_ns
    return times


def show(out: Path, frame: str) -> str:
    """One frame of a run, as CSV."""
    return subprocess.run(
        [sys.executable, "-m", "benchcard.cli", "show", str(out), "--csv", frame],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def quality(out: Path) -> list[dict[str, str]]:
    """The rows with their parameters and quality figures, without what is measured in seconds."""
    import csv
    import io

    timed = {"total_time_in_seconds", "samples_per_second", "latency_in_seconds"}
    return [
        {name: value for name, value in row.items() if name not in timed}
        for row in csv.DictReader(io.StringIO(show(out, "quality")))
    ]


def kill_and_resume(spec: Path, folder: Path, kills: int, seed: int = 0) -> str:
    """A sentence about what was done; AssertionError where a disturbed run is not the undisturbed one.

    A run that comes to its end between two kills is compared, and another one is begun, until there were enough kills.
    """
    whole = folder / "whole"
    started = time.monotonic()
    subprocess.run(command(spec, whole), check=True, capture_output=True)
    whole_s = time.monotonic() - started
    draw = random.Random(seed)
    killed, runs, done = 0, 0, 0
    while killed < kills:
        out, steps = folder / f"killed-{runs}", dict[str, int]()
        runs += 1
        while killed < kills:
            ended_s = kill(spec, out, draw.uniform(0.2, whole_s * 0.7))
            if ended_s is not None:
                # The undisturbed run was slower, on a busier machine or with cold caches: kill earlier from here on.
                whole_s = min(whole_s, ended_s)
                break
            killed += 1
            steps = unrepeated(steps, out)
        subprocess.run(command(spec, out), check=True, capture_output=True)
        unrepeated(steps, out)
        same(whole, out)
        done += len(steps)
    rows = f"{len(quality(whole))} rows with equal figures"
    return f"{killed} kills in {runs} runs; {done} steps were finished before a kill, none done twice; {rows}"


def kill(spec: Path, out: Path, after_s: float) -> float | None:
    """None for a run that was killed `after_s` seconds after its start; its seconds where it came to its end before."""
    started = time.monotonic()
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
    return time.monotonic() - started


def unrepeated(steps: dict[str, int], out: Path) -> dict[str, int]:
    """The steps that are finished now; AssertionError where one that was finished before was done again."""
    now = finished(out)
    repeated = [name for name, when in steps.items() if now.get(name) != when]
    assert not repeated, f"finished steps were done again: {repeated}"
    return now


def same(whole: Path, out: Path) -> None:
    """AssertionError where two finished runs differ in their steps, their quality figures or their timed rows."""
    assert set(finished(out)) == set(finished(whole)), "other steps were done"
    assert quality(out) == quality(whole), "the figures differ"
    rows = [[row.split(",")[0] for row in show(each, "time").splitlines()] for each in (whole, out)]
    assert rows[0] == rows[1], "the timed rows differ"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(kill_and_resume(arguments.spec, Path(folder), arguments.kills, arguments.seed) + "\n")


if __name__ == "__main__":
    main()
