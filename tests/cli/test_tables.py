"""Tables fit the terminal and say what they leave out; `--wide` and `--json` have everything."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios

import pandas as pd
import pytest
from click.testing import CliRunner

from benchcard import Benchmark, Results
from benchcard.cli import tables
from benchcard.cli.commands import main

WIDTH = 80
TEXTS = ["onnxruntime", "pytorch"]


@pytest.fixture
def terminal(monkeypatch):
    """Make every line as long as that of a terminal of 80 columns."""
    monkeypatch.setattr(tables, "_width", lambda: WIDTH)


def wide_frame(rows=2):
    """Return a frame of many figures with intervals, and of parameters that differ, that are equal, and that are long.

    Its figures fill several terminals of 80 columns.
    """
    arguments = [{"opset": 13, "optimization_level": 1}, {}]
    frame = {
        "row": range(rows),
        "framework": TEXTS,
        "framework_args": arguments,
        "per_channel": [True] * rows,
        "input_length": [64] * rows,
    }
    for figure in ("accuracy", "f1_of_every_label", "recall_of_every_label", "ratio", "calibration_error"):
        frame |= {figure: [0.98765, 12.5], f"{figure}_low": [0.97654, 11.5], f"{figure}_high": [0.99876, 13.5]}
    return pd.DataFrame({**frame, "elapsed_s": [1.5] * rows, "why": ["", "too few launches for an interval"]})


def printed(capsys, frame, **options):
    """Return the lines that `table` prints: those of the table, and those below it."""
    tables.table(frame, **options)
    lines = capsys.readouterr().out.splitlines()
    end = next((number for number, line in enumerate(lines) if line.startswith("in all rows")), len(lines))
    return lines[:end], lines[end:]


def parts(names):
    """Return every sequence of whole words of names that are joined by underscores."""
    split = [name.split("_") for name in names]
    ranges = [(words, start, end) for words in split for end in range(len(words) + 1) for start in range(end)]
    return {"_".join(words[start:end]) for words, start, end in ranges}


def words(line):
    """Return the words of a line of a header, which ends in an underscore where a name continues."""
    return [word.removesuffix("_") for word in line.split()]


def test_headers_are_broken_at_underscores_only(terminal, capsys):
    """At 80 columns no line is longer, every piece of a header is a whole word, and a line names what is left out."""
    table, below = printed(capsys, wide_frame())
    assert max(map(len, [*table, *below])) <= WIDTH
    header = table[: next(number for number, line in enumerate(table) if line.startswith("──"))]
    assert set(words(" ".join(header))) <= parts({*wide_frame(), "configuration"})
    text = " ".join(below)
    assert text.startswith("in all rows: per_channel=True, input_length=64 ")
    assert "framework_args: {'opset': 13, 'optimization_level': 1} in row 0; {} in row 1" in text
    assert "why: too few launches for an interval in row 1" in text
    assert re.search(r"not shown: .*calibration_error, elapsed_s \(`--wide` or `--json` shows them\)", text)
    # The most important columns are there, with whole intervals.
    shown = " ".join(table)
    assert "ratio" in shown
    assert "[0.9765, 0.9988]" in shown
    assert "onnxruntime" in shown


def test_a_wide_table_has_everything(terminal, capsys):
    """With `--wide` each row is one line with all columns and intervals, and nothing is below."""
    table, below = printed(capsys, wide_frame(), wide=True)
    assert below == []
    assert len(table) == 1 + 1 + 2
    assert table[0].split() == [name for name in wide_frame() if not name.endswith(("_low", "_high"))]
    assert table[2].count("[0.9765, 0.9988]") == 5


def test_a_pipe_gets_one_line_a_row(capsys):
    """Without a terminal no line is broken, and a space of an interval is a space."""
    table, below = printed(capsys, wide_frame())
    assert len(table) == 1 + 1 + 2
    assert table[2].count("[0.9765, 0.9988]") == 5
    assert below[-1] == "not shown: elapsed_s (`--wide` or `--json` shows them)"


@pytest.mark.parametrize("width", [20, 40, 60, 100])
def test_no_line_is_longer_than_the_terminal(monkeypatch, capsys, width):
    """Whatever the width, the number of the row is there, and the lines fit."""
    monkeypatch.setattr(tables, "_width", lambda: width)
    table, below = printed(capsys, wide_frame())
    assert max(map(len, [*table, *below])) <= width
    assert table[0].lstrip().startswith("row") or any(line.startswith("row") for line in table[:4])


def test_a_long_list_is_broken_between_its_members(terminal, capsys):
    """A list of operators takes no more than its share of the line; a word that is too long for a line is cut."""
    operators = [["Add", "MatMul", "Gemm", "Conv", "Attention", "LayerNormalization", "Gather"], ["x" * 200]]
    frame = pd.DataFrame({"row": [0, 1], "operators_to_quantize": operators, "accuracy": [0.5, 0.25]})
    table, _ = printed(capsys, frame)
    assert max(map(len, table)) <= WIDTH
    assert table[0].split() == ["row", "configuration", "accuracy"]
    assert table[2].split()[1].startswith("Add+MatMul+")
    assert table[2].split()[1].endswith("+")
    assert any("LayerNormalization+" in line for line in table)


def test_a_comparison_says_once_what_its_rows_share(terminal, capsys):
    """Equal numbers of rows are one column, and equal parameters a line; rows of other numbers have both."""
    frame = pd.DataFrame(
        {
            "row_a": [0, 1],
            "row_b": [0, 1],
            "framework": ["onnxruntime"] * 2,
            "apply_quantization": [False, True],
            "figure": ["accuracy"] * 2,
            "a": [0.98, 0.97],
            "b": [0.98, 0.9],
            "verdict": ["no detectable difference", "worse"],
        }
    )
    table, below = printed(capsys, frame)
    assert table[0].split() == ["row", "configuration", "figure", "a", "b", "verdict"]
    assert table[2].split()[:3] == ["0", "not", "quantized"]
    assert below == ["in all rows: framework=onnxruntime"]
    table, _ = printed(capsys, frame.assign(row_b=[1, 0]))
    assert table[0].split()[:2] == ["row_a", "row_b"]


def test_text_is_broken_between_words(terminal, capsys):
    """A sentence that is longer than the line is continued on the next one, and brackets are text."""
    tables.write_text("a sentence [bold] of some length " * 5)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert " ".join(lines) == ("a sentence [bold] of some length " * 5).strip()


def commands(results, ground, card):
    """Return the commands that print tables, for a run, its spec and its card."""
    run = str(results.path)
    return {
        "plan": ["plan", str(ground / "spec.yaml")],
        "show": ["show", run],
        "compare": ["compare", run, run, "--quality-only"],
        "read": ["read", str(card)],
        "verify": ["verify", str(card), "--out", run, "--quiet"],
    }


@pytest.fixture
def invoke(results, ground, tmp_path, monkeypatch):
    """Run a command that prints tables; `verify` finds its run finished."""
    monkeypatch.setattr(Benchmark, "run", lambda self, path, **more: Results.load(path))
    monkeypatch.chdir(ground)
    (tmp_path / "card.md").write_text(results.card().text)

    def call(name, *options):
        command = commands(results, ground, tmp_path / "card.md")[name]
        where = ["--model", str(ground / "model"), "--dataset", str(ground / "data")] if name == "verify" else []
        done = CliRunner().invoke(main, [*command, *where, *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    return call


@pytest.mark.parametrize("name", ["plan", "show", "compare", "read", "verify"])
def test_each_command_fits_80_columns(terminal, invoke, name):
    """Every line of a real run fits, and no header is cut inside a word."""
    lines = invoke(name).splitlines()
    assert max(map(len, lines)) <= WIDTH
    tables_as_json = [value for value in json.loads(invoke(name, "--json")).values() if isinstance(value, list)]
    names = {column for rows in tables_as_json for row in rows if isinstance(row, dict) for column in row}
    rules = [number for number, line in enumerate(lines) if line.startswith("──")]
    assert rules
    for rule in rules:
        assert set(words(lines[rule - 1])) <= parts({*names, "configuration"})
    assert len(invoke(name, "--wide").splitlines()[2]) > WIDTH


def test_what_each_command_writes_as_json(invoke, results):
    """`--json` writes the frames with the best row, choices, failures and notes, and nothing else."""
    plan = json.loads(invoke("plan", "--json"))
    assert [row["row"] for row in plan["rows"]] == list(range(6))
    assert plan["timed_s"] == pytest.approx(sum(row["timed_s"] for row in plan["rows"]))
    assert isinstance(plan["notes"], list)
    shown = json.loads(invoke("show", "--json", "--max-drop", "1"))
    best = results.best(max_drop=1.0)
    assert shown["best"] == best.row
    assert [choice["reason"] for choice in shown["choices"]] == [best.reason]
    assert shown["choices"][0]["parameters"]["framework"] == best.parameters["framework"]
    assert shown["failures"] == []
    assert shown["notes"] == list(results.notes)
    assert [row["accuracy"] for row in shown["quality"]] == pytest.approx(results.quality["accuracy"].tolist())
    compared = json.loads(invoke("compare", "--json"))
    assert compared["worse"] == 0
    assert {row["verdict"] for row in compared["figures"]} == {"no detectable difference"}
    read = json.loads(invoke("read", "--json"))
    assert read["task"] == "image-classification"
    assert [len(read[name]) for name in ("quality", "time", "plan")] == [6, 12, 6]
    verified = json.loads(invoke("verify", "--json"))
    assert verified["status"] == 0
    assert verified["counts"]["different"] == 0
    assert {"row", "figure", "verdict", "why"} <= verified["figures"][0].keys()


def test_a_terminal_of_80_columns(results):
    """In a real terminal `show` prints no line of more than 80 characters."""
    reader, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "benchcard", "show", str(results.path)]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        chunks = []
        while True:
            try:
                chunks.append(os.read(reader, 1 << 16))
            except OSError:  # The process has ended, and the terminal with it.
                break
    os.close(reader)
    assert process.returncode == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", b"".join(chunks).decode()).splitlines()
    assert any("configuration" in line for line in lines)
    assert max(map(len, lines)) <= WIDTH
