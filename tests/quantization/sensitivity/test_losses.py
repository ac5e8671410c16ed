"""The cost of quantization is measured on the outputs, and the layers that cost most are named."""

from __future__ import annotations

import dataclasses
import json
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tiny_graphs import calibrated, export, normal, samples, saved, written

from benchcard.errors import ArtifactError
from benchcard.graphs import files
from benchcard.graphs.files import load_clean_model
from benchcard.graphs.graph import graph_of
from benchcard.quantization.operators import float_reasons
from benchcard.quantization.outcomes import Loss
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.sensitivity.loss import LossSum, decibels
from benchcard.quantization.sensitivity.losses import measure_losses
from benchcard.quantization.settings import Quantization

# Unsigned weights: products of signed ones saturate on some processors.
DYNAMIC = Quantization("dynamic", ("MatMul",), weights_dtype="uint8")
# Weights of `b` have one number that is large and always meets a zero: in 8 bits, all others are lost beside it.
CULPRIT = """<ir_version: 8, opset_import: ["" : 13]>
    g (float[N, 4] x) => (float[N, 4] y) {
        [a] h = MatMul(x, wa)
        [b] i = MatMul(h, wb)
        [c] y = MatMul(i, wc)
    }"""


@pytest.fixture
def culprit(tmp_path):
    """Three layers, of which dynamic quantization ruins the one named `b`."""
    wa, wb, wc = (normal(4, 4, seed=seed) for seed in range(3))
    wa[:, 3] = 0
    wb[3] = 1e4
    return saved(written(CULPRIT, {"wa": wa, "wb": wb, "wc": wc}), tmp_path / "culprit.onnx")


@pytest.fixture(scope="session")
def vit(tmp_path_factory):
    """A ViT of opset 13 with its ranges and four samples."""
    folder = tmp_path_factory.mktemp("vit")
    path, feeds = export("vit", 13, folder / "float.onnx"), samples("vit", 4)
    return path, calibrated(path, feeds, folder), feeds


@pytest.fixture(scope="session")
def resnet(tmp_path_factory):
    """A ResNet of opset 13 with its ranges and four samples."""
    folder = tmp_path_factory.mktemp("resnet")
    path, feeds = export("resnet", 13, folder / "float.onnx"), samples("resnet", 4)
    return path, calibrated(path, feeds, folder), feeds


def compared(model, how, target, **options):
    path, ranges, feeds = model
    quantize_model(path, target, how, ranges)
    return measure_losses(path, target, feeds, settings=how, **options)


def batches(count, rows=3):
    return [{"x": normal(rows, 4, seed=10 + index)} for index in range(count)]


def output(path, batch):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, batch)[0]


def test_losses_of_the_outputs_are_those_of_all_batches(culprit, tmp_path):
    """The largest difference and the ratio are what numpy finds on the outputs of both models put together."""
    target = tmp_path / "q.onnx"
    quantize_model(culprit, target, DYNAMIC)
    found = measure_losses(culprit, target, iter(batches(5)))
    exact = np.concatenate([output(culprit, batch) for batch in batches(5)]).astype(np.float64)
    other = np.concatenate([output(target, batch) for batch in batches(5)])
    assert found.batches == 5
    assert found.outputs.is_finite
    assert found.outputs.max_abs_difference == pytest.approx(np.abs(exact - other).max())
    expected = 10 * np.log10((exact**2).sum() / ((exact - other) ** 2).sum())
    assert found.outputs.snr_db == pytest.approx(expected)


def test_the_float_model_loses_nothing(culprit):
    """Compared with itself, a model has no difference, no ratio, and no layer to name."""
    found = measure_losses(culprit, culprit, batches(2))
    assert (found.outputs.max_abs_difference, found.outputs.snr_db) == (0.0, None)
    assert (found.layers, found.layers_compared, found.is_complete) == ((), 0, True)


def test_the_layer_that_ruins_the_outputs_is_named_first(culprit, tmp_path):
    """Of three layers, the one whose weights do not survive 8 bits comes first, by far, and excluding it repairs."""
    target = tmp_path / "q.onnx"
    quantize_model(culprit, target, DYNAMIC)
    found = measure_losses(culprit, target, batches(4), settings=DYNAMIC)
    assert found.layers[0].node == "b"
    assert found.layers[0].effect.snr_db + 20 < found.layers[1].effect.snr_db
    assert found.layers[0].alone.snr_db + 20 < found.layers[1].alone.snr_db
    assert found.outputs.snr_db == pytest.approx(found.layers[0].effect.snr_db, abs=1)
    quantize_model(culprit, target, dataclasses.replace(DYNAMIC, nodes_to_exclude=("b",)))
    assert measure_losses(culprit, target, batches(4), limit=0).outputs.snr_db > found.outputs.snr_db + 20


def test_a_layer_after_the_culprit_has_lost_as_much_without_being_one(culprit, tmp_path):
    """Together with the layers before it, `c` looks as bad as `b`; alone it does not."""
    target = tmp_path / "q.onnx"
    quantize_model(culprit, target, DYNAMIC)
    layers = {layer.node: layer for layer in measure_losses(culprit, target, batches(4)).layers}
    assert layers["c"].together.snr_db == pytest.approx(layers["b"].together.snr_db, abs=3)
    assert layers["c"].alone.snr_db > layers["b"].alone.snr_db + 20


def test_losses_are_plain_data(culprit, tmp_path):
    """The report goes through JSON and back."""
    quantize_model(culprit, tmp_path / "q.onnx", DYNAMIC)
    found = dataclasses.asdict(measure_losses(culprit, tmp_path / "q.onnx", batches(2)))
    assert json.loads(json.dumps(found, allow_nan=False))["layers"][0]["node"] == "b"


@pytest.mark.parametrize(
    "how",
    [
        Quantization("static", ("MatMul", "Add")),
        Quantization("static", ("MatMul", "Add"), quant_format="QOperator", activations_dtype="uint8"),
        # Not every version has a kernel for `ConvInteger` of signed weights.
        Quantization("dynamic", ("MatMul", "Conv"), weights_dtype="uint8"),
    ],
    ids=lambda how: how.layout,
)
def test_the_effect_of_a_layer_is_that_of_quantizing_it_alone(vit, tmp_path, how):
    """The oracle: a graph in which the quantizer was kept from every other node loses as much, once others that read
    what the layer reads do so in float32.
    """
    path, ranges, feeds = vit
    found = compared(vit, how, tmp_path / "q.onnx")
    graph = graph_of(load_clean_model(path))
    assert len(found.layers) == 3
    for layer in found.layers:
        others = tuple(name for name in float_reasons(graph, how) if name != layer.node)
        quantize_model(path, tmp_path / "one.onnx", dataclasses.replace(how, nodes_to_exclude=others), ranges)
        read_by_it_alone(tmp_path / "one.onnx", layer.node)
        alone = measure_losses(path, tmp_path / "one.onnx", feeds[:2], limit=0)
        assert layer.effect.snr_db == pytest.approx(alone.outputs.snr_db, abs=0.1)


def read_by_it_alone(path, name):
    """Have a node alone read the 8-bit forms of its inputs: the format QDQ has one for all that read a tensor."""
    model = onnx.load(str(path))
    makers = {tensor: node for node in model.graph.node for tensor in node.output}
    reads = {tensor for node in model.graph.node if node.name == name for tensor in node.input}
    exact = {}
    for tensor in reads & makers.keys():
        stored = makers.get(makers[tensor].input[0]) if makers[tensor].op_type == "DequantizeLinear" else None
        if stored is not None and stored.op_type == "QuantizeLinear":
            exact[tensor] = stored.input[0]
    for node in (node for node in model.graph.node if node.name != name):
        inputs = [exact.get(tensor, tensor) for tensor in node.input]
        del node.input[:]
        node.input.extend(inputs)
    onnx.save(model, str(path))


def test_the_layers_found_are_those_that_repair_the_outputs(vit, tmp_path):
    """In the ViT whose norms are written out, the search names the layers that an exhaustive one puts first."""
    how = Quantization("static", ("MatMul", "Add"))
    quick = compared(vit, how, tmp_path / "q.onnx")
    path, _, feeds = vit
    everything = measure_losses(path, tmp_path / "q.onnx", feeds, limit=1000, settings=how, trials=1000)
    assert everything.layers_compared == len(everything.layers) == 45
    assert quick.is_complete
    assert quick.trials <= 30
    effects = [layer.effect.snr_db for layer in everything.layers]
    assert effects == sorted(effects)
    assert [layer.node for layer in quick.layers] == [layer.node for layer in everything.layers[:3]]
    # What the outputs lose is lost in sums, which is what excluding them repairs, and not in the products.
    assert {layer.operator for layer in quick.layers} == {"Add"}
    worst_alone = sorted(everything.layers, key=lambda layer: layer.alone.snr_db)[:3]
    assert {layer.operator for layer in worst_alone} == {"MatMul"}

    def repaired(layers):
        excluded = tuple(layer.node for layer in layers)
        return compared(vit, dataclasses.replace(how, nodes_to_exclude=excluded), tmp_path / "r.onnx", limit=0).outputs

    assert repaired(quick.layers).snr_db > repaired(worst_alone).snr_db + 1


def test_trials_are_bounded(vit, tmp_path):
    """With too few trials the report says that it is not certain, and none is run where no layer is asked for."""
    how = Quantization("static", ("MatMul", "Add"))
    few = compared(vit, how, tmp_path / "q.onnx", trials=7)
    assert few.trials <= 7
    assert not few.is_complete
    none = compared(vit, how, tmp_path / "q.onnx", limit=0)
    assert (none.trials, none.layers) == (0, ())


@pytest.mark.parametrize("layout", ["QDQ", "QOperator"])
@pytest.mark.parametrize("symmetric", [None, True])
def test_a_layer_and_the_relu_fused_into_it_are_compared_as_one(resnet, tmp_path, layout, symmetric):
    """What a `Relu` would cut off anyway is not lost; the node to exclude is the layer's and not the `Relu`'s."""
    how = Quantization(
        "static",
        ("Conv", "Relu", "Add"),
        quant_format=layout,
        activations_dtype="uint8",
        activations_symmetric=symmetric,
    )
    found = compared(resnet, how, tmp_path / "q.onnx", limit=30, trials=200)
    assert {layer.operator for layer in found.layers} == {"Conv", "Add"}
    assert len(found.layers) == 11
    assert min(layer.alone.snr_db for layer in found.layers) > 20


def test_layers_that_were_not_asked_for_are_not_named(vit, tmp_path):
    """What lies between two quantized products computes in 8 bits too, but excluding it would change nothing."""
    path, ranges, feeds = vit
    how = Quantization("static", ("MatMul",))
    quantize_model(path, tmp_path / "q.onnx", how, ranges)
    options = {"limit": 100, "trials": 200}
    asked = measure_losses(path, tmp_path / "q.onnx", feeds[:1], settings=how, **options)
    every = measure_losses(path, tmp_path / "q.onnx", feeds[:1], **options)
    assert {layer.operator for layer in asked.layers} == {"MatMul"}
    assert {layer.operator for layer in every.layers} > {"MatMul"}


def test_no_batch_outlives_its_turn(culprit, tmp_path):
    """Batches are taken one at a time, and only the few that trials run on are kept."""
    quantize_model(culprit, tmp_path / "q.onnx", DYNAMIC)
    alive: list[weakref.ref] = []
    most = 0

    def stream():
        nonlocal most
        for index in range(12):
            values = normal(3, 4, seed=index)
            alive.append(weakref.ref(values))
            yield {"x": values}
            del values
            most = max(most, sum(each() is not None for each in alive))

    measure_losses(culprit, tmp_path / "q.onnx", stream())
    assert most <= 2 + 1


def test_numbers_that_are_not_finite_are_reported(tmp_path):
    """An infinite output of the quantized model is reported, and one of the float model is refused."""
    text = """<ir_version: 8, opset_import: ["" : 13]> g (float[N, 4] x) => (float[N, 4] y) {{ {} }}"""
    plain = saved(written(text.format("y = Identity(x)")), tmp_path / "plain.onnx")
    broken = saved(written(text.format("z = Sub(x, x) y = Div(x, z)")), tmp_path / "broken.onnx")
    outputs = measure_losses(plain, broken, batches(2)).outputs
    assert (outputs.max_abs_difference, outputs.snr_db, outputs.is_finite) == (None, None, False)
    with pytest.raises(ArtifactError, match="float model gives NaN or infinite numbers in `y`"):
        measure_losses(broken, plain, batches(2))


def test_without_a_batch_nothing_can_be_compared(culprit):
    """No batch at all is a mistake, and the message says what to give."""
    with pytest.raises(ArtifactError, match="Give one calibration sample or more"):
        measure_losses(culprit, culprit, iter(()))


def test_graphs_too_large_for_one_file_are_compared(vit, tmp_path, monkeypatch):
    """Where even what is built for the comparison is too large for one file, its weights lie beside it."""
    how = Quantization("static", ("MatMul",))
    inline = compared(vit, how, tmp_path / "a.onnx")
    monkeypatch.setattr(files, "INLINE_LIMIT_BYTES", 64)
    assert compared(vit, how, tmp_path / "b.onnx") == inline


def test_weights_beside_the_graph_are_found(vit, tmp_path):
    """Models with external data are compared as others are."""
    path, ranges, feeds = vit
    beside = tmp_path / "beside.onnx"
    onnx.save(onnx.load(path), beside, save_as_external_data=True, location="w.bin", size_threshold=64)
    how = Quantization("static", ("MatMul",))
    inline, external = (
        compared(vit, how, tmp_path / "a.onnx"),
        compared((beside, ranges, feeds), how, tmp_path / "b.onnx"),
    )
    assert inline == external
    assert {Path(file).name for file in tmp_path.iterdir()} == {
        "beside.onnx",
        "w.bin",
        "a.onnx",
        "b.onnx",
        "b.onnx.data",
    }


def test_decibels_of_powers():
    """A hundredth of the power is 20 dB below, and no noise has no ratio."""
    assert decibels(1.0, 0.01) == pytest.approx(20.0)
    assert decibels(1.0, 0.0) is None
    assert decibels(0.0, 1.0) < -1000


def test_two_layers_that_ruin_the_outputs_are_both_named(tmp_path):
    """Each of them alone ruins the outputs, so that the loss of both shows nothing about one of them."""
    names = "abcdefgh"
    tensors = ["x", *(f"t{name}" for name in names[:-1]), "y"]
    lines = [f"[{name}] {tensors[i + 1]} = MatMul({tensors[i]}, w{name})" for i, name in enumerate(names)]
    text = f'<ir_version: 8, opset_import: ["" : 13]> g (float[N, 4] x) => (float[N, 4] y) {{ {" ".join(lines)} }}'
    weights = {f"w{name}": normal(4, 4, seed=seed) for seed, name in enumerate(names)}
    for before, ruined in (("a", "b"), ("e", "f")):
        weights[f"w{before}"][:, 3] = 0
        weights[f"w{ruined}"][3] = 1e4
    path = saved(written(text, weights), tmp_path / "two.onnx")
    quantize_model(path, tmp_path / "q.onnx", DYNAMIC)
    found = measure_losses(path, tmp_path / "q.onnx", batches(4), settings=DYNAMIC, only_far=True)
    assert found.outputs.is_far
    assert {layer.node for layer in found.layers[:2]} == {"b", "f"}
    assert found.is_complete


@pytest.mark.parametrize("level", [1, 99])
def test_outputs_are_those_of_the_level_at_which_a_model_is_deployed(resnet, tmp_path, level):
    """At level 1 nodes compute in float between conversions, at 99 in 8 bits: the loss is that of the asked one."""
    path, _, feeds = resnet
    found = compared(resnet, Quantization("static"), tmp_path / "q.onnx", limit=0, optimization_level=level)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel(level)
    options.intra_op_num_threads = 1
    signal = noise = 0.0
    runs = [
        onnxruntime.InferenceSession(str(each), options, providers=["CPUExecutionProvider"])
        for each in (path, tmp_path / "q.onnx")
    ]
    for feed in feeds:
        exact, other = (session.run(None, feed)[0].astype(np.float64) for session in runs)
        signal, noise = signal + (exact**2).sum(), noise + ((exact - other) ** 2).sum()
    assert found.outputs.snr_db == pytest.approx(10 * np.log10(signal / noise), rel=1e-4)


def test_a_layer_with_a_second_output_that_the_graph_gives_is_passed_over(tmp_path):
    """A node of which several outputs are the graph's is not switched, and the others are still compared."""
    text = """<ir_version: 8, opset_import: ["" : 13]>
    g (float[2, 4] x) => (float[2, 2] a, float[2, 2] b) {
        h = MatMul (x, w)
        a, b = Split <axis = 1> (h, parts)
    }"""
    model = saved(written(text, {"w": normal(4, 4), "parts": np.array([2, 2])}), tmp_path / "model.onnx")
    feeds = [{"x": normal(2, 4)}]
    how = Quantization("static", ("MatMul", "Split"))
    quantize_model(model, tmp_path / "quantized.onnx", how, calibrated(model, feeds, tmp_path))
    found = measure_losses(model, tmp_path / "quantized.onnx", feeds, settings=how)
    assert [layer.operator for layer in found.layers] == ["MatMul"]


def test_layers_of_a_float16_graph_are_compared(tmp_path):
    """The layers of a graph in float16 are switched in float16."""
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float16[2, 4] x) => (float16[2, 4] y) {
        h = MatMul (x, w)
        y = MatMul (h, v)
    }"""
    weights = {"w": normal(4, 4).astype(np.float16), "v": normal(4, 4, seed=1).astype(np.float16)}
    model = saved(written(text, weights), tmp_path / "model.onnx")
    feeds = [{"x": normal(2, 4).astype(np.float16)}]
    how = Quantization("static", ("MatMul",))
    quantize_model(model, tmp_path / "quantized.onnx", how, calibrated(model, feeds, tmp_path))
    found = measure_losses(model, tmp_path / "quantized.onnx", feeds, settings=how)
    assert len(found.layers) == 2
    assert not found.outputs.is_far
    found = measure_losses(model, tmp_path / "quantized.onnx", feeds, settings=how, only_far=True)
    assert (found.layers, found.trials) == ((), 0)
    assert all(layer.effect.is_finite for layer in found.layers)


def test_keys_and_values_of_a_cache_do_not_count():
    """The loss of a decoder's outputs is that of its logits, with and without a cache."""
    total, ones = LossSum(), np.ones(2, dtype=np.float32)
    total.add(ones, ones, "logits")
    total.add(ones, 0 * ones, "present.0.key")
    assert total.loss() == Loss(0.0, None, True)
