"""Tests of the parts of a plan: rows that are compared with each other stay together, and a part is a plan."""

from __future__ import annotations

import shutil

import pytest

from benchcard.run.directory import RunDirectory
from benchcard.run.parts import independent_parts, is_complete
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
