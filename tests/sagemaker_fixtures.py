"""Amazon S3 and SageMaker on the loopback interface: moto's server, and a fake instance that runs its training jobs.

The fake instance keeps the `/opt/ml` contract: it downloads the channels and the checkpoint prefix, runs the command of
the container as a child process, uploads the checkpoint folder while it runs and at its end, and sets the status.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchcard.backends.node import files_to_send

BUCKET, REGION = "benchcard-tests", "eu-west-1"
ARGUMENTS = {
    "instance_type": "ml.m5.2xlarge",
    "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2.13-cpu",
    "role": "arn:aws:iam::123456789012:role/benchcard",
    "bucket": BUCKET,
    "region": REGION,
    "setup": "true",
}


class FakeInstance:
    """The instances of all training jobs. `environment` is added to that of the jobs that start from now on."""

    def __init__(self) -> None:
        self.environment: dict[str, str] = {}
        self.requests: list[dict[str, Any]] = []
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._threads: list[threading.Thread] = []

    def begin(self, job: Any, request: dict[str, Any]) -> None:
        """Run a job in a thread."""
        self.requests.append(request)
        job.training_job_status, job.secondary_status = "InProgress", "Training"
        thread = threading.Thread(target=self._run, args=(job, request), daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait until all jobs are over."""
        for thread in self._threads:
            thread.join()

    def _run(self, job: Any, request: dict[str, Any]) -> None:
        try:
            self._run_container(job, request)
        except Exception as error:
            # A job without an end would be waited for.
            job.failure_reason = f"{type(error).__name__}: {error}"
            job.training_job_status = job.secondary_status = "Failed"
            raise

    def _run_container(self, job: Any, request: dict[str, Any]) -> None:
        import boto3

        s3 = boto3.client("s3")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for channel in request["input_data_config"]:
                source = channel["DataSource"]["S3DataSource"]["S3Uri"]
                _download(s3, source, root / "input/data" / channel["ChannelName"])
            uri, checkpoints = request["checkpoint_config"]["S3Uri"], root / "checkpoints"
            _download(s3, f"{uri}/", checkpoints)
            algorithm = request["algorithm_specification"]
            command = [*algorithm["ContainerEntrypoint"], *algorithm["ContainerArguments"]]
            child = subprocess.Popen(
                [part.replace("/opt/ml", str(root)) for part in command],
                env={**_clean(os.environ), **self.environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.children[job.training_job_name] = child
            logged = threading.Thread(target=_log, args=(child, job.training_job_name), daemon=True)
            logged.start()
            while child.poll() is None:
                _upload(s3, checkpoints, uri)
                time.sleep(0.2)
            logged.join()
            _upload(s3, checkpoints, uri)
        is_stopped = job.training_job_status == "Stopping"
        status = "Stopped" if is_stopped else "Failed" if child.returncode else "Completed"
        if status == "Failed":
            job.failure_reason = f"AlgorithmError: exit code {child.returncode}"
        job.training_job_status = job.secondary_status = status

    def stop(self, job: Any) -> None:
        """Ask a job to end."""
        job.training_job_status = "Stopping"
        os.killpg(self.children[job.training_job_name].pid, signal.SIGTERM)


def _clean(environment: Any) -> dict[str, str]:
    """Return the environment of an instance, which has nothing of the caller's but the interpreter."""
    kept = {name: environment[name] for name in ("PATH", "HOME", "HF_HOME", "LANG") if name in environment}
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"}


def _log(child: subprocess.Popen[bytes], name: str) -> None:
    import boto3

    assert child.stdout is not None
    with child.stdout:
        text = child.stdout.read().decode(errors="replace")
    logs, group = boto3.client("logs"), "/aws/sagemaker/TrainingJobs"
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName=f"{name}/algo-1")
    events = [{"timestamp": int(time.time() * 1000), "message": line} for line in text.splitlines() if line]
    if events:
        logs.put_log_events(logGroupName=group, logStreamName=f"{name}/algo-1", logEvents=events)


def _parts(uri: str) -> tuple[str, str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return bucket, prefix


def _download(s3: Any, uri: str, folder: Path) -> None:
    bucket, prefix = _parts(uri)
    folder.mkdir(parents=True, exist_ok=True)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for entry in page.get("Contents", ()):
            target = folder / entry["Key"].removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, entry["Key"], str(target))


def _upload(s3: Any, folder: Path, uri: str) -> None:
    bucket, prefix = _parts(uri)
    for file in files_to_send(folder):
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            continue  # It was replaced meanwhile.
        s3.put_object(Bucket=bucket, Key=f"{prefix}/{file.relative_to(folder).as_posix()}", Body=content)


@contextmanager
def sagemaker(monkeypatch: Any) -> Iterator[FakeInstance]:
    """Serve S3, CloudWatch and SageMaker on 127.0.0.1, with credentials in the environment that open nothing else."""
    import boto3
    from moto.core.responses import ActionResult
    from moto.sagemaker.models import SageMakerModelBackend
    from moto.sagemaker.responses import SageMakerResponse
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "AKIATESTTESTTESTTEST",
        "AWS_SECRET_ACCESS_KEY": "canary-secret-key",
        "AWS_DEFAULT_REGION": REGION,
        "HF_TOKEN": "hf_canaryCanaryCanaryCanaryCanaryCana",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    # What earlier servers of this process held is there still.
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    instance = FakeInstance()
    create = SageMakerModelBackend.create_training_job

    def created(self: Any, **request: Any) -> Any:
        job = create(self, **request)
        instance.begin(self.training_jobs[request["training_job_name"]], request)
        return job

    def stopped(self: Any) -> ActionResult:
        instance.stop(self.sagemaker_backend.training_jobs[self._get_param("TrainingJobName")])
        return ActionResult({})

    monkeypatch.setattr(SageMakerModelBackend, "create_training_job", created)
    monkeypatch.setattr(SageMakerResponse, "stop_training_job", stopped, raising=False)
    try:
        boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield instance
        for child in instance.children.values():
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
        instance.join()
    finally:
        server.stop()
