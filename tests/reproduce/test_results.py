"""Cards read back as frames, and as specs that can be run again: published ones, pushed ones, whole READMEs."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from card.test_facts import facts_of, facts_strategy
from click.testing import CliRunner
from huggingface_hub import HfApi
from hypothesis import given, settings

from benchcard import Benchmark, Results
from benchcard.card import Card
from benchcard.card.facts import Metric
from benchcard.card.layouts import classic
from benchcard.card.readme import merge
from benchcard.cli.commands import main
from benchcard.errors import CardError
from benchcard.reproduce.results import CardResults
from benchcard.reproduce.source import PublishedCard
from benchcard.reproduce.spec import spec_of
from benchcard.spec.plan import make_plan
from benchcard.testing import LocalHub


def text_of(card: str) -> str:
    """A card published in 2022."""
    return classic.render(facts_of(card))


def test_a_published_card_is_frames():
    """Every figure of the beans card stands in its frame, with its parameters."""
    found = Results.from_card(text_of("vit-beans"))
    assert found.quality["accuracy"].tolist()[:2] == [0.977, 0.977]
    assert found.quality["accuracy"].min() == 0.316
    assert len(found.plan) == 18
    assert found.plan["name_or_path"].unique().tolist() == ["nateraw/vit-base-beans"]
    assert found.time["input_length"].isin([128, 224]).any()
    assert found.time["latency_mean_ms"].notna().all()


def test_the_first_cards_show_two_models_in_a_row():
    """Original and optimized figures are columns of their own, at every shape."""
    found = Results.from_card(text_of("conll2003-distilbert"))
    assert found.quality["f1"].tolist() == [0.945, 0.945, 0.114, 0.096]
    assert found.quality["f1_original"].tolist() == [0.945] * 4
    row = found.time[(found.time["row"] == 2) & (found.time["batch_size"] == 8)].iloc[0]
    assert (row["latency_mean_ms"], row["latency_mean_ms_original"]) == (129.0, 166.53)


def test_the_plan_of_a_published_card_is_its_rows():
    """The spec of the beans card comes to the rows that the card shows, in their order."""
    found = Results.from_card(text_of("vit-beans"))
    rows = [dict(configuration.axes) for configuration in make_plan(found.spec)]
    assert rows == [dict(row.parameters) for row in found.facts.rows]
    assert found.spec.fixed["duration"] == 15
    assert any("sagemaker-training" in note for note in found.notes)


def test_the_spec_of_a_first_card_has_the_original_as_a_row():
    """Nested parameters, and names that are no more, are understood; the original model is the baseline."""
    benchmark = Benchmark.from_card(text_of("conll2003-distilbert"))
    assert benchmark.spec.fixed["dataset"]["path"] == "conll2003"
    assert benchmark.spec.fixed["max_eval_samples"] == 1000
    assert benchmark.spec.fixed["batch_sizes"] == [1, 4, 8]
    plan = benchmark.configurations
    assert [row.quantized for row in plan] == [False, True, True, True, True]
    assert {row.baseline for row in plan} == {0}
    notes = Results.from_card(text_of("conll2003-distilbert")).notes
    assert any("aware_training" in note for note in notes)


QUESTIONS = (Path(__file__).parents[1] / "data" / "cards" / "questions.md.txt").read_text()
"""A card in the form of those published in July 2022, with the columns of question answering by their old names."""


@pytest.mark.slow
def test_a_first_card_of_question_answering_runs(tmp_path):
    """The old names of its columns are understood, and a row without operators to quantize has the float model."""
    example = Path(__file__).parents[2] / "examples" / "answers"
    for name in ("model", "data"):
        shutil.copytree(example / name, tmp_path / name)
    (tmp_path / "card.md").write_text(QUESTIONS)
    benchmark = Benchmark.from_card(tmp_path / "card.md", max_eval_samples=4, duration=0)
    assert benchmark.spec.fixed["dataset"]["data_keys"] == {"primary": "question", "secondary": "context"}
    results = benchmark.run(tmp_path / "run", progress=False)
    assert results.failures.empty
    assert results.quality["operators_to_quantize"].tolist() == [None, [], ["Add", "MatMul"]]
    assert results.quality["f1"].notna().all()
    assert results.models["same_model_as"].tolist()[1] == 0
    assert "`operators_to_quantize` is empty: nothing was quantized" in results.explain(1)


def test_a_first_card_renders_to_the_byte():
    """A card of 2022 is written as it was in the layout `classic`; `full` cannot show two models in a row."""
    for text in (QUESTIONS, text_of("vit-beans"), text_of("conll2003-distilbert")):
        assert Results.from_card(text).card("classic").text == text
    with pytest.raises(CardError, match=r"two models.*expects one model in each row.*use 'classic'"):
        Results.from_card(QUESTIONS).card()
    assert len(Results.from_card(Results.from_card(text_of("vit-beans")).card().text).quality) == 18


@pytest.mark.parametrize("layout", ["classic", "full"])
def test_a_card_of_a_run_renders_again(results, tmp_path, layout):
    """The card of a run, read from a README, is written as `Results.card` wrote it, as a section of the same name."""
    card = results.card("classic", slug="mine")
    path = results.card(layout, slug="mine").save(tmp_path / "README.md")
    again = Results.from_card(path).card("classic")
    assert again.slug == "mine"
    # The full layout has other front matter, and more digits than the classic one.
    assert again.text == card.text or (layout == "full" and "\n## Non-time metrics\n" in again.text)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("`question-answering`", "`telepathy`", 'expected .*found "telepathy" @ \\$.task'),
        ("**opset**: `11`", "**opset**: `5`", "@ \\$.fixed.framework_args.opset"),
        ("**aware_training**: `False`", "**aware_training**: `True`", "trained for quantization"),
        ("* **dataset**:", "* **data**:", "found nothing .* @ \\$.dataset"),
    ],
)
def test_notes_say_why_there_is_no_spec(old, new, said):
    """Notes raise no error where the benchmark of a card cannot be run; they say why."""
    notes = Results.from_card(QUESTIONS.replace(old, new)).notes
    assert re.search(f"the benchmark of this card cannot be run here: .*{said}", notes[-1], re.DOTALL)
    assert all(len(note) < 500 and "\n" not in note for note in notes)


@settings(max_examples=60, deadline=None)
@given(facts_strategy())
def test_notes_of_any_card_are_sentences(facts):
    """Whatever a card says, its notes are texts, and no error."""
    assert all(isinstance(note, str) for note in CardResults(facts, None, None).notes)


def test_a_card_with_the_figures_of_seqeval_names_that_metric():
    """Columns that are named as the figures of a metric stand for that metric, which is measured."""
    text = text_of("conll2003-distilbert")
    for name in ("precision", "recall", "f1", "accuracy"):
        text = text.replace(f" {name} (", f" overall_{name} (")
    found = Results.from_card(text)
    assert found.spec.fixed["metrics"] == ["seqeval"]
    assert not any("unknown" in note for note in found.notes)


def test_a_card_of_another_hub_is_read():
    """The endpoint and the token say which Hub a card is read from."""
    with LocalHub() as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("local-user/model")
        text = Results.from_card(QUESTIONS).card("classic").text.encode()
        api.upload_file(path_or_fileobj=text, path_in_repo="README.md", repo_id="local-user/model")
        where = {"endpoint": hub.endpoint, "token": hub.token}
        assert Results.from_card("local-user/model", **where).facts.task == "question-answering"
        there = Benchmark.from_card("local-user/model", model="a/b", **where)
        assert there.spec.fixed["name_or_path"] == "a/b"


def test_parameters_can_be_changed():
    """A card's benchmark runs with another model or duration where that is asked."""
    benchmark = Benchmark.from_card(text_of("conll2003-distilbert"), model="./copy", duration=1)
    assert benchmark.spec.fixed["name_or_path"] == "./copy"
    assert benchmark.spec.fixed["duration"] == 1


def test_what_is_not_here_is_said_with_what_to_pass(results, ground, tmp_path):
    """A card whose model and data were folders that are not here says what to pass; with it, or with folders of these
    names beside the card, it gives its benchmark.
    """
    path = results.card().save(tmp_path / "README.md")
    with pytest.raises(
        CardError, match=r'`\./model` was a folder, and is not here: pass `model="path/to/model"`'
    ) as error:
        Benchmark.from_card(path)
    assert "pass `dataset={'path': 'path/to/data', 'eval_split': 'validation'" in str(error.value)
    data = {**results.spec.fixed["dataset"], "path": str(ground / "data")}
    assert len(Benchmark.from_card(path, model=str(ground / "model"), dataset=data).configurations) == 6
    for name in ("model", "data"):
        shutil.copytree(ground / name, tmp_path / name)
    assert Benchmark.from_card(path).spec.fixed["name_or_path"] == "./model"


@pytest.mark.parametrize("layout", ["classic", None])
def test_a_card_of_a_run_comes_back(results, tmp_path, layout):
    """A run's card gives its rows, its figures to the digits shown, and a spec with the same plan."""
    path = results.card(*[layout] if layout else []).save(tmp_path / "README.md")
    found = Results.from_card(path)
    assert found.quality["accuracy"].tolist() == pytest.approx(results.quality["accuracy"].tolist(), abs=0.0006)
    own = [dict(configuration.axes) for configuration in results.plan]
    assert [dict(configuration.axes) for configuration in make_plan(found.spec)] == own
    assert found.spec.fixed["batch_sizes"] == [1, 3]
    if layout is None:
        assert found.time["detectable"].tolist() == results.time["detectable"].tolist()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["accuracy", "cost"], ["the metric cost is unknown here: the task's own are measured instead"]),
        (["cost", "f1", "gain"], ["the metrics cost, gain are unknown here: the task's own"]),
        (["accuracy", "f1"], []),
    ],
)
def test_only_metrics_that_are_unknown_are_said_to_be(names, said):
    """A note names them, and what is measured; there is none where the card says the ids of its metrics."""
    facts = facts_of("vit-beans")
    facts = replace(facts, metrics=tuple(Metric(name) for name in names), rows=())
    notes = [note for note in spec_of(PublishedCard(facts, None, Path()))[1] if "unknown here" in note]
    assert [note.startswith(start) for note, start in zip(notes, said, strict=True)] == [True] * len(said)
    card = PublishedCard(replace(facts, settings={"metrics": [*names]}), None, Path())
    assert not any("unknown here" in note for note in spec_of(card, trust_remote_code=True)[1])


def test_a_section_is_named_where_there_are_several(results):
    """A README of two runs is read section by section, and without a name it is said which there are."""
    card = results.card("classic").text
    readme = merge(merge("# Mine\n", card, "one").text, text_of("vit-beans"), "two").text
    assert len(Results.from_card(readme, "two").plan) == 18
    assert len(Results.from_card(readme, "one").plan) == 6
    with pytest.raises(CardError, match="2 sections: name one of one, two"):
        Results.from_card(readme)
    with pytest.raises(CardError, match="no section 'three'"):
        Results.from_card(readme, "three")


def test_what_is_published_beside_a_card_is_read(results, tmp_path):
    """With `run.json` beside it a card gives the very spec, intervals and the machine."""
    from benchcard.publishing import bundle

    made = bundle.write_bundle(results, tmp_path / "out", "a/b", slug="x", artifacts="none", layout="classic")
    folder = tmp_path / "out" / "repo"
    (folder / "README.md").write_text(merge("", made.card, "x").text)
    found = Results.from_card(folder)
    assert found.spec == results.spec
    assert found.facts.environment["processor"] == results.records.info.machine.processor
    assert found.time["latency_mean_ms_low"].notna().all()
    (folder / "benchcard" / "x" / "run.json").write_text("[")
    with pytest.raises(CardError, match=r"run.json cannot be read"):
        Results.from_card(folder)


@pytest.mark.parametrize("card", ["nothing here", "no/such/card.md", "x"])
def test_a_card_that_is_not_there_is_said(card):
    """What is neither text, nor a file, nor a repository's id is refused by its name."""
    with pytest.raises(CardError, match="there is no card"):
        Results.from_card(card)


def test_a_folder_without_a_card_is_refused(tmp_path):
    """A folder without a README is refused as that, and a README without a card by its path."""
    with pytest.raises(CardError, match=r"has no README\.md: give the text of a card"):
        Results.from_card(tmp_path)
    (tmp_path / "README.md").write_text("# A model\n")
    with pytest.raises(CardError, match=f"{re.escape(str(tmp_path))}.*: there is no card of benchcard"):
        Results.from_card(tmp_path)


def test_the_command_line_reads(tmp_path):
    """`benchcard read` shows tables, and writes each frame as CSV."""
    path = Card(text_of("vit-beans")).save(tmp_path / "card.md")
    runner = CliRunner()
    shown = runner.invoke(main, ["read", str(path)])
    assert shown.exit_code == 0, shown.output
    assert "0.977" in shown.output
    for frame in ("quality", "time", "plan"):
        told = runner.invoke(main, ["read", str(path), "--csv", frame])
        assert told.exit_code == 0
        assert told.output.startswith("row,framework,")
    refused = runner.invoke(main, ["read", str(tmp_path / "none.md")])
    assert refused.exit_code == 1


def test_figures_that_failed_are_missing():
    """A failed row has no figures and says so."""
    text = text_of("vit-beans").replace("0.316", "failed")
    row = Results.from_card(text).quality.iloc[11]
    assert json.loads(json.dumps(str(row["failure"]))) == "failed"
    assert row["accuracy"] != row["accuracy"]
