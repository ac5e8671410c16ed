"""`benchcard.registry`: objects by name, their way into child processes, and what is refused."""

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
    """A framework without most of its attributes."""

    parameters = arguments = frozenset()


@pytest.fixture(autouse=True)
def _fresh_registries(monkeypatch):
    """Give each test registries of its own."""
    fresh = {group: registry._Registry(group) for group in registry._BUILT_IN}
    monkeypatch.setattr(registry, "_registry", fresh.__getitem__)


def test_a_registered_object_is_found_and_registered_again_in_children():
    """A class is instantiated once; `register_again` restores what `registered_by_call` returned, without backends."""
    registry.register_framework("fake", FakeFramework)
    registry.register_metric("line", Pearson(config_name="mine"))
    registry.register_backend("there", SimpleNamespace(run=print))
    assert registry.framework("fake") is registry.framework("fake")
    assert registry.frameworks()[-1] == "fake"
    entries = registry.registered_by_call()
    assert [entry[:2] for entry in entries] == [("frameworks", "fake"), ("metrics", "line")]
    for group in ("frameworks", "metrics"):
        registry._registry(group).__init__(group)
    assert "fake" not in registry.frameworks()
    registry.register_again(entries)
    assert isinstance(registry.framework("fake"), FakeFramework)
    assert registry.metric("line").config_name == "mine"


def test_the_last_registration_of_a_name_counts():
    """A registration replaces an earlier one and a built-in object."""
    registry.register_metric("pearson", Pearson(config_name="mine"))
    assert registry.metric("pearson").config_name == "mine"
    registry.register_metric("pearson", Pearson(config_name="yours"))
    assert registry.metric("pearson").config_name == "yours"
    assert registry.metrics().count("pearson") == 1


def test_an_object_that_children_cannot_import_is_refused():
    """A class in a function and an object that cannot be pickled are refused; the message says what to do."""

    class Inside(FakeFramework):
        pass

    for thing in (Inside, SimpleNamespace(open=lambda: None)):
        with pytest.raises(BenchcardError, match=r"child processes.*`fake`.*module of its own"):
            registry.register_framework("fake", thing)
    with pytest.raises(BenchcardError, match="needs a name"):
        registry.register_framework(" ", FakeFramework)
    assert "fake" not in registry.frameworks()


def test_a_class_of_the_main_program_is_refused():
    """A child process could not import a class of `__main__`."""
    program = """
from benchcard import register_metric
class Mine: pass
try:
    register_metric("mine", Mine)
except Exception as error:
    print(type(error).__name__, error)
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.startswith("BenchcardError child processes need the metric `mine` (__main__.Mine)")
    assert "module of its own" in output


def test_missing_attributes_are_reported():
    """An object without the attributes of its kind is refused at its first use; the message names them."""
    registry.register_framework("half", Half)
    with pytest.raises(
        BenchcardError, match=r"Half, registered as `half`, is not a framework: it lacks `running`.*`open`"
    ):
        registry.framework("half")


def package(name, version, value, point="letters", group="benchcard.metrics"):
    """Return an entry point of an installed package."""

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
    """The error names both packages; a registration by call decides."""
    mine = package("mine", "1", "benchcard.metrics.regression:Pearson")
    yours = package("yours", "2", "benchcard.metrics.regression:Spearman")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [mine, yours] if group == "benchcard.metrics" else [])
    assert registry.metrics().count("letters") == 1
    with pytest.raises(BenchcardError, match=r"`letters`.*mine \(.*Pearson\), yours \(.*Spearman\).*register_metric"):
        registry.metric("letters")
    registry.register_metric("letters", Pearson)
    assert isinstance(registry.metric("letters"), Pearson)


def test_versions_of_other_packages(monkeypatch, tmp_path):
    """Packages have their version and loose modules the digest of their source; built-in objects are left out."""
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


def test_an_entry_point_that_cannot_be_loaded_is_reported(monkeypatch):
    """The message contains the package, the name and the module."""
    point = metadata.EntryPoint("broken", "no_such_module:Task", "benchcard.tasks")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "benchcard.tasks" else [])
    assert "broken" in registry.tasks()
    with pytest.raises(BenchcardError, match=r"task `broken` as no_such_module:Task.*No module named"):
        registry.task("broken")


class Moody:
    """A class whose constructor fails."""

    def __init__(self):
        raise RuntimeError("GPU driver not found")


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """Install a package whose framework cannot be imported, and one whose framework cannot be instantiated."""
    (tmp_path / "driverless.py").write_text("raise RuntimeError('GPU driver not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        package("gpu-bench", "1", "driverless:Framework", "driverless", "benchcard.frameworks"),
        package("moody-bench", "1", f"{__name__}:Moody", "moody", "benchcard.frameworks"),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == "benchcard.frameworks" else [])


def test_an_error_of_a_package_names_the_package(broken):
    """Any exception while an object is imported or instantiated is reported with the names of object and package."""
    with pytest.raises(BenchcardError, match=r"gpu-bench .*framework `driverless`.*RuntimeError: GPU driver not found"):
        registry.framework("driverless")
    with pytest.raises(BenchcardError, match=r"framework `moody` \(.*Moody of moody-bench\) cannot be created.*GPU"):
        registry.framework("moody")
    registry.register_metric("moody", Moody)
    with pytest.raises(BenchcardError, match=r"metric `moody` \(.*Moody.*\) cannot be created: RuntimeError: GPU"):
        registry.metric("moody")


def test_a_broken_framework_does_not_affect_other_specs(broken, beans):
    """Specs that do not use it are read and planned; a spec that uses it gets the error."""
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


def test_names_and_backends_are_checked():
    """A name that is not a text is refused at once; a backend without `run` is refused like any other kind."""
    for name in (3, None, Pearson):
        with pytest.raises(BenchcardError, match=r"a metric needs a name that is a non-empty text, found "):
            registry.register_metric(name, Pearson)
    registry.register_backend("idle", SimpleNamespace(go=print))
    with pytest.raises(BenchcardError, match=r"SimpleNamespace, registered as `idle`, is not a backend.*`run`"):
        registry.backend("idle")


class Listed(FakeFramework):
    """A framework whose `arguments` have names but no types."""

    arguments = ("level",)


def test_arguments_that_are_not_a_mapping_are_refused():
    """A framework whose arguments cannot be looked up is refused."""
    registry.register_framework("listed", Listed)
    with pytest.raises(BenchcardError, match=r"Listed, .*is not a framework: its `arguments` are not a mapping"):
        registry.framework("listed")
