"""Requests to SageMaker, against the service model that botocore ships."""

from __future__ import annotations

import pytest

from benchcard.backends.job import Job

pytest.importorskip("boto3", reason="the extra `sagemaker` is not installed")

from benchcard.backends.sagemaker import request


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
