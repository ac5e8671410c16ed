"""Pushing a run: one commit with the card, the figures and the models, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from hub_fixtures import MINE, THEIRS, hub
from huggingface_hub import ModelCard

from benchcard import Results
from benchcard.analysis import public_names, times
from benchcard.card import Card
from benchcard.card.frontmatter.fields import front_matter_keys
from benchcard.errors import BenchcardError, CardError, HubError
from benchcard.graphs.files import model_digest
from benchcard.hub.faults import RetryPolicy
from benchcard.publishing import facts, weights
from benchcard.publishing import push as publishing
from benchcard.steps.models import path_of
from benchcard.testing import LocalHub
from benchcard.utils.values import Interval

__all__ = ["hub"]
KINDS = ("recommended", "baseline")
OWN = ("latencies.parquet", "results.csv", "run.json")
AUTHOR = "---\nlicense: mit # mine\n---\n# Mine\r\nText of mine"


@pytest.fixture
def run(results, tmp_path):
    """A copy of the tiny run, to be published."""
    shutil.copytree(results.path, tmp_path / "run")
    return Results.load(tmp_path / "run")


@pytest.fixture
def push(run, hub: LocalHub):
    """`push_to_hub` of the tiny run to the local Hub."""

    def call(repo_id=MINE, **more):
        given = {
            "endpoint": hub.endpoint,
            "token": hub.token,
            "patience": RetryPolicy(3, 0.001),
            "artifacts": [1],
            **more,
        }
        return run.push_to_hub(repo_id, **given)

    return call


def test_a_push_is_one_commit_with_everything(push, run, hub, capsys):
    """README, figures, raw latencies, the model and its processor come in one commit; the same again is none."""
    import pandas as pd

    pushed = push()
    assert pushed.changed
    assert pushed.commit_oid == hub.head(MINE)
    files = hub.files(MINE)
    slug = f"data-{run.spec.digest[:8]}"
    assert {f"benchcard/{slug}/{name}" for name in OWN} <= set(files)
    assert {"README.md", "onnx/model_quantized.onnx", "config.json", "preprocessor_config.json"} <= set(files)
    made = run.records.records[1].outcomes.quantize
    assert files["onnx/model_quantized.onnx"] == (made.folder / made.values.file).read_bytes()
    folder = run.path / "publish" / slug / "repo" / "benchcard" / slug
    raw = pd.read_parquet(folder / "latencies.parquet")
    timed = run.time.set_index(["row", "batch_size"])
    own = raw[(raw["row"] == 1) & ~raw["twin"] & (raw["batch_size"] == 3)]
    assert len(own) == timed.loc[(1, 3), "runs"]
    table = pd.read_csv(folder / "results.csv")
    assert table.groupby("row")["accuracy"].first().tolist() == pytest.approx(run.quality["accuracy"].tolist())
    again = push()
    assert not again.changed
    assert hub.head(MINE) == pushed.commit_oid
    assert len(hub.commits(MINE)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("outside", [False, True])
def test_a_card_says_how_its_model_is_loaded(push, run, hub, tmp_path, outside):
    """The Python lines of the card, run as they stand against the Hub, give outputs; where a graph keeps its tensors in
    a file beside it, too, which has the name that Transformers.js looks for.
    """
    from PIL import Image

    if outside:
        made = run.records.records[1].outcomes.quantize
        path = made.folder / made.values.file
        graph = onnx.load(path)
        path.unlink()
        beside = {"location": "tensors.bin", "size_threshold": 256, "all_tensors_to_one_file": True}
        onnx.save_model(graph, path, save_as_external_data=True, **beside)
    push()
    names = {name for name in hub.files(MINE) if name.startswith("onnx/")}
    beside = ["model_quantized.onnx_data"] if outside else ["model_quantized.onnx.data", "export.json"]
    assert names == {f"onnx/{name}" for name in ["model_quantized.onnx", *beside]}
    text = hub.read(MINE, "README.md").decode()
    lines = text.split("```python\n")[1].split("```")[0]
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    program = f"{lines}\nassert outputs[0].shape == (1, 3), outputs"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, **hub.environment()}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert ('dtype: "q8", use_external_data_format: 1 }' if outside else 'dtype: "q8" }') in text


def test_the_author_keeps_text_and_files(push, hub):
    """Text around the section and a configuration that is there stay to the byte, and it is said."""
    hub.add_model(MINE, {"README.md": AUTHOR, "config.json": '{"mine": true}'})
    pushed = push()
    assert "Text of mine" in hub.read(MINE, "README.md").decode()
    assert "license: mit # mine" in hub.read(MINE, "README.md").decode()
    assert hub.read(MINE, "config.json") == b'{"mine": true}'
    assert any("config.json" in warning for warning in pushed.warnings)


def test_a_models_files_come_together_or_not_at_all(push, hub):
    """A processor is put beside no configuration or vocabulary of somebody else, who would be read otherwise with it;
    it is said, and `force`, which replaces a section or models, leaves it so.
    """
    for name in ("config.json", "vocab.txt"):
        repo_id = f"local-user/{name.partition('.')[0]}"
        hub.add_model(repo_id, {name: "theirs"})
        graph = ("onnx/model_quantized.onnx", "onnx/model_quantized.onnx.data", "onnx/export.json")
        before = {"README.md", ".gitattributes", name, *graph}
        (said,) = push(repo_id).warnings
        assert said.startswith("config.json, preprocessor_config.json not pushed: such files are read together")
        assert said.endswith(f"the repository has {name} with other content")
        assert {path for path in hub.files(repo_id) if not path.startswith("benchcard/")} == before
        assert not push(repo_id).changed
        push(repo_id, force=True)
        assert {path for path in hub.files(repo_id) if not path.startswith("benchcard/")} == before
        assert hub.read(repo_id, name) == b"theirs"


def test_weights_of_others_are_not_replaced(push, hub):
    """A model of that name that benchcard did not push is refused, unless forced; its own is replaced."""
    hub.add_model(MINE, {"onnx/model_quantized.onnx": "theirs"})
    before = hub.head(MINE)
    with pytest.raises(HubError, match=r"onnx/model_quantized.onnx.*Nothing was written"):
        push()
    assert hub.head(MINE) == before
    push(force=True)
    assert push(artifacts=[2]).changed


def test_a_dry_run_writes_nothing(push, run, hub, capsys):
    """The difference is printed; neither the Hub nor the run directory changes."""
    before = sorted(run.path.rglob("*"))
    pushed = push(dry_run=True)
    assert "new file: onnx/model_quantized.onnx" in capsys.readouterr().out
    assert pushed.commit_oid is None
    assert not hub.exists(MINE)
    assert sorted(run.path.rglob("*")) == before


def test_what_is_published_can_be_chosen(push, hub):
    """Rows that share a model are published once; a row without a model of its own is refused by its reason."""
    push(artifacts="all")
    names = [name for name in hub.files(MINE) if name.endswith(".onnx")]
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx"} <= set(names)
    assert len({hub.read(MINE, name) for name in names}) == len(names)
    with pytest.raises(BenchcardError, match=r"row 5 .* has no model of its own"):
        push(artifacts=[5])
    with pytest.raises(BenchcardError, match="there is no row 9"):
        push(artifacts=[9])
    push("local-user/none", artifacts="none")
    assert not any(name.endswith(".onnx") for name in hub.files("local-user/none"))


def test_the_pushed_model_is_made_again_with_onnxruntime_alone(push, run, hub, tmp_path, monkeypatch):
    """The lines on the card, run as they are printed beside the float graph, make the graph that was pushed."""
    push(artifacts=[1])
    text = hub.read(MINE, "README.md").decode()
    lines = text.partition("Make model_quantized.onnx again")[2].partition("```python\n")[2].partition("```")[0]
    folder = tmp_path / "again"
    folder.mkdir()
    record = run.records.records[1]
    shutil.copyfile(path_of(record.outcomes.export), folder / "model.onnx")
    monkeypatch.chdir(folder)
    exec(lines, {})
    assert model_digest(folder / "model_quantized.onnx") == record.digest


@pytest.mark.parametrize("layout", ["full", "classic"])
def test_the_card_says_which_row_each_file_is(push, hub, layout):
    """One pushed model or several: their files are named with their rows, in either layout, and in a table with what
    they are.
    """
    push(artifacts=[1], layout=layout)
    text = hub.read(MINE, "README.md").decode()
    assert "\n`onnx/model_quantized.onnx` is row 1 (onnxruntime, " in text
    table = text.partition("### Model files")[2].partition("###")[0]
    assert "| `onnx/model_quantized.onnx` |" in table
    assert "int8" in table
    push(artifacts=[0, 1], layout=layout)
    text = hub.read(MINE, "README.md").decode()
    assert "\n* `onnx/model.onnx` is row 0 (onnxruntime, " in text
    assert "\n* `onnx/model_quantized.onnx` is row 1 (onnxruntime, " in text


def models(hub):
    """The models in the repository; for transformers each has an empty file beside it, and its name in a file."""
    files = hub.files(MINE)
    listed = json.loads(files.get("onnx/export.json", b'{"components": {}}'))["components"].values()
    assert all(f"onnx/{entry['file']}{ending}" in files for entry in listed for ending in ("", ".data"))
    names = {name.removeprefix("onnx/") for name in files if name.startswith("onnx/")}
    return {name for name in names if not name.endswith((".data", ".json"))}


def test_models_that_are_no_longer_chosen_are_listed_and_pruned(push, hub, capsys):
    """A model that an earlier push sent stays and is named by each push, until `prune` removes it; nobody else's is."""
    push(artifacts=[0, 1])
    hub.commit(MINE, {"onnx/theirs.onnx": "theirs"})
    for _ in range(2):
        (said,) = push(artifacts=[1]).warnings
        stale = "onnx/model.onnx, onnx/model.onnx.data"
        assert said == f"kept from earlier pushes, though no longer chosen: {stale}; see `prune`"
    assert models(hub) == {"model.onnx", "model_quantized.onnx", "theirs.onnx"}
    assert not push(artifacts=[1]).changed
    pushed = push(artifacts=[1], prune=True, dry_run=True)
    assert "removed file: onnx/model.onnx\n" in capsys.readouterr().out
    assert pushed.changed
    pushed = push(artifacts=[1], prune=True)
    assert (pushed.changed, pushed.warnings) == (True, ())
    assert "2 removed" in str(pushed)
    assert models(hub) == {"model_quantized.onnx", "theirs.onnx"}
    assert not push(artifacts=[1], prune=True).changed
    push(artifacts=[0, 1])
    hub.commit(MINE, {"onnx/model.onnx": "theirs"})
    assert push(artifacts=[1], prune=True).warnings == ()
    assert hub.read(MINE, "onnx/model.onnx") == b"theirs"


def test_a_model_of_another_section_is_not_pruned(push, hub):
    """A model that another section of the README is about stays, and is not called unchosen."""
    push(slug="one")
    push(slug="two")
    assert push(slug="one", artifacts="none").warnings == ()
    push(slug="one", artifacts="none", prune=True)
    assert models(hub) == {"model_quantized.onnx"}
    (said,) = push(slug="two", artifacts="none").warnings
    assert said.startswith("kept from earlier pushes, though no longer chosen: onnx/export.json, onnx/model_quantized")
    push(slug="two", artifacts="none", prune=True)
    assert not models(hub)


def test_the_best_row_is_that_of_the_given_drop(push, run, hub):
    """The card that is pushed, and the model with it, are those of the choice with the same drop."""
    push(artifacts="best", max_drop=1.0)
    told = Card(hub.read(MINE, "README.md").decode()).facts()
    best = run.best(max_drop=1.0)
    assert (told.chosen, told.reasons) == (best.row, facts.make_facts(run, 1.0).reasons)
    assert told.reasons != facts.make_facts(run).reasons
    assert [each.row for each in weights.chosen_weights(run, "best", 1.0)] == ([best.row] if best.row != 5 else [])


def test_weights_that_are_not_pushed_for_want_of_a_choice_are_told(push, run, hub, monkeypatch):
    """Where the first baseline's rows have no figures, and those of another do, no weights go with "best", and it is
    said; where weights were not asked for, or rows named, it is not.
    """
    choices = {0: replace(run.best(), row=None, reason="of the rows compared with row 0: no figures"), 1: run.best()}
    monkeypatch.setattr(Results, "baselines", (0, 1))
    monkeypatch.setattr(Results, "best", lambda self, *given, baseline=0, **more: choices[baseline])
    for is_dry in (True, False):
        said = push(artifacts="best", dry_run=is_dry).warnings
        row = choices[1].row
        told = f"no weights pushed: of the rows compared with row 0: no figures; `artifacts` takes rows, as {row}"
        assert told in said
    assert not any(name.endswith(".onnx") for name in hub.files(MINE))
    for artifacts in ("none", [1]):
        assert not any("no weights" in each for each in push(artifacts=artifacts).warnings)
    choices[0] = replace(choices[1], row=5)
    said = push(artifacts="best", dry_run=True).warnings
    (told,) = (each for each in said if each.startswith("no weights pushed: row 5 ("))
    assert "has no model of its own to publish: its framework runs the original weights" in told
    choices[0] = choices[1] = replace(choices[0], row=None)
    with pytest.raises(CardError, match="no configuration has figures"):
        push(artifacts="best")


def test_a_section_edited_by_hand_is_refused(push, run, hub):
    """What somebody wrote into the section is not lost without force, and with it is kept in the run directory."""
    push()
    text = hub.read(MINE, "README.md").decode()
    hub.commit(MINE, {"README.md": text.replace("**Backend:**", "**My words:**")})
    with pytest.raises(CardError, match="edited by hand"):
        push()
    push(force=True)
    (kept,) = (run.path / "publish").glob("*.replaced.md")
    assert "My words" in kept.read_text()


def with_sources(monkeypatch, run, **changes):
    """Change the fields of all models or data sets of a run."""
    info = run.records.info
    changed = {
        part: {name: replace(source, **fields) for name, source in getattr(info.sources, part).items()}
        for part, fields in changes.items()
    }
    records = replace(run.records, info=replace(info, sources=replace(info.sources, **changed)))
    monkeypatch.setattr(run, "records", records)


def test_weights_say_what_they_were_made_from(push, run, hub, monkeypatch):
    """Quantized weights of a model on the Hub name it and the relation; a repository is not made from itself."""
    with_sources(monkeypatch, run, models={"local": False, "name": "someone/tiny"})
    push()
    text = hub.read(MINE, "README.md").decode()
    assert "base_model: someone/tiny\nbase_model_relation: quantized\n" in text
    with_sources(monkeypatch, run, models={"name": "local-user/itself"})
    push("local-user/itself")
    assert "base_model" not in hub.read("local-user/itself", "README.md").decode()
    # The model may be a fine-tune of the base model that the spec names.
    monkeypatch.setitem(run.spec.fixed, "base_model", "someone/base")
    push("local-user/tuned")
    text = hub.read("local-user/tuned", "README.md").decode()
    assert "base_model: someone/base\n" in text
    assert "base_model_relation" not in text
    assert "model-index" not in text


def test_licence_and_library_are_those_of_the_model(push, run, hub, monkeypatch):
    """What the model's own card says of them is said of its variants, in a README that says nothing of its own; the
    client reads it all back, with the published row and the baseline alone as results.
    """
    told = {"license": "other", "license_name": "house", "license_link": "LICENSE.md", "library_name": "transformers"}
    model, data = (
        {"local": False, "name": name, "location": name, "revision": "0a1b"}
        for name in ("someone/tiny", "someone/shades")
    )
    with_sources(monkeypatch, run, models={**model, "inherited": told}, datasets=data)
    push()
    assert ModelCard(hub.read(MINE, "README.md").decode()).data.library_name is None, "graphs alone are no library's"
    hub.add_model("local-user/trained", {"training_args.bin": "no weights"})
    push("local-user/trained")
    assert "library_name" not in hub.read("local-user/trained", "README.md").decode()
    hub.add_model("local-user/own", {"model.safetensors": "weights"})
    push("local-user/own")
    own = ModelCard(hub.read("local-user/own", "README.md").decode()).data
    assert (own.license, own.library_name) == ("other", "transformers")
    card = ModelCard(hub.read(MINE, "README.md").decode()).data
    assert (card.license, card.license_name) == ("other", "house")
    assert card.license_link == "https://huggingface.co/someone/tiny/blob/0a1b/LICENSE.md"
    assert (card.base_model, card.base_model_relation) == ("someone/tiny", "quantized")
    kinds = {"accuracy (baseline)"} if run.best().row == run.baseline else {f"accuracy ({kind})" for kind in KINDS}
    assert {result.metric_name for result in card.eval_results} == kinds
    assert {result.dataset_type for result in card.eval_results} == {"someone/shades"}
    (where,) = {result.source_url for result in card.eval_results}
    at = f"https://huggingface.co/{MINE}/blob/main/"
    assert where.startswith(at)
    assert hub.read(MINE, where.removeprefix(at)).startswith(b"row,")
    push("local-user/named", slug="mine")
    named = ModelCard(hub.read("local-user/named", "README.md").decode()).data
    assert {result.source_name for result in named.eval_results} == {"benchcard mine"}
    (entry,) = run.card(slug="mine").front_matter["model-index"]
    assert {result["source"]["name"] for result in entry["results"]} == {"benchcard mine"}
    hub.add_model("local-user/authors", {"README.md": AUTHOR})
    (said,) = push("local-user/authors").warnings
    assert said.startswith("license has another value there")
    text = hub.read("local-user/authors", "README.md").decode()
    assert "license: mit # mine" in text
    assert "license_name" not in text
    assert "library_name" not in text
    for number, licence in enumerate(("not a licence", ["mit", "not a licence"])):
        with_sources(monkeypatch, run, models={"inherited": {**told, "license": licence}})
        push(f"local-user/third-{number}")
        assert "license" not in hub.read(f"local-user/third-{number}", "README.md").decode()


def test_several_licences_of_a_model_stay_several(push, run, hub, monkeypatch):
    """Licences that are a list in the model's own card are a list in the README, and neither replace those of an author
    nor are added to them; the reader of cards reads them back.
    """
    with_sources(monkeypatch, run, models={"inherited": {"license": ["mit", "apache-2.0"]}})
    push()
    text = hub.read(MINE, "README.md").decode()
    assert ModelCard(text).data.license == ["mit", "apache-2.0"]
    assert not push().changed
    assert front_matter_keys(Results.from_card(text).facts.front_matter)["license"] == ["mit", "apache-2.0"]
    hub.add_model("local-user/authors", {"README.md": AUTHOR})
    (said,) = push("local-user/authors").warnings
    assert said.startswith("license has another value there")
    assert ModelCard(hub.read("local-user/authors", "README.md").decode()).data.license == "mit"


@pytest.mark.parametrize(("artifacts", "tags"), [("none", []), ([0], ["onnx"]), ([1], ["onnx", "quantized"])])
def test_tags_are_of_what_is_published(push, hub, artifacts, tags):
    """The filters of the Hub find weights by these tags: they are there where such weights are."""
    push(artifacts=artifacts)
    assert ModelCard(hub.read(MINE, "README.md").decode()).data.tags == ["benchcard", *tags]


def test_without_the_right_to_write_it_is_a_pull_request(push, hub):
    """A repository of somebody else gets one pull request, used again by the next push."""
    hub.add_model(THEIRS, {"README.md": "# Theirs\n"})
    first = push(THEIRS)
    assert first.pr_url
    assert push(THEIRS, artifacts=[2]).pr_url == first.pr_url
    assert len(hub.pull_requests(THEIRS)) == 1


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_a_run_directory_that_only_reads_is_told(push, run, hub, monkeypatch, error):
    """A push writes what it sends first: where it cannot, that is an error of ours, and nothing is sent."""

    def refuse(*given, **named):
        raise error

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(BenchcardError, match=r"publish cannot be written .*: copy the run directory"):
        push()
    assert not hub.requests()


def test_no_token_is_written_anywhere(push, run, hub, capsys):
    """Neither files, nor output, nor errors, nor what is pushed hold the token, even where the Hub says it."""
    push()
    hub.fail("commit", status=503, message=f"no {hub.token}")
    with pytest.raises(HubError) as error:
        push(artifacts=[2])
    said = capsys.readouterr()
    assert hub.token not in f"{error.value}{said.out}{said.err}"
    assert "benchcard push" in str(error.value)
    secret = hub.token.encode()
    assert not [path for path in run.path.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert not [name for name, content in hub.files(MINE).items() if secret in content]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"artifacts": "best"}, ""),
        ({"max_drop": 0.5, "artifacts": "none"}, " --artifacts none --max-drop 0.5"),
        ({"artifacts": "none", "fidelity": 0.01}, " --artifacts none --fidelity 0.01"),
        (
            {"artifacts": "none", "fidelity": {"kl_mean": 1e-5, "agreement": 0.9}},
            " --artifacts none --fidelity kl_mean=1e-05 --fidelity agreement=0.9",
        ),
        (
            {"artifacts": [1, 2], "slug": "mine", "layout": "classic", "overwrite": ["license"], "force": True},
            " --artifacts 1,2 --slug mine --layout classic --overwrite license --force",
        ),
        ({"artifacts": "best", "create_pr": False, "private": False}, " --no-create-pr --public"),
        ({"artifacts": []}, " --artifacts none"),
    ],
)
def test_the_command_that_goes_on_is_the_one_that_failed(push, run, hub, monkeypatch, given, said):
    """The command that a failed push names repeats what was given: without it, it would push something else, or to
    another Hub. The token is told in words.
    """
    hub.fail("commit", status=503, times=3)
    with pytest.raises(HubError) as error:
        push(**given)
    again = f"`HF_ENDPOINT={hub.endpoint} benchcard push {run.path} {MINE}{said}` goes on"
    assert f"{again}, with the token of `hf auth login` or HF_TOKEN." in str(error.value)
    hub.fail("commit", status=503, times=3)
    monkeypatch.setattr("benchcard.publishing.push.ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    with pytest.raises(HubError) as error:
        push(**given, endpoint=f"{hub.endpoint}/", token=None)
    assert f"; `benchcard push {run.path} {MINE}{said}` goes on." in str(error.value)


def test_the_command_after_a_pull_request_into_no_repository_makes_the_repository(push, run, hub):
    """Where `create_pr=True` finds no repository, the command that goes on is one that can work, and does."""
    with pytest.raises(HubError) as error:
        push(create_pr=True)
    command = f"benchcard push {run.path} {MINE} --artifacts 1"
    assert f"`HF_ENDPOINT={hub.endpoint} {command}` goes on" in str(error.value)
    assert push().changed
    assert push(create_pr=True).changed is False


def test_an_endpoint_is_told_without_its_password():
    """The command that goes on names the Hub, and not what opens it."""
    options = publishing.PushOptions(slug="a b", endpoint="https://me:secret@hub.example:8080/at@home")
    command = options.as_command(Path("run"), MINE)
    assert command == f"HF_ENDPOINT=https://hub.example:8080/at@home benchcard push run {MINE} --slug 'a b'"


@pytest.mark.parametrize("slug", ["../../outside", "a" * 300, "a" * 101, "a b", 5])
def test_a_slug_that_can_name_no_section_is_refused_before_anything_is_written(push, run, tmp_path, slug):
    """The slug becomes a folder: nothing is written for one that would be none, or lead elsewhere."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CardError, match="cannot name a section: use at most 100 letters"):
        push(slug=slug)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_longest_slug_names_a_section(push, hub):
    """A slug of the most letters is a folder of the repository."""
    assert push(slug="a" * 100, artifacts="none").changed
    assert f"benchcard/{'a' * 100}/run.json" in hub.files(MINE)


def test_no_path_of_this_machine_is_published(push, run, hub):
    """What was published names models and data as the spec does, not where they lie."""
    push(artifacts="none")
    where = str(run.records.info.sources.models["./model"].location).encode()
    assert not [name for name, content in hub.files(MINE).items() if where in content]


def test_folders_from_the_root_are_told_by_their_last_name(run):
    """Neither the spec nor a failure that is published says where models, data and the run lie."""
    where = run.records.info.sources.models["./model"].location
    fixed = {"name_or_path": where, "dataset": {"path": "/home/me/data"}, "metrics": ["accuracy", "/home/me/own.py"]}
    told = {"fixed": fixed, "failure": f"no {where}/x"}
    fixed = {"name_or_path": "model", "dataset": {"path": "data"}, "metrics": ["accuracy", "own.py"]}
    clean = {"fixed": fixed, "failure": "no model/x"}
    assert public_names.public_value(run.records, told) == clean


def test_a_models_own_files_tell_no_folder_of_this_machine(push, run, hub, tmp_path, monkeypatch):
    """Where a local model was loaded from is told by the last name; all else in its files, and those of a model on the
    Hub, stay as they are.
    """
    (model,) = run.records.info.sources.models.values()
    shutil.copytree(model.location, tmp_path / "model")
    own = json.loads((tmp_path / "model" / "config.json").read_text())
    parts = [{"name_or_path": "C:\\alice\\base", "x": "/vit/MatMul"}]
    told = {"_name_or_path": "/home/alice/acme/tuned", "parts": parts}
    (tmp_path / "model" / "config.json").write_text(json.dumps({**own, **told}))
    (tmp_path / "model" / "tokenizer_config.json").write_text('{"tokenizer_file": "~/acme/tokenizer.json"}')
    (tmp_path / "model" / "vocab.json").write_text("no JSON")
    with_sources(monkeypatch, run, models={"location": str(tmp_path / "model")})
    push()
    clean = {"_name_or_path": "tuned", "parts": [{"name_or_path": "base", "x": "/vit/MatMul"}]}
    assert json.loads(hub.read(MINE, "config.json")) == {**own, **clean}
    assert json.loads(hub.read(MINE, "tokenizer_config.json")) == {"tokenizer_file": "tokenizer.json"}
    for name in ("preprocessor_config.json", "vocab.json"):
        assert hub.read(MINE, name) == (tmp_path / "model" / name).read_bytes()
    assert "acme" in (tmp_path / "model" / "config.json").read_text()
    with_sources(monkeypatch, run, models={"local": False})
    push("local-user/of-the-hub")
    assert hub.read("local-user/of-the-hub", "config.json") == (tmp_path / "model" / "config.json").read_bytes()


def test_latencies_that_wandered_are_told_on_the_card(run, monkeypatch):
    """Rows that became slower or faster while they were timed, beyond the interval, are named with their shape."""
    drifts = [Interval(0.2, 0.1, 0.3), Interval(-0.3, -0.4, -0.1), Interval(0.2, 0.0, 0.4)]
    (shape, figures), *_ = times.row_times(run.records, run.records.records[0])

    def row_times(records, record):
        drift = drifts[record.configuration.row] if record.configuration.row < len(drifts) else None
        yield shape, replace(figures, intervals={**figures.intervals, "drift": drift})

    monkeypatch.setattr(facts, "row_times", row_times)
    (note,) = (note for note in facts.make_facts(run).notes if "from the first launch to the last" in note)
    assert "row 0 by +20 %, row 1 by -30 %. " in note


CHILD = """
import os, signal, sys
from benchcard import Results
if sys.argv[2] == "disk":
    real = os.replace
    def replace(source, target):
        if "publish" in str(target):
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, target)
    os.replace = replace
print(os.getpid(), flush=True)
Results.load(sys.argv[1]).push_to_hub("local-user/model", artifacts=[1])
"""


@pytest.mark.parametrize("point", ["disk", "resolve", "lfs-upload", "commit", "after"])
def test_a_killed_push_leaves_all_before_or_all_after(point, run, hub, push):
    """Killed at any point, the repository is as before or as after, the run directory whole, and the push goes on."""
    hub.add_model(MINE, {"README.md": AUTHOR})
    before = hub.files(MINE)
    wanted = {path.relative_to(run.path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    environment = {**os.environ, **hub.environment()}
    command = [sys.executable, "-c", CHILD, str(run.path), point]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        if point == "after":
            hub.drop_response("commit")
            hub.before("info", lambda: child.kill() if hub.files(MINE) != before else None, times=None)
        elif point != "disk":
            hub.before(point, lambda: (child.send_signal(signal.SIGKILL), child.wait()))
        child.wait(timeout=120)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == -signal.SIGKILL
    hub.heal()
    files = hub.files(MINE)
    assert point != "after" or files != before
    if files != before:
        assert {"onnx/model_quantized.onnx", "config.json"} <= set(files)
        assert b"benchcard:end" in files["README.md"]
    now = {path.relative_to(run.path): path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert {name: now.get(name) for name in wanted} == wanted
    assert Results.load(run.path).quality.equals(run.quality)
    pushed = push()
    assert pushed.changed == (files == before)
    assert "Text of mine" in hub.read(MINE, "README.md").decode()


def test_the_command_line_pushes(run, hub):
    """`benchcard push` shows what would change, pushes, and says what came of it."""
    from click.testing import CliRunner

    environment = {**os.environ, **hub.environment()}
    command = [sys.executable, "-m", "benchcard.cli", "push", str(run.path), MINE, "--artifacts", "1"]
    done = subprocess.run([*command, "--dry-run"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "new file: onnx/model_quantized.onnx" in done.stdout
    assert not hub.exists(MINE)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"commit: {hub.endpoint}/{MINE}/commit/{hub.head(MINE)}" in done.stdout
    from benchcard.cli.commands import main

    refused = CliRunner().invoke(main, ["push", str(run.path), MINE, "--artifacts", "some"])
    assert refused.exit_code == 2
    assert json.loads((run.path / "run.json").read_text())["digest"] == run.spec.digest
    assert Path(run.path / "publish").is_dir()


def test_a_card_that_a_gitignore_keeps_out_is_not_said_to_be_there(push, run, hub, monkeypatch):
    """The second push, which has nothing to send, names what is not there."""
    from click.testing import CliRunner

    from benchcard.cli.commands import main

    said = []
    for name, rule in {"without": "*.md", "with": "*.tmp"}.items():
        hub.add_model(f"local-user/{name}", {".gitignore": rule})
        push(f"local-user/{name}")
        again = push(f"local-user/{name}")
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "push_to_hub", lambda *given, again=again: again)
            said.append(CliRunner().invoke(main, ["push", str(run.path), MINE]).output.splitlines()[-1])
    assert said == [
        "nothing to push: the repository's .gitignore excludes README.md, and the rest is up to date",
        "nothing to push: the repository has these results already",
    ]


def test_a_section_that_is_not_sent_refuses_nothing(push, run, hub):
    """A section that was edited by hand in a README that a `.gitignore` keeps out stays, and the other files come."""
    there = run.card(slug="mine").merge_into("# Mine\n", "mine").text.replace("**Backend:**", "**My words:**")
    hub.add_model(MINE, {"README.md": there, ".gitignore": "README.md"})
    pushed = push(slug="mine")
    assert pushed.changed
    assert pushed.kept_out == ("README.md",)
    assert pushed.warnings[0].startswith("README.md not pushed: the repository's .gitignore")
    assert hub.read(MINE, "README.md").decode() == there
    assert "benchcard/mine/run.json" in hub.files(MINE)
    assert not push(slug="mine").changed
    hub.commit(MINE, {".gitignore": "*.tmp"})
    with pytest.raises(CardError, match="edited by hand"):
        push(slug="mine")


def test_the_example_pushes_and_reads_back(run):
    """`examples/push_to_local_hub.py` makes one commit, makes none the second time, and reads the card."""
    script = Path(__file__).parents[2] / "examples" / "push_to_local_hub.py"
    environment = {**os.environ, "PYTHONPATH": str(script.parents[1])}
    done = subprocess.run([sys.executable, str(script), str(run.path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "second push: no commit" in done.stdout
    assert "\n2 commits\n" in done.stdout
    assert "the card has 6 rows" in done.stdout


def test_transformers_loads_the_pushed_graphs(push, hub, tmp_path):
    """`ExportedModel` of transformers reads `export.json` beside the graphs, and gives the outputs of each; a section
    with other graphs replaces the file of the first, and nobody else's.
    """
    import numpy as np
    import onnxruntime
    import torch

    base = pytest.importorskip("transformers.exporters.base", reason="transformers below 5.23 has no ExportedModel")
    push(slug="one")
    push(slug="two", artifacts="all")
    files = {name: content for name, content in hub.files(MINE).items() if name.startswith("onnx/")}
    (tmp_path / "onnx").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    model = base.ExportedModel.from_pretrained(tmp_path, subfolder="onnx")
    assert {f"onnx/{name}.onnx" for name in model.components} == {name for name in files if name.endswith(".onnx")}
    for name, runner in model.runners.items():
        session = onnxruntime.InferenceSession(tmp_path / "onnx" / f"{name}.onnx", providers=["CPUExecutionProvider"])
        (value,) = session.get_inputs()
        images = np.random.default_rng(0).standard_normal([3, *value.shape[1:]], dtype=np.float32)
        logits = runner(**{value.name: torch.from_numpy(images)}).logits.numpy()
        np.testing.assert_allclose(logits, session.run(None, {value.name: images})[0], rtol=1e-5)
    hub.commit(MINE, {"onnx/export.json": "theirs"})
    with pytest.raises(HubError, match=r"onnx/export\.json.*Nothing was written"):
        push(slug="one")
