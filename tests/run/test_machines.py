"""A grid of machines: a plan for each, and one table of all of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from tiny_run import SPEC, spec_with

from benchcard import Benchmark, Card, Results
from benchcard.card.facts import LATENCY_MEAN
from benchcard.card.layouts import plot
from benchcard.card.layouts.full_tables import COST, pictured
from benchcard.errors import BenchcardError, SpecError
from benchcard.publishing.bundle import run_json
from benchcard.publishing.facts import make_facts
from benchcard.run.directory import RunDirectory
from benchcard.run.machines import machine_plans, run_folders
from benchcard.run.runner import run_plan
from benchcard.utils.files import write_atomically
from benchcard.utils.parsing import load_json

TEXT = (
    SPEC
    + """
quantization_approach: dynamic
operators_to_quantize: [MatMul]
duration: 0.05
explain: false
framework_args: {intra_op_num_threads: 1}
backend: hf-jobs
backend_args: {bucket: mine/private, setup: "true"}
grid:
  backend_args: [{flavor: cpu-xl, price_per_hour: 2, namespace: private-org}, {flavor: cpu-basic}]
  apply_quantization: [false, true]
"""
)


@pytest.fixture(scope="module")
def benchmark(ground):
    return Benchmark.from_spec(spec_with(ground, TEXT, "machines.yaml"))


@pytest.fixture(scope="module")
def results(benchmark, tmp_path_factory):
    """The results of a grid of two machines, both of which are this one; the service names a price for the first."""
    path = tmp_path_factory.mktemp("machines") / "run"
    RunDirectory(path).begin(benchmark.spec, {"created": "2026-11-30T10:00:00+00:00"})
    machines = machine_plans(benchmark.configurations)
    for machine in machines:
        run_plan(machine.plan, path / "machines" / machine.name, progress=False)
    first = path / "machines" / machines[0].name / "run.json"
    content = load_json(first.read_bytes())
    content["machine"]["processor"] = "Another One"
    write_atomically(first, {**content, "price_per_hour": 1.0})
    write_atomically(path / "run.json", {**load_json((path / "run.json").read_bytes()), "sources": content["sources"]})
    return Results.load(path)


def test_each_machine_has_the_plan_of_a_run_of_its_own(benchmark):
    """Its spec has its arguments beside those that all share, and no price; rows are compared on one machine only."""
    plan = benchmark.configurations
    first, second = machine_plans(plan)
    assert (first.name[:-7], second.name[:-7]) == ("cpu-basic", "cpu-xl")
    assert first.plan.spec.get("backend_args") == {"bucket": "mine/private", "setup": "true", "flavor": "cpu-basic"}
    private = {"bucket": "mine/private", "setup": "true", "namespace": "private-org"}
    assert second.plan.spec.get("backend_args") == {**private, "flavor": "cpu-xl"}
    assert (first.rows, second.rows) == ((0, 1), (2, 3))
    for machine in (first, second):
        for row, own in zip(machine.rows, machine.plan, strict=True):
            assert plan[row]["apply_quantization"] == own["apply_quantization"]
            assert plan[row].baseline == machine.rows[own.baseline or 0]
    assert [row.axes["backend_args"] for row in plan] == [{"flavor": "cpu-basic"}] * 2 + [{"flavor": "cpu-xl"}] * 2


def test_max_rows_counts_the_rows_of_each_machine(ground):
    """Each machine has its baseline and as many others."""
    text = f"{TEXT}  per_channel: [false, true]\nmax_rows: 2\n"
    plan = Benchmark.from_spec(spec_with(ground, text, "rows.yaml")).configurations
    assert [len(machine.plan) for machine in machine_plans(plan)] == [2, 2]
    assert len(plan) == 4


@pytest.mark.parametrize(
    ("machines", "place", "problem"),
    [
        ("[{flavor: cpu-xl}, {namespace: a}]", "$.grid.backend_args[1]", "no name of a machine"),
        ("[{flavor: cpu-xl}, {flavor: cpu-xl, price_per_hour: 2}]", "$.grid.backend_args[1]", "again"),
        ("[{flavor: a}]\n  backend_args.image: [a, b]", "$.grid.backend_args.image", "a mapping for each machine"),
        ("[{flavor: a}]\nbaseline: {backend_args: {flavor: a}}", "$.baseline.backend_args", "a baseline of its own"),
        (
            "[{flavor: a, price_per_hour: 1}]\nprice_per_core_hour: 1",
            "$.grid.backend_args[0].price_per_hour",
            "one kind",
        ),
    ],
)
def test_values_that_are_no_machines_of_their_own_are_mistakes(ground, machines, place, problem):
    """Nothing is started, and each has its place."""
    text = TEXT.replace("[{flavor: cpu-xl, price_per_hour: 2, namespace: private-org}, {flavor: cpu-basic}]", machines)
    text = text.replace("  apply_quantization: [false, true]\n", "")
    with pytest.raises(SpecError) as caught:
        Benchmark.from_spec(spec_with(ground, text, "wrong.yaml"))
    (mistake,) = caught.value.mistakes
    assert mistake.place == place
    assert problem in str(mistake)


def test_machines_need_a_backend_with_jobs(ground, tmp_path):
    """Nothing is run, and there is no run directory."""
    benchmark = Benchmark.from_spec(spec_with(ground, TEXT.replace("backend: hf-jobs", "backend: local"), "local.yaml"))
    with pytest.raises(SpecError, match="a backend that starts a job for each"):
        benchmark.run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_price_changes_nothing_that_is_measured(benchmark, ground):
    """So a finished run may get another one."""
    cheaper = Benchmark.from_spec(spec_with(ground, TEXT.replace("price_per_hour: 2", "price_per_hour: 1"), "p.yaml"))
    assert cheaper.spec.digest == benchmark.spec.digest
    other = Benchmark.from_spec(spec_with(ground, TEXT.replace("cpu-xl", "cpu-performance"), "p.yaml"))
    assert other.spec.digest != benchmark.spec.digest


def test_all_machines_are_in_one_table(results):
    """Ratios are to the baseline of the machine; a price is the row's own, or that of the service."""
    assert results.failures.empty
    time, quality = results.time, results.quality
    assert time["backend_args"].tolist() == [{"flavor": "cpu-basic"}] * 2 + [{"flavor": "cpu-xl"}] * 2
    assert time["ratio"].tolist()[::2] == [1.0, 1.0]
    costs = [price / 3600 * 1e6 / each for price, each in zip((1, 1, 2, 2), time["throughput_per_s"])]
    assert time["cost_per_million"].tolist() == pytest.approx(costs)
    assert len({info.machine.processor for info in results.records.machines.values()}) == 2
    assert quality["accuracy"][:2].tolist() == quality["accuracy"][2:].tolist()
    assert results.models["same_model_as"].isna().all()
    assert results.baselines == (0, 2)
    assert len(results.noise) == 2
    cheapest = results.cheapest(max_drop=1.0)
    assert cheapest is not None
    assert cheapest.cost.value == time["cost_per_million"].min()
    assert str(cheapest).startswith(f"row {cheapest.row} (backend_args=")
    # A limit of fidelity leaves the baselines, whose outputs are compared with nothing.
    limited = results.cheapest(max_drop=1.0, fidelity={"kl_mean": 0.0})
    assert limited is not None
    assert limited.row in (0, 2)


def test_cards_name_machines_and_nothing_of_the_account(results, tmp_path):
    """The summary has a column of machines and costs, the environment what differs between them; the card is read."""
    card = results.card(max_drop=1.0)
    assert re.search(r"^\| *row \| configuration +\| machine +\|", card.text, re.MULTILINE)
    assert "**Cheapest at this quality: row " in card.text
    assert "Another One" in card.text
    tables = [path.read_text() for path in results.to_csv(tmp_path)]
    for text in (card.text, results.card("classic").text, json.dumps(run_json(results, [], {})), "".join(tables)):
        assert "cpu-basic" in text
        assert "private" not in text
    facts = card.facts()
    assert facts.cheapest == results.cheapest(max_drop=1.0).row
    assert facts.machines == ("cpu-basic", "cpu-basic", "cpu-xl", "cpu-xl")
    assert facts.environment["processor"]["cpu-basic"] != facts.environment["processor"]["cpu-xl"]
    assert facts.environment["price_per_hour"] == {"cpu-basic": 1.0, "cpu-xl": 2.0}
    assert (
        Card.from_facts(facts, slug="machines").body == Card.from_facts(make_facts(results, 1.0), slug="machines").body
    )


def test_the_picture_shows_cost_against_quality(results):
    """Its front has no row that another beats in both."""
    facts = make_facts(results, max_drop=1.0)
    points = plot._points(facts)
    costs = {row: cost.value for row, (cost, _) in points.items()}
    assert costs == dict(results.time["cost_per_million"])
    assert min(costs, key=lambda row: costs[row]) in plot._cheapest_rows(facts, points)
    # Machines without a price would be missing.
    first = facts.rows[0]
    unpriced = replace(first, times={shape: {**figures, COST: None} for shape, figures in first.times.items()})
    assert pictured(facts) == COST
    assert pictured(replace(facts, rows=(unpriced, *facts.rows[1:]))) == LATENCY_MEAN


def test_a_machine_from_which_nothing_has_come_yet_has_no_figures(benchmark, results, tmp_path):
    """Those of the others are shown."""
    path = tmp_path / "run"
    RunDirectory(path).begin(benchmark.spec, load_json((results.path / "run.json").read_bytes()))
    (path / "machines").mkdir()
    first = next(folder for folder in run_folders(results.path) if folder.name.startswith("cpu-basic"))
    (path / "machines" / first.name).symlink_to(first)
    half = Results.load(path)
    assert half.time["ratio"].notna().tolist() == [True, True, False, False]
    assert half.quality["accuracy"].notna().tolist() == [True, True, False, False]
    assert "2 of 4 configurations done" in half.card().text


def test_runs_of_several_machines_are_compared_one_by_one(results):
    """A change in time would be one of the machine; each machine's run is one by itself."""
    with pytest.raises(BenchcardError, match="has several machines: compare two of its `machines`"):
        results.compare(results)
    second = Results.load(next(folder for folder in run_folders(results.path) if folder.name.startswith("cpu-xl")))
    assert not second.compare(second, times=False).frame.empty
    # Of the card of all, its own rows are reproduced, and the times of the others cannot be compared.
    for run in (second, results):
        frame = run.verify(results.card().text).frame
        times = frame[frame["figure"].str.contains("latency_mean_ms")].set_index("row")["why"]
        assert times.str.startswith("another CPU").tolist() == [run is second, run is second, False, False]


def test_versions_that_differ_are_named_with_their_machines(results, monkeypatch):
    """A card of two images has both."""
    machines = {
        row: replace(info, versions={**info.versions, "onnxruntime": "9.9"}) if row > 1 else info
        for row, info in results.records.machines.items()
    }
    other = Results(replace(results.records, machines=machines))
    own = results.records.info.versions["onnxruntime"]
    versions = make_facts(other).environment["versions"]
    assert versions["onnxruntime"] == f"{own} (cpu-basic), 9.9 (cpu-xl)"


def test_a_run_may_be_continued_with_other_machines(benchmark, ground, tmp_path):
    """A wrong argument of one machine is corrected in the same folder; other changes need another one."""
    directory = RunDirectory(tmp_path / "run")
    directory.begin(benchmark.spec, {"created": "2026-11-30T10:00:00+00:00"})
    other = Benchmark.from_spec(spec_with(ground, TEXT.replace("cpu-xl", "cpu-performance"), "other.yaml"))
    directory.begin(other.spec, {})
    assert directory.info.digest == other.spec.digest
    kept = [machine.name for each in (benchmark, other) for machine in machine_plans(each.configurations)]
    assert kept[0] == kept[2]
    longer = Benchmark.from_spec(spec_with(ground, TEXT.replace("duration: 0.05", "duration: 1"), "longer.yaml"))
    with pytest.raises(SpecError, match="duration"):
        directory.begin(longer.spec, {})
