"""Each quantized graph equals that of ONNX Runtime's quantizer, and each parameter has its effect."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_graphs import check_runs, normal, saved, written

from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.settings import Quantization


def direct(case, how, folder):
    """Return what a plain call of ONNX Runtime's quantizer gives for the same arguments."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

    target, cache = folder / "direct.onnx", folder / "cache.json"
    types = {None: QuantType.QInt8, "int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    options = {
        "WeightSymmetric": how.weights_symmetric,
        "ActivationSymmetric": how.activations_symmetric,
        "MatMulConstBOnly": how.matmul_const_b_only,
    }
    shared = {
        "op_types_to_quantize": list(how.operators_to_quantize or ()),
        "per_channel": how.per_channel,
        "reduce_range": how.reduce_range,
        "weight_type": types[how.weights_dtype],
        "nodes_to_exclude": list(how.nodes_to_exclude),
        "extra_options": {name: value for name, value in options.items() if value is not None},
    }
    if how.approach == "dynamic":
        quantize_dynamic(case.path, target, **shared)
    else:
        calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
        if not hasattr(calibrate, "save_tensors_data"):
            pytest.skip("this onnxruntime accepts no ranges")
        calibrate.save_tensors_data(case.ranges, cache)
        quantize_static(
            case.path,
            target,
            quant_format=QuantFormat[how.quant_format or "QDQ"],
            activation_type=types[how.activations_dtype],
            calibration_cache_path=cache,
            **shared,
        )
    return onnx.load(target)


def weights(model):
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


def assert_equal(ours, theirs):
    assert list(ours.graph.node) == list(theirs.graph.node)
    assert [each.name for each in ours.graph.initializer] == [each.name for each in theirs.graph.initializer]
    expected = weights(theirs)
    for name, values in weights(ours).items():
        assert values.dtype == expected[name].dtype
        np.testing.assert_array_equal(values, expected[name])
    assert ours.opset_import == theirs.opset_import
    assert (ours.graph.input, ours.graph.output) == (theirs.graph.input, theirs.graph.output)


def kinds(model):
    return [node.op_type for node in model.graph.node]


def named(model, suffix):
    return {name: values for name, values in weights(model).items() if name.endswith(suffix)}


DYNAMIC = [
    {},
    {"operators_to_quantize": ("MatMul",)},
    {"operators_to_quantize": ("MatMul",), "per_channel": True, "reduce_range": True},
    {"operators_to_quantize": ("MatMul", "Conv"), "weights_dtype": "uint8"},
    {"operators_to_quantize": ("MatMul",), "matmul_const_b_only": False},
    {"operators_to_quantize": ("MatMul",), "matmul_const_b_only": True},
    {"operators_to_quantize": ("MatMul",), "weights_symmetric": False},
    {"operators_to_quantize": ("MatMul",), "weights_dtype": "uint8", "weights_symmetric": True},
    {"operators_to_quantize": ("MatMul",), "activations_symmetric": True},
    {"operators_to_quantize": ("MatMul",), "per_channel": True},
    {"operators_to_quantize": ("MatMul",), "reduce_range": True},
    {"operators_to_quantize": ("MatMul",), "nodes_to_exclude": ("/vit/layers.0/mlp/fc1/MatMul",)},
]
STATIC = [
    {},
    {"operators_to_quantize": ("MatMul", "Add")},
    {"operators_to_quantize": ("MatMul", "Gemm"), "per_channel": True, "reduce_range": True},
    {"operators_to_quantize": ("MatMul",), "weights_dtype": "uint8", "activations_dtype": "uint8"},
    {"operators_to_quantize": ("MatMul", "Softmax"), "activations_dtype": "uint8"},
    {"operators_to_quantize": ("MatMul", "Add"), "quant_format": "QOperator", "activations_dtype": "uint8"},
    {"operators_to_quantize": ("MatMul", "Mul"), "activations_symmetric": True, "weights_symmetric": False},
    {"operators_to_quantize": ("MatMul",), "activations_dtype": "int8", "weights_dtype": "int8"},
    {"operators_to_quantize": ("MatMul",), "weights_dtype": "uint8", "activations_dtype": "uint8", "per_channel": True},
    {"operators_to_quantize": ("MatMul",), "activations_dtype": "uint8", "activations_symmetric": True},
    {"operators_to_quantize": ("MatMul", "Gemm"), "reduce_range": True},
    *[
        {"operators_to_quantize": ("MatMul", "Add"), "quant_format": "QOperator", "activations_dtype": "uint8", **more}
        for more in (
            {"per_channel": True, "reduce_range": True},
            {"weights_dtype": "uint8"},
            {"weights_symmetric": False, "activations_symmetric": True},
            {"matmul_const_b_only": True},
            {"nodes_to_exclude": ("/vit/layers.0/Add",)},
        )
    ],
    {"operators_to_quantize": ("Add",), "nodes_to_exclude": ("/vit/layers.0/Add", "/vit/layers.1/Add")},
]


@pytest.mark.parametrize(
    "how",
    [Quantization("dynamic", **each) for each in DYNAMIC] + [Quantization("static", **each) for each in STATIC],
    ids=lambda how: "-".join(map(str, (how.layout, *dataclasses.astuple(how)[1:9]))),
)
def test_the_graph_equals_that_of_a_direct_call(vit, make, tmp_path, how):
    """Node for node and weight for weight, the graph is what the quantizer gives for the same arguments."""
    ours, _ = make(vit, how)
    assert_equal(ours, direct(vit, how, tmp_path))


@pytest.mark.parametrize(
    ("case", "how"),
    [
        ("resnet", Quantization("static", ("Conv", "Relu", "Add", "MaxPool"), per_channel=True)),
        ("resnet", Quantization("static", ("Conv", "Relu"), activations_symmetric=True)),
        ("resnet", Quantization("static", quant_format="QOperator", activations_dtype="uint8")),
        ("resnet", Quantization("dynamic")),
        ("bert", Quantization("dynamic")),
        ("bert", Quantization("static", ("MatMul", "Gather", "LayerNormalization"))),
    ],
    indirect=["case"],
    ids=str,
)
def test_the_graph_equals_that_of_a_direct_call_for_other_models(case, make, tmp_path, how):
    """The same holds for convolutions and embeddings."""
    ours, _ = make(case, how)
    assert_equal(ours, direct(case, how, tmp_path))


def test_products_of_two_activations_are_left_out_in_qdq_as_if_by_name(vit, make, tmp_path):
    """The QDQ quantizer does not read `MatMulConstBOnly`: the graph is that of a call that excludes these products."""
    how = Quantization("static", ("MatMul",), matmul_const_b_only=True)
    ours, _ = make(vit, how)
    initializers = {each.name for each in onnx.load(vit.path).graph.initializer}
    products = [
        node.name
        for node in onnx.load(vit.path).graph.node
        if node.op_type == "MatMul" and node.input[1] not in initializers
    ]
    assert len(products) == 4
    expected = direct(vit, dataclasses.replace(how, matmul_const_b_only=None, nodes_to_exclude=products), tmp_path)
    assert_equal(ours, expected)


@pytest.mark.parametrize(("asked", "kernel", "other"), [("MatMul", "MatMulInteger", 0), ("Gather", None, 3)])
def test_dynamic_operators_not_asked_for_stay_in_float(bert, make, asked, kernel, other):
    """With `MatMul` alone no embedding is stored in 8 bits, and with `Gather` alone no product is made in them."""
    model, report = make(bert, Quantization("dynamic", (asked,)))
    assert report.nodes_quantized == kinds(model).count(kernel or "DequantizeLinear")
    assert kinds(model).count("DequantizeLinear") == other
    assert ("MatMulInteger" in kinds(model)) == (asked == "MatMul")


def test_operators_not_asked_for_stay_in_float(vit, make):
    """With `Add` alone, each `Add` reads dequantized numbers and no `MatMul` does."""
    model, _ = make(vit, Quantization("static", ("Add",)))
    dequantized = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    reads = {
        operator: [
            all(tensor in dequantized for tensor in node.input)
            for node in model.graph.node
            if node.op_type == operator and node.name.endswith(operator)
        ]
        for operator in ("Add", "MatMul")
    }
    assert all(reads["Add"])
    assert not any(reads["MatMul"])


@pytest.mark.parametrize(("approach", "count"), [("static", 12), ("dynamic", 13)])
def test_per_channel_gives_each_output_channel_a_scale(vit, make, approach, count):
    """A weight has as many scales as columns, and one without `per_channel`."""
    one, _ = make(vit, Quantization(approach, ("MatMul",)))
    many, report = make(vit, Quantization(approach, ("MatMul",), per_channel=True))
    for name, values in named(many, "_quantized").items():
        scale = f"{name.removesuffix('_quantized')}_scale"
        assert weights(many)[scale].shape == (values.shape[1],)
        assert weights(one)[scale].shape == ()
    assert report.weights_per_channel == report.weights_quantized == count


@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_reduce_range_gives_weights_of_seven_bits(vit, make, approach):
    """No weight is beyond 64 with `reduce_range`, and some are without."""
    for reduce_range, most in ((True, 64), (False, 127)):
        model, _ = make(vit, Quantization(approach, ("MatMul",), reduce_range=reduce_range))
        assert max(int(abs(values.astype(int)).max()) for values in named(model, "_quantized").values()) == most


@pytest.mark.parametrize("approach", ["dynamic", "static"])
@pytest.mark.parametrize(("dtype", "kind"), [("int8", np.int8), ("uint8", np.uint8), (None, np.int8)])
def test_weights_have_the_asked_dtype(vit, make, approach, dtype, kind):
    """The weights in the graph are of the dtype asked for; int8 by default."""
    how = Quantization(approach, ("MatMul",), weights_dtype=dtype, activations_dtype="uint8")
    model, _ = make(vit, how)
    assert {values.dtype for values in named(model, "_quantized").values()} == {np.dtype(kind)}


@pytest.mark.parametrize(("dtype", "kind"), [("int8", np.int8), ("uint8", np.uint8), (None, np.int8)])
def test_static_activations_have_the_asked_dtype(vit, make, dtype, kind):
    """The zero points of the activations are of the dtype asked for; int8 by default."""
    model, _ = make(vit, Quantization("static", ("MatMul",), activations_dtype=dtype))
    zeros = [node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {weights(model)[name].dtype for name in zeros} == {np.dtype(kind)}


def test_quant_format_decides_how_the_graph_is_written(vit, make):
    """QDQ surrounds the float operators with pairs, QOperator replaces them."""
    pairs, _ = make(vit, Quantization("static", ("MatMul",), activations_dtype="uint8"))
    replaced, _ = make(vit, Quantization("static", ("MatMul",), activations_dtype="uint8", quant_format="QOperator"))
    assert (kinds(pairs).count("MatMul"), kinds(pairs).count("QLinearMatMul")) == (16, 0)
    assert (kinds(replaced).count("MatMul"), kinds(replaced).count("QLinearMatMul")) == (0, 16)


@pytest.mark.parametrize("approach", ["dynamic", "static"])
def test_symmetry_of_weights_puts_their_zero_in_the_middle(vit, make, approach):
    """Symmetric weights have the zero point 0, and others one of their own."""
    for symmetric, middle in ((True, True), (False, False), (None, True)):
        how = Quantization(approach, ("MatMul",), weights_symmetric=symmetric)
        model, _ = make(vit, how)
        names = [name.removesuffix("_quantized") + "_zero_point" for name in named(model, "_quantized")]
        assert all(weights(model)[name] == 0 for name in names) == middle


def test_symmetry_of_activations_puts_their_zero_in_the_middle(vit, make):
    """Symmetric int8 activations have the zero point 0, and others, by default, one of their own."""
    for symmetric, middle in ((True, True), (False, False), (None, False)):
        model, _ = make(vit, Quantization("static", ("MatMul",), activations_symmetric=symmetric))
        zeros = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
        assert all(weights(model)[name] == 0 for name in zeros) == middle


def test_dynamic_activations_take_no_parameter(vit, make):
    """Dynamic activations are uint8 and never symmetric: asking for more changes nothing, and the report says so."""
    plain, _ = make(vit, Quantization("dynamic", ("MatMul",)))
    for name, value in (("activations_dtype", "int8"), ("activations_symmetric", True)):
        asked, report = make(vit, Quantization("dynamic", ("MatMul",), **{name: value}))
        assert_equal(asked, plain)
        assert any(note.startswith(f"{name} changes nothing") for note in report.notes)


@pytest.mark.parametrize(
    ("approach", "layout", "default"), [("dynamic", None, 13), ("static", "QDQ", 16), ("static", "QOperator", 16)]
)
def test_products_of_two_activations_are_left_out_on_demand(vit, make, approach, layout, default):
    """`matmul_const_b_only` keeps the four products of attention in float32 in every layout; dynamic's default."""
    how = Quantization(approach, ("MatMul",), quant_format=layout, activations_dtype="uint8")
    gemm = 1 if approach == "dynamic" else 0
    counts = {}
    for only in (None, True, False):
        _, report = make(vit, dataclasses.replace(how, matmul_const_b_only=only))
        counts[only] = report.nodes_quantized
    assert counts == {None: default, True: 12 + gemm, False: 16 + gemm}


def test_an_excluded_gemm_stays_in_float_though_dynamic_quantization_renames_it(vit, make):
    """Dynamic quantization splits a `Gemm` into other nodes, and excluding it by its name still holds."""
    model, report = make(vit, Quantization("dynamic", ("MatMul",), nodes_to_exclude=("/classifier/Gemm",)))
    everything, _ = make(vit, Quantization("dynamic", ("MatMul",)))
    assert kinds(everything).count("MatMulInteger") - kinds(model).count("MatMulInteger") == 1
    gemm = next(each for each in report.operators if each.operator == "Gemm")
    assert (gemm.eligible, gemm.excluded, gemm.quantized) == (1, 1, 0)


RECURRENT = """<ir_version: 8, opset_import: ["" : 13]>
    g (float[5, 1, 3] x) => (float[5, 1, 1, 4] y) { y = LSTM<hidden_size = 4>(x, w, r) }"""
FUSED = """<ir_version: 8, opset_import: ["" : 13, "com.microsoft" : 1]>
    g (float[1, 5, 4] x) => (float[1, 5, 4] y) { y = com.microsoft.Attention<num_heads = 2>(x, w, b) }"""


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("text", "shapes", "kernel"),
    [
        (RECURRENT, {"w": (1, 16, 3), "r": (1, 16, 4)}, "DynamicQuantizeLSTM"),
        (FUSED, {"w": (4, 12), "b": (12,)}, "QAttention"),
    ],
    ids=["LSTM", "Attention"],
)
def test_operators_with_dynamic_kernels_of_their_own_are_quantized(tmp_path, text, shapes, kernel, per_channel):
    """Recurrent layers and ONNX Runtime's own `Attention` become their dynamic kernels, and run."""
    weights = {name: normal(*shape) for name, shape in shapes.items()}
    path = saved(written(text, weights), tmp_path / "m.onnx")
    report = quantize_model(path, tmp_path / "q.onnx", Quantization("dynamic", per_channel=per_channel))
    assert kinds(onnx.load(tmp_path / "q.onnx")).count(kernel) == report.nodes_quantized == 1
    shape = (5, 1, 3) if "r" in shapes else (1, 5, 4)
    check_runs(tmp_path / "q.onnx", {"x": normal(*shape)})
