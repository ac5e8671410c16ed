"""How much memory there is, on this machine and in made-up cgroups."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from benchcard.measure.memory import available_bytes


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        (
            "0::/box\n",
            {"box/memory.max": "1000", "box/memory.current": "700", "box/memory.stat": "inactive_file 200\n"},
        ),
        (
            "4:memory:/box\n",
            {
                "memory/box/memory.limit_in_bytes": "1000",
                "memory/box/memory.usage_in_bytes": "700",
                "memory/box/memory.stat": "total_inactive_file 200\n",
            },
        ),
    ],
)
def test_a_cgroup_may_allow_less_than_there_is(tmp_path: Path, membership: str, files: dict[str, str]) -> None:
    """What is left of a limit counts, with the file pages that can be given back."""
    for name, text in {
        "proc/self/cgroup": membership,
        **{f"sys/fs/cgroup/{name}": files[name] for name in files},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert available_bytes(tmp_path) == 500


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    """A cgroup without a limit, or none, leaves what the machine has."""
    assert 0 < available_bytes(tmp_path) <= psutil.virtual_memory().total
