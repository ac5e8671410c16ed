"""What every backend keeps: the figures of a local run, records that come home, and no secret anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from kill_and_resume import finished
from tiny_run import SPEC, spec_with

from benchcard import Benchmark, Results
from benchcard.backends.job import read_job
from benchcard.backends.remote import RemoteBackend
from benchcard.cli import main
from benchcard.errors import BackendError, MachineError, SpecError

pytest.importorskip("moto", reason="the extra `sagemaker` of the tests is not installed")
from sagemaker_fixtures import ARGUMENTS, sagemaker

TINY = """
quantization_approach: dynamic
operators_to_quantize: [MatMul]
grid: {apply_quantization: [false, true]}
batch_sizes: [1]
duration: 0.05
explain: false
framework_args: {intra_op_num_threads: 1}
"""


@pytest.fixture
def instance(monkeypatch):
    """SageMaker on the loopback interface, polled without pauses."""
    monkeypatch.setattr(RemoteBackend, "poll_s", 0.2)
    with sagemaker(monkeypatch) as instance:
        yield instance


def sagemaker_spec(ground, **changes):
    """The spec of a tiny grid that runs as a training job."""
    arguments = {**ARGUMENTS, **changes}
    text = SPEC + TINY + f"backend: sagemaker-training\nbackend_args: {json.dumps(arguments)}\n"
    return spec_with(ground, text, f"sagemaker-{len(changes)}.yaml")


def quality(results: Results) -> list[object]:
    return results.quality[["accuracy", "predictions_changed", "samples"]].to_numpy().tolist()


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_training_job_gives_the_figures_of_a_local_run(ground, instance, tmp_path, capsys):
    """Rows, quality and threads are those of a local run, and the card names backend and arguments. A second call asks
    for nothing. No secret of the environment is in the run directory, in the bucket, in the request or on the screen.
    """
    import boto3

    local = Benchmark.from_spec(spec_with(ground, SPEC + TINY)).run(tmp_path / "local", progress=False)
    benchmark = Benchmark.from_spec(sagemaker_spec(ground))
    results = benchmark.run(tmp_path / "run")
    assert quality(results) == quality(local)
    assert results.time["ratio"].notna().all()
    assert results.time["intra_op_num_threads"].tolist() == [1, 1]
    assert "sagemaker-training" in str(results.card)
    assert str(ground.resolve()) in (tmp_path / "run/run.json").read_text()
    benchmark.run(tmp_path / "run")
    assert len(instance.requests) == 1
    shown = capsys.readouterr()
    s3 = boto3.client("s3")
    entries = [entry["Key"] for entry in s3.list_objects_v2(Bucket=ARGUMENTS["bucket"])["Contents"]]
    sent = b"".join(s3.get_object(Bucket=ARGUMENTS["bucket"], Key=key)["Body"].read() for key in entries)
    written = everything(tmp_path / "run") + sent + json.dumps(instance.requests).encode() + str(shown).encode()
    for secret in (b"canary-secret-key", b"hf_canary"):
        assert secret not in written


@pytest.mark.slow
def test_a_job_that_was_stopped_is_continued_by_another(ground, instance, tmp_path):
    """`benchcard stop` ends it; the same command starts a job that does not repeat what is finished."""
    path, stopped = tmp_path / "run", []

    def stop(event):
        if event.kind == "export" and not stopped:
            runner = CliRunner()
            assert "running" in runner.invoke(main, ["status", str(path)]).output
            stopped.append(runner.invoke(main, ["stop", str(path)]).output)

    benchmark = Benchmark.from_spec(sagemaker_spec(ground))
    with pytest.raises(BackendError, match="stopped"):
        benchmark.run(path, progress=stop)
    assert "was asked to end" in stopped[0]
    before = {name: (path / "steps" / name / "outcome.json").read_bytes() for name in finished(path)}
    assert before
    results = benchmark.run(path, progress=False)
    assert results.failures.empty
    assert len(instance.requests) == 2
    assert {name: (path / "steps" / name / "outcome.json").read_bytes() for name in before} == before
    output = CliRunner().invoke(main, ["logs", str(path)]).output
    assert "evaluate" in output


@pytest.mark.slow
def test_a_processor_without_the_instructions_is_drawn_again(ground, instance, tmp_path):
    """The job ends before anything is measured, and another is started, `redraws` times."""
    benchmark = Benchmark.from_spec(sagemaker_spec(ground, supported_instructions="avx9000", redraws=1))
    with pytest.raises(MachineError, match="avx9000; this processor"):
        benchmark.run(tmp_path / "run", progress=False)
    assert len(instance.requests) == 2
    assert not list((tmp_path / "run").glob("steps/*"))


@pytest.mark.slow
def test_a_mistake_that_the_worker_finds_is_that_of_the_spec(ground, instance, tmp_path):
    """It has the place and the suggestion that a local run gives."""
    spec = sagemaker_spec(ground)
    spec.write_text(spec.read_text().replace("primary: image", "primary: imag"))
    with pytest.raises(SpecError, match="did you mean `image`"):
        Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)


def test_a_job_that_completes_without_records_is_an_error(ground, instance, tmp_path):
    """So is one whose setup fails, with the reason that the service gives."""
    for setup, problem in (("exit 0", "records are missing"), ("exit 7", "exit code 7")):
        with pytest.raises(BackendError, match=problem):
            Benchmark.from_spec(sagemaker_spec(ground, setup=setup)).run(tmp_path / setup[-1], progress=False)
        assert read_job(tmp_path / setup[-1]).backend == "sagemaker-training"


def test_arguments_are_checked_before_anything_is_sent(ground, instance, tmp_path):
    """All mistakes are listed with their places."""
    spec = sagemaker_spec(ground, image=None, volume_gb="many", instance_typ="ml.m5.large")
    with pytest.raises(SpecError) as caught:
        Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
    places = {mistake.place for mistake in caught.value.mistakes}
    assert places == {f"$.backend_args.{name}" for name in ("image", "volume_gb", "instance_typ")}
    assert not instance.requests
