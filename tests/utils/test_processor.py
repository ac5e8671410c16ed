"""What a processor is known to do with int8 products, by its instructions."""

from __future__ import annotations

import pytest

from benchcard.utils.processor import int8_support

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
    int8 = int8_support(flags, architecture)
    assert (int8.best, int8.u8s8_saturates) == (best, saturates)
    assert int8.advice.startswith(words)
    assert ("can saturate here" in int8.advice) == ("`reduce_range: true`" in int8.advice) == saturates
