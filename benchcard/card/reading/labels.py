"""What both layouts say in the same words, read: the labels, and bullets of parameters.

Owns the grammar of labels, nested bullets and listed values, as `classic` writes them. Leaves tables to `read` and
`read_full`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from benchcard.card.facts import Plain
from benchcard.card.layouts import classic
from benchcard.card.markdown.inline import parse_value, split_codes, uncode, unwords
from benchcard.errors import CardError
from benchcard.utils.values import Shape

Bullets = list[tuple[str, str, str | None]]
"""Indent, name and value of each bullet."""

_LABEL = re.compile(r"\*\*([\w ]+?):?\*\*:? *(`.*`) *$")
_BULLET = re.compile(r"^( *)[*-] \*\*(.+?)\*\*:(?: (.*))?$")


def labels(lines: list[str]) -> dict[str, Plain]:
    """What a card says of its task and backend, and its parameters, by the names that `Facts` gives them.

    Raises:
        CardError: a label or a list of parameters is missing, or cannot be read.
    """
    said = _labels(lines)
    samples = _label(said, "number of evaluation samples")
    unsaid = samples in (classic.ALL_SAMPLES, classic.VARIED_SAMPLES)
    return {
        "task": _text(_label(said, "task")),
        "backend": _text(_label(said, "backend")),
        "backend_args": mapping(parse_value(_label(said, "backend args")), "Backend args"),
        "max_eval_samples": None if unsaid else whole(samples, "Number of evaluation samples"),
        "fixed": nested(bullets(lines, classic.FIXED_TITLE)),
        "benchmarked": _benchmarked(bullets(lines, classic.BENCHMARKED_TITLE)),
    }


def bullets(lines: list[str], title: str) -> Bullets:
    """Indent, name and value of each bullet that follows a title."""
    if title not in lines:
        raise CardError(f"the card has no section {title!r}")
    found: Bullets = []
    for line in lines[lines.index(title) + 1 :]:
        bullet = _BULLET.match(line)
        if bullet is None:
            break
        found.append((bullet.group(1), unwords(bullet.group(2)), bullet.group(3)))
    return found


def nested(found: Bullets) -> dict[str, Plain]:
    """The parameters that bullets say, nested ones as mappings.

    Raises:
        CardError: a bullet stands under one that has a value of its own.
    """
    fixed: dict[str, Plain] = {}
    outer = ""
    for indent, name, text in found:
        if not indent:
            outer = name
            fixed[name] = {} if text is None else value(text)
        elif isinstance(fixed.get(outer), dict):
            fixed[outer][name] = value(text or "")
        else:
            raise CardError(f"the bullet {name!r} stands under {outer!r}, which has a value of its own")
    return fixed


def value(text: str) -> Plain:
    """The value that a code span, or bare text, shows."""
    return parse_value(_uncoded(text))


def mapping(value: Plain, place: str) -> dict[str, Plain]:
    """`value`, which must be a mapping.

    Raises:
        CardError: it is none.
    """
    if not isinstance(value, dict):
        raise CardError(f"{place}: {value!r} is no mapping")
    return value


def whole(text: str, place: str, below: int | None = None) -> int:
    """The whole number that a text shows.

    Args:
        text: as it stands in a card.
        place: where, in words.
        below: a number that it must be below; None for any of 18 digits.

    Raises:
        CardError: it shows something else.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 18) or (below is not None and int(text) >= below):
        bound = "" if below is None else f" below {below}"
        raise CardError(f"{place}: {text!r} is no whole number{bound}")
    return int(text)


def shape(match: re.Match[str]) -> Shape:
    """The shape whose batch size and input length, maybe None, are the groups of a match.

    Raises:
        CardError: they are beyond any number.
    """
    batch_size, length = match.groups()
    return Shape(whole(batch_size, "a batch size"), None if length is None else whole(length, "an input length"))


def _labels(lines: list[str]) -> dict[str, str]:
    """The content of each label's code span, by the label in lower case."""
    found = [(match.group(1).lower(), _uncoded(match.group(2))) for line in lines if (match := _LABEL.match(line))]
    labels = dict(found)
    if [name for name, _ in found].count("task") > 1:
        raise CardError("the text holds several cards: read the text of one section at a time")
    return labels


def _label(labels: Mapping[str, str], name: str) -> str:
    if name not in labels:
        raise CardError(f"the card does not say its {name}: it is no card of this kind, or a line of it was changed")
    return labels[name]


def _benchmarked(found: Bullets) -> dict[str, list[Plain]]:
    benchmarked: dict[str, list[Plain]] = {}
    for _, name, text in found:
        contents = split_codes(text or "")
        if contents is None:
            raise CardError(f"the values of {name!r} are not a list of code spans: {text!r}")
        benchmarked[name] = [parse_value(content) for content in contents]
    return benchmarked


def _text(label: str) -> str:
    value = parse_value(label)
    return value if isinstance(value, str) else label


def _uncoded(text: str) -> str:
    content = uncode(text)
    return text if content is None else content
