"""The examples: one spec and one script for each task, run as a reader runs them, but neither timed nor searched for
layers; CI runs the scripts as they are.
"""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchcard import registry
from benchcard.benchmark import Benchmark
from benchcard.cli.commands import main
from benchcard.results import Results

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
# The least that the float model reaches by the first metric of its spec, and what guessing would reach.
LEAST = {
    "answers": (90.0, 20.0),
    "digits": (0.97, 0.1),
    "entities": (0.9, 0.1),
    "reviews": (0.94, 0.5),
    "sentences": (0.88, 0.0),
}


def shortened(benchmark):
    """The benchmark with its files by their whole paths, without times and layers."""
    spec = benchmark.spec
    model = str(spec.local_path(spec.fixed["name_or_path"]))
    fixed = {**spec.fixed, "duration": 0, "explain": False, "name_or_path": model}
    fixed["dataset"] = {**fixed["dataset"], "path": str(spec.local_path(fixed["dataset"]["path"]))}
    return replace(spec, fixed=fixed)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_spec_and_script_run(name, tmp_path, monkeypatch, capsys):
    """`benchcard run` on the spec fills every row, fp32 predicts what PyTorch predicts, far better than guessing; the
    script asks for the same, finds it all done, and prints the choice and the card.
    """
    run, specs = Benchmark.run, []

    def quickly(benchmark, path=None, **settings):
        benchmark.spec = shortened(benchmark)
        specs.append(benchmark.spec)
        return run(benchmark, path, **settings)

    monkeypatch.setattr(Benchmark, "run", quickly)
    told = CliRunner().invoke(main, ["run", str(EXAMPLES / f"{name}.yaml"), "--out", str(tmp_path / "run"), "--quiet"])
    assert told.exit_code == 0, told.output
    assert (tmp_path / "run" / "README.md").exists()

    results = Results.load(tmp_path / "run")
    assert results.failures.empty
    metric = specs[0].fixed["metrics"][0]
    quality = results.quality.set_index("row")
    assert quality[metric].notna().all()
    pytorch = quality[quality["framework"] == "pytorch"][metric].iloc[0]
    if name == "sentences":
        assert quality[metric][0] == pytest.approx(pytorch, abs=1e-6)
    else:
        assert quality[metric][0] == pytorch
    least, guessing = LEAST[name]
    assert quality[metric][0] >= least
    assert quality[metric].min() > guessing
    assert set(results.time["row"]) == set(quality.index)
    compared = quality[quality.index != results.baseline]
    for figure in results.metrics:
        assert (quality[f"{figure}_low"] <= quality[figure]).all()
        assert (quality[figure] <= quality[f"{figure}_high"]).all()
        assert compared[f"{figure}_p_value"].between(0, 1).all()
        bounds = compared[[f"{figure}_difference_low", f"{figure}_difference_high"]].dropna()
        assert (bounds.iloc[:, 0] <= bounds.iloc[:, 1]).all()

    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "steps").rglob("*") if path.is_file()}
    (tmp_path / "run" / "README.md").unlink()
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(tmp_path / "run")])
    capsys.readouterr()
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert specs[1] == specs[0]
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "steps").rglob("*") if path.is_file()}
    assert now == finished
    printed = capsys.readouterr().out
    assert metric in printed
    assert str(results.best()) in printed
    assert (tmp_path / "run" / "README.md").exists()


def test_every_task_has_an_example():
    """Each task that benchcard brings is the task of a spec, or that of another name for it; each spec has a script,
    its data and its model beside it, and a line in the README.
    """
    asked = {type(registry.task(Benchmark.from_spec(EXAMPLES / f"{name}.yaml").spec.task)) for name in NAMES}
    assert asked == {type(registry.task(name)) for name in registry.tasks()}
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert (EXAMPLES / f"{name}.py").exists()
        assert (EXAMPLES / name / "train.py").exists()
        assert f"`{name}`" in readme
    sizes = {str(path): path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 5e6
