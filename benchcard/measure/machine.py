"""The machine and the installed libraries, as far as figures depend on them.

Owns `Machine`, its form in `run.json`, and which machines may share figures. Leaves the load of the machine to `noise`
and its free memory to `memory`.
"""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchcard.measure.machine_state import read_machine_state

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


@dataclass(frozen=True)
class Machine:
    """A machine, as `run.json` keeps it.

    Attributes:
        processor: The name of the processor.
        architecture: The architecture, as `x86_64`.
        instructions: Those of `INT8_FLAGS` that it has.
        int8: How it computes int8 products.
        physical_cores: Physical cores that the process may use.
        usable_cores: Logical cores that the process may use.
        quota_cpus: Processors of whose time the process's cgroup may use at most so much; None for no limit.
        memory_bytes: Memory in all.
        system: The operating system and its release.
        python: The version of Python.
    """

    processor: str = "unknown"
    architecture: str = ""
    instructions: tuple[str, ...] = ()
    int8: Int8 = Int8()
    physical_cores: int | None = None
    usable_cores: int | None = None
    quota_cpus: float | None = None
    memory_bytes: int | None = None
    system: str = ""
    python: str = ""

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """Equal for machines whose figures may be combined."""
        cores = self.physical_cores, self.usable_cores, self.quota_cpus
        return self.processor, self.architecture, self.instructions, *cores

    def __str__(self) -> str:
        quota = "" if self.quota_cpus is None else f", a CPU quota of {self.quota_cpus:g}"
        return f"{self.processor}, {self.usable_cores} cores{quota}"


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    import psutil

    processor, flags = _processor()
    architecture = platform.machine()
    return Machine(
        processor=processor,
        architecture=architecture,
        instructions=flags,
        int8=int8_support(flags, architecture),
        physical_cores=_physical_cores(),
        usable_cores=usable_cores(),
        quota_cpus=quota_cpus(),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def versions() -> dict[str, str]:
    """Return the versions of the libraries that figures depend on."""
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def usable_cores() -> int:
    """Return how many logical cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def quota_cpus(root: Path = Path("/")) -> float | None:
    """Return how many processors this process's cgroup may use at most; None for no limit. `root` is for tests."""
    return read_machine_state(root=root).quota_cpus


def physical_cores(root: Path = Path("/")) -> int:
    """Return the default number of threads: the physical cores that this process may use, but no more than the whole
    processors of its cgroup's quota.

    More threads than that use up the quota within a period, and all of them stand still until the next one begins.

    Source: the Linux kernel's sched-bwc.rst, "Management" (`cpu.max`, or `cpu.cfs_quota_us` of cgroup v1).
    """
    quota = quota_cpus(root)
    return _physical_cores() if quota is None else max(1, min(_physical_cores(), int(quota)))


def _physical_cores() -> int:
    """Return how many physical cores this process may use; all usable ones where the system does not report them."""
    import psutil

    usable = usable_cores()
    return min(psutil.cpu_count(logical=False) or usable, usable)


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
def _processor() -> tuple[str, tuple[str, ...]]:
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
