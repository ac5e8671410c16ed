"""The notebook in `examples`: its cells run and display themselves, and it is committed with its outputs."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_cell(source: str, namespace: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last line."""
    tree = ast.parse(source)
    last = tree.body[-1]
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(tree.body[:-1], []), "cell", "exec"), namespace)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


@pytest.mark.slow
def test_the_cells_run_and_show_themselves(tmp_path, monkeypatch):
    """Every code cell runs, and its last value displays itself: as a table, a picture, or the card's Markdown."""
    notebook = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    nbformat.validate(notebook)
    for name in ("digits", "quickstart"):
        (tmp_path / name).symlink_to(EXAMPLES / name)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    values = [run_cell(cell.source, namespace) for cell in notebook.cells if cell.cell_type == "code"]
    benchmark, results, best, time, card = values
    assert benchmark._repr_html_().count("<tr") == 1 + 3
    assert "<table" in results._repr_html_()
    assert 'src="data:image/png;base64,' in results._repr_html_()
    assert str(best.row) in best._repr_html_()
    assert len(time) == 3
    assert (
        card._repr_markdown_()
        .lstrip()
        .startswith("## Benchmark: image-classification with ViT for digits on Handwritten digits")
    )
    assert "](data:image/png;base64," in card._repr_markdown_()


def test_it_is_committed_with_its_outputs():
    """The committed outputs are tables and the card, and no error."""
    cells = [
        cell for cell in nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4).cells if cell.cell_type == "code"
    ]
    kinds = [{kind for output in cell.outputs for kind in output.get("data", {})} for cell in cells]
    assert all(cell.execution_count for cell in cells)
    assert all("text/html" in kind for kind in kinds[:4])
    assert "text/markdown" in kinds[4]
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
