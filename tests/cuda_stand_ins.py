"""Stand-ins for NVML, `torch.cuda` and ONNX Runtime's CUDA provider: they are called as the real ones, and compute on
the CPU.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from benchcard.measure import gpu


class NVMLError(Exception):
    """The error of NVML."""


def nvml(**answers):
    """A module as `pynvml` with a GPU at index 0, whose queries return `answers`; others are not supported."""

    def query(name):
        def ask(*arguments):
            if name not in answers:
                raise NVMLError(name)
            answer = answers[name]
            return answer[arguments[1]] if isinstance(answer, dict) else answer

        return ask

    def by_index(index):
        if index:
            raise NVMLError("not found")
        return "handle"

    def by_uuid(uuid):
        if not uuid.startswith("GPU-"):
            raise NVMLError("not found")
        return uuid

    names = ("Clock", "Temperature", "Name", "ComputeRunningProcesses", "CurrentClocksThrottleReasons")
    queries = {f"nvmlDeviceGet{name}": query(name) for name in names}
    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=by_index,
        nvmlDeviceGetHandleByUUID=by_uuid,
        nvmlSystemGetDriverVersion=lambda: "580.65",
        nvmlDeviceGetClockInfo=queries.pop("nvmlDeviceGetClock"),
        **queries,
    )


def healthy(**answers):
    """A GPU whose queries are all answered."""
    processes = [SimpleNamespace(pid=1, usedGpuMemory=1), SimpleNamespace(pid=os.getpid(), usedGpuMemory=500_000_000)]
    usual = {"Name": "H200", "Clock": {1: 1980, 2: 3201}, "Temperature": 41, "CurrentClocksThrottleReasons": 0}
    return nvml(**{**usual, "ComputeRunningProcesses": processes, **answers})


@pytest.fixture
def has_nvml(monkeypatch):
    """A function that puts a stand-in of `pynvml` in its place, or None for no such package."""

    def put(module, visible=None):
        monkeypatch.setitem(__import__("sys").modules, "pynvml", module)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        gpu._device.cache_clear()

    yield put
    gpu._device.cache_clear()
