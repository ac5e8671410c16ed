"""Which models are held in memory together while they are timed.

Owns the division of models into groups that fit into memory. Leaves to the caller how much memory there is, and to
`conductor` the timing of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchcard.errors import MachineError
from benchcard.measure.blocks import Subject


def plan_groups(
    subjects: Sequence[Subject], baseline: int | None, sizes_bytes: Sequence[int], available_bytes: int
) -> list[list[int]]:
    """Return the groups of subjects that are held in memory together, as indices; the baseline is first in each.

    The groups are as few as first-fit-decreasing finds. Each fits into memory with the baseline counted twice, because
    it has a twin. A subject that does not fit has a group of its own at the end: there may be more memory by then.

    Args:
        subjects: The models.
        baseline: Index of the baseline, None for none.
        sizes_bytes: The memory that each model is expected to take, including its process.
        available_bytes: The memory that all processes of a group may take together.

    Raises:
        MachineError: No model fits beside the baseline.

    Source: D. S. Johnson, Near-Optimal Bin Packing Algorithms (MIT, 1973).
    """
    shared = 0 if baseline is None else 2 * sizes_bytes[baseline]
    room = available_bytes - shared
    others = [index for index in range(len(subjects)) if index != baseline]
    too_big = [index for index in others if sizes_bytes[index] > room]
    if room < 0 or (others and len(too_big) == len(others)):
        smallest = min((sizes_bytes[index] for index in too_big), default=0)
        raise MachineError(
            f"not one model can be timed: {memory_shortage(smallest, shared, available_bytes)}. Free some memory, "
            "or use smaller batch sizes"
        )
    groups: list[list[int]] = []
    free: list[int] = []
    for index in sorted(set(others) - set(too_big), key=lambda other: (-sizes_bytes[other], other)):
        place = next((place for place, size in enumerate(free) if size >= sizes_bytes[index]), None)
        if place is None:
            groups.append([])
            free.append(room)
            place = len(groups) - 1
        groups[place].append(index)
        free[place] -= sizes_bytes[index]
    first = [] if baseline is None else [baseline]
    # Within groups and among them, the order is that of the plan.
    fitting = sorted(first + sorted(group) for group in groups)
    return [*fitting, *([*first, index] for index in too_big)] or ([first] if first else [])


def memory_shortage(needed_bytes: int, shared_bytes: int, available_bytes: int) -> str:
    """Return the message that a model cannot be timed for lack of memory.

    Args:
        needed_bytes: The memory that the model is expected to take; 0 for the baseline itself.
        shared_bytes: The memory of the baseline and its twin; 0 where there is none.
        available_bytes: The memory that all processes may take together.
    """
    model = f"about {needed_bytes / 1e6:.0f} MB" if needed_bytes else "the baseline"
    beside = f", beside {shared_bytes / 1e6:.0f} MB of the baseline with its second process" if shared_bytes else ""
    return f"not enough memory to time it: it needs {model}{beside}, and {available_bytes / 1e6:.0f} MB are available"
