"""Labels of a data set as labels of the model: matched by name, so that a permuted order never looks like a bad model.

Owns what counts as the same name, when labels are matched by number, and which of two labels is the positive one.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from benchcard.errors import Mistake, SpecError
from benchcard.utils.text import did_you_mean, format_value, join_names

if TYPE_CHECKING:
    import datasets


_PLACE = "$.task_args.label_mapping"
_GENERIC = re.compile(r"^label[_ -]?\d+$", re.IGNORECASE)
# Separators before a letter, and between a letter and a digit. All others mean something: `-1`, `1.5`, `1-2`, `C++`.
_SEPARATORS = re.compile(r"(?<=[^\W_])[\s_\-./]+(?=[^\W\d_])|(?<=[^\W\d_])(?:[\s_]+|[\-./])(?=\d)")
_NUMERAL = re.compile(r"\d+(?:\.\d+)?")
_ID = re.compile(r"[0-9]{1,9}")
# Notes list which label is which for up to so many.
_FEW = 8


@dataclass(frozen=True)
class Alignment:
    """How labels of the data set become labels of the model.

    Attributes:
        ids: The model's label id for each of the data set's values: its id, or its text.
        names: The model's label names, by id.
        notes: What a reader should know of how this was found.
        positive: The model's id of the positive class, for metrics of one class; None where there are not two labels.
        positive_source: What makes it the positive one, as "the second label that the data set declares".
    """

    ids: Mapping[Any, int]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    positive: int | None = None
    positive_source: str = ""

    @property
    def context(self) -> dict[str, Any]:
        """What the context of prepared rows holds of the positive class."""
        return {"positive": self.positive, "positive_source": self.positive_source}

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
                    f"the label {format_value(value)} in row {row}",
                    join_names(str(known) for known in self.ids),
                    "take rows without a label out of the data set" if value in (None, -1) else "",
                )
            ) from None


class _Names:
    """Label names that are looked up: as they are, else without what does not count.

    Args:
        names: The names.
        have_ids: Whether a name's place is its id.
    """

    def __init__(self, names: Sequence[str], have_ids: bool = True) -> None:
        self.names = names
        self._have_ids = have_ids
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._folded: dict[str, list[int]] = defaultdict(list)
        for place, name in enumerate(names):
            self._exact[name].append(place)
            self._folded[_folded(name)].append(place)

    def places(self, name: str) -> list[int]:
        """Return the places of all labels that may be meant by a name."""
        folded = _folded(name)
        return self._exact.get(name) or (self._folded.get(folded, []) if folded else [])

    def places_or_id(self, value: Any) -> list[int]:
        """Return the places of all labels that may be meant by a name, else by an id, as a number or as text."""
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            return []
        is_id = self._have_ids and _ID.fullmatch(str(value)) and int(value) < len(self.names)
        return self.places(str(value)) or ([int(value)] if is_id else [])


def align(
    model: Mapping[int, str], declared: Sequence[str] | None, values: Sequence[Any], mapping: Mapping[str, Any] | None
) -> Alignment:
    """Match the data set's labels with the model's: by name where all names agree, by number where none does and one
    side has no names.

    Args:
        model: The model's `id2label`.
        declared: The names that the data set declares, in the order of its ids; None where it declares none.
        values: The distinct labels that stand in the rows, used where none are declared.
        mapping: `task_args.label_mapping`: the data set's name (or id) to the model's name (or id). A name comes before
            an id.

    Raises:
        SpecError: The labels cannot be matched one to one; the message shows which.
    """
    names = tuple(str(model[index]) for index in sorted(model))
    ours = [str(value) for value in (values if declared is None else declared)]
    keys: list[Any] = list(values) if declared is None else list(range(len(ours)))
    numbers = declared is None and all(isinstance(value, int) for value in values)
    theirs = _Names(names)
    if not mapping:
        found = [theirs.places(name) for name in ours]
        if (are_generic(names) or numbers) and not any(found):
            return _with_positive(_by_number(names, ours, keys, declared is not None), keys, declared is not None)
        unused: list[str] = []
    else:
        mapped, unused = _mapped(mapping, _Names(ours, have_ids=declared is not None), theirs)
        found = [[mapped[place]] if place in mapped else theirs.places(name) for place, name in enumerate(ours)]
    missing = [name for name, places in zip(ours, found) if not places]
    mistakes = [*([_unknown(names, ours, missing)] if missing else []), *_collisions(names, ours, found)]
    if mistakes:
        raise SpecError(mistakes)
    ids = {key: places[0] for key, places in zip(keys, found)}
    moved = [name for key, name in zip(keys, ours) if (declared is not None or numbers) and ids[key] != key]
    notes = []
    if moved:
        notes.append(
            f"labels are numbered differently in the data set and in the model ({', '.join(moved)}): aligned by name"
        )
    if unused:
        notes.append(f"label_mapping: the data set has no label {join_names(unused)}")
    return _with_positive(Alignment(ids, names, tuple(notes)), keys, declared is not None)


def _mapped(mapping: Mapping[str, Any], ours: _Names, theirs: _Names) -> tuple[dict[int, int], list[str]]:
    """Return the model's id for each place of the data set that `label_mapping` names, and the keys that name none.

    Raises:
        SpecError: A key or a value may mean several labels, a value means none, or two keys mean one label.
    """
    mapped: dict[int, int] = {}
    unused, mistakes = [], []
    for key, value in mapping.items():
        places, ids = ours.places_or_id(key), theirs.places_or_id(value)
        if not places:
            unused.append(key)
        elif len(places) > 1:
            several = " and ".join(f"`{ours.names[place]}`" for place in places)
            mistakes.append(Mistake(f"{_PLACE}.{key}", several, "the name of one label of the data set, as it is"))
        elif not ids:
            hint = did_you_mean(str(value), theirs.names)
            expected = f"an id or a label of the model, {join_names(theirs.names)}"
            mistakes.append(Mistake(f"{_PLACE}.{key}", format_value(value), expected, hint))
        elif len(ids) > 1:
            mistakes.append(Mistake(f"{_PLACE}.{key}", _with_ids(theirs.names, ids), "one label", "give its id"))
        elif mapped.setdefault(places[0], ids[0]) != ids[0]:
            mistakes.append(Mistake(f"{_PLACE}.{key}", format_value(value), f"`{ours.names[places[0]]}` once"))
    if mistakes:
        raise SpecError(mistakes)
    return mapped, unused


def _with_ids(names: Sequence[str], ids: Sequence[int]) -> str:
    return " and ".join(f"`{names[index]}` (id {index})" for index in ids)


def _unknown(names: Sequence[str], ours: Sequence[str], missing: Sequence[str]) -> Mistake:
    """Return the mistake of labels that the model has no name for."""
    return Mistake(
        _PLACE,
        f"labels of the data set {list(ours)} and of the model {list(names)}",
        "labels that agree by name",
        f"say what {join_names(missing)} is in the model: "
        "label_mapping: {name in the data set: name or id in the model}",
    )


def _collisions(names: Sequence[str], ours: Sequence[str], found: Sequence[Sequence[int]]) -> list[Mistake]:
    """Return the mistakes of names that are not one to one: several labels of one side for one of the other."""
    mistakes = [
        Mistake(
            _PLACE,
            f"`{name}` of the data set, and {_with_ids(names, ids)} of the model",
            "one label of the model for each of the data set",
            f"say which one is meant by its id: label_mapping: {{{name}: {ids[0]}}}",
        )
        for name, ids in zip(ours, found)
        if len(ids) > 1
    ]
    alike: dict[int, list[str]] = defaultdict(list)
    for name, ids in zip(ours, found):
        if len(ids) == 1:
            alike[ids[0]].append(name)
    return mistakes + [
        Mistake(
            _PLACE,
            f"{' and '.join(f'`{name}`' for name in several)} of the data set, all `{names[index]}` of the model",
            "a label of the model for each of the data set's own",
            "put them together in the data set where they mean the same, else say in label_mapping which is which",
        )
        for index, several in alike.items()
        if len(several) > 1
    ]


def _with_positive(alignment: Alignment, keys: Sequence[Any], declared: bool) -> Alignment:
    """Return the alignment with the positive class, where there are two labels: the data set's order decides."""
    ids = alignment.ids
    if len(keys) != 2 and (declared or len(keys) > 2 or len(alignment.names) != 2):
        return alignment
    if declared:
        return replace(alignment, positive=ids[keys[1]], positive_source="the second label that the data set declares")
    numbers = {key: _number(key) for key in keys}
    if len(keys) == 2 and None not in numbers.values():
        largest = max(keys, key=lambda key: numbers[key] or 0.0)
        return replace(alignment, positive=ids[largest], positive_source="the greater number in the data set")
    # Of one number nobody knows whether the other one is greater, unless numbers are the model's ids.
    if None not in numbers.values() and any(ids[key] != key for key in keys):
        return alignment
    source = "the one of the higher id in the model, as the data set does not order its labels"
    return replace(alignment, positive=max(ids.values()) if len(keys) == 2 else 1, positive_source=source)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


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
    """Match labels by number, where one side has no names to go by.

    Raises:
        SpecError: A number is no id of the model, or the numbers in the names say otherwise.
    """
    both = f"labels of the data set {list(ours)} and of the model {list(names)}"
    hint = "say which is which: label_mapping: {name in the data set: name or id in the model}"
    if not all(isinstance(key, int) and 0 <= key < len(names) for key in keys):
        raise SpecError(Mistake(_PLACE, both, "labels that agree by name or by number", hint))
    # `1 star` is the label 0, and the label 1 of data that count from 1.
    in_names = {number: index for index, number in enumerate(_numerals(names))}
    meant = [in_names.get(number) for number in (_numerals(ours) if declared else ()) or keys]
    if None not in meant and meant != list(keys):
        told = next(place for place, index in enumerate(meant) if index != keys[place])
        by_name, by_number = names[meant[told] or 0], names[keys[told]]
        found = f"{both}: `{ours[told]}` is `{by_name}` by the numbers in the names, and `{by_number}` by its id"
        raise SpecError(Mistake(_PLACE, found, "labels that agree by name, or whose numbers agree", hint))
    side = "the model" if declared else "the data set"
    note = f"{side} does not name its labels: they were matched by number"
    if not are_generic(names) and len(keys) <= _FEW:
        note += f" ({', '.join(f'{key} is {names[key]}' for key in sorted(keys))})"
    if not declared and 0 not in keys:
        note += "; no row has the label 0: if the data set counts from 1, say so in label_mapping"
    return Alignment({key: int(key) for key in keys}, names, (note,))


def _numerals(names: Sequence[str]) -> list[float]:
    """Return the number in each name; nothing unless each has one, and all differ."""
    found = [_NUMERAL.findall(name) for name in names]
    numbers = [float(each[0]) for each in found if len(each) == 1]
    return numbers if len(set(numbers)) == len(names) else []


def _folded(name: str) -> str:
    """Return a name without what does not count: case, separators inside of it, and spaces around it."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return _SEPARATORS.sub("", composed.strip())
