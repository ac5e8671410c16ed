"""The order in which a pipeline asks for steps: what may show a mistake in the spec comes before what is slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchcard import Benchmark
from benchcard.run.pipeline import Pipeline
from benchcard.run.planned import planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import unresolved_sources
from benchcard.spec.plan import make_plan
from benchcard.steps.data import ShapeOutcome
from benchcard.steps.step import Outcome


@pytest.mark.parametrize(
    ("given", "phases"),
    [
        ({"task_args": {"use_cache": True}, "duration": 1}, ["token", "token", "prompt", "prompt"]),
        ({"task_args": {"use_cache": True}, "duration": 0}, []),
        ({"duration": 1}, []),
    ],
    ids=["a cache", "not timed", "no cache"],
)
def test_lengths_of_contexts_are_tried_before_anything_slow(given, phases):
    """The inputs of phases are asked for with the data, by the keys that the row has for them later; those of other
    rows, whose lengths fail alone, are not.
    """
    data = {"path": "me/data", "eval_split": "validation"}
    spec = Benchmark(task="text-generation", model="me/model", dataset=data, input_lengths=[8, 16], **given).spec
    plan, requests = make_plan(spec), []
    sources, traits = unresolved_sources(spec), traits_of(plan)

    def ask(request):
        requests.append(request)
        return Outcome(request.kind, request.key, Path(), ShapeOutcome(input_length=None))

    Pipeline(plan, sources, traits, ask, 1).prepare(plan[0])
    assert [request.kind for request in requests] == ["prepare", *("shape" for _ in phases)]
    assert [request.phase for request in requests[1:]] == phases
    later = {request.key for request in planned_steps(plan, sources, traits, 1)[0]}
    assert {request.key for request in requests} <= later
