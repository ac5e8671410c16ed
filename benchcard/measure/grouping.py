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

    Those that do not fit come last, each in a group of its own: there may be more memory when it is their turn.

    Raises:
        MachineError: no model fits beside the baseline; says what they need and what there is.

    Source: D. S. Johnson, Near-Optimal Bin Packing Algorithms (MIT, 1973).
    """
    shared = 0 if baseline is None else 2 * sizes_bytes[baseline]
    room = available_bytes - shared
    others = [index for index in range(len(subjects)) if index != baseline]
    too_big = [index for index in others if sizes_bytes[index] > room]
    if room < 0 or (others and len(too_big) == len(others)):
        smallest = min((sizes_bytes[index] for index in too_big), default=0)
        raise MachineError(
            f"not one model can be timed: {refusal(smallest, shared, available_bytes)}. Free some memory, "
            "or ask for smaller batch sizes"
        )
    groups: list[list[int]] = []
    left: list[int] = []
    for index in sorted(set(others) - set(too_big), key=lambda other: (-sizes_bytes[other], other)):
        place = next((place for place, free in enumerate(left) if free >= sizes_bytes[index]), None)
        if place is None:
            groups.append([])
            left.append(room)
            place = len(groups) - 1
        groups[place].append(index)
        left[place] -= sizes_bytes[index]
    first = [] if baseline is None else [baseline]
    # in each group, and among groups, the order of the plan
    fitting = sorted(first + sorted(group) for group in groups)
    return [*fitting, *([*first, index] for index in too_big)] or ([first] if first else [])


def refusal(needed_bytes: int, shared_bytes: int, available_bytes: int) -> str:
    """Why a model cannot be timed, in words: what it needs and what there is.

    Args:
        needed_bytes: what the model is expected to keep resident; 0 for the baseline itself.
        shared_bytes: what the baseline and its twin take, 0 where there is none.
        available_bytes: what all may take together.
    """
    what = f"about {needed_bytes / 1e6:.0f} MB" if needed_bytes else "the baseline"
    beside = f", beside {shared_bytes / 1e6:.0f} MB of the baseline with its second process" if shared_bytes else ""
    return f"not enough memory to time it: it needs {what}{beside}, and {available_bytes / 1e6:.0f} MB are available"
