"""The gallery: the figures of all cards of users, organizations or folders as one frame, and as one page."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchcard.analysis.frames.columns import frame_of, interval_columns, to_records, with_bounds
from benchcard.card.facts import LATENCY_MEAN, Facts, Plain
from benchcard.card.layouts import full_tables, reproduce
from benchcard.card.layouts.full_tables import RATIO, SIZE
from benchcard.errors import BenchcardError, CardError, NoCardError
from benchcard.metrics.info import FIDELITY, RECOVERY
from benchcard.report import page
from benchcard.report.page import BASELINE, OTHER, RECOMMENDED, Column, Filter, Rows
from benchcard.reproduce.results import CardResults, published_results
from benchcard.reproduce.source import README, find_readme
from benchcard.utils.text import is_hub_id, pluralize

if TYPE_CHECKING:
    import pandas as pd

_TEXTS = (
    "repo",
    "section",
    "model",
    "task",
    "dataset",
    "metric",
    "higher_is_better",
    "row",
    "variant",
    "role",
    "baseline",
)
_FILTERS = ("model", "task", "dataset", "metric")
_FIGURES = ("quality", RECOVERY, *FIDELITY, RATIO, "cpu_ratio", LATENCY_MEAN, SIZE)
_REMARK = (
    "Compare ratios and milliseconds within a card only: each ratio is to the baseline of its card, measured on one "
    "machine. The quality is the first metric of the card, on the data that it names."
)


@dataclass(frozen=True)
class Gallery:
    """The figures of many cards.

    `frame` has one row for each model and variant. It has `repo`, `section` and `row`, `model`, `task`, `dataset` and
    `metric`, `higher_is_better`, `variant`, `role` and the row of its `baseline`; `quality` by that metric, fidelity,
    `ratio` and latency at the first shape of the card, and `size_mb`, with `_low` and `_high` where there are
    intervals; and `machine`. `unread` has the reason for each card that could not be read, by the name of its
    repository or file; `without_card` names those that have no card.
    """

    frame: pd.DataFrame
    unread: Mapping[str, str] = field(default_factory=dict)
    without_card: tuple[str, ...] = ()

    def to_html(self) -> str:
        """Return the page as HTML."""
        cards = pluralize(len(self.frame[["repo", "section"]].drop_duplicates()), "card")
        title = f"{pluralize(len(self.frame), 'variant')} of {cards}"
        lines = [[page.cell(place), page.cell(reason)] for place, reason in self.unread.items()]
        unread = page.fold(f"{pluralize(len(lines), 'card')} could not be read", page.table(["card", "reason"], lines))
        intro = f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(_REMARK)}</p>"
        return page.render(title, intro, "All variants", _rows(to_records(self.frame)), unread if lines else "")

    def report(self, path: str | Path) -> Path:
        """Write the page to a file, as `gallery.html`; return its path.

        Raises:
            BenchcardError: The file cannot be written.
        """
        return page.save(self.to_html(), path)


def read_gallery(*sources: str | Path, token: str | bool | None = None, endpoint: str | None = None) -> Gallery:
    """Return the figures of all cards of users or organizations on the Hub, repositories, or folders.

    Args:
        sources: Folders, in which every README.md is read; files; ids of repositories; names of users or organizations.
        token: The token for the Hub; None for the one of `hf auth login`.
        endpoint: The URL of the Hub; None for that of huggingface_hub.

    Raises:
        CardError: A source is neither a folder, a file, nor a name on the Hub.
        HubError: A user or organization has no models, or the Hub cannot list them. A card that cannot be read is only
            listed, with the reason.
    """
    rows: list[dict[str, object]] = []
    unread: dict[str, str] = {}
    without_card: list[str] = []
    cards: dict[str | Path, str] = {}
    for name in (card for source in sources for card in _cards(source, token, endpoint)):
        # A file may be below two sources.
        cards.setdefault(Path(name).resolve() if Path(name).is_file() else name, name)
    for name in cards.values():
        try:
            readme = find_readme(name, token=token, endpoint=endpoint)
            sections = readme.sections or (None,)
        except NoCardError:
            without_card.append(name)
            continue
        except BenchcardError as error:
            unread[name] = str(error)
            continue
        for section in sections:
            try:
                rows += _variants(name, published_results(readme.card(section)))
            except NoCardError:
                without_card.append(name)
            except BenchcardError as error:
                place = f"{name}, section {section}" if section else name
                unread[place] = str(error).removeprefix(f"{readme.name}: ")
    names = [*_TEXTS, *(column for name in _FIGURES for column in with_bounds(name)), "machine"]
    used = {column for row in rows for column, value in row.items() if value is not None}
    always = {*_TEXTS, "quality", RATIO, SIZE, "machine"}
    return Gallery(frame_of(rows, [name for name in names if name in used | always]), unread, tuple(without_card))


def _cards(source: str | Path, token: str | bool | None, endpoint: str | None) -> Iterator[str]:
    """Yield the files and repositories of a source whose cards are to be read."""
    path, name = Path(source).expanduser(), str(source)
    if path.is_dir():
        for parent, folders, files in os.walk(path):
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            yield from (str(Path(parent) / file) for file in files if file == README)
    elif path.is_file() or "/" in name:
        yield name
    elif is_hub_id(name):
        from benchcard.hub import repository

        yield from repository.list_models(name, token=token, endpoint=endpoint)
    else:
        raise CardError(f"there is no folder {name!r}, and no user or organization can have this name")


def _variants(name: str, card: CardResults) -> Iterator[dict[str, object]]:
    """Yield the cells of each row of a card."""
    facts = card.facts
    metric = facts.metrics[0] if facts.metrics else None
    for index, (row, variant) in enumerate(zip(facts.rows, full_tables.row_names(facts))):
        times = row.times.get(facts.shapes[0], {}) if facts.shapes else {}
        shown = {**row.figures, **times, "quality": row.metrics.get(metric.name) if metric else None}
        cells: dict[str, object] = {
            "repo": str(Path(name).parent) if name.endswith(README) else name,
            "section": card.section,
            "model": _model(facts, row.parameters),
            "task": facts.task,
            "dataset": _dataset(facts, row.parameters),
            "metric": metric and metric.name,
            "higher_is_better": metric and metric.higher_is_better,
            "row": index,
            "variant": variant,
            "role": ", ".join(full_tables.roles(facts, index)),
            "baseline": facts.baseline_of(index),
            "machine": (facts.machines[index] if facts.machines else facts.processors) or None,
        }
        for key in _FIGURES:
            cells |= interval_columns(key, shown.get(key))
        yield cells


def _model(facts: Facts, parameters: Mapping[str, Plain]) -> str | None:
    fixed = {**facts.fixed, **parameters}
    names = (fixed.get("model_name"), facts.front_matter.base_model, fixed.get("name_or_path"))
    return next((str(name) for name in names if name), None)


def _dataset(facts: Facts, parameters: Mapping[str, Plain]) -> str | None:
    data = parameters.get("dataset", reproduce.dataset_of(facts).get("dataset"))
    named = data if isinstance(data, dict) else {}
    names = (parameters.get("dataset.path"), facts.data and facts.data.name, facts.data and facts.data.dataset)
    return next((str(name) for name in (*names, named.get("path")) if name), None)


def _rows(cells: Sequence[Mapping[str, Any]]) -> Rows:
    higher = {each["higher_is_better"] for each in cells}
    metrics = {"quality": higher.pop() if len(higher) == 1 else None}
    titles = {**full_tables.SIZE_COLUMNS, **full_tables.TIME_COLUMNS, **full_tables.CPU_COLUMNS}
    texts = {
        name: ["" if each.get(name) is None else str(each[name]) for each in cells] for name in (*_TEXTS, "machine")
    }
    sections: dict[str, set[str]] = {}
    for repo, section in zip(texts["repo"], texts["section"]):
        sections.setdefault(repo, set()).add(section)
    cards = [
        f"{repo}, {section}" if len(sections[repo]) > 1 else repo
        for repo, section in zip(texts["repo"], texts["section"])
    ]
    shown = [Column(name, texts[name]) for name in (*_FILTERS, "machine")]
    chosen, baseline = (full_tables.ROLES[role] for role in ("chosen", "baseline"))
    roles = [role.split(", ") for role in texts["role"]]
    return Rows(
        labels=[str(number) for number in range(len(cells))],
        names=[f"{card}: {variant}" for card, variant in zip(cards, texts["variant"])],
        roles=texts["role"],
        kinds=[RECOMMENDED if chosen in each else BASELINE if baseline in each else OTHER for each in roles],
        groups=[" ".join(names) for names in zip(cards, texts["baseline"])],
        columns=[*page.figure_columns(cells, _FIGURES, metrics, titles), *shown],
        filters=[
            Filter(each.title, each.cells) for each in (Column("card", cards), *shown) if len(set(each.cells)) > 1
        ],
        x=titles[RATIO],
        y="quality",
    )
