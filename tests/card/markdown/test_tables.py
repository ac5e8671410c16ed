"""Values, text and tables as Markdown, compared with how markdown-it-py parses them."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from benchcard.card.markdown import tables
from benchcard.card.markdown.inline import (
    bare_or_code_span,
    code_span,
    escape,
    escape_prose,
    parse_code_span,
    parse_code_spans,
    parse_value,
    unescape,
    write_value,
)
from benchcard.card.markdown.tables import Column, find_tables, format_number, render_table, split_row
from benchcard.errors import CardError
from card.test_facts import texts, values

MARKDOWN = MarkdownIt("commonmark").enable("table")
TICKED = ("`Add` ", " `a b`", "`", "``x``", "`*<b>*`", "`a|b`", "`a\\`")


def shown(token: Token) -> str:
    """The characters that a reader of an inline token sees."""
    return "".join(child.content for child in token.children or [])


def cells_of(markdown: str) -> list[list[str]]:
    """Return the rows of the only table in a text, as readers see them."""
    tokens = MARKDOWN.parse(markdown)
    assert [token.type for token in tokens].count("table_open") == 1
    assert tokens[0].type == "table_open"
    assert tokens[-1].type == "table_close"
    rows: list[list[str]] = []
    for place, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "th_open"):
            rows[-1].append(shown(tokens[place + 1]))
    return rows


@settings(max_examples=200, deadline=None)
@given(values)
@example("None")
@example("1_000")
@example("set()")
@example("...")
@example("a\\|b")
@example(r"'\d'")
@example("(" * 300)
@example("1" * 5000)
def test_any_value_reads_back_equal(value):
    """A written value is parsed as the same value of the same type."""
    back = parse_value(write_value(value))
    assert repr(back) == repr(value)


@settings(max_examples=100, deadline=None)
@given(values)
def test_a_value_in_a_cell_is_seen_and_read_as_it_is(value):
    """A value in a table is shown to readers unchanged, and is parsed as the same value."""
    table = render_table([Column("value"), Column("n", "right")], [[code_span(write_value(value)), "1"]])
    assert cells_of(table)[1] == [write_value(value), "1"]
    content = parse_code_span(find_tables(table)[0].rows[0][0])
    assert repr(parse_value(content or "")) == repr(value)


@settings(max_examples=100, deadline=None)
@given(texts)
def test_words_are_seen_as_they_are(text):
    """Escaped text in a cell is shown unchanged, and unescaping returns it."""
    clean = "".join(char if char.isprintable() else " " for char in text).strip()
    table = render_table([Column(escape(text) or "x")], [["a " + escape(text)]])
    assert cells_of(table)[1] == [f"a {clean}".strip()]
    assert unescape(find_tables(table)[0].rows[0][0]) == f"a {clean}".strip()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(texts, st.sampled_from(TICKED))).map("".join))
@example("`a``b`")
@example("\\`a`")
@example("`a` and `b")
@example("`<!-- benchcard -->`")
def test_prose_is_seen_as_it_is_but_for_its_back_ticks(text):
    """The page shows what `escape_prose` was given, also in a cell, and code spans as code; parsing gives it back."""
    clean = "".join(char if char.isprintable() else " " for char in text).strip()
    table = render_table([Column("x")], [["a " + escape_prose(text)]])
    ((seen,),) = cells_of(table)[1:]
    assert seen in (f"a {clean}".strip(), f"a {clean}".strip().replace("`", ""))
    assert unescape(find_tables(table)[0].rows[0][0]) == f"a {clean}".strip()
    assert "<" not in escape_prose(text).replace("\\<", "")


def test_what_is_in_back_ticks_stays_code():
    """A code span that every renderer takes for one is kept; otherwise all markup is escaped."""
    assert escape_prose("`Add` has *no* `x_*` kernel") == "`Add` has \\*no\\* `x_*` kernel"
    assert escape_prose("`Add` and `b") == escape("`Add` and `b")
    assert escape_prose("`a|b`") == escape("`a|b`")


@settings(max_examples=100, deadline=None)
@given(st.lists(texts.filter(lambda text: text.isprintable() and text), min_size=1, max_size=3))
def test_a_list_of_code_spans_reads_back(contents):
    """A list of code spans is parsed into its contents, with backticks and commas."""
    assert parse_code_spans(",  ".join(code_span(content) for content in contents)) == contents


@pytest.mark.parametrize("text", ["`a` b", "a", "`a", "``a`", "`a`, b", "`a` `b`"])
def test_what_is_no_list_of_code_spans_is_none(text):
    """Code spans with other text beside them are not a list."""
    assert parse_code_spans(text) is None


@pytest.mark.parametrize("text", ["", "a", "`a", "``a`", "`a`b`", "`a` b"])
def test_what_is_no_code_span_is_none(text):
    """Text that is not exactly one code span has no content."""
    assert parse_code_span(text) is None


@settings(max_examples=100, deadline=None)
@given(texts.filter(lambda text: text.strip() and text.isprintable()))
def test_bare_text_is_bare_only_where_markdown_leaves_it_alone(text):
    """Text in a bullet is shown unchanged, with or without code span."""
    tokens = MARKDOWN.parse(f"* **p**: {bare_or_code_span(text)}")
    inline = [token for token in tokens if token.type == "inline"]
    assert len(inline) == 1
    assert shown(inline[0]).removeprefix("p: ").strip() == text.strip()


def test_columns_are_aligned_and_ruled():
    """Each alignment has its delimiter, and cells are aligned in plain text too."""
    table = render_table(
        [Column("left"), Column("mid", "center"), Column("right", "right")], [["a", "b", "1"], ["aaaaa", "", "12"]]
    )
    assert table.split("\n") == [
        "| left  | mid | right |",
        "| :---- | :-: | ----: |",
        "| a     |  b  |     1 |",
        "| aaaaa |     |    12 |",
    ]


def test_a_table_may_have_no_rows():
    """A table without rows is its header."""
    assert find_tables(render_table([Column("a")], [])) == [tables.Table(("a",), (), 0)]


def test_a_row_of_another_length_is_refused():
    """A row with another number of cells than columns is an error."""
    with pytest.raises(CardError, match="row 1 of a table has 1 cells for 2 columns"):
        render_table([Column("a"), Column("b")], [["1", "2"], ["3"]])


def test_tables_are_found_between_other_text():
    """All tables of a text are found, with their lines; rows of another length are filled up or cut."""
    text = "words | words\n\n| a | b |\n| - | -: |\n| 1 |\n| 1 | 2 | 3 |\nend\n\na | b\n---|---\nx\\|y | z\n"
    first, second = find_tables(text)
    assert (first.rows, first.first_line) == ((("1", ""), ("1", "2")), 2)
    assert (second.headers, second.rows) == (("a", "b"), (("x|y", "z"),))


def test_an_empty_header_keeps_its_place():
    """A column with an empty header is counted."""
    assert split_row("| a |     | b |") == ["a", "", "b"]


@pytest.mark.parametrize(
    ("value", "decimals", "text"), [(-0.0004, 3, "0.000"), (-0.0006, 3, "-0.001"), (2, 2, "2.00"), (0.125, 0, "0")]
)
def test_digits_are_as_many_as_asked(value, decimals, text):
    """A number has the requested number of decimals, and zero has no sign."""
    assert format_number(value, decimals) == text
