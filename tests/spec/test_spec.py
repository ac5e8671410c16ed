"""Tests of specs: how they are read, and every mistake that is reported."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchcard.errors import SpecError
from benchcard.spec import spec as specs


def mistakes(data: object) -> dict[str, str]:
    """Return the mistakes in a spec, by place."""
    with pytest.raises(SpecError) as caught:
        specs.read_spec(data)  # type: ignore[arg-type]
    return {mistake.place: str(mistake) for mistake in caught.value.mistakes}


def test_a_spec_reads_back_from_its_own_data(beans):
    """Reading the result of `as_dict` gives an equal spec with an equal digest."""
    spec = specs.read_spec(beans)
    again = specs.read_spec(spec.as_dict())
    assert again == spec
    assert again.digest == spec.digest


def test_an_empty_spec_holds_nothing(tmp_path):
    """An empty file is reported as one that holds nothing."""
    (tmp_path / "spec.yaml").touch()
    with pytest.raises(SpecError, match=r"expected a mapping with `task`.*, found nothing"):
        specs.load_spec(tmp_path / "spec.yaml")


def test_model_is_another_word_for_name_or_path(beans):
    """`model` and `name_or_path` give the same spec."""
    other = {**beans, "name_or_path": beans["model"]}
    del other["model"]
    assert specs.read_spec(beans).digest == specs.read_spec(other).digest


def test_the_digest_tells_specs_apart(beans):
    """Any change of a parameter changes the digest."""
    digests = {specs.read_spec(beans).digest}
    for change in ({"duration": 1}, {"seed": 3}, {"model": "other/model"}, {"grid": {"per_channel": [True]}}):
        digests.add(specs.read_spec({**beans, **change}).digest)
    assert len(digests) == 5


def test_tuples_paths_and_numpy_scalars_become_plain(beans, tmp_path):
    """Tuples, paths and NumPy scalars are read as lists, texts and numbers."""
    beans |= {"batch_sizes": (np.int64(1), 8), "duration": np.float64(2.5), "model": tmp_path}
    spec = specs.read_spec(beans)
    assert spec.fixed["batch_sizes"] == [1, 8]
    assert type(spec.fixed["batch_sizes"][0]) is int
    assert type(spec.fixed["duration"]) is float
    assert spec.fixed["name_or_path"] == str(tmp_path)


def test_all_mistakes_come_at_once_each_with_its_place(beans):
    """One reading finds every mistake: wrong types, unknown names, and missing parameters."""
    beans["task"] = "image-clasification"
    beans["dataset"] = {"pth": "x", "path": "beans", "eval_split": "validation", "calibration_split": "train"}
    beans["grid"] |= {"per_channel": [True, "yes", 3], "opset": [11], "reduce_range": True}
    beans["fixed"]["calibration"]["method"] = "minimax"
    beans["duration"] = -1
    found = mistakes(beans)
    assert list(found) == [
        "$.task",
        "$.grid.opset",
        "$.dataset.pth",
        "$.duration",
        "$.fixed.calibration.method",
        "$.grid.per_channel[1]",
        "$.grid.per_channel[2]",
        "$.grid.reduce_range",
    ]
    assert "did you mean `image-classification`?" in found["$.task"]
    assert "did you mean `framework_args.opset`?" in found["$.grid.opset"]
    assert "did you mean `path`?" in found["$.dataset.pth"]
    assert 'expected true or false, found "yes" (write true)' in found["$.grid.per_channel[1]"]
    assert "did you mean `minmax`?" in found["$.fixed.calibration.method"]
    assert "a number from 0 to 86400" in found["$.duration"]
    assert "write [true]" in found["$.grid.reduce_range"]


def test_required_parameters_are_reported():
    """An empty spec has a mistake for each required parameter."""
    assert list(mistakes({})) == ["$.task", "$.model", "$.dataset"]


@pytest.mark.parametrize("data", [None, [], "task", 3])
def test_a_spec_that_is_no_mapping_is_refused(data):
    """Anything but a mapping is one mistake at the top."""
    assert list(mistakes(data)) == ["$"]


@pytest.mark.parametrize("part", ["grid", "fixed"])
def test_a_part_that_is_no_mapping_is_refused(beans, part):
    """`grid` and `fixed` hold parameters by name."""
    beans[part] = ["per_channel"]
    assert f"$.{part}" in mistakes(beans)


def test_a_parameter_is_given_once(beans):
    """A parameter that is fixed and benchmarked, or given by two names, is a mistake that names both places."""
    beans["fixed"]["per_channel"] = True
    beans["name_or_path"] = "other/model"
    found = mistakes(beans)
    assert "it is at $.fixed.per_channel too" in found["$.grid.per_channel"]
    assert "it is at $.model too" in found["$.name_or_path"]


def test_a_list_holds_each_element_once_and_one_at_least(beans):
    """Empty lists of values and repeated values are mistakes; true and 1 are not the same value."""
    beans["grid"]["per_channel"] = []
    beans["grid"]["reduce_range"] = [True, True]
    beans["batch_sizes"] = [1, 1]
    assert set(mistakes(beans)) == {"$.grid.per_channel", "$.grid.reduce_range[1]", "$.batch_sizes[1]"}


def test_static_needs_a_calibration_split(beans):
    """Static quantization needs a split to calibrate on."""
    del beans["dataset"]["calibration_split"]
    assert "static quantization calibrates on it" in mistakes(beans)["$.dataset.calibration_split"]
    beans["grid"]["quantization_approach"] = ["dynamic"]
    specs.read_spec(beans)


def test_arguments_that_no_framework_of_the_grid_knows(beans):
    """An entry of `framework_args` that no benchmarked framework accepts is a mistake."""
    beans["grid"]["framework"] = ["pytorch"]
    assert "$.grid.framework_args[0]" in mistakes(beans)


def test_a_figure_of_a_metric_may_be_asked_for(beans):
    """`metric.figure` is accepted; a typo of the metric in it is a mistake."""
    asked = ["squad_v2.f1", "seqeval.overall_f1", "mae.mae"]
    assert specs.read_spec({**beans, "metrics": asked}).fixed["metrics"] == asked
    assert "did you mean `squad_v2`" in mistakes({**beans, "metrics": ["squadv2"]})["$.metrics[0]"]


@pytest.mark.parametrize(
    ("task", "metrics", "given", "said"),
    [
        ("image-classification", None, "acuracy", "measured, `accuracy`, found.*did you mean `accuracy`"),
        (
            "image-classification",
            ["accuracy", "f1"],
            "precision",
            "measured, `accuracy` or `f1`, found.*be ignored",
        ),
        ("image-classification", ["accuracy", "f1"], "f1", None),
        ("text-classification", None, "f1_macro", "measured, `accuracy`"),
        ("token-classification", None, "seqeval", None),
        ("token-classification", None, "f1", None),
        ("question-answering", ["squad_v2.f1"], "squad_v2", None),
        ("image-classification", ["./mine.py"], "./mine.py", None),
    ],
)
def test_arguments_of_metrics_that_are_not_measured(beans, task, metrics, given, said):
    """Arguments of a misspelled metric, or of one that is not measured, are a mistake."""
    data = {**beans, "task": task, "metrics": metrics, "task_args": {"metric_args": {given: {"average": "macro"}}}}
    if metrics is None:
        data.pop("metrics")
    if said is None:
        assert specs.read_spec(data).fixed["task_args"]["metric_args"] == {given: {"average": "macro"}}
    else:
        assert re.search(said, mistakes(data)[f"$.task_args.metric_args.{given}"])


def test_framework_args_by_framework(beans):
    """In a mapping of framework to entries, names and entries are checked."""
    beans["grid"]["framework_args"] = {"onnxruntime": [{"opset": 9}], "pytorc": [{}]}
    found = mistakes(beans)
    assert "a whole number from 11 to 23" in found["$.grid.framework_args.onnxruntime[0].opset"]
    assert "did you mean `pytorch`?" in found["$.grid.framework_args.pytorc"]


def test_a_field_of_a_mapping_may_be_benchmarked_by_itself(beans):
    """`calibration.method` is a parameter of its own, beside a fixed `calibration`, but not beside a benchmarked
    one.
    """
    beans["grid"]["calibration.method"] = ["minmax", "percentil"]
    assert "did you mean `percentile`?" in mistakes(beans)["$.grid.calibration.method[1]"]
    beans["grid"]["calibration.method"] = ["minmax"]
    specs.read_spec(beans)
    beans["grid"]["calibration"] = [beans["fixed"].pop("calibration")]
    assert "$.grid.calibration.method" in mistakes(beans)


def test_yaml_is_read_and_its_errors_have_a_line(tmp_path: Path):
    """A YAML file gives its spec; a repeated key and a syntax error are reported with their line."""
    path = tmp_path / "spec.yaml"
    path.write_text("task: text-classification\nmodel: a/b\ndataset: {path: c/d, eval_split: test}\n", encoding="utf-8")
    spec = specs.load_spec(path)
    assert (spec.task, spec.fixed["name_or_path"], spec.folder) == ("text-classification", "a/b", tmp_path)
    for text, said in (
        ("task: a\ntask: b\n", "line 2"),
        ("task: [a\n", "YAML"),
        ("", "a mapping"),
        ("\tx: 1", "line 1"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(SpecError, match=said):
            specs.load_spec(path)
    path.write_bytes(b"task: \xff")
    with pytest.raises(SpecError, match="UTF-8"):
        specs.load_spec(path)
    with pytest.raises(SpecError, match="No such file"):
        specs.load_spec(tmp_path / "none.yaml")


def test_relative_paths_start_at_the_spec(beans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A name is looked for beside the spec first, then in the working directory."""
    (tmp_path / "specs" / "model").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = specs.read_spec(beans, tmp_path / "specs")
    assert spec.local_path("./model") == tmp_path / "specs" / "model"
    assert spec.local_path("other") == tmp_path / "other"
    assert spec.local_path("nateraw/vit-base-beans") is None


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("metrics", ["accuracy", "accuraccy"], "$.metrics[1]"),
        ("node_exclusion", ["layernorm", "re:("], "$.node_exclusion[1]"),
        ("duration", 1e300, "$.duration"),
        ("seed", 10**29, "$.seed"),
        ("task_args", {"label_maping": {}}, "$.task_args.label_maping"),
        ("metrics", [1], "$.metrics[0]"),
        ("fixed", {"quant_format": "qdq"}, "$.fixed.quant_format"),
    ],
)
def test_values_that_no_run_could_use(beans, name, value, place):
    """Typos in ids, invalid expressions, and absurd numbers are mistakes."""
    beans["fixed"].pop(name, None)
    beans[name] = value
    assert list(mistakes(beans)) == [place]


def test_yaml_that_contains_itself(tmp_path: Path):
    """An alias inside its own anchor, and keys other than texts, are mistakes."""
    path = tmp_path / "spec.yaml"
    path.write_text("task: a\nmodel: &m {a: *m}\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"line 2, column 8: the alias `\*m` refers to itself"):
        specs.load_spec(path)
    path.write_text("task: image-classification\nmodel: a/b\ngrid: {? [a, b] : [1]}\n", encoding="utf-8")
    with pytest.raises(SpecError, match="text as keys"):
        specs.load_spec(path)


def test_typos_of_operators_are_found_and_unknown_ones_accepted(beans):
    """A typo of a known operator is a mistake; an unknown operator is accepted."""
    beans["grid"]["operators_to_quantize"] = [["Add", "Matmul"], ["MatMull"], ["ReduceMax", "Sub"], ["Mine"]]
    found = mistakes(beans)
    assert list(found) == ["$.grid.operators_to_quantize[0][1]", "$.grid.operators_to_quantize[1][0]"]
    assert all("did you mean `MatMul`?" in said for said in found.values())


def test_the_known_operators_are_those_of_the_quantizers():
    """Every operator that onnxruntime can quantize is a known one."""
    from onnxruntime.quantization import registry

    from benchcard.spec.parameters import type_of
    from benchcard.spec.schema import ListOf

    kind = type_of("operators_to_quantize").of
    assert isinstance(kind, ListOf)
    known = {*registry.IntegerOpsRegistry, *registry.QLinearOpsRegistry, *registry.QDQRegistry}
    assert {str(operator) for operator in known} <= set(kind.of.known)


def test_an_absurdly_large_grid_is_refused(beans):
    """Too many combinations are a mistake, found before the plan is made."""
    beans["grid"] |= {"seed": list(range(3000)), "warmup_runs": list(range(3000))}
    assert "at most 1000000" in mistakes(beans)["$.grid"]


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "~nobody-of-that-name/model"])
def test_names_that_can_be_no_path(beans, name):
    """A name that the system refuses as a path has no local path."""
    assert specs.read_spec(beans).local_path(name) is None


def test_a_run_has_one_backend(beans):
    """`backend` cannot be benchmarked: it is refused in a grid, even with one value."""
    assert specs.read_spec({**beans, "backend": "local"}).get("backend") == "local"
    found = mistakes({**beans, "grid": {"backend": ["local"]}})
    assert found == {
        "$.grid.backend": 'expected one value for the whole run, found ["local"] (write `backend` outside of `grid`) '
        "@ $.grid.backend"
    }


def test_precision_is_one_column(beans):
    """The precision of times cannot be benchmarked beside the metric of that name."""
    beans = {**beans, "grid": {"precision": [0.1, 0.2]}}
    assert specs.read_spec({**beans, "metrics": ["accuracy"]}).grid["precision"] == [0.1, 0.2]
    assert list(mistakes({**beans, "metrics": ["accuracy", "precision"]})) == ["$.grid.precision"]
    assert list(mistakes({**beans, "metrics": 3})) == ["$.metrics"]


def test_names_for_the_card_are_part_of_the_spec(beans):
    """`model_name` is any text, `base_model` an id on the Hub; a path there is a mistake."""
    named = {"model_name": "ViT for beans", "base_model": "google/vit-base-patch16-224"}
    assert named.items() <= specs.read_spec({**beans, **named}).fixed.items()
    for wrong in ("./model", "/home/me/model", "a b", 3, ""):
        found = mistakes({**beans, "base_model": wrong})
        assert "the id of a repository on the Hub" in found["$.base_model"], wrong
    assert specs.read_spec({**beans, **named}).digest == specs.read_spec(beans).digest
    for name, value in named.items():
        assert list(mistakes({**beans, "grid": {name: [value, "me/other"]}})) == [f"$.grid.{name}"]


def test_a_price_is_no_part_of_what_is_measured(beans):
    """A run can be shown with another price; a spec has one price, and not a list of them."""
    for name in ("price_per_core_hour", "price_per_hour"):
        priced = specs.read_spec({**beans, name: 0.05})
        assert priced.get(name) == 0.05
        assert priced.digest == specs.read_spec(beans).digest
        assert list(mistakes({**beans, name: -1})) == [f"$.{name}"]
        assert list(mistakes({**beans, "grid": {name: [1, 2]}})) == [f"$.grid.{name}"]
    both = {**beans, "price_per_core_hour": 0.05, "price_per_hour": 0.2}
    assert "0.05, beside a `price_per_hour`" in mistakes(both)["$.price_per_core_hour"]
    assert specs.read_spec({**both, "price_per_hour": None}).get("price_per_core_hour") == 0.05


def test_a_baseline_is_a_value_of_the_grid(beans):
    """A `baseline` of a parameter that is not benchmarked, or of another value, or in the grid, is a mistake."""
    beans["baseline"] = {"framework": "torch", "frameworks": "pytorch", "seed": 0}
    found = mistakes(beans)
    assert set(found) == {f"$.baseline.{name}" for name in beans["baseline"]}
    assert '["onnxruntime", "pytorch"]' in found["$.baseline.framework"]
    assert "did you mean `framework`" in found["$.baseline.frameworks"]
    del beans["baseline"]
    beans["grid"]["baseline"] = [{"framework": "pytorch"}]
    assert set(mistakes(beans)) == {"$.grid.baseline"}


def test_settings_of_weight_only_quantization_are_checked_before_anything_is_run(beans):
    """Bits, block sizes and algorithms that ONNX Runtime has no kernel for are mistakes, with what it has."""
    beans["grid"] |= {"bits": [4, 3], "block_size": [32, 48], "algorithm": ["gptq", "hqqq"], "dtype": ["bfloat16"]}
    beans["fixed"] = {**beans.get("fixed", {}), "accuracy_level": 5}
    found = mistakes(beans)
    for place, expected in {
        "$.grid.bits[1]": "expected `4` or `8`, found 3",
        "$.grid.block_size[1]": "expected `16`, `32`, `64`, `128` or `256`, found 48",
        "$.grid.algorithm[0]": 'expected `rtn`, `hqq` or `k_quant`, found "gptq"',
        "$.grid.algorithm[1]": "did you mean `hqq`?",
        "$.grid.dtype[0]": "`float32` or `float16`",
        "$.fixed.accuracy_level": "found 5",
    }.items():
        assert expected in found[place]
