"""A budget: how long a run is expected to take, and what is chosen so that it keeps within the budget."""

from __future__ import annotations

import json

import pytest
from tiny_run import SPEC, spec_with

from benchcard import Benchmark, SpecError
from benchcard.run.budget import estimate, within_budget
from benchcard.spec.plan import make_plan
from benchcard.spec.schema import parse_duration
from benchcard.spec.spec import load_spec

GRID = """
grid:
  framework: [onnxruntime, pytorch]
  quantization_approach: [dynamic]
  per_channel: [false, true]
  reduce_range: [false, true]
  apply_quantization: [true, false]
"""


@pytest.fixture
def spec(ground):
    """Return the spec of six rows with more lines, as a function."""
    return lambda more="", name="budget.yaml": load_spec(spec_with(ground, SPEC + GRID + more, name))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2 h", 7200), ("45", 45), ("1H 1M 1S", 3661)]
    + [(text, None) for text in ("", "m", "ten", "-5m", "1.5h", "10m5h", "1d")],
)
def test_times_are_read(text, seconds):
    """Hours, minutes and seconds, in this order."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("value", ["soon", "0s", 0, -1, True, [10], "''"])
def test_what_is_no_time_is_a_mistake(spec, value):
    """The message has the place and examples."""
    with pytest.raises(SpecError) as raised:
        spec(f"budget: {json.dumps(value)}\n")
    assert [mistake.place for mistake in raised.value.mistakes] == ["$.budget"]
    assert "`10m`" in raised.value.mistakes[0].expected


@pytest.mark.parametrize("name", ["budget", "max_rows"])
def test_a_grid_has_one_budget(spec, name):
    """A budget is for the whole run."""
    with pytest.raises(SpecError, match=f"write `{name}` outside of `grid`"):
        spec(f"  {name}: [60, 90]\n")


def test_more_of_anything_takes_longer(spec, tmp_path):
    """Seconds of timing, shapes, rows, examples and larger models: each counts."""

    def expected(more=""):
        return estimate(make_plan(spec(more)))

    least = expected("duration: 1\nmax_eval_samples: 10\nmax_rows: 3\n")
    assert expected("duration: 2\nmax_eval_samples: 10\nmax_rows: 3\n").timing_s > least.timing_s + 5
    assert expected("duration: 1\nmax_eval_samples: 10\nmax_rows: 3\nbatch_sizes: [1, 2]\n").timing_s > least.timing_s
    more_rows = expected("duration: 1\nmax_eval_samples: 10\n")
    assert (more_rows.timing_s > least.timing_s, more_rows.steps_s > least.steps_s) == (True, True)
    assert expected("duration: 1\nmax_eval_samples: 100000\nmax_rows: 3\n").steps_s > least.steps_s
    elsewhere = spec("duration: 1\nmax_eval_samples: 10\nmax_rows: 3\n")
    elsewhere.fixed["name_or_path"] = "someone/model"  # of unknown size
    assert estimate(make_plan(elsewhere)).steps_s > least.steps_s + 30
    assert "assuming" not in str(least)
    assert str(estimate(make_plan(elsewhere))).endswith("(assuming a model of 400 MB)")
    assert str(expected("duration: 1\n")).endswith("(assuming 1000 examples to evaluate)")


def test_the_last_rows_are_left_out_but_never_a_baseline(spec):
    """`max_rows` keeps the baseline, and the first other rows in the order of the table."""
    every, first = make_plan(spec()), make_plan(spec("max_rows: 3\n"))
    assert (len(every), len(first)) == (6, 3)
    assert [row.axes for row in first] == [row.axes for row in every][:3]
    assert len(make_plan(spec("max_rows: 1\n"))) == 1
    assert [row.axes for row in make_plan(spec("max_rows: 50\n"))] == [row.axes for row in every]
    both = "  dataset.eval_split: [validation, train]\n"  # two baselines
    every, few = make_plan(spec(both)), make_plan(spec(f"{both}max_rows: 4\n"))
    baselines = {row.baseline for row in every}
    kept = [row.row for row in every if row.row in baselines or row.row < 4]
    assert (len(baselines), len(kept)) == (2, 4)
    assert [row.axes for row in few] == [row.axes for row in every if row.row in kept]
    assert [row["apply_quantization"] for row in make_plan(spec(f"{both}max_rows: 1\n"))] == [False, False]


@pytest.mark.parametrize("budget", ["30s", "1m", "2m", "5m", "1h"])
def test_a_run_is_chosen_that_fits(spec, tmp_path, budget):
    """The larger the budget, the more is measured; what is chosen fits by the estimate."""
    fitting = within_budget(spec(f"budget: {budget}\n"), tmp_path)
    assert estimate(make_plan(fitting)).total_s <= parse_duration(budget)
    assert {"duration", "max_eval_samples", "max_rows"} <= fitting.fixed.keys()
    tighter = within_budget(spec("budget: 25s\n"), tmp_path)
    assert estimate(make_plan(tighter)).total_s <= estimate(make_plan(fitting)).total_s


def test_what_the_spec_has_stays(spec, tmp_path):
    """A duration of the user is kept, also null for all examples, and other things are chosen around it."""
    fitting = within_budget(spec("budget: 2m\nduration: 10\nmax_eval_samples: 7\n"), tmp_path)
    assert (fitting.get("duration"), fitting.get("max_eval_samples")) == (10, 7)
    assert fitting.get("max_rows") < 6
    fitting = within_budget(spec("budget: 2m\nmax_eval_samples: null\nmax_rows: null\n"), tmp_path)
    assert [fitting.get(name) for name in ("max_eval_samples", "max_rows")] == [None, None]
    assert fitting.notes[-1].startswith("a budget of 2 min 0 s gives ")


def test_no_more_examples_than_there_are(spec, tmp_path):
    """The rows of the split are counted, and the estimate is that of these. Of a plan nothing is counted."""
    assert within_budget(spec("budget: 1h\n"), tmp_path).get("max_eval_samples") == 24
    assert within_budget(spec("budget: 1h\n")).get("max_eval_samples") == 5000


def test_the_note_names_what_is_left_out(spec, tmp_path):
    """Rows that do not fit are named by their parameters."""
    fitting = within_budget(spec("budget: 25s\nduration: 1\n"), tmp_path)
    kept = {row.label for row in make_plan(fitting)}
    left_out = [row.label for row in make_plan(spec()) if row.label not in kept]
    assert fitting.notes[-1].endswith(f", and leaves out {'; '.join(left_out)}")
    assert "at most" in fitting.notes[-1]
    assert fitting.get("budget") is None


@pytest.mark.parametrize(("more", "hint"), [("", ""), ("duration: 15\n", "the spec has `duration`")])
def test_a_budget_that_is_too_small_is_a_mistake(spec, tmp_path, more, hint):
    """The message has the least that can be run, and what of the spec prevents less."""
    with pytest.raises(SpecError, match=r"smaller grid, found 5 s, while the least .* @ \$\.budget") as raised:
        within_budget(spec(f"budget: 5s\n{more}"), tmp_path)
    assert raised.value.mistakes[0].hint.startswith(hint)
    everything = "duration: 15\nmax_eval_samples: 5\nmax_rows: 6\n"
    with pytest.raises(SpecError, match="the least that can be run"):
        within_budget(spec(f"budget: 5s\n{everything}"), tmp_path)


@pytest.mark.slow
def test_a_run_keeps_what_was_chosen(ground, tmp_path, monkeypatch, capsys):
    """The run's spec has the choice in place of the budget; a run that continues keeps it, and so does its card."""
    path = spec_with(ground, SPEC + GRID + "budget: 40s\nduration: 0.2\nexplain: false\n")
    results = Benchmark.from_spec(path).run(tmp_path / "run")
    lines = capsys.readouterr().err.splitlines()
    assert "budget" not in results.spec.fixed
    assert {"max_rows", "max_eval_samples"} <= results.spec.fixed.keys()
    assert len(results.plan) == results.spec.fixed["max_rows"]
    assert any(note.startswith("a budget of 40 s gives at most ") for note in results.notes)
    assert any(line.startswith("expected: about ") for line in lines)
    assert any(line.startswith("took ") and ", expected about " in line for line in lines)
    monkeypatch.setattr("benchcard.run.budget.estimate", None)
    again = Benchmark.from_spec(path).run(tmp_path / "run")
    assert again.spec == results.spec
    assert again.notes == results.notes
    assert "expected" not in capsys.readouterr().err
    card = results.card().save(ground / "budget.md")
    assert Benchmark.from_card(card).spec.fixed["max_rows"] == results.spec.fixed["max_rows"]


def test_a_budget_replaces_that_of_the_file(ground, tmp_path):
    """Python, YAML and the command line choose the same rows, examples and seconds."""
    path = spec_with(ground, SPEC + GRID + "fixed: {budget: 1h}\n", "hour.yaml")
    chosen = [
        within_budget(benchmark.spec, tmp_path)
        for benchmark in (
            Benchmark.from_spec(path, budget="1m"),
            Benchmark.from_spec(path, budget=60),
            Benchmark.from_spec(spec_with(ground, SPEC + GRID + "budget: 1m\n", "minute.yaml")),
        )
    ]
    values = [[spec.fixed[name] for name in ("duration", "max_eval_samples", "max_rows")] for spec in chosen]
    assert values[0] == values[1] == values[2] != [15, 5000, 6]
