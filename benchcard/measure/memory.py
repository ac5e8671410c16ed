"""How much memory there is for models that are to be open together.

Owns what this machine and the cgroup still allow. Leaves to `grouping` who is held open with whom.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from benchcard.measure.noise import cgroups


def available_bytes(root: Path = Path("/")) -> int:
    """Bytes that new processes may take now: what the machine has left, or the cgroup where it allows less.

    File pages that the kernel can give back count as free.

    Args:
        root: where `proc` and `sys` are found; another folder for a test.

    Source: the Linux kernel's cgroup-v2.rst, "Memory Interface Files", and cgroup-v1/memory.rst.
    """
    left = [int(psutil.virtual_memory().available)]
    for folder in cgroups(root, "memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, now = _number(folder / limit), _number(folder / used)
            if most is not None and now is not None:
                left.append(max(0, most - now + _inactive_file(folder)))
    return min(left)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _inactive_file(folder: Path) -> int:
    """Bytes of file pages that were not used lately."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    stat = {name: int(value) for name, _, value in (line.partition(" ") for line in lines) if value.isdigit()}
    return stat.get("total_inactive_file", stat.get("inactive_file", 0))
