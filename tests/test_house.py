"""The house itself: what the public surface is, what an import costs, and that imports between layers point down
only.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import benchcard

PACKAGE = Path(benchcard.__file__).parent

# From the bottom up; a module may import from its own layer and from those before it.
LAYERS = [
    {"errors", "_version"},
    {
        "kinds",
        "plaindata",
        "registry",
        "parameters",
        "spec",
        "plan",
        "machine",
        "child_process",
        "processes",
        "progress",
    },
    {"tasks", "metrics", "frameworks", "quantization", "sources", "renamed"},
    {"measure"},
    {
        "store",
        "worker",
        "steps",
        "auto_exclusion",
        "walk",
        "actions",
        "timed_groups",
        "side_by_side",
        "runner",
    },
    {"backends"},
    {
        "records",
        "reasons",
        "readings",
        "frames",
        "likeness",
        "gains",
        "choice",
        "front",
        "two_runs",
        "two_times",
        "plan_frame",
        "noise_frame",
        "failures_frame",
        "results",
    },
    {
        "card",
        "card_facts",
        "folders",
        "hub",
        "hub_faults",
        "hub_files",
        "hub_guard",
        "weights",
        "loading",
        "bundle",
        "publishing",
        "card_source",
        "card_spec",
        "card_results",
        "verifying",
        "testing",
    },
    {"benchmark", "handed_data", "cli", "cli_hub", "cli_tables", "__main__"},
]
# Names in `from benchcard import x` that are imported only when they are asked for.
UPWARD = {
    ("results", "card"),
    ("results", "card_facts"),
    ("card_facts", "results"),
    *(("results", each) for each in ("publishing", "card_results", "verifying")),
}


def run_nodes(path: Path) -> list[ast.AST]:
    """All that a file says, at its top or inside a function, type checking apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    return list(ast.walk(tree))


def imports(path: Path) -> set[str]:
    """The top-level modules of the package that a file imports."""
    found = set()
    for node in run_nodes(path):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "benchcard":
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("benchcard.")}
    return found


def layer_of(module: str) -> int | None:
    """The layer in which a module stands."""
    return next((index for index, names in enumerate(LAYERS) if module in names), None)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    """A module imports nothing from a layer above its own."""
    module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if module == "__init__":
        return
    mine = layer_of(module)
    assert mine is not None, f"{module} has no layer"
    for name in imports(path):
        theirs = layer_of(name)
        assert theirs is not None or name in ("__version__",), f"{name} has no layer"
        assert theirs is None or theirs <= mine or (module, name) in UPWARD, f"{module} imports {name} from above"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_names_stay_in_their_module(path):
    """What two modules share has a public name."""
    taken = {
        f"{node.module}.{alias.name}"
        for node in run_nodes(path)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchcard.")
        for alias in node.names
        if alias.name.startswith("_") and alias.name != "__version__"
    }
    assert not taken


def test_the_package_runs_as_the_command_line():
    """`python -m benchcard` is `benchcard`."""
    command = [sys.executable, "-m", "benchcard", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"benchcard, version {benchcard.__version__}\n"


def test_every_public_name_can_be_imported():
    """`__all__` is sorted, and each name in it is there."""
    assert benchcard.__all__ == sorted(benchcard.__all__)
    for name in benchcard.__all__:
        assert getattr(benchcard, name) is not None
    with pytest.raises(AttributeError):
        benchcard.no_such_name  # noqa: B018


def loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after `code`."""
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
    """Neither the package, nor its command line, nor `Benchmark` loads a library that takes long."""
    assert not loaded(code) & HEAVY


def test_timing_onnxruntime_loads_no_torch():
    """The child that times, with onnxruntime in it, never imports torch or transformers."""
    code = "import benchcard.measure.timed, benchcard.registry as registry"
    code += "\nregistry.framework('onnxruntime').import_runtime()"
    assert not loaded(code) & {"torch", "transformers"}
