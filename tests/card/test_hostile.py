"""Thousands of hostile values in the cells and texts of both layouts: a real parser finds the tables whole, and what is
read back is what was written.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchcard import BenchcardError, Results
from benchcard.card.facts import (
    Data,
    Facts,
    Metric,
    Row,
)
from benchcard.card.layouts import classic, full
from benchcard.card.markdown.inline import parse_code_spans, unescape
from benchcard.card.reading.classic import read_card
from benchcard.errors import CardError
from benchcard.utils.values import Interval, Shape
from card.layouts.test_full import tables_in

PIECES = (
    *("|", "\\|", "||", "\\", "\n", "\r\n", "\r", "\t", "`", "``", "```", "$$", "$x$", "*", "**", "_", "~~", "#", "- "),
    *("<b>", "</td>", "<script>", "<!--", "-->", "<details>", "&amp;", "&#124;", "[x](y)", "![", "](", "https://a.b/c"),
    *(": ", "? ", "- ", "!!python/tuple", "&a", "*a", "%", "@", "{", "}", "[", "]", ",", "'", '"', "---", "null", "no"),
    *("nan", "1.10", "0x1f", "1e3", "True", "עברית", "\u202e", "\u200b", "\u2028", "é", "e\u0301", "😀", "漢字", " "),
    *("word", "w" * 300),
)
SHAPE = Shape(1, 8)


def hostile_text(generator: random.Random) -> str:
    """A text of up to five pieces, each of which breaks something somewhere."""
    return "".join(generator.choices(PIECES, k=generator.randint(0, 5)))


def hostile_value(generator: random.Random) -> Any:
    """A parameter's value: a text, a list or mapping of texts, a number, a truth value or None."""
    kinds: list[Any] = [
        hostile_text(generator),
        hostile_text(generator),
        [hostile_text(generator) for _ in range(generator.randint(0, 3))],
        {hostile_text(generator): [hostile_text(generator), generator.randint(-9, 9)]},
        generator.choice([None, True, False, 0, -1, 1.5, 1e-12, 10**18]),
    ]
    return generator.choice(kinds)


def hostile_facts(seed: int) -> Facts:
    """A card of twelve rows with three parameters each, all of them hostile."""
    generator = random.Random(seed)
    names = ("one", "two | `x`", "three")
    rows = tuple(
        Row(
            parameters={name: hostile_value(generator) for name in names},
            metrics={"accuracy": Interval(0.5, 0.4, 0.6) if generator.random() < 0.8 else None},
            times={SHAPE: {"latency_mean_ms": Interval(1.25), "throughput_per_s": Interval(800.0)}},
        )
        for _ in range(12)
    )
    return Facts(
        task=hostile_text(generator) or "task",
        backend="local",
        backend_args={"a": hostile_value(generator)},
        fixed={"b": hostile_value(generator), "c": hostile_text(generator)},
        benchmarked={name: [row.parameters[name] for row in rows] for name in names},
        metrics=(Metric("accuracy"),),
        shapes=(SHAPE,),
        duration_s=2.0,
        rows=rows,
        data=Data(dataset=hostile_text(generator), split=hostile_text(generator), samples=9),
        baseline=0,
        chosen=1,
        settings={"d": hostile_value(generator)},
        environment={"e": hostile_value(generator)},
    )


@pytest.mark.parametrize("layout", ["full", "classic"])
def test_thousands_of_hostile_values_come_back(layout):
    """Each of 7,200 parameter values, and the texts around them, is read as it was written, type by type; the card read
    and written is the same bytes; no table of it has a row too long, too short, or too many.
    """
    write = full.body if layout == "full" else classic.render
    for seed in range(200):
        facts = hostile_facts(seed)
        text = write(facts)
        back = read_card(text)
        assert write(back) == text, seed
        assert repr([row.parameters for row in back.rows]) == repr([row.parameters for row in facts.rows]), seed
        for name in ("task", "backend_args", "fixed", "benchmarked"):
            assert repr(getattr(back, name)) == repr(getattr(facts, name)), (seed, name)
        if layout == "full":
            assert (back.data, back.settings, back.environment) == (facts.data, facts.settings, facts.environment)
        tables = tables_in(text)
        whole = [table for table in tables if len(table) == 1 + len(facts.rows)]
        assert len(whole) == 2, seed
        assert all(len(row) == len(table[0]) for table in tables for row in table), seed
        if layout == "full":
            # Of the whole tables the third column is the first of figures: accuracy, and latency.
            assert "nan" not in {row[2] for table in whole for row in table}, seed


CELLS = [
    "",
    "nan",
    "1e999",
    "9" * 400,
    "²",
    "-1",
    "99",
    "|",
    "`",
    "``",
    "`" * 50,
    "{",
    "{'a': nan}",
    "1" * 5000,
    "[1e999]",
]
CELLS += ["<!--", "---", "failed", "n/a", "0.5 [0.6, 0.4]", "0.5 [1, 2", "\\", "\x00", "\ud800", "{1: 2}", "x, y", "1j"]


def mutated(text: str, generator: random.Random) -> str:
    """A card with lines lost, doubled or exchanged, and with cells, numbers and values that are others."""
    for _ in range(generator.randint(1, 3)):
        kind, lines = generator.randint(0, 5), text.split("\n")
        line, other = generator.randrange(len(lines)), generator.randrange(len(lines))
        if kind == 0:
            del lines[line]
        elif kind == 1:
            lines.insert(other, lines[line])
        elif kind == 2:
            lines[line], lines[other] = lines[other], lines[line]
        text = "\n".join(lines)
        if kind in (3, 4):
            found = generator.choice(list(re.finditer(r"(?<=\| )[^|\n]+(?= \|)|`[^`\n]*`|\d+(\.\d+)?", text)))
            text = text[: found.start()] + generator.choice(CELLS) + text[found.end() :]
        elif kind == 5:
            place = generator.randrange(len(text))
            text = text[:place] + generator.choice(CELLS) + text[place + generator.randint(0, 30) :]
    return text


def test_changed_cards_end_in_facts_or_in_our_errors():
    """Each of hundreds of changed cards, of both layouts, is read, shown as frames and written again, or refused."""
    whole = (Path(__file__).parents[1] / "data" / "cards" / "digits-full.md.txt").read_text(encoding="utf-8")
    cards = [whole, classic.render(read_card(whole))]
    ends = set()
    for seed in range(400):
        generator = random.Random(seed)
        text = mutated(generator.choice(cards), generator)
        try:
            found = Results.from_card(text)
            classic.render(found.facts), full.body(found.facts)
            if seed % 8 == 0:
                found.quality, found.time, found.plan  # noqa: B018
            ends.add("facts")
            assert len(found.spec.digest) == 64
        except BenchcardError as error:
            str(error).encode()
            ends.add(type(error).__name__)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    assert {"facts", "CardError"} <= ends


def steps(action: Callable[[], Any]) -> int:
    """How many lines of Python and calls of C an action takes."""
    count = 0

    def trace(_frame: object, event: str, _argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except CardError:
        pass
    finally:
        sys.settrace(before)
    return count


ASKED = "## x\n\n### What was compared\n\n**task**: `a`\n\n**Backend**: `local`\n\n**Backend args**: `{}`\n\n"
ASKED += (
    "**Number of evaluation samples**: `All dataset`\n\nFixed parameters:\n* **a**: `b`\n\nBenchmarked parameters:\n"
)
QUALITY = f"{ASKED}* **p**: `1`\n\n#### Non-time metrics\n\n"


@pytest.mark.parametrize(
    "text",
    [
        lambda n: (
            QUALITY + "| row | role | m | `p` |\n|-|-|-|-|\n" + "".join(f"| {i} | x | 1 | 1 |\n" for i in range(n))
        ),
        lambda n: (
            f"{QUALITY}| row | role |{''.join(f' m{i} |' for i in range(n))} `p` |\n{'|-' * (n + 3)}|\n"
            f"| 0 | x |{' 1 |' * (n + 1)}"
        ),
        lambda n: QUALITY + "| row | role | `p` |\n|-|-|-|\n\n" + "| a |\n|-|\n\n" * n,
        lambda n: ASKED + "* **p**: " + ", ".join(["`1`"] * n) + "\n\n#### Non-time metrics\n",
        lambda n: f"{ASKED}* **{'` ' * n}{'``' * n}**: `1`\n\n#### Non-time metrics\n",
        lambda n: ASKED + "* **p**: `1`\n" * n,
        lambda n: "```x\n" * n,
        lambda n: "| " * n + "\n" + "|-" * n + "\n" + "|\n" * n,
    ],
    ids=range(8),
)
def test_reading_a_card_takes_time_linear_in_its_size(text):
    """Four times as many rows, columns, tables or values cost about four times as many steps, not sixteen."""
    few, many = (text(n) for n in (40, 160))
    steps(lambda: read_card(few))
    assert steps(lambda: read_card(many)) < 6 * steps(lambda: read_card(few))


def test_spans_of_code_are_found_in_one_pass():
    """A hundred thousand back-ticks that nothing closes, and as many spans, are read as they stand."""
    assert unescape("`" * 100_000 + " \\*") == "`" * 100_000 + " *"
    ticks = " ".join("`" * length for length in range(1, 600))
    assert unescape(f"{ticks}\\*") == f"{ticks}*"
    assert parse_code_spans(", ".join(["`a`"] * 50_000)) == ["a"] * 50_000


def test_more_cells_and_tables_than_any_card_has_are_refused():
    """A few letters a row may not become a table of millions of cells; nor may there be thousands of tables."""
    wide = "| a " * 2000 + "|\n" + "|-" * 2000 + "|\n" + "|\n" * 2000
    with pytest.raises(CardError, match="empty cells"):
        read_card(f"{QUALITY}{wide}")
    with pytest.raises(CardError, match="more than 1000 tables"):
        read_card(QUALITY + "| a |\n|-|\n\n" * 1100)
