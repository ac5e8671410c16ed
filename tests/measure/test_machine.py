"""The description of this machine: its int8 instructions, and its form in `run.json`."""

from __future__ import annotations

import msgspec
import pytest

from benchcard.measure import machine
from benchcard.measure.machine import Int8, Machine
from benchcard.utils.plain import as_plain

AVX2 = ("sse4_1", "avx", "avx2")
AVX512 = (*AVX2, "avx512f", "avx512bw")


@pytest.mark.parametrize(
    ("flags", "architecture", "best", "saturates", "words"),
    [
        (AVX2, "x86_64", "avx2", True, "no dot-product instruction, at best AVX2: "),
        (AVX512, "x86_64", "avx512bw", True, "no dot-product instruction, at best AVX512 without VNNI: "),
        ((*AVX512, "avx512_vnni"), "x86_64", "avx512_vnni", False, "multiplied with AVX512-VNNI, "),
        ((*AVX2, "avx_vnni"), "AMD64", "avx_vnni", False, "multiplied with AVX-VNNI, "),
        ((*AVX512, "avx512_vnni", "amx_int8"), "x86_64", "amx_int8", False, "multiplied with AMX and AVX512-VNNI, "),
        (("asimddp",), "aarch64", "asimddp", False, "multiplied with the NEON dot product, "),
        ((), "aarch64", "none known", False, "no dot-product instruction: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_products_saturate_on_x86_without_dot_products(flags, architecture, best, saturates, words):
    """AVX2 and AVX512 without VNNI limit sums of u8 x s8 products to 16 bits; VNNI, AVX-VNNI, AMX and ARM do not."""
    int8 = machine.int8_support(flags, architecture)
    assert (int8.best, int8.u8s8_saturates) == (best, saturates)
    assert int8.advice.startswith(words)
    assert ("can saturate here" in int8.advice) == ("`reduce_range: true`" in int8.advice) == saturates


def test_the_machine_names_its_int8_instructions():
    """The description has the instructions, those for int8 among them, and whether they saturate."""
    here = machine.this_machine()
    assert here.int8 == machine.int8_support(here.instructions, here.architecture)
    assert set(here.instructions) <= set(machine.INT8_FLAGS)


def test_a_machine_is_the_same_after_writing_and_reading():
    """`run.json` keeps all fields, under the names that older versions used."""
    here = machine.this_machine()
    values = as_plain(here)
    assert list(values) == [
        *("processor", "architecture", "instructions", "int8", "physical_cores", "usable_cores", "memory_bytes"),
        *("system", "python"),
    ]
    assert list(values["int8"]) == ["best", "dot_product", "u8s8_saturates"]
    assert msgspec.convert(values, Machine) == here


def test_a_machine_can_be_read_without_optional_fields():
    """A `run.json` may lack fields; a value of the wrong type is an error."""
    assert msgspec.convert({"int8": {"u8s8_saturates": None}}, Machine) == Machine(int8=Int8())
    with pytest.raises(msgspec.ValidationError, match=r"physical_cores"):
        msgspec.convert({"physical_cores": "many"}, Machine)


def test_all_usable_cores_count_where_physical_ones_are_unknown(monkeypatch):
    """Some systems do not report physical cores."""
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: None)
    assert machine.physical_cores() == machine.usable_cores()
