"""Runs whose rows have several baselines: each row is judged against its own."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
from click.testing import CliRunner
from tiny_run import SPEC, spec_with

from benchcard import Benchmark, Results
from benchcard.analysis.frames.noise import certificates
from benchcard.card.layouts import plot
from benchcard.card.layouts.full_tables import roles
from benchcard.cli.commands import _print_noise, main
from benchcard.errors import BenchcardError
from benchcard.publishing import facts
from benchcard.publishing.facts import make_facts
from benchcard.spec.plan import Configuration

# Four baselines: rows 0 and 2 are evaluated on all examples, rows 4 and 6 on one; rows 2 and 6 are timed otherwise.
GRID = """
grid:
  max_eval_samples: [null, 1]
  precision: [null, 0.5]
  apply_quantization: [true, false]
  quantization_approach: [dynamic]
fixed: {weights_dtype: uint8}
duration: 0.05
explain: false
"""


@pytest.fixture(scope="module")
def ran(ground, tmp_path_factory):
    """The results of the grid."""
    folder = tmp_path_factory.mktemp("baselines")
    return Benchmark.from_spec(spec_with(ground, SPEC + GRID, "baselines.yaml")).run(folder / "run", progress=False)


def test_each_baseline_has_a_choice_of_its_own(ran):
    """Each baseline has a choice among its own rows, and the reason names the baseline."""
    assert ran.baselines == (0, 2, 4, 6)
    for baseline in ran.baselines:
        found = ran.best(baseline=baseline)
        assert found.row in (baseline, baseline + 1)
        assert found.reason.startswith(f"of the rows compared with row {baseline}: ")
        others = [each.row for each in found.alternatives if "another baseline" in each.reason]
        assert others == [row for row in range(8) if row not in (baseline, baseline + 1)]
    assert ran.best() == ran.best(baseline=0)
    with pytest.raises(BenchcardError, match="row 1 is not a baseline; the baselines are: 0, 2, 4, 6"):
        ran.best(baseline=1)


def test_what_a_row_does_not_say_is_no_number(ran):
    """A parameter that is None among numbers is left out of the text and stays None as a value."""
    found = ran.best()
    assert found.parameters == dict(ran.plan[found.row].axes)
    assert "nan" not in found.explain()
    assert "NA" not in found.explain()


def test_the_card_says_what_to_ship_of_each(ran):
    """The card has a sentence for each baseline and the role of each row; no baseline is compared with itself. Reading
    the card gives the same facts.
    """
    told = make_facts(ran)
    card = ran.card()
    assert card.text.count("\n* **Ship row ") + card.text.count("\n* **Keep the baseline, row ") == 4
    assert [row.baseline for row in told.rows] == [0, 0, 2, 2, 4, 4, 6, 6]
    for row in (0, 2, 4, 6):
        assert roles(told, row)[0] == "baseline"
        assert roles(told, row + 1)[-1] == f"against row {row}"
        assert not any(name.startswith("accuracy_") for name in told.rows[row].figures)
    back = card.facts()
    for name in ("baseline", "chosen", "further", "pareto", "reasons"):
        assert getattr(back, name) == getattr(told, name), name
    assert [row.baseline for row in back.rows] == [row.baseline for row in told.rows]
    assert [each.baseline for each in told.noise] == ran.noise["baseline"].tolist() == [0, 2]
    assert [each.baseline for each in back.noise] == [0, 2]
    assert "it differs only in where it is from or how it is measured" in card.text
    for row in told.further:
        assert any(reason.startswith(f"row {row}, of the rows compared with row ") for reason in told.reasons)
    assert "so their figures are the same" not in card.text
    assert "\nWhy these rows:\n" in card.text
    assert "Why this row:" not in card.text


def test_models_that_were_timed_apart_are_told_apart(ran, monkeypatch, capsys):
    """If memory allowed only a part of a group at a time, the note names only the part without a noise floor."""
    every = certificates(ran.records)
    monkeypatch.setattr(facts, "certificates", lambda records: [*every, replace(every[0], ratio=None, models=4)])
    (note,) = (each for each in make_facts(ran).notes if "timed twice" in each)
    assert note.startswith("At batch size 1 the baseline, row 0, beside 3 models was not timed twice")
    _print_noise(ran.noise.assign(ratio=None, ratio_low=None, ratio_high=None).head(1))
    assert "the baseline was not timed twice, and so has no noise floor" in capsys.readouterr().out


def test_the_card_says_on_what_each_row_was_evaluated(ran, tmp_path):
    """If the number of samples is benchmarked, neither layout says one number for all rows."""
    for layout in ("full", "classic"):
        text = ran.card(layout).text
        assert "**Number of evaluation samples:** `benchmarked`" in text
        assert "All dataset" not in text
        path = ran.card(layout).save(tmp_path / f"{layout}.md")
        assert Results.from_card(path).spec.grid["max_eval_samples"] == [None, 1]
    told = make_facts(ran)
    assert [row.figures["samples"].value for row in told.rows] == [24] * 4 + [1] * 4
    assert told.data.samples is None
    assert "as many samples as the column `samples` says" in ran.card().text
    assert [row.figures["samples"].value for row in ran.card().facts().rows] == [24] * 4 + [1] * 4


def test_figures_of_some_examples_are_not_said_of_others(ran, monkeypatch):
    """A model and data of the Hub have no entry in `model-index` where rows were evaluated on different examples."""
    sources = ran.records.info.sources
    hub = {"local": False, "revision": "0a1b", "location": "me/data", "name": "me/model"}
    of_hub = replace(
        sources,
        **{
            part: {name: replace(source, **hub) for name, source in getattr(sources, part).items()}
            for part in ("models", "datasets")
        },
    )
    info = replace(ran.records.info, sources=of_hub)
    monkeypatch.setattr(ran, "records", replace(ran.records, info=info))
    assert not make_facts(ran).front_matter.model_index
    monkeypatch.setattr(Configuration, "evaluation_key", "one")
    assert make_facts(ran).front_matter.model_index


def test_fronts_are_of_the_same_examples(ran):
    """Rows evaluated on one example are on another front than those on all; the card and the plot have the rows of
    `pareto`.
    """
    told, front = make_facts(ran), ran.pareto()
    assert set(told.pareto) == set(front["row"])
    assert {row < 4 for row in told.pareto} == {True, False}
    assert {*told.pareto, *ran.baselines} <= plot._points(told).keys()


@pytest.fixture
def halved(ran, tmp_path):
    """The results where the baseline's second process died at once, for the rows that are timed to a precision."""
    from benchcard.measure.blocks import append_round, read_rounds

    shutil.copytree(ran.path, tmp_path / "run")
    for path in (tmp_path / "run").glob("times/*/part-*/outcome.json"):
        told = json.loads(path.read_text())
        if told["precision"] is None:
            continue
        died = {"name": told["baseline"], "twin": True, "stage": "open", "type": "Died", "message": "x", "log": ""}
        path.write_text(json.dumps({**told, "failures": [died]}))
        rounds = path.with_name("rounds.bin")
        timed = read_rounds(rounds)
        rounds.unlink()
        for each in timed:
            append_round(rounds, replace(each, blocks=tuple(one for one in each.blocks if not one.twin)))
    return Results.load(tmp_path / "run")


def test_a_second_process_that_died_is_told_of_its_own_baselines(halved):
    """The failure is that of the baselines with this precision; other rows of the same model keep their noise floor."""
    assert halved.noise["ratio"].notna().tolist() == [True, False]
    told = halved.failures
    assert list(zip(told["row"], told["missing"])) == [(2, "noise floor batch 1"), (6, "noise floor batch 1")]


def test_a_baseline_that_was_not_timed_twice_is_named(halved, capsys):
    """The card and the command line name the baseline that was not timed twice."""
    _print_noise(halved.noise)
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("noise"))
    assert first.startswith("noise, batch size 1: the baseline, row 0, timed twice, is")
    assert re.search(r" times as fast as itself, and [\d.]+ .*by processor time$", first)
    assert second.startswith("noise, batch size 1: the baseline, row 2, was not timed twice, and so has no")
    card = halved.card()
    assert [each.baseline for each in card.facts().noise] == [0]
    assert "At batch size 1 the baseline, row 2, was not timed twice: " in card.text
    assert "no baseline was timed twice" not in card.text


def test_the_command_line_tells_each_choice(ran):
    """`benchcard show` has a line with the best row of each baseline."""
    shown = CliRunner().invoke(main, ["show", str(ran.path)])
    assert shown.exit_code == 0, shown.output
    assert [f"of the rows compared with row {row}: " in shown.output for row in ran.baselines] == [True] * 4
    assert shown.output.count("\nbest: row ") == 4
    assert "the baseline, row 2, timed twice, is" in shown.output
    assert "nan" not in shown.output


def test_a_notebook_shows_each_choice(ran):
    """In a notebook the results begin with a choice for each baseline."""
    assert ran._repr_html_().count("of the rows compared with row") == 4


def test_two_runs_of_such_a_grid_can_be_compared(ran):
    """Runs whose parameters are None in some rows and numbers in others can be compared."""
    assert "accuracy" in str(ran.compare(ran))
