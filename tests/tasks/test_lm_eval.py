"""Tasks of lm-eval have the scores that lm-eval itself gives the same model, and intervals and paired tests beside."""

from __future__ import annotations

import json
import shutil
import warnings
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tiny_text
import yaml
from click.testing import CliRunner

from benchcard import Benchmark, Results, registry
from benchcard.backends.parcel import requirements
from benchcard.card import Card, Facts
from benchcard.card.facts import Row
from benchcard.card.readme import merge
from benchcard.cli.commands import main
from benchcard.errors import BenchcardError, CardError, SpecError
from benchcard.metrics import MetricInputs
from benchcard.metrics.examples import examples_of
from benchcard.run.planned import planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import unresolved_sources
from benchcard.spec.plan import make_plan
from benchcard.spec.spec import read_stored_spec
from benchcard.tasks import lm_eval, text
from tasks.test_text_generation import write_decoder

if not find_spec("lm_eval"):
    pytest.skip("the extra `lm-eval` is not installed", allow_module_level=True)
if not find_spec("accelerate"):
    pytest.skip("the extra `test-lm-eval` is not installed", allow_module_level=True)

NAMES, PLACES, JUDGED = ("anna", "bob"), ("paris", "rome", "acme"), ("good", "bad", "dull", "bright")
ROWS = [
    {"name": NAMES[number % 2], "place": PLACES[number % 3], "number": number % 3, "word": JUDGED[number % 4]}
    for number in range(24)
]
CHOICES = {
    "task": "tiny_places",
    "output_type": "multiple_choice",
    "test_split": "test",
    "fewshot_split": "train",
    "doc_to_text": "the {{word}} film {{name}} lives in",
    "doc_to_choice": "{{['paris', 'rome for anna', 'acme']}}",
    "doc_to_target": "number",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
        {"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True},
    ],
}
CONTINUED = {
    "task": "tiny_next",
    "output_type": "loglikelihood",
    "test_split": "test",
    "fewshot_split": "train",
    "doc_to_text": "{{name}} lives in",
    "doc_to_target": " {{place}}",
    "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a decoder, data in two splits, and tasks in YAML files."""
    made = tmp_path_factory.mktemp("harness")
    write_decoder(made / "model", pad_token="[PAD]", bos_token="[CLS]", eos_token="[SEP]")
    # The tokenizer of a decoder adds no [SEP] at the end, which all continuations would share.
    tokenizer = made / "model" / "tokenizer.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "post_processor": None}))
    (made / "data").mkdir()
    for split, rows in {"test": ROWS[:17], "train": ROWS[17:]}.items():
        (made / "data" / f"{split}.json").write_text("\n".join(map(json.dumps, rows)))
    files = {split: str(made / "data" / f"{split}.json") for split in ("test", "train")}
    for task in (CHOICES, CONTINUED):
        source = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
        (made / f"{task['task']}.yaml").write_text(yaml.safe_dump({**task, **source}))
    generated = {**CONTINUED, "task": "tiny_generated"}
    del generated["output_type"]
    (made / "generated.yaml").write_text(yaml.safe_dump(generated))
    return made


def spec(folder, task, **arguments):
    """A spec of one row."""
    return {
        "task": "lm-eval",
        "model": str(folder / "model"),
        "dataset": {"path": str(folder / "data"), "eval_split": "test", "calibration_split": "train"},
        "task_args": {"name": str(folder / f"{task}.yaml"), **arguments},
        "framework": "pytorch",
        "duration": 0,
    }


def by_lm_eval(folder, task, num_fewshot):
    """The figures that lm-eval gives the model by itself, with its standard errors left out."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluated = simple_evaluate(
            model="hf",
            model_args={"pretrained": str(folder / "model"), "dtype": "float32"},
            tasks=[task],
            num_fewshot=num_fewshot,
            device="cpu",
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            bootstrap_iters=0,
        )
    figures = {name.partition(",")[0]: value for name, value in evaluated["results"][task].items() if "," in name}
    return {name: value for name, value in figures.items() if "stderr" not in name}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "num_fewshot"), [("tiny_places", 2), ("tiny_next", 0)])
def test_scores_are_those_of_lm_eval(folder, task, num_fewshot, tmp_path):
    """With examples in the prompt and without."""
    expected = by_lm_eval(folder, task, num_fewshot)
    results = Benchmark(**spec(folder, task, num_fewshot=num_fewshot)).run(tmp_path / "run", progress=False)
    assert results.failures.empty
    assert {*expected} == {
        metric["metric"] for metric in yaml.safe_load((folder / f"{task}.yaml").read_text())["metric_list"]
    }
    for name, value in expected.items():
        assert results.quality[name][0] == pytest.approx(value, rel=1e-5), name
    assert results.quality["acc_low"][0] <= results.quality["acc"][0] <= results.quality["acc_high"][0]


GRID = {
    "framework": ["onnxruntime", "pytorch"],
    "quantization_approach": ["dynamic"],
    "apply_quantization": [False, True],
}


@pytest.mark.slow
def test_a_grid_has_intervals_and_paired_tests(folder, tmp_path):
    """Float rows agree, and the quantized row is tested against them on the same rows; the version is recorded."""
    given = {**spec(folder, "tiny_places"), "grid": GRID}
    del given["framework"]
    results = Benchmark(**given).run(tmp_path / "run", progress=False)
    frame = results.quality
    assert results.failures.empty
    assert frame["acc"][0] == frame["acc"][2]
    assert frame["mcc"][0] == pytest.approx(frame["mcc"][2])
    assert frame["acc_p_value"].notna()[1]
    assert "lm_eval" in results.records.info.versions
    assert "51 continuations of 17 prompts" in str(results.card())


def refused(folder, **changes):
    """The text of the mistakes of a changed spec."""
    with pytest.raises(SpecError) as caught:
        Benchmark(**{**spec(folder, "tiny_places"), **changes})
    return str(caught.value)


def test_what_is_not_supported_is_said_at_planning_time(folder):
    """A task that generates text, one of no such name, and a group; named tasks are found."""
    assert "a task of the type `generate_until`" in refused(folder, task_args={"name": str(folder / "generated.yaml")})
    assert "@ $.task_args.name" in refused(folder, task_args={"name": "no_such_task"})
    assert "a task of the type `generate_until`" in refused(folder, task_args={"name": "gsm8k"})
    assert "name one of its tasks" in refused(folder, task_args={"name": "mmlu"})
    assert Benchmark(**{**spec(folder, "tiny_places"), "task_args": {"name": "winogrande"}})


def test_files_that_include_each_other_are_no_task(folder, tmp_path):
    """They name no type of requests, which is then lm-eval's default."""
    for name, other in (("one", "two"), ("two", "one")):
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}\ninclude: ../{tmp_path.name}/{other}.yaml\n")
    assert "a task of the type `generate_until`" in refused(folder, task_args={"name": str(tmp_path / "one.yaml")})


@pytest.mark.slow
def test_other_data_are_said_with_the_data_set_of_the_task(folder, tmp_path):
    """The columns that the task reads are not there."""
    tiny_text.write_data(tmp_path / "other", {"text": ["anna lives"]})
    other = {"path": str(tmp_path / "other"), "eval_split": "validation"}
    with pytest.raises(SpecError, match=r"the data set of .*yaml \(json\), found the columns text, which"):
        Benchmark(**{**spec(folder, "tiny_places"), "dataset": other}).run(tmp_path / "run", progress=False)


def test_a_relative_path_of_a_file_starts_at_the_folder_of_the_spec(folder, tmp_path, monkeypatch):
    """Wherever the command is called; without a spec file, in the working directory. Spec and keys of steps have the
    path as it is written.
    """
    given = {**spec(folder, "tiny_places"), "task_args": {"name": "tiny_places.yaml"}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.chdir(folder)
    here = prepare_request(Benchmark(**given))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=r"start at the folder of the spec or card\) @ \$\.task_args\.name"):
        Benchmark(**given)
    there = prepare_request(Benchmark.from_spec(folder / "spec.yaml"))
    assert here.task_files == there.task_files == {"name": (folder / "tiny_places.yaml").resolve()}
    assert here.key == there.key
    assert there.task_args == given["task_args"]


@pytest.mark.slow
def test_a_task_beside_the_spec_runs_from_another_folder(folder, tmp_path, monkeypatch):
    """Its rows, scores and intervals are made in child processes, and the card has the path as it is written."""
    given = {**spec(folder, "tiny_places"), "task_args": {"name": "tiny_places.yaml"}}
    (folder / "beside.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.chdir(tmp_path)
    results = Benchmark.from_spec(folder / "beside.yaml").run(tmp_path / "run", progress=False)
    assert 0 <= results.quality["acc"][0] <= 1
    assert "of the task tiny_places.yaml of lm-eval" in str(results.card())


EVIL = "evil.yaml"


@pytest.fixture
def evil(folder, tmp_path, monkeypatch):
    """A folder for a card, and the working directory, which has a task whose file calls a function of the file beside
    it when it is read; the function writes `called`.
    """
    here, beside = tmp_path / "here", tmp_path / "card"
    here.mkdir()
    beside.mkdir()
    code = f"from pathlib import Path\nPath({str(tmp_path / 'called')!r}).touch()\ndef rows(docs):\n    return docs\n"
    (here / "evil_rows.py").write_text(code)
    (here / EVIL).write_text(yaml.safe_dump({**CHOICES, "task": "evil"}) + "process_docs: !function evil_rows.rows\n")
    for name in ("model", "data"):
        (beside / name).symlink_to(folder / name)
    monkeypatch.chdir(here)
    return tmp_path


def write_card(folder, layout, arguments, **grid):
    """Write the card of a stranger, which asks for `arguments`; its layout, or that of the `run.json` beside it."""
    given = spec(Path(), "tiny_places")
    fixed = {"name_or_path": "./model", "dataset": {**given["dataset"], "path": "./data"}, "framework": "pytorch"}
    fixed |= arguments
    rows = tuple(Row(parameters={name: value}) for name, values in grid.items() for value in values)
    facts = Facts(task="lm-eval", backend="local", fixed=fixed, benchmarked=grid, rows=rows or (Row(parameters={}),))
    text = Card.from_facts(facts, layout="full", slug="x").text
    (folder / "README.md").write_text(merge("# Evil\n", text, "x").text)
    if layout == "run.json":
        (folder / "benchcard" / "x").mkdir(parents=True)
        about = {"spec": {"task": "lm-eval", "fixed": {**fixed, "duration": 0}, "grid": grid}}
        (folder / "benchcard" / "x" / "run.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize("layout", ["run.json", "full"])
@pytest.mark.parametrize("place", ["$.task_args.name", "$.grid.task_args[1].name", "$.grid.task_args.name[0]"])
@pytest.mark.parametrize("where", ["working directory", "absolute"])
def test_no_file_of_a_task_is_read_for_a_card(evil, monkeypatch, layout, place, where):
    """Wherever a card names it, it is refused before it is opened, and its functions do not run."""
    name = EVIL if where == "working directory" else str(evil / "here" / EVIL)
    arguments, grid = {
        "$.task_args.name": ({"task_args": {"name": name}}, {}),
        "$.grid.task_args[1].name": ({}, {"task_args": [{"name": "winogrande"}, {"name": name}]}),
        "$.grid.task_args.name[0]": ({}, {"task_args.name": [name, "winogrande"]}),
    }[place]
    card = write_card(evil / "card", layout, arguments, **grid)
    opened = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *args, **named: opened.append(path) or real(path, *args, **named))
    found = Results.from_card(card)
    for run in (lambda: Benchmark.from_card(card), lambda: Benchmark.from_spec(found.spec)):
        with pytest.raises(BenchcardError, match="would run code on this machine") as error:
            run()
        assert f"the task file `{name}` @ {place}, which is not here" in str(error.value)
    done = CliRunner().invoke(main, ["verify", str(card), "--quiet"])
    assert done.exit_code == 1
    assert "would run code on this machine" in done.output
    assert EVIL not in {path.name for path in opened}
    # Once it is trusted, it still names no file outside of its folder.
    steps = prepare_requests(Benchmark.from_card(card, trust_remote_code=True))
    assert not any(step.task_files for step in steps)
    assert not (evil / "called").exists()


def test_a_run_directory_of_a_stranger_names_no_task_file(evil):
    """The spec that is stored there is refused as that of a card is."""
    stored = read_stored_spec({**spec(evil / "card", "tiny_places"), "task_args": {"name": EVIL}})
    with pytest.raises(BenchcardError, match=rf"the task file `{EVIL}` @ \$\.task_args\.name, which is /"):
        Benchmark.from_spec(stored)
    assert Benchmark.from_spec(stored, trust_remote_code=True)
    assert not (evil / "called").exists()


@pytest.mark.parametrize("arguments", ["defaults", "arguments"])
def test_the_metric_opens_no_file_that_a_text_names(evil, arguments):
    """Neither the rows of a run directory nor `metric_args` of a card choose the file of a task."""
    task = {"task": str(evil / "here" / EVIL)}
    given = {"defaults": task} if arguments == "defaults" else {"arguments": {"lm_eval": task}}
    with pytest.raises(BenchcardError, match="lm-eval has no task"):
        examples_of("lm_eval", MetricInputs([[[0.0, 1.0]]], [json.dumps(ROWS[0])], **given))
    assert not (evil / "called").exists()


def test_a_card_names_a_task_of_lm_eval(evil):
    """It needs no trust, and neither does a file that the reader names."""
    card = write_card(evil / "card", "run.json", {"task_args": {"name": "winogrande"}})
    assert Benchmark.from_card(card).spec.fixed["task_args"] == {"name": "winogrande"}
    (step,) = prepare_requests(Benchmark.from_card(card, task_args={"name": EVIL}))
    assert step.task_files == {"name": (evil / "here" / EVIL).resolve()}


@pytest.mark.slow
def test_a_task_beside_a_card_runs_from_another_folder(folder, evil):
    """Once it is trusted, its rows, scores and intervals are made; the run is compared where it is trusted, too."""
    for name in ("model", "data"):
        (evil / "card" / name).unlink()
        shutil.copytree(folder / name, evil / "card" / name)
    for name in (EVIL, "evil_rows.py"):
        (evil / "here" / name).rename(evil / "card" / name)
    card = write_card(evil / "card", "run.json", {"task_args": {"name": EVIL}})
    with pytest.raises(CardError, match=rf"the task file `{EVIL}` @ \$\.task_args\.name, which is /"):
        Benchmark.from_card(card)
    assert not (evil / "called").exists()
    results = Benchmark.from_card(card, trust_remote_code=True).run("run", progress=False)
    assert results.quality["acc_low"][0] <= results.quality["acc"][0] <= results.quality["acc_high"][0]
    (evil / "called").unlink()
    untrusted = Results.load("run").compare(Results.load("run"), times=False)
    assert "were not read" in " ".join(untrusted.notes)
    assert untrusted.frame["change"].isna().all()
    assert not (evil / "called").exists()
    trusted = results.compare(results, times=False, trust_remote_code=True)
    assert trusted.frame["change"].notna().any()


def prepare_requests(benchmark):
    """The requests for the rows of a benchmark."""
    plan = make_plan(benchmark.spec)
    planned = planned_steps(plan, unresolved_sources(plan.spec), traits_of(plan), 1)
    return [step for steps in planned for step in steps if step.kind == "prepare"]


def prepare_request(benchmark):
    """The request for the rows of a benchmark of one row."""
    (step,) = prepare_requests(benchmark)
    return step


def test_a_job_elsewhere_installs_lm_eval():
    """The requirements of a parcel have it for this task alone."""
    assert f"lm_eval=={metadata.version('lm_eval')}" in requirements(["onnxruntime"], "lm-eval")
    assert not any(line.startswith("lm_eval") for line in requirements(["onnxruntime"], "text-generation"))


def test_a_file_of_a_task_is_not_sent_elsewhere(folder, tmp_path):
    """A job is refused before it starts, because the file would be missing there."""
    given = {**spec(folder, "tiny_places"), "backend": "hf-jobs", "backend_args": {"flavor": "cpu-basic"}}
    with pytest.raises(SpecError, match=r"are not sent to another machine.* @ \$\.task_args\.name"):
        Benchmark(**given).run(tmp_path / "run", progress=False)


def test_without_the_extra_it_is_named(folder, monkeypatch):
    """The message says what to install."""
    monkeypatch.setattr("benchcard.utils.harness.find_spec", lambda name: None)
    with pytest.raises(BenchcardError, match=r"needs lm-eval: pip install 'benchcard\[lm-eval\]'"):
        Benchmark(**spec(folder, "tiny_places"))


def test_a_request_is_scored_by_its_continuation_alone():
    """The log-probabilities of its tokens are added, and all of them must be the most likely ones."""
    task, logits = registry.task("lm-eval"), np.log(np.array([[[0.7, 0.3], [0.4, 0.6], [0.1, 0.9], [0.5, 0.5]]]))
    kept = task.kept({"logits": logits.astype(np.float32)}, {"input_ids": np.array([[0, 1, 1, 0]])}, {})
    item = {name: values[0] for name, values in kept.items()}
    (first, second) = task.prediction([{**item, "predicted": np.array(at)} for at in ([1], [1, 2])], None, {})
    assert first == [pytest.approx(np.log(0.6)), 1.0]
    assert second == [pytest.approx(np.log(0.6) + np.log(0.1)), 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("keeps_special", [False, True])
def test_requests_have_the_tokens_of_lm_eval(folder, tmp_path, keeps_special):
    """Spaces at the end of a prompt, an empty prompt, and one that begins with the first token of all texts."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    if keeps_special:
        write_decoder(tmp_path, pad_token="[PAD]", bos_token="[CLS]", eos_token="[SEP]")
    model = tmp_path if keeps_special else folder / "model"
    pairs = [("anna lives in", " paris"), ("bob lives  ", "in rome"), ("", "anna"), ("[CLS] anna", " lives in rome")]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    harness, seen = HFLM(str(model), device="cpu", dtype="float32"), []
    harness._loglikelihood_tokens = lambda made, **_: seen.extend((before, after) for _, before, after in made)
    harness.loglikelihood(requests, disable_tqdm=True)
    assert lm_eval._encoder(text.load_texts(model)).loglikelihood(requests, disable_tqdm=True) == seen
