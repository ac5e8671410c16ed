"""Where a card comes from: its text, a file, a folder or a repository on the Hub; and one section of a README.

Owns finding the text and what was published beside it (`benchcard/<slug>/run.json`). Leaves what the text says to
`card`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchcard.card import readme as merge
from benchcard.card.frontmatter.hubterms import is_hub_id
from benchcard.card.paths import FOLDER, RUN
from benchcard.errors import CardError
from benchcard.utils.parsing import UnreadableError, is_count, is_positive, load_json, mismatches

README = "README.md"
_SOURCE = {"name": str, "local": bool, "digest": str}
# What is read of a published `run.json`: see `bundle.run_json`, which writes it.
_PUBLISHED = {
    "spec": {"task?": str, "fixed?": dict, "grid?": dict},
    "sources?": {"models?": [_SOURCE], "datasets?": [_SOURCE]},
    "quality?": [{"same_model_as?": is_count, "*": object}],
    "time?": [{"row": is_count, "batch_size": is_positive, "input_length?": is_count, "*": object}],
    "noise?": [{"ratio_low?": (int, float), "ratio_high?": (int, float)}],
    "machine?": {"processor?": str},
    "versions?": {"*": (str, type(None))},
}


@dataclass(frozen=True)
class CardSource:
    """A card's text, and what lies beside it.

    Attributes:
        text: the text of one card, front matter included.
        about: what `run.json` beside it says; None where there is none.
        folder: where paths in it start; None for a text or a repository, whose paths are none of this machine.
    """

    text: str
    about: Mapping[str, Any] | None
    folder: Path | None


def find_card(
    card: str | Path, section: str | None = None, *, token: str | bool | None = None, endpoint: str | None = None
) -> CardSource:
    """The card that `card` means: text (of several lines), a file, a folder with a README.md, or a repository's id.

    Args:
        card: what is meant.
        section: the name of the section, where a README has several.
        token: of the Hub.
        endpoint: of the Hub.

    Raises:
        CardError: there is no such card, or the README has several and `section` names none of them.
        HubError: the repository is not there or cannot be reached.
    """
    if isinstance(card, str) and "\n" in card:
        text, _ = _one(card, section)
        return CardSource(text, None, None)
    path = Path(card).expanduser()
    if path.is_dir():
        path = path / README
    if path.is_file():
        text, slug = _one(path.read_bytes().decode("utf-8", "surrogateescape"), section)
        beside = path.parent / FOLDER / slug / RUN if slug else None
        told = beside.read_bytes() if beside is not None and beside.is_file() else None
        return CardSource(text, _about(told, str(beside)), path.parent.resolve())
    name = str(card)
    if not is_hub_id(name) or "/" not in name:
        raise CardError(f"there is no card {name!r}: give its text, a file, a folder with a {README}, or a repository")
    from benchcard.hub import repository

    readme = repository.read_readme(name, token=token, endpoint=endpoint)
    if readme is None:
        raise CardError(f"{name} has no {README}")
    text, slug = _one(readme, section)
    where = f"{FOLDER}/{slug}/{RUN}"
    told = repository.read_file(name, where, token=token, endpoint=endpoint) if slug else None
    return CardSource(text, _about(told, where), None)


def _one(readme: str, section: str | None) -> tuple[str, str]:
    """The text of one card, and the name of its section; a card without markers has none."""
    found = merge.find_sections(readme)
    if section is None and len(found) > 1:
        raise CardError(f"the README has {len(found)} sections: name one of {', '.join(found)}")
    if section is not None and section not in found:
        raise CardError(f"the README has no section {section!r}; there is {', '.join(found) or 'none'}")
    if not found:
        return readme, ""
    slug = section or next(iter(found))
    return merge.section_as_card(readme, slug), slug


def _about(told: bytes | None, where: str) -> dict[str, Any] | None:
    if told is None:
        return None
    try:
        about = load_json(told)
    except UnreadableError as error:
        raise CardError(f"{where} cannot be read: {error}") from None
    problem = next(mismatches(about, _PUBLISHED), None)
    if problem is not None:
        raise CardError(f"{where} is not what benchcard publishes: {problem}. Take it away to read the card alone")
    found: dict[str, Any] = about
    return found
