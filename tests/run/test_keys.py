"""Keys of steps: a run directory can be continued, and read, only while equal requests have equal keys."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from benchcard import Benchmark
from benchcard.quantization.settings import PARAMETERS
from benchcard.run.planned import planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import unresolved_sources
from benchcard.spec.plan import make_plan
from benchcard.steps.models import CastRequest, ConvertRequest, ExportOutcome, GraphReport
from benchcard.steps.quantize import QuantizeRequest
from benchcard.steps.step import Outcome

# For each kind of step: how many distinct ones the grid below asks for, and the SHA-256 of their sorted keys.
KEYS = {
    "calibrate": (1, "a645a4fc3b65fb8a"),
    "compare": (6, "6286d78626ccf7a1"),
    "evaluate": (36, "dad125e3ef4b3e8b"),
    "explain": (4, "eede883731d44aa0"),
    "export": (1, "985d1638e42085aa"),
    "metric": (1, "91cd6a4c67fe95c9"),
    "prepare": (1, "49cc574e64534595"),
    "quantize": (34, "2edc0815274dfba5"),
    "rank": (2, "dedea85eb6bca6ad"),
    "sample": (1, "2393aa70e0c510a0"),
    "score": (36, "bd7310c244a71521"),
    "shape": (2, "4ee8b05a6765a2f5"),
}


@pytest.fixture(scope="module")
def steps():
    """The steps of a grid that asks for every kind but `convert`, by kind."""
    spec = Benchmark(
        task="text-classification",
        model="me/model",
        dataset={"path": "me/data", "eval_split": "validation", "calibration_split": "train"},
        metrics=["accuracy", "bleu"],
        trust_remote_code=True,
        grid={
            "framework": ["onnxruntime", "pytorch"],
            "quantization_approach": ["dynamic", "static"],
            "apply_quantization": [True, False],
            "node_exclusion": [["layernorm"], "auto"],
        },
        fixed={
            "calibration": {
                "method": "percentile",
                "num_calibration_samples": 8,
                "calibration_histogram_percentile": 99.9,
            }
        },
        batch_sizes=[1, 8],
        input_lengths=[16],
        duration=1,
        seed=3,
    ).spec
    keys: dict[str, set[str]] = {}
    plan = make_plan(spec)
    for row in planned_steps(plan, unresolved_sources(spec), traits_of(plan), default_threads=2):
        for step in row:
            keys.setdefault(step.kind, set()).add(step.key)
    return keys


def test_every_kind_is_asked_for(steps):
    """The grid asks for these kinds of steps, each as often as before."""
    assert {kind: len(keys) for kind, keys in steps.items()} == {kind: count for kind, (count, _) in KEYS.items()}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_do_not_change(steps, kind):
    """The keys of a kind of step are those of every earlier version."""
    assert hashlib.sha256("".join(sorted(steps[kind])).encode()).hexdigest().startswith(KEYS[kind][1])


def test_the_key_of_a_conversion_does_not_change():
    """Only frameworks of other packages convert graphs, so this kind is not in the grid above."""
    graph = Outcome("export", "g" * 64, Path(), ExportOutcome(file="", digest="", size_bytes=0, report=GraphReport()))
    request = ConvertRequest(framework="numpy", arguments={"b": [1, 2], "a": None}, graph=graph)
    assert request.key == "4ba60ba4619d66ea0fb903e8fbd0307048d983ddc22356ab456dd2d5b2618806"


def test_the_keys_of_float16_and_of_weights_in_few_bits_do_not_change():
    """The grid above has neither: quantized rows of 8 bits have the keys that they had before there were bits."""
    graph = Outcome("export", "g" * 64, Path(), ExportOutcome(file="", digest="", size_bytes=0, report=GraphReport()))
    assert CastRequest(graph=graph).key == "33a953b5f472ddbc91631f3ba3e4c2fb07013ba33139d690b654c30fe3158b11"
    settings = dict.fromkeys(PARAMETERS) | {"bits": 4, "block_size": 32, "algorithm": "rtn"}
    request = QuantizeRequest(approach="weight_only", exclude=[], graph=graph, **settings)
    assert request.key == "9d3fb0e2337dd56ce805d2e52fa15f88ffce57879531c2d6b0e0b9abbebc9436"


def test_only_models_that_are_calibrated_draw_samples():
    """OpenVINO's models in float read none, so a split that is too small for the others does not fail their rows."""
    spec = Benchmark(
        task="text-classification",
        model="me/model",
        dataset={"path": "me/data", "eval_split": "validation", "calibration_split": "train"},
        metrics=["accuracy"],
        grid={"framework": ["openvino"], "framework_args": [{"dtype": "fp16"}, {"dtype": "int8"}]},
        fixed={"calibration": {"num_calibration_samples": 8}},
    ).spec
    plan = make_plan(spec)
    kinds = [
        {step.kind for step in row}
        for row in planned_steps(plan, unresolved_sources(spec), traits_of(plan), default_threads=2)
    ]
    assert [("convert" in row, "sample" in row) for row in kinds] == [(True, False), (True, True)]
