"""Whole runs with frameworks and metrics of somebody else's that go wrong: what fails, and what goes on."""

from __future__ import annotations

import importlib

import pytest
import tiny_run

from benchcard import Benchmark, registry

FRAMEWORKS = """
import numpy as np
from benchcard.testing import FakeFramework


class Odd(FakeFramework):
    arguments = {"latency_ms": FakeFramework.arguments["latency_ms"]}

    def open(self, model, options):
        opened = super().open(model, options)
        opened.facts = {"intra_op_num_threads": 1, "heat": self.heat}
        return opened


class Hot(Odd):
    heat = float("nan")


class Counted(Odd):
    heat = np.int64(40)
"""


@pytest.fixture
def modules(monkeypatch, tmp_path):
    """A function that makes a module of a source and gives it back; tables of one test only."""
    fresh = {group: registry._Table(group) for group in registry._BROUGHT}
    monkeypatch.setattr(registry, "_table", fresh.__getitem__)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (tmp_path / "modules").mkdir()

    def made(name, source):
        (tmp_path / "modules" / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return made


def test_facts_that_cannot_be_kept_fail_their_row(modules, ground, tmp_path):
    """A framework that tells a NaN, or a number of numpy, of its model loses the row's quality; others go on."""
    theirs = modules("odd_frameworks", FRAMEWORKS)
    registry.register_framework("hot", theirs.Hot)
    registry.register_framework("counted", theirs.Counted)
    text = tiny_run.SPEC + "grid: {framework: [onnxruntime, hot, counted]}\nduration: 0.2\nwarmup_runs: 1\n"
    results = Benchmark.from_spec(tiny_run.spec_with(ground, text, "odd.yaml")).run(tmp_path / "run", progress=False)
    quality = results.quality.set_index("framework")
    assert quality["accuracy"].notna().to_dict() == {"onnxruntime": True, "hot": False, "counted": False}
    assert "cannot be kept: facts.heat is nan" in quality["failure"]["hot"]
    assert "cannot be kept: facts.heat is of the type numpy.int64" in quality["failure"]["counted"]
    assert results.time["latency_mean_ms"].notna().all()
