"""Thousands of hostile values in the cells and texts of both layouts: a real parser finds the tables whole, and what is
read back is what was written.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from test_card_full import tables_in

from benchcard.card import classic, full
from benchcard.card.facts import Data, Facts, Figure, Interval, Metric, Row, Shape
from benchcard.card.read import read

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
        generator.choice([None, True, False, 0, -1, 1.5, 1e-12, 10**20]),
    ]
    return generator.choice(kinds)


def hostile_facts(seed: int) -> Facts:
    """A card of twelve rows with three parameters each, all of them hostile."""
    generator = random.Random(seed)
    names = ("one", "two | `x`", "three")
    rows = tuple(
        Row(
            parameters={name: hostile_value(generator) for name in names},
            metrics={"accuracy": Figure(0.5, Interval(0.4, 0.6)) if generator.random() < 0.8 else None},
            times={SHAPE: {"latency_mean_ms": Figure(1.25), "throughput_per_s": Figure(800.0)}},
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
        back = read(text)
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
