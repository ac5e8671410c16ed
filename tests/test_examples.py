"""The examples: one spec and one script for each task.

CI runs the scripts before these tests, and names the folder of what they left in `FINISHED_EXAMPLES`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from benchcard import registry
from benchcard.benchmark import Benchmark
from benchcard.metrics.info import FIDELITY, leading_figure
from benchcard.results import Results

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
# The first metric of each spec, negative where lower is better: a lower bound for the float model, and the value of
# random guesses.
LOWER_BOUNDS = {
    "answers": (90.0, 20.0),
    "blanks": (0.75, 0.1),
    "choices": (0.8, 0.25),
    "digits": (0.97, 0.1),
    "entities": (0.9, 0.1),
    "generation": (-15.0, -512.0),
    "melodies": (0.94, 0.2),
    "quickstart": (0.97, 0.1),
    "retrieval": (0.95, 0.1),
    "reviews": (0.94, 0.5),
    "search": (0.93, 0.7),
    "sentences": (0.88, 0.0),
    "shapes": (0.45, 0.0),
    "spelling": (-0.15, -1.0),
    "topics": (0.88, 0.2),
}


NEEDED = {"choices": ("lm_eval", "lm-eval"), "shapes": ("pycocotools", "detection")}


def spec_of(name):
    """Return the spec in an example's file with absolute paths, as its script has it."""
    spec = Benchmark.from_spec(EXAMPLES / f"{name}.yaml").spec
    fixed = {**spec.fixed, "name_or_path": str(spec.local_path(spec.fixed["name_or_path"]))}
    fixed["dataset"] = {**fixed["dataset"], "path": str(spec.local_path(fixed["dataset"]["path"]))}
    return replace(spec, fixed=fixed)


def finished(name, folder, *arguments):
    """Return the run directory of an example's script and what it printed; where CI has not run it, it runs now."""
    in_ci = Path(os.environ.get("FINISHED_EXAMPLES", folder))
    if (log := in_ci / f"{name}.log").exists():
        return in_ci / "runs" / name, log.read_text(encoding="utf-8")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), str(folder / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / name, done.stdout


def files_of(run):
    """Return when each file of a run's steps and times was written."""
    return {
        path: path.stat().st_mtime_ns
        for folder in ("steps", "times")
        for path in (run / folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_spec_and_script_run(name, tmp_path):
    """The script fills every row, float32 predicts what PyTorch predicts, far better than guessing, and it prints the
    choice and the card; the spec in the file is the same, so that a run of it repeats nothing.
    """
    needed, extra = NEEDED.get(name, ("benchcard", ""))
    pytest.importorskip(needed, reason=f"the extra `{extra}` is not installed")
    run, printed = finished(name, tmp_path)
    results = Results.load(run)
    assert results.failures.empty
    metric = results.metrics[0]
    assert metric in printed
    assert str(results.best()) in printed
    quality = results.quality.set_index("row")
    assert quality[metric].notna().all()
    pytorch = quality[quality["framework"] == "pytorch"][metric].iloc[0]
    # Boxes whose scores differ by rounding alone may change places, and with them the mean average precision.
    assert quality[metric][0] == pytest.approx(pytorch, rel=1e-3 if name == "shapes" else 1e-6)
    lower_bound, guessing = LOWER_BOUNDS[name]
    scores = -quality[metric] if name in ("generation", "spelling") else quality[metric]
    assert scores[0] >= lower_bound
    assert scores.min() > guessing
    assert set(results.time["row"]) == set(quality.index)
    assert (results.time["latency_p50_ms"] > 0).all()
    compared = quality[quality.index != results.baseline]
    for figure in results.metrics:
        # A figure that is the same for every example has no interval.
        intervals = quality[[f"{figure}_low", figure, f"{figure}_high"]].dropna()
        assert not intervals.empty
        assert (intervals.diff(axis="columns").iloc[:, 1:] >= 0).all(axis=None)
        assert compared[f"{figure}_p_value"].between(0, 1).all()
        bounds = compared[[f"{figure}_difference_low", f"{figure}_difference_high"]].dropna()
        assert (bounds.iloc[:, 0] <= bounds.iloc[:, 1]).all()

    assert (run / "README.md").exists()
    before = files_of(run)
    Benchmark.from_spec(spec_of(name)).run(run, progress=False)
    assert files_of(run) == before


@pytest.mark.slow
def test_the_audit_of_the_own_repository(tmp_path):
    """Three files are published to a Hub and downloaded again, none of them is called broken, and the table of verdicts
    is in the README there.
    """
    runs, printed = finished("audit", tmp_path, "--duration", "0")
    files = Results.load(runs / "audit").files().set_index("file")
    assert files["verdict"].tolist() == ["reference", "faithful", "faithful"]
    # The downloaded repository is gone.
    assert files["dtype"].tolist() == ["float32", "uint8+int8", "int8"]
    assert files["size_mb"].notna().all()
    table = printed.rpartition("In the README of me/reviews:")[2]
    for name in files.index:
        assert f"| `{name}`" in table
    assert "smallest faithful" in table


def test_every_task_has_an_example():
    """Each built-in task has an example with a spec, a script, what made its data, and a line in the README."""
    specs = [YAML(typ="safe").load(EXAMPLES / f"{name}.yaml") for name in NAMES]  # whose extras may be missing
    tasks = {type(registry.task(spec["task"])) for spec in specs}
    assert tasks == {type(registry.task(name)) for name in registry.tasks()}
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        assert (EXAMPLES / f"{name}.py").exists()
        assert list((EXAMPLES / name).glob("*.py"))
        assert f"`{name}`" in readme
    sizes = {str(path): path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 10.8e6


def write_variants(spec, folder):
    """Write the exported graph of a model, and variants of fewer bits, into a copy of its folder; return it.

    Of each number of bits there are one or more: other quantizers round differently.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from benchcard.export.export import export_model

    model, exported = folder / "model", folder / "exported"
    shutil.copytree(spec.fixed["name_or_path"], model)
    exported.mkdir()
    export_model(model, spec.task, None, exported)
    graph, target = exported / "model.onnx", model / "onnx"
    target.mkdir()
    shutil.copy(graph, target / "model.onnx")
    onnx.save(convert_float_to_float16(onnx.load(graph), keep_io_types=True), target / "model_fp16.onnx")
    for name, dtype in (("int8", QuantType.QInt8), ("uint8", QuantType.QUInt8)):
        quantize_dynamic(graph, target / f"model_{name}.onnx", weight_type=dtype)
    for bits in (8, 4, 2):
        settings = DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=True, bits=bits)
        quantizer = MatMulNBitsQuantizer(onnx.load(graph), algo_config=settings)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target / f"model_q{bits}.onnx"))
    return model


@pytest.mark.slow
# `quickstart` has the data of `digits`, and `lm-eval` no fidelity.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("quickstart", "choices")])
def test_fewer_bits_are_farther_from_the_float_model(name, tmp_path):
    """The order of six variants by their leading figure of fidelity is that of their bits, on every task: 16 bits are
    closer than all of 8, these than 4, and these than 2. Agreement of answers alone may be equal.
    """
    spec = spec_of(name)
    variants = {"fp16": 16, "q8": 8, "int8": 8, "uint8": 8, "q4": 4, "q2": 2}
    files = ["onnx/model.onnx", *(f"onnx/model_{variant}.onnx" for variant in variants)]
    benchmark = Benchmark(
        task=spec.task,
        model=write_variants(spec, tmp_path),
        dataset=spec.fixed["dataset"],
        metrics=spec.fixed["metrics"],
        from_transformers=False,
        duration=0,
        explain=False,
        grid={"framework": ["onnxruntime"], "framework_args": [{"file_name": file} for file in files]},
    )
    results = benchmark.run(tmp_path / "run", progress=False)
    assert results.failures.empty
    leading, _ = leading_figure(results.records.records[1].outcomes.compare.values.fidelity)
    far_if_higher = 1.0 if FIDELITY[leading].higher_is_better is False else -1.0
    distances: dict[int, list[float]] = {}
    for arguments, value in zip(results.quality["framework_args"], results.quality[leading]):
        variant = arguments["file_name"].removesuffix(".onnx").rpartition("_")[2]
        if variant in variants:
            distances.setdefault(variants[variant], []).append(far_if_higher * value)
    assert sorted(map(len, distances.values())) == [1, 1, 1, 3]
    for bits, fewer in ((16, 8), (8, 4), (4, 2)):
        farthest, closest = max(distances[bits]), min(distances[fewer])
        assert farthest <= closest if leading == "agreement" else farthest < closest
