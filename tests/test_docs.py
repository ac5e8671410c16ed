"""The documentation: links lead somewhere, examples are Python, and the spec of the README is a valid one."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote

import pytest
from ruamel.yaml import YAML

from benchcard import Benchmark

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "examples" / "README.md", ROOT / "benchmarks" / "README.md"]
)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def python_blocks(page: Path) -> list[str]:
    """Return the Python code blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Every relative link of a page names a file, and a heading in it."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if re.match(r"https?:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_are_python(page):
    """Every Python block of a page can be parsed."""
    for block in python_blocks(page):
        ast.parse(block)


def test_the_spec_of_the_readme_is_valid():
    """The `Benchmark(...)` of README.md has no mistakes, and its rows are those of both frameworks."""
    (block,) = python_blocks(ROOT / "README.md")
    call = next(node for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Call))
    benchmark = Benchmark(**{keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords})
    assert {row["framework"] for row in benchmark.configurations} == {"onnxruntime", "pytorch"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_yaml_is_valid_and_whole_specs_can_be_run(page, tmp_path):
    """Each YAML block can be read, and one with a task, a model and data is a spec without mistakes."""
    blocks = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        content = YAML(typ="safe").load(block)
        is_known = content.get("task") != "lm-eval" or find_spec("lm_eval")  # which knows the names of its tasks
        if is_known and {"task", "model", "dataset"} <= content.keys():
            (tmp_path / "spec.yaml").write_text(block, encoding="utf-8")
            assert len(Benchmark.from_spec(tmp_path / "spec.yaml").configurations)
