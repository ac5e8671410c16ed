"""The parts that both layouts share, as `layouts.classic` writes them, parsed: labels and bullets of parameters."""

from __future__ import annotations

import re
from typing import TypeAlias, TypeVar

from benchcard.card.facts import Facts, Plain
from benchcard.card.layouts import classic
from benchcard.card.markdown.inline import parse_code_span, parse_code_spans, parse_value, unescape
from benchcard.card.markdown.tables import Table, find_tables
from benchcard.errors import CardError, NoCardError
from benchcard.utils.text import quote_names
from benchcard.utils.values import PHASES, Shape

V = TypeVar("V")
Bullets: TypeAlias = list[tuple[str, str, str | None]]
"""Indent, name and value of each bullet."""

_LABEL = re.compile(r"\*\*([\w ]+?):?\*\*:? *(`.*`) *$")
_BULLET = re.compile(r"^( *)[*-] \*\*(.+?)\*\*:(?: (.*))?$")
_SHAPE = re.compile(r"time metrics for batch size = (\d+)(?:, input length = (\d+))?(?: \(([^()]+)\))?")
_DURATION = re.compile(r"Time benchmarks were run for (\d+(?:\.\d+)?(?:e[+-]?\d+)?) seconds? per config")
_LABELS = ("task", "backend", "backend args", "number of evaluation samples")
_RESTORE = "Restore it, for example from an earlier version of the README"
# No count in a card needs more digits.
_MAX_DIGITS = 18


def read_labels(lines: list[str]) -> Facts:
    """Return the facts that are not in tables: task, backend, number of samples, parameters and duration."""
    matches = [match for line in lines if (match := _LABEL.match(line))]
    names = [match.group(1).lower() for match in matches]
    if missing := [name for name in _LABELS if name not in names]:
        if classic.QUALITY_TITLE not in lines:
            raise NoCardError(
                "there is no card of benchcard. Expected a README with one that `benchcard card` or `benchcard push` "
                "wrote, or a card of the same form from 2022"
            )
        raise CardError(f"the card has no line with {quote_names(missing)}. {_RESTORE}")
    if names.count("task") > 1:
        raise CardError("there are several cards. Expected one: read the text of one section at a time")
    labels: dict[str, str] = {}
    for name, match in zip(names, matches):
        if name in _LABELS:
            add_once(labels, name, parse_code_span(match.group(2)) or match.group(2))
    samples = labels["number of evaluation samples"]
    backend_args = parse_value(labels["backend args"])
    if not isinstance(backend_args, dict):
        raise CardError(f"Backend args: expected a mapping, found {backend_args!r}. {_RESTORE}")
    is_number = samples not in (classic.ALL_SAMPLES, classic.VARIED_SAMPLES)
    durations = (match.group(1) for line in lines if (match := _DURATION.match(line)))
    return Facts(
        task=_text(labels["task"]),
        backend=_text(labels["backend"]),
        backend_args=backend_args,
        max_eval_samples=parse_count(samples, "Number of evaluation samples") if is_number else None,
        fixed=nest_bullets(read_bullets(lines, classic.FIXED_TITLE)),
        benchmarked=_benchmarked(read_bullets(lines, classic.BENCHMARKED_TITLE)),
        duration_s=next(map(float, durations), None),
    )


def read_bullets(lines: list[str], title: str) -> Bullets:
    """Return the bullets below a title, which an empty line may separate from it."""
    first = _index(lines, title) + 1
    below = lines[first + 1 :] if lines[first : first + 1] == [""] else lines[first:]
    bullets: Bullets = []
    for line in below:
        if not (bullet := _BULLET.match(line)):
            break
        bullets.append((bullet.group(1), unescape(bullet.group(2)), bullet.group(3)))
    return bullets


def find_tables_below(lines: list[str], title: str) -> list[Table]:
    """Return the tables below a title, at least one."""
    start = _index(lines, title)
    below = [table for table in find_tables("\n".join(lines)) if table.first_line > start]
    if not below:
        raise CardError(f"the card has no table under {title!r}")
    return below


def nest_bullets(bullets: Bullets) -> dict[str, Plain]:
    """Return the parameters in bullets, those with nested bullets as mappings."""
    parameters: dict[str, Plain] = {}
    outer = ""
    for indent, name, text in bullets:
        if not indent:
            outer = name
            add_once(parameters, name, {} if text is None else parse_span(text))
        elif isinstance(parameters.get(outer), dict):
            add_once(parameters[outer], name, parse_span(text or ""))
        else:
            raise CardError(f"the bullet {name!r} is nested below {outer!r}, which has a value of its own")
    return parameters


def add_once(values: dict[str, V], name: str, value: V) -> None:
    """Add a value that a card may have once."""
    if name in values:
        raise CardError(f"the card has {name!r} twice in one list or table. Keep one of them")
    values[name] = value


def parse_span(text: str) -> Plain:
    """Return the value in a code span, or in text without one."""
    return parse_value(parse_code_span(text) or text)


def parse_count(text: str, place: str, below: int | None = None) -> int:
    """Return a whole number of at most 18 digits, less than `below`; an error names its `place`."""
    is_count = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
    if not is_count or (below is not None and int(text) >= below):
        bound = "" if below is None else f" below {below}"
        raise CardError(f"{place}: {text!r} is not a whole number{bound}")
    return int(text)


def find_shape(lines: list[str], table: Table) -> Shape | None:
    """Return the shape that the last line of text above a time table names; None where it names none."""
    above = filter(str.strip, reversed(lines[: table.first_line]))
    match = _SHAPE.search(next(above, ""))
    if match is None:
        return None
    batch_size, length, words = match.groups()
    tokens = parse_count(length, "an input length") if length else None
    return Shape(parse_count(batch_size, "a batch size"), tokens, parse_phase(words))


def parse_phase(words: str | None) -> str | None:
    """Return the phase whose latency a card calls so."""
    return next((phase for phase, name in PHASES.items() if name == words), words)


def _index(lines: list[str], title: str) -> int:
    if title not in lines:
        raise CardError(f"the card has no line `{title}`. {_RESTORE}")
    return lines.index(title)


def _benchmarked(bullets: Bullets) -> dict[str, list[Plain]]:
    benchmarked: dict[str, list[Plain]] = {}
    for _, name, text in bullets:
        contents = parse_code_spans(text or "")
        if contents is None:
            raise CardError(f"the values of {name!r} must be code spans separated by commas, found {text!r}")
        add_once(benchmarked, name, [parse_value(content) for content in contents])
    return benchmarked


def _text(label: str) -> str:
    value = parse_value(label)
    return value if isinstance(value, str) else label
