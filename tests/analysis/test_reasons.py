"""What is told of a row from the outcomes of its steps: in what it computes, where its time goes, whether it can
saturate.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from benchcard.analysis import reasons
from benchcard.analysis import rows as rows_
from benchcard.frameworks.kernels import Kernel
from benchcard.quantization.report import OperatorCount
from benchcard.quantization.sensitivity.loss import Loss
from benchcard.run.record import Failures, Outcomes

STATIC = {"framework": "onnxruntime", "quantization_approach": "static", "quant_format": None}
INTEGER = ("MatMulIntegerToFloat", "8 bits", 3, 0.5)
SOFTMAX = ("Softmax", "float", 2, 0.125)
FLOAT_MATMUL = ("FusedMatMul", "float", 2, 0.25)
PAIRS = ("DequantizeLinear", "conversion", 7, 0.25)


@dataclasses.dataclass
class Configuration:
    """A row's parameters."""

    given: dict
    row: int = 0
    quantized: bool = True
    baseline: int | None = None

    def __getitem__(self, name):
        return self.given.get(name)


@dataclasses.dataclass
class Row:
    """A record with what the questions are asked of."""

    configuration: Configuration
    outcomes: Outcomes
    digest: str | None = "1234"
    failures: Failures = dataclasses.field(default_factory=Failures)
    search: None = None


def made(kernels=(), level=None, operators=(("MatMul", 3),), weights=3, is_float_model=False, **given):
    """A record of a quantized model that was run."""
    arguments = {} if level is None else {"optimization_level": level}
    report = SimpleNamespace(
        nodes_quantized=sum(count for _, count in operators),
        nodes_eligible=9,
        weights_quantized=weights,
        operators=[OperatorCount(name, count, 0, count) for name, count in operators],
        is_float_model=is_float_model,
        notes=[],
    )
    run = tuple(Kernel(*fields) for fields in kernels)
    return Row(
        Configuration({**STATIC, "framework_args": arguments, **given}),
        Outcomes(
            quantize=SimpleNamespace(values=SimpleNamespace(report=report, size_bytes=1_000_000, exclusions=[])),
            evaluate=SimpleNamespace(values=SimpleNamespace(kernels=run, threads=None, batches=None)),
        ),
    )


def of(*rows, saturates=False):
    """The records of a run on a machine that may saturate."""
    return SimpleNamespace(records=list(rows), info=SimpleNamespace(machine={"int8": {"u8s8_saturates": saturates}}))


@pytest.mark.parametrize(
    ("operator", "kernels", "reduce_range", "dtype", "saturates", "risk"),
    [
        ("MatMul", [INTEGER], False, None, True, True),
        ("MatMul", [], False, None, True, True),
        ("Conv", [INTEGER], False, "int8", True, True),
        ("Add", [INTEGER], False, "int8", True, False),
        ("MatMul", [("QLinearAdd", "8 bits", 1, 0.1), FLOAT_MATMUL], False, "int8", True, False),
        ("MatMul", [FLOAT_MATMUL, PAIRS], False, "int8", True, False),
        ("MatMul", [INTEGER], True, None, True, False),
        ("MatMul", [INTEGER], False, "uint8", True, False),
        ("MatMul", [INTEGER], False, None, False, False),
    ],
)
def test_rows_with_signed_weights_of_eight_bits_are_at_risk(operator, kernels, reduce_range, dtype, saturates, risk):
    """At risk are rows whose weights are s8 of 8 bits and are multiplied in 8 bits, on a machine that saturates; u8 x
    u8 products are widened. What is not known to compute in float counts as at risk.
    """
    row = made(kernels, operators=((operator, 3), ("Relu", 0)), reduce_range=reduce_range, weights_dtype=dtype)
    assert rows_.saturation_risk(of(row, saturates=saturates), row) is risk
    without = made(kernels, operators=((operator, 3),), weights=0)
    assert not rows_.saturation_risk(of(without, saturates=saturates), without)


@pytest.mark.parametrize(
    ("kernels", "is_float_model", "is_float"),
    [
        ([PAIRS, FLOAT_MATMUL], False, True),
        ([PAIRS, FLOAT_MATMUL, INTEGER], False, False),
        ([FLOAT_MATMUL], True, False),
        ([], False, False),
        ([PAIRS, ("Gather", "other", 1, 0.1)], False, False),
    ],
)
def test_rows_that_are_computed_in_float_are_told(kernels, is_float_model, is_float):
    """They are those of whose kernels none computes in 8 bits; where nothing was quantized, nobody would expect
    otherwise, and where no kernel is known, nothing is said.
    """
    row = made(kernels, is_float_model=is_float_model)
    assert rows_.computes_in_float(row) is is_float
    assert len(reasons.notes(of(row))) == is_float
    told = " ".join(reasons.sentences(of(row), row, {}, None))
    assert ("None of them computes in 8 bits" in told) is is_float


def test_rows_whose_outputs_depend_on_their_batch_are_named():
    """A note names the rows and what they depend on; there is none where padded batches are right or not asked for."""
    rows = [made([INTEGER]) for _ in range(5)]
    for number, batches in enumerate(("padded", "equal shapes", None, "equal shapes", "alone")):
        rows[number].configuration.row = number
        rows[number].outcomes.evaluate.values.batches = batches
    first, second = reasons.notes(of(*rows))
    assert first.startswith("the outputs of rows 1, 3 depend on padding: ")
    assert second.startswith("the outputs of row 4 depend on what else is in a batch, ")
    told = [next(reasons.sentences(of(row), row, {}, None)) for row in rows]
    assert [each.startswith("Its outputs depend on") for each in told] == [False, True, False, True, True]


def test_one_is_not_told_as_many():
    """A single node, place, trial or layer has the form of its words."""
    row = made(operators=(("MatMul", 1),))
    assert "1 of 9 nodes that could be was quantized" in " ".join(reasons.sentences(of(row), row, {}, None))
    assert "3 of 9 nodes that could be were quantized" in " ".join(reasons.sentences(of(made()), made(), {}, None))
    trial = SimpleNamespace(value=0.5, is_enough=False)
    search = {"metric": "accuracy", "baseline": 0.9, "trials": [trial], "candidates": 1, "nodes": ["a"], "value": 0.6}
    row.search = SimpleNamespace(is_enough=False, max_trials=1, **search)
    told = " ".join(reasons.sentences(of(row), row, {}, None))
    assert "in 1 trial among 1 quantized node (" in told
    assert "with 1 node excluded, the most tried" in told
    exclusion = {"pattern": "a", "nodes": ["a"], "would_be_quantized": ["a"], "instances": 1, "remark": ""}
    assert reasons.of_exclusion(exclusion).startswith("`a` matched 1 node in 1 place: ")


def test_the_way_out_depends_on_the_level():
    """Static pairs at level 0 or 1 want another level; where the runtime joins nothing at any, there is none."""
    low, high = made([PAIRS, FLOAT_MATMUL], level=1), made([PAIRS, FLOAT_MATMUL], level=99)
    assert "Take 2 or 99" in " ".join(reasons.sentences(of(low), low, {}, None))
    assert "Take" not in " ".join(reasons.sentences(of(high), high, {}, None))
    first, second = reasons.notes(of(low, high, low))
    assert first.startswith("rows 0, 0 are quantized statically and computed in float32: at an `optimization_level`")
    assert second.startswith("row 0 is quantized and computed in float32: here ONNX Runtime joins none")


def test_runs_without_kernels_are_told_from_the_level():
    """Of a run of an earlier version it is known at which level it ran, and no more; other frameworks say nothing."""
    assert rows_.computes_in_float(made(level=1))
    assert not rows_.computes_in_float(made(level=2))
    assert not rows_.computes_in_float(made(level=1, framework="other"))
    old = made(level=1)
    assert not rows_.saturation_risk(of(old, saturates=True), old)
    assert "Take 2 or 99" in " ".join(reasons.sentences(of(old), old, {}, None))


def test_operators_that_gain_nothing_are_told():
    """An operator none of whose nodes computes in 8 bits is named, where it runs in float; not one that was moved or
    joined with another.
    """
    kernels = [INTEGER, ("Add", "float", 5, 0.1), ("Reshape", "other", 5, 0.01), PAIRS]
    given = {"operators": (("Add", 5), ("MatMul", 3), ("Reshape", 5), ("Gelu", 1)), "activations_dtype": "uint8"}
    listed, unlisted = made(kernels, operators_to_quantize=["Add", "MatMul"], **given), made(kernels, **given)
    start = "No `Add` computes in 8 bits here, but in float32 between conversions; "
    for row, advice in (
        (listed, "leave it out of `operators_to_quantize`."),
        (unlisted, "keep its nodes out by `node_exclusion`, or name the other operators in `operators_to_quantize`."),
    ):
        told = [each for each in reasons.sentences(of(row), row, {}, None) if "`Add`" in each and "Of a" not in each]
        assert told == [start + advice]
    alone = made([FLOAT_MATMUL, PAIRS], level=99, activations_dtype="uint8")
    assert any("conversions." in each for each in reasons.sentences(of(alone), alone, {}, None))


def test_int8_activations_are_told_where_they_keep_nodes_in_float():
    """With int8 activations fewer nodes are joined: the way out is uint8, and not to leave operators out, but for those
    that are joined with neither.
    """
    kernels = [
        ("QLinearConv", "8 bits", 3, 0.4),
        ("NhwcFusedConv", "float", 3, 0.1),
        ("Add", "float", 2, 0.1),
        ("QGemm", "8 bits", 2, 0.1),
        ("MatMul", "float", 1, 0.1),
        ("LayerNormalization", "float", 4, 0.1),
        ("QLinearMul", "8 bits", 2, 0.1),
        ("Mul", "float", 1, 0.1),
        PAIRS,
    ]
    operators = (("Add", 2), ("Conv", 6), ("Gemm", 1), ("LayerNormalization", 4), ("MatMul", 2), ("Mul", 2))
    start = "Here 0 of 2 `Add`, 3 of 6 `Conv` and 2 of 3 `Gemm` or `MatMul` compute in 8 bits, the others in float32"

    def told(**given):
        row = made(kernels, operators=operators, **given)
        return [each for each in reasons.sentences(of(row), row, {}, None) if each.startswith(("Here", "No `"))]

    first, second = told()
    assert first.startswith(start)
    assert "try `activations_dtype: uint8`" in first
    assert second.startswith("No `LayerNormalization` computes")
    assert told(activations_dtype="int8") == [first, second]
    for given in (
        {"activations_dtype": "uint8"},
        {"quant_format": "QOperator"},
        {"quantization_approach": "dynamic"},
        {"framework": "other"},
    ):
        assert [each.split(" computes")[0] for each in told(**given)] == ["No `Add`", "No `LayerNormalization`"]
    nothing = made([("Add", "float", 2, 0.5), PAIRS], operators=(("Add", 2),), level=99)
    assert any("conversions; try `act" in each for each in reasons.sentences(of(nothing), nothing, {}, None))
    norms = made([("LayerNormalization", "float", 2, 0.5), PAIRS], operators=(("LayerNormalization", 2),), level=99)
    assert any("between conversions." in each for each in reasons.sentences(of(norms), norms, {}, None))


def test_the_time_of_a_call_is_told_by_parts_and_by_kernels():
    """Parts in the order of what was hoped for, kernels by what they take; also of a row that is not quantized."""
    row = made([INTEGER, PAIRS, SOFTMAX, ("Gelu", "float", 2, 0.125)])
    told = [each for each in reasons.sentences(of(row), row, {}, None) if each.startswith("Of a call")]
    assert told == [
        "Of a call's time go 50 % to what computes in 8 bits, 25 % to conversions and 25 % to what computes in "
        "floating point; by kernels 50 % to 3 `MatMulIntegerToFloat`, 25 % to 7 `DequantizeLinear` and 12 % to 2 "
        "`Softmax`."
    ]
    plain = made([FLOAT_MATMUL])
    plain.configuration.quantized = False
    assert list(reasons.sentences(of(plain), plain, {}, None)) == [
        "It is not quantized.",
        "Of a call's time go 25 % to what computes in floating point; by kernels 25 % to 2 `FusedMatMul`.",
    ]


def test_a_graph_that_came_quantized_is_not_called_unquantized():
    """Nothing was asked to be quantized, and yet it computes in 8 bits."""
    given = made([INTEGER, PAIRS])
    given.configuration.quantized = False
    assert next(reasons.sentences(of(given), given, {}, None)) == "Its graph came quantized, and is run as it is."


def test_what_computes_nothing_or_was_joined_is_not_blamed():
    """A table in 8 bits that is looked up computes in nothing; a `Relu` that was joined with its `Conv` is not the one
    that stays in float32.
    """
    table = made([FLOAT_MATMUL, PAIRS, ("Gather", "other", 1, 0.1)], operators=(("Gather", 1),))
    assert not rows_.computes_in_float(table)
    kernels = [("QLinearConv", "8 bits", 3, 0.5), ("Relu", "float", 1, 0.1)]
    joined = made(kernels, operators=(("Conv", 3), ("Relu", 2)))
    assert not [each for each in reasons.sentences(of(joined), joined, {}, None) if each.startswith(("No `", "None"))]


@pytest.mark.parametrize(
    ("given", "found", "patterns", "told"),
    [
        (None, None, [], 'To keep them in float32: node_exclusion: ["a/Add", "b/Add"].'),
        ([], None, ["norm"], ': node_exclusion: ["a/Add", "b/Add"], or the pattern `norm`, which holds the first.'),
        (["gelu", "b/Add"], None, [], 'already: node_exclusion: ["gelu", "b/Add", "a/Add"].'),
        (["gelu"], None, ["norm"], '["gelu", "a/Add", "b/Add"], or the pattern `norm` in place of `a/Add`.'),
        ("auto", ("c/Add",), [], 'already: node_exclusion: ["c/Add", "a/Add", "b/Add"].'),
    ],
)
def test_the_list_to_paste_keeps_what_the_row_excludes(given, found, patterns, told):
    """A list that is pasted takes the place of the row's own, or of what was found for it, and so holds both."""
    row = made(node_exclusion=given)
    loss = Loss(max_abs_difference=1.0, snr_db=5.0, is_finite=True)
    layers = [SimpleNamespace(node=name, effect=loss) for name in ("a/Add", "b/Add")]
    values = SimpleNamespace(outputs=loss, layers=layers, is_complete=True, trials=2, patterns=patterns)
    row.outcomes.explain = SimpleNamespace(values=values)
    if found is not None:
        trials, figures = [SimpleNamespace(value=0.9, is_enough=True)], {"metric": "accuracy", "baseline": 0.9}
        row.search = SimpleNamespace(nodes=found, trials=trials, **figures)
    assert list(reasons.sentences(of(row), row, {}, None))[-1].endswith(told)
