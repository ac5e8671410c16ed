"""`node_exclusion: auto`, the whole way: what it finds, what it says, and that it is resumed and planned honestly."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchcard import Benchmark, Results
from benchcard.errors import SpecError
from benchcard.metrics.info import MetricInfo
from benchcard.run.auto_exclusion import AutoExclusion
from benchcard.run.planned import planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import unresolved_sources
from benchcard.spec.parameters import AUTO_DEFAULTS
from benchcard.spec.plan import make_plan
from benchcard.steps.evaluate import CompareOutcome, ScoreOutcome
from benchcard.steps.quantize import RankOutcome
from benchcard.steps.step import Outcome
from benchcard.utils.values import Interval

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
CULPRIT = "vit.layers.0.layernorm_before/Add"
AUTO = {"auto": {"max_drop": 1.0}}


def row_of(figure):
    """A row with a baseline, whose search goes by this figure."""
    return SimpleNamespace(baseline=lambda: True, shared=SimpleNamespace(traits=SimpleNamespace(excludes_by=figure)))


def benchmark(exclusions, **fixed):
    """The digits example at opset 13, whose decomposed layer norms do not survive static quantization."""
    return Benchmark(
        task="image-classification",
        model=str(DIGITS / "model"),
        dataset={
            "path": str(DIGITS / "data"),
            "eval_split": "test",
            "calibration_split": "train",
            "data_keys": {"primary": "image"},
            "ref_keys": ["label"],
        },
        grid={"node_exclusion": exclusions, "apply_quantization": [True, False]},
        fixed={
            "quantization_approach": "static",
            "operators_to_quantize": ["Add", "MatMul"],
            "calibration": {"method": "percentile", "num_calibration_samples": 32},
            "framework_args": {"opset": 13, "intra_op_num_threads": 1},
            **fixed,
        },
        duration=0,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A run with no exclusion, the search, a search that need not exclude anything, and what the search finds."""
    path = tmp_path_factory.mktemp("auto") / "run"
    return benchmark([[], "auto", AUTO, [CULPRIT]]).run(path, progress=False)


def row_with(results, exclusion):
    """The row of this exclusion."""
    return next(row for row in results.plan if row["node_exclusion"] == exclusion and row.quantized).row


@pytest.mark.slow
def test_the_search_repairs_a_collapsed_row_with_one_node(results):
    """Of 129 quantized nodes one is found guilty; with it in float32 the accuracy is within 0.01 of the baseline."""
    accuracy = dict(zip(results.quality["row"], results.quality["accuracy"]))
    row, baseline = row_with(results, "auto"), results.baseline
    assert accuracy[row_with(results, [])] < accuracy[baseline] - 0.03
    assert accuracy[row] >= accuracy[baseline] - 0.01
    search = results.records.records[row].search
    assert search.nodes == (CULPRIT,)
    assert search.is_minimal
    assert [trial.nodes for trial in search.trials] == [(), (CULPRIT,)]
    assert search.value == accuracy[row]


@pytest.mark.slow
def test_what_was_found_is_in_the_frame_and_can_be_pasted(results):
    """The frame has the list and the number of trials; the same list, given as such, is the same model and steps."""
    models = results.models.set_index("row")
    row, fixed = row_with(results, "auto"), row_with(results, [CULPRIT])
    assert json.loads(models.loc[row, "auto_exclusion"]) == [CULPRIT]
    assert models.loc[row, "auto_trials"] == 2
    assert models.loc[row, "nodes_excluded"] == 1
    assert (
        models.loc[row, "exclusions"] == f"`{CULPRIT}` matched 1 node in 1 place: 1 of them would have been quantized"
    )
    assert models.loc[fixed, "digest"] == models.loc[row, "digest"]
    outcomes = [results.records.records[each].outcomes.quantize.key for each in (row, fixed)]
    assert outcomes[0] == outcomes[1]
    assert models.loc[max(row, fixed), "reason"] == "the same nodes are excluded"
    told = results.explain(row)
    assert "found 1 node to exclude in 2 trials among 129 quantized nodes (none can be left out)" in told
    assert f'As a fixed list: node_exclusion: ["{CULPRIT}"]' in told


@pytest.mark.parametrize(
    ("unit", "baseline", "value", "point"),
    [("%", 90.0, 89.1, 1.0), ("share", 0.9, 0.891, 0.01), (None, 9.0, 8.991, 0.01)],
)
def test_a_point_may_be_lost_where_nobody_says(unit, baseline, value, point):
    """One of a metric in %, else 0.01: a row that loses less needs no exclusion."""

    class Known(AutoExclusion):
        def _baseline(self):
            values = ScoreOutcome(metrics={"f1": baseline}, readings={"f1": MetricInfo(True, unit)})
            return Outcome("score", "", Path(), values)

        def _score(self, made):
            return Outcome("score", "", Path(), ScoreOutcome(metrics={"f1": value}))

    search = Known(row_of(""), None, lambda nodes: None, **AUTO_DEFAULTS).search()
    assert (search.nodes, search.is_enough, search.max_drop) == ((), True, point)


@pytest.mark.parametrize(
    ("figure", "divergence", "expected"),
    [
        ("kl_mean", 0.049, ("kl_mean", 0.0, 0.049, 0.05, True)),
        ("kl_mean", 0.051, ("kl_mean", 0.0, 0.051, 0.05, False)),
        ("agreement", 0.051, ("perplexity", 20.0, 19.0, 0.01, True)),
        ("of another package", 0.051, ("perplexity", 20.0, 19.0, 0.01, True)),
    ],
)
def test_a_search_goes_by_the_figure_that_decides(figure, divergence, expected):
    """A better perplexity does not make up for outputs that are far from the baseline's: 0.05 nats may be lost. Where
    the figure was not measured, the first metric decides.
    """

    class Known(AutoExclusion):
        def _baseline(self):
            readings = {"perplexity": MetricInfo(False, "per token")}
            return Outcome("score", "", Path(), ScoreOutcome(metrics={"perplexity": 20.0}, readings=readings))

        def _score(self, made):
            return Outcome("score", "", Path(), ScoreOutcome(metrics={"perplexity": 19.0}))

        def _compare(self, made):
            return Outcome(
                "compare", "", Path(), CompareOutcome(figures={}, fidelity={"kl_mean": Interval(divergence)})
            )

        def _rank(self, made):
            return Outcome("rank", "", Path(), RankOutcome(nodes=()))

    search = Known(row_of(figure), None, lambda nodes: None, **AUTO_DEFAULTS).search()
    assert (search.metric, search.baseline, search.value, search.max_drop, search.is_enough) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"compare": 3, "score": 2}),
        # A run that an earlier version began keeps its search.
        ({"stored": {"excludes_by": ""}}, {"compare": 1, "score": 4}),
        ({"grid": {"apply_quantization": [True]}}, {"compare": 1, "score": 4}),
    ],
    ids=["divergence", "an earlier version", "no baseline"],
)
def test_trials_of_a_language_model_are_compared(fields, expected):
    """Trials are compared with the baseline, and only the row's own model is scored; by the first metric they are
    scored, as in runs of earlier versions, and where there is no baseline to compare with.
    """
    spec = Benchmark(
        task="text-generation",
        model="me/model",
        dataset={"path": "me/data", "eval_split": "validation"},
        grid=fields.get("grid", {"apply_quantization": [False, True]}),
        fixed={"quantization_approach": "dynamic", "node_exclusion": {"auto": {"max_trials": 3}}},
        duration=0,
    ).spec
    plan = make_plan(spec)
    stored = fields.get("stored")
    traits = traits_of(plan, None if stored is None else replace(traits_of(plan), **stored))
    steps = planned_steps(plan, unresolved_sources(spec), traits, 1)[-1]
    kinds = Counter(kind for kind, _ in {(step.kind, step.key) for step in steps})
    assert {kind: kinds[kind] for kind in expected} == expected


@pytest.mark.slow
def test_nothing_is_excluded_where_nothing_need_be(results):
    """Where the whole drop is allowed, one trial tells that nothing need be excluded."""
    row = row_with(results, AUTO)
    search = results.records.records[row].search
    assert (search.nodes, len(search.trials), search.is_enough) == ((), 1, True)
    assert "no node has to be excluded" in results.explain(row)
    digest = results.models.set_index("row")["digest"]
    assert digest[row] == digest[row_with(results, [])]


@pytest.mark.slow
def test_a_search_is_gone_on_with_where_it_was(results):
    """A trial that is taken away is made again, and no other; read before that, the row says that it is not done."""
    steps = results.path / "steps"
    trial = results.records.records[row_with(results, "auto")].outcomes.score
    stamps = {folder.name: (folder / "outcome.json").stat().st_mtime_ns for folder in steps.iterdir()}
    shutil.rmtree(trial.folder)
    row = row_with(results, "auto")
    assert "not been run yet" in Results.load(results.path).quality.loc[row, "failure"]
    again = benchmark([[], "auto", AUTO, [CULPRIT]]).run(results.path, progress=False)
    after = {folder.name: (folder / "outcome.json").stat().st_mtime_ns for folder in steps.iterdir()}
    assert {name for name in after if after[name] != stamps[name]} == {trial.folder.name}
    assert again.records.records[row].search == results.records.records[row].search


@pytest.mark.slow
def test_the_plan_counts_the_trials_at_the_most(results):
    """A plan says how many models a search may make, which is never less than it made."""
    plan = benchmark(["auto", {"auto": {"max_drop": 0.05, "max_trials": 5}}]).plan()
    adds = {str(exclusion): adds for exclusion, adds in zip(plan["node_exclusion"], plan["adds"])}
    assert "quantize x 16, evaluate x 16, score x 16" in adds["auto"]
    assert "quantize x 4, evaluate x 4, score x 4" in adds["{'auto': {'max_drop': 0.05, 'max_trials': 5}}"]
    made = len(list((results.path / "steps").glob("quantize-*")))
    assert made <= 16 + 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("automatic", 'or `auto`.*found "automatic" .write'),
        (["auto", "gelu"], "write auto without the list"),
        ({"auto": {"max_dorp": 0.1}}, "max_dorp.*did you mean `max_drop`"),
        ({"auto": {"max_drop": -1}}, "auto.max_drop"),
        ({"auto": {"max_trials": 0}}, "auto.max_trials"),
        ({"max_drop": 0.1}, "auto"),
    ],
    ids=str,
)
def test_mistakes_are_told_by_place(given, message):
    """What is neither a list nor `auto` with its limits is refused before anything is done."""
    with pytest.raises(SpecError, match=message):
        benchmark([given])
