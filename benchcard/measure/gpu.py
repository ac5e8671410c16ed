"""The GPU that CUDA uses first, as NVML reports it through nvidia-ml-py, the extra `cuda`; nothing without it.

Owns `GpuState` and the queries of NVML. Leaves to `machine_state` what a state says about a timing.

Source: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

# Bits of the reasons for which clocks are lower than they could be; others are an idle GPU and settings of its owner.
# Source: nvml.h, nvmlClocksEventReason*.
_SLOWDOWNS: Mapping[int, str] = MappingProxyType(
    {0x4: "power limit", 0x8: "hardware slowdown", 0x20: "heat", 0x40: "heat (hardware)", 0x80: "power brake"}
)


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment; a figure is None where NVML does not report it.

    Attributes:
        clock_mhz: Clock of the multiprocessors.
        memory_clock_mhz: Clock of the memory.
        temperature_c: Temperature in degrees Celsius.
        slowdowns: Reasons for which the clocks are lower than they could be, joined by commas; empty for none.
    """

    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    temperature_c: int | None = None
    slowdowns: str | None = None


def uses_gpu(options: Mapping[str, object]) -> bool:
    """Return whether the options of a framework name the GPU as its device."""
    return options.get("device") == "cuda"


def gpu_names() -> dict[str, str]:
    """Return the name of the GPU as `gpu` and the version of its driver as `gpu_driver`; empty without one."""
    if (device := _device()) is None:
        return {"gpu": "", "gpu_driver": ""}
    name, driver = device.ask("nvmlDeviceGetName"), _known(device.nvml, device.nvml.nvmlSystemGetDriverVersion)
    return {"gpu": str(name or ""), "gpu_driver": str(driver or "")}


def gpu_state() -> GpuState | None:
    """Return the state of the GPU now; None without one."""
    if (device := _device()) is None:
        return None
    bits = device.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    return GpuState(
        clock_mhz=device.ask("nvmlDeviceGetClockInfo", device.nvml.NVML_CLOCK_SM),
        memory_clock_mhz=device.ask("nvmlDeviceGetClockInfo", device.nvml.NVML_CLOCK_MEM),
        temperature_c=device.ask("nvmlDeviceGetTemperature", device.nvml.NVML_TEMPERATURE_GPU),
        slowdowns=None if bits is None else ", ".join(name for bit, name in _SLOWDOWNS.items() if bits & bit),
    )


def process_bytes() -> int | None:
    """Return the GPU memory of this process with its CUDA context; None where NVML does not report it.

    In a container NVML may know processes by other numbers.
    """
    device = _device()
    processes = device.ask("nvmlDeviceGetComputeRunningProcesses") if device else None
    sizes = (each.usedGpuMemory for each in processes or () if each.pid == os.getpid())
    return next(sizes, None)


@dataclass(frozen=True)
class _Device:
    nvml: Any
    handle: Any

    def ask(self, query: str, *arguments: object) -> Any:
        """Return the answer to a query of this GPU; None where it has none."""
        return _known(self.nvml, getattr(self.nvml, query), self.handle, *arguments)


@cache
def _device() -> _Device | None:
    """Return the first GPU that `CUDA_VISIBLE_DEVICES` names, by number or id; None without a GPU or the extra."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    try:
        pynvml.nvmlInit()
        if first.isdigit():
            return _Device(pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(first)))
        return _Device(pynvml, pynvml.nvmlDeviceGetHandleByUUID(first))
    except pynvml.NVMLError:
        return None


def _known(nvml: Any, query: Callable[..., Any], *arguments: object) -> Any:
    try:
        return query(*arguments)
    except nvml.NVMLError:
        return None
