"""Facts as plain data, the facts of published cards, and strategies that generate hostile ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from facts_as_data import from_data, to_data
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from benchcard.card.facts import (
    Data,
    Facts,
    FrontMatter,
    Measured,
    Metric,
    Noise,
    Row,
)
from benchcard.errors import CardError
from benchcard.utils.values import Disturbance, Failure, Interval, Shape

CARDS = ("vit-beans", "sst2-distilbert", "conll2003-distilbert")
DATA = Path(__file__).parents[1] / "data" / "cards"

SPECIALS = [
    "|",
    "\\|",
    "\\",
    "`",
    "``",
    "\n",
    "\r\n",
    "$$x$$",
    "<b>",
    "<!--",
    "-->",
    "&amp;",
    "*",
    "_a_",
    "[x](y)",
    "#",
]
SPECIALS += [
    "None",
    "True",
    "1e5",
    "'",
    '"',
    "{'a': 1}",
    "- ",
    ": ",
    "\u202eabc",
    "שלום",
    "\u2028",
    "\x00",
    "é" * 300,
    " ",
]
texts = st.one_of(st.text(max_size=12), st.lists(st.sampled_from(SPECIALS), max_size=5).map("".join))
names = st.from_regex(r"[a-z][a-z_0-9]{0,12}", fullmatch=True)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
numbers = st.floats(-1e6, 1e6)


def facts_of(card: str) -> Facts:
    """Return the facts of a published card."""
    return from_data(YAML(typ="safe", pure=True).load(DATA / f"{card}.yaml"))


def figure_strategy(decimals: int | None = None, intervals: bool = False) -> st.SearchStrategy[Interval | None]:
    """Generate figures with at most that many decimals, or None."""
    value = numbers if decimals is None else numbers.map(lambda number: round(number, decimals) + 0.0)
    plain = value.map(Interval)
    if intervals:
        plain |= st.tuples(value, value).map(lambda pair: Interval(pair[0], min(pair), max(pair)))
    return st.none() | plain


@st.composite
def facts_strategy(
    draw: st.DrawFn, intervals: bool = True, decimals: tuple[int | None, int | None] = (None, None)
) -> Facts:
    """Generate facts with hostile texts in every place that takes a text."""
    parameters = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    metrics = draw(st.lists(names, max_size=2, unique=True))
    shapes = draw(
        st.lists(st.builds(Shape, st.integers(1, 64), st.none() | st.integers(1, 512)), max_size=2, unique=True)
    )

    def measured() -> Measured:
        return Measured(
            {name: draw(figure_strategy(decimals[0], intervals)) for name in metrics},
            {
                shape: {
                    key: draw(figure_strategy(decimals[1], intervals))
                    for key in ("latency_mean_ms", "throughput_per_s")
                }
                for shape in shapes
            },
        )

    rows = []
    for _ in range(draw(st.integers(0, 3))):
        own = measured()
        rows.append(
            Row(
                parameters={name: draw(values) for name in parameters},
                metrics=own.metrics,
                times=own.times,
                failure=draw(st.none() | st.builds(Failure, texts, texts, texts)),
            )
        )
    return Facts(
        task=draw(texts),
        backend=draw(texts),
        backend_args=draw(st.dictionaries(texts, values, max_size=2)),
        max_eval_samples=draw(st.none() | st.integers(1, 10**6)),
        fixed=draw(st.dictionaries(names, values, max_size=4)),
        benchmarked={name: draw(st.lists(values, min_size=1, max_size=3)) for name in parameters},
        metrics=tuple(Metric(name) for name in metrics),
        shapes=tuple(shapes),
        duration_s=draw(st.none() | st.integers(0, 100).map(float) | st.floats(0, 1e3)) if shapes else None,
        rows=tuple(rows),
        front_matter=FrontMatter(pipeline_tag=draw(st.none() | names), tags=tuple(draw(st.lists(names, unique=True)))),
    )


@pytest.mark.parametrize("card", CARDS)
def test_facts_of_published_cards_survive_json(card):
    """The facts of a published card are the same after a round trip through JSON."""
    facts = facts_of(card)
    assert from_data(json.loads(json.dumps(to_data(facts)))) == facts


@settings(max_examples=60, deadline=None)
@given(facts_strategy())
def test_any_facts_survive_their_plain_form(facts):
    """Any facts are the same after a round trip through plain data."""
    assert from_data(to_data(facts)) == facts


def test_every_field_survives_json():
    """Fields that only the full layout shows survive a round trip too, with intervals and failures."""
    shape = Shape(4, None)
    row = Row(
        parameters={"a": [1, {"b": None}]},
        metrics={"f1": Interval(0.5, 0.4, 0.6), "em": None},
        times={shape: {"latency_mean_ms": Interval(1.5)}},
        figures={"size_mb": Interval(12)},
        failure=Failure("time", "Signal", "SIGKILL", "log\nend"),
        original=Measured({"f1": Interval(0.7)}, {shape: {"latency_mean_ms": Interval(2.0)}}),
        same_model_as=0,
        reasons=("equal graphs",),
    )
    facts = Facts(
        task="t",
        backend="local",
        benchmarked={"a": [[1, {"b": None}]]},
        metrics=(Metric("f1", "%", True, "words"), Metric("em")),
        comparisons=(Metric("kl_mean", "nats", False, "d"),),
        shapes=(shape,),
        rows=(row,),
        front_matter=FrontMatter(license="mit", model_index=({"name": "m", "results": []},), extra={"x": [1]}),
        data=Data(dataset="glue", config="sst2", samples=3, on_hub=True),
        baseline=0,
        chosen=0,
        reasons=("fast",),
        pareto=(0,),
        settings={"duration": 1, "batch_sizes": [1]},
        noise=(
            Noise(
                shape=Shape(1),
                ratio=Interval(1.0, 0.99, 1.01),
                models=2,
                rounds=10,
                disturbances=(Disturbance("others", "a"),),
            ),
        ),
        environment={"cpu": "x"},
        run={"id": "r"},
        notes=("n",),
        title="T",
    )
    assert from_data(json.loads(json.dumps(to_data(facts)))) == facts


@pytest.mark.parametrize(
    "data",
    [
        {"task": "t"},
        {"task": "t", "backend": "b", "colour": "red"},
        {"task": "t", "backend": "b", "rows": [3]},
        {"task": "t", "backend": "b", "rows": [{"parameters": {}, "metrics": {"a": {"low": 1, "high": 2}}}]},
    ],
)
def test_data_of_another_form_are_refused(data):
    """Data that are not facts raise a `CardError`."""
    with pytest.raises(CardError, match=r"facts|rows"):
        from_data(data)
