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
# The graphs of the first and the last of these are equal.
EXCLUSIONS = {"node_exclusion": [[], ["re:.*attention.*"], ["re:.*intermediate.*"], ["softmax"]]}
# Steps are spread over nodes if they are expected to take long.
LONG = "max_eval_samples: 1000000000\n"


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


def benchmark(field, models, axes=None, **arguments):
    """A benchmark of two rows for each of some models, or of more by further axes, with steps that seem long."""
    grid = {"name_or_path": models, **(axes or {}), "apply_quantization": [False, True]}
    given = json.dumps({"setup": "true", **arguments})
    text = SPEC.replace("model: ./model\n", "") + TWO_ROWS + LONG * bool(axes) + f"grid: {json.dumps(grid)}\n"
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


def figures(results):
    """What two runs of a grid have in common."""
    return results.quality[["accuracy", "predictions_changed", "samples"]].to_numpy().tolist()


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
    assert figures(results) == figures(local)
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
def test_steps_of_one_model_are_spread_over_nodes_and_its_timing_is_not(field, cluster, tmp_path):
    """After the baseline, two nodes make and evaluate variants of one model at the same time, also two that turn out to
    be equal. Then one node times all of them; it has nothing else to do.
    """
    cluster.start_node()
    for _ in range(2):
        cluster.start_node(SLOT)
    local = benchmark(field, MODELS[:1], EXCLUSIONS).run(tmp_path / "local", progress=False)
    # Each worker notes the steps and times with which it begins; those of the second stage wait for each other.
    notes, meeting = tmp_path / "notes", tmp_path / "meeting"
    notes.mkdir()
    meeting.mkdir()
    both = f"[ $(ls {meeting} | wc -l) -ge 2 ]"
    setup = f"""rows=$(sed 's/.*--rows \\([0-9,]*\\).*/\\1/' <<< "$*")
ls $1/steps $1/times > {notes}/$rows 2> /dev/null || true
if [[ $* == *--untimed* && $rows != 0 ]]; then
    touch {meeting}/$$; for i in $(seq 600); do {both} && break; sleep 0.1; done; {both}
fi"""
    run = benchmark(field, MODELS[:1], EXCLUSIONS, address=cluster.address, setup=setup)
    results = run.run(tmp_path / "run", progress=False)
    assert figures(results) == figures(local)
    assert results.failures.empty
    assert results.time["ratio"].notna().all()
    (first, *chunks, whole) = intervals(log_of(tmp_path / "run"))
    assert (first[1], sorted(rows for _, rows, _, _ in chunks), whole[1]) == ("0", ["1,3", "2,4"], "0,1,2,3,4")
    assert chunks[0][0] != chunks[1][0]
    assert max(chunks[0][2], chunks[1][2]) < min(chunks[0][3], chunks[1][3])
    assert first[3] <= min(begin for _, _, begin, _ in chunks)
    assert max(end for _, _, _, end in chunks) <= whole[2]
    # The node that times begins with all steps, and without times.
    steps, times = ({path.name for path in (tmp_path / "run" / name).iterdir()} for name in ("steps", "times"))
    listed = {path.name: {*path.read_text().split()} & (steps | times) for path in notes.iterdir()}
    assert listed["0,1,2,3,4"] == steps
    evaluated = [record.outcomes.evaluate.folder.name for record in results.records.records]
    assert evaluated[1] == evaluated[4]
    for rows in ("1,3", "2,4"):
        assert set(evaluated) & listed[rows] == {evaluated[0]}


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

    results = benchmark(field, MODELS[:1], EXCLUSIONS, address=cluster.address).run(path, progress=die)
    assert before
    assert "the node has died" in log_of(path)
    assert results.failures.empty
    assert results.time["ratio"].notna().all()
    assert {name: (path / "steps" / name / "outcome.json").read_bytes() for name in before} == before
    # One node does all rows.
    assert re.findall(r"begin .*--rows (\S+)", log_of(path)) == ["0,1,2,3,4", "0,1,2,3,4"]


@pytest.mark.slow
def test_a_node_that_dies_among_others_costs_its_unfinished_steps_only(field, cluster, tmp_path):
    """What it had made of its rows of a model is not made again; other nodes do not notice."""
    cluster.start_node()
    for _ in range(2):
        cluster.start_node(SLOT)
    path, released, before = tmp_path / "run", tmp_path / "released", {}

    def die(event):
        if not before and len(list(path.glob("steps/compare-*/outcome.json"))) == 3:
            before.update({name: (path / "steps" / name / "outcome.json").read_bytes() for name in finished(path)})
            kill(cluster.nodes[1])
            cluster.start_node(SLOT)
            released.touch()

    # Both nodes wait after their first row of two.
    waiting = f'while not os.path.exists("{released}"): __import__("time").sleep(0.1)'
    first_row = "run_plan(plan, run, rows=rows[:1], timed=False)"
    lines = rf"    if not timed and rows[0]:\n        {first_row}\n        {waiting}\n"
    setup = f"sed -i 's|^    run_plan(|{lines}&|' code/benchcard/backends/worker.py"
    run = benchmark(field, MODELS[:1], EXCLUSIONS, address=cluster.address, setup=setup)
    results = run.run(path, progress=die)
    assert before
    assert results.failures.empty
    assert results.time["ratio"].notna().all()
    assert {name: (path / "steps" / name / "outcome.json").read_bytes() for name in before} == before
    assert len(re.findall("the node has died", log_of(path))) == 1
    first, *chunks, whole = re.findall(r"begin .*--rows (\S+)", log_of(path))
    assert (first, whole) == ("0", "0,1,2,3,4")
    assert sorted(chunks) in (["1,3", "1,3", "2,4"], ["1,3", "2,4", "2,4"])


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
    # Nor do they share those of one model.
    cluster.start_node(SLOT, "--labels=isa=vnni")
    setup = f"mkdir {tmp_path}/baseline || taskset -cp 0 $$"
    spread = benchmark(field, MODELS[:1], EXCLUSIONS, address=cluster.address, setup=setup, redraws=0)
    with pytest.raises(BackendError, match=r"the nodes are not alike.*1 core"):
        spread.run(tmp_path / "spread", progress=False)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_reported(field, cluster, tmp_path):
    """The message has its address, and the job has ended."""
    with pytest.raises(BackendError, match=r"there is no Ray cluster at 127\.0\.0\.1:1"):
        benchmark(field, MODELS[:1], address="127.0.0.1:1").run(tmp_path / "run", progress=False)
    job = read_job(tmp_path / "run")
    assert job is not None
    assert service_of(tmp_path / "run")[0].state(job).is_over
