"""The layout of the package: imports point down without circles, private names stay private, imports are light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import benchcard

PACKAGE = Path(benchcard.__file__).parent
ROOT = PACKAGE.parent

# A package imports from lower floors only. docs/architecture.md has the same table.
FLOORS = {
    "__main__": 16,
    "cli": 15,
    "benchmark": 14,
    "results": 13,
    "report": 12,
    "publishing": 11,
    "reproduce": 11,
    "drafting": 11,
    "analysis": 10,
    "backends": 10,
    "run": 9,
    "workers": 8,
    "testing": 8,
    "steps": 7,
    "evaluation": 6,
    "sources": 6,
    "tasks": 5,
    "metrics": 5,
    "frameworks": 5,
    "export": 4,
    "measure": 4,
    "spec": 4,
    "quantization": 3,
    "card": 3,
    "registry": 3,
    "graphs": 2,
    "hub": 2,
    "utils": 1,
    "errors": 0,
    "_version": 0,
}
AT_THE_TOP = {"__init__", "__main__", "_version", "benchmark", "errors", "registry", "results"}
# What packages outside benchcard may import, in addition to the names of `benchcard` itself.
PUBLIC = {
    "errors",
    "spec.schema",
    "tasks",
    "tasks.data",
    "tasks.text",
    "tasks.outputs",
    "frameworks",
    "metrics.offline",
    "metrics.examples",
    "backends.local",
    "card",
    "testing",
}


def module_name(path: Path) -> str:
    """Return the dotted name of a module below `benchcard`; for an `__init__`, that of its package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [name for name in FILES if name]


def imports_of(source: str) -> set[tuple[str, str]]:
    """Return the modules of the package that code imports anywhere, each with the imported name."""
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "benchcard":
            package = ".".join(node.module.split(".")[1:])
            for alias in node.names:
                inner = f"{package}.{alias.name}".lstrip(".")
                modules.add((inner if inner in FILES else package, alias.name))
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("benchcard.")]
            modules |= {(name.removeprefix("benchcard."), "") for name in names}
    return modules


IMPORTS = {name: imports_of(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def floor(module: str) -> int:
    """Return the floor of a module's package."""
    return FLOORS[module.split(".")[0]]


def test_every_package_has_a_floor():
    """The top of the package has the packages of the table and seven modules, nothing else."""
    assert {name.split(".")[0] for name in MODULES} == set(FLOORS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == AT_THE_TOP


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    """A module imports from its own package and from lower floors, also in functions and type hints."""
    package = module.split(".")[0]
    upward = {
        other
        for other, _ in IMPORTS[module]
        if other and other.split(".")[0] != package and floor(other) >= floor(module)
    }
    assert not upward


def test_no_circle_of_modules():
    """No module imports itself through others, type hints included."""
    graph = {name: {other for other, _ in IMPORTS[name] if other in FILES and other != name} for name in MODULES}
    while free := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in free}
    circles = {name for name in graph if any(name in graph[other] for other in graph)}
    assert not circles


@pytest.mark.parametrize("module", MODULES)
def test_private_names_stay_in_their_module(module):
    """A module imports no private name of another."""
    assert not {name for _, name in IMPORTS[module] if name.startswith("_") and name != "__version__"}


@pytest.mark.parametrize(
    "path",
    sorted(
        [*ROOT.glob("examples/*.py"), *ROOT.glob("tests/plugin/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    ),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_code_for_users_imports_public_names(path):
    """Examples, documentation and the example plugin import from the public surface only."""
    text = path.read_text(encoding="utf-8")
    blocks = [text] if path.suffix == ".py" else re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    used = {module for block in blocks for module, _ in imports_of(block) if module}
    assert used <= PUBLIC


def test_the_architecture_page_has_the_table():
    """docs/architecture.md has the table `FLOORS`."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", page, re.MULTILINE)
    floors = {
        name.removesuffix("/").removesuffix(".py"): int(number)
        for number, names in rows
        for name in re.findall(r"`([\w/.]+)`", names)
    }
    assert floors == FLOORS


def test_the_architecture_page_names_existing_files():
    """Every file and folder of the package that docs/architecture.md names exists."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = {path for path in re.findall(r"`([\w/]+(?:\.py|/))`", page) if not path.startswith("tests/")}
    assert len(paths) > 40
    assert not {path for path in paths if not (PACKAGE / path).exists()}


def test_the_package_runs_as_the_command_line():
    """`python -m benchcard` is `benchcard`."""
    command = [sys.executable, "-m", "benchcard", "--version"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output == f"benchcard, version {benchcard.__version__}\n"


def test_every_public_name_can_be_imported():
    """`__all__` is sorted, and each name in it exists."""
    assert benchcard.__all__ == sorted(benchcard.__all__)
    for name in benchcard.__all__:
        assert getattr(benchcard, name) is not None
    with pytest.raises(AttributeError):
        benchcard.no_such_name  # noqa: B018


def modules_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after it ran `code`."""
    program = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


HEAVY = {
    "torch",
    "transformers",
    "onnxruntime",
    "onnx",
    "datasets",
    "evaluate",
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "huggingface_hub",
    "optimum",
}


@pytest.mark.parametrize("code", ["import benchcard", "import benchcard.cli", "from benchcard import Benchmark"])
def test_importing_loads_nothing_heavy(code):
    """The package, its command line and `Benchmark` load no library that takes long to import."""
    assert not modules_after(code) & HEAVY


def test_a_timed_process_loads_little_beside_its_framework():
    """What is loaded there is measured with the model: of the package neither card, nor metrics, nor tasks."""
    runtime = "from benchcard import registry\nregistry.framework('onnxruntime').import_runtime()"
    loaded = modules_after(f"import benchcard.measure.launcher\n{runtime}")
    assert "onnxruntime" in loaded
    assert not loaded & (HEAVY - {"onnxruntime", "numpy"})
    own = {name.split(".")[1] for name in loaded if name.startswith("benchcard.")}
    assert own == {"_version", "errors", "frameworks", "graphs", "measure", "registry", "spec", "utils"}
