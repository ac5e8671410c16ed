"""The labels of a data set matched with those of the model, by name, so that another order is not counted as errors.

Owns when two names are the same, when labels are matched by number, and which of two labels is the positive one.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchcard.errors import Mistake, SpecError
from benchcard.tasks import data
from benchcard.utils.text import did_you_mean, format_value, join_names

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig

    from benchcard.tasks import Question

Label = int | str

UNLABELLED = -100
"""The label of what has none. Source: the default `ignore_index` of torch.nn.CrossEntropyLoss."""

PER_CLASS = ("precision", "recall", "f1")
"""The metrics of one class, which have averages over several: `f1_macro`."""
AVERAGED = tuple(f"{name}_{average}" for name in PER_CLASS for average in ("micro", "macro", "weighted"))
METRICS = ("accuracy", *PER_CLASS, *AVERAGED, "matthews_correlation")
"""The metrics of classifiers."""

_PLACE = "$.task_args.label_mapping"
_MAPPING = "label_mapping: {name in the data set: name or id in the model}"
_GENERIC = re.compile(r"^label[_ -]?\d+$", re.IGNORECASE)
# Separators before a letter, and between a letter and a digit. All others have a meaning: `-1`, `1.5`, `1-2`, `C++`.
_SEPARATORS = re.compile(r"(?<=[^\W_])[\s_\-./]+(?=[^\W\d_])|(?<=[^\W\d_])(?:[\s_]+|[\-./])(?=\d)")
_NUMERAL = re.compile(r"\d+(?:\.\d+)?")
_ID = re.compile(r"[0-9]{1,9}")
# Notes list the pairs of labels if there are at most this many.
_FEW = 8


@dataclass(frozen=True)
class Alignment:
    """The labels of the model for the labels of the data set.

    Attributes:
        ids: The model's label id for each label of the data set, which is an id or a text.
        names: The model's label names, by id.
        positive: The model's id of the positive class, for metrics of one class; None where there are not two labels.
        positive_source: Why it is the positive one, as "the second label that the data set declares".
    """

    ids: Mapping[Label, int]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    positive: int | None = None
    positive_source: str = ""

    @property
    def context(self) -> dict[str, object]:
        """The positive class as part of `Prepared.context`."""
        return {"positive": self.positive, "positive_source": self.positive_source}

    def id(self, value: object, row: int) -> int:
        """Return the model's label id for the label of a row."""
        label = plain_label(value)
        if label is not None and label in self.ids:
            return self.ids[label]
        hint = "take rows without a label out of the data set" if value in (None, -1, UNLABELLED) else ""
        actual, expected = f"the label {format_value(value)} in row {row}", join_names(str(key) for key in self.ids)
        raise SpecError(Mistake("$.dataset.ref_keys", actual, expected, hint))


def plain_label(value: object) -> Label | None:
    """Return a label as a text or a whole number, which false and true are, too; None where it is neither.

    pandas makes numbers of a column with gaps floats: 1.0 is the label 1.
    """
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, (int, str)) else None


class _Names:
    """Label names, looked up exactly, else without case and separators; with `have_ids`, an index is an id."""

    def __init__(self, names: Sequence[str], have_ids: bool = True) -> None:
        self.names = names
        self._have_ids = have_ids
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._folded: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(names):
            self._exact[name].append(index)
            self._folded[_folded(name)].append(index)

    def find(self, name: str) -> list[int]:
        """Return the indices of all labels that a name may mean."""
        folded = _folded(name)
        return self._exact.get(name) or (self._folded.get(folded, []) if folded else [])

    def find_name_or_id(self, value: object) -> list[int]:
        """Return the indices of all labels that a name, else an id, may mean; the id is a number or a text."""
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            return []
        is_id = self._have_ids and _ID.fullmatch(str(value)) and int(value) < len(self.names)
        return self.find(str(value)) or ([int(value)] if is_id else [])


def model_names(config: PretrainedConfig) -> list[str]:
    """Return the label names of a model, by id."""
    return [str(config.id2label[index]) for index in sorted(config.id2label)]


def align_column(rows: Dataset, column: str, config: PretrainedConfig, question: Question) -> Alignment:
    """Match the labels of a column with those of a model, as in `align`."""
    return align(config.id2label, *column_labels(rows, column), label_mapping(question))


def label_mapping(question: Question) -> Mapping[str, object]:
    """Return `task_args.label_mapping`; empty where there is none."""
    mapping = question.arguments.get("label_mapping")
    return mapping if isinstance(mapping, Mapping) else {}


def align(
    model: Mapping[int, str],
    declared: Sequence[str] | None,
    values: Sequence[Label],
    mapping: Mapping[str, object] | None,
) -> Alignment:
    """Match the data set's labels with the model's `id2label`: by name where all names agree, by number where none does
    and one side has no names.

    The data set's labels are the names that it declares, in the order of its ids, else the distinct `values` in its
    rows. `mapping` is `task_args.label_mapping`: the data set's name (or id) to the model's name (or id). A name comes
    before an id.

    Raises:
        SpecError: The labels cannot be matched one to one.
    """
    names = tuple(str(model[index]) for index in sorted(model))
    are_declared = declared is not None
    data_names = [str(value) for value in (values if declared is None else declared)]
    keys = range(len(data_names)) if are_declared else values
    are_numbers = all(isinstance(key, int) for key in keys)
    # False and true are 0 and 1 of two labels, and of more labels none in particular.
    may_be_ids = len(names) == 2 or not any(isinstance(key, bool) for key in keys)
    model_names = _Names(names)
    mapped, unused = _apply_mapping(mapping or {}, _Names(data_names, have_ids=are_declared), model_names)
    ids_of = [[mapped[i]] if i in mapped else model_names.find(name) for i, name in enumerate(data_names)]
    has_no_names = are_generic(names) or (are_numbers and not are_declared)
    if not mapping and not any(ids_of) and has_no_names and may_be_ids:
        return _with_positive(_by_number(names, data_names, keys, are_declared), keys, are_declared)
    if mistakes := _match_mistakes(names, data_names, ids_of):
        raise SpecError(mistakes)
    ids = {key: indices[0] for key, indices in zip(keys, ids_of)}
    notes = []
    if moved := [name for key, name in zip(keys, data_names) if are_numbers and ids[key] != key]:
        different = "labels are numbered differently in the data set and in the model"
        notes.append(f"{different} ({', '.join(moved)}): aligned by name")
    if unused:
        notes.append(f"label_mapping: the data set has no label {join_names(unused)}")
    return _with_positive(Alignment(ids, names, tuple(notes)), keys, are_declared)


def _apply_mapping(
    mapping: Mapping[str, object], data_names: _Names, model_names: _Names
) -> tuple[dict[int, int], list[str]]:
    """Return the model's id for the index of each data set label in `label_mapping`, and the keys that match none."""
    mapped: dict[int, int] = {}
    unused, mistakes = [], []
    for key, value in mapping.items():
        indices, ids = data_names.find_name_or_id(key), model_names.find_name_or_id(value)
        place, actual = f"{_PLACE}.{key}", format_value(value)
        if not indices:
            unused.append(key)
        elif len(indices) > 1:
            several = " and ".join(f"`{data_names.names[index]}`" for index in indices)
            mistakes.append(Mistake(place, several, "the exact name of one label of the data set"))
        elif not ids:
            expected = f"an id or a label of the model, {join_names(model_names.names)}"
            mistakes.append(Mistake(place, actual, expected, did_you_mean(str(value), model_names.names)))
        elif len(ids) > 1:
            mistakes.append(Mistake(place, _with_ids(model_names.names, ids), "one label", "give its id"))
        elif mapped.setdefault(indices[0], ids[0]) != ids[0]:
            mistakes.append(Mistake(place, actual, f"`{data_names.names[indices[0]]}` once"))
    if mistakes:
        raise SpecError(mistakes)
    return mapped, unused


def _both(names: Sequence[str], data_names: Sequence[str]) -> str:
    return f"labels of the data set {list(data_names)} and of the model {list(names)}"


def _with_ids(names: Sequence[str], ids: Sequence[int]) -> str:
    return " and ".join(f"`{names[index]}` (id {index})" for index in ids)


def _match_mistakes(names: Sequence[str], data_names: Sequence[str], ids_of: Sequence[Sequence[int]]) -> list[Mistake]:
    """Return the mistakes of names that do not match one to one."""
    mistakes = []
    if missing := [name for name, ids in zip(data_names, ids_of) if not ids]:
        hint = f"say what {join_names(missing)} is in the model: {_MAPPING}, or take such rows out of the data set"
        mistakes.append(Mistake(_PLACE, _both(names, data_names), "labels that agree by name", hint))
    same: dict[int, list[str]] = defaultdict(list)
    for name, ids in zip(data_names, ids_of):
        if len(ids) == 1:
            same[ids[0]].append(name)
        elif ids:
            actual = f"`{name}` of the data set, and {_with_ids(names, ids)} of the model"
            hint = f"say which one is meant by its id: label_mapping: {{{name}: {ids[0]}}}"
            mistakes.append(Mistake(_PLACE, actual, "one label of the model for each of the data set", hint))
    for index, several in same.items():
        if len(several) > 1:
            listing = " and ".join(f"`{name}`" for name in several)
            actual = f"{listing} of the data set, all `{names[index]}` of the model"
            together = "put them together in the data set where they mean the same"
            hint = f"{together}, else say in label_mapping which is which"
            mistakes.append(Mistake(_PLACE, actual, "a different label of the model for each of the data set", hint))
    return mistakes


def _with_positive(alignment: Alignment, keys: Sequence[Label], declared: bool) -> Alignment:
    """Return the alignment with the positive class where there are two labels; the order of the data set decides."""
    ids = alignment.ids
    if len(keys) != 2 and (declared or len(keys) > 2 or len(alignment.names) != 2):
        return alignment
    if declared:
        return replace(alignment, positive=ids[keys[1]], positive_source="the second label that the data set declares")
    numbers = {key: number for key in keys if math.isfinite(number := _number(key))}
    if len(keys) == len(numbers) == 2:
        greatest = max(keys, key=lambda key: numbers[key])
        return replace(alignment, positive=ids[greatest], positive_source="the greater number in the data set")
    # Whether a single number is the greater of two is not known, unless numbers are the model's ids.
    if len(numbers) == len(keys) and any(ids[key] != key for key in keys):
        return alignment
    source = "the label with the higher id in the model, as the data set does not order its labels"
    return replace(alignment, positive=max(ids.values()) if len(keys) == 2 else 1, positive_source=source)


def _number(label: Label) -> float:
    """Return a label as a number; NaN where it is none."""
    try:
        return float(label)
    except ValueError:
        return math.nan


def are_generic(names: Sequence[str]) -> bool:
    """Return whether all labels have the names that transformers gives to labels without one: `LABEL_0`."""
    return all(_GENERIC.match(name) for name in names)


def column_labels(rows: Dataset, name: str) -> tuple[Sequence[str] | None, Sequence[Label]]:
    """Return the label names that a column declares, or None, and the distinct labels in it, alone or in lists."""
    return distinct_labels((row[name] for row in data.iter_rows(rows, [name])), rows.features[name], name)


def distinct_labels(
    values: Iterable[object], feature: object, name: str
) -> tuple[Sequence[str] | None, Sequence[Label]]:
    """Return what `column_labels` does, for the values of a column, or of a field in it, and their feature."""
    names = getattr(getattr(feature, "feature", feature), "names", None)
    distinct: set[object] = set()
    try:
        for value in values:
            distinct.update(value if isinstance(value, list) else [value])
    except TypeError as error:
        raise _no_labels(name, feature) from error
    # A row without a label, or with a number that is none, raises its own error when it is prepared.
    labels = {label for value in distinct if (label := plain_label(value)) is not None}
    if names is None and distinct - {None} and not labels:
        raise _no_labels(name, feature)
    return (list(names) if names is not None else None), sorted(labels - {UNLABELLED}, key=str)


def _no_labels(name: str, feature: object) -> SpecError:
    expected = "a column of labels: whole numbers or names"
    return SpecError(Mistake("$.dataset.ref_keys[0]", f"the column `{name}` of {feature}", expected))


def _by_number(names: tuple[str, ...], data_names: Sequence[str], keys: Sequence[Label], declared: bool) -> Alignment:
    """Match labels by number, where one side has no names."""
    both, hint = _both(names, data_names), f"say which is which: {_MAPPING}"
    numbers = [key for key in keys if isinstance(key, int) and 0 <= key < len(names)]
    if len(numbers) < len(keys):
        raise SpecError(Mistake(_PLACE, both, "labels that agree by name or by number", hint))
    # For example, `1 star` is the label 0 of the model, but the label 1 of a data set that counts from 1.
    in_names = {number: index for index, number in enumerate(_numerals(names))}
    by_numerals = [in_names.get(number) for number in (_numerals(data_names) if declared else ()) or numbers]
    if None not in by_numerals and by_numerals != numbers:
        place = next(place for place, index in enumerate(by_numerals) if index != numbers[place])
        by_name, by_id = names[by_numerals[place] or 0], names[numbers[place]]
        actual = f"{both}: `{data_names[place]}` is `{by_name}` by the numbers in the names, and `{by_id}` by its id"
        raise SpecError(Mistake(_PLACE, actual, "labels that agree by name, or whose numbers agree", hint))
    note = f"{'the model' if declared else 'the data set'} does not name its labels: they were matched by number"
    if not are_generic(names) and len(keys) <= _FEW:
        note += f" ({', '.join(f'{number} is {names[number]}' for number in sorted(numbers))})"
    if not declared and 0 not in numbers:
        note += "; no row has the label 0: if the data set counts from 1, say so in label_mapping"
    return Alignment({number: number for number in numbers}, names, (note,))


def _numerals(names: Sequence[str]) -> list[float]:
    """Return the number in each name; empty unless every name has exactly one, and all differ."""
    numerals = [_NUMERAL.findall(name) for name in names]
    numbers = [float(parts[0]) for parts in numerals if len(parts) == 1]
    return numbers if len(set(numbers)) == len(names) else []


def _folded(name: str) -> str:
    """Return a name in lower case, without separators inside of it and spaces around it."""
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return _SEPARATORS.sub("", composed.strip())
