"""Which models are held open together while they are timed.

Owns the division of models into groups that fit into memory. Leaves to the caller how much there is, and to `timing`
what is done with a group.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchcard.errors import MachineError
from benchcard.measure.blocks import Subject


def plan_groups(
    subjects: Sequence[Subject], baseline: int | None, sizes_bytes: Sequence[int], available_bytes: int
) -> list[list[int]]:
    """Indices of the subjects that are held open together, group by group; the baseline is in each and stands first.

    As few groups as first-fit-decreasing finds, each within memory with the baseline counted twice (it has a twin).

    Args:
        subjects: the models.
        baseline: index of the baseline, None for none.
        sizes_bytes: what each is expected to keep resident, process included.
        available_bytes: what all processes of a group may take together.

    Raises:
        MachineError: a model does not fit beside the baseline; says which, what it needs and what there is.

    Source: D. S. Johnson, Near-Optimal Bin Packing Algorithms (MIT, 1973).
    """
    shared = 0 if baseline is None else 2 * sizes_bytes[baseline]
    room = available_bytes - shared
    others = [index for index in range(len(subjects)) if index != baseline]
    too_big = [index for index in others if sizes_bytes[index] > room]
    if too_big or room < 0:
        names = ", ".join(f"{subjects[index].name} ({sizes_bytes[index] / 1e6:.0f} MB)" for index in too_big)
        raise MachineError(
            f"not enough memory to time {names or 'the baseline'}: {available_bytes / 1e6:.0f} MB are available, "
            f"and the baseline with its second process takes {shared / 1e6:.0f} MB of them"
        )
    groups: list[list[int]] = []
    left: list[int] = []
    for index in sorted(others, key=lambda other: -sizes_bytes[other]):
        place = next((place for place, free in enumerate(left) if free >= sizes_bytes[index]), None)
        if place is None:
            groups.append([])
            left.append(room)
            place = len(groups) - 1
        groups[place].append(index)
        left[place] -= sizes_bytes[index]
    first = [] if baseline is None else [baseline]
    # in each group, and among groups, the order of the plan
    return sorted(first + sorted(group) for group in groups) or ([first] if first else [])
