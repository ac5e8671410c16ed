"""What this machine and this environment are, as far as numbers depend on them."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from benchcard.utils.plain import digest

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
_WORDS = {
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
LIBRARIES = (
    "benchcard",
    "torch",
    "transformers",
    "optimum",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "datasets",
    "evaluate",
    "scikit-learn",
    "numpy",
    "pandas",
    "huggingface_hub",
)


def describe() -> dict[str, Any]:
    """The machine: processor, instructions for int8, cores, memory, system."""
    import psutil

    cpu = _cpu()
    return {
        "processor": cpu["name"],
        "architecture": platform.machine(),
        "instructions": cpu["flags"],
        "int8": int8(cpu["flags"], platform.machine()),
        "physical_cores": physical_cores(),
        "usable_cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def fingerprint(machine: Mapping[str, Any]) -> str:
    """A digest that is equal for machines on which numbers may be put together."""
    return digest(
        {
            name: machine[name]
            for name in ("processor", "architecture", "instructions", "physical_cores", "usable_cores")
        }
    )


def versions() -> dict[str, str]:
    """The versions of the libraries that numbers depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def physical_cores() -> int:
    """Physical cores that this process may use: the number of threads that a runtime would choose."""
    import psutil

    return max(1, min(psutil.cpu_count(logical=False) or 1, usable_cores()))


def int8(flags: list[str], architecture: str) -> dict[str, Any]:
    """What int8 products are made with here, and whether those of u8 and s8 can saturate.

    Without a dot-product instruction x86 multiplies u8 by s8 with `vpmaddubsw`, whose sums of two products are cut to
    16 bits: 255 * 127 * 2 does not fit. Weights of 7 bits (`reduce_range`) always do.

    Source: Intel 64 and IA-32 Architectures Software Developer's Manual, VPMADDUBSW and VPDPBUSD; onnxruntime
    documentation, "Quantize ONNX models", on reduce_range.
    """
    dot = [name for name in ("amx_int8", "avx512_vnni", "avx_vnni", "asimddp", "i8mm") if name in flags]
    x86 = architecture.lower() in ("x86_64", "amd64", "i386", "i686")
    best = (
        dot[0] if dot else next((name for name in ("avx512bw", "avx2", "avx", "sse4_1") if name in flags), "none known")
    )
    return {"best": best, "dot_product": dot, "u8s8_saturates": x86 and not dot}


def int8_in_words(told: Mapping[str, Any]) -> str:
    """What `int8` says, in sentences for whoever chooses a quantization: instructions, saturation, what to do."""
    dot = [_WORDS[name] for name in told["dot_product"]]
    if dot:
        return (
            f"multiplied with {' and '.join(dot)}, with sums of 32 bits: products of u8 and s8 cannot saturate here, "
            "and `reduce_range` is not needed"
        )
    best = "no dot-product instruction" + (f", at best {_WORDS[told['best']]}" if told["best"] in _WORDS else "")
    if told["u8s8_saturates"]:
        return (
            f"{best}: sums of two products of u8 and s8 are cut to 16 bits, so they can saturate here. Rows with "
            "8-bit weights are at risk of losing accuracy: take `reduce_range: true`, or judge them on a processor "
            "with VNNI"
        )
    return f"{best}: int8 models run, but slowly; products of u8 and s8 do not saturate on this architecture"


@functools.cache
def _cpu() -> dict[str, Any]:
    """Name and flags of the processor; read from the system where it tells, else asked of py-cpuinfo, which takes a
    second.
    """
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
        told = {key.strip(): value.strip() for key, value in lines.items()}
        name = told.get("model name")
        words = (told.get("flags") or told.get("Features") or "").split()
    except OSError:
        name, words = None, []
    if not name:
        import cpuinfo

        info = cpuinfo.get_cpu_info()
        name, words = info.get("brand_raw", platform.processor() or "unknown"), words or info.get("flags", [])
    # Other names that systems have for the same instructions.
    same = {"avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni", "amx-int8": "amx_int8", "dotprod": "asimddp"}
    flags = {same.get(word, word) for word in words}
    return {"name": name, "flags": [flag for flag in INT8_FLAGS if flag in flags]}
