"""The processor of this machine: its name, and the instructions with which it computes int8 products."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass

# Instructions on which the speed, and the results, of int8 products depend.
INT8_FLAGS = (
    "sse4_1",
    "avx",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "amx_int8",
    "asimddp",
    "i8mm",
    "sve",
)
_FLAG_TITLES = {
    "sse4_1": "SSE4.1",
    "avx": "AVX",
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512bw": "AVX512 without VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX",
    "asimddp": "the NEON dot product",
    "i8mm": "the NEON matrix product (i8mm)",
}
_DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm")
_WITHOUT_DOT_PRODUCTS = ("avx512bw", "avx2", "avx", "sse4_1")
# Names that operating systems use for the same instructions.
_FLAG_SYNONYMS = {
    "avx512vnni": "avx512_vnni",
    "avxvnni": "avx_vnni",
    "amx-int8": "amx_int8",
    "dotprod": "asimddp",
}


@dataclass(frozen=True)
class Int8:
    """How a processor computes int8 products.

    Attributes:
        best: The fastest instruction for them.
        dot_product: The dot-product instructions.
        u8s8_saturates: Whether sums of products of u8 and s8 can saturate.
    """

    best: str = ""
    dot_product: tuple[str, ...] = ()
    u8s8_saturates: bool | None = None

    @property
    def advice(self) -> str:
        """The instructions, whether they saturate, and which quantization to choose, in sentences."""
        if self.dot_product:
            names = " and ".join(_FLAG_TITLES[name] for name in self.dot_product)
            return (
                f"multiplied with {names}, with sums of 32 bits: products of u8 and s8 cannot saturate here, "
                "and `reduce_range` is not needed"
            )
        best = f", at best {_FLAG_TITLES[self.best]}" if self.best in _FLAG_TITLES else ""
        if self.u8s8_saturates:
            return (
                f"no dot-product instruction{best}: sums of two products of u8 and s8 are limited to 16 bits, so they "
                "can saturate here. Rows with 8-bit weights can lose accuracy: set `reduce_range: true`, or evaluate "
                "them on a processor with VNNI"
            )
        return (
            f"no dot-product instruction{best}: int8 models run, but slowly; products of u8 and s8 do not saturate on "
            "this architecture"
        )


def int8_support(flags: tuple[str, ...], architecture: str) -> Int8:
    """Return how a processor with these instructions computes int8 products.

    Without a dot-product instruction x86 multiplies u8 by s8 with `vpmaddubsw`, which limits the sum of two products to
    16 bits: 255 * 127 * 2 does not fit. With weights of 7 bits (`reduce_range`) the sum always fits.

    Source: Intel 64 and IA-32 Architectures Software Developer's Manual, VPMADDUBSW and VPDPBUSD; onnxruntime
    documentation, "Quantize ONNX models", on reduce_range.
    """
    dot_products = tuple(name for name in _DOT_PRODUCTS if name in flags)
    best = next((name for name in _DOT_PRODUCTS + _WITHOUT_DOT_PRODUCTS if name in flags), "none known")
    is_x86 = architecture.lower() in ("x86_64", "amd64", "i386", "i686")
    return Int8(best, dot_products, is_x86 and not dot_products)


@functools.cache
def read_processor() -> tuple[str, tuple[str, ...]]:
    """Return the processor's name and those of `INT8_FLAGS` that it has.

    They come from /proc/cpuinfo where possible, because py-cpuinfo takes a second.
    """
    name, flags = "", []
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in lines.items()}
        name = fields.get("model name", "")
        flags = (fields.get("flags") or fields.get("Features") or "").split()
    except OSError:
        pass
    if not name:
        import cpuinfo

        info = cpuinfo.get_cpu_info()
        name, flags = info.get("brand_raw", platform.processor() or "unknown"), flags or info.get("flags", [])
    known = {_FLAG_SYNONYMS.get(flag, flag) for flag in flags}
    return name, tuple(flag for flag in INT8_FLAGS if flag in known)
