"""Requests to SageMaker, against the service model that botocore ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchcard import Benchmark
from benchcard.backends.job import Job
from benchcard.backends.remote import RemoteBackend
from benchcard.measure.machine import this_machine
from benchcard.spec.spec import load_spec

pytest.importorskip("boto3", reason="the extra `sagemaker` is not installed")

from benchcard.backends.sagemaker import request

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("spot", [False, True])
def test_the_request_is_valid(spot):
    """Names, lengths and required fields are those of the service model, with the longest names that we give."""
    import botocore.session
    from botocore.validate import validate_parameters

    arguments = {
        "instance_type": "ml.m5.2xlarge",
        "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2.13-cpu",
        "role": "arn:aws:iam::123456789012:role/benchcard",
        "bucket": "results",
        "spot": spot,
    }
    job = Job(backend="sagemaker-training", name=f"benchcard-{'0' * 12}-{'9' * 9}", arguments=arguments, limit_s=3600.0)
    made = request(job, "benchcard/parcels/0123", "benchcard/runs/0123-ml-m5-2xlarge")
    model = botocore.session.get_session().get_service_model("sagemaker")
    validate_parameters(made, model.operation_model("CreateTrainingJob").input_shape)
    assert len(made["TrainingJobName"]) <= 63
    assert max(map(len, made["AlgorithmSpecification"]["ContainerArguments"])) <= 256
    assert made["StoppingCondition"]["MaxRuntimeInSeconds"] == 3600
    assert ("MaxWaitTimeInSeconds" in made["StoppingCondition"]) == spot


@pytest.mark.slow
def test_the_grid_of_2022_has_the_header_of_its_card(monkeypatch, tmp_path):
    """The grid of the digits, run by a training job, names backend and arguments as that card does; no figure of time
    is needed for it.
    """
    pytest.importorskip("moto", reason="the extra `sagemaker` of the tests is not installed")
    from sagemaker_fixtures import ARGUMENTS, sagemaker

    monkeypatch.setattr(RemoteBackend, "poll_s", 0.2)
    instruction = this_machine().instructions[0]
    changes = {
        "duration": 0,
        "backend": "sagemaker-training",
        "backend_args": {**ARGUMENTS, "supported_instructions": instruction},
    }
    with sagemaker(monkeypatch):
        spec = load_spec(EXAMPLES / "digits.yaml", changes)
        results = Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
    assert results.failures.empty
    assert len(results.quality) == 18
    header = results.card("classic").text.split("---\n")[2].splitlines()
    shown = {"instance_type": "ml.m5.2xlarge", "supported_instructions": instruction}
    assert "**task**: `image-classification`  " in header
    assert "**Backend:** `sagemaker-training`  " in header
    assert f"**Backend args:** `{shown}`  " in header
    assert "**Number of evaluation samples:** `All dataset`  " in header
