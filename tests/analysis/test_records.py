"""Run directories that are damaged, or that a stranger made: each gives results or one of our errors."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchcard import BenchcardError, Results
from benchcard.measure.blocks import read_rounds
from benchcard.run.directory import RunDirectory

VALUES: list[Any] = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    "",
    "x",
    "../../x",
    [],
    {},
    [None],
    [[1]],
    {"x": 1},
    "nan",
    "\ud800",
]
NAMES = ("run.json", "outcome.json", "outcome.json", "outcome.json", "group.json", "rounds.bin")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where values stand in plain data, the first four of each list."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    return [path, *(place for key, element in inside for place in places(element, (*path, key)))]


def mutated(text: str, generator: random.Random) -> str:
    """JSON with a value taken away, added or replaced."""
    data = json.loads(text)
    *above, last = generator.choice(places(data)[1:] or [(0,)])
    holder = data
    for key in above:
        holder = holder[key]
    if generator.random() < 0.35:
        del holder[last]
    else:
        holder["added" if generator.random() < 0.2 and isinstance(holder, dict) else last] = generator.choice(VALUES)
    return json.dumps(data)


def damage(run: Path, generator: random.Random) -> None:
    """Damage one or two files of a run: lost, cut, changed by bytes, a folder in its place, or other JSON."""
    for _ in range(generator.randint(1, 2)):
        name = generator.choice(NAMES)
        path = generator.choice(sorted(run.rglob(name)) or [run / "lock"])
        kind = generator.random()
        if not path.is_file():
            continue
        content = path.read_bytes()
        if kind < 0.1:
            path.unlink()
        elif kind < 0.2:
            path.write_bytes(content[: generator.randrange(len(content) + 1)])
        elif kind < 0.3 and content:
            place = generator.randrange(len(content))
            path.write_bytes(content[:place] + bytes([generator.randrange(256)]) + content[place + 1 :])
        elif kind < 0.35:
            path.unlink()
            path.mkdir()
        elif path.suffix == ".json":
            path.write_text(mutated(path.read_text(encoding="utf-8"), generator), encoding="utf-8")


def copied(run: Path, target: Path) -> Path:
    """A copy of a run directory whose large files are links."""

    def copy(source: str, to: str) -> None:
        (shutil.copyfile if source.endswith((".json", ".bin")) else os.link)(source, to)

    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(run, target, copy_function=copy))


@pytest.mark.slow
def test_damaged_run_directories_end_in_results_or_in_our_errors(results, tmp_path):
    """Each of some generated damages gives results, or one error that names what is damaged."""
    ends = set()
    for seed in range(25):
        run = copied(results.path, tmp_path / "run")
        damage(run, random.Random(seed))
        try:
            found = Results.load(run)
            for name in ("quality", "time", "models", "kernels", "noise", "notes", "failures"):
                getattr(found, name)
            found.card()
            ends.add("results")
        except BenchcardError as error:
            str(error).encode()
            ends.add("error")
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
    assert ends == {"results", "error"}


@pytest.mark.parametrize(
    ("kind", "place", "value", "said"),
    [
        ("quantize", ("values", "size_bytes"), "x", r".*`int`, got `str` - at `\$.values.size_bytes`"),
        (
            "quantize",
            ("values", "report", "operators"),
            [{}],
            r".*`operator` - at `\$.values.report.operators\[0\]`",
        ),
        ("quantize", ("values", "file"), "../../../run.json", r"\$.values.file is"),
        ("export", ("values",), {}, r".*missing required field `file`"),
        (
            "evaluate",
            ("values", "kernels"),
            [{"name": "x"}],
            r".*`numbers` - at `\$.values.kernels\[0\]`",
        ),
        ("score", ("values", "metrics", "accuracy"), "good", r".*got `str` - at `\$.values.metrics\[...\]`"),
        ("compare", ("values", "figures"), [], r".*`object`, got `array` - at `\$.values.figures`"),
        ("prepare", ("files",), None, r".*`object`, got `null` - at `\$.files`"),
        ("prepare", ("failure",), [1], r".*got `array` - at `\$.failure`"),
        ("explain", ("values", "outputs", "snr_db"), {}, r".*got `object` - at `\$.values.outputs.snr_db`"),
    ],
)
def test_an_outcome_of_another_form_is_named(results, tmp_path, kind, place, value, said):
    """A value that is missing, or of another kind, is an error that names the file and the place in it."""
    run = copied(results.path, tmp_path / "run")
    for path in run.glob(f"steps/{kind}-*/outcome.json"):
        data = json.loads(path.read_text(encoding="utf-8"))
        holder = data
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(BenchcardError, match=rf"{kind}-\w+/outcome.json cannot be read \({said}"):
        Results.load(run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "1"}, r".*`int`, got `str` - at `\$.format`"),
        ({"spec": {"task": "x", "fixed": {}, "grid": {}}}, "cannot be read"),
        ({"sources": {"models": {}, "datasets": {}}}, "it has no"),
        (
            {"sources": {"models": {"a": {}}, "datasets": {}}},
            r"`name` - at `\$.sources.models\[...\]`",
        ),
        ({"default_threads": None}, "default_threads"),
        ({"machine": []}, r"`object`, got `array` - at `\$.machine`"),
        ({"machine": None}, "Expected `object`, got `null`"),
        ({"machine": {}}, "it has no machine"),
        ({"traits": {"frameworks": []}}, "Expected `object`, got `array`"),
    ],
)
def test_what_run_json_lacks_is_named(results, tmp_path, change, said):
    """A `run.json` that is not what a run writes is an error that names it."""
    run = copied(results.path, tmp_path / "run")
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    with pytest.raises(BenchcardError, match=rf"run.json .*{said}"):
        Results.load(run)


def test_traits_of_installed_frameworks_are_not_taken_from_the_run(results, tmp_path):
    """Traits that are wrong or missing change nothing where the task and the frameworks are installed."""
    run = copied(results.path, tmp_path / "run")
    path = run / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    odd = {"format": "weird", "running": [], "parameters": [], "arguments": []}
    for traits in ({}, {"frameworks": {}}, {"frameworks": {"onnxruntime": odd}}):
        path.write_text(json.dumps({**content, "traits": traits}), encoding="utf-8")
        assert Results.load(run).quality.equals(results.quality)


def test_a_group_without_parts_is_named(results, tmp_path):
    """A `group.json` without its parts is an error, and not a group without times."""
    run = copied(results.path, tmp_path / "run")
    next(run.glob("times/*/group.json")).write_text("{}")
    with pytest.raises(BenchcardError, match=r"group.json cannot be read"):
        Results.load(run)


def test_rounds_that_are_something_else_are_damaged(results, tmp_path):
    """Rounds whole by their checksum, but of another form, are an error that names their file."""
    import io
    import zlib

    from benchcard.measure import blocks

    run = copied(results.path, tmp_path / "run")
    path = next(run.glob("times/*/part-0/rounds.bin"))
    (first, *_) = read_rounds(path)
    with np.load(io.BytesIO(first.to_bytes())) as arrays:
        latencies, facts = arrays["latencies_ns"], json.loads(arrays["facts"].tobytes())
    for other_latencies, other in (
        (latencies, []),
        (latencies, {**facts, "blocks": [{}]}),
        (latencies, {**facts, "before": None}),
        (latencies[1:], facts),
        (latencies - latencies, facts),
        (latencies.astype(float), facts),
        (latencies, {**facts, "opened": [1]}),
    ):
        buffer = io.BytesIO()
        np.savez(buffer, latencies_ns=other_latencies, facts=np.frombuffer(json.dumps(other).encode(), np.uint8))
        data = buffer.getvalue()
        path.write_bytes(blocks._FRAME.pack(len(data), zlib.crc32(data)) + data)
        with pytest.raises(BenchcardError, match=r"rounds.bin is damaged"):
            Results.load(run)
        with pytest.raises(BenchcardError, match=r"rounds.bin is damaged"):
            blocks.recover_rounds(path)
    assert RunDirectory(run).info.format == 1


@pytest.mark.slow
def test_a_published_run_json_of_another_form_is_a_card_error(results, tmp_path):
    """A `run.json` beside a card gives what the card shows, or one error of ours, when read, verified and run again."""
    from benchcard import Benchmark
    from benchcard.card.readme import merge
    from benchcard.publishing import bundle

    made = bundle.write_bundle(results, tmp_path / "out", "a/b", slug="x", artifacts="none")
    folder = tmp_path / "out" / "repo"
    (folder / "README.md").write_text(merge("", made.card, "x").text, encoding="utf-8")
    path = folder / "benchcard" / "x" / "run.json"
    published = path.read_text(encoding="utf-8")
    ends = set()
    for seed in range(60):
        path.write_text(mutated(published, random.Random(seed)), encoding="utf-8")
        for action in (
            lambda: [getattr(Results.from_card(folder), name) for name in ("quality", "time", "plan", "spec", "notes")],
            lambda seed=seed: results.verify(folder) if seed % 6 == 0 else None,
            lambda: Benchmark.from_card(folder, model="x", dataset={"path": "x", "eval_split": "y"}),
        ):
            try:
                action()
                ends.add("result")
            except BenchcardError as error:
                ends.add(type(error).__name__)
            except Exception as error:
                raise AssertionError(f"seed {seed}") from error
    assert {"result", "CardError"} <= ends
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(BenchcardError, match="levels deep"):
        Results.from_card(folder)
