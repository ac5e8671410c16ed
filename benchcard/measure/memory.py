"""The memory that is available for models.

Owns what this machine and its cgroups still allow. Leaves to `grouping` which models are held in memory together.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from benchcard.measure.machine_state import cgroups


def available_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that new processes may take: what the machine has left, or the cgroup where it allows less.

    File pages that the kernel can reclaim count as free.

    Args:
        root: The folder with `proc` and `sys`; another folder for a test.

    Source: the Linux kernel's cgroup-v2.rst, "Memory Interface Files", and cgroup-v1/memory.rst.
    """
    sizes = [int(psutil.virtual_memory().available)]
    for folder in cgroups(root, "memory"):
        for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            limit_bytes, used_bytes = _read_number(folder / limit), _read_number(folder / usage)
            if limit_bytes is not None and used_bytes is not None:
                sizes.append(max(0, limit_bytes - used_bytes + _inactive_file_bytes(folder)))
    return min(sizes)


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # missing, or "max"
        return None


def _inactive_file_bytes(folder: Path) -> int:
    """Return the size of the file pages that were not used lately."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    fields = {name: int(value) for name, _, value in (line.partition(" ") for line in lines) if value.isdigit()}
    return fields.get("total_inactive_file", fields.get("inactive_file", 0))
