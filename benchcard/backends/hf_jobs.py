"""The backend `hf-jobs`: a job of Hugging Face Jobs, which is one container on a machine of a named flavor.

Parcel and run directory lie in a storage bucket, which is mounted into the container. The token is that of the Hub's
client. Jobs promises neither a processor nor cores of one's own.

Source: https://huggingface.co/docs/huggingface_hub/guides/jobs (flavors, time limit, secrets, volumes, stages).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from benchcard.backends.job import Job, State
from benchcard.backends.parcel import COMMAND, Parcel
from benchcard.backends.remote import Price, RemoteBackend, files_to_bring
from benchcard.errors import BackendError
from benchcard.spec.schema import ListOf, MappingOf, Text, ValueType

if TYPE_CHECKING:
    from huggingface_hub import HfApi, JobInfo

_MOUNT, _FLAVOR, _LABEL = "/benchcard", "cpu-upgrade", "benchcard"
_PHASES: Mapping[str, Any] = MappingProxyType(
    {
        "SCHEDULING": "waiting",
        "RUNNING": "running",
        "COMPLETED": "finished",
        "CANCELED": "stopped",
        "ERROR": "failed",
        "DELETED": "missing",
    }
)


class HuggingFaceJobs(RemoteBackend):
    """The backend `hf-jobs`."""

    name = "hf-jobs"
    shown = ("flavor", "image", "supported_instructions")
    note = "the machine was a host of Hugging Face Jobs, which others may have used at the same time"
    arguments: ClassVar[Mapping[str, ValueType]] = MappingProxyType(
        {
            "flavor": Text(),
            "image": Text(),
            "bucket": Text(),
            "namespace": Text(),
            "labels": MappingOf(open=True, each=Text()),
            "secrets": ListOf(Text()),
        }
    )

    def start(self, job: Job, parcel: Parcel, run: Path) -> Job:
        """Upload the parcel into the bucket, and start the job unless there is one with its label."""
        from huggingface_hub import HfApi, Volume

        api, arguments = HfApi(), job.arguments
        secrets = _secrets(job)
        with _reporting(job):
            namespace = _namespace(job, api)
            bucket, place, kept = _bucket(job, api), f"parcels/{parcel.digest}", _run(job)
            if (found := _find(job)) is None:
                api.create_bucket(bucket, private=True, exist_ok=True)
                there = _sizes(bucket, place)
                new = [
                    (content, f"{place}/{name}")
                    for name, content in parcel.files.items()
                    if there.get(name) != (len(content) if isinstance(content, bytes) else content.stat().st_size)
                ]
                if new:
                    api.batch_bucket_files(bucket, add=[*new])
                found = api.run_job(
                    image=str(arguments.get("image") or f"python:{sys.version_info.major}.{sys.version_info.minor}"),
                    command=["bash", f"{_MOUNT}/{place}/{COMMAND}", "/tmp/run", job.name, f"{_MOUNT}/{kept}"],
                    flavor=str(arguments.get("flavor", _FLAVOR)),
                    timeout=round(job.limit_s),
                    labels={**dict(arguments.get("labels") or {}), _LABEL: job.name},
                    secrets=secrets or None,
                    volumes=[Volume(type="bucket", source=bucket, mount_path=_MOUNT)],
                    namespace=namespace,
                )
        return replace(job, details={**job.details, "id": found.id})

    def state(self, job: Job) -> State:
        """Return the stage of the job, with the message of the service."""
        with _reporting(job):
            found = _find(job)
        if found is None:
            return State("missing")
        return State(_PHASES.get(str(found.status.stage), "running"), found.status.message or "")

    def logs(self, job: Job, run: Path) -> Iterator[str]:
        """Yield the lines of the job."""
        from huggingface_hub import HfApi

        with _reporting(job):
            if (found := _find(job)) is not None:
                yield from HfApi().fetch_job_logs(job_id=found.id, namespace=_namespace(job, HfApi()))

    def collect(self, job: Job, run: Path) -> None:
        """Download the files of the run in the bucket that are missing here or may have changed."""
        from huggingface_hub import HfApi

        api = HfApi()
        with _reporting(job):
            bucket, kept = _bucket(job, api), _run(job)
            if files := files_to_bring(run, _sizes(bucket, kept)):
                api.download_bucket_files(bucket, [(f"{kept}/{name}", target) for name, target in files.items()])

    def stop(self, job: Job) -> None:
        """Cancel the job."""
        from huggingface_hub import HfApi

        with _reporting(job):
            if (found := _find(job)) is not None:
                HfApi().cancel_job(job_id=found.id, namespace=_namespace(job, HfApi()))

    def price(self, job: Job) -> Price:
        """Return the machine and the price of the flavor."""
        from huggingface_hub import HfApi

        flavor = job.arguments.get("flavor", _FLAVOR)
        with _reporting(job):
            found = {each.name: each for each in HfApi().list_jobs_hardware()}
        if flavor not in found:
            raise BackendError(f"{self.name} has no flavor `{flavor}`: it has {', '.join(found)}")
        hardware = found[str(flavor)]
        return Price(f"{flavor}: {hardware.cpu}, {hardware.ram}", 60 * hardware.unit_cost_usd)


def _find(job: Job) -> JobInfo | None:
    """Return a job by its id, or by its label where the client was killed before the id was known."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    namespace = _namespace(job, api)
    if "id" not in job.details:
        return next(iter(api.list_jobs(labels={_LABEL: job.name}, namespace=namespace)), None)
    try:
        return api.inspect_job(job_id=job.details["id"], namespace=namespace)
    except HfHubHTTPError as error:
        if error.response.status_code == 404:
            return None
        raise


def _namespace(job: Job, api: HfApi) -> str:
    return str(job.arguments.get("namespace") or api.whoami()["name"])


def _bucket(job: Job, api: HfApi) -> str:
    return str(job.arguments.get("bucket") or f"{_namespace(job, api)}/benchcard")


def _run(job: Job) -> str:
    """Return the folder of the run in the bucket: jobs of the same parcel and flavor continue each other."""
    return f"runs/{job.details['parcel']}-{job.arguments.get('flavor', _FLAVOR)}"


def _sizes(bucket: str, prefix: str) -> dict[str, int]:
    """Return the bytes of the files under a prefix of a bucket."""
    from huggingface_hub import HfApi

    entries = HfApi().list_bucket_tree(bucket, prefix, recursive=True)
    return {
        entry.path.removeprefix(f"{prefix}/"): entry.size
        for entry in entries
        if entry.type == "file" and entry.path.startswith(f"{prefix}/")
    }


def _secrets(job: Job) -> dict[str, str]:
    """Return the values of the secrets that the spec names, from the environment."""
    names = list(job.arguments.get("secrets") or ())
    if missing := [name for name in names if name not in os.environ]:
        raise BackendError(f"{job.backend}: the environment has no {', '.join(missing)}, which `secrets` names")
    return {name: os.environ[name] for name in names}


@contextmanager
def _reporting(job: Job) -> Iterator[None]:
    """Turn errors of the Hub's client into a `BackendError`."""
    from benchcard.hub.faults import CLIENT_ERRORS, redacted

    try:
        yield
    except CLIENT_ERRORS as error:
        raise BackendError(f"{job.backend}, job {job.name}: {redacted(str(error))}") from error
