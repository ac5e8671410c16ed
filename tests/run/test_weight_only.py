"""One run of dynamic, static, weight-only and float16 rows: what each row is, its quality, its files and its card."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_fixtures import MINE, hub

from benchcard import Benchmark
from benchcard.publishing import weights
from benchcard.run.planned import planned_steps
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import unresolved_sources
from benchcard.spec.plan import make_plan
from benchcard.steps.models import path_of

__all__ = ["hub"]
REVIEWS = Path(__file__).parents[2] / "examples" / "reviews"
GRID = {
    "apply_quantization": [False, True],
    "quantization_approach": ["dynamic", "static", "weight_only"],
    "bits": [4, 8],
    "dtype": ["float16", "float32"],
}


def benchmark(**more):
    data = {"path": REVIEWS / "data", "eval_split": "validation", "calibration_split": "train"}
    given = {"grid": GRID, "duration": 0, "max_eval_samples": 60, "metrics": ["accuracy"]}
    columns = {"data_keys": {"primary": "text"}, "ref_keys": ["label"]}
    return Benchmark(
        task="text-classification", model=REVIEWS / "model", dataset={**data, **columns}, **{**given, **more}
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of the grid, without times."""
    spec = benchmark(fixed={"block_size": 16, "calibration": {"num_calibration_samples": 8}})
    return spec.run(tmp_path_factory.mktemp("run"), progress=False)


def row_of(results, approach, bits=None, dtype=None):
    """The number of the only row with these values."""
    wanted = (approach, bits, dtype)
    (row,) = (row.row for row in results.plan if (row["quantization_approach"], row["bits"], row["dtype"]) == wanted)
    return row


def test_parameters_are_none_where_they_do_not_apply(results):
    """Dynamic and static rows have neither bits nor a dtype, weight-only rows none of 8 bits, and rows are merged."""
    assert len(results.plan) == 8
    for row in results.plan:
        approach = row["quantization_approach"]
        assert (row["algorithm"] == "rtn") == (row["block_size"] == 16) == (approach == "weight_only")
        assert (row["dtype"] is None) == (approach in ("dynamic", "static"))
        assert (row["per_channel"] is None) == (row["reduce_range"] is None) == (approach in (None, "weight_only"))


def test_the_baseline_is_the_row_in_float32(results):
    """The float16 row is another unquantized row, which is compared with that in float32, wherever it stands."""
    baseline = row_of(results, None, dtype="float32")
    assert row_of(results, None, dtype="float16") < baseline
    assert {row.baseline for row in results.plan} == {baseline}


def test_outputs_are_the_closer_the_more_bits(results):
    """KL from the float model grows from float16 over 8 bits to 4, and files shrink in that order."""
    quality = results.quality.set_index("row")["kl_mean"]
    models = results.models.set_index("row")
    rows = [row_of(results, *values) for values in ((None, None, "float16"), *WEIGHTS)]
    half, eight, four = (quality[row] for row in rows)
    assert 0 < half < eight < four < 0.001
    bits = [models.bits_per_weight[row] for row in rows]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] == pytest.approx(16, abs=0.1)
    assert list(models.size_mb[rows]) == sorted(models.size_mb[rows], reverse=True)
    assert not models.failure.any()


WEIGHTS = (("weight_only", 8, "float32"), ("weight_only", 4, "float32"))


def test_reasons_are_those_of_weights(results):
    """A weight-only row is not said to lack 8-bit kernels or to saturate, but which operators have no bits, and why."""
    for values in WEIGHTS:
        text = results.explain(row_of(results, *values))
        assert "12 of 21 nodes that could be were quantized" in text
        assert "2 of 2 `Gemm` stay in float32: by default weight-only quantization takes `MatMul` alone" in text
        assert "Only weights are quantized" in text
        assert "in 8 bits" not in text
        assert "Its outputs are close to those of float32" in text
    assert "close to those of float16" in results.explain(row_of(results, "weight_only", 4, "float16"))
    assert "its graph is in float16" in results.explain(row_of(results, None, dtype="float16"))
    notes = [note for note in results.notes if "quantized without the weights of" in note]
    rows = ", ".join(str(row.row) for row in results.plan if row["quantization_approach"] == "weight_only")
    assert notes == [
        f"rows {rows} are quantized without the weights of 3 `Gather` and 2 `Gemm`: see `benchcard show --explain`"
    ]
    risks = results.models.set_index("row").saturation_risk  # of other rows on processors whose int8 sums saturate
    assert not any(risks[row_of(results, *values)] for values in WEIGHTS)
    assert "computed in float32" not in " ".join(results.notes)


def test_files_have_the_names_of_transformers_js(results):
    """Each kind has the name that its `dtype` loads; weight-only models of 8 bits, for which there is none, have one
    like it.
    """
    chosen = weights.chosen_weights(results, "all")
    names = {model.row: model.name for model in chosen}
    assert names == {
        row_of(results, None, dtype="float32"): "model.onnx",
        row_of(results, None, dtype="float16"): "model_fp16.onnx",
        row_of(results, "dynamic"): "model_quantized.onnx",
        row_of(results, "static"): f"model_row{row_of(results, 'static')}_quantized.onnx",
        row_of(results, "weight_only", 4, "float32"): "model_q4.onnx",
        row_of(results, "weight_only", 4, "float16"): "model_q4f16.onnx",
        row_of(results, "weight_only", 8, "float32"): "model_q8.onnx",
        row_of(results, "weight_only", 8, "float16"): "model_q8f16.onnx",
    }
    assert all(model.source == path_of(results.records.records[model.row].outcomes.graph) for model in chosen)


def test_the_card_names_the_rows(results):
    """Rows are told apart by approach, bits and dtype."""
    text = str(results.card())
    for name in ("weight_only, bits 4, float16", "weight_only, bits 8, float32", "not quantized, float16"):
        assert name in text
    assert "Nodes of weight-only rows do not count, whatever they compute in." in text


def test_rows_share_their_float16_graph():
    """The graph in float16 is made once, for the unquantized row and all weight-only ones."""
    plan = make_plan(benchmark().spec)
    steps = planned_steps(plan, unresolved_sources(plan.spec), traits_of(plan), 1)
    casts = [step.key for row in steps for step in row if step.kind == "cast"]
    assert (len(casts), len(set(casts))) == (3, 1)


def test_hqq_is_quantized_where_torch_is():
    """`hqq` computes with torch, so that its step is none of the child processes that never import it."""
    plan = make_plan(benchmark(grid={"quantization_approach": ["weight_only"], "algorithm": ["rtn", "hqq"]}).spec)
    steps = planned_steps(plan, unresolved_sources(plan.spec), traits_of(plan), 1)
    engines = {step.algorithm: step.engine for row in steps for step in row if step.kind == "quantize"}
    assert engines == {"rtn": "onnx", "hqq": "torch"}


def test_a_push_says_how_a_file_of_four_bits_is_loaded(results, hub):
    """The model is pushed under the name of Transformers.js, with the lines that load it, and why it has no recipe."""
    row = row_of(results, "weight_only", 4, "float16")
    results.push_to_hub(MINE, artifacts=[row], endpoint=hub.endpoint, token=hub.token)
    text = hub.read(MINE, "README.md").decode()
    assert "onnx/model_q4f16.onnx" in hub.files(MINE)
    assert f'pipeline("text-classification", "{MINE}", {{ dtype: "q4f16" }});' in text
    assert "There is no recipe for `model_q4f16.onnx` with onnxruntime alone: " in text
    assert "int4+float16" in text
