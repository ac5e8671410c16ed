"""The recipes of models: their lines, run as they are printed and without benchcard, make the same graphs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny
import tiny_text

from benchcard import Benchmark, testing
from benchcard.graphs.files import model_digest
from benchcard.publishing import recipe
from benchcard.publishing.weights import chosen_weights
from benchcard.steps.models import path_of

# Runs the lines, and names what they imported.
PROGRAM = (
    "import sys\nexec(open('recipe.py').read())\nprint('benchcard' in {name.split('.')[0] for name in sys.modules})"
)
TEXTS = ["a good film", "a bad film", "anna lives in paris", "bob works for acme", "a dull film " * 15, "a bright film"]


def benchmarked(folder, task, model, data, *grids, keys=None):
    """The results of the grids, of which only the models matter."""
    dataset = {"path": str(data), "eval_split": "validation", "calibration_split": "train"}
    dataset |= {"data_keys": keys} if keys else {}
    common = {"task": task, "model": str(model), "dataset": dataset, "duration": 0, "explain": False}
    runs = [Benchmark(**common, grid=grid) for grid in grids]
    return [benchmark.run(folder / f"run{number}", progress=False) for number, benchmark in enumerate(runs)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Rows of every argument that a recipe has, of a classifier of pairs of texts: dynamic and static."""
    folder = tmp_path_factory.mktemp("recipe")
    model = tiny_text.write_model(folder / "model", "ForSequenceClassification", ["no", "yes"])
    tiny_text.write_tokenizer(model)
    rows = {"first": TEXTS * 3, "second": TEXTS[::-1] * 3, "label": ["no", "yes"] * 9}
    data = testing.write_data(folder / "data", {"train": rows, "validation": rows})
    dynamic = {"per_channel": [True], "weights_dtype": ["int8", "uint8"], "node_exclusion": [[], ["gelu"]]}
    dynamic |= {"apply_quantization": [True], "operators_to_quantize": [None, ["MatMul"]], "reduce_range": [True]}
    static = {"quant_format": ["QDQ", "QOperator"], "calibration": [{"num_calibration_samples": 9}]}
    static |= {"quantization_approach": ["static"], "activations_symmetric": [None, True], "per_channel": [True]}
    static |= {"node_exclusion": [["layernorm"]], "operators_to_quantize": [["MatMul", "Add"]]}
    static |= {"activations_dtype": ["int8", "uint8"]}
    keys = {"primary": "first", "secondary": "second"}
    return benchmarked(folder, "text-classification", model, data, dynamic, static, keys=keys)


@pytest.fixture(scope="module")
def image_results(tmp_path_factory):
    """Rows of every method of calibration, of a classifier of images."""
    folder = tmp_path_factory.mktemp("images")
    model, data = tiny.write_model(folder / "model"), tiny.write_data(folder / "data")
    average, percentile = {"calibration_moving_average": True}, {"method": "percentile"}
    methods = [{}, average, {**average, "calibration_moving_average_constant": 0.3}, percentile]
    methods += [{**percentile, "calibration_histogram_percentile": share} for share in (99.91, 100)]
    methods += [{"method": "entropy"}, {"method": "distribution"}]
    grid = {"quantization_approach": ["static"], "activations_symmetric": [None, False, True]}
    grid |= {"calibration": [{**method, "num_calibration_samples": 9} for method in methods]}
    grid |= {"operators_to_quantize": [["MatMul", "Conv"]]}
    (run,) = benchmarked(folder, "image-classification", model, data, grid)
    return run


def section_of(results, monkeypatch, **changes):
    """The section of all models of a run whose data set counts as one of the Hub."""
    sources = results.records.info.sources
    (model,) = sources.models.values()
    hub = {"local": False, "revision": None, **changes}
    monkeypatch.setattr(type(sources), "dataset", lambda self, arguments: replace(*self.datasets.values(), **hub))
    weights = list(chosen_weights(results, "all"))
    return recipe.section(results, weights, str(model.folder), ["tokenizer.json"], None), weights


def make(card, results, weights, folder):
    """Run the lines of a section in a folder with the float graph, and compare what they make with the models of rows.

    Return the names of the made models.
    """
    graphs = {path_of(record.outcomes.export) for record in results.records.records}
    (folder / "onnx").mkdir()
    for graph in graphs:
        for name in ("model.onnx", "onnx/model.onnx"):
            (folder / name).write_bytes(graph.read_bytes())
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    made = []
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        names = re.findall(r'^quantize_\w+\("[^"]+", "([^"]+)"', block, re.MULTILINE)
        assert len([line for line in block.splitlines() if line]) <= 9 + len(names)
        (folder / "recipe.py").write_text(block)
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert done.stdout.splitlines()[-1] == "False"
        made += names
    digests = {model.name: results.records.records[model.row].digest for model in weights}
    differing = [name for name in made if model_digest(folder / name) != digests[name]]
    assert not differing, "\n".join(line for line in card.splitlines() if any(name in line for name in differing))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_the_lines_make_the_same_graphs(results, approach, tmp_path, monkeypatch):
    """At most ten lines, and one for each further model, whose graphs have the digests of the rows, for every
    combination of arguments; models of one float graph and the same samples share a block.
    """
    run = results[approach == "static"]
    assert run.failures.empty, run.failures["message"].tolist()
    card, weights = section_of(run, monkeypatch)
    made = make(card, run, weights, tmp_path)
    assert made == [model.name for model in weights]
    assert len(made) > 3
    assert card.count("```python") == card.count("<summary>") == 1
    assert f"Make {len(made)} models again" in card


@pytest.mark.slow
def test_the_lines_make_the_same_graphs_of_images(image_results, tmp_path, monkeypatch):
    """By every method of calibration, also averages in turn and percentiles; a percentile whose place depends on
    rounding has a sentence instead.
    """
    run = image_results
    assert run.failures.empty, run.failures["message"].tolist()
    card, weights = section_of(run, monkeypatch)
    made = make(card, run, weights, tmp_path)
    methods = {model.name: run.records.records[model.row].configuration["calibration"] for model in weights}
    uncertain = [name for name in methods if methods[name].get("calibration_histogram_percentile") == 100]
    assert sorted(made) == sorted(set(methods) - set(uncertain))
    assert {methods[name]["method"] for name in made} >= {"percentile", "distribution"}
    assert any("calibration_moving_average_constant" in methods[name] for name in made)
    names = ", ".join(f"`{name}`" for name in uncertain)
    assert f"There is no recipe for {names} with onnxruntime alone: ranges by `percentile` may differ" in card
