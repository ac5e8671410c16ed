"""The report of a run: the figures of its frames, whatever columns they have, and the text of its card."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from browser import browser
from click.testing import CliRunner

from benchcard import Results
from benchcard.card.layouts import full_tables
from benchcard.cli.commands import main
from benchcard.errors import BenchcardError
from benchcard.publishing.facts import make_facts
from benchcard.report import run
from benchcard.utils.values import Interval, Shape

__all__ = ["browser"]


def data_of(text: str) -> dict:
    """Return the JSON of a page."""
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.fixture(scope="module")
def text(results):
    """The report of the small grid."""
    return run.to_html(results)


def axis(text: str, title: str) -> list:
    """Return the figures of a column."""
    return next(each["figures"] for each in data_of(text)["axes"] if each["title"] == title)


def test_a_row_for_each_configuration_and_shape(results, text):
    """The rows are those of the frame `time`, with the quality, size and memory of their configuration."""
    data = data_of(text)
    assert data["labels"] == results.time["row"].astype(str).tolist()
    quality = results.quality.set_index("row").loc[results.time["row"]]
    assert [each[0] for each in axis(text, "accuracy")] == pytest.approx(quality["accuracy"].tolist())
    assert [each[1:] for each in axis(text, "accuracy")] == [
        pytest.approx(bounds) for bounds in quality[["accuracy_low", "accuracy_high"]].to_numpy().tolist()
    ]
    assert [each[0] for each in axis(text, "latency (ms)")] == pytest.approx(results.time["latency_mean_ms"].tolist())
    assert {"size (MB)", "memory (MB)"} <= {each["title"] for each in data["axes"]}
    assert data["filters"][0]["title"] == "inputs"
    assert data["filters"][0]["required"]
    assert set(data["filters"][0]["values"]) == {"batch size 1", "batch size 3"}
    assert {"framework", "quantization_approach"} <= {each["title"] for each in data["filters"]}


def test_the_ratio_is_that_of_the_card(results, text):
    """The intervals of ratios hold for all rows at once, as in the card's text on the page."""
    gains = results.gains("latency").by_row
    ratios = axis(text, "times as fast as the baseline")
    for row, batch, figure in zip(results.time["row"], results.time["batch_size"], ratios):
        gain = next(gain for gain in gains[row] if gain.shape.batch_size == batch)
        assert figure[0] == pytest.approx(gain.ratio.value)
        low, high = gain.ratio.low, gain.ratio.high
        # An interval over more than two powers of ten says nothing, and is not shown.
        assert figure[1:] == pytest.approx([low, high] if low and high <= 100 * low else [])


def test_a_ratio_that_may_be_chance_is_marked(results, text):
    """The table has the mark of the card on as many ratios, at all shapes."""
    body = re.search(r'id="rows".*?</table>', text, re.DOTALL)[0]
    facts = make_facts(results)
    unsure = [
        full_tables.is_undetectable(row, shape)
        for index, row in enumerate(facts.rows)
        for shape in facts.shapes
        if index not in facts.baselines
    ]
    assert any(unsure)
    assert body.count(",\xa0not detectable") == sum(unsure)


def test_marks_are_those_of_the_card(results, text):
    """The baseline, the recommended row and the Pareto set of the run are marked."""
    data, best = data_of(text), results.best().row
    kinds = dict(zip(data["labels"], data["kinds"]))
    assert kinds[str(best)] == "recommended"
    assert kinds[str(results.baseline)] in ("baseline", "recommended")
    front = {label for label, role in zip(data["labels"], data["roles"]) if "Pareto" in role}
    assert front == set(results.pareto()["row"].astype(str))


def test_fidelity_is_a_figure_of_the_table(results, text):
    """The divergence from the baseline has its interval, three significant digits, and less of it is better."""
    figures = axis(text, "kl_mean (nats)")
    expected = results.quality.set_index("row").loc[results.time["row"], "kl_mean"]
    assert [each and each[0] for each in figures] == pytest.approx([None if v != v else v for v in expected])
    axes = {each["title"]: each["better"] for each in data_of(text)["axes"]}
    assert [axes[name] for name in ("kl_mean (nats)", "agreement", "recovery (%)")] == [-1, 1, 1]


def test_a_cost_is_an_axis_where_a_price_is_given(results):
    """The frame has it only then; less is better."""
    spec = replace(results.spec, fixed={**results.spec.fixed, "price_per_hour": 0.5})
    priced = Results(replace(results.records, plan=replace(results.plan, spec=spec)))
    title = full_tables.CPU_COLUMNS["cost_per_million"]
    assert title not in [each["title"] for each in data_of(run.to_html(results))["axes"]]
    axes = {each["title"]: each for each in data_of(run.to_html(priced))["axes"]}
    assert axes[title]["better"] == -1
    expected = priced.time["cost_per_million"].tolist()
    assert [figure and figure[0] for figure in axes[title]["figures"]] == pytest.approx(expected)


def test_times_of_all_phases_stand_in_each_row(results):
    """A row of either phase has the time per token, the time to first token and both tokens per second under the
    headers of the card, and the ratio of its own phase; rows without phases keep their columns beside them.
    """
    facts, alone = make_facts(results), Shape(1, 8)
    figures = {
        Shape(1, 8, "token"): {"latency_mean_ms": 2.0, "throughput_per_s": 500.0, "tokens_per_s": 500.0, "ratio": 1.5},
        Shape(1, 8, "prompt"): {
            "latency_mean_ms": 4.0,
            "throughput_per_s": 250.0,
            "tokens_per_s": 2000.0,
            "ratio": 2.0,
        },
    }
    single = {alone: {"latency_mean_ms": 8.0, "throughput_per_s": 125.0, "tokens_per_s": 1000.0, "ratio": 1.0}}
    times = [figures, *([single] * (len(facts.rows) - 1))]
    rows = tuple(
        replace(
            row, times={shape: {name: Interval(value) for name, value in each.items()} for shape, each in of.items()}
        )
        for row, of in zip(facts.rows, times)
    )
    facts = replace(facts, rows=rows, shapes=(*figures, alone))
    frame = pd.DataFrame(
        {"row": row, **asdict(shape), **each} for row, of in enumerate(times) for shape, each in of.items()
    )
    stand_in = SimpleNamespace(
        models=results.models, quality=results.quality, time=frame, describe_files=lambda max_drop: []
    )
    columns = {column.title: column for column in run._rows(stand_in, facts, None).columns}
    values = {title: [each and each.value for each in column.figures[:3]] for title, column in columns.items()}
    expected = {
        "time per token (ms)": [2.0, 2.0, None],
        "generation (tokens/s)": [500.0, 500.0, None],
        "time to first token (ms)": [4.0, 4.0, None],
        "prefill (tokens/s)": [2000.0, 2000.0, 1000.0],
        "throughput (prompts/s)": [250.0, 250.0, None],
        "times as fast as the baseline": [1.5, 2.0, 1.0],
        "latency (ms)": [None, None, 8.0],
        "throughput (samples/s)": [None, None, 125.0],
    }
    assert {title: values[title] for title in expected} == expected
    assert "throughput (tokens/s)" not in columns
    assert [columns[title].higher_is_better for title in [*expected][:4]] == [False, True, False, True]


def test_the_page_explains_itself(results, text):
    """It has a reason for each row, the noise certificate, and how to run it again."""
    for row in range(len(results.plan)):
        assert f'id="row-{row}"' in text
        assert f'href="#row-{row}"' in text
    for title in ("Noise", "How to reproduce it", "Limitations"):
        assert re.search(title, text, re.IGNORECASE), title
    assert "benchcard run" in text


def test_the_page_names_the_layers_that_cost_most(results, text, tmp_path):
    """They are in a table, where outputs of any row are far from float32."""
    assert "Which layers cost the outputs most" not in text
    shutil.copytree(results.path, tmp_path / "run")
    path = next((tmp_path / "run").glob("steps/explain-*/outcome.json"))
    outcome = json.loads(path.read_text())
    far = {"snr_db": 12.0, "max_abs_difference": 1.0, "is_finite": True}
    layer = {"node": "/a/MatMul", "operator": "MatMul", "effect": far, "alone": far, "together": far}
    outcome["values"] |= {"outputs": far, "layers": [layer]}
    path.write_text(json.dumps(outcome))
    page = run.to_html(Results.load(tmp_path / "run"))
    assert "Which layers cost the outputs most" in page
    assert "<td>/a/MatMul</td><td>MatMul</td>" in page


def test_the_page_has_no_folder_of_this_machine(results, text):
    """Absolute paths are shortened, as on a card."""
    assert str(results.path.parent) not in text
    assert str(Path.home()) + "/" not in text


def test_the_first_plot_is_no_flat_line(results):
    """Where all rows have the same metric, the leading figure of fidelity is the vertical axis."""
    facts = make_facts(results)
    varied = tuple(replace(row, metrics={"accuracy": Interval(index / 100)}) for index, row in enumerate(facts.rows))
    assert run._quality_axis(replace(facts, rows=varied)) == "accuracy"
    equal = tuple(replace(row, metrics=facts.rows[0].metrics) for row in facts.rows)
    assert run._quality_axis(replace(facts, rows=equal)) == "kl_mean (nats)"
    assert run._quality_axis(replace(facts, rows=equal, comparisons=())) == "accuracy"


def test_the_report_goes_by_the_limit_of_fidelity(results, tmp_path):
    """The command takes the option of the card: a limit of a figure that the task does not have is refused."""
    arguments = ["report", str(results.path), "--output", str(tmp_path / "r.html"), "--fidelity"]
    assert CliRunner().invoke(main, [*arguments, "kl_mean=0.5"]).exit_code == 0
    done = CliRunner().invoke(main, [*arguments, "cosine_mean=0.9"])
    assert done.exit_code != 0
    assert "the figure of fidelity `cosine_mean` was not computed" in done.output


def test_a_report_is_written(results, text, tmp_path):
    """`Results.report` and `benchcard report` write the same file, and say where; a wrong place is reported."""
    assert results.report(tmp_path / "one.html").read_text(encoding="utf-8") == text
    done = CliRunner().invoke(main, ["report", str(results.path), "-o", str(tmp_path / "two.html")])
    assert (done.exit_code, done.output) == (0, f"report: {tmp_path / 'two.html'}\n")
    assert (tmp_path / "two.html").read_text(encoding="utf-8") == text
    with pytest.raises(BenchcardError, match="missing"):
        results.report(tmp_path / "missing" / "one.html")


def test_an_unfinished_run_has_a_report(results, tmp_path):
    """Rows without times or figures are rows all the same, and the page says that the run is not finished."""
    copy = tmp_path / "run"
    shutil.copytree(results.path, copy)
    shutil.rmtree(copy / "times")
    for folder in (copy / "steps").glob("evaluate-*"):
        shutil.rmtree(folder)
    text = run.to_html(Results.load(copy))
    assert set(data_of(text)["labels"]) == {str(row.row) for row in results.plan}
    assert "This run is not finished" in text


def test_a_browser_shows_the_report(browser, results, text):
    """A whole report works in a browser: its rows at one shape, their points, and sorted tables of the card."""
    result = browser(
        text,
        """const rows = [...document.querySelectorAll('#rows tbody tr')].filter(row => !row.hidden);
        const headers = document.querySelectorAll('details table.sortable th button');
        headers.forEach(each => each.click());
        return [rows.length, document.querySelectorAll('.point').length, headers.length > 0, document.title,
          performance.getEntriesByType('resource').length];""",
    )
    assert result[0] == len(results.plan)
    assert 0 < result[1] <= len(results.plan)
    assert result[2:] == [True, re.search("<title>(.*?)</title>", text)[1], 0]
