"""Tests of the backend `ray` on clusters of several nodes, each with one slot, in a network of their own."""

from __future__ import annotations

import json
import re
from datetime import datetime
from itertools import pairwise

import pytest
from kill_and_resume import finished
from ray_fixtures import kill, network
from tiny_run import SPEC, spec_with

from benchcard import Benchmark, testing
from benchcard.backends.job import read_job, service_of
from benchcard.backends.remote import RemoteBackend
from benchcard.errors import BackendError

SLOT = '--resources={"benchslot": 1}'
MODELS = ["./model", "./second", "./third"]
TWO_ROWS = """
quantization_approach: dynamic
operators_to_quantize: [MatMul]
batch_sizes: [1]
duration: 0.05
explain: false
framework_args: {intra_op_num_threads: 1}
"""


@pytest.fixture
def cluster(monkeypatch):
    """A network for a cluster, whose jobs are polled without pauses."""
    monkeypatch.setattr(RemoteBackend, "poll_s", 0.2)
    with network(monkeypatch) as found:
        yield found


@pytest.fixture(scope="module")
def field(ground):
    """Three models: the second one has other weights, and the third one those of the first and another file."""
    testing.write_image_model(ground / "second", labels=["dark", "middling", "light"], seed=1)
    testing.write_image_model(ground / "third", labels=["dark", "middling", "light"])
    (ground / "third" / "notes.txt").write_text("the first model again")
    return ground


def benchmark(field, models, **arguments):
    """A benchmark of two rows for each of some models."""
    grid = {"name_or_path": models, "apply_quantization": [False, True]}
    given = json.dumps({"setup": "true", **arguments})
    text = SPEC.replace("model: ./model\n", "") + TWO_ROWS + f"grid: {json.dumps(grid)}\n"
    where = f"backend: ray\nbackend_args: {given}\n" if arguments else ""
    return Benchmark.from_spec(spec_with(field, text + where, "ray.yaml"))


def log_of(path) -> str:
    """What the job of a run has written."""
    service, job = service_of(path)
    return "\n".join(service.logs(job, path))


def intervals(log: str) -> list[tuple[str, str, datetime, datetime]]:
    """The node, the rows, and the times of begin and end of each part."""
    found = re.findall(r"^(\S+) (begin|end) (\S+) .*--rows (\S+)", log, re.MULTILINE)
    ends = {(node, rows): datetime.fromisoformat(at) for at, what, node, rows in found if what == "end"}
    return [
        (node, rows, datetime.fromisoformat(at), ends[node, rows]) for at, what, node, rows in found if what == "begin"
    ]


@pytest.mark.slow
def test_parts_run_on_several_nodes_and_one_at_a_time_on_each(field, cluster, tmp_path):
    """Two models are run at the same time on two nodes, which never run two parts at once. The figures are those of a
    local run, also of models that turn out to be equal. What a worker has left is done at the end.
    """
    cluster.start_node()
    for _ in range(2):
        cluster.start_node(SLOT)
    local = benchmark(field, MODELS).run(tmp_path / "local", progress=False)
    # The first two parts wait for each other, which only parts on two nodes can do.
    meeting = tmp_path / "meeting"
    both = f"[ $(ls {meeting} | wc -l) -ge 2 ]"
    wait = f"touch {meeting}/$$; for i in $(seq 600); do {both} && break; sleep 0.1; done; {both}"
    # One worker forgets a row.
    wait += "; [[ $* != *'--rows 2,3'* ]] || sed -i 's/rows=rows,/rows=[2],/' code/benchcard/backends/worker.py"
    meeting.mkdir()
    results = benchmark(field, MODELS, address=cluster.address, setup=wait).run(tmp_path / "run", progress=False)
    columns = ["accuracy", "predictions_changed", "samples"]
    assert results.quality[columns].to_numpy().tolist() == local.quality[columns].to_numpy().tolist()
    assert results.failures.empty
    assert results.time["ratio"].notna().all()
    parts = intervals(log_of(tmp_path / "run"))
    assert [rows for _, rows, _, _ in parts[-1:]] == ["0,1,2,3,4,5"]
    assert sorted(rows for _, rows, _, _ in parts[:-1]) == ["0,1", "2,3", "4,5"]
    assert len({node for node, _, _, _ in parts[:2]}) == 2
    assert max(parts[0][2], parts[1][2]) < min(parts[0][3], parts[1][3])
    for node in {node for node, _, _, _ in parts}:
        times = sorted((begin, end) for other, _, begin, end in parts if other == node)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times))


@pytest.mark.slow
def test_a_node_that_dies_costs_its_unfinished_steps_only(field, cluster, tmp_path):
    """Another node goes on with what has come home; nothing finished is done again."""
    cluster.start_node()
    cluster.start_node(SLOT)
    path, before = tmp_path / "run", {}

    def die(event):
        if not before:
            before.update({name: (path / "steps" / name / "outcome.json").read_bytes() for name in finished(path)})
            kill(cluster.nodes[1])
            cluster.start_node(SLOT)

    results = benchmark(field, MODELS[:1], address=cluster.address).run(path, progress=die)
    assert before
    assert "the node has died" in log_of(path)
    assert results.failures.empty
    assert results.time["ratio"].notna().all()
    assert {name: (path / "steps" / name / "outcome.json").read_bytes() for name in before} == before
    assert re.findall(r"begin .*--rows (\S+)", log_of(path)) == ["0,1", "0,1"]


@pytest.mark.slow
def test_a_run_that_no_node_can_do_is_refused(field, cluster, tmp_path):
    """Ray would wait for ever for a slot or a label that no node has. Nodes that are different machines do not share
    the rows of a run.
    """
    cluster.start_node()
    with pytest.raises(BackendError, match="none of 1 node has the resource `benchslot`: start them with `ray start"):
        benchmark(field, MODELS[:1], address=cluster.address).run(tmp_path / "slot", progress=False)
    cluster.start_node(SLOT, "--labels=isa=vnni")
    with pytest.raises(BackendError, match="no node has the label isa=amx: `isa` is vnni"):
        benchmark(field, MODELS[:1], address=cluster.address, labels={"isa": "amx"}).run(tmp_path / "a", progress=False)
    # The second worker has one core only.
    setup = f"mkdir {tmp_path}/first || taskset -cp 0 $$"
    other = benchmark(field, MODELS[:2], address=cluster.address, labels={"isa": "vnni"}, setup=setup)
    with pytest.raises(BackendError, match=r"the nodes are not alike.*1 core"):
        other.run(tmp_path / "run", progress=False)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_reported(field, cluster, tmp_path):
    """The message has its address, and the job has ended."""
    with pytest.raises(BackendError, match=r"there is no Ray cluster at 127\.0\.0\.1:1"):
        benchmark(field, MODELS[:1], address="127.0.0.1:1").run(tmp_path / "run", progress=False)
    job = read_job(tmp_path / "run")
    assert job is not None
    assert service_of(tmp_path / "run")[0].state(job).is_over
