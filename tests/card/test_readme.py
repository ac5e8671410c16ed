"""Benchcard's section in READMEs of every kind: the text outside of it stays to the byte."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import replace

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from benchcard.card.frontmatter import yaml as yamltext
from benchcard.card.layouts import classic
from benchcard.card.reading.classic import read_card
from benchcard.card.readme import find_sections, line_end, merge, merge_section
from benchcard.errors import CardError
from card.test_facts import facts_of

BEGIN = re.compile(r"<!-- benchcard:begin id=beans schema=1 digest=[0-9a-f]{64} -->")
END = "<!-- benchcard:end id=beans -->"
CARD = "---\npipeline_tag: fill-mask\ntags:\n- onnx\n- benchcard\n---\n\n## Result\n\n| a |\n| - |\n| 1 |\n"

PIECES = [
    "# Title",
    "",
    "words  ",
    "```\ncode",
    "~~~",
    "---",
    "<!--",
    "-->",
    "\u2028",
    "\x0b\x0c",
    "é\udcff",
    "שלום \u202e",
    "\x00",
]
PIECES += [
    "    indented",
    "- [ ] task",
    "| a | b |\n|---|",
    "<details>",
    "$$",
    "<!-- benchcard -->",
    "`<!-- benchcard:end id=beans -->`",
]
PIECES += ["<!-- benchcard:begin id=other schema=1 digest=" + "0" * 64 + " -->\nx\n<!-- benchcard:end id=other -->"]
FRONTS = [
    "",
    "---\n---\n",
    "---\nlicense: mit # why\n---\n",
    "---\ntags: [x]\n\n# end\n---",
    "---\ntags:\n  - 'x'   # c\n---\n\n",
]

bodies = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=6).map("\n".join)


@st.composite
def readmes(draw: st.DrawFn) -> str:
    """Generate READMEs with and without front matter, byte order mark and final line end, with three kinds of line
    ends.
    """
    front = draw(st.sampled_from(FRONTS))
    body = draw(bodies)
    text = (
        front
        + ("\n" if body and front and not front.endswith("\n") else "")
        + body
        + draw(st.sampled_from(["", "\n", "\n\n\n"]))
    )
    newline = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    return draw(st.sampled_from(["", "\ufeff"])) + text.replace("\n", newline)


def outside(text: str, slug: str = "beans") -> tuple[str, str]:
    """Return the text before and after a section."""
    section = find_sections(text)[slug]
    return text[: section.begin.start], text[section.end.end :]


def is_mapping(yaml: str) -> bool:
    """Return whether a text is YAML that can be front matter."""
    try:
        return isinstance(yamltext.load_yaml(yaml + "\n"), dict | None)
    except CardError:
        return False


def is_subsequence(part: str, whole: str) -> bool:
    """Return whether `whole` contains all characters of `part` in their order."""
    rest = iter(whole)
    return all(char in rest for char in part)


def is_open(readme: str) -> bool:
    """Return whether a README ends within a block of code, so that a section needs `force`."""
    try:
        merge_section(readme, "one", "beans")
    except CardError as error:
        return "never closed" in str(error)
    return False


@settings(max_examples=200, deadline=None)
@given(readmes())
@example("")
@example("\ufeff")
@example("a\nb\nc\r")
@example("---\na: 1\n---")
@example("---\nnot front matter")
def test_a_section_is_appended_and_everything_else_stays(readme):
    """The section is appended to a README, which is otherwise the same to the byte."""
    merged = merge_section(readme, "## Result\n\ntext", "beans", force=is_open(readme))
    before, after = outside(merged.text)
    assert before.startswith(readme)
    assert set(before[len(readme) :] + after) <= set(line_end(readme))
    assert find_sections(merged.text)["beans"].content == "## Result\n\ntext"
    assert merge_section(merged.text, "\n## Result\n\ntext\n", "beans").changed is False


@settings(max_examples=100, deadline=None)
@given(readmes(), bodies)
def test_a_section_is_replaced_in_its_place(readme, more):
    """A second card replaces the first one in its place, and text written around it since stays."""
    assume("benchcard" not in more)
    first = merge_section(readme, "one", "beans", force=is_open(readme)).text + more
    # What stands between two fences is code, whoever wrote the second one.
    assume("beans" in find_sections(first))
    assume(len([line for line in re.split(r"\r\n|\r|\n", first) if BEGIN.fullmatch(line)]) == 1)
    second = merge_section(first, "two\nlines", "beans")
    assert second.changed
    assert outside(second.text) == outside(first)
    assert find_sections(second.text)["beans"].content == "two\nlines"


@settings(max_examples=100, deadline=None)
@given(readmes())
@example("\ufeff```\ncode")
def test_a_whole_card_is_merged_once(readme):
    """Front matter and section are there after one merge, and a second one changes nothing."""
    old = yamltext.split_card(readme)
    if not is_mapping(old.yaml):
        with pytest.raises(CardError, match="front matter"):
            merge(readme, CARD, "beans")
        return
    merged = merge(readme, CARD, "beans", force=is_open(readme))
    new = yamltext.split_card(merged.text)
    assert new.body.lstrip("\r\n").startswith(old.body.removeprefix("\ufeff").lstrip("\r\n"))
    assert is_subsequence(old.yaml, new.yaml)
    data, before = yamltext.load_yaml(new.yaml), yamltext.load_yaml(old.yaml) or {}
    assert {"onnx", "benchcard"} <= set(data["tags"])
    assert set(before.get("tags", [])) <= set(data["tags"])
    assert merged.text.startswith("\ufeff") == readme.startswith("\ufeff")
    again = merge(merged.text, CARD, "beans")
    assert again.text == merged.text
    assert again.changed is False


def test_several_sections_live_in_one_readme():
    """A README can have sections of several runs, and each is replaced separately."""
    text = merge_section(merge_section("# T\n", "one", "a").text, "two", "b").text
    newer = merge_section(text, "ONE", "a").text
    assert {slug: section.content for slug, section in find_sections(newer).items()} == {"a": "ONE", "b": "two"}
    assert newer.index("id=a") < newer.index("id=b")
    assert outside(newer, "b")[1] == outside(text, "b")[1]


def test_a_section_can_be_read_out_of_a_readme():
    """A published card that is merged into a README is read from its section."""
    facts = facts_of("vit-beans")
    merged = merge("# My model\r\n\r\nwords\r\n", classic.render(facts), "beans")
    assert "\n" not in merged.text.replace("\r\n", "")
    assert read_card(merged.text) == facts
    assert read_card(find_sections(merged.text)["beans"].content).rows == facts.rows


def test_changed_line_ends_are_no_edit():
    """A checkout that converts line ends does not count as an edit."""
    text = merge_section("# T\n", "one\ntwo", "beans").text.replace("\n", "\r\n")
    assert find_sections(text)["beans"].edited is False
    assert merge_section(text, "one\ntwo", "beans").changed is False


def test_an_edited_section_is_refused_and_replaced_only_by_force():
    """An edited section is an error; `force` replaces it and returns the edited text."""
    text = merge_section("# T\n", "one\ntwo", "beans").text.replace("two", "mine")
    with pytest.raises(CardError, match=r"'beans' was edited by hand.*force=True"):
        merge_section(text, "three", "beans")
    merged = merge_section(text, "three", "beans", force=True)
    assert merged.replaced == "one\nmine"
    assert find_sections(merged.text)["beans"].content == "three"
    assert find_sections(merged.text)["beans"].edited is False


def test_an_edit_that_says_what_the_card_says_is_no_loss():
    """If the edited text equals the new text, only the marker is renewed."""
    text = merge_section("# T\n", "one", "beans").text.replace("one", "two")
    merged = merge_section(text, "two", "beans")
    assert merged.replaced == ""
    assert find_sections(merged.text)["beans"].edited is False


def test_a_section_of_a_newer_schema_is_refused():
    """A section that a newer version wrote is replaced only with `force`."""
    text = merge_section("", "one", "beans").text.replace("schema=1", "schema=2")
    with pytest.raises(CardError, match=r"schema 2.*upgrade"):
        merge_section(text, "two", "beans")
    assert find_sections(merge_section(text, "two", "beans", force=True).text)["beans"].begin.schema == 1


def damage(kind: str) -> str:
    """Return a README whose section `beans` has broken or duplicate markers, with words that must not be lost."""
    text = merge_section("# T\n", "one", "beans").text
    (begin,) = BEGIN.findall(text)
    section = text[text.index(begin) :]
    return {
        "no end": text.replace(END, "WORDS"),
        "no begin": text.replace(begin, "WORDS"),
        "begin twice": text.replace(begin, f"{begin}\nWORDS\n{begin}"),
        "end twice": text.replace(END, f"{END}\nWORDS\n{END}"),
        "end first": f"{END}\nWORDS\n{begin}\n",
        "digest cut": text.replace("schema=1", "schema=1 WORDS"),
        "end misspelt": text.replace(END, "<!-- benchcard:end id=beans WORDS-->"),
        "marker of another inside": text.replace("one", "<!-- benchcard:end id=x -->\nWORDS"),
        "marker of nobody inside": text.replace("one", "<!-- benchcard:end -->\nWORDS"),
        "section twice": text + "WORDS\n" + section,
        "section twice, one edited": text + section.replace("one", "WORDS"),
        "words behind the marker": text.replace(END, f"{END} WORDS"),
    }[kind]


KINDS = ["no end", "no begin", "begin twice", "end twice", "end first", "digest cut", "end misspelt"]
KINDS += ["marker of another inside", "marker of nobody inside", "section twice", "section twice, one edited"]
KINDS += ["words behind the marker"]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_and_doubled_markers_are_refused_and_mended_only_by_force(kind):
    """Broken markers are an error with their lines; `force` leaves one section and loses no words."""
    text = damage(kind)
    with pytest.raises(CardError, match=r"line.*force=True"):
        merge_section(text, "two", "beans")
    merged = merge_section(text, "two", "beans", force=True)
    assert find_sections(merged.text)["beans"].content == "two"
    assert len(BEGIN.findall(merged.text)) == 1
    # Where the words stood within a marker's own line, that line is ours and goes.
    assert ("WORDS" in merged.text) is (kind not in ("digest cut", "end misspelt", "words behind the marker"))
    assert merge_section(merged.text, "two", "beans").changed is False


def test_markers_of_other_sections_are_not_our_business():
    """Broken markers of another section, or without a slug, do not affect this one."""
    text = "<!-- benchcard:begin id=other -->\nx\n<!-- benchcard:end -->\n"
    merged = merge_section(text, "one", "beans")
    assert merged.text.startswith(text)
    assert find_sections(merge_section(merged.text, "two", "beans").text)["beans"].content == "two"


@pytest.mark.parametrize(
    "text",
    [
        "`<!-- benchcard:end id=beans -->`\n",
        "    <!-- benchcard:end id=beans -->\n",
        "see <!-- benchcard:end id=beans -->\n",
    ],
)
def test_words_about_markers_are_no_markers(text):
    """A marker counts where it begins a line, not within text or indented code."""
    assert merge_section(text, "one", "beans").text.startswith(text)


QUOTED = f"<!-- benchcard:begin id=beans schema=1 digest={'0' * 64} -->\none\n```sh\nx\n```\n{END}"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("quoted", [QUOTED, BEGIN.pattern.replace("[0-9a-f]{64}", "0" * 64), END, f"{END}\n{QUOTED}"])
@pytest.mark.parametrize("fence", ["````", "~~~", "   ````"])
def test_markers_that_a_block_of_code_quotes_are_its_authors(fence, quoted, force):
    """A quoted section in a block of code is not a section: before or after the real one, complete or not, and even
    with `force`.
    """
    quote = f"{fence}md\n{quoted}\n{fence.strip()}{fence[-1]}\n"
    first = merge_section(f"# T\n\n{quote}", "one", "beans", force=force).text + quote
    assert first.startswith(f"# T\n\n{quote}")
    second = merge_section(first, "two\n```sh\ny\n```", "beans", force=force).text
    assert outside(second) == outside(first)
    assert second.count(quote) == 2
    assert list(find_sections(second)) == ["beans"]


def test_a_section_is_its_own_below_a_block_that_is_left_open():
    """An open fence above a section is not closed by one in the section, which is replaced as usual. Without `force`,
    no section is added where a block of code is open at the end, whoever left it open.
    """
    text = merge_section("# T\n", "one\n```sh\nx\n```\ny", "beans").text
    assert merge_section(text, "one", "other").changed
    opened = text.replace("# T\n", "# T\n```\n")
    second = merge_section(opened, "two", "beans").text
    assert outside(second) == outside(opened)
    assert find_sections(second)["beans"].content == "two"
    with pytest.raises(CardError, match="begins in line 4 "):
        merge("---\na: 1\n---\n~~~", CARD, "beans")
    within = merge_section("", "~~~\nx", "beans").text
    with pytest.raises(CardError, match="begins in line 2 "):
        merge_section(within, "one", "other")
    for readme in (second, "# T\n``` py\n~~~\n```x\n``\n    ```\n````x`\n"):
        with pytest.raises(CardError, match=r"begins in line 2 .* never closed.*force=True"):
            merge_section(readme, "one", "other")
        assert find_sections(merge_section(readme, "one", "other", force=True).text)["other"].content == "one"


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<pre>", "</pre>"),
        ("<PRE\tclass='x'", "</Style>"),
        ("   <script>", "x</script> y"),
        ("<style", "</style>"),
        ("<textarea>", "</textarea>"),
        ("<![CDATA[", "]]>"),
        ("<?php", "?>"),
        ("<!--", "-->"),
        ("<!DOCTYPE", ">"),
    ],
)
def test_html_that_is_never_closed_is_refused(opening, closing):
    """Unclosed HTML that does not end at an empty line would show tables as source: it is an error with its line, and
    accepted once it is closed. Other HTML is accepted.
    """
    readme = f"---\nlicense: mit\n---\n# T\n\n{opening}\nx\n\ny\n"
    with pytest.raises(CardError, match=r"HTML `.*` that begins in line 6 .*never closed.*force=True"):
        merge(readme, CARD, "beans")
    forced = merge(readme, CARD, "beans", force=True).text
    assert "beans" in find_sections(forced)
    taken = f"{readme}{closing}\n", readme.replace(opening, f"{opening}{closing}")
    quoted = f"```html\n{opening}\n```\n", f"    {opening}\n", f"- {opening}\n\nx\n", f"> {opening}\n"
    for text in (*taken, *quoted, f"x {opening}\n", "<preface>\n", "<div>\n<details>\n"):
        assert table_is_shown(merge(text, CARD, "beans").text)


MARKDOWN = MarkdownIt("commonmark").enable("table")


def table_is_shown(readme: str, cells: tuple[str, ...] = ("a", "1")) -> bool:
    """Return whether a Markdown renderer shows a table with these cells in a README."""
    tokens = MARKDOWN.parse(yamltext.split_card(readme).body.removeprefix("\ufeff"))
    starts = [index for index, token in enumerate(tokens) if token.type == "table_open" and token.level == 0]
    shown = [[token.content for token in tokens[start : start + 30] if token.type == "inline"] for start in starts]
    return any(tuple(contents[: len(cells)]) == cells for contents in shown)


HTML = [
    "<pre>",
    "</pre>",
    "<SCRIPT>",
    "</script>",
    "<style>",
    "</style>",
    "<textarea",
    "</textarea>",
    "<![CDATA[",
    "]]>",
]
HTML += ["<?", "?>", "<!--", "-->", "<!X", ">", "<div>", "</div>", "<details>", "</details>", "<b>", "<pre>x</pre>"]
PREFIXES = ["", "", "", "- ", "  ", "> ", "1. ", "    ", "> - "]
FENCES = ["```", "````", "~~~", "~~~~", "```py", "~~~ a`b", "``` a`b", "   ```"]


def test_whatever_is_merged_shows_the_table():
    """Each of hundreds of READMEs with fences, HTML, lists and quotations is refused with a line, or shows the table; a
    second merge changes nothing, and the author's text stays to the byte.
    """
    generator = random.Random(0)
    refused = 0
    for _ in range(250):
        pieces = generator.choices([*HTML, *FENCES, *FENCES, "", "", "words", "# T", "| x |\n|---|", "\tcode"], k=6)
        text = "\n".join(generator.choice(PREFIXES) + piece for piece in pieces) + generator.choice(["", "\n"])
        readme = text.replace("\n", generator.choice(["\n", "\r\n", "\r"]))
        try:
            merged = merge(readme, CARD, "beans").text
        except CardError as error:
            refused += "begins in line" in str(error)
            continue
        assert table_is_shown(merged), readme
        assert readme in merged
        again = merge(merged, CARD, "beans")
        assert not again.changed, readme
        newer = merge(merged, CARD.replace("1", "2"), "beans").text
        assert table_is_shown(newer, ("a", "2")), readme
        assert outside(newer) == outside(merged)
    assert 40 < refused < 200


def test_what_follows_a_section_is_markdown_again():
    """An empty line separates HTML at the end of a section from its marker, so that the next line is not part of that
    HTML. A section without that line is read and replaced as usual, and does not count as edited.
    """
    content = "<details>\n\nwords\n\n</details>"
    text = merge_section("# T\n", content, "beans").text + "* item\n"
    html = MARKDOWN.render(text)
    assert "<li>item</li>" in html
    older = text.replace(f"\n\n{END}", f"\n{END}")
    assert older != text
    assert "<li>item</li>" not in MARKDOWN.render(older)
    assert find_sections(older)["beans"] == replace(find_sections(text)["beans"], end=find_sections(older)["beans"].end)
    assert not merge_section(older, content, "beans").changed
    assert "<li>item</li>" in MARKDOWN.render(merge_section(older, f"{content}\n\n{content}", "beans").text)


@pytest.mark.parametrize(
    ("quote", "lead", "fence"),
    [
        ("````md\n```\n{}\n```\n````\n", "", "```"),
        ("~~~\n```\n{}\n~~~\n", "", "```"),
        ("- item\n\n  ```\n{}\n  ```\n", "  ", "~~~"),
        ("> ```\n{}\n> ```\n", "> ", "~~~"),
        ("* item\n\n{}\n", "      ", "```"),
        ("{}\n", "    ", "```"),
        ("```\n<!-- benchcard:begin id=beans -->\n```\n\n~~~\n<!-- benchcard:end id=beans -->\n~~~\n", "", "```"),
        ("<div>\n```\n\n~~~\n{}\n~~~\n", "", "```"),
    ],
)
@pytest.mark.parametrize("above", [True, False])
def test_a_section_that_is_quoted_in_any_block_of_code_is_none(quote, lead, fence, above):
    """A section in nested fences, lists, quotations or indented code is the author's, even if it equals the real
    section beside it.
    """
    content = f"one\n{fence}sh\nx\n{fence}"
    section = merge_section("", content, "beans").text.strip()
    quoted = quote.format("\n".join(lead + line for line in section.split("\n")))
    readme = f"# T\n\n{quoted}\n" if above else f"# T\n\n{section}\n\n{quoted}"
    first = merge_section(readme, content, "beans")
    second = merge_section(first.text, "two", "beans").text
    assert quoted in second
    assert second.count("two") == 1
    assert list(find_sections(second)) == ["beans"]
    assert outside(second) == outside(first.text)


@pytest.mark.parametrize(
    "hostile",
    [
        "```x\n",
        "~~~\n```a\n",
        "[a]: b\n",
        "> > > a\nb\n",
        "- <!--\n",
        "- - - a\n",
        "<!-- benchcard:begin id=beans -->\n",
    ],
)
def test_merging_takes_time_linear_in_the_size(hostile):
    """Four times as many opening lines cost about four times as many calls, not sixteen."""

    def calls(readme: str) -> int:
        count = 0

        def hook(_frame: object, event: str, _argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(hook)
        try:
            merge_section(readme, "one", "beans", force=True)
        finally:
            sys.setprofile(None)
        return count

    merge_section("", "one", "beans")  # imports
    few, many = calls(hostile * 200), calls(hostile * 800)
    assert many < 6 * few


def test_a_section_may_not_hold_markers():
    """Content that looks like a marker would break the next merge, and is an error."""
    with pytest.raises(CardError, match="own markers"):
        merge_section("", f"a\n{END}", "beans")


@pytest.mark.parametrize("slug", ["", "a b", "-a", "a-->", "é", "a" * 101, 5])
def test_a_slug_is_a_plain_word(slug):
    """A slug that would break the marker, or is too long for a folder name, is an error."""
    with pytest.raises(CardError, match="cannot name a section"):
        merge_section("", "x", slug)


def test_a_card_whose_front_matter_is_no_mapping_is_refused():
    """The card to merge must have a mapping as its front matter."""
    with pytest.raises(CardError, match="card to merge"):
        merge("", "---\n- a\n---\nx", "beans")


@pytest.mark.parametrize(
    ("text", "end"), [("", "\n"), ("a", "\n"), ("a\r\nb", "\r\n"), ("a\rb\r\nc\r", "\r"), ("a\nb\r\n", "\n")]
)
def test_the_line_end_of_most_lines_is_taken(text, end):
    """Added lines end as most lines of the README do."""
    assert line_end(text) == end


OURS = "license: other\nlicense_name: house\nlicense_link: https://a.b/c\n"
OURS += "base_model: a/b\nbase_model_relation: quantized"


@pytest.mark.parametrize(
    ("theirs", "overwrite", "comes", "kept"),
    [
        ("license: mit", (), "license: mit\nbase_model: a/b\nbase_model_relation: quantized", ("license",)),
        ("license: other\nlicense_name: my-eula\nbase_model: a/b", (), "", ("license_name",)),
        ("license: other\nbase_model: a/b", (), "", ()),
        ("license_link: LICENSE\nbase_model: a/b", (), "", ("license_link",)),
        ("license: mit", ("license",), OURS, ()),
        ("license: other\nlicense_name: my-eula", ("license",), OURS, ()),
        ("base_model: x/y", (), OURS.partition("base")[0] + "base_model: x/y", ("base_model",)),
        ("base_model:\n- a/b", (), OURS.replace(": a/b", ": [a/b]"), ("base_model",)),
        ("base_model: x/y\nbase_model_relation: finetune", ("base_model",), OURS, ()),
    ],
)
def test_keys_that_go_together_come_or_stay_together(theirs, overwrite, comes, kept):
    """A licence with its name and link, and a model with its relation, are all the card's or all the author's, and a
    second merge changes nothing.
    """
    card = f"---\n{OURS}\n---\nbody"
    merged = merge(f"---\n{theirs}\n---\n", card, "beans", overwrite=overwrite)
    wanted = yamltext.load_yaml(comes or f"{theirs}\nbase_model_relation: quantized")
    assert yamltext.load_yaml(yamltext.split_card(merged.text).yaml) == wanted
    assert merged.kept == kept
    assert not merge(merged.text, card, "beans", overwrite=overwrite).changed


def test_lists_within_lists_are_no_open_block():
    """A list of many levels does not count as an open block."""
    readme = "".join(f"{'  ' * level}- x\n" for level in range(20)) + "\n# Next\n\ntext\n"
    assert merge_section(readme, "one", "beans").text.startswith(readme)
