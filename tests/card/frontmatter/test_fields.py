"""Front matter: what is written for new facts, how it is written, and which problems are found in any."""

from __future__ import annotations

import math

import pytest
import yaml as pyyaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchcard.card.facts import Data, Facts, FrontMatter, Metric, Row, figure
from benchcard.card.frontmatter import fields
from benchcard.card.frontmatter import yaml as yamltext
from benchcard.card.frontmatter.check import find_problems
from benchcard.errors import CardError
from benchcard.utils.text import is_hub_id
from card.test_facts import facts_of, texts

writable = st.recursive(
    texts | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def card(yaml: str) -> str:
    """Return a card with that front matter."""
    return f"---\n{yaml}\n---\n\n# Model\n"


def told(yaml: str) -> list[tuple[str, str]]:
    """Return severity and field of each problem."""
    return [(problem.severity, problem.field) for problem in find_problems(card(yaml))]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(texts, writable, max_size=4))
@example(
    {"no": "no", "a": "1e5", "b": "12:30", "c": "2022-01-01", "d": "0x1f", "e": 1e-05, "f": "=", "g": "<<", "h": "~"}
)
@example({"a": "null", "b": "Yes", "c": "y", "d": "1_000", "e": ".inf", "f": "-", "g": "- a", "h": "a: b", "i": "a #b"})
def test_what_is_written_is_read_alike_by_both_kinds_of_yaml(data):
    """YAML 1.2 (the Hub) and YAML 1.1 (huggingface_hub) read the same data from the text."""
    block = yamltext.dump_yaml(data)
    assert repr(yamltext.load_yaml(block) or {}) == repr(data)
    assert repr(pyyaml.safe_load(block) or {}) == repr(data)
    line = yamltext.format_flow(data)
    assert "\n" not in line
    assert repr(pyyaml.safe_load(line)) == repr(data)


@pytest.mark.parametrize("value", [None, math.nan, math.inf, {"a": [None]}, object()])
def test_what_front_matter_cannot_say_is_refused(value):
    """None and numbers that are not finite raise an error that names the key."""
    with pytest.raises(CardError, match="key"):
        yamltext.dump_yaml({"key": value})


def test_fresh_front_matter_of_a_published_card_is_valid():
    """The front matter of a published card has no problem, and is written as it was."""
    text = fields.render_front_matter(facts_of("vit-beans").front_matter)
    assert find_problems(text + "\nbody") == []
    assert text.startswith("---\npipeline_tag: image-classification\ndatasets:\n- beans\nmetrics:\n- accuracy\n")


def test_all_fields_of_fresh_front_matter():
    """All fields are written in a fixed order, lists without duplicates; empty fields are left out."""
    front = FrontMatter(
        license="mit",
        pipeline_tag="text-classification",
        base_model="org/model",
        base_model_relation="quantized",
        datasets=("nyu-mll/glue", "nyu-mll/glue"),
        tags=("onnx", "", "onnx"),
        extra={"license_link": None, "inference": False, "more": {"a": [None, 1], "b": None}},
    )
    assert fields.front_matter_keys(front) == {
        "license": "mit",
        "pipeline_tag": "text-classification",
        "base_model": "org/model",
        "base_model_relation": "quantized",
        "datasets": ["nyu-mll/glue"],
        "tags": ["onnx"],
        "inference": False,
        "more": {"a": [1]},
    }


@pytest.mark.parametrize(
    "path", ["./model", "/data/model", "~/model", "C:\\model", "../m", "a/b/c", "a/b/", "m.git", "a--b"]
)
def test_a_local_path_never_reaches_front_matter(path):
    """Names that are not Hub ids are written neither as model nor as data set."""
    front = FrontMatter(base_model=path, base_model_relation="quantized", datasets=(path, "glue"))
    assert fields.front_matter_keys(front) == {"datasets": ["glue"]}


@pytest.mark.parametrize(
    "name", ["glue", "AI-Lab-Makerere/beans", "a_b.c", "org/distilbert-base-uncased-finetuned-sst-2-english"]
)
def test_ids_of_the_hub_are_known(name):
    """Ids with and without a namespace are recognized."""
    assert is_hub_id(name)


def test_a_card_without_anything_to_say_has_empty_front_matter():
    """Without facts only the dashes are written, and the check reports empty front matter."""
    text = fields.render_front_matter(FrontMatter())
    assert text == "---\n---\n"
    assert [problem.severity for problem in find_problems(text)] == ["warning"]


def grid() -> Facts:
    """Return facts with three rows: the second is recommended, the third is the baseline."""
    rows = [(True, 0.95), (True, 0.97), (False, 0.98)]
    return Facts(
        task="text-classification",
        backend="local",
        benchmarked={"apply_quantization": [True, False], "approach": [None]},
        metrics=(Metric("accuracy"), Metric("f1")),
        rows=tuple(
            Row(parameters={"apply_quantization": quantized, "approach": None}, metrics={"accuracy": figure(value)})
            for quantized, value in rows
        ),
        data=Data(dataset="nyu-mll/glue", config="sst2", split="validation"),
        chosen=1,
        baseline=2,
    )


def test_model_index_holds_the_recommended_row_and_the_baseline_alone():
    """The Hub's results name two rows, are valid, and have no null and no other rows."""
    index = fields.model_index(grid(), name="m", source_name="benchcard beans", source_url="https://hf.co/me/m")
    text = fields.render_front_matter(FrontMatter(pipeline_tag="text-classification", model_index=index))
    assert find_problems(text) == []
    (result,) = yamltext.load_yaml(yamltext.split_card(text).yaml)["model-index"][0]["results"]
    assert [(metric["name"], metric["value"]) for metric in result["metrics"]] == [
        ("accuracy (recommended)", 0.97),
        ("accuracy (baseline)", 0.98),
    ]
    assert result["metrics"][0]["args"] == {"apply_quantization": "True"}
    assert result["dataset"] == {
        "type": "nyu-mll/glue",
        "name": "nyu-mll/glue",
        "config": "sst2",
        "split": "validation",
    }
    assert result["source"] == {"name": "benchcard beans", "url": "https://hf.co/me/m"}


def test_model_index_is_empty_without_data_or_figures():
    """Without data, roles or figures, the Hub's results are empty."""
    from dataclasses import replace

    facts = grid()
    bare = tuple(replace(row, metrics={}) for row in facts.rows)
    for poorer in (replace(facts, data=None), replace(facts, chosen=None, baseline=None), replace(facts, rows=bare)):
        assert fields.model_index(poorer, name="m") == ()


INDEX = """model-index:
- name: m
  results:
  - task:
      type: text-classification
    dataset:
      type: glue
      name: GLUE
    metrics:
    - type: accuracy
      value: 0.9"""


def test_a_whole_model_index_has_no_problem():
    """A model-index with all required keys has no problem; values may be numbers or texts."""
    assert told(INDEX) == []
    assert told(INDEX.replace("0.9", "20.0 +/- 1.2")) == []


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("- name: m\n ", "-", "model-index[0].name"),
        ("      name: GLUE\n", "", "model-index[0].results[0].dataset.name"),
        ("      type: glue\n", "", "model-index[0].results[0].dataset.type"),
        ("      type: text-classification", "      name: t", "model-index[0].results[0].task.type"),
        ("\n      value: 0.9", "", "model-index[0].results[0].metrics[0].value"),
        ("value: 0.9", "value: .nan", "model-index[0].results[0].metrics[0].value"),
        ("value: 0.9", "value: true", "model-index[0].results[0].metrics[0].value"),
        ("value: 0.9", "value:", "model-index[0].results[0].metrics[0].value"),
        ("name: GLUE", "name: GLUE\n      config: null", "model-index[0].results[0].dataset.config"),
        ("name: GLUE", "name: GLUE\n      revision: 12", "model-index[0].results[0].dataset.revision"),
        (
            "    metrics:\n    - type: accuracy\n      value: 0.9",
            "    source:\n      name: x",
            "model-index[0].results[0].metrics",
        ),
    ],
)
def test_each_mistake_in_a_model_index_is_named(old, new, field):
    """A missing key or a value of the wrong type is an error at its place."""
    assert old in INDEX
    assert told(INDEX.replace(old, new))[0] == ("error", field)


@pytest.mark.parametrize("yaml", ["model-index: foo", "model-index: [foo]", "model-index: [{name: m, results: [3]}]"])
def test_a_model_index_of_another_form_is_an_error(yaml):
    """A model-index that is not a list of models is an error."""
    ((severity, field),) = told(yaml)
    assert severity == "error"
    assert field.startswith("model-index")


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("license: mit\npipeline_tag: fill-mask\nbase_model: a/b", []),
        ("license: my-own", [("warning", "license")]),
        ("license: [mit, 3]", [("error", "license[1]")]),
        ("language: [en, gsw, zh-Hant, pt-BR, code, multilingual, no]", []),
        ("language: English", [("error", "language")]),
        ("language: [en, EN, en_US]", [("error", "language[1]"), ("error", "language[2]")]),
        ("language: [ja, jp]", [("warning", "language[1]")]),
        ("pipeline_tag: mind-reading", [("warning", "pipeline_tag")]),
        ("pipeline_tag: [fill-mask]", [("error", "pipeline_tag")]),
        ("datasets: [glue, /var/data]", [("error", "datasets[1]")]),
        ("datasets: [glue, null]", [("error", "datasets[1]")]),
        ("datasets: ./data", [("error", "datasets")]),
        ("base_model: ./model", [("error", "base_model")]),
        ("base_model: [a/b, c d]", [("error", "base_model[1]")]),
        ("base_model_relation: cousin", [("warning", "base_model_relation")]),
        ("tags: [onnx, 3]", [("error", "tags[1]")]),
        ("tags:", [("error", "tags")]),
        ("tags: [a]\nwidget: 3", [("error", "widget")]),
        ("languages: [en]", [("error", "languages")]),
        ("a: .inf", [("error", "a")]),
        ("a: {b: [1, -.INF]}", [("error", "a.b[1]")]),
        ("tags: [a]\ntags: [b]", [("error", "tags")]),
        ("a: {b: 1, b: 2}", [("error", "a.b")]),
        ("a: !!python/tuple [1]", [("error", "a")]),
        ("a: !!binary aGk=", [("error", "a")]),
        ("a: [", [("error", "")]),
        ("- a", [("error", "")]),
        ("words", [("error", "")]),
        ("a: b\tc: d: e", [("error", "")]),
        ("# nothing", [("warning", "")]),
        ("{[a]: 1, [b]: 2}", [("error", "?"), ("error", "?")]),
        pytest.param("a: " + "[" * 3000, [("error", "")], id="deep"),
        ("a: !!int b", [("error", "")]),
        ("a: !!map b", [("error", "")]),
        ("a: !!map [b]", [("error", "")]),
        ("a: 2022-99-99", []),
    ],
)
def test_the_check_finds_what_the_hub_would_refuse(yaml, expected):
    """Each kind of mistake is found, with its severity and its field."""
    assert told(yaml) == expected


def test_a_date_stays_the_text_that_it_was():
    """A date in front matter stays a text, so that nothing of it is lost."""
    assert yamltext.load_yaml("date: 2022-1-01\n") == {"date": "2022-1-01"}


def test_a_card_without_front_matter_is_worth_a_warning():
    """Missing front matter is a warning, since the Hub accepts such a card."""
    assert [problem.severity for problem in find_problems("# Model\n")] == ["warning"]


def test_a_problem_says_severity_field_and_words():
    """The text of a problem is one line with severity, field and message."""
    (problem,) = find_problems(card("datasets: [/var/data]"))
    assert str(problem) == (
        "error: datasets[0]: '/var/data' is not the id of a data set on the Hub: remove it if it is a path"
    )


def test_aliases_that_multiply_are_refused():
    """Aliases that multiply values, as in a hostile file, are refused at no cost; a few repetitions are not."""
    lines = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 40)]
    (problem,) = find_problems(card("\n".join(lines)))
    assert "aliases repeat" in problem.message
    assert told("\n".join(lines[:4])) == []


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="abk:-[]{}#&*!|>'\"%@`, \n\t\r~0.9é", max_size=40))
@example("? a\n: b")
@example("? [a]\n: b")
@example("{a: b}: c")
@example("a: !x y")
@example("a: *a")
@example("a: &a [*a]")
def test_the_check_never_raises(yaml):
    """For any front matter, the check returns a list of problems."""
    assert all(problem.message for problem in find_problems(card(yaml)))


@pytest.mark.parametrize(
    ("text", "yaml", "body"),
    [
        ("---\na: 1\n---\nbody", "a: 1", "body"),
        ("---\r\na: 1\r\n---\r\nbody", "a: 1", "body"),
        ("---\n---\nbody", "", "body"),
        ("---\n\n---\nbody", "", "body"),
        ("\ufeff---\na: 1\n---", "a: 1", ""),
        ("\n \n---\na: 1\n--- \nx", "a: 1", "x"),
        ("---\na: 1\n----\nb: 2\n---\nx", "a: 1\n----\nb: 2", "x"),
        ("body\n---\na: 1\n---\n", None, "body\n---\na: 1\n---\n"),
        ("---\nbody", None, "---\nbody"),
        ("--- a\n---\n", None, "--- a\n---\n"),
    ],
)
def test_a_card_is_split_where_the_hub_splits_it(text, yaml, body):
    """Front matter is found where the Hub finds it, and the pieces together are the text."""
    block = yamltext.split_card(text)
    assert block.opening + block.yaml + block.closing + block.body == text
    assert (block.yaml if block.opening else None) == yaml
    assert block.body == body
