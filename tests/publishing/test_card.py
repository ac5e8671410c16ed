"""The card of a run: what `publishing.facts` puts on it, and how it reads."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest
import tiny_text

from benchcard import Benchmark, Results, registry
from benchcard.analysis.gains import Gain
from benchcard.analysis.times import TimeFigures
from benchcard.card.frontmatter.hubterms import PIPELINE_TAGS
from benchcard.errors import CardError
from benchcard.publishing.facts import TAGS_OF_MODELS, _time_figures, default_slug, make_facts
from benchcard.run.record import Search, Trial
from benchcard.utils.values import Interval, Shape

COLUMNS = {"text": ["good film", "the dull film is bad", "anna lives"], "label": [0, 1, 2]}


def test_a_ratio_has_one_interval_on_the_card(results):
    """The table shows the interval that the choice is made by; only the exported frame has that of each ratio alone."""
    facts, alone = make_facts(results), results.time.set_index(["row", "batch_size"])
    wider = 0
    for row, gains in results.gains("latency").by_row.items():
        for gain in gains:
            figures = facts.rows[row].times[gain.shape]
            assert figures["ratio"] in (gain.ratio, Interval(gain.ratio.value))
            certain = gain.ratio.excludes(1.0) and not gain.doubt
            assert figures["detectable"].value == certain
            if gain.ratio.low not in (None, gain.ratio.value):
                wider += 1
                assert gain.ratio.low < alone.loc[(row, gain.shape.batch_size), "ratio_low"]
    assert wider > 1


def test_an_interval_that_says_nothing_is_not_shown():
    """The ratios of two launches have intervals over many powers of ten: the card shows the ratio alone, as not
    detectable.
    """
    wide, narrow = Interval(1.01, 1e-9, 5.1e8), Interval(1.01, 0.9, 1.2)
    times = TimeFigures({"latency_mean_ms": wide, "cpu_ms": narrow}, False, 2, 1.0, 1, False, 1.0, 1.0, 2.0, -10.5)
    figures = _time_figures(times, Gain(wide, False, Shape(1), cpu_ratio=wide))
    assert figures["ratio"] == figures["cpu_ratio"] == figures["latency_mean_ms"] == Interval(1.01)
    assert figures["cpu_ms"] == narrow
    assert figures["detectable"] == Interval(0.0)
    assert figures["memory_saved"] == Interval(-10.5)


def test_processor_time_is_that_of_the_kept_blocks(results):
    """Frames and card have the processor time that the rounds of the run directory hold, and the card reads back."""
    facts, frame = make_facts(results), results.time.set_index(["row", "batch_size"])
    compared = 0
    for (row, shape), part in results.records.timed.items():
        cell = results.records.records[row].cells[shape]
        blocks = [
            block for timed in part.rounds for block in timed.blocks if (block.name, block.twin) == (cell.name, 0)
        ]
        cpu_ms = sum(block.cpu_ns for block in blocks) / sum(len(block.latencies_ns) for block in blocks) / 1e6
        figures, columns = facts.rows[row].times[shape], frame.loc[(row, shape.batch_size)]
        assert columns["cpu_ms"] == figures["cpu_ms"].value == pytest.approx(cpu_ms)
        assert columns["core_seconds_per_1000"] == pytest.approx(cpu_ms / shape.batch_size)
        assert columns["cpu_ratio"] == pytest.approx(figures["cpu_ratio"].value)
        compared += cell.name != part.baseline
    assert compared > 1
    assert results.noise["cpu_ratio"].notna().all()
    assert frame["cost_per_million"].isna().all()
    card = results.card()
    assert "<summary>Processor time of" in card.text
    assert [each.cpu_ratio is None for each in card.facts().noise] == [False] * len(facts.noise)


def test_images_have_no_input_length(results):
    """Neither shapes, nor frames, nor the card show the side of an image as a length."""
    facts = make_facts(results)
    assert [shape.input_length for shape in facts.shapes] == [None, None]
    assert results.time["input_length"].isna().all()
    assert "input length" not in results.card().text


def test_a_row_with_auto_names_the_nodes_that_it_leaves_in_float32(results, monkeypatch):
    """The card has the list that the search found, to be used in a spec."""
    nodes = ("/vit/layers.0/Add_1", "/vit/layers.1/MatMul")
    trials = (Trial((), 0.5, False), Trial(nodes, 0.97, True))
    search = Search(nodes, True, True, trials, 24, "accuracy", 0.98, 0.97, 0.01, 16)
    records = list(results.records.records)
    records[1] = replace(records[1], search=search)
    monkeypatch.setattr(results, "records", replace(results.records, records=tuple(records)))
    (note,) = (note for note in results.card().facts().notes if note.startswith("Row 1:"))
    assert 'node_exclusion: ["/vit/layers.0/Add_1", "/vit/layers.1/MatMul"]' in note
    assert "accuracy is 0.97" in note


def test_only_metrics_are_among_the_metrics(results):
    """The front matter lists metrics; only the layout of 2022 lists the figures of the evaluation pass, too."""
    assert results.card().front_matter["metrics"] == ["accuracy"]
    times = ["total_time_in_seconds", "samples_per_second", "latency_in_seconds"]
    assert results.card("classic").front_matter["metrics"] == ["accuracy", *times]


@pytest.mark.parametrize("task", registry.tasks())
def test_the_tag_of_a_task_is_one_of_models(task):
    """`text-retrieval` is one of data sets; its models are those of `sentence-similarity`."""
    assert TAGS_OF_MODELS.get(task, task) in PIPELINE_TAGS - {"text-retrieval", "multiple-choice", "other"}


def test_local_folders_have_to_be_brought(results):
    """The card says what model and data were, and that they are not published; the spec names them as it does there."""
    text = results.card().text
    needed = text.split("since they are not published with this card:\n")[1].split("\n\n")[0].splitlines()
    sources = results.records.info.sources
    (model,), (data,) = sources.models.values(), sources.datasets.values()
    assert needed == [
        f"* the model `./model`, SHA-256 {model.digest[:12]}…",
        f"* the data `./data` with the columns `image`, `label`, SHA-256 {data.digest[:12]}…",
    ]
    assert 'model: "./model"' in text
    assert "pip install" not in text


def test_a_section_is_named_after_the_data(results, monkeypatch):
    """A folder inside of the working directory gives its whole path, so that `data` says of what."""
    spec = results.spec.digest[:8]
    assert default_slug(results) == f"data-{spec}"
    (key,) = results.records.info.sources.datasets
    for path, name, expected in (
        ("./digits/data", None, "digits-data"),
        ("/home/me/data", None, "data"),
        ("./digits/data", "Digits of 1990", "Digits-of-1990"),
        ("memory:0123456789abcdef", None, "image-classification"),
        ("memory:0123456789abcdef", "Digits", "Digits"),
    ):
        source = replace(results.records.info.sources.datasets[key], name=path)
        sources = replace(results.records.info.sources, datasets={key: source})
        row = replace(
            results.plan[0], parameters={**results.plan[0].parameters, "dataset": {"path": path, "name": name}}
        )
        with monkeypatch.context() as patch:
            patch.setattr(type(sources), "dataset", lambda self, dataset, source=source: source)
            info = replace(results.records.info, sources=sources)
            plan = replace(results.plan, configurations=(row, *results.plan.configurations[1:]))
            patch.setattr(results, "records", replace(results.records, info=info, plan=plan))
            assert default_slug(results) == f"{expected}-{spec}"


@pytest.mark.slow
def test_data_in_memory_have_the_name_that_they_were_given(tmp_path):
    """The card of a frame has its name, the name of the model and its base model, and a call that a reader with the
    data can make; without names it says that the data were in memory.
    """
    tiny_text.write_tokenizer(tmp_path / "model")
    model = tiny_text.write_model(tmp_path / "model", "ForSequenceClassification", ["a", "b", "c"])
    given = {"data_keys": {"primary": "text"}, "ref_keys": ["label"]}
    names = {"model_name": "Tiny BERT", "base_model": "google-bert/bert-base-uncased"}
    fixed = {"task": "text-classification", "model": str(model), "duration": 0, "grid": {"framework": ["pytorch"]}}
    frame = pd.DataFrame(COLUMNS)
    made = Benchmark(**fixed, **names, dataset={"path": frame, "name": "Three sentences", **given})
    results = made.run(tmp_path / "run", progress=False)
    assert results.failures.empty
    card = results.card()
    assert card.slug == f"Three-sentences-{made.spec.digest[:8]}"
    assert "## Benchmark: text-classification with Tiny BERT on Three sentences\n" in card.text
    visible = re.sub(r"<details>.*?</details>", "", card.text, flags=re.DOTALL)
    assert "memory:" not in visible
    assert card.front_matter["base_model"] == names["base_model"]
    assert "* the data `data` (Three sentences), a `datasets.DatasetDict` or data frames by split" in card.text
    assert "```yaml" not in card.text
    code = card.text.split("```python\n")[1].split("```")[0].rpartition("\nresults")[0]
    space: dict[str, object] = {"data": frame}
    exec(code.replace('model="model"', f"model={str(model)!r}"), space)
    assert space["benchmark"].spec.fixed["dataset"] == made.spec.fixed["dataset"]
    with pytest.raises(CardError, match="not here"):
        Benchmark.from_card(card.text)
    again = Results.from_card(card.text)
    assert again.facts.needed == card.facts().needed
    unnamed = Benchmark(**fixed, dataset={"path": frame, **given}).run(tmp_path / "unnamed", progress=False).card()
    assert "## Benchmark: text-classification with model on data in memory\n" in unnamed.text
    assert unnamed.slug.startswith("text-classification-")
