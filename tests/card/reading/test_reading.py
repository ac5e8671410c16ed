"""Reading cards: published ones to the byte, generated ones to the value."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchcard.card.facts import (
    Facts,
    FrontMatter,
    Metric,
    Row,
)
from benchcard.card.layouts import classic
from benchcard.card.reading.classic import read_card
from benchcard.errors import CardError
from benchcard.utils.values import Failure, Interval, Shape
from card.layouts.test_classic import DIGESTS, PUBLISHED, simple
from card.test_facts import CARDS, facts_of, facts_strategy


def shown(facts: Facts) -> Facts:
    """The part of the facts that a classic card shows."""
    rows = []
    for row in facts.rows:
        figures = [row.metrics[metric.name] for metric in facts.metrics]
        figures += [row.times[shape][key] for shape in facts.shapes for _, _, key in classic.TIME_COLUMNS]
        failed = row.failure is not None and None in figures
        rows.append(replace(row, failure=Failure() if failed else None))
    return replace(facts, rows=tuple(rows))


@pytest.mark.parametrize("card", CARDS)
def test_a_published_card_reads_back_into_its_facts(card):
    """The facts of a published card are read from its text, and render to that text."""
    facts = facts_of(card)
    text = classic.render(facts)
    assert read_card(text) == facts
    assert classic.render(read_card(text)) == text


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published cards are not at hand")
def test_a_published_file_reads_and_renders_to_the_byte(card):
    """A published file is the same after reading and rendering."""
    text = (PUBLISHED / f"{card}.md").read_text(encoding="utf-8")
    assert hashlib.sha256(text.encode()).hexdigest() == DIGESTS[card]
    assert classic.render(read_card(text)) == text


def test_the_first_cards_hold_two_models_in_a_row():
    """Original and optimized figures of the first layout are told apart."""
    facts = read_card(classic.render(facts_of("conll2003-distilbert")))
    row = facts.rows[2]
    assert row.parameters == {"quantization_approach": "static", "operators_to_quantize": ["Add", "MatMul"]}
    assert row.metrics["f1"] == Interval(0.114)
    assert row.original.metrics["f1"] == Interval(0.945)
    assert row.times[Shape(8, 64)] == {"latency_mean_ms": Interval(129.0), "throughput_per_s": Interval(8.0)}
    assert row.original.times[Shape(8, 64)] == {"latency_mean_ms": Interval(166.53), "throughput_per_s": Interval(6.33)}
    assert facts.fixed["framework_args"] == {"opset": 11, "optimization_level": 1}
    assert facts.max_eval_samples == 1000


@settings(max_examples=80, deadline=None)
@given(facts_strategy(intervals=False, decimals=(3, 2)))
def test_any_card_reads_back_equal(facts):
    """For any values, what a card shows is read from it, value by value and type by type."""
    text = classic.render(facts)
    back = read_card(text)
    assert back == shown(facts)
    assert repr([row.parameters for row in back.rows]) == repr([dict(row.parameters) for row in facts.rows])
    assert repr(back.fixed) == repr(facts.fixed)
    assert classic.render(back) == text


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_and_text_around_do_not_matter(newline):
    """A card within a longer README is read, whatever its line ends and the tables around it."""
    text = classic.render(simple())
    head, body = text.split("---\n\n")
    around = (
        f"{head}---\n# Title\n\n| a | b |\n| - | - |\n| 1 | 2 |\n\n{body}\nEnd\n\n| a | b |\n| - | - |\n| 1 | 2 |\n"
    )
    assert classic.render(read_card(around.replace("\n", newline))) == text


def test_other_time_columns_keep_their_names():
    """A time column that the layout does not write is read under a name with its unit."""
    text = classic.render(simple()).replace("latency_mean (ms)", "latency_99 (ms)").replace("throughput (/s)", "cost")
    assert set(read_card(text).rows[0].times[Shape(1, 8)]) == {"latency_99_ms", "cost"}


def test_metrics_that_differ_in_a_remark_stay_apart():
    """A remark in a header is a unit, unless it distinguishes two metrics."""
    names = ("f1 (macro)", "f1 (micro)", "loss")
    row = Row(parameters={"framework": "x"}, metrics={name: Interval(index) for index, name in enumerate(names)})
    metrics = tuple(Metric(name, "nats" if name == "loss" else "") for name in names)
    facts = simple(metrics=metrics, rows=(row,), shapes=(), duration_s=None)
    assert read_card(classic.render(facts)) == facts


def test_a_row_that_lost_a_cell_is_refused():
    """A row with fewer cells than columns is an error, although GitHub shows it with an empty cell."""
    text = classic.render(simple())
    with pytest.raises(CardError, match="row 1, throughput: '' is not a figure"):
        read_card(text.replace("     500.00      |", "", 1))


def test_front_matter_comes_back_with_keys_of_others():
    """Known keys become fields; unknown keys, and known ones of another type, are kept unchanged."""
    text = classic.render(simple())
    yaml = "license: mit\ntags: a\ndatasets: [glue, 3]\nmodel-index:\n- name: m\n  results: []\nwidget: []\n"
    yaml += "base_model: [a/b]\n"
    front = read_card(text.replace("---\n---\n", f"---\n{yaml}---\n")).front_matter
    assert front == FrontMatter(
        license="mit",
        tags=("a",),
        model_index=({"name": "m", "results": []},),
        extra={"datasets": ["glue", 3], "widget": [], "base_model": ["a/b"]},
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("**task**", "**job**", "has no line with `task`"),
        ("`local`  \n", "local\n", "has no line with `backend`"),
        ("`{}`  \n", "`[]`  \n", "expected a mapping"),
        ("`All dataset`", "`some`", "'some' is not a whole number"),
        ("Fixed parameters:", "Fixed", "no line `Fixed parameters:`. Restore it"),
        ("* **framework**: `onnx", "* **framework**: onnx", "must be code spans"),
        ("## Non-time metrics", "## Quality", "no line `## Non-time metrics`"),
        ("0.500", "half", "row 1, accuracy: 'half' is not a figure"),
        ("| `onnxruntime` |  \\|  |  2.00", "| `other` |  \\|  |  2.00", "other parameters"),
        ("Benchmarked parameters:", "**task**: `x`\n\nBenchmarked parameters:", "several cards"),
        ("**Backend args", "**Backend:** `other`  \n**Backend args", "'backend' twice in one list or table. Keep one"),
        ("Fixed parameters:\n", "Fixed parameters:\n* **a**: `1`\n* **a**: `2`\n", "'a' twice in one list"),
        ("Fixed parameters:\n", "Fixed parameters:\n* **a**:\n    * **b**: `1`\n    * **b**: `2`\n", "'b' twice"),
        ("Fixed parameters:\n", "Fixed parameters:\n* **a**: `[{'b': 1, 'b': 2}]`\n", "key 'b' is twice in .*Keep one"),
        ("* **framework**", "* **framework**: `x`\n* **framework**", "'framework' twice in one list"),
        (
            "|   framework   |",
            "|   system   |",
            "columns for `system`. Expected the benchmarked parameters: `framework`",
        ),
        ("---\n---\n", "---\ntags: a\ntags: b\n---\n", 'the key "tags" is there twice: keep one of them'),
    ],
)
def test_a_card_that_cannot_be_read_says_where(old, new, message):
    """The error names what is missing or changed in a card."""
    text = classic.render(simple())
    changed = text.replace(old, new, 1)
    if changed == text:
        changed = "\n".join(
            line.replace("`onnxruntime`", "`other`") if "2.00" in line else line for line in text.split("\n")
        )
    with pytest.raises(CardError, match=message):
        read_card(changed)


def test_two_columns_of_one_name_are_refused():
    """A table that was edited to show a metric twice is an error, which names the metric."""
    row = Row(parameters={"framework": "onnxruntime"}, metrics={"f1": Interval(0.5), "f2": Interval(0.25)})
    facts = simple(metrics=(Metric("f1"), Metric("f2")), rows=(row,), shapes=(), duration_s=None)
    with pytest.raises(CardError, match="'f1' twice in one list or table"):
        read_card(classic.render(facts).replace("f2", "f1"))


def test_a_positive_class_is_read():
    """A card that names the positive class of a metric renders to the same text again."""
    metrics = (Metric("f1", positive_class="not `spam`"), Metric("accuracy"))
    row = Row(parameters={"framework": "onnxruntime"}, metrics={"f1": Interval(0.5), "accuracy": Interval(0.25)})
    facts = simple(metrics=metrics, rows=(row,), shapes=(), duration_s=None)
    text = classic.render(facts)
    assert read_card(text).metrics == metrics
    assert classic.render(read_card(text)) == text


@pytest.mark.parametrize("text", ["", "\n", "# A model\n\nText\n", "---\nlicense: mit\nlicense: mit\n---\n# A model\n"])
def test_a_readme_without_a_card_is_refused_as_that(text):
    """The error of a README without a card says so, whatever else is wrong with it."""
    with pytest.raises(CardError, match=r"there is no card of benchcard\. Expected a README with one"):
        read_card(text)


def test_tables_with_other_rows_are_refused():
    """A time table without one of the rows is an error."""
    text = classic.render(simple())
    last = [line for line in text.split("\n") if line.startswith("|")][-1]
    with pytest.raises(CardError, match="has 1 rows, the quality table has 2"):
        read_card(text.replace(last + "\n\n", "\n"))


def test_a_bullet_under_a_value_is_refused():
    """A bullet nested below a parameter that has a value is an error."""
    text = classic.render(simple(fixed={"a": {"b": 1}})).replace("* **a**:\n", "* **a**: `1`\n")
    with pytest.raises(CardError, match="'b' is nested below 'a'"):
        read_card(text)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 30), st.sampled_from(["", "|", "`", "*", "\n", "1.2.3"])))
)
def test_a_damaged_card_is_read_or_refused(damage):
    """For any damage to a card, reading returns facts or raises a `CardError`."""
    text = classic.render(simple(fixed={"a": {"b": 1}, "c": [{"d": 2}]}))
    for place, length, put in damage:
        text = text[:place] + put + text[place + length :]
    with suppress(CardError):
        assert isinstance(read_card(text), Facts)


def test_a_text_without_a_table_is_refused():
    """A card without its quality table is an error."""
    text = classic.render(simple(shapes=(), duration_s=None))
    with pytest.raises(CardError, match="no table under"):
        read_card("\n".join(line for line in text.split("\n") if not line.startswith("|")))
