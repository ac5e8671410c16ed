"""The documentation: links lead somewhere, examples are Python, and the spec of the README is a valid one."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from urllib.parse import unquote

import pytest

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
