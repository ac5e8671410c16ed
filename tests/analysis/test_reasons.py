"""Reasons in sentences, from the outcomes of a row's steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchcard.analysis import reasons, row_facts
from benchcard.frameworks.kernels import Kernel
from benchcard.measure.machine import Machine
from benchcard.quantization.outcomes import Exclusion, Loss, OperatorCount
from benchcard.run.failures import Failures
from benchcard.run.record import Outcomes
from benchcard.steps.evaluate import CompareRequest, EvaluateOutcome
from benchcard.steps.step import Outcome
from benchcard.utils.processor import Int8

STATIC = {"framework": "onnxruntime", "quantization_approach": "static", "quant_format": None}
INTEGER = ("MatMulIntegerToFloat", "8 bits", 3, 0.5)
SOFTMAX = ("Softmax", "float", 2, 0.125)
FLOAT_MATMUL = ("FusedMatMul", "float", 2, 0.25)
PAIRS = ("DequantizeLinear", "conversion", 7, 0.25)


@dataclasses.dataclass
class Configuration:
    """The parameters of a row."""

    given: dict
    row: int = 0
    quantized: bool = True
    baseline: int | None = None
    threads: int | None = None

    def __getitem__(self, name):
        return self.given.get(name)


@dataclasses.dataclass
class Row:
    """A record with the fields that reasons read."""

    configuration: Configuration
    outcomes: Outcomes
    digest: str | None = "1234"
    failures: Failures = dataclasses.field(default_factory=Failures)
    search: None = None
    quantized: bool = False


def made(kernels=(), level=None, operators=(("MatMul", 3),), weights=3, is_float_model=False, **given):
    """Return a record of a quantized model that was run."""
    arguments = {} if level is None else {"optimization_level": level}
    report = SimpleNamespace(
        nodes_quantized=sum(count for _, count in operators),
        nodes_eligible=9,
        weights_quantized=weights,
        operators=tuple(OperatorCount(name, count, 0, count) for name, count in operators),
        is_float_model=is_float_model,
        notes=(),
    )
    evaluated = EvaluateOutcome(elapsed_ns=1, kernels=tuple(Kernel(*kernel) for kernel in kernels))
    quantized = SimpleNamespace(report=report, size_bytes=1_000_000, exclusions=())
    return Row(
        Configuration({**STATIC, "framework_args": arguments, **given}),
        Outcomes(quantize=outcome(quantized), evaluate=outcome(evaluated)),
    )


def outcome(values):
    """Return the outcome of a step with these values."""
    return Outcome("step", "key", Path(), values)


@pytest.mark.parametrize(
    ("others", "count"),
    [([(None, ())], 1), ([(None, ("1 text was cut to 8 tokens",))], 0), ([(8, ())], 0), ([(None, ()), (4, ("4",))], 2)],
)
def test_a_graph_of_one_length_beside_rows_that_are_cut_otherwise_is_noted(others, count):
    """There is no note where all texts were cut alike, or none was."""
    rows = []
    for number, (length, notes) in enumerate([(8, ("1 text was cut to 8 tokens",)), *others]):
        row = made()
        row.configuration.row = number
        row.outcomes.prepare = outcome(SimpleNamespace(notes=notes))
        row.outcomes.export = outcome(SimpleNamespace(report=SimpleNamespace(input_length=length)))
        rows.append(row)
    notes = reasons.run_notes(of(*rows))
    assert len(notes) == count
    assert all(note.startswith("row 0 has texts of at most 8 tokens") for note in notes[:1])


def of(*rows, saturates=False):
    """Return the records of a run, on a machine where products may saturate."""
    info = SimpleNamespace(machine=Machine(int8=Int8(u8s8_saturates=saturates)), default_threads=1)
    return SimpleNamespace(records=list(rows), info=info, info_of=lambda record: info)


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
    """Rows are at risk if their signed 8-bit weights are multiplied in 8 bits, or may be, on a machine that saturates.
    Products of u8 and u8 are widened.
    """
    row = made(kernels, operators=((operator, 3), ("Relu", 0)), reduce_range=reduce_range, weights_dtype=dtype)
    assert row_facts.saturation_risk(of(row, saturates=saturates), row) is risk
    without = made(kernels, operators=((operator, 3),), weights=0)
    assert not row_facts.saturation_risk(of(without, saturates=saturates), without)


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
    """A quantized row with kernels, none of which computes in 8 bits, is noted; a row in which nothing was quantized is
    not.
    """
    row = made(kernels, is_float_model=is_float_model)
    assert row_facts.computes_in_float(row) is is_float
    assert len(reasons.run_notes(of(row))) == is_float
    told = " ".join(reasons.explain_row(of(row), row, {}, None))
    assert ("None of them computes in 8 bits" in told) is is_float


def test_rows_whose_outputs_depend_on_their_batch_are_named():
    """A note names the rows and what their outputs depend on; rows with correct padded batches have none."""
    rows = [made([INTEGER]) for _ in range(5)]
    for number, batches in enumerate(("padded", "equal shapes", None, "equal shapes", "alone")):
        rows[number].configuration.row = number
        rows[number].outcomes.evaluate = outcome(EvaluateOutcome(elapsed_ns=1, batches=batches))
    rows[4].configuration.given |= {"framework_args": {"file_name": "onnx/model_int8.onnx"}}
    first, second = reasons.run_notes(of(*rows))
    assert first.startswith("the outputs of rows 1, 3 depend on padding: ")
    assert second.startswith("the outputs of row 4 (onnx/model_int8.onnx) depend on what else is in a batch, ")
    told = [next(reasons.explain_row(of(row), row, {}, None)) for row in rows]
    assert [each.startswith("Its outputs depend on") for each in told] == [False, True, False, True, True]


def test_a_run_of_an_earlier_version_is_noted():
    """A comparison without any record of fidelity is of an earlier version; one of a task without fidelity is not."""
    row = made([INTEGER])
    row.outcomes.compare = outcome(CompareRequest.read_values({"figures": {}, "fidelity": {}}))
    assert reasons.run_notes(of(row)) == []
    row.outcomes.compare = outcome(CompareRequest.read_values({"figures": {}}))
    (note,) = reasons.run_notes(of(row))
    assert note.startswith("an earlier version of benchcard made this run, without fidelity, recovery")
    assert note.endswith("run the spec again in a new folder")


def test_one_is_not_told_as_many():
    """A single node, place, trial or layer has the singular form."""
    row = made(operators=(("MatMul", 1),))
    assert "1 of 9 nodes that could be was quantized" in " ".join(reasons.explain_row(of(row), row, {}, None))
    assert "3 of 9 nodes that could be were quantized" in " ".join(reasons.explain_row(of(made()), made(), {}, None))
    trial = SimpleNamespace(value=0.5, is_enough=False)
    search = {"metric": "accuracy", "baseline": 0.9, "trials": [trial], "candidates": 1, "nodes": ["a"], "value": 0.6}
    row.search = SimpleNamespace(is_enough=False, max_trials=1, **search)
    told = " ".join(reasons.explain_row(of(row), row, {}, None))
    assert "in 1 trial among 1 quantized node (" in told
    assert "with 1 node excluded, the most tried" in told
    assert reasons.describe_exclusion(Exclusion("a", 1, ("a",), ("a",))).startswith("`a` matched 1 node in 1 place: ")


def test_the_way_out_depends_on_the_level():
    """Static rows at level 0 or 1 are advised to use another level; where the runtime fuses nothing at any level, they
    are not.
    """
    low, high = made([PAIRS, FLOAT_MATMUL], level=1), made([PAIRS, FLOAT_MATMUL], level=99)
    assert "Use 2 or 99" in " ".join(reasons.explain_row(of(low), low, {}, None))
    assert "Use 2" not in " ".join(reasons.explain_row(of(high), high, {}, None))
    first, second = reasons.run_notes(of(low, high, low))
    assert first.startswith("rows 0, 0 are quantized statically and computed in float32: at an `optimization_level`")
    assert second.startswith("row 0 is quantized and computed in float32: here ONNX Runtime fuses none")


def test_runs_without_kernels_are_told_from_the_level():
    """In runs of earlier versions only the level is known, for ONNX Runtime alone."""
    assert row_facts.computes_in_float(made(level=1))
    assert not row_facts.computes_in_float(made(level=2))
    assert not row_facts.computes_in_float(made(level=1, framework="other"))
    old = made(level=1)
    assert not row_facts.saturation_risk(of(old, saturates=True), old)
    assert "Use 2 or 99" in " ".join(reasons.explain_row(of(old), old, {}, None))


def test_operators_that_gain_nothing_are_told():
    """An operator is named if it runs in float32 and none of its nodes computes in 8 bits; moved and fused ones are
    not.
    """
    kernels = [INTEGER, ("Add", "float", 5, 0.1), ("Reshape", "other", 5, 0.01), PAIRS]
    given = {"operators": (("Add", 5), ("MatMul", 3), ("Reshape", 5), ("Gelu", 1)), "activations_dtype": "uint8"}
    listed, unlisted = made(kernels, operators_to_quantize=["Add", "MatMul"], **given), made(kernels, **given)
    start = "No `Add` computes in 8 bits here, but in float32 between conversions; "
    for row, advice in (
        (listed, "remove it from `operators_to_quantize`."),
        (unlisted, "exclude its nodes by `node_exclusion`, or name the other operators in `operators_to_quantize`."),
    ):
        told = [each for each in reasons.explain_row(of(row), row, {}, None) if each.startswith("No `Add`")]
        assert told == [start + advice]
    alone = made([FLOAT_MATMUL, PAIRS], level=99, activations_dtype="uint8")
    assert any("conversions." in each for each in reasons.explain_row(of(alone), alone, {}, None))


def test_int8_activations_are_told_where_they_keep_nodes_in_float():
    """With int8 activations fewer nodes are fused, so the advice is uint8; operators that are fused with neither are
    named.
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
        return [each for each in reasons.explain_row(of(row), row, {}, None) if each.startswith(("Here", "No `"))]

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
    assert any("conversions; try `act" in each for each in reasons.explain_row(of(nothing), nothing, {}, None))
    norms = made([("LayerNormalization", "float", 2, 0.5), PAIRS], operators=(("LayerNormalization", 2),), level=99)
    assert any("between conversions." in each for each in reasons.explain_row(of(norms), norms, {}, None))


def test_the_time_of_a_call_is_told_by_parts_and_by_kernels():
    """The time of a call is listed by the numbers that kernels compute in and by kernel, also for a row that is not
    quantized.
    """
    row = made([INTEGER, PAIRS, SOFTMAX, ("Gelu", "float", 2, 0.125)])
    told = [each for each in reasons.explain_row(of(row), row, {}, None) if each.startswith("Time of a call")]
    assert told == [
        "Time of a call: 50 % in 8-bit kernels, 25 % in conversions and 25 % in floating-point kernels. By kernel: "
        "50 % in 3 `MatMulIntegerToFloat`, 25 % in 7 `DequantizeLinear` and 12 % in 2 `Softmax`."
    ]
    plain = made([FLOAT_MATMUL])
    plain.configuration.quantized = False
    assert list(reasons.explain_row(of(plain), plain, {}, None)) == [
        "It is not quantized.",
        "Time of a call: 25 % in floating-point kernels. By kernel: 25 % in 2 `FusedMatMul`.",
    ]


def test_a_graph_that_came_quantized_is_not_called_unquantized():
    """A graph that was already quantized is not called unquantized."""
    given = made([INTEGER, PAIRS])
    given.configuration.quantized = False
    assert (
        next(reasons.explain_row(of(given), given, {}, None))
        == "Its graph was already quantized, and is run unchanged."
    )
    for kernel, is_quantized in ((INTEGER, True), (PAIRS, True), (("MatMulNBits", "float", 1, 0.5), True)):
        assert row_facts.is_quantized(made([FLOAT_MATMUL, kernel])) == is_quantized
    converted = made([FLOAT_MATMUL, SOFTMAX])
    stored = (({"float32": 9}, False), ({"float16": 9, "plain": 9}, False), ({"float32": 1, "int8": 9}, True))
    for kinds, is_quantized in stored:
        converted.outcomes.convert = outcome(SimpleNamespace(kinds=kinds))
        assert row_facts.is_quantized(converted) == is_quantized


def test_a_float_graph_with_some_numbers_of_8_bits_is_not_called_quantized():
    """Images in uint8 that are resized and scaled, and a causal mask that is stored in uint8."""
    row = made([FLOAT_MATMUL, ("Resize", "8 bits", 1, 0.1), ("Equal", "8 bits", 1, 0.1), ("Mul", "8 bits", 1, 0.1)])
    assert not row_facts.is_quantized(row)
    row.outcomes.convert = outcome(SimpleNamespace(kinds={"float32": 124_000_000, "uint8": 1_000_000}))
    assert not row_facts.is_quantized(row)


def test_a_quantized_baseline_is_noted():
    """There is no note where a float row is the baseline, nor where there is one row."""
    rows = [made([kernel]) for kernel in (INTEGER, FLOAT_MATMUL)]
    for number, row in enumerate(rows):
        row.configuration.row, row.configuration.quantized = number, False
    for baseline, count in ((0, 1), (1, 0), (None, 0)):
        for row in rows:
            row.configuration.baseline = baseline
        notes = [note for note in reasons.run_notes(of(*rows)) if "are compared with it" in note]
        assert len(notes) == count
        assert all(note.startswith("row 0 is quantized, and others") for note in notes)
    rows[0].configuration.baseline = 0
    assert not reasons.run_notes(of(rows[0]))


def test_no_other_row_is_said_to_be_compared_with_a_baseline_of_its_own():
    """Each of two models has one row, which is quantized, and nothing is compared with it."""
    rows = [made([INTEGER]), made([INTEGER])]
    for number, row in enumerate(rows):
        row.configuration.row = row.configuration.baseline = number
    assert not [note for note in reasons.run_notes(of(*rows)) if "are compared with" in note]


def test_what_computes_nothing_or_was_joined_is_not_blamed():
    """A quantized table that is looked up computes nothing, and a `Relu` that was fused with its `Conv` does not stay
    in float32.
    """
    table = made([FLOAT_MATMUL, PAIRS, ("Gather", "other", 1, 0.1)], operators=(("Gather", 1),))
    assert not row_facts.computes_in_float(table)
    kernels = [("QLinearConv", "8 bits", 3, 0.5), ("Relu", "float", 1, 0.1)]
    joined = made(kernels, operators=(("Conv", 3), ("Relu", 2)))
    assert not [each for each in reasons.explain_row(of(joined), joined, {}, None) if each.startswith(("No `", "None"))]


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
    """The list to paste has the nodes that the row excludes already, since it replaces the row's list."""
    row = made(node_exclusion=given)
    effect = Loss(1.0, 5.0, True)
    layers = [SimpleNamespace(node=name, effect=effect) for name in ("a/Add", "b/Add")]
    losses = SimpleNamespace(outputs=effect, layers=layers, is_complete=True, trials=2, patterns=patterns)
    row.outcomes.explain = outcome(losses)
    if found is not None:
        trials, figures = [SimpleNamespace(value=0.9, is_enough=True)], {"metric": "accuracy", "baseline": 0.9}
        row.search = SimpleNamespace(nodes=found, trials=trials, **figures)
    assert list(reasons.explain_row(of(row), row, {}, None))[-1].endswith(told)
