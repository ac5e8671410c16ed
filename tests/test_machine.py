"""What is said of this machine: int8 instructions, and which rows can saturate on it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from benchcard import machine, reasons

AVX2 = ["sse4_1", "avx", "avx2"]
AVX512 = [*AVX2, "avx512f", "avx512bw"]


@pytest.mark.parametrize(
    ("flags", "architecture", "best", "saturates", "words"),
    [
        (AVX2, "x86_64", "avx2", True, "no dot-product instruction, at best AVX2: "),
        (AVX512, "x86_64", "avx512bw", True, "no dot-product instruction, at best AVX512 without VNNI: "),
        ([*AVX512, "avx512_vnni"], "x86_64", "avx512_vnni", False, "multiplied with AVX512-VNNI, "),
        ([*AVX2, "avx_vnni"], "AMD64", "avx_vnni", False, "multiplied with AVX-VNNI, "),
        ([*AVX512, "avx512_vnni", "amx_int8"], "x86_64", "amx_int8", False, "multiplied with AMX and AVX512-VNNI, "),
        (["asimddp"], "aarch64", "asimddp", False, "multiplied with the NEON dot product, "),
        ([], "aarch64", "none known", False, "no dot-product instruction: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_products_saturate_on_x86_without_dot_products(flags, architecture, best, saturates, words):
    """AVX2 and AVX512 without VNNI cut sums of u8 x s8 products to 16 bits; VNNI, AVX-VNNI, AMX and ARM do not."""
    told = machine.int8(flags, architecture)
    assert (told["best"], told["u8s8_saturates"]) == (best, saturates)
    said = machine.int8_in_words(told)
    assert said.startswith(words)
    assert ("can saturate here" in said) == ("`reduce_range: true`" in said) == saturates


def test_the_machine_says_what_it_computes_int8_with():
    """What is kept in a run's record names the instructions, those of int8 among them, and whether they saturate."""
    here = machine.describe()
    assert here["int8"] == machine.int8(here["instructions"], here["architecture"])
    assert set(here["instructions"]) <= set(machine.INT8_FLAGS)


@dataclasses.dataclass
class Row:
    """A record with what the question is asked of."""

    configuration: dict
    outcomes: dict


@pytest.mark.parametrize(
    ("weights", "operator", "level", "reduce_range", "dtype", "saturates", "risk"),
    [
        (3, "MatMul", None, False, None, True, True),
        (3, "Conv", 2, False, "int8", True, True),
        (3, "Add", 2, False, "int8", True, False),
        (3, "MatMul", 1, False, "int8", True, False),
        (3, "MatMul", 99, True, None, True, False),
        (3, "MatMul", 99, False, "uint8", True, False),
        (0, "MatMul", 99, False, None, True, False),
        (3, "MatMul", 99, False, None, False, False),
    ],
)
def test_rows_with_signed_weights_of_eight_bits_are_at_risk(
    weights, operator, level, reduce_range, dtype, saturates, risk
):
    """At risk are rows whose weights are s8 of 8 bits and are multiplied in 8 bits, on a machine that saturates; u8 x
    u8 products are widened.
    """
    records = SimpleNamespace(about={"machine": {"int8": {"u8s8_saturates": saturates}}})
    row = {"reduce_range": reduce_range, "weights_dtype": dtype, **STATIC, "framework_args": {}}
    if level is not None:
        row["framework_args"]["optimization_level"] = level
    operators = [{"operator": operator, "quantized": 3}, {"operator": "Conv", "quantized": 0}]
    assert reasons.saturation_risk(records, made(row, weights, operators)) is risk
    assert reasons.saturation_risk(records, Row({"reduce_range": None, "weights_dtype": None}, {})) is False


STATIC = {"framework": "onnxruntime", "quantization_approach": "static", "quant_format": None}


def made(row, weights=3, operators=(), is_float_model=False):
    """A record of a quantized model."""
    report = {"weights_quantized": weights, "operators": operators, "is_float_model": is_float_model}
    return Row(row, {"quantize": SimpleNamespace(values={"report": report})})


@pytest.mark.parametrize(
    ("change", "level", "is_float"),
    [
        ({}, 1, True),
        ({}, 0, True),
        ({}, 2, False),
        ({}, None, False),
        ({"quant_format": "QOperator"}, 1, False),
        ({"quantization_approach": "dynamic"}, 1, False),
        ({"framework": "pytorch"}, 1, False),
    ],
)
def test_rows_that_are_computed_in_float_are_told(change, level, is_float):
    """Below level 2 static graphs of the format QDQ are; where nothing was quantized, nobody would expect otherwise."""
    row = {**STATIC, **change, "framework_args": {} if level is None else {"optimization_level": level}}
    assert reasons.computes_in_float(made(row)) is is_float
    assert not reasons.computes_in_float(made(row, is_float_model=True))
    assert not reasons.computes_in_float(Row(row, {}))
