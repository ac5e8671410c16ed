"""The labels of a data set, in the order of the model: aligned by name, so that a permuted order never looks like a bad
model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchcard.errors import Mistake, SpecError
from benchcard.kinds import listed, near, shown

if TYPE_CHECKING:
    import datasets

_GENERIC = re.compile(r"^label[_ -]?\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class Alignment:
    """How labels of the data set become labels of the model.

    Attributes:
        ids: The model's label id for each of the data set's values: its id, or its text.
        names: The model's label names, by id.
        notes: What a reader should know of how this was found.
    """

    ids: Mapping[Any, int]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def id(self, value: Any, row: int) -> int:
        """The model's label id for the label of a row.

        Raises:
            SpecError: The data set has a label there that it does not declare.
        """
        try:
            return self.ids[value]
        except (KeyError, TypeError):
            raise SpecError(
                Mistake(
                    "$.dataset.ref_keys",
                    f"the label {shown(value)} in row {row}",
                    listed(str(known) for known in self.ids),
                    "take rows without a label out of the data set" if value in (None, -1) else "",
                )
            ) from None


def align(
    model: Mapping[int, str], declared: Sequence[str] | None, values: Sequence[Any], mapping: Mapping[str, str] | None
) -> Alignment:
    """How the data set's labels become the model's.

    Args:
        model: The model's `id2label`.
        declared: The names that the data set declares, in the order of its ids; None where it declares none.
        values: The distinct labels that stand in the rows, used where none are declared.
        mapping: `task_args.label_mapping`: the data set's name to the model's name, for names that differ.

    Raises:
        SpecError: The names cannot be aligned; the message shows both lists.
    """
    names = tuple(model[index] for index in sorted(model))
    ours = list(declared) if declared is not None else [str(value) for value in values]
    keys: list[Any] = list(range(len(ours))) if declared is not None else list(values)
    generic = are_generic(names)
    numbers = declared is None and all(isinstance(value, int) for value in values)
    if not mapping and (generic or numbers):
        return _by_number(names, ours, keys, declared is not None)
    wanted = {_folded(name): index for index, name in enumerate(names)}
    translated = {_folded(key): value for key, value in (mapping or {}).items()}
    ids, missing = {}, []
    for key, name in zip(keys, ours):
        index = wanted.get(_folded(translated.get(_folded(name), name)))
        if index is None:
            missing.append(name)
        else:
            ids[key] = index
    if missing:
        raise SpecError(_unknown(names, ours, missing, mapping or {}))
    if len(set(ids.values())) != len(ids):
        raise SpecError(_doubled(names, dict(zip(ours, ids.values()))))
    moved = [name for key, name in zip(keys, ours) if declared is not None and ids[key] != key]
    notes = (
        (f"labels are numbered differently in the data set and in the model ({', '.join(moved)}): aligned by name",)
        if moved
        else ()
    )
    return Alignment(ids, names, notes)


def _unknown(
    names: tuple[str, ...], ours: Sequence[str], missing: Sequence[str], mapping: Mapping[str, str]
) -> list[Mistake]:
    """What is wrong with labels that the model has no name for: those that the mapping misspells, or else all."""
    folded = {_folded(name) for name in missing}
    slips = [
        Mistake(
            f"$.task_args.label_mapping.{key}",
            shown(value),
            f"a label of the model, {listed(names)}",
            near(value, names),
        )
        for key, value in mapping.items()
        if _folded(key) in folded
    ]
    return slips or [
        Mistake(
            "$.task_args.label_mapping",
            f"labels of the data set {list(ours)} and of the model {list(names)}",
            "labels that agree by name",
            f"say what {listed(missing)} is in the model: label_mapping: {{name in the data set: name in the model}}",
        )
    ]


def _doubled(names: tuple[str, ...], ids: Mapping[str, int]) -> list[Mistake]:
    """What is wrong where several labels of the data set come to one of the model."""
    alike: dict[int, list[str]] = {}
    for name, index in ids.items():
        alike.setdefault(index, []).append(name)
    return [
        Mistake(
            "$.task_args.label_mapping",
            f"{' and '.join(f'`{name}`' for name in several)} of the data set, all `{names[index]}` of the model",
            "a label of the model for each of the data set's own",
            "put them together in the data set where they mean the same",
        )
        for index, several in alike.items()
        if len(several) > 1
    ]


def are_generic(names: Sequence[str]) -> bool:
    """Whether labels have no names of their own, only what transformers writes in their place: `LABEL_0`."""
    return all(_GENERIC.match(name) for name in names)


def of_column(rows: datasets.Dataset, name: str) -> tuple[Sequence[str] | None, Sequence[Any]]:
    """The label names that a column declares, or None, and the distinct labels in it; a row may have one label, or a
    list of them.

    Raises:
        SpecError: What stands in it can be no labels.
    """
    feature = rows.features[name]
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    found: set[Any] = set()
    try:
        for values in rows.with_format(None).select_columns([name]).iter(batch_size=1000):
            found.update(value for each in values[name] for value in (each if isinstance(each, list) else (each,)))
        # What has no label shows with its row, when the rows are taken.
        found.discard(None)
    except TypeError as error:
        raise _no_labels(name, feature) from error
    values = sorted(found, key=str)
    if names is None and not all(isinstance(value, (int, str)) and not isinstance(value, bool) for value in values):
        raise _no_labels(name, feature)
    return (list(names) if names is not None else None), values


def _no_labels(name: str, feature: Any) -> SpecError:
    return SpecError(
        Mistake(
            "$.dataset.ref_keys[0]", f"the column `{name}` of {feature}", "a column of labels: whole numbers or names"
        )
    )


def _by_number(names: tuple[str, ...], ours: Sequence[str], keys: Sequence[Any], declared: bool) -> Alignment:
    """Labels by number, where one side has no names to go by."""
    largest = max((key for key in keys if isinstance(key, int)), default=-1)
    if largest >= len(names) or not all(isinstance(key, int) and key >= 0 for key in keys):
        raise SpecError(
            Mistake(
                "$.task_args.label_mapping",
                f"labels of the data set {list(ours)} and of the model {list(names)}",
                "labels that agree by name or by number",
                "say which is which: label_mapping: {name in the data set: name in the model}",
            )
        )
    side = "the model" if declared else "the data set"
    return Alignment(
        {key: int(key) for key in keys}, names, (f"{side} does not name its labels: they were matched by number",)
    )


def _folded(name: str) -> str:
    """A name without what does not count: case and separators."""
    return re.sub(r"[\s_\-./]+", "", str(name)).casefold()
