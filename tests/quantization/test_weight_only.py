"""Weight-only quantization: what each setting writes into the graph, and what stays in float, with the reason."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_graphs
from tiny_graphs import check_runs, normal, saved, written

from benchcard.errors import ArtifactError
from benchcard.graphs.graph import attribute_value
from benchcard.quantization.equality import why_same
from benchcard.quantization.exclusions import excluded_names, match_exclusions
from benchcard.quantization.operators import FloatReason
from benchcard.quantization.quantize import quantize_model
from benchcard.quantization.sensitivity.losses import measure_losses
from benchcard.quantization.settings import Quantization

TWO = """
<ir_version: 10, opset_import: ["" : 21]>
g (int64[N] ids) => (float[N, 24] y) {
    x = Gather (table, ids)
    m = MatMul (x, w)
    y = Gemm <transB = 1> (m, v, b)
}
"""
ROWS, COLUMNS = 80, 48
EVERY = ("Gather", "Gemm", "MatMul")


def two(folder, **changed):
    """A graph with a table, a `MatMul` and a `Gemm`, each with a weight of its own."""
    weights = {"table": normal(9, ROWS), "w": normal(ROWS, COLUMNS), "v": normal(24, COLUMNS), "b": normal(24)}
    return saved(written(TWO, {**weights, **changed}), folder / "float.onnx")


def weight_only(*operators, **settings):
    return Quantization("weight_only", operators or None, **settings)


def quantized(path, how):
    """The quantized model, and the report."""
    target = path.with_name("quantized.onnx")
    report = quantize_model(path, target, how)
    return onnx.load(target), report


def node_of(model, operator="MatMulNBits"):
    (node,) = (node for node in model.graph.node if node.op_type == operator)
    return node


def tensors(model):
    return {weight.name: onnx.numpy_helper.to_array(weight) for weight in model.graph.initializer}


def run(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": np.arange(9)})[0]


def stored(model, bits):
    """The integers of the only `MatMulNBits`, `(rows, columns)`, with the scale and the zero point of each."""
    node, weights = node_of(model), tensors(model)
    block = attribute_value(node, "block_size", None)

    def unpacked(packed):
        flat = packed.reshape(COLUMNS, -1)
        return flat if bits == 8 else np.stack([flat & 15, flat >> 4], -1).reshape(len(flat), -1)

    numbers = unpacked(weights[node.input[1]])
    scales = weights[node.input[2]].reshape(COLUMNS, -1)
    zeros = unpacked(weights[node.input[3]])[:, : scales.shape[1]] if len(node.input) > 3 else None
    zeros = np.full(scales.shape, 2 ** (bits - 1)) if zeros is None else zeros
    spread = [np.repeat(each, block, axis=1)[:, :ROWS].T for each in (scales, zeros)]
    return numbers[:, :ROWS].T.astype(int), spread[0], spread[1].astype(int)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
def test_rounding_to_nearest_is_what_numpy_computes(tmp_path, bits, symmetric):
    """`rtn` stores the integers, scales and zero points of the formula, also in a last block that is not full."""
    weight = normal(ROWS, COLUMNS)
    model, _ = quantized(two(tmp_path, w=weight), weight_only(bits=bits, block_size=32, weights_symmetric=symmetric))
    numbers, scales, zeros = stored(model, bits)
    assert len(node_of(model).input) == (3 if symmetric else 4)
    for start in range(0, ROWS, 32):
        block = weight[start : start + 32]
        if symmetric:
            largest = np.take_along_axis(block, np.abs(block).argmax(0)[None], 0)
            scale, zero = largest / -(2 ** (bits - 1)), np.full((1, COLUMNS), 2 ** (bits - 1))
        else:
            lowest, highest = np.minimum(block.min(0, keepdims=True), 0), np.maximum(block.max(0, keepdims=True), 0)
            scale = (highest - lowest) / (2**bits - 1)
            zero = np.round(-lowest / scale)
        part = slice(start, start + len(block))
        np.testing.assert_allclose(scales[part], np.broadcast_to(scale, block.shape), rtol=1e-6)
        np.testing.assert_array_equal(zeros[part], np.broadcast_to(zero, block.shape))
        expected = np.clip(np.round(block / scale) + zero, 0, 2**bits - 1)
        # At the middle of two integers the quantizer may round either way.
        assert np.abs(numbers[part] - expected).max() <= 1
        assert (numbers[part] == expected).mean() > 0.99
        far = np.abs((numbers[part] - zeros[part]) * scales[part] - block) / np.abs(scales[part])
        assert far.max() <= (1.01 if symmetric else 0.51)


@pytest.mark.parametrize(
    ("settings", "attributes", "inputs"),
    [
        ({}, {"bits": 4, "block_size": 32, "accuracy_level": 0}, 4),
        ({"bits": 8, "block_size": 16}, {"bits": 8, "block_size": 16}, 4),
        ({"block_size": 128, "weights_symmetric": True}, {"bits": 4, "block_size": 128}, 3),
        ({"accuracy_level": 4}, {"accuracy_level": 4}, 4),
        ({"algorithm": "hqq", "block_size": 64}, {"bits": 4, "block_size": 64}, 4),
        ({"algorithm": "k_quant", "bits": 8, "accuracy_level": 1}, {"bits": 8, "accuracy_level": 1}, 4),
        ({"algorithm": "k_quant", "block_size": 64}, {"bits": 4, "block_size": 64}, 4),
    ],
)
def test_each_setting_is_in_the_graph(tmp_path, settings, attributes, inputs):
    """Bits, block size and accuracy level are those asked for; zero points are there unless the rows are symmetric."""
    path = two(tmp_path)
    model, report = quantized(path, weight_only(**settings))
    node = node_of(model)
    assert {name: attribute_value(node, name, 0) for name in attributes} == attributes
    assert len(node.input) == inputs
    assert report.weights_quantized == report.nodes_quantized == 1
    assert not report.weights_per_channel
    assert "w" not in tensors(model)
    onnx.checker.check_model(model)
    exact, given = run(path), run(path.with_name("quantized.onnx"))
    assert 0 < np.abs(exact - given).mean() / np.abs(exact).mean() < 0.2


def test_the_closer_the_more_bits(tmp_path):
    """Outputs are closer to the float graph's with 8 bits than with 4, for each algorithm that knows both."""
    path = two(tmp_path)

    def error(**settings):
        quantized(path, weight_only(block_size=64, **settings))
        return np.abs(run(path.with_name("quantized.onnx")) - run(path)).mean()

    for algorithm in ("rtn", "k_quant"):
        assert error(algorithm=algorithm, bits=8) < error(algorithm=algorithm, bits=4) / 4


def test_a_gemm_and_a_table_are_quantized_where_they_are_named(tmp_path):
    """By default they stay as they are, and the report counts them with the reason; named, they are quantized."""
    path = two(tmp_path)
    model, report = quantized(path, weight_only())
    assert [(each.operator, each.eligible, each.quantized) for each in report.operators] == [
        ("Gather", 1, 0),
        ("Gemm", 1, 0),
        ("MatMul", 1, 1),
    ]
    assert f"1 of 1 `Gemm` stays in float32: {FloatReason.ONLY_BY_NAME}" in report.notes
    model, report = quantized(path, weight_only(*EVERY))
    assert [node.op_type for node in model.graph.node] == ["GatherBlockQuantized", "MatMulNBits", "MatMulNBits", "Add"]
    assert report.nodes_quantized == report.nodes_eligible == report.weights_quantized == 3
    assert not report.notes
    assert {"table", "w", "v"}.isdisjoint(tensors(model))
    onnx.checker.check_model(model)
    assert np.abs(run(path.with_name("quantized.onnx")) - run(path)).mean() < np.abs(run(path)).mean() / 3
    _, report = quantized(path, weight_only(*EVERY, bits=8))
    assert report.notes == (f"1 of 1 `Gather` stays in float32: {FloatReason.TABLE}",)


def test_gpt2_s_layers_are_counted_as_not_quantized(tmp_path):
    """The layers of a GPT-2 are `Gemm`: by default 0 of 8 are quantized, and named, all of them."""
    path = tiny_graphs.export("gpt2", 17, tmp_path / "float.onnx")
    for how, count in ((weight_only(), 0), (weight_only("Gemm", "MatMul"), 8)):
        _, report = quantized(path, how)
        gemm = next(each for each in report.operators if each.operator == "Gemm")
        assert (gemm.eligible, gemm.quantized) == (8, count)
        notes = [note for note in report.notes if note.startswith("8 of 8 `Gemm` stay in float32: by default")]
        assert len(notes) == (count == 0)
        check_runs(path.with_name("quantized.onnx"), tiny_graphs.samples("gpt2", 1)[0])


def test_exclusions_keep_nodes_in_float(tmp_path):
    """A node that an exclusion matches stays as it is, also a `Gemm` that would be split."""
    path = two(tmp_path)
    how = weight_only("Gemm", "MatMul")
    (matched,) = match_exclusions(path, ["re:Gemm.*"], how)
    assert matched.would_be_quantized == matched.nodes == ("Gemm_2",)
    model, report = quantized(path, weight_only("Gemm", "MatMul", nodes_to_exclude=excluded_names([matched])))
    assert [node.op_type for node in model.graph.node] == ["Gather", "MatMulNBits", "Gemm"]
    assert report.nodes_quantized == 1


def test_a_weight_of_two_nodes_is_stored_once(tmp_path):
    """Two products of one weight share its blocks, as they shared the weight."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N, 32] x) => (float[N, 32] y) { m = MatMul (x, w) y = MatMul (m, w) }
    """
    path = saved(written(text, {"w": normal(32, 32)}), tmp_path / "float.onnx")
    for algorithm in ("rtn", "hqq", "k_quant"):
        model, report = quantized(path, weight_only(algorithm=algorithm, block_size=16))
        names = [weight.name for weight in model.graph.initializer]
        assert len(names) == len(set(names)) == 3
        assert (report.nodes_quantized, report.weights_quantized) == (2, 1)
        check_runs(path.with_name("quantized.onnx"), {"x": normal(2, 32)})


@pytest.mark.parametrize(
    ("shape", "how", "reason"),
    [
        ((96, 8), weight_only(algorithm="k_quant"), FloatReason.ODD_BLOCKS),
        ((2, 96, 8), weight_only(), FloatReason.NOT_A_MATRIX),
        (None, weight_only(), FloatReason.NOT_CONSTANT),
    ],
)
def test_a_graph_without_a_weight_to_quantize_stays_the_float_model(tmp_path, shape, how, reason):
    """Nothing is quantized where no product has a weight that can be, and the note has the reason."""
    other = "" if shape else ", float[96, 8] w"
    text = f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[2, N, 96] x{other}) => (float[2, N, 8] y) {{ y = MatMul (x, w) }}
    """
    path = saved(written(text, {"w": normal(*shape)} if shape else {}), tmp_path / "float.onnx")
    _, report = quantized(path, how)
    assert report.is_float_model
    assert f"1 of 1 `MatMul` stays in float32: {reason}" in report.notes


def test_hqq_of_eight_bits_is_refused(tmp_path):
    """ONNX Runtime cannot run it on the CPU: the message names what works."""
    with pytest.raises(ArtifactError, match=r"no kernel on the CPU .* Use `bits: 4`, or the `algorithm` `rtn`"):
        quantized(two(tmp_path), weight_only(algorithm="hqq", bits=8))


def test_settings_that_change_nothing_have_their_reason(tmp_path):
    """What an algorithm ignores is noted, and why two rows are the same model is said in these words."""
    path, reports = two(tmp_path), {}
    for algorithm, given in (("hqq", {"accuracy_level": 4}), ("k_quant", {"weights_symmetric": True, "bits": 8})):
        how = [weight_only(algorithm=algorithm, bits=given.get("bits")), weight_only(algorithm=algorithm, **given)]
        reports = [quantized(path, each)[1] for each in how]
        assert reports[0].digest == reports[1].digest
        (reason,) = [note for note in reports[1].notes if "changes nothing" in note]
        assert why_same(reports[0], how[0], reports[1], how[1]) == reason
    assert why_same(reports[0], how[0], reports[0], weight_only(algorithm="k_quant", bits=8, block_size=32)) == (
        "block_size is `32` by default"
    )


def test_the_layers_that_cost_most_are_found(tmp_path):
    """The search for the costliest layers knows the nodes of few bits, also those of a split `Gemm`."""
    path, how = two(tmp_path), weight_only("Gemm", "MatMul", algorithm="k_quant", block_size=16, bits=8)
    quantized(path, how)
    feeds = [{"ids": np.arange(9)}]
    losses = measure_losses(path, path.with_name("quantized.onnx"), feeds, settings=how, folder=tmp_path)
    assert {layer.operator for layer in losses.layers} == {"MatMul", "Gemm"}
    assert losses.outputs.snr_db > 30


def test_a_weight_that_the_graph_transposes_is_quantized(tmp_path):
    """PyTorch leaves a large weight to be transposed: the product is quantized, and a table that shares it stays."""
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    g (int64[N] ids) => (float[N, 48] y, float[N, 40] z) {
        x = Gather (table, ids)
        turned = Transpose <perm = [1, 0]> (table)
        y = MatMul (x, turned)
        other = Transpose (v)
        z = Gemm <transB = 1> (x, w)
        t = MatMul (x, other)
    }
    """
    given = {"table": normal(48, 64), "v": normal(40, 64), "w": normal(40, 64)}
    path = saved(written(text, given), tmp_path / "float.onnx")
    for algorithm in ("rtn", "k_quant"):
        model, report = quantized(path, weight_only("Gemm", "MatMul", algorithm=algorithm))
        assert (report.nodes_quantized, report.weights_quantized, report.notes) == (3, 3, ())
        assert [node.op_type for node in model.graph.node] == ["Gather", *["MatMulNBits"] * 3]
        assert given.keys() & tensors(model).keys() == {"table"}
        error = np.abs(run(path.with_name("quantized.onnx")) - run(path)).mean()
        assert error < np.abs(run(path)).mean() / 3
