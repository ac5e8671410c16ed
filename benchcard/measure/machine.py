"""The machine and the installed libraries, as far as figures depend on them.

Owns `Machine`, its form in `run.json`, and which machines may share figures. Leaves the instructions of the processor
to `utils.processor`, the load of the machine to `noise` and its free memory to `memory`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from benchcard.measure.gpu import gpu_names
from benchcard.measure.machine_state import read_machine_state
from benchcard.utils.processor import Int8, int8_support, read_processor

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
class Machine:
    """A machine, as `run.json` keeps it.

    Attributes:
        processor: The name of the processor.
        architecture: The architecture, as `x86_64`.
        instructions: Those of `utils.processor.INT8_FLAGS` that it has.
        int8: How it computes int8 products.
        physical_cores: Physical cores that the process may use.
        usable_cores: Logical cores that the process may use.
        quota_cpus: Processors of whose time the process's cgroup may use at most so much; None for no limit.
        memory_bytes: Memory in all.
        system: The operating system and its release.
        python: The version of Python.
        gpu: The name of the GPU; empty where none is known, as without the extra `cuda`.
        gpu_driver: The version of its driver.
    """

    processor: str = "unknown"
    architecture: str = ""
    instructions: tuple[str, ...] = ()
    int8: Int8 = field(default_factory=Int8)
    physical_cores: int | None = None
    usable_cores: int | None = None
    quota_cpus: float | None = None
    memory_bytes: int | None = None
    system: str = ""
    python: str = ""
    gpu: str = ""
    gpu_driver: str = ""

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """Equal for machines whose figures may be combined."""
        cores = self.physical_cores, self.usable_cores, self.quota_cpus
        return self.processor, self.architecture, self.instructions, *cores, self.gpu

    def __str__(self) -> str:
        quota = "" if self.quota_cpus is None else f", a CPU quota of {self.quota_cpus:g}"
        return f"{self.processor}, {self.usable_cores} cores{quota}"


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    import psutil

    processor, flags = read_processor()
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
        **gpu_names(),
    )


def versions(further: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of the libraries that figures depend on, and of `further` ones, as far as installed."""
    installed = {}
    for name in (*LIBRARIES, *further):
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
