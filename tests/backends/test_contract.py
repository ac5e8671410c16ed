"""What every backend keeps: the figures of a local run, records that come home, and no secret anywhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from kill_and_resume import finished
from ray_fixtures import network
from tiny_run import SPEC, spec_with

from benchcard import Benchmark, Results
from benchcard.backends.job import read_job, write_job
from benchcard.backends.remote import RemoteBackend
from benchcard.cli import main
from benchcard.errors import BackendError, MachineError, SpecError
from benchcard.measure.machine import this_machine
from benchcard.testing import LocalHub

CANARY = "canary-in-a-mine"
TINY = """
quantization_approach: dynamic
operators_to_quantize: [MatMul]
grid: {apply_quantization: [false, true]}
batch_sizes: [1]
duration: 0.05
explain: false
framework_args: {intra_op_num_threads: 1}
"""


@dataclass
class Place:
    """A service on the loopback interface: its name, the arguments of a job, the jobs, all that was sent there, and the
    argument that names a machine.
    """

    backend: str
    arguments: dict[str, object]
    started: Callable[[], int]
    sent: Callable[[], bytes]
    machine: str = "supported_instructions"

    def spec(self, ground: Path, text: str = SPEC, **changes: object) -> Path:
        """The spec of a tiny grid that runs there."""
        arguments = json.dumps({**self.arguments, **changes})
        return spec_with(ground, f"{text}{TINY}backend: {self.backend}\nbackend_args: {arguments}\n", "elsewhere.yaml")


def sagemaker_place(monkeypatch, stack, folder):
    pytest.importorskip("moto", reason="the extra `sagemaker` of the tests is not installed")
    import boto3
    from sagemaker_fixtures import ARGUMENTS, sagemaker

    instance = stack.enter_context(sagemaker(monkeypatch))

    def sent() -> bytes:
        s3, bucket = boto3.client("s3"), ARGUMENTS["bucket"]
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        contents = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys]
        return b"".join(contents) + json.dumps(instance.requests).encode()

    return Place("sagemaker-training", ARGUMENTS, lambda: len(instance.requests), sent, "instance_type")


def hf_jobs_place(monkeypatch, stack, folder):
    """The jobs of `LocalHub`, with buckets that are folders: the real ones are written through Xet."""
    from huggingface_hub import HfApi, constants

    hub = stack.enter_context(LocalHub(jobs=folder))
    hub.jobs.environment["BENCHCARD_COPY_S"] = "0.2"
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", hub.token)

    def tree(self, bucket, prefix, recursive):
        root = hub.jobs.bucket(bucket)
        files = [file for file in (root / prefix).rglob("*") if file.is_file()]
        found = [(file.relative_to(root).as_posix(), file.stat().st_size) for file in files]
        return [SimpleNamespace(type="file", path=path, size=size) for path, size in found]

    def add(self, bucket, add):
        for content, path in add:
            target = hub.jobs.bucket(bucket) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else Path(content).read_bytes())

    def download(self, bucket, files):
        for path, target in files:
            shutil.copyfile(hub.jobs.bucket(bucket) / path, target)

    monkeypatch.setattr(HfApi, "create_bucket", lambda self, bucket, private, exist_ok: None)
    monkeypatch.setattr(HfApi, "list_bucket_tree", tree)
    monkeypatch.setattr(HfApi, "batch_bucket_files", add)
    monkeypatch.setattr(HfApi, "download_bucket_files", download)

    def sent() -> bytes:
        specs = [{key: value for key, value in job.spec.items() if key != "secrets"} for job in hub.jobs.jobs.values()]
        return everything(folder) + json.dumps(specs).encode()

    return Place("hf-jobs", {"flavor": "cpu-upgrade", "setup": "true"}, lambda: len(hub.jobs.jobs), sent, "flavor")


def ray_place(monkeypatch, stack, folder):
    """A cluster that the job starts, of one node, without another interface than that of loopback."""
    found = stack.enter_context(network(monkeypatch))
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCanaryCanaryCanaryCanaryCana")
    return Place(
        "ray",
        {"setup": "true"},
        lambda: len(found.jobs),
        lambda: json.dumps(found.jobs).encode() + everything(found.folder),
    )


PLACES = {"sagemaker-training": sagemaker_place, "hf-jobs": hf_jobs_place, "ray": ray_place}


@pytest.fixture(params=PLACES)
def place(request, monkeypatch, tmp_path):
    """A service on the loopback interface, polled without pauses, with secrets in the environment."""
    monkeypatch.setattr(RemoteBackend, "poll_s", 0.2)
    with ExitStack() as stack:
        found = PLACES[request.param](monkeypatch, stack, tmp_path / "service")
        monkeypatch.setenv("CANARY_TOKEN", CANARY)
        yield found


def quality(results: Results) -> list[object]:
    return results.quality[["accuracy", "predictions_changed", "samples"]].to_numpy().tolist()


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def local_quality(ground, tmp_path_factory):
    """The quality of each row of the tiny grid, run here."""
    path = tmp_path_factory.mktemp("local") / "run"
    return quality(Benchmark.from_spec(spec_with(ground, SPEC + TINY)).run(path, progress=False))


@pytest.mark.slow
def test_a_job_gives_the_figures_of_a_local_run(ground, place, local_quality, tmp_path, capsys):
    """Rows, quality and threads are those of a local run, and the card names backend and arguments. Ctrl-C asks nothing
    of the job, the same command brings its records home, and a further one asks for nothing. No secret of the
    environment is in the run directory, in what was sent, or on the screen.
    """

    def interrupt(event):
        raise KeyboardInterrupt

    benchmark = Benchmark.from_spec(place.spec(ground))
    with pytest.raises(KeyboardInterrupt):
        benchmark.run(tmp_path / "run", progress=interrupt)
    results = benchmark.run(tmp_path / "run")
    assert results.failures.empty
    assert quality(results) == local_quality
    assert results.time["ratio"].notna().all()
    assert results.time["threads"].tolist() == [1, 1]
    card = results.card("classic").text
    assert f"**Backend:** `{place.backend}`" in card
    shown = {name: place.arguments[name] for name in ("instance_type", "flavor") if name in place.arguments}
    assert f"**Backend args:** `{shown}`" in card
    assert any("Hugging Face Jobs" in note for note in results.notes) == (place.backend == "hf-jobs")
    assert str(ground.resolve()) in (tmp_path / "run/run.json").read_text()
    benchmark.run(tmp_path / "run")
    assert place.started() == 1
    # A client that was killed before the service had answered knows the parcel alone.
    job = read_job(tmp_path / "run")
    assert job is not None
    if place.backend != "ray":
        write_job(tmp_path / "run", replace(job, details={"parcel": job.details["parcel"]}))
        assert "finished" in CliRunner().invoke(main, ["status", str(tmp_path / "run")]).output
    written = everything(tmp_path / "run") + place.sent() + str(capsys.readouterr()).encode()
    for secret in (CANARY, os.environ["HF_TOKEN"], os.environ.get("AWS_SECRET_ACCESS_KEY", CANARY)):
        assert secret.encode() not in written


@pytest.mark.slow
def test_a_job_that_was_stopped_is_continued_by_another(ground, place, tmp_path):
    """`benchcard stop` ends it; the same command starts a job that does not repeat what is finished."""
    path, stopped = tmp_path / "run", []

    def stop(event):
        if event.kind == "export" and not stopped:
            runner = CliRunner()
            assert "running" in runner.invoke(main, ["status", str(path)]).output
            stopped.append(runner.invoke(main, ["stop", str(path)]).output)

    benchmark = Benchmark.from_spec(place.spec(ground))
    with pytest.raises(BackendError, match="stopped"):
        benchmark.run(path, progress=stop)
    assert "was asked to end" in stopped[0]
    before = {name: (path / "steps" / name / "outcome.json").read_bytes() for name in finished(path)}
    assert before
    results = benchmark.run(path, progress=False)
    assert results.failures.empty
    assert place.started() == 2
    assert {name: (path / "steps" / name / "outcome.json").read_bytes() for name in before} == before
    assert "evaluate" in CliRunner().invoke(main, ["logs", str(path)]).output


@pytest.mark.slow
def test_a_processor_without_the_instructions_is_drawn_again(ground, place, tmp_path):
    """The job ends before anything is measured, and another is started, `redraws` times."""
    benchmark = Benchmark.from_spec(place.spec(ground, supported_instructions="avx9000", redraws=1))
    with pytest.raises(MachineError, match="avx9000; this processor"):
        benchmark.run(tmp_path / "run", progress=False)
    assert place.started() == 2
    assert not list((tmp_path / "run").glob("steps/*"))


@pytest.mark.slow
def test_a_mistake_that_the_worker_finds_is_that_of_the_spec(ground, place, tmp_path):
    """It has the place and the suggestion that a local run gives."""
    spec = place.spec(ground, SPEC.replace("primary: image", "primary: imag"))
    with pytest.raises(SpecError, match="did you mean `image`"):
        Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
    # The corrected spec runs in the same folder.
    assert not (tmp_path / "run/run.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["sagemaker-training", "hf-jobs"], indirect=True)
def test_each_machine_of_a_grid_has_a_job(ground, place, tmp_path):
    """The table has the rows of all, with the price that the service names, if it does. A machine that fails stops no
    other one, and the same command starts its job alone again.
    """
    path, broken, kind = tmp_path / "run", tmp_path / "broken", place.machine
    names = ["ml.c7i.2xlarge", "ml.m5.2xlarge"] if kind == "instance_type" else ["cpu-basic", "cpu-upgrade"]
    broken.touch()
    # The second job fails while there is a file.
    machines = [{kind: names[0]}, {kind: names[1], "setup": f"test ! -e {broken}"}]
    shared = {name: value for name, value in place.arguments.items() if name != kind}
    text = TINY.replace("{apply", f"{{backend_args: {json.dumps(machines)}, apply")
    text += f"backend: {place.backend}\nbackend_args: {json.dumps(shared)}\n"
    benchmark = Benchmark.from_spec(spec_with(ground, SPEC + text, "machines.yaml"))
    with pytest.raises(BackendError, match=rf"{names[1]}-.*exit code 1"):
        benchmark.run(path, progress=False)
    assert place.started() == 2
    half = Results.load(path)
    assert half.quality["accuracy"].notna().tolist() == [True, True, False, False]
    status = CliRunner().invoke(main, ["status", str(path)]).output
    assert "finished" in status
    assert "failed" in status
    broken.unlink()
    results = benchmark.run(path, progress=False)
    assert place.started() == 3
    assert results.failures.empty
    assert results.time["ratio"].notna().all()
    prices = [own.price_per_hour for own in results.records.machines.values()]
    assert (None in prices) == (place.backend == "sagemaker-training")
    assert prices[0] is None or prices[0] != prices[2]
    assert results.time["cost_per_million"].notna().all() == (prices[0] is not None)
    card = results.card().text
    assert names[1] in card
    assert str(place.arguments.get("bucket", CANARY)) not in card


@pytest.mark.slow
@pytest.mark.parametrize("place", ["ray"], indirect=True)
def test_a_machine_of_a_grid_gets_the_data_in_memory(ground, place, tmp_path):
    """They lie in the run directory of the whole grid, and travel in the parcel of each machine."""
    import datasets

    cache = str(tmp_path / "cache")
    files = {"validation": str(next((ground / "data").glob("validation*")))}
    data = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)
    keys = {"eval_split": "validation", "data_keys": {"primary": "image"}, "ref_keys": ["label"]}
    benchmark = Benchmark(
        task="image-classification",
        model=ground / "model",
        dataset={"path": data, **keys},
        grid={"backend_args": [{"supported_instructions": [this_machine().instructions[0]]}]},
        duration=0,
        explain=False,
        backend="ray",
        backend_args={"setup": "true"},
    )
    results = benchmark.run(tmp_path / "run", progress=False)
    assert results.failures.empty
    assert results.quality["accuracy"].notna().all()


def test_a_job_that_completes_without_records_is_an_error(ground, place, tmp_path):
    """So is one whose setup fails, with the reason that the service gives."""
    for setup, problem in (("exit 0", "records are missing"), ("exit 7", "exit code 7")):
        path = tmp_path / setup[-1]
        with pytest.raises(BackendError, match=problem):
            Benchmark.from_spec(place.spec(ground, setup=setup)).run(path, progress=False)
        job = read_job(path)
        assert job is not None
        assert job.backend == place.backend


def test_arguments_are_checked_before_anything_is_sent(ground, place, tmp_path):
    """All mistakes are listed with their places."""
    spec = place.spec(ground, max_run_s="long", instance_typ="ml.m5.large", redraws=-1)
    with pytest.raises(SpecError) as caught:
        Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
    places = {mistake.place for mistake in caught.value.mistakes}
    assert places == {f"$.backend_args.{name}" for name in ("max_run_s", "instance_typ", "redraws")}
    assert place.started() == 0


def test_secrets_are_named_and_never_written(ground, monkeypatch, tmp_path):
    """A job of Hugging Face gets their values in the field that the service keeps secret, and nowhere else."""
    monkeypatch.setattr(RemoteBackend, "poll_s", 0.2)
    with ExitStack() as stack:
        place = hf_jobs_place(monkeypatch, stack, tmp_path / "service")
        spec = place.spec(ground, secrets=["CANARY_TOKEN"], setup="env | grep -c CANARY_TOKEN && exit 7")
        with pytest.raises(BackendError, match="no CANARY_TOKEN, which `secrets` names"):
            Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
        monkeypatch.setenv("CANARY_TOKEN", CANARY)
        with pytest.raises(BackendError, match="exit code 7"):
            Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
        assert CANARY.encode() not in everything(tmp_path / "run") + place.sent()
