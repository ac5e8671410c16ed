"""What can be plugged in by a call: how it is kept, handed to children, and refused."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from benchcard import registry
from benchcard.errors import BenchcardError, SpecError
from benchcard.metrics.regression import Pearson
from benchcard.testing import FakeFramework


class Half:
    """Half a framework."""

    parameters = arguments = frozenset()


@pytest.fixture(autouse=True)
def _tables(monkeypatch):
    """Tables of one test only."""
    fresh = {group: registry._Table(group) for group in registry._BROUGHT}
    monkeypatch.setattr(registry, "_table", fresh.__getitem__)


def test_what_is_registered_is_found_and_handed_on():
    """A class is made once and an object taken as it is; what `called` tells, `recall` registers, but for backends."""
    registry.register_framework("fake", FakeFramework)
    registry.register_metric("line", Pearson(config_name="mine"))
    registry.register_backend("there", SimpleNamespace(run=print))
    assert registry.framework("fake") is registry.framework("fake")
    assert registry.frameworks()[-1] == "fake"
    told = registry.registered_by_call()
    assert [entry[:2] for entry in told] == [("frameworks", "fake"), ("metrics", "line")]
    for group in ("frameworks", "metrics"):
        registry._table(group).__init__(group)
    assert "fake" not in registry.frameworks()
    registry.register_again(told)
    assert isinstance(registry.framework("fake"), FakeFramework)
    assert registry.metric("line").config_name == "mine"


def test_the_last_one_of_a_name_counts():
    """A name can be taken over, also one that benchcard brings."""
    registry.register_metric("pearson", Pearson(config_name="mine"))
    assert registry.metric("pearson").config_name == "mine"
    registry.register_metric("pearson", Pearson(config_name="yours"))
    assert registry.metric("pearson").config_name == "yours"
    assert registry.metrics().count("pearson") == 1


def test_what_a_child_could_not_have_is_refused():
    """A class in a function, or an object that cannot be pickled, is refused at once, with what to do."""

    class Inside(FakeFramework):
        pass

    for thing in (Inside, SimpleNamespace(open=lambda: None)):
        with pytest.raises(BenchcardError, match=r"`fake`.*child processes.*module of its own"):
            registry.register_framework("fake", thing)
    with pytest.raises(BenchcardError, match="needs a name"):
        registry.register_framework(" ", FakeFramework)
    assert "fake" not in registry.frameworks()


def test_what_is_in_the_program_itself_is_refused():
    """A class in `__main__` could not be imported by a child."""
    program = """
from benchcard import register_metric
class Mine: pass
try:
    register_metric("mine", Mine)
except Exception as error:
    print(type(error).__name__, error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.startswith("BenchcardError the metric `mine` (__main__.Mine)")
    assert "module of its own" in told


def test_what_lacks_something_is_said():
    """A thing that is none of its kind is refused when it is first asked for, with what it lacks."""
    registry.register_framework("half", Half)
    with pytest.raises(BenchcardError, match=r"Half is no framework.*`half`.*lacks `running`, `engine`.*`open`"):
        registry.framework("half")


def package(name, version, value, point="letters", group="benchcard.metrics"):
    """An entry point as an installed package has it."""

    class Package(metadata.Distribution):
        @property
        def metadata(self):
            return {"Name": name, "Version": version}

        def read_text(self, filename):
            return None

        def locate_file(self, path):
            raise FileNotFoundError(path)

    return metadata.EntryPoint(point, value, group)._for(Package())


def test_a_name_of_two_packages_is_refused(monkeypatch):
    """The one that comes first does not win silently: the error names both; a call decides."""
    mine = package("mine", "1", "benchcard.metrics.regression:Pearson")
    yours = package("yours", "2", "benchcard.metrics.regression:Spearman")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [mine, yours] if group == "benchcard.metrics" else [])
    assert registry.metrics().count("letters") == 1
    with pytest.raises(BenchcardError, match=r"`letters`.*mine \(.*Pearson\), yours \(.*Spearman\).*register_metric"):
        registry.metric("letters")
    registry.register_metric("letters", Pearson)
    assert isinstance(registry.metric("letters"), Pearson)


def test_versions_of_what_others_bring(monkeypatch, tmp_path):
    """The distribution's version, of a loose module the digest of its source, and nothing of what benchcard brings."""
    (tmp_path / "loose_metric.py").write_text("from benchcard.metrics.regression import Pearson as P\nclass L(P): pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    import loose_metric

    point = package("mine", "1.5", "benchcard.metrics.regression:Pearson")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "benchcard.metrics" else [])
    registry.register_metric("loose", loose_metric.L)
    registry.register_framework("fake", FakeFramework)
    used = {"metrics": ["letters", "accuracy", "loose", "nowhere"], "frameworks": ["fake"]}
    found = registry.versions(used)
    assert found["mine"] == "1.5"
    assert found["loose_metric"].startswith("sha256:")
    assert set(found) == {"mine", "loose_metric"}
    (tmp_path / "loose_metric.py").write_text("from benchcard.metrics.regression import Spearman as L")
    assert registry.versions(used)["loose_metric"] != found["loose_metric"]


def test_an_entry_point_that_cannot_be_loaded_is_said(monkeypatch):
    """The message names package, name and module."""
    point = metadata.EntryPoint("broken", "no_such_module:Task", "benchcard.tasks")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "benchcard.tasks" else [])
    assert "broken" in registry.tasks()
    with pytest.raises(BenchcardError, match=r"task `broken` as no_such_module:Task.*No module named"):
        registry.task("broken")


class Moody:
    """A thing of any kind that cannot be made."""

    def __init__(self):
        raise RuntimeError("GPU driver not found")


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """A package whose framework cannot be imported, and one whose framework cannot be made."""
    (tmp_path / "driverless.py").write_text("raise RuntimeError('GPU driver not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        package("gpu-bench", "1", "driverless:Framework", "driverless", "benchcard.frameworks"),
        package("moody-bench", "1", f"{__name__}:Moody", "moody", "benchcard.frameworks"),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "benchcard.frameworks" else [])


def test_whatever_a_package_raises_names_it(broken):
    """Any exception of a package, while its thing is loaded or made, is told with its name and the package's."""
    with pytest.raises(BenchcardError, match=r"gpu-bench .*framework `driverless`.*RuntimeError: GPU driver not found"):
        registry.framework("driverless")
    with pytest.raises(BenchcardError, match=r"framework `moody` \(.*Moody of moody-bench\) cannot be made.*GPU"):
        registry.framework("moody")
    registry.register_metric("moody", Moody)
    with pytest.raises(BenchcardError, match=r"metric `moody` \(.*Moody.*\) cannot be made: RuntimeError: GPU"):
        registry.metric("moody")


def test_a_broken_framework_is_no_matter_of_other_specs(broken, beans):
    """Specs that do not use it are read and planned as ever; one that does says why it cannot be."""
    from benchcard.spec import spec
    from benchcard.spec.plan import make_plan

    assert len(make_plan(spec.read_spec(beans)))
    with pytest.raises(SpecError, match=r"did you mean `framework_args.opset`"):
        spec.read_spec({**beans, "opset": 13})
    for asked in (
        {"grid": {"framework": ["onnxruntime", "driverless"]}, "framework_args": {"level": 3}},
        {"grid": {}, "framework": "driverless", "framework_args.level": 3},
    ):
        with pytest.raises(BenchcardError, match="GPU driver not found"):
            spec.read_spec({**beans, **asked})


def test_names_and_backends_are_looked_at_too():
    """A name that is no text is refused at once; a backend that cannot run, in the words of all other kinds."""
    for name in (3, None, Pearson):
        with pytest.raises(BenchcardError, match=r"a metric needs a name, and .* is none"):
            registry.register_metric(name, Pearson)
    registry.register_backend("idle", SimpleNamespace(go=print))
    with pytest.raises(BenchcardError, match=r"SimpleNamespace is no backend.*`idle`: it lacks `run`"):
        registry.backend("idle")


class Listed(FakeFramework):
    """A framework that lists its arguments without saying what they are."""

    arguments = ("level",)


def test_arguments_that_are_no_mapping_are_refused():
    """What would break everything that looks at arguments is refused as a framework."""
    registry.register_framework("listed", Listed)
    with pytest.raises(BenchcardError, match=r"Listed is no framework.*its `arguments` are no mapping"):
        registry.framework("listed")
