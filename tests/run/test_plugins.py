"""Whole runs with frameworks and metrics of somebody else's that go wrong: what fails, and what goes on."""

from __future__ import annotations

import importlib

import pytest
import tiny_run

from benchcard import Benchmark, registry
from benchcard.metrics import info

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

BOXED = """
import gzip
import tempfile
from pathlib import Path

from benchcard.frameworks.onnxruntime import OnnxRuntime


class Boxed(OnnxRuntime):
    arguments = {}
    running = frozenset()
    format = "boxed"

    def convert(self, graph, target, arguments):
        (target / "model.gz").write_bytes(gzip.compress(graph.read_bytes(), mtime=0))
        return "model.gz"

    def open(self, model, options):
        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder, "model.onnx")
            graph.write_bytes(gzip.decompress(model.read_bytes()))
            return super().open(graph, options)
"""

METRICS = """
from benchcard.metrics.classification import Accuracy


class Doubled(Accuracy):
    def _compute(self, predictions, references):
        return {"accuracy": 2.0}


class Framed(Accuracy):
    def _compute(self, predictions, references):
        return {"framework": 2.0}


class Unlucky(Accuracy):
    def _compute(self, predictions, references):
        raise ValueError("no luck today")
"""


@pytest.fixture
def modules(monkeypatch, tmp_path):
    """A function that makes a module of a source and gives it back; tables of one test only."""
    fresh = {group: registry._Registry(group) for group in registry._BUILT_IN}
    monkeypatch.setattr(registry, "_registry", fresh.__getitem__)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (tmp_path / "modules").mkdir()

    def made(name, source):
        (tmp_path / "modules" / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        return importlib.import_module(name)

    return made


@pytest.mark.slow
def test_facts_that_cannot_be_kept_fail_their_row(modules, ground, tmp_path):
    """A framework that tells a NaN, or a number of numpy, of its model loses the row's quality; others go on."""
    theirs = modules("odd_frameworks", FRAMEWORKS)
    registry.register_framework("hot", theirs.Hot)
    registry.register_framework("counted", theirs.Counted)
    text = tiny_run.SPEC + "grid: {framework: [onnxruntime, hot, counted]}\nduration: 0.2\nwarmup_runs: 1\n"
    results = Benchmark.from_spec(tiny_run.spec_with(ground, text, "odd.yaml")).run(tmp_path / "run", progress=False)
    quality = results.quality.set_index("framework")
    assert quality["accuracy"].notna().to_dict() == {"onnxruntime": True, "hot": False, "counted": False}
    assert "cannot be written as JSON: facts.heat is nan" in quality["failure"]["hot"]
    assert "cannot be written as JSON: facts.heat has the type numpy.int64" in quality["failure"]["counted"]
    assert results.time["latency_mean_ms"].notna().all()


def test_a_converted_model_has_its_own_size(modules, ground, tmp_path):
    """The size of a row is that of the file which its framework opens, in the frame, the choice and its reason; and the
    card of dynamic rows says nothing of a type of activations that they have not.
    """
    registry.register_framework("boxed", modules("boxed_frameworks", BOXED).Boxed)
    text = (
        f"{tiny_run.SPEC}grid: {{framework: [onnxruntime, boxed], apply_quantization: [false, true]}}\n"
        "fixed: {activations_dtype: int8, weights_dtype: int8}\nduration: 0\nexplain: false\n"
    )
    results = Benchmark.from_spec(tiny_run.spec_with(ground, text, "boxed.yaml")).run(tmp_path / "run", progress=False)
    models = results.models.set_index(["framework", "apply_quantization"], drop=False)
    for record, size in zip(results.records.records, results.models["size_mb"]):
        kind = "convert" if record.configuration["framework"] == "boxed" else "quantize"
        made = getattr(record.outcomes, kind) or record.outcomes.export
        assert size == (made.folder / made.values.file).stat().st_size / 1e6
    assert results.models["size_mb"].nunique() == len(models) == 4
    chosen = results.best(objective="size", max_drop=1.0)
    assert chosen.row == models["size_mb"].reset_index(drop=True).idxmin()
    assert chosen.parameters["framework"] == "boxed"
    assert f"({models['size_mb'].iloc[chosen.row]:.1f} MB)" in results.explain(chosen.row)
    card = results.card().text
    assert "weights_dtype" in card.partition("Benchmarked")[0]
    assert "* `activations_dtype`" not in card
    assert "activations_dtype changes nothing: dynamic activations are always uint8" in card


@pytest.fixture
def figures(modules, ground, tmp_path):
    """A function that runs a spec with metrics of somebody else's, `accuracy` first, and gives its frame of quality."""
    theirs = modules("odd_metrics", METRICS)
    for name in ("Doubled", "Framed", "Unlucky"):
        registry.register_metric(name.lower(), getattr(theirs, name))

    def run(*names):
        text = (
            f"{tiny_run.SPEC}metrics: [{', '.join(['accuracy', *names])}]\nduration: 0\ngrid: {{framework: [pytorch]}}"
        )
        spec = tiny_run.spec_with(ground, text, "odd.yaml")
        return Benchmark.from_spec(spec).run(tmp_path / "-".join(names), progress=False).quality

    return run


@pytest.mark.slow
def test_figures_do_not_write_over_others(figures):
    """A metric that gives the figure of another, or what would be a parameter's column, fails what is scored."""
    quality = figures("doubled")
    assert quality["failure"][0].startswith("score: BenchcardError: the metrics `accuracy` and `doubled`")
    assert "accuracy" not in quality
    quality = figures("framed")
    assert "the metric `framed` gives a figure `framework`" in quality["failure"][0]
    assert quality["framework"][0] == "pytorch"
    known = {*quality, "embedding_cosine", "positive_class", "similarity_fn_name", "activation_fn"} - {"framework"}
    assert known == info.RESERVED_COLUMNS


def test_a_metric_that_fails_is_named(figures):
    """Whatever it raises fails what is scored, with the metric's name."""
    said = figures("unlucky")["failure"][0]
    assert said == "score: BenchcardError: the metric `unlucky` failed: ValueError: no luck today"
