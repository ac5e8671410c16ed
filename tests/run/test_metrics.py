"""Whole runs with metrics of somebody else's: found from the spec's folder, read the way that is said, held to."""

from __future__ import annotations

import pytest
import tiny_run
from metrics.test_compute import SCRIPT

from benchcard import Benchmark, Results, registry
from benchcard.errors import MachineError, SpecError

WITH_SCRIPT = """
grid: {framework: [pytorch]}
metrics: [./metrics/longer.py, accuracy]
duration: 0
"""


@pytest.fixture
def elsewhere(ground, tmp_path, monkeypatch):
    """A folder with a spec and a metric's script beside it, which is not the current one."""
    folder = tmp_path / "specs"
    (folder / "metrics").mkdir(parents=True)
    (folder / "metrics" / "longer.py").write_text(SCRIPT)
    spec = tiny_run.SPEC.replace("./model", str(ground / "model")).replace("./data", str(ground / "data"))
    (folder / "spec.yaml").write_text(spec + WITH_SCRIPT)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


@pytest.mark.slow
def test_a_script_is_found_from_the_folder_of_the_spec(elsewhere, monkeypatch):
    """A relative path starts where the spec lies; a direction that nobody knows is said in the choice, on the card and
    in the notes; a script, or a package, that is another one than at the beginning is refused.
    """
    path, name = elsewhere / "run", "./metrics/longer.py"
    results = Benchmark.from_spec(elsewhere / "spec.yaml").run(path, progress=False)
    assert results.failures.empty
    assert 0 <= results.quality[name][0] <= 1
    assert results.quality[f"{name}_low"][0] is not None
    assert [note for note in results.notes if name in note and "not known whether a higher" in note]
    assert "not known whether a higher" in results.best().reason
    assert "it is not known whether a higher" in results.card().text
    assert "not known whether a higher" not in results.best(metric="accuracy").reason
    known = registry.versions
    monkeypatch.setattr(registry, "versions", lambda used: {**known(used), "their-metrics": "2.0"})
    with pytest.raises(MachineError, match=r"other libraries \(their-metrics None -> 2.0\)"):
        Benchmark.from_spec(elsewhere / "spec.yaml").run(path, progress=False)
    monkeypatch.setattr(registry, "versions", known)
    (elsewhere / "metrics" / "longer.py").write_text(SCRIPT.replace("a > b", "a < b"))
    with pytest.raises(SpecError, match=r"longer.py as it is now.*it has changed"):
        Benchmark.from_spec(elsewhere / "spec.yaml").run(path, progress=False)
    assert Results.load(path).quality[name][0] == results.quality[name][0]


@pytest.mark.slow
def test_a_direction_can_be_said(elsewhere):
    """`higher_is_better` of a spec counts by the metric's id; a name that no metric has is a mistake; a script that is
    not there says where it was looked for.
    """
    spec, name = elsewhere / "spec.yaml", "./metrics/longer.py"
    text = spec.read_text()
    spec.write_text(text + f"higher_is_better: {{{name}: false}}\n")
    results = Benchmark.from_spec(spec).run(elsewhere / "run", progress=False)
    reading = results.records.records[0].outcomes.score.values.readings
    assert (reading[name].higher_is_better, reading["accuracy"].higher_is_better) == (False, True)
    assert "not known whether a higher" not in results.best().reason
    assert not [note for note in results.notes if "not known whether a higher" in note]
    spec.write_text(text + "higher_is_better: {acuracy: true}\n")
    with pytest.raises(SpecError, match=r"did you mean `accuracy`.*higher_is_better.acuracy"):
        Benchmark.from_spec(spec).run(elsewhere / "other", progress=False)
    spec.write_text(text + "higher_is_better: {accuracy: up}\n")
    with pytest.raises(SpecError, match=r"true or false.*higher_is_better.accuracy"):
        Benchmark.from_spec(spec)
    spec.write_text(text.replace("longer.py", "shorter.py"))
    with pytest.raises(SpecError, match=r"shorter.py.*there is no such path in"):
        Benchmark.from_spec(spec).run(elsewhere / "third", progress=False)
