"""Tests of the division of a plan: rows that are compared are one part, which several nodes may begin together."""

from __future__ import annotations

import shutil

import pytest

from benchcard.run.directory import RunDirectory
from benchcard.run.parts import independent_parts, is_complete, stages_before
from benchcard.run.planned import planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import unresolved_sources
from benchcard.spec.plan import make_plan
from benchcard.spec.spec import read_spec


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({}, [(0, 1)]),
        ({"name_or_path": ["here/one", "here/two"]}, [(0, 1), (2, 3)]),
        # The same models, timed in the same way, whatever they are evaluated on.
        ({"max_eval_samples": [8, 16]}, [(0, 1, 2, 3)]),
        # Another seed, another timing: the models are equal, but never timed together.
        ({"seed": [0, 1]}, [(0, 1), (2, 3)]),
    ],
)
def test_rows_that_are_compared_or_timed_together_are_one_part(beans, axes, expected):
    """Parts have a baseline or timed models of their own."""
    if "name_or_path" in axes:
        del beans["model"]
    beans["grid"] = {**axes, "apply_quantization": [False, True]}
    beans["fixed"] = {}
    plan = make_plan(read_spec(beans))
    assert independent_parts(plan, unresolved_sources(plan.spec)) == expected


def test_a_part_has_the_steps_that_its_rows_have_in_the_whole(beans):
    """The keys of all steps are equal, so that the steps of parts are those of the whole plan."""
    del beans["model"]
    beans["grid"]["name_or_path"] = ["here/one", "here/two"]
    plan = make_plan(read_spec(beans))
    sources = unresolved_sources(plan.spec)

    def keys(plan):
        return [[step.key for step in steps] for steps in planned_steps(plan, sources, traits_of(plan), 1)]

    whole = keys(plan)
    parts = independent_parts(plan, sources)
    assert [len(rows) for rows in parts] == [18, 18]
    for rows in parts:
        part = plan.only(rows)
        assert keys(part) == [whole[row] for row in rows]
        assert [row.row for row in part] == list(range(18))
        assert [rows[row.baseline] for row in part] == [plan[row].baseline for row in rows]


STATIC = {"quantization_approach": ["static"], "per_channel": [False, True], "operators_to_quantize": [["Add"], None]}


@pytest.mark.parametrize(
    ("axes", "nodes", "expected"),
    [
        # The baseline, and one static row with the calibration that all share, come first.
        (STATIC, 2, [[(0, 1)], [(2, 4), (3,)]]),
        (STATIC, 3, [[(0, 1)], [(2,), (3,), (4,)]]),
        # One node calibrates while the other one makes the rows that do not need it.
        ({**STATIC, "quantization_approach": ["dynamic", "static"]}, 2, [[(0,)], [(1, 2, 3, 4), (5, 6, 7, 8)]]),
        # Rows that differ in how their model runs share the model.
        (
            {"operators_to_quantize": [["Add"], None], "framework_args.optimization_level": [1, 99]},
            2,
            [[(0,)], [(1, 2, 3), (4, 5)]],
        ),
        # A search and the row with its first trial share a model.
        ({"operators_to_quantize": [["Add"], None], "node_exclusion": [[], "auto"]}, 2, [[(0,)], [(1, 2), (3, 4)]]),
        ({"name_or_path": ["here/one", "here/two"], "per_channel": [False, True]}, 3, []),
        (
            {"name_or_path": ["here/one", "here/two"], "per_channel": [False, True]},
            4,
            [[(0,), (3,)], [(1,), (2,), (4,), (5,)]],
        ),
        (STATIC, 1, []),
        # Nothing is left to divide.
        ({}, 2, []),
        # Starting workers would take longer.
        ({**STATIC, "max_eval_samples": [1], "explain": [False]}, 2, []),
    ],
)
def test_a_part_with_several_nodes_is_divided_so_that_no_two_do_the_same_step(beans, axes, nodes, expected):
    """No planned step of two nodes is the same, but for those of the rows that come first."""
    if "name_or_path" in axes:
        del beans["model"]
    beans["grid"] = {**axes, "apply_quantization": [False, True]}
    beans["fixed"] = {}
    plan = make_plan(read_spec(beans))
    sources = unresolved_sources(plan.spec)
    parts = independent_parts(plan, sources)
    stages = stages_before(plan, sources, parts, nodes)
    assert [sorted(stage) for stage in stages] == expected
    for stage in stages:
        assert len(stage) <= nodes
    if stages:
        assert sorted(row for stage in stages for rows in stage for row in rows) == list(range(len(plan)))
        planned = planned_steps(plan, sources, traits_of(plan), 1)
        first = {step.key for rows in stages[0] for row in rows for step in planned[row]}
        chunks = [{step.key for row in rows for step in planned[row]} - first for rows in stages[1]]
        assert sum(map(len, chunks)) == len(set().union(*chunks))


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["steps/compare-*", "times/*/part-*/outcome.json"])
def test_a_run_is_complete_with_all_steps_and_times(results, tmp_path, missing):
    """One step or one outcome of a timing less, and it is not."""
    run = tmp_path / "run"
    shutil.copytree(results.path, run)
    plan = make_plan(results.spec)
    assert is_complete(RunDirectory(run), plan)
    found = next(run.glob(missing))
    shutil.rmtree(found) if found.is_dir() else found.unlink()
    assert not is_complete(RunDirectory(run), plan)
