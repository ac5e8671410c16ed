"""The classic layout, against the published cards."""

from __future__ import annotations

import difflib
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt

from benchcard.card.facts import Facts, Metric, Row, figure
from benchcard.card.frontmatter.yaml import split_card
from benchcard.card.layouts import classic
from benchcard.card.markdown import tables
from benchcard.utils.values import Failure, Shape
from card.test_facts import facts_of, facts_strategy

DIGESTS = {
    "vit-beans": "a44d7be26e9fbe82d7ff64e38f4ac3f7fa735dd6c88cf036d84d1aa2cda4bbf8",
    "sst2-distilbert": "71933c0402944187a0d0f48c27e53b11ef4201f822f25ac9f32364e4a0f89bc1",
    "conll2003-distilbert": "fbb2ec1dd24bf6a7c80397a2e3a90e5b4c6543161c933ff5f03a1f257377b27f",
}
PUBLISHED = Path(__file__).parents[4] / "shared" / "cards"


def difference(card: str, text: str) -> str:
    """Return the differences from the published card, if that file is available."""
    path = PUBLISHED / f"{card}.md"
    if not path.exists():
        return f"{card} differs from the published card, which is not at {path}"
    published = path.read_text(encoding="utf-8")
    lines = difflib.unified_diff(published.splitlines(), text.splitlines(), "published", "rendered", lineterm="")
    return "\n".join(lines) or f"only line ends differ: {published[-9:]!r} and {text[-9:]!r}"


def simple(**changes: object) -> Facts:
    """Return facts with two rows, one metric and one shape."""
    shape = Shape(1, 8)
    times = {shape: {"latency_mean_ms": figure(2.0), "throughput_per_s": figure(500)}}
    facts = Facts(
        task="text-classification",
        backend="local",
        benchmarked={"framework": ["onnxruntime", "pytorch"]},
        metrics=(Metric("accuracy"),),
        shapes=(shape,),
        duration_s=1,
        rows=(
            Row(parameters={"framework": "onnxruntime"}, metrics={"accuracy": figure(0.5)}, times=times),
            Row(parameters={"framework": "pytorch"}, failure=Failure("time", "Killed", "a|b")),
        ),
    )
    return replace(facts, **changes)


@pytest.mark.parametrize("card", DIGESTS)
def test_published_cards_come_out_byte_for_byte(card):
    """The facts of a published card render to that card, byte for byte."""
    text = classic.render(facts_of(card))
    assert hashlib.sha256(text.encode()).hexdigest() == DIGESTS[card], difference(card, text)


def test_a_failed_row_says_so_in_every_table():
    """A failed row has `failed` in the place of its figures."""
    quality, time = tables.find_tables(classic.render(simple()))
    assert quality.rows[1] == ("`pytorch`", "|", "failed")
    assert time.rows[1] == ("`pytorch`", "|", "failed", "|", "failed")


def test_a_missing_figure_of_a_row_that_did_not_fail_is_not_available():
    """A figure that was not measured is `n/a`, whether it is None or missing."""
    row = Row(parameters={"framework": "pytorch"}, metrics={"accuracy": None})
    quality, time = tables.find_tables(classic.render(simple(rows=(row,))))
    assert quality.rows[0][-1] == time.rows[0][-1] == "n/a"


def test_digits_stay_the_same_down_a_column():
    """Quality has three decimals and time two, however large or small, and zero has no sign."""
    rows = tuple(
        Row(
            parameters={"framework": "x"},
            metrics={"accuracy": figure(value)},
            times={Shape(1, 8): {"latency_mean_ms": figure(value), "throughput_per_s": figure(value)}},
        )
        for value in (1234567.0, 1e-9, -0.0001, 1)
    )
    quality, time = tables.find_tables(classic.render(simple(rows=rows)))
    assert [row[-1] for row in quality.rows] == ["1234567.000", "0.000", "0.000", "1.000"]
    assert [row[-1] for row in time.rows] == ["1234567.00", "0.00", "0.00", "1.00"]


@pytest.mark.parametrize(
    ("seconds", "told"), [(15, "15 seconds"), (3.0, "3 seconds"), (0.5, "0.5 seconds"), (1, "1 second")]
)
def test_the_duration_is_told_without_needless_digits(seconds, told):
    """A whole number of seconds has no decimals."""
    assert f"Time benchmarks were run for {told} per config.\n" in classic.render(simple(duration_s=seconds))


def test_without_shapes_there_is_no_word_of_time():
    """If nothing was timed, the card has no time section."""
    text = classic.render(simple(shapes=(), duration_s=None))
    assert "ime " not in text.split("## Non-time")[1]
    assert len(tables.find_tables(text)) == 1


def test_a_shape_without_a_length_names_none():
    """If a task has no input length, the line above the table names the batch size only."""
    assert "metrics for batch size = 4.\n" in classic.render(simple(shapes=(Shape(4),)))


def test_a_metric_with_a_unit_has_it_in_its_header():
    """The unit of a metric is in the header."""
    assert "| perplexity (nats) |" in classic.render(simple(metrics=(Metric("perplexity", "nats"),)))


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ([], "* **p**: `[]`"),
        ({}, "* **p**: `{}`"),
        ("x", "* **p**: `x`"),
        ("", "* **p**: `''`"),
        ("None", "* **p**: `'None'`"),
        ({"a": {"b": 1}}, "* **p**:\n    * **a**: `{'b': 1}`"),
        ([{"path": "beans", "name": None}], "* **p**: [{'path': 'beans', 'name': None}]"),
        ([{"path": "<b>"}], "* **p**: `[{'path': '<b>'}]`"),
        ("a`b", "* **p**: ``a`b``"),
        (99.999, "* **p**: `99.999`"),
    ],
)
def test_a_fixed_parameter_is_laid_out_by_its_kind(value, line):
    """Mappings are nested, lists of mappings have no code span where that is safe, other values are code spans."""
    assert f"Fixed parameters:\n{line}\n\nBenchmarked" in classic.render(simple(fixed={"p": value}))


@settings(max_examples=80, deadline=None)
@given(facts_strategy())
def test_any_facts_give_whole_tables(facts):
    """For any values, a Markdown parser finds all rows and columns, no HTML, and no cell with nan."""
    text = split_card(classic.render(facts)).body
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    width = len(facts.benchmarked)
    expected = [[width + 2 * len(facts.metrics)] * (len(facts.rows) + 1)]
    expected += [[width + 4] * (len(facts.rows) + 1)] * len(facts.shapes)
    found: list[list[int]] = []
    for token in tokens:
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append(0)
        elif token.type in ("td_open", "th_open"):
            found[-1][-1] += 1
    assert found == expected
    kinds = {child.type for token in tokens for child in token.children or []}
    assert kinds <= {"text", "code_inline", "strong_open", "strong_close", "softbreak", "hardbreak", "text_special"}
    assert "html_block" not in {token.type for token in tokens}
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    cells = [
        cell for table in tables.find_tables(text) for row in table.rows for cell in row if not cell.startswith("`")
    ]
    assert all(re.fullmatch(r"\||failed|n/a|-?\d+\.\d+", cell) for cell in cells)
    assert headings == ["Evaluation", "Non-time metrics"] + ["Time metrics"] * bool(facts.shapes)


def test_equal_facts_give_equal_bytes():
    """The same facts, made twice, give the same text."""
    assert classic.render(facts_of("vit-beans")) == classic.render(facts_of("vit-beans"))
