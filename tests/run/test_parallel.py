"""Steps side by side: how many at a time, what comes back, and how it ends."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest
import tiny
from acting import ActRequest
from tiny_run import SPEC, spec_with

from benchcard import Benchmark, registry
from benchcard.run import parallel
from benchcard.workers.worker import Worker

GB = 1 << 30


@pytest.fixture
def workers(monkeypatch):
    """Two workers whose children know the step `act`."""
    monkeypatch.setattr(registry, "registered_by_call", lambda: tiny.importing("acting"))
    made = [Worker(threads=1) for _ in range(2)]
    yield made
    for worker in made:
        worker.stop()


@pytest.fixture
def job(tmp_path):
    """A function that makes a job for `act`, with a folder of its own."""

    def make(number: int, **what) -> tuple[ActRequest, Path]:
        target = tmp_path / f"job-{number}"
        target.mkdir()
        return ActRequest(what=what), target

    return make


def children_alive() -> set[int]:
    return {each.pid for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE}


def test_every_job_comes_back_from_one_of_two_children(workers, job, tmp_path):
    """Each reply stands at the place of its job, in the caller's thread; both children work; a failure ends nothing."""
    jobs = [job(number, text=str(number), sleep=0.2) for number in range(5)] + [job(5, **{"raise": True})]
    found, threads = {}, set()

    def done(place, reply, seconds):
        found[place] = reply
        threads.add(threading.current_thread())
        assert seconds > 0

    parallel.do_all(jobs, workers, None, done)
    assert sorted(found) == list(range(6))
    assert threads == {threading.current_thread()}
    assert [(tmp_path / f"job-{number}" / "made").read_text() for number in range(5)] == list("01234")
    assert len({found[number].values["pid"] for number in range(5)}) == 2
    assert found[5].failure.message == "as asked"


def test_a_dead_child_fails_its_own_job_alone(workers, job):
    """The others are done, those that come after it by a new child."""
    jobs = [job(0, exit=3), *(job(number, text="x") for number in range(1, 5))]
    found = {}
    parallel.do_all(jobs, workers, None, lambda place, reply, seconds: found.update({place: reply}))
    assert found[0].failure.type == "ExitError"
    assert all(found[number].failure is None for number in range(1, 5))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_the_caller_raises_ends_all_at_once(workers, job, error):
    """A mistake in the spec, a full disk or Ctrl-C does not wait for the others."""
    before = children_alive()
    jobs = [job(0, text="x"), *(job(number, sleep=60) for number in range(1, 5))]

    def done(place, reply, seconds):
        raise error("enough")

    begun = time.monotonic()
    with pytest.raises(error, match="enough"):
        parallel.do_all(jobs, workers, None, done)
    assert time.monotonic() - begun < 50
    assert children_alive() <= before


def test_a_job_that_takes_too_long_is_stopped(workers, job):
    """The limit is each job's own."""
    found = {}
    jobs = [job(0, sleep=60), job(1, text="x")]
    parallel.do_all(jobs, workers, 3.0, lambda place, reply, seconds: found.update({place: reply}))
    assert found[0].failure.type == "TimeoutError"
    assert found[1].failure is None


@pytest.mark.parametrize(
    ("steps", "cores", "model_bytes", "available_bytes", "expected"),
    [
        (12, 2, GB, 100 * GB, 2),
        (12, 16, GB, 100 * GB, 6),
        (1, 16, GB, 100 * GB, 1),
        (3, 16, GB, 100 * GB, 1),
        (12, 16, 3 * GB, 60 * GB, 1),
        (12, 16, 3 * GB, 64 * GB, 2),
        (12, 16, 3 * GB, 1 * GB, 1),
    ],
)
def test_as_many_children_as_there_is_work_cores_and_memory_for(steps, cores, model_bytes, available_bytes, expected):
    """One at least, even where memory is short: that step may fail, and says so itself."""
    assert parallel.children(steps, cores, model_bytes, available_bytes) == expected


CROWDED = """
import os, signal
from pathlib import Path
from benchcard.steps import quantize as actions

real = actions.quantize


def quantize(request: actions.QuantizeRequest, target, progress):
    mark = Path(__file__).parent / "-".join([request.approach, str(request.per_channel)])
    if request.approach == "static" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return real(request, target, progress)


actions.quantize = quantize
"""


def test_what_there_was_no_room_for_beside_others_is_done_alone(ground, tmp_path, monkeypatch):
    """The system kills a child where memory runs out: its step is no failure before it was tried alone."""
    (tmp_path / "crowded.py").write_text(CROWDED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "registered_by_call", lambda: tiny.importing("crowded"))
    monkeypatch.setattr(parallel, "children", lambda *given: 2)
    spec = spec_with(ground, SPEC + WIDE + "explain: false\n", "crowded.yaml")
    results = Benchmark.from_spec(spec).run(tmp_path / "run", progress=False)
    assert sorted(path.name for path in tmp_path.glob("static-*")) == ["static-False", "static-True"]
    assert results.failures.empty
    assert results.quality["accuracy"].notna().all()


WIDE = """
grid:
  quantization_approach: [dynamic, static]
  per_channel: [false, true]
  apply_quantization: [true, false]
fixed: {calibration: {num_calibration_samples: 9}, operators_to_quantize: [Add, MatMul]}
duration: 0
"""


@pytest.mark.slow
def test_a_run_makes_its_models_first_and_comes_to_the_same_one_by_one(ground, tmp_path, monkeypatch):
    """The first row is evaluated, where mistakes show; then all models are quantized and compared, by two children or
    by one, with equal figures; then the others are evaluated.
    """
    benchmark = Benchmark.from_spec(spec_with(ground, SPEC + WIDE, "wide.yaml"))
    asked, found = [], {}
    for count in (2, 1):
        monkeypatch.setattr(parallel, "children", lambda *given, count=count: asked.append(given) or count)
        results = benchmark.run(tmp_path / f"run-{count}", progress=False)
        assert results.failures.empty
        found[count] = results
        ended = {
            kind: [path.stat().st_mtime for path in tmp_path.glob(f"run-{count}/steps/{kind}-*/outcome.json")]
            for kind in ("quantize", "explain", "evaluate")
        }
        assert [len(times) for times in ended.values()] == [4, 4, 5]
        first, *others = sorted(ended["evaluate"])
        assert first < min(ended["quantize"]) < max(ended["quantize"]) < min(ended["explain"])
        assert max(ended["explain"]) < min(others)
    assert [given[0] for given in asked] == [4, 4, 4, 4]
    two, one = (results.models for results in found.values())
    for name in ("digest", "nodes_quantized", "lossy_layers", "size_mb"):
        assert two[name].tolist() == one[name].tolist(), name
    for name in ("output_snr_db", "output_max_abs_difference"):
        assert two[name].tolist() == pytest.approx(one[name].tolist(), nan_ok=True, rel=1e-3), name
