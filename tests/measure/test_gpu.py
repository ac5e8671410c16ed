"""What NVML says of the GPU: in the description of the machine, in its state, and in the certificate of noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cuda_stand_ins import has_nvml, healthy, nvml
from made_part import QUIET, made_part

from benchcard.analysis.frames.noise import _machine_columns
from benchcard.measure import gpu
from benchcard.measure.blocks import Round
from benchcard.measure.gpu import GpuState
from benchcard.measure.machine import Machine, this_machine
from benchcard.measure.machine_state import disturbances, gpu_slowdowns, read_machine_state

__all__ = ["has_nvml"]


def test_a_gpu_is_described_by_name_driver_clocks_and_temperature(has_nvml):
    """The description of the machine has the name, its state the clocks; the state is read only where it is asked."""
    has_nvml(healthy())
    machine = this_machine()
    assert (machine.gpu, machine.gpu_driver) == ("H200", "580.65")
    assert machine.fingerprint != replace(machine, gpu="").fingerprint
    assert read_machine_state(gpu=True).gpu == GpuState(1980, 3201, 41, "")
    assert read_machine_state().gpu is None
    assert gpu.process_bytes() == 500_000_000


@pytest.mark.parametrize(
    ("bits", "slowdowns"),
    [(0x1, ""), (0x4 | 0x20, "power limit, heat"), (0x8 | 0x40, "hardware slowdown, heat (hardware)")],
)
def test_reasons_for_lower_clocks_are_named(has_nvml, bits, slowdowns):
    """An idle GPU is none."""
    has_nvml(healthy(CurrentClocksThrottleReasons=bits))
    state = gpu.gpu_state()
    assert state is not None
    assert state.slowdowns == slowdowns


def test_a_gpu_that_answers_nothing_has_no_figures(has_nvml):
    """Each query that a GPU does not support leaves its own figure empty."""
    has_nvml(nvml(Name="MIG"))
    assert gpu.gpu_names()["gpu"] == "MIG"
    assert gpu.gpu_state() == GpuState()
    assert gpu.process_bytes() is None


@pytest.mark.parametrize("visible", [None, "0", "0,1", "GPU-5f"])
def test_the_first_visible_gpu_is_read(has_nvml, visible):
    """`CUDA_VISIBLE_DEVICES` names GPUs by number or id."""
    has_nvml(healthy(), visible)
    assert gpu.gpu_names()["gpu"] == "H200"


@pytest.mark.parametrize(("module", "visible"), [(None, None), (healthy(), "1"), (healthy(), ""), (healthy(), "-1")])
def test_without_a_gpu_or_the_extra_nothing_is_known(has_nvml, module, visible):
    """A machine is then described as before."""
    has_nvml(module, visible)
    assert gpu.gpu_names() == {"gpu": "", "gpu_driver": ""}
    assert gpu.gpu_state() is None
    assert gpu.process_bytes() is None
    assert this_machine().gpu == Machine().gpu == ""


def on_gpu(clock, temperature, slowdowns=""):
    """A state of a machine with such a GPU."""
    return replace(QUIET, gpu=GpuState(clock, 3201, temperature, slowdowns))


def test_a_certificate_has_the_gpu_before_and_after():
    """Its clock and temperature, and why its clock was lowered in any round, which is a disturbance."""
    part = made_part({"base": 200_000})
    states = [on_gpu(1980, 40), on_gpu(1700, 60, "heat"), on_gpu(1900, 55)]
    rounds = [replace(part.rounds[0], number=n, before=states[n], after=states[n + 1]) for n in range(2)]
    columns = _machine_columns(replace(part, rounds=tuple(rounds)))
    assert {name: value for name, value in columns.items() if name.startswith("gpu")} == {
        "gpu_clock_before_mhz": 1980,
        "gpu_clock_after_mhz": 1900,
        "gpu_temperature_before_c": 40,
        "gpu_temperature_after_c": 55,
        "gpu_slowdowns": "heat",
    }
    spans = [(timed.before, timed.after) for timed in rounds]
    assert [(each.kind, str(each)) for each in disturbances(spans)] == [
        ("gpu", "the clocks of the GPU were lowered: heat")
    ]
    assert gpu_slowdowns([(QUIET, QUIET)]) is None
    assert gpu_slowdowns(spans[1:]) == ""
    assert not list(disturbances(spans[1:]))
    read = Round.from_bytes(rounds[0].to_bytes())
    assert (read.before, read.after) == (states[0], states[1])
