"""The description of this machine, and its form in `run.json`."""

from __future__ import annotations

import msgspec
import pytest

from benchcard.measure import machine
from benchcard.measure.machine import Machine
from benchcard.utils.plain import as_plain
from benchcard.utils.processor import INT8_FLAGS, Int8, int8_support


def test_the_machine_names_its_int8_instructions():
    """The description has the instructions, those for int8 among them, and whether they saturate."""
    here = machine.this_machine()
    assert here.int8 == int8_support(here.instructions, here.architecture)
    assert set(here.instructions) <= set(INT8_FLAGS)


def test_a_machine_is_the_same_after_writing_and_reading():
    """`run.json` keeps all fields, under the names that older versions used."""
    here = machine.this_machine()
    values = as_plain(here)
    assert list(values) == [
        *("processor", "architecture", "instructions", "int8", "physical_cores", "usable_cores", "quota_cpus"),
        *("memory_bytes", "system", "python", "gpu", "gpu_driver"),
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
    assert machine.physical_cores() == min(machine.usable_cores(), int(machine.quota_cpus() or machine.usable_cores()))


V1, V2 = "3:cpu,cpuacct:/box\n", "0::/box\n"


@pytest.mark.parametrize(
    ("membership", "files", "quota", "threads"),
    [
        (V2, {"box/cpu.max": "400000 100000"}, 4.0, 4),
        (V2, {"box/cpu.max": "250000 100000"}, 2.5, 2),
        (V2, {"box/cpu.max": "50000 100000"}, 0.5, 1),
        (V2, {"box/cpu.max": "max 100000"}, None, 8),
        (V2, {"box/cpu.max": "max 100000", "cpu.max": "300000 100000"}, 3.0, 3),
        (V2, {"box/cpu.max": "9900000 100000"}, 99.0, 8),
        (V1, {"cpu/box/cpu.cfs_quota_us": "150000", "cpu/box/cpu.cfs_period_us": "50000"}, 3.0, 3),
        (V1, {"cpu/box/cpu.cfs_quota_us": "-1", "cpu/box/cpu.cfs_period_us": "100000"}, None, 8),
        (V1, {}, None, 8),
    ],
)
def test_threads_are_no_more_than_the_quota(tmp_path, monkeypatch, membership, files, quota, threads):
    """On 8 cores, a cgroup (version 1 or 2) or its parent that may use 2.5 processors gets two threads by default."""
    monkeypatch.setattr(machine, "_physical_cores", lambda: 8)
    for name, text in {
        "proc/self/cgroup": membership,
        **{f"sys/fs/cgroup/{name}": files[name] for name in files},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.quota_cpus(tmp_path) == quota
    assert machine.physical_cores(tmp_path) == threads


def test_the_quota_is_part_of_the_machine(monkeypatch):
    """Machines with different quotas share no figures, and a text names the quota; the cores do not depend on it."""
    monkeypatch.setattr(machine, "_physical_cores", lambda: 8)
    monkeypatch.setattr(machine, "usable_cores", lambda: 16)
    machines = []
    for quota in (None, 2.5):
        monkeypatch.setattr(machine, "quota_cpus", lambda root=None, quota=quota: quota)
        machines.append(machine.this_machine())
    free, limited = machines
    assert (limited.quota_cpus, limited.physical_cores, limited.usable_cores) == (2.5, 8, 16)
    assert free.fingerprint != limited.fingerprint
    assert str(limited) == f"{free}, a CPU quota of 2.5"
    assert str(free).endswith(", 16 cores")
