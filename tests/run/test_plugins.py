"""Whole runs with frameworks and metrics of somebody else's that go wrong: what fails, and what goes on."""

from __future__ import annotations

import importlib
import json

import pytest
import tiny_run
from hub_fixtures import MINE, hub

from benchcard import BenchcardError, Benchmark, SpecError, registry
from benchcard.metrics import info

__all__ = ["hub"]

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
import json
import tempfile
from pathlib import Path

from benchcard.frameworks import Converted, Snippet
from benchcard.frameworks.onnxruntime import OnnxRuntime
from benchcard.graphs.weights import StoredWeights


class Boxed(OnnxRuntime):
    arguments = {}
    running = frozenset()
    format = "boxed"

    def convert(self, graph, target, arguments, samples):
        (target / "model.gz").write_bytes(gzip.compress(graph.read_bytes(), mtime=0))
        return "model.gz"

    def open(self, model, options):
        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder, "model.onnx")
            graph.write_bytes(gzip.decompress(model.read_bytes()))
            return super().open(graph, options)


class Calibrating(Boxed):
    parameters = frozenset({"from_transformers", "calibration"})

    def convert(self, graph, target, arguments, samples):
        (target / "parts").mkdir()
        shapes = [{name: array.shape for name, array in sample.items()} for sample in samples]
        assert len(list(samples)) == len(shapes)
        (target / "parts" / "samples.json").write_text(json.dumps(shapes))
        return super().convert(graph, target, arguments, samples)


class Telling(Calibrating):
    libraries = ("numpy", "filelock")

    def convert(self, graph, target, arguments, samples):
        made = super().convert(graph, target, arguments, samples)
        return Converted(made, quantized=True, weights=StoredWeights(1200, 4900, {"int4": 1100, "float32": 100}))

    def snippet(self, repo_id, path, task):
        return Snippet(("import gzip",), (f'model = gzip.open(f"{{folder}}/{path}")',), ("outputs = model, inputs",))
"""

METRICS = """
import datasets
from benchcard.metrics.classification import Accuracy
from benchcard.metrics.offline import Offline


class Doubled(Accuracy):
    def _compute(self, predictions, references):
        return {"accuracy": 2.0}


class Framed(Accuracy):
    def _compute(self, predictions, references):
        return {"framework": 2.0}


class Dark(Offline):
    takes = ({"predictions": datasets.Value("int64")},)
    higher_is_better = None

    def _compute(self, predictions):
        return {"dark": sum(label == 0 for label in predictions) / len(predictions)}


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


@pytest.mark.slow
def test_a_framework_calibrates_while_it_converts(modules, ground, tmp_path, hub):
    """`convert` gets the samples of `calibration` as inputs of the graph, as often as it reads them; none without a
    split. What it wrote is pushed in a folder of the framework's name, and the card says how to fetch it.
    """
    registry.register_framework("calibrating", modules("boxed_frameworks", BOXED).Calibrating)
    settings = "framework: calibrating\nduration: 0\nfixed: {calibration: {num_calibration_samples: 5}}\n"
    shapes = {}
    for name, spec in (("with", tiny_run.SPEC), ("without", tiny_run.SPEC.replace("calibration_split: train, ", ""))):
        benchmark = Benchmark.from_spec(tiny_run.spec_with(ground, spec + settings, f"{name}.yaml"))
        results = benchmark.run(tmp_path / name, progress=False)
        outcomes = results.records.records[0].outcomes
        shapes[name] = json.loads((outcomes.convert.folder / "parts" / "samples.json").read_text())
        assert (outcomes.sample is not None) == (name == "with")
        assert results.quality["accuracy"].notna().all()
    assert shapes == {"with": [{"pixel_values": [1, 3, 8, 8]}] * 5, "without": []}
    given = {"endpoint": hub.endpoint, "token": hub.token, "artifacts": [0]}
    assert results.push_to_hub(MINE, **given).changed
    for name in ("model.gz", "parts/samples.json"):
        assert hub.read(MINE, f"calibrating/{name}") == (outcomes.convert.folder / name).read_bytes()
    assert not [name for name in hub.files(MINE) if name.endswith((".onnx", "outcome.json", "log.txt"))]
    text = hub.read(MINE, "README.md").decode()
    assert f'folder = snapshot_download("{MINE}", allow_patterns="calibrating/*")' in text
    assert "onnxruntime.InferenceSession" not in text
    assert "- onnx\n" not in text.partition("\n---\n")[0]
    (outcomes.convert.folder / "parts" / "away").symlink_to(ground / "model" / "config.json")
    with pytest.raises(BenchcardError, match="leads out of the folder of its model"):
        results.push_to_hub("local-user/other", **given)


@pytest.mark.slow
def test_a_framework_says_what_it_made(modules, ground, tmp_path, hub):
    """A model that its framework quantized is called so: reasons, figures, the card's tags and the table of files say
    what it stores, and the card has the framework's lines. The versions of its libraries are recorded.
    """
    registry.register_framework("telling", modules("boxed_frameworks", BOXED).Telling)
    text = tiny_run.SPEC + "framework: telling\nduration: 0\nfixed: {calibration: {num_calibration_samples: 2}}\n"
    results = Benchmark.from_spec(tiny_run.spec_with(ground, text, "telling.yaml")).run(
        tmp_path / "run", progress=False
    )
    told = results.explain(0)
    assert "`telling` made its model of the ONNX graph" in told
    assert "with 1,100 weights as int4 and 100 weights as float32." in told
    assert "not quantized" not in told
    outcomes = results.records.records[0].outcomes
    assert results.models["bits_per_weight"][0] == 4900 / outcomes.export.values.weights
    assert "filelock" in results.records.info.versions
    results.push_to_hub(MINE, endpoint=hub.endpoint, token=hub.token, artifacts=[0])
    text = hub.read(MINE, "README.md").decode()
    assert "- quantized\n" in text.partition("\n---\n")[0] + "\n"
    assert "| `telling/model.gz` |   0 | int4    |  4.1 |" in text
    assert 'folder = snapshot_download("local-user/model", allow_patterns=["*.json"' in text
    assert 'model = gzip.open(f"{folder}/telling/model.gz")\ninputs = processor(images=' in text
    assert text.index("import gzip\nfrom huggingface_hub") < text.index("outputs = model, inputs\n```")


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
def test_data_without_references(modules, ground, tmp_path):
    """With `ref_keys: []` no reference is read: metrics of predictions alone have figures, rows are compared with the
    baseline, and a metric that needs references is refused.
    """
    registry.register_metric("dark", modules("odd_metrics", METRICS).Dark)
    spec = tiny_run.SPEC.replace("[label]", "[]") + "duration: 0\nexplain: false\nhigher_is_better: {dark: true}\n"
    text = spec + "metrics: [dark]\ngrid: {apply_quantization: [false, true]}\n"
    results = Benchmark.from_spec(tiny_run.spec_with(ground, text, "bare.yaml")).run(tmp_path / "run", progress=False)
    quality = results.quality
    assert quality["dark"].between(0, 1).all()
    assert quality["predictions_changed"].notna().tolist() == [False, True]
    assert results.records.records[0].outcomes.prepare.values.samples == 24
    asked = Benchmark.from_spec(tiny_run.spec_with(ground, spec.replace("{dark: true}", "{}"), "refused.yaml"))
    with pytest.raises(SpecError, match=r"gives no `references` \(with `ref_keys: \[\]` there are none\).*`accuracy`"):
        asked.run(tmp_path / "refused", progress=False)


@pytest.mark.slow
def test_figures_do_not_write_over_others(figures):
    """A metric that gives the figure of another, or what would be a parameter's column, fails what is scored."""
    quality = figures("doubled")
    assert quality["failure"][0].startswith("score: BenchcardError: the metrics `accuracy` and `doubled`")
    assert "accuracy" not in quality
    quality = figures("framed")
    assert "the metric `framed` gives a figure `framework`" in quality["failure"][0]
    assert quality["framework"][0] == "pytorch"
    closeness = {name + bound for name in (*info.FIDELITY, info.RECOVERY) for bound in ("", "_low", "_high")}
    known = {*quality, *closeness, "positive_class", "similarity_fn_name", "activation_fn"} - {"framework"}
    assert known == info.RESERVED_COLUMNS


def test_a_metric_that_fails_is_named(figures):
    """Whatever it raises fails what is scored, with the metric's name."""
    said = figures("unlucky")["failure"][0]
    assert said == "score: BenchcardError: the metric `unlucky` failed: ValueError: no luck today"
