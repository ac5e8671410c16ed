"""Tests of plans: the rows of published cards, their order, and None where a parameter does not apply."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from benchcard import Benchmark, registry
from benchcard.errors import BenchcardError, SpecError
from benchcard.measure.significance import RESAMPLES, draws_for
from benchcard.run.planned import planned_steps
from benchcard.run.row import FEW_MODELS
from benchcard.run.traits import traits_of
from benchcard.sources.resolve import unresolved_sources
from benchcard.spec import spec as specs
from benchcard.spec.plan import FrameworkTraits, make_plan, unused_settings

ARGS = {"opset": 13, "optimization_level": 1, "intra_op_num_threads": 4}
BOTH, ADD = ["Add", "MatMul"], ["Add"]


def rows(data: dict) -> list[tuple]:
    """The benchmarked values of each row, in order."""
    return [tuple(row.axes.values()) for row in make_plan(specs.read_spec(data))]


def test_the_beans_grid_is_its_eighteen_rows(beans):
    """The grid of the beans card gives its rows, in its order, with None where a parameter does not apply."""
    expected = [("onnxruntime", None, None, None, ARGS, None, False)]
    for approach in ("dynamic", "static"):
        for operators in (BOTH, ADD):
            for per_channel in (False, True):
                for reduce_range in (False, True):
                    expected.append(("onnxruntime", approach, operators, per_channel, ARGS, reduce_range, True))
    expected.append(("pytorch", None, None, None, {}, None, None))
    assert len(expected) == 18
    assert rows(beans) == expected


def test_a_comparison_depends_on_the_number_of_rows_only_if_they_are_many(beans):
    """A comparison depends on the number of compared rows only where they need more resamples than an interval does."""
    assert draws_for(FEW_MODELS) <= RESAMPLES < draws_for(FEW_MODELS + 1)
    for dtypes, compared, models in ((["int8"], 17, {None}), (["int8", "uint8"], 33, {None, 33})):
        beans["grid"]["weights_dtype"] = dtypes
        plan = make_plan(specs.read_spec(beans))
        assert plan.compared_with(plan[0].baseline) == compared
        steps = [
            step for asked in planned_steps(plan, unresolved_sources(plan.spec), traits_of(plan), 1) for step in asked
        ]
        assert {step.asked.get("models") for step in steps if step.kind == "compare"} == models


def test_a_notebook_shows_the_plan_as_a_table(beans):
    """A plan shows one line for each configuration under a heading, whatever stands in a value."""
    beans["grid"]["node_exclusion"] = [["<b>"]]
    beans["fixed"].pop("node_exclusion")
    shown = make_plan(specs.read_spec(beans))._repr_html_()
    assert shown.startswith("<p>Plan of 18 configurations: framework, ")
    assert shown.count("<tr") == 1 + 18
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown


def test_one_configuration_is_not_called_configurations(beans):
    """A plan and a benchmark of one row use the singular."""
    one = {**beans, "grid": {"framework": ["pytorch"]}, "fixed": {}}
    assert repr(make_plan(specs.read_spec(one))) == "Plan of 1 configuration: framework"
    assert repr(Benchmark(**one)) == "Benchmark(image-classification, 1 configuration, framework)"


def test_settings_without_effect_are_reported(beans):
    """An opset has no effect on PyTorch, nor calibration on a grid without static rows."""
    assert unused_settings(make_plan(specs.read_spec(beans))) == ()
    beans["fixed"]["framework_args.opset"] = 13
    del beans["grid"]["framework_args"]
    assert unused_settings(make_plan(specs.read_spec(beans))) == (
        "framework_args.opset (13) changes nothing for pytorch, which has no such argument",
    )
    beans["fixed"]["framework_args"] = {"opset": 13, "intra_op_num_threads": 2}
    del beans["fixed"]["framework_args.opset"]
    beans["grid"]["quantization_approach"] = ["dynamic"]
    assert unused_settings(make_plan(specs.read_spec(beans))) == (
        "calibration changes nothing: it applies to no row",
        "framework_args.opset (13) changes nothing for pytorch, which has no such argument",
    )


def test_the_sst2_grid_is_its_six_rows(beans):
    """The grid of the SST-2 card, with a fixed approach, gives its rows."""
    beans["task"] = "text-classification"
    beans["fixed"] = {"quantization_approach": "dynamic", "node_exclusion": []}
    for name in ("quantization_approach", "reduce_range"):
        del beans["grid"][name]
    assert rows(beans) == [
        ("onnxruntime", None, None, ARGS, False),
        ("onnxruntime", BOTH, False, ARGS, True),
        ("onnxruntime", BOTH, True, ARGS, True),
        ("onnxruntime", ADD, False, ARGS, True),
        ("onnxruntime", ADD, True, ARGS, True),
        ("pytorch", None, None, {}, None),
    ]


def test_the_conll_grid_is_its_four_rows(beans):
    """The grid of the CoNLL card, which quantizes every row and fixes the framework, gives its rows."""
    beans["task"] = "token-classification"
    beans["fixed"] = {
        "framework": "onnxruntime",
        "framework_args": {"opset": 11, "optimization_level": 1},
        "per_channel": False,
        "node_exclusion": [],
        "calibration": {"method": "minmax", "num_calibration_samples": 100},
    }
    beans["grid"] = {"quantization_approach": ["dynamic", "static"], "operators_to_quantize": [BOTH, ADD]}
    assert rows(beans) == [("dynamic", BOTH), ("dynamic", ADD), ("static", BOTH), ("static", ADD)]


def test_every_row_has_every_parameter_with_none_where_it_does_not_apply(beans):
    """A dynamic row has no calibration, an unquantized one no quantization, and a PyTorch one nothing of ONNX."""
    plan = make_plan(specs.read_spec(beans))
    fp32, dynamic, static, pytorch = plan[0], plan[1], plan[9], plan[17]
    assert dynamic["calibration"] is None
    assert static["calibration"]["calibration_histogram_percentile"] == 99.999
    assert fp32["node_exclusion"] is None
    assert pytorch["from_transformers"] is None
    assert pytorch["apply_quantization"] is None
    assert not pytorch.quantized
    assert static.quantized
    assert {frozenset(row.parameters) for row in plan} == {frozenset(fp32.parameters)}


def activations(beans, approaches, **fixed):
    """The plan of a grid of these approaches, with nothing else benchmarked."""
    beans["grid"] = {"quantization_approach": approaches, **fixed.pop("grid", {})}
    beans["fixed"] = {"calibration": {"num_calibration_samples": 8}, **fixed}
    return make_plan(specs.read_spec(beans))


def test_the_type_of_activations_does_not_apply_to_dynamic_rows(beans):
    """The type and the symmetry of activations apply to static rows only: the dynamic ones are one row."""
    grid = {"activations_dtype": ["int8", "uint8"], "activations_symmetric": [False, True]}
    plan = activations(beans, ["dynamic", "static"], grid=grid)
    assert [tuple(row.axes.values()) for row in plan] == [
        ("dynamic", None, None),
        *(("static", dtype, symmetric) for dtype in ("int8", "uint8") for symmetric in (False, True)),
    ]
    (dynamic,) = activations(beans, ["dynamic"], activations_dtype="int8", activations_symmetric=True)
    assert dynamic["activations_dtype"] is dynamic["activations_symmetric"] is None


def test_a_fixed_setting_of_activations_is_reported_where_rows_are_dynamic(beans):
    """With rows of both kinds it is reported to apply to the static ones, with dynamic rows only to have no effect."""
    always = "dynamic activations are always uint8"
    both = activations(beans, ["dynamic", "static"], activations_dtype="int8")
    assert unused_settings(both) == (f"activations_dtype (int8) applies to the static rows alone: {always}",)
    assert f"activations_dtype changes nothing: {always}" in unused_settings(
        activations(beans, ["dynamic"], activations_dtype="int8")
    )
    assert unused_settings(activations(beans, ["static"], activations_dtype="int8", activations_symmetric=True)) == ()
    always = activations(beans, ["dynamic", "static"], activations_dtype="uint8", activations_symmetric=False)
    assert unused_settings(always) == ()


def test_the_key_of_a_dynamic_quantization_stays(beans):
    """The key of a dynamic quantization is that of earlier versions, also where a type of activations is fixed."""
    for fixed in ({}, {"activations_dtype": "int8"}, {"activations_symmetric": True}):
        plan = activations({**beans, "model": "m"}, ["dynamic"], **fixed)
        steps = [
            step for asked in planned_steps(plan, unresolved_sources(plan.spec), traits_of(plan), 1) for step in asked
        ]
        (key,) = (step.key for step in steps if step.kind == "quantize")
        assert key == "4a45652e15aefc75d569fe0c97840884d8fa94e2866a6649f5a045c7a1fa2e5c"


def test_rows_without_a_number_of_threads_share_that_of_the_others(beans):
    """A row without a number of threads gets that of all others, and none where these differ."""
    assert {row.threads for row in make_plan(specs.read_spec(beans))} == {4}
    beans["grid"]["framework_args"] = [
        {"opset": 13, "intra_op_num_threads": 1},
        {"opset": 13, "intra_op_num_threads": 2},
        {},
    ]
    threads = {row.axes["framework"]: row.threads for row in make_plan(specs.read_spec(beans))}
    assert threads["pytorch"] is None


def test_the_baseline_is_the_unquantized_onnxruntime_row(beans):
    """The baseline is float32 in onnxruntime, or PyTorch where that is the only unquantized row, or None."""
    assert {row.baseline for row in make_plan(specs.read_spec(beans))} == {0}
    beans["grid"]["apply_quantization"] = [True]
    assert {row.baseline for row in make_plan(specs.read_spec(beans))} == {16}
    beans["grid"]["framework"] = ["onnxruntime"]
    assert {row.baseline for row in make_plan(specs.read_spec(beans))} == {None}


def test_the_spec_chooses_the_baseline(beans):
    """`baseline` names values of benchmarked parameters: PyTorch, or one of several given graphs."""
    beans["baseline"] = {"framework": "pytorch"}
    plan = make_plan(specs.read_spec(beans))
    assert {plan[row.baseline]["framework"] for row in plan} == {"pytorch"}
    grid = {"framework_args.file_name": ["a.onnx", "model.onnx"], "framework": ["onnxruntime", "pytorch"]}
    given = {**beans, "from_transformers": False, "fixed": {}, "grid": grid}
    for baseline, row in (("a.onnx", 1), ("model.onnx", 2)):
        plan = make_plan(specs.read_spec({**given, "baseline": {"framework_args.file_name": baseline}}))
        assert [each["framework"] for each in plan] == ["pytorch", "onnxruntime", "onnxruntime"]
        assert {each.baseline for each in plan} == {row}


def test_a_baseline_that_is_quantized_is_reported(beans):
    """A row that benchcard quantizes is compared with others, and others not with it."""
    beans["baseline"] = {"framework": "onnxruntime"}
    assert unused_settings(make_plan(specs.read_spec(beans))) == ()
    beans["baseline"] = {"quantization_approach": "static"}
    assert unused_settings(make_plan(specs.read_spec(beans))) == (
        "baseline changes nothing: no row that benchcard leaves unquantized has these values",
    )


@pytest.mark.parametrize(
    ("grid", "changes", "baseline"),
    [
        ({"framework_args": [{"dtype": "int8"}, {"opset": 17}]}, {}, {"opset": 17}),
        ({"framework_args": [{"dtype": "fp16"}, {"dtype": "int4_weights"}, {"opset": 17}]}, {}, {"opset": 17}),
        ({"framework_args.dtype": ["fp16", "int4_weights"]}, {}, {"dtype": "fp16"}),
        ({"framework_args.dtype": [None, "int8"]}, {"framework_args.dtype": "int8"}, {"dtype": "int8"}),
        ({"framework": ["openvino", "pytorch"], "framework_args.dtype": ["int8"]}, {}, {"dtype": None}),
        ({"framework_args": [{"dtype": "int8"}, {}], "framework": ["openvino", "pytorch"]}, {}, {}),
        ({"framework": ["onnxruntime", "openvino"], "framework_args": [{"dtype": "int8"}]}, {}, {}),
        (
            {"framework": ["onnxruntime", "openvino"], "framework_args": [{"dtype": "int8"}, {"opset": 17}]},
            {"framework": "openvino"},
            {"opset": 17},
        ),
        (
            {"framework": ["pytorch"], "framework_args.torch_dtype": ["bfloat16", "float32"]},
            {},
            {"torch_dtype": "float32"},
        ),
        ({"framework_args.dtype": ["int8", "int8_weights"]}, {}, {"dtype": "int8"}),
        ({"framework_args.inference_precision": ["bf16", "f32"]}, {}, {"inference_precision": "f32"}),
        ({"framework_args.inference_precision": ["f16", "f32"]}, {}, {"inference_precision": "f32"}),
        (
            {"framework_args": [{"dtype": "int8", "inference_precision": "bf16"}, {"dtype": "fp16"}]},
            {},
            {"dtype": "fp16"},
        ),
    ],
)
def test_the_baseline_is_float_where_a_row_is(beans, grid, changes, baseline):
    """What a framework quantizes by itself, or stores in 16 bits, comes after float32; what the spec names comes first;
    without any other row a quantized one remains.
    """
    plan = make_plan(
        specs.read_spec({**beans, "fixed": {}, "grid": {"framework": ["openvino"], **grid}, "baseline": changes})
    )
    (row,) = {row.baseline for row in plan}
    assert plan[row]["framework_args"] == baseline
    assert not plan[row].quantized


def test_the_baseline_is_float32_before_it_is_of_onnxruntime(beans):
    """Fidelity is measured against float32, also where onnxruntime has rows in float16 alone."""
    for dtypes, framework in ((["float16"], "pytorch"), (["float16", "float32"], "onnxruntime")):
        grid = {"framework": ["onnxruntime", "pytorch"], "dtype": dtypes}
        plan = make_plan(specs.read_spec({**beans, "fixed": {}, "grid": grid}))
        (row,) = {row.baseline for row in plan}
        assert (plan[row]["framework"], plan[row]["dtype"]) != ("onnxruntime", "float16")
        assert plan[row]["framework"] == framework


def test_float16_of_a_framework_without_precisions_is_no_baseline(beans):
    """`dtype` has the same meaning for each framework that takes it."""
    traits = {"openvino": FrameworkTraits("ir", (), ("dtype",), ())}
    spec = specs.read_spec({**beans, "fixed": {}, "grid": {"framework": ["openvino"], "dtype": ["float16", "float32"]}})
    assert [(row["dtype"], row.baseline) for row in make_plan(spec, traits)] == [("float16", 1), ("float32", 1)]


def test_static_rows_of_a_framework_that_also_calibrates_stay(beans):
    """What benchcard quantizes depends on `calibration`, whatever the numbers of the framework's own models are."""
    beans |= {"fixed": {"quantization_approach": "static"}, "grid": {"calibration.method": ["minmax", "entropy"]}}
    precisions = {"framework_args.dtype": {"int8": "calibrated"}}
    traits = {"onnxruntime": replace(FrameworkTraits.from_registry("onnxruntime"), precisions=precisions)}
    plan = make_plan(specs.read_spec(beans), traits)
    assert [row.axes["calibration.method"] for row in plan] == ["entropy", "minmax"]


OPENVINO = {"framework": ["openvino"], "framework_args.dtype": [None, "int8", "int8_weights"]}
MERGED = [None, "int8", "int8_weights"]
UNREAD = ("calibration.method changes nothing: it applies to no row",)


@pytest.mark.parametrize(
    ("grid", "fixed", "dtypes", "notes"),
    [
        ({"calibration.method": ["minmax", "entropy"]}, {}, MERGED, UNREAD),
        ({"calibration": [{"method": "minmax"}, {"method": "entropy"}, {}]}, {}, MERGED, ()),
        ({"weights_dtype": ["int8", "uint8"], "per_channel": [False, True]}, {}, MERGED, ()),
        ({"framework_args.optimization_level": [0, 99]}, {}, MERGED, ()),
        (
            {"calibration.num_calibration_samples": [18, 9], "calibration.method": ["minmax", "entropy"]},
            {},
            [None, "int8", "int8", "int8_weights"],
            UNREAD,
        ),
        ({}, {"calibration": {"method": "entropy"}}, MERGED, UNREAD),
        ({}, {"calibration.method": "entropy"}, MERGED, UNREAD),
    ],
)
def test_rows_that_differ_in_what_openvino_does_not_read_are_one(beans, grid, fixed, dtypes, notes):
    """Of `calibration` it reads the number of samples, and this for int8 alone; the first number of the grid stays in
    the keys of the other rows.
    """
    plan = make_plan(specs.read_spec({**beans, "fixed": fixed, "grid": {**OPENVINO, **grid}}))
    assert [row["framework_args"]["dtype"] for row in plan] == dtypes
    number = grid.get("calibration.num_calibration_samples", [100])[0]
    for row in plan:
        is_int8 = row["framework_args"]["dtype"] == "int8"
        assert is_int8 or row["calibration"] == {"num_calibration_samples": number}
        assert is_int8 or row.axes.get("calibration.num_calibration_samples") is None
        assert row["calibration"].keys() == {"num_calibration_samples"}
    assert tuple(note for note in unused_settings(plan) if "method" in note) == notes


def test_each_model_has_its_own_baseline(beans):
    """A row is never compared with a row of another model."""
    del beans["model"]
    beans["grid"]["name_or_path"] = ["a/b", "c/d"]
    plan = make_plan(specs.read_spec(beans))
    for row in plan:
        assert row.baseline is not None
        assert plan[row.baseline]["name_or_path"] == row["name_or_path"]


def test_an_entry_belongs_to_every_framework_that_knows_all_its_keys(beans):
    """In a flat list, PyTorch takes the number of threads and not the opset; the empty entry belongs to frameworks
    without another one.
    """
    beans["grid"]["framework_args"] = [{"intra_op_num_threads": 2}, {"opset": 13}, {}]
    found = {(row["framework"], str(row["framework_args"])) for row in make_plan(specs.read_spec(beans))}
    assert found == {
        ("onnxruntime", "{'intra_op_num_threads': 2}"),
        ("onnxruntime", "{'opset': 13}"),
        ("pytorch", "{'intra_op_num_threads': 2}"),
    }


def test_arguments_by_framework(beans):
    """In a mapping, each framework has its own entries; one without entries has the empty one."""
    beans["grid"]["framework_args"] = {"onnxruntime": [{"opset": 13}, {"opset": 17}]}
    found = {(row["framework"], str(row["framework_args"])) for row in make_plan(specs.read_spec(beans))}
    assert found == {("onnxruntime", "{'opset': 13}"), ("onnxruntime", "{'opset': 17}"), ("pytorch", "{}")}


@pytest.mark.parametrize(
    ("name", "values", "distinct"),
    [
        ("max_eval_samples", [None, 10], 2),
        ("batch_sizes", [[8], [1, 16]], 2),
        ("dataset.revision", ["one", "two"], 2),
        ("seed", [0, 1], 2),
        ("task_args", [{}, {"label_mapping": {"a": "b"}}], 2),
        ("weights_dtype", ["int8", "uint8"], 2),
        ("calibration.method", ["minmax", "entropy"], 2),
        ("calibration", [{"method": "minmax"}, {}], 1),
        ("framework_args.opset", [13, 17], 2),
        ("metrics", [["accuracy"], ["f1"]], 2),
        ("input_lengths", [[8], [16]], 2),
        ("duration", [1, 2], 2),
        ("node_exclusion", [[], ["layernorm"]], 2),
        ("backend_args", [{}, {"a": 1}], 2),
    ],
)
def test_any_parameter_may_be_benchmarked(beans, name, values, distinct):
    """Every parameter gives rows where it applies, and equal rows are one."""
    beans["fixed"] = {}
    beans["grid"] = {"quantization_approach": ["static"], name: values}
    for given in (name, name.partition(".")[0]):
        if "." not in name:
            beans.pop(given, None)
    if name == "dataset":
        del beans["dataset"]
    plan = make_plan(specs.read_spec(beans))
    assert len(plan) == distinct
    parameter, _, field = name.partition(".")
    assert len({str(row[parameter][field] if field else row[parameter]) for row in plan}) == distinct


def test_numbers_and_lists_of_numbers_sort_as_numbers(beans):
    """Rows go from few to many, not from "1" over "16" to "8"."""
    beans["grid"] = {"batch_sizes": [[16], [8], [1]], "max_eval_samples": [100, 20, None]}
    del beans["batch_sizes"]
    assert [row["batch_sizes"][0] for row in make_plan(specs.read_spec(beans))][::3] == [1, 8, 16]
    assert [row["max_eval_samples"] for row in make_plan(specs.read_spec(beans))][:3] == [None, 20, 100]


def test_a_spec_without_a_grid_is_one_row(beans):
    """No grid, no approach: the unquantized model in onnxruntime, which is its own baseline."""
    beans["grid"], beans["fixed"] = {}, {}
    plan = make_plan(specs.read_spec(beans))
    assert len(plan) == 1
    assert (plan[0]["framework"], plan[0]["apply_quantization"], plan[0].baseline) == ("onnxruntime", False, 0)


def test_a_large_grid_keeps_every_row_once(beans):
    """Thousands of rows are planned, each once; rows multiply only by the parameters that apply to them."""
    beans["grid"]["calibration.num_calibration_samples"] = list(range(1, 601))
    plan = make_plan(specs.read_spec(beans))
    assert len(plan) == 1 + 8 + 8 * 600 + 1
    assert len({str(row.parameters) for row in plan}) == len(plan)


def test_a_benchmarked_parameter_without_effect_is_reported():
    """A grid of parameters that dynamic rows ignore gives one row, and a sentence for each."""
    grid = {"activations_dtype": ["int8", "uint8"], "activations_symmetric": [True, False]}
    dataset = {"path": "data", "eval_split": "validation"}
    fixed = {"quantization_approach": "dynamic"}
    spec = Benchmark(task="text-classification", model="model", dataset=dataset, grid=grid, fixed=fixed).spec
    plan = make_plan(spec)
    assert len(plan) == 1
    assert [sentence.partition(":")[0] for sentence in unused_settings(plan)] == [
        "activations_dtype changes nothing",
        "activations_symmetric changes nothing",
    ]


@pytest.fixture
def plugin(monkeypatch):
    """A function that forgets the example plugin, whose task and framework are registered until then."""

    def fresh_tables():
        tables = {group: registry._Registry(group) for group in registry._BUILT_IN}
        monkeypatch.setattr(registry, "_registry", tables.__getitem__)

    fresh_tables()
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "plugin"))
    registry.register_task("masked-word", importlib.import_module("benchcard_masked.task").MaskedWord)
    registry.register_framework("zipped", importlib.import_module("benchcard_masked.framework").Zipped)
    registry.register_backend("noted", SimpleNamespace(run=print))
    return fresh_tables


def test_a_stored_spec_is_planned_without_its_plugins(plugin, beans):
    """A spec and a plan that a run kept are the same where the packages that brought task, framework, metric and
    backend are not installed; any other spec is refused there.
    """
    beans |= {"task": "masked-word", "backend": "noted", "metrics": ["accuracyy"], "task_args": {"upper_case": True}}
    beans["grid"]["framework"] = ["onnxruntime", "zipped"]
    beans["grid"]["framework_args"] = {"zipped": [{"level": 1}, {"optimize": False}]}
    # Where this metric is not registered, its id looks like a typo.
    registry.register_metric("accuracyy", SimpleNamespace(compute=print, features=None))
    spec = specs.read_spec(beans)
    plan = make_plan(spec)
    stored = json.loads(msgspec.json.encode({"spec": spec.as_dict(), "frameworks": plan.frameworks}))
    plugin()
    with pytest.raises(SpecError, match=r"masked-word.*"):
        specs.read_spec(stored["spec"])
    read = specs.read_stored_spec(stored["spec"])
    assert (read, read.digest, read.trusted) == (spec, spec.digest, False)
    frameworks = msgspec.convert(stored["frameworks"], dict[str, FrameworkTraits])
    assert make_plan(read, frameworks) == plan
    assert unused_settings(make_plan(read, frameworks)) == unused_settings(plan)
    with pytest.raises(BenchcardError, match="no framework is called `zipped`"):
        make_plan(read)


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("task", 3, "$.task"),
        ("per_chanel", True, "$.per_chanel"),
        ("batch_sizes", [0], "$.batch_sizes[0]"),
        ("framework_args", {"onnxruntime": [{"intra_op_num_threads": []}]}, None),
    ],
)
def test_a_stored_spec_is_checked(beans, name, value, place):
    """Everything but the names and arguments of plugins is checked in a stored spec."""
    if place is None:
        beans["grid"][name], place = value, "$.grid.framework_args.onnxruntime[0].intra_op_num_threads"
    else:
        beans[name] = value
    with pytest.raises(SpecError) as caught:
        specs.read_stored_spec(beans)
    assert [mistake.place for mistake in caught.value.mistakes] == [place]
