"""The recipe of a model: its lines, run as they are printed and without benchcard, make the same graph."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import tiny_text

from benchcard import Benchmark, testing
from benchcard.graphs.files import model_digest
from benchcard.publishing import recipe
from benchcard.steps.models import path_of

# Runs the lines, and names what they imported.
PROGRAM = (
    "import sys\nexec(open('recipe.py').read())\nprint('benchcard' in {name.split('.')[0] for name in sys.modules})"
)
TEXTS = ["a good film", "a bad film", "anna lives in paris", "bob works for acme", "a dull film " * 15, "a bright film"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Rows of every argument that a recipe has, of a classifier of pairs of texts."""
    folder = tmp_path_factory.mktemp("recipe")
    model = tiny_text.write_model(folder / "model", "ForSequenceClassification", ["no", "yes"])
    tiny_text.write_tokenizer(model)
    rows = {"first": TEXTS * 3, "second": TEXTS[::-1] * 3, "label": ["no", "yes"] * 9}
    data = testing.write_data(folder / "data", {"train": rows, "validation": rows})
    keys = {"primary": "first", "secondary": "second"}
    common = {
        "task": "text-classification",
        "model": str(model),
        "dataset": {"path": str(data), "eval_split": "validation", "calibration_split": "train", "data_keys": keys},
        "duration": 0,
        "explain": False,
    }
    dynamic = {"per_channel": [True], "weights_dtype": ["int8", "uint8"], "node_exclusion": [[], ["gelu"]]}
    dynamic |= {"apply_quantization": [True], "operators_to_quantize": [None, ["MatMul"]], "reduce_range": [True]}
    static = {"quant_format": ["QDQ", "QOperator"]}
    static |= {"quantization_approach": ["static"], "activations_symmetric": [None, True], "per_channel": [True]}
    static |= {"node_exclusion": [["layernorm"]], "operators_to_quantize": [["MatMul", "Add"]]}
    static |= {"activations_dtype": ["int8", "uint8"]}
    fixed = {"calibration.num_calibration_samples": 9}
    grids = ({"grid": dynamic}, {"grid": static, "fixed": fixed})
    return [
        Benchmark(**common, **more).run(folder / f"run{number}", progress=False) for number, more in enumerate(grids)
    ]


def lines_of(results, record, **changes):
    """The recipe of a row whose data set counts as one of the Hub."""
    source = results.records.info.sources.dataset(record.configuration["dataset"])
    source = replace(source, **{"local": False, "revision": None, **changes})
    model = results.records.info.sources.models[record.configuration["name_or_path"]]
    return recipe.recipe(record, "model.onnx", "made.onnx", source, str(model.folder))


def make(lines, record, folder):
    """Run the lines in a folder with the float graph, and return the digest of what they make."""
    (folder / "recipe.py").write_text("\n".join(lines))
    graph = path_of(record.outcomes.export)
    (folder / "model.onnx").write_bytes(graph.read_bytes())
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"
    return model_digest(folder / "made.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_the_lines_make_the_same_graph(results, approach, tmp_path):
    """At most ten lines, whose graph has the digest of the row's, for every combination of arguments."""
    run = results[approach == "static"]
    assert run.failures.empty, run.failures["message"].tolist()
    seen = set()
    for record in run.records.records:
        if record.digest in seen:
            continue
        seen.add(record.digest)
        lines, why_none = lines_of(run, record)
        assert not why_none
        assert len([line for line in lines if line]) <= 10
        folder = tmp_path / str(record.configuration.row)
        folder.mkdir()
        assert make(lines, record, folder) == record.digest, "\n".join(lines)
    assert len(seen) > 3


@pytest.mark.slow
def test_there_is_no_recipe_where_lines_would_not_make_the_model(results):
    """Of a static model whose samples are not on the Hub, or counted in histograms, which ONNX Runtime cannot do with
    texts of different lengths; without a tokenizer; of a model that was not quantized. A quantized one says why.
    """
    run = results[1]
    record = run.records.records[0]
    assert lines_of(run, record)[0]
    not_on_hub = ([], "its calibration data or its tokenizer are not on the Hub")
    assert lines_of(run, record, local=True) == not_on_hub
    source = run.records.info.sources.dataset(record.configuration["dataset"])
    assert recipe.recipe(record, "model.onnx", "made.onnx", replace(source, local=False), None) == not_on_hub
    parameters = {**record.configuration.parameters}
    for change in ({"calibration_moving_average": True}, {"method": "percentile"}):
        changed = {**parameters, "calibration": {**parameters["calibration"], **change}}
        other = replace(record, configuration=replace(record.configuration, parameters=changed))
        lines, why_none = lines_of(run, other)
        assert not lines
        assert "calibration is not `minmax`" in why_none
    outcomes = replace(record.outcomes, quantize=None)
    assert lines_of(run, replace(record, outcomes=outcomes)) == ([], "")
