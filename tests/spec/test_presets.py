"""Presets: their rows on each kind of machine, what a spec replaces or cannot have, and the page that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner

from benchcard import Benchmark, registry
from benchcard.cli import main
from benchcard.errors import BenchcardError, SpecError
from benchcard.spec import presets as module
from benchcard.spec.plan import make_plan, unused_settings
from benchcard.spec.presets import Preset, preset_for, presets
from benchcard.spec.spec import read_spec, read_stored_spec
from benchcard.utils.processor import int8_support

ROOT = Path(__file__).parents[2]
NAMES = ["recommended", "beans", "dynamic", "static", "exhaustive", "avx2", "avx512", "avx512_vnni", "arm64"]
PROCESSORS = {
    "avx2": ("x86_64", "sse4_1 avx avx2"),
    "avx512": ("x86_64", "sse4_1 avx avx2 avx512f avx512bw"),
    "avx512_vnni": ("x86_64", "avx2 avx512f avx512bw avx512_vnni amx_int8"),
    "arm64": ("aarch64", "asimddp i8mm"),
}


@pytest.fixture
def spec(beans) -> dict[str, Any]:
    """The least of a spec that static quantization is possible with."""
    return {name: beans[name] for name in ("task", "model", "dataset")}


def rows(spec: dict[str, Any], **more: object) -> list[dict[str, Any]]:
    """The parameters of each row of a spec."""
    return [dict(row.parameters) for row in make_plan(read_spec({**spec, **more}))]


def kinds(spec: dict[str, Any], **more: object) -> list[str]:
    """What each row of a spec is: how it is quantized, or its framework in float32."""
    return [row["quantization_approach"] or row["framework"] for row in rows(spec, **more)]


def on_processor(monkeypatch: pytest.MonkeyPatch, architecture: str, flags: str) -> None:
    """Let this machine have another processor."""
    monkeypatch.setattr(module, "read_processor", lambda: ("a processor", tuple(flags.split())))
    monkeypatch.setattr(module.platform, "machine", lambda: architecture)


def test_each_preset_has_rows_without_notes_for_every_task(spec):
    """Both float32 models are rows of every preset, no row is a failure by its settings, and no setting is unused."""
    assert list(presets()) == NAMES
    for name in NAMES:
        plans = [make_plan(read_spec({**spec, "task": task, "grid": name})) for task in registry.tasks()]
        assert len({len(plan) for plan in plans}) == 1
        assert {unused_settings(plan) for plan in plans} == {()}
        found = kinds(spec, grid=name)
        assert (found[0], found[-1]) == ("onnxruntime", "pytorch")
        assert found.count("onnxruntime") == found.count("pytorch") == 1
        for row in rows(spec, grid=name):
            types = row["quantization_approach"], row["activations_dtype"] or "int8", row["weights_dtype"]
            assert types != ("static", "int8", "uint8")


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_recommended_grid_is_that_of_the_processor(spec, monkeypatch, name):
    """It has at most 8 rows, of which some are dynamic and some static."""
    on_processor(monkeypatch, *PROCESSORS[name])
    assert rows(spec, grid="recommended") == rows(spec, grid=name)
    found = kinds(spec, grid="recommended")
    assert {*found} == {"onnxruntime", "dynamic", "static", "pytorch"}
    assert len(found) <= 8


def test_processors_with_unknown_instructions():
    """A processor without known instructions gets a grid that cannot saturate on its architecture."""
    assert [preset_for(int8_support((), machine)) for machine in ("x86_64", "aarch64", "riscv64")] == [
        *("avx2", "arm64", "arm64")
    ]
    known = {name for preset in presets().values() for name in preset.instructions}
    assert {int8_support(tuple(flags.split()), machine).best for machine, flags in PROCESSORS.values()} <= known


def test_rows_that_may_saturate_have_a_counterpart_that_cannot(spec):
    """Without VNNI, weights are uint8, or each row with 8-bit weights has one with 7 bits beside it."""
    for name in PROCESSORS:
        quantized = [row for row in rows(spec, grid=name) if row["quantization_approach"]]
        assert {row["activations_dtype"] for row in quantized} == {"uint8", None}
        assert {row["weights_dtype"] for row in quantized} == ({"uint8"} if name == "avx2" else {"int8"})
        reduced = [row for row in quantized if row["reduce_range"]]
        assert len(reduced) == (len(quantized) / 2 if name == "avx512" else 0)


def test_the_preset_beans_has_the_rows_of_the_example(spec):
    """Its 18 rows are those of examples/digits.yaml, but for the number of threads, which is that of the machine."""
    example = Benchmark.from_spec(ROOT / "examples" / "digits.yaml").configurations
    plan = make_plan(read_spec({**spec, "grid": "beans"}))
    assert len(plan) == len(example) == 18
    assert list(plan.spec.grid) == list(example.spec.grid)
    for row, shown in zip(plan, example):
        shown["framework_args"].pop("intra_op_num_threads", None)
        for name in {*plan.spec.grid, "calibration", "node_exclusion"}:
            assert row[name] == shown[name], (row.row, name)


def test_python_yaml_and_the_command_line_agree(spec, tmp_path):
    """A preset gives the same spec as `grid` of `Benchmark`, of a mapping, of a file, and of the command line."""
    written = dict(Benchmark(**spec, grid="static").spec.grid)
    expected = Benchmark(**spec, grid="recommended").spec
    own, other = tmp_path / "own.yaml", tmp_path / "other.yaml"
    own.write_text(json.dumps({**spec, "grid": "recommended"}))
    other.write_text(json.dumps({**spec, "grid": written}))
    assert Benchmark.from_spec({**spec, "grid": "recommended"}).spec == expected
    assert Benchmark.from_spec({**spec, "grid": "static"}, grid="recommended").spec == expected
    assert Benchmark.from_spec(own).spec == expected
    assert Benchmark.from_spec(other, grid="recommended").spec == expected
    shown = [
        CliRunner().invoke(main, ["plan", *arguments, "--json"]).stdout
        for arguments in ([str(own)], [str(other), "--grid", "recommended"])
    ]
    assert shown[0] == shown[1]
    assert len(json.loads(shown[0])["rows"]) == len(make_plan(expected))
    with pytest.raises(BenchcardError, match="has its own grid"):
        Benchmark.from_spec(expected, grid="static")


def test_a_run_keeps_the_rows_and_not_the_name(spec, monkeypatch):
    """The plain data of a spec have the explicit grid, so that they are read as the same rows on any machine."""
    data = Benchmark(**spec, grid="recommended").spec.as_dict()
    assert isinstance(data["grid"], dict)
    before = [row.parameters for row in make_plan(read_stored_spec(data))]
    for processor in PROCESSORS.values():
        on_processor(monkeypatch, *processor)
        assert [row.parameters for row in make_plan(read_stored_spec(data))] == before
    with pytest.raises(SpecError, match=r"\$\.grid"):
        read_stored_spec({**data, "grid": "recommended"})


def test_values_of_the_spec_replace_those_of_the_preset(spec):
    """A fixed parameter is no longer benchmarked, wherever it stands; of a mapping, fields are replaced one by one."""
    assert kinds(spec, grid="avx2", quantization_approach="dynamic") == ["onnxruntime", "dynamic", "dynamic", "pytorch"]
    assert kinds(spec, grid="avx2", fixed={"framework": "onnxruntime"}, per_channel=True) == [
        *("onnxruntime", "dynamic", "static")
    ]
    assert {row["weights_dtype"] for row in rows(spec, grid="avx2", weights_dtype="int8")} == {None, "int8"}
    (fixed,) = {row["activations_symmetric"] for row in rows(spec, grid="avx2", activations_symmetric=None)}
    assert fixed is None
    for more in (
        {"calibration": {"num_calibration_samples": 9}},
        {"fixed": {"calibration.num_calibration_samples": 9}},
    ):
        (calibration,) = [row["calibration"] for row in rows(spec, grid="beans", **more) if row["calibration"]][:1]
        assert calibration == {
            "method": "percentile",
            "num_calibration_samples": 9,
            "calibration_histogram_percentile": 99.999,
        }
        assert len(rows(spec, grid="static", **more)) == 10
    only = rows(spec, grid="static", fixed={"calibration": {"method": "minmax"}})
    assert {row["calibration"]["method"] for row in only if row["calibration"]} == {"minmax"}
    arguments = {"framework_args.intra_op_num_threads": 3}
    assert rows(spec, grid="beans", **arguments)[0]["framework_args"] == {"intra_op_num_threads": 3}


def test_static_rows_need_a_calibration_split(spec):
    """Without one, a grid loses its static rows and says so; a grid that is all static is a mistake."""
    del spec["dataset"]["calibration_split"]
    for name in NAMES:
        if name in ("static", "dynamic"):
            continue
        plan = make_plan(read_spec({**spec, "grid": name}))
        assert {row["quantization_approach"] for row in plan} == {None, "dynamic"}
        (note,) = unused_settings(plan)
        assert note == f"the grid `{name}` has no static rows here: they need a `dataset.calibration_split`"
    for more in ({"grid": "static"}, {"grid": "avx2", "quantization_approach": "static"}):
        with pytest.raises(SpecError, match=r"expected the name of a split, .* @ \$\.dataset\.calibration_split"):
            read_spec({**spec, **more})
    assert "static" in kinds(spec, grid="avx2", **{"dataset.calibration_split": "train"})


def test_a_graph_of_the_folder_has_no_row_in_pytorch(spec, tmp_path):
    """With `from_transformers: false`, a preset has no PyTorch row, and `plan` says so."""
    (tmp_path / "spec.yaml").write_text(json.dumps({**spec, "from_transformers": False, "grid": "recommended"}))
    shown = json.loads(CliRunner().invoke(main, ["plan", str(tmp_path / "spec.yaml"), "--json"]).stdout)
    assert {row["framework"] for row in shown["rows"]} == {"onnxruntime"}
    assert shown["notes"] == [
        "the grid `recommended` has no pytorch rows here: with `from_transformers: false`, the model is an ONNX file"
    ]
    assert kinds(spec, grid="avx2", from_transformers=False, framework="pytorch") == ["pytorch"]


def test_unknown_names_come_with_a_suggestion(spec, tmp_path):
    """An unknown preset is a mistake at `$.grid`, beside the other mistakes, with the names and the nearest one."""
    with pytest.raises(SpecError) as error:
        read_spec({**spec, "grid": "recomended", "duration": -1})
    mistakes = {mistake.place: mistake for mistake in error.value.mistakes}
    assert set(mistakes) == {"$.grid", "$.duration"}
    assert mistakes["$.grid"].hint == "did you mean `recommended`?"
    assert all(f"`{name}`" in mistakes["$.grid"].expected for name in NAMES)
    with pytest.raises(SpecError) as error:
        read_spec({**spec, "grid": "recommended", "fixed": ["duration"]})
    assert [mistake.place for mistake in error.value.mistakes] == ["$.fixed"]
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    done = CliRunner().invoke(main, ["run", str(tmp_path / "spec.yaml"), "--grid", "avx_512"])
    assert done.exit_code == 2
    assert "$.grid: expected a mapping of parameters, or `recommended`" in done.stderr
    assert "(did you mean `avx512`?)" in done.stderr


def as_yaml(value: object) -> str:
    """A value in YAML, on one line."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {as_yaml(element)}' for name, element in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_yaml, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def contents(preset: Preset) -> str:
    """The parameters of a preset as the page shows them: without the two that all have."""
    shared = "framework", "apply_quantization"
    parameters = {**preset.fixed, **{name: values for name, values in preset.grid.items() if name not in shared}}
    return ", ".join(f"`{name}: {as_yaml(value)}`" for name, value in parameters.items())


def test_the_page_shows_the_presets(spec):
    """The table of docs/presets.md is that of presets.yaml, with the number of rows."""
    expected = [
        (f"`{name}`", str(len(rows(spec, grid=name))), contents(preset), preset.why)
        for name, preset in presets().items()
    ]
    page = (ROOT / "docs" / "presets.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`\w+`) \| (\d+) \| (.*) \| (.*) \|$", page, re.MULTILINE)
    assert table == [(*row[:2], row[2] or "that of this machine", row[3]) for row in expected]
    for preset in presets().values():
        for name in ("framework", "apply_quantization") if preset.grid else ():
            assert len(preset.grid[name]) == 2


@pytest.mark.slow
def test_a_tiny_model_runs_with_the_recommended_grid(tmp_path):
    """Every row of the recommended grid has its figures, on whatever machine this is."""
    tiny.write_model(tmp_path / "model")
    tiny.write_data(tmp_path / "data", rows=120)
    data = {"path": tmp_path / "data", "eval_split": "validation[:24]", "calibration_split": "train"}
    benchmark = Benchmark(
        task="image-classification",
        model=tmp_path / "model",
        dataset={**data, "data_keys": {"primary": "image"}, "ref_keys": ["label"]},
        grid="recommended",
        duration=0.1,
        explain=False,
    )
    results = benchmark.run(tmp_path / "run", progress=False)
    assert results.failures.empty
    assert results.quality["accuracy"].notna().all()
    assert results.time["ratio"].notna().all()
    assert len(results.plan) == 6
    assert results.notes == ()
    again = Benchmark.from_card(results.card().save(tmp_path / "README.md")).configurations
    assert [row.axes for row in again] == [row.axes for row in results.plan]
