"""The backend `sagemaker-training`: a training job of Amazon SageMaker, which is one machine of a named type.

The parcel lies in the bucket, by its digest. The run directory is the job's checkpoint folder, which SageMaker keeps
equal to a prefix of the bucket while the job runs, and which another job on the same prefix begins with.

Source: Amazon SageMaker API reference, CreateTrainingJob (limits of names and arguments, CheckpointConfig, statuses);
developer guide, "How Amazon SageMaker Training Storage Paths Work" and "Log Amazon SageMaker events with CloudWatch".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from benchcard.backends.job import Job, State
from benchcard.backends.parcel import COMMAND, Parcel
from benchcard.backends.remote import RemoteBackend, files_to_bring
from benchcard.errors import BackendError
from benchcard.spec.schema import Boolean, Number, Text, ValueType

_RUN, _PARCEL = "/opt/ml/checkpoints", "/opt/ml/input/data/parcel"
_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
_PHASES: Mapping[str, Any] = MappingProxyType(
    {"InProgress": "running", "Stopping": "running", "Completed": "finished", "Failed": "failed", "Stopped": "stopped"}
)
_MISSING = re.compile(r"not found|could not find", re.IGNORECASE)


class SageMakerTraining(RemoteBackend):
    """The backend `sagemaker-training`; credentials are those that boto3 finds."""

    name = "sagemaker-training"
    shown = ("instance_type", "spot", "supported_instructions")
    required = ("instance_type", "image", "role", "bucket")
    arguments: ClassVar[Mapping[str, ValueType]] = MappingProxyType(
        {
            "instance_type": Text(),
            "image": Text(),
            "role": Text(),
            "bucket": Text(),
            "prefix": Text(),
            "region": Text(),
            "volume_gb": Number(1, 16_384, whole=True),
            "spot": Boolean(),
        }
    )

    def start(self, job: Job, parcel: Parcel, run: Path) -> Job:
        """Upload the parcel, and create the training job unless there is one of its name."""
        s3, bucket = _client(job, "s3"), str(job.arguments["bucket"])
        place = f"{_prefix(job)}/parcels/{parcel.digest}"
        with _reporting(job):
            there = _sizes(s3, bucket, f"{place}/")
            for name, content in parcel.files.items():
                size = len(content) if isinstance(content, bytes) else content.stat().st_size
                if there.get(name) == size:
                    continue
                if isinstance(content, bytes):
                    s3.put_object(Bucket=bucket, Key=f"{place}/{name}", Body=content)
                else:
                    s3.upload_file(str(content), bucket, f"{place}/{name}")
            if self.state(job).phase == "missing":
                _client(job, "sagemaker").create_training_job(**request(job, place, _checkpoints(job)))
        return job

    def state(self, job: Job) -> State:
        """Return the status of the training job, with its secondary status or the reason of its failure."""
        from botocore.exceptions import ClientError

        try:
            with _reporting(job, ClientError):
                found = _client(job, "sagemaker").describe_training_job(TrainingJobName=job.name)
        except ClientError as error:
            if _MISSING.search(str(error)):
                return State("missing")
            raise _backend_error(job, error) from error
        detail = found.get("FailureReason") or found.get("SecondaryStatus", "")
        return State(_PHASES[found["TrainingJobStatus"]], str(detail))

    def logs(self, job: Job, run: Path) -> Iterator[str]:
        """Yield the events of the job's streams in CloudWatch; none where the group does not exist yet."""
        from botocore.exceptions import ClientError

        client = _client(job, "logs")
        try:
            with _reporting(job, ClientError):
                pages = client.get_paginator("describe_log_streams").paginate(
                    logGroupName=_LOG_GROUP, logStreamNamePrefix=f"{job.name}/"
                )
                streams = [stream["logStreamName"] for page in pages for stream in page["logStreams"]]
        except ClientError as error:
            if "ResourceNotFoundException" in str(error):
                return
            raise _backend_error(job, error) from error
        for stream in streams:
            token: str | None = None
            while True:
                more = {"nextToken": token} if token else {}
                with _reporting(job):
                    page = client.get_log_events(
                        logGroupName=_LOG_GROUP, logStreamName=stream, startFromHead=True, **more
                    )
                yield from (event["message"] for event in page["events"])
                if page["nextForwardToken"] == token:
                    break
                token = page["nextForwardToken"]

    def collect(self, job: Job, run: Path) -> None:
        """Download the files of the checkpoint prefix that are missing here or may have changed."""
        s3, bucket, prefix = _client(job, "s3"), str(job.arguments["bucket"]), _checkpoints(job)
        with _reporting(job):
            for name, target in files_to_bring(run, _sizes(s3, bucket, f"{prefix}/")).items():
                s3.download_file(bucket, f"{prefix}/{name}", str(target))

    def stop(self, job: Job) -> None:
        """Stop the training job; it has two minutes to end."""
        with _reporting(job):
            _client(job, "sagemaker").stop_training_job(TrainingJobName=job.name)


def request(job: Job, parcel: str, checkpoints: str) -> dict[str, Any]:
    """Return the arguments of `create_training_job`; `parcel` and `checkpoints` are prefixes in the bucket."""
    bucket, arguments = job.arguments["bucket"], job.arguments
    spot = {"EnableManagedSpotTraining": True} if arguments.get("spot") else {}
    limit_s = round(job.limit_s)
    wait = {"MaxWaitTimeInSeconds": 2 * limit_s} if spot else {}
    return {
        "TrainingJobName": job.name,
        "RoleArn": arguments["role"],
        "AlgorithmSpecification": {
            "TrainingImage": arguments["image"],
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/bash"],
            "ContainerArguments": [f"{_PARCEL}/{COMMAND}", _RUN, job.name],
        },
        "InputDataConfig": [
            {
                "ChannelName": "parcel",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": f"s3://{bucket}/{parcel}/",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
        ],
        "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/{checkpoints}-output"},
        "CheckpointConfig": {"S3Uri": f"s3://{bucket}/{checkpoints}", "LocalPath": _RUN},
        "ResourceConfig": {
            "InstanceType": arguments["instance_type"],
            "InstanceCount": 1,
            "VolumeSizeInGB": arguments.get("volume_gb", 30),
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": limit_s, **wait},
        **spot,
    }


def _prefix(job: Job) -> str:
    return str(job.arguments.get("prefix", "benchcard")).strip("/")


def _checkpoints(job: Job) -> str:
    """Return the prefix of the run directory in the bucket: jobs of the same parcel and type continue each other."""
    machine = re.sub(r"[^A-Za-z0-9]+", "-", str(job.arguments["instance_type"]))
    return f"{_prefix(job)}/runs/{job.details['parcel']}-{machine}"


def _client(job: Job, service: str) -> Any:  # boto3 makes the classes of clients when they are asked for
    try:
        import boto3
    except ImportError as error:
        raise BackendError(f"{job.backend} needs boto3: pip install 'benchcard[sagemaker]'") from error
    region = job.arguments.get("region")
    return boto3.client(service, **({"region_name": region} if region else {}))


def _sizes(s3: Any, bucket: str, prefix: str) -> dict[str, int]:
    """Return the bytes of the objects under a prefix."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {entry["Key"].removeprefix(prefix): entry["Size"] for page in pages for entry in page.get("Contents", ())}


@contextmanager
def _reporting(job: Job, *passed: type[Exception]) -> Iterator[None]:
    """Turn errors of boto3, except those `passed`, into a `BackendError`."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        if isinstance(error, passed):
            raise
        raise _backend_error(job, error) from error


def _backend_error(job: Job, error: Exception) -> BackendError:
    return BackendError(f"{job.backend}, job {job.name}: {error}")
