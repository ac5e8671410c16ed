"""Exclusions match what they name, however an exporter wrote it, and report what they changed."""

from __future__ import annotations

import dataclasses
import json

import onnx
import pytest
from tiny_graphs import LAYERS, export, export_dynamo, normal, written

from benchcard.errors import ArtifactError
from benchcard.graphs.graph import graph_of
from benchcard.quantization.exclusions import PATTERNS, excluded_names, match_exclusions
from benchcard.quantization.operators import float_reasons
from benchcard.quantization.outcomes import Exclusion
from benchcard.quantization.settings import Quantization

ADDS = Quantization("static", ("MatMul", "Add"))

# How often each pattern stands in each architecture, counted by hand. Two norms and two residuals a layer; a ViT has
# one more norm at its end, BERT and DistilBERT after the embeddings. Every encoder picks one token; BERT has three
# tables of embeddings, DistilBERT two.
EXPECTED = {
    "vit": {"layernorm": 2 * LAYERS + 1, "gelu": LAYERS, "residual": 2 * LAYERS, "gather": 1, "softmax": LAYERS},
    "bert": {"layernorm": 2 * LAYERS + 1, "gelu": LAYERS, "residual": 2 * LAYERS, "gather": 4, "softmax": LAYERS},
    "distilbert": {"layernorm": 2 * LAYERS + 1, "gelu": LAYERS, "residual": 2 * LAYERS, "gather": 3, "softmax": LAYERS},
    # Stem, one block in each of two stages, one downsampling, head.
    "convnext": {"layernorm": 5, "gelu": 2, "residual": 2},
    # Two blocks and one; each ends in an `Add` and a `Relu`, and all but the last are followed by a `Conv`.
    "resnet": {"residual": 3, "residual-add-relu": 3, "residual-relu-conv": 2},
}
EXPECTED["bert-tanh"] = EXPECTED["bert"]
# Nodes of one layer norm and of one GELU that are written out.
NORM, GELU, GELU_TANH = 9, 5, 8

OLD = [
    ("vit", 11),
    ("vit", 13),
    ("vit", 17),
    ("vit", 20),
    ("bert", 13),
    ("bert-tanh", 17),
    ("distilbert", 11),
    ("convnext", 11),
    ("convnext", 17),
    ("resnet", 13),
]
NEW = [("vit", 18, {}), ("vit", 21, {}), ("vit", 23, {}), ("bert", 18, {"ort_fusions": "cpu"})]


@pytest.fixture(scope="session", params=OLD, ids=lambda case: f"{case[0]}-{case[1]}")
def old(request, tmp_path_factory):
    """A graph by PyTorch's older exporter."""
    kind, opset = request.param
    return kind, opset, export(kind, opset, tmp_path_factory.mktemp("old") / "model.onnx")


@pytest.fixture(scope="session", params=NEW, ids=lambda case: "-".join(map(str, (*case[:2], *case[2]))))
def new(request, tmp_path_factory):
    """A graph by the exporter of transformers."""
    kind, opset, options = request.param
    return kind, opset, options, export_dynamo(kind, opset, tmp_path_factory.mktemp("new") / "model.onnx", **options)


@pytest.fixture(scope="session")
def vit(tmp_path_factory):
    """A ViT whose layer norms are written out."""
    return export("vit", 13, tmp_path_factory.mktemp("vit") / "model.onnx")


def found(path, how=ADDS):
    return {each.pattern: each for each in match_exclusions(path, PATTERNS, how)}


def test_patterns_are_found_as_often_as_the_architecture_has_them(old):
    """Every pattern is found exactly as often as the layers counted by hand, from opset 11 to 20."""
    kind, _, path = old
    instances = {pattern: each.instances for pattern, each in found(path).items() if each.instances}
    assert instances == EXPECTED[kind]


def test_a_pattern_written_out_is_matched_whole(old):
    """A decomposed layer norm has nine nodes, a decomposed GELU five or eight, and a single node is matched as one."""
    kind, opset, path = old
    exclusions = found(path)
    norms, gelus = exclusions["layernorm"], exclusions["gelu"]
    assert len(norms.nodes) == norms.instances * (1 if opset >= 17 else NORM)
    gelu = 1 if opset >= 20 else GELU_TANH if kind == "bert-tanh" else GELU
    assert len(gelus.nodes) == gelus.instances * gelu
    kinds = [graph_of(onnx.load(path)).nodes[name].op_type for name in norms.nodes]
    assert set(kinds) <= {
        "LayerNormalization",
        *("ReduceMean", "Sub", "Pow", "Add", "Sqrt", "Div", "Mul"),
    }


@pytest.mark.slow
def test_patterns_are_found_in_graphs_of_the_newer_exporter(new):
    """The same counts hold from opset 18 to 23, and where ONNX Runtime's fusions made one node of several."""
    kind, opset, options, path = new
    expected = dict(EXPECTED[kind])
    if opset == 23:
        # One `Attention` node, with its softmax inside.
        del expected["softmax"]
    exclusions = found(path)
    assert {pattern: each.instances for pattern, each in exclusions.items() if each.instances} == expected
    graph = graph_of(onnx.load(path))
    norms = {graph.nodes[name].op_type for name in exclusions["layernorm"].nodes}
    assert norms == {"LayerNormalization"} | ({"SkipLayerNormalization"} if options else set())
    gelus = {graph.nodes[name].op_type for name in exclusions["gelu"].nodes}
    assert gelus == ({"BiasGelu"} if options else {"Gelu"} if opset >= 20 else {"Div", "Erf", "Add", "Mul"})


def test_what_would_be_quantized_follows_the_operators(vit):
    """With `Add` asked for, two nodes of a decomposed norm would be quantized, and without it none."""
    norms = found(vit)["layernorm"]
    assert len(norms.would_be_quantized) == 2 * norms.instances
    assert not norms.remark
    without = found(vit, Quantization("static", ("MatMul",)))["layernorm"]
    assert not without.would_be_quantized
    assert without.remark.startswith("changes nothing: ")
    assert "`ReduceMean`" in without.remark
    assert "`Add`" in without.remark


def test_an_exclusion_of_nodes_without_a_kernel_changes_nothing(vit):
    """Residual `Add` have no dynamic kernel, so leaving them out changes nothing."""
    (residual,) = match_exclusions(vit, ["residual"], Quantization("dynamic", ("MatMul", "Add")))
    assert residual.instances == 2 * LAYERS
    assert residual.remark == "changes nothing: `Add` is without a dynamic kernel"


def test_a_pattern_that_the_graph_lacks_says_so(vit):
    """A ViT has no `Relu`, and the remark says that nothing matched."""
    (relu,) = match_exclusions(vit, ["residual-add-relu"], ADDS)
    assert relu == Exclusion(
        "residual-add-relu", 0, (), (), "matched nothing: the graph has no such pattern (opset 13)"
    )


def test_a_node_is_matched_by_its_exact_name(vit):
    """The name of a node matches that node; the remark on an unknown name has a near miss."""
    name = "/vit/layers.0/Add"
    exact, absent = match_exclusions(vit, [name, name.replace("layers.0", "layers.00")], ADDS)
    assert (exact.instances, exact.nodes, exact.would_be_quantized, exact.remark) == (1, (name,), (name,), "")
    assert absent.nodes == ()
    assert "no node of this name" in absent.remark
    assert "did you mean" in absent.remark


def test_a_regular_expression_matches_whole_names(vit):
    """`re:` takes the names that match from end to end, and no others."""
    whole, part = match_exclusions(vit, [r"re:/vit/layers\.[01]/Add(_1)?", "re:layers"], ADDS)
    assert whole.nodes == tuple(sorted(whole.nodes))
    assert len(whole.nodes) == 2 * LAYERS
    assert part.nodes == ()
    assert part.remark == "matched nothing: no node has such a name"


def test_mistakes_in_exclusions_are_refused(vit):
    """The message on a misspelt pattern has a near miss, that on an invalid expression the reason."""
    with pytest.raises(ArtifactError, match="did you mean `layernorm`"):
        match_exclusions(vit, ["layernom"], ADDS)
    with pytest.raises(ArtifactError, match="did you mean `gelu`"):
        match_exclusions(vit, ["GELU"], ADDS)
    with pytest.raises(ArtifactError, match="is not a valid regular expression: missing"):
        match_exclusions(vit, ["re:(layers"], ADDS)


def test_excluded_names_are_unique(vit):
    """Overlapping exclusions give every node once, and the record of each is plain data."""
    exclusions = match_exclusions(vit, ["residual", "re:.*/Add", "softmax"], ADDS)
    names = excluded_names(exclusions)
    assert len(names) == len(set(names))
    assert set(names) == {name for each in exclusions for name in each.nodes}
    assert json.loads(json.dumps([dataclasses.asdict(each) for each in exclusions]))[0]["pattern"] == "residual"


def test_a_model_in_memory_is_taken_too(vit):
    """A loaded model gives the same as its file."""
    assert match_exclusions(onnx.load(vit), PATTERNS, ADDS) == match_exclusions(vit, PATTERNS, ADDS)


def test_a_layer_norm_may_take_its_mean_twice_and_square_by_multiplying():
    """Variants of the formula are one norm all the same: two `Sub`, `Mul` for the square, casts in between."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[B, 4] x) => (float[B, 4] y)
        <float[1] e = {0.001}, float[4] w = {1, 1, 1, 1}, float[4] b = {0, 0, 0, 0}> {
            m = ReduceMean<axes = [-1]>(x)
            d = Sub(x, m)
            d2 = Sub(x, m)
            c = Cast<to = 1>(d2)
            s = Mul(c, c)
            v = ReduceMean<axes = [-1]>(s)
            a = Add(v, e)
            r = Sqrt(a)
            n = Div(d, r)
            g1 = Mul(n, w)
            y = Add(g1, b)
        }"""
    )
    (norm,) = match_exclusions(model, ["layernorm"], ADDS)
    assert (norm.instances, len(norm.nodes)) == (1, 11)


def test_a_root_mean_square_norm_is_a_layer_norm():
    """Without a mean, and with a reciprocal instead of a division, it is still found."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[B, 4] x) => (float[B, 4] y) <float[1] two = {2}, float[1] e = {0.001}, float[4] w = {1, 1, 1, 1}> {
            s = Pow(x, two)
            v = ReduceMean<axes = [-1]>(s)
            a = Add(v, e)
            r = Sqrt(a)
            i = Reciprocal(r)
            n = Mul(x, i)
            y = Mul(w, n)
        }"""
    )
    (norm,) = match_exclusions(model, ["layernorm"], ADDS)
    assert (norm.instances, len(norm.nodes)) == (1, 7)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("s = Mul(x, k) h = Sigmoid(s) y = Mul(x, h)", 3),
        ("h = Sigmoid(x) y = Mul(x, h)", 0),
        ("y = Tanh(x)", 0),
        ("t = Tanh(x) y = Add(t, k)", 0),
        ("s = Div(x, k) e = Erf(s) a = Add(e, k) h = Mul(x, k) y = Mul(h, a)", 5),
        ("s = Div(x, k) e = Erf(s) a = Add(e, k) h = Mul(a, k) y = Mul(h, x)", 5),
        ("s = Div(x, k) e = Erf(s) a = Add(e, k) h = Mul(a, k) y = Mul(h, z)", 0),
    ],
    ids=["quick", "silu", "tanh", "shifted tanh", "half of x", "half of the curve", "another factor"],
)
def test_a_gelu_is_distinguished_from_similar_formulas(body, count):
    """Its variants are found, and other uses of the same curves are not."""
    model = written(
        f"""<ir_version: 8, opset_import: ["" : 13]>
        g (float[B, 4] x, float[B, 4] z) => (float[B, 4] y) <float[1] k = {{1.7}}> {{ {body} }}"""
    )
    (gelu,) = match_exclusions(model, ["gelu"], ADDS)
    assert len(gelu.nodes) == count


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ("h = MatMul(x, w) y = Add(h, x)", 1),
        ("h = MatMul(x, w) y = Add(h, b)", 0),
        ("h = MatMul(x, w) c = Identity(b) y = Add(h, c)", 0),
        ("h = Relu(x) y = Add(h, x)", 0),
        ("h = MatMul(x, w) i = MatMul(z, w) y = Add(h, i)", 0),
        ("h = MatMul(x, w) a = Add(h, z) p = Softmax(a) q = MatMul(p, w) c = Add(q, z) y = Softmax(c)", 0),
    ],
    ids=["skip", "bias", "bias by another name", "no layer between", "two branches", "mask used twice"],
)
def test_a_residual_is_distinguished_from_other_sums(body, count):
    """A sum is residual only where one side is the input of the layers that compute the other."""
    weights = {"w": normal(4, 4), "b": normal(4)}
    model = written(
        f"""<ir_version: 8, opset_import: ["" : 13]>
        g (float[B, 4] x, float[B, 4] z) => (float[B, 4] y) {{ {body} }}""",
        weights,
    )
    (residual,) = match_exclusions(model, ["residual"], ADDS)
    assert len(residual.nodes) == count


def test_a_gather_of_integers_is_not_matched():
    """Only gathers of floating-point numbers count, each with the sum that reads it."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (int64[B, 4] i, float[4, 3] z) => (float[4, 3] y, int64 n) <int64 zero = {0}> {
            s = Shape(i)
            n = Gather(s, zero)
            e = Gather(t, i)
            r = Gather(e, zero)
            y = Add(r, z)
        }""",
        {"t": normal(5, 3)},
    )
    (gather,) = match_exclusions(model, ["gather"], ADDS)
    graph = graph_of(model)
    assert gather.instances == 2
    assert [graph.nodes[name].op_type for name in gather.nodes] == ["Gather", "Gather", "Add"]


def test_unnamed_nodes_are_named():
    """The nodes of a graph without names are named by operator and position, and can be matched."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[B, 4] x) => (float[B, 4] y) { h = MatMul(x, w) y = Add(h, x) }""",
        {"w": normal(4, 4)},
    )
    assert match_exclusions(model, ["residual"], ADDS)[0].nodes == ("Add_1",)


def test_duplicate_names_are_made_unique():
    """Of two nodes with one name the second gets another, so that excluding one does not exclude both."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[B, 4] x) => (float[B, 4] y) { h = Relu(x) y = Relu(h) }"""
    )
    for node in model.graph.node:
        node.name = "Relu_1"
    assert tuple(graph_of(model).nodes) == ("Relu_1", "Relu_1_")


def test_copies_of_constants_are_not_activations():
    """A tensor computed from weights alone does not depend on the input, and one computed from an input does."""
    model = written(
        """<ir_version: 8, opset_import: ["" : 13]>
        g (float[4] x) => (float[4] y) <float[4] b = {1, 2, 3, 4}> { c = Identity(b) d = Mul(c, c) y = Add(x, d) }"""
    )
    graph = graph_of(model)
    assert {"b", "c", "d"} <= graph.constants
    assert graph.is_activation("x")
    assert not graph.is_activation("d")
    assert float_reasons(graph, ADDS) == {"Add_2": None}
