"""A package of somebody else's (`tests/plugin`): installed, and used without a change to benchcard."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from benchcard import Benchmark, Results, SpecError

PLUGIN = Path(__file__).parent / "plugin"

PROGRAM = """
import json, sys
from pathlib import Path

import beside
from benchcard import Benchmark, register_framework, register_metric
from benchcard.testing import FakeFramework, write_data, write_text_model

folder = Path(sys.argv[1])
words = "the film was good bad long short".split()
write_text_model(folder / "model", "ForMaskedLM", words)
texts = [f"the film was [MASK] {word}" for word in words * 3]
write_data(folder / "data", {"validation": {"text": texts, "token": words * 3}})
register_framework("fake", FakeFramework)
register_metric("first_letter", beside.FirstLetter)
benchmark = Benchmark(
    task="masked-word",
    model=folder / "model",
    dataset={"path": folder / "data", "eval_split": "validation"},
    metrics=["exact_match", "letters_off", "first_letter"],
    grid={
        "framework": ["onnxruntime", "pytorch", "zipped", "fake"],
        "apply_quantization": [False, True],
        "framework_args": {"zipped": [{"level": 1, "optimize": False}], "fake": [{"latency_ms": 4}]},
    },
    fixed={"quantization_approach": "dynamic", "operators_to_quantize": ["MatMul"]},
    task_args={"upper_case": True},
    input_lengths=[8], duration=0.2, warmup_runs=2,
    backend="noted", backend_args={"note": "as asked"},
)
results = benchmark.run(folder / "run", progress=False)
columns = ["row", "framework", "apply_quantization", "exact_match", "letters_off", "first_letter", "same_model_as"]
if len(results.failures):
    sys.exit(str(results.failures.to_dict("records")))
readings = [record.outcomes.score.values.readings for record in results.records.records]
told = {
    "quality": results.quality[columns].astype(object).where(results.quality[columns].notna(), None).to_dict("records"),
    "time": results.time[["row", "latency_p50_ms"]].to_dict("records"),
    "readings": {name: vars(info) for name, info in readings[0].items()},
    "note": (folder / "run.note").read_text(),
    "card": results.card().text,
    "versions": results.records.info.versions,
    "predictions": results.records.records[0].outcomes.evaluate.values.items,
    "digests": [record.digest for record in results.records.records],
    "facts": [record.outcomes.evaluate.values.facts for record in results.records.records],
}
print("TOLD" + json.dumps(told, default=str))
"""

BESIDE = '''
from benchcard.metrics.offline import Offline
import datasets

class FirstLetter(Offline):
    """The share of predictions with the right first letter."""
    takes = ({"predictions": datasets.Value("string"), "references": datasets.Value("string")},)

    def _compute(self, predictions, references):
        return {"first_letter": sum(a[:1] == b[:1] for a, b in zip(predictions, references)) / len(references)}
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the package installed in it, by pip, without the network."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--target", str(folder / "site"), str(folder / "source")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (folder / "site" / "beside.py").write_text(BESIDE)
    return folder / "site"


def python(site, *arguments):
    """What a Python that has the package prints."""
    path = os.pathsep.join([str(site), str(Path(__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(site), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=site)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_package_brings_is_known(site):
    """Each of the four is found by its entry point, is asked for by name in a spec, and its arguments are checked."""
    program = """
        from benchcard import Benchmark, SpecError, registry
        assert "masked-word" in registry.tasks() and "letters_off" in registry.metrics()
        assert "zipped" in registry.frameworks() and "noted" in registry.backends()
        spec = dict(task="masked-word", model="m", dataset={"path": "d", "eval_split": "test"}, backend="noted")
        print(Benchmark(**spec, framework="zipped", framework_args={"level": 3}).configurations[0]["framework_args"])
        try:
            Benchmark(**spec, framework="ziped", framework_args={"level": 11})
        except SpecError as error:
            print(error)
        import sys
        assert "benchcard_masked.metric" not in sys.modules and "evaluate" not in sys.modules
    """
    told = python(site, "-c", textwrap.dedent(program))
    assert "{'level': 3}" in told
    assert "did you mean `zipped`?" in told
    assert "$.framework_args.level" in told


@pytest.mark.slow
def test_one_of_each_in_one_run(site, tmp_path):
    """The package's task, metric, framework and backend, and a framework and a metric that were registered by calls, do
    their part in one run, children and all.
    """
    (site / "program.py").write_text(PROGRAM)
    told = json.loads(python(site, "program.py", str(tmp_path)).partition("TOLD")[2])
    assert told["note"] == "masked-word: as asked\n"
    rows = {(row["framework"], row["apply_quantization"]): row for row in told["quality"]}
    assert set(rows) == {
        *((name, quantized) for name in ("onnxruntime", "zipped") for quantized in (False, True)),
        ("pytorch", None),
        ("fake", None),
    }
    assert told["predictions"] == 21
    figures = [[row[name] for name in ("exact_match", "letters_off", "first_letter")] for row in told["quality"]]
    assert all(isinstance(value, float) for row in figures for value in row)
    float_rows = [rows[key] for key in rows if not key[1]]
    for name in ("exact_match", "letters_off", "first_letter"):
        assert len({row[name] for row in float_rows}) == 1
        assert rows["zipped", True][name] == rows["onnxruntime", True][name]
    # Every prediction is one of seven words, and each of them is right three times at most for each it is predicted.
    assert 0 < float_rows[0]["letters_off"] < 10
    assert told["readings"]["letters_off"] == {"higher_is_better": False, "unit": "letters"}
    facts = {row["framework"]: facts for row, facts in zip(told["quality"], told["facts"])}
    threads = Results.load(tmp_path / "run").records.info.default_threads
    assert facts["zipped"] == {"intra_op_num_threads": threads, "optimize": False}
    assert facts["fake"]["latency_ms"] == 4
    digests = {
        (row["framework"], row["apply_quantization"]): made for row, made in zip(told["quality"], told["digests"])
    }
    assert digests["zipped", True] != digests["zipped", False] != digests["onnxruntime", False]
    latencies = {row["row"]: row["latency_p50_ms"] for row in told["time"]}
    assert latencies[rows["fake", None]["row"]] >= 4
    assert "letters_off" in told["card"]
    assert f'version = "{told["versions"]["benchcard-masked"]}"' in (PLUGIN / "pyproject.toml").read_text()
    assert told["versions"]["beside"].startswith("sha256:")
    # Here nothing of the package is installed, and nothing was registered.
    loaded = Results.load(tmp_path / "run")
    assert loaded.quality["letters_off"].tolist() == [row["letters_off"] for row in told["quality"]]
    assert loaded.time["latency_p50_ms"].tolist() == list(latencies.values())
    assert loaded.card().text == told["card"]
    with pytest.raises(SpecError, match="expected `image-classification`"):
        Benchmark.from_spec(loaded.spec.as_dict())


def blocks(language):
    """The code blocks of a language in the documentation."""
    text = (PLUGIN.parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
    return [block.partition("```")[0] for block in text.split(f"```{language}\n")[1:]]


@pytest.mark.slow
def test_the_documentation_is_true(site):
    """The entry points that it shows are the package's, and its metric and its test do what it says."""
    (points,) = blocks("toml")
    assert points.strip() in (PLUGIN / "pyproject.toml").read_text(encoding="utf-8")
    _, metric, test = blocks("python")
    (site / "my_metrics.py").write_text(metric)
    program = "import my_metrics; print(my_metrics.LettersOff().compute(predictions=['a'], references=['abc']))"
    assert python(site, "-c", program) == "{'letters_off': 2.0}\n"
    (site / "test_documented.py").write_text(test)
    told = python(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_documented.py")
    assert "1 passed" in told
