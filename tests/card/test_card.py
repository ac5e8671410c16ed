"""The class Card: text, front matter, and a file that is written whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from benchcard.card import Card
from benchcard.card.readme import find_sections
from benchcard.errors import CardError
from card.test_facts import facts_of


def test_a_card_shows_its_facts():
    """A card made from facts is their text, and its front matter is parsed."""
    card = Card.from_facts(facts_of("sst2-distilbert"))
    assert str(card) == card.text
    assert card.front_matter["datasets"] == ["glue"]
    assert card.problems() == []


def test_a_notebook_shows_the_body_alone():
    """The rendered Markdown has no front matter, which would be shown as a heading."""
    card = Card("---\ntags: [a]\n---\n# Title\n")
    assert card._repr_markdown_() == card.body == "# Title\n"


def test_a_layout_that_is_not_there_is_refused():
    """An unknown layout is an error that names the known ones."""
    with pytest.raises(CardError, match="no layout 'fancy'"):
        Card.from_facts(facts_of("vit-beans"), layout="fancy")


def test_a_card_gives_its_facts_back():
    """The facts of a card are read from its text."""
    facts = facts_of("vit-beans")
    assert Card.from_facts(facts, layout="classic").facts() == facts


@pytest.mark.parametrize("layout", ["full", "classic"])
def test_what_an_author_writes_is_no_fact_of_the_card(layout):
    """Bullets of others, of the form that a card has, stand around the section and are not read."""
    card = Card.from_facts(facts_of("vit-beans"), layout=layout)
    words = "Run:\n* **epochs**: 3\n\n**task**: `mine`  \n\nFixed parameters:\n* **epochs**: 3\n"
    readme = card.merge_into(f"# Mine\n\n{words}", "beans").text + f"\n{words}"
    assert Card(readme).facts() == card.facts()


def test_a_card_goes_into_a_readme_of_others():
    """A card merged into a README leaves its words where they are, and is valid front matter included."""
    card = Card.from_facts(facts_of("sst2-distilbert"))
    merged = Card(card.merge_into("---\nlicense: mit\n---\n# Mine\n", "sst2").text)
    assert merged.body.startswith("# Mine\n\n<!-- benchcard:begin id=sst2 ")
    assert merged.front_matter["license"] == "mit"
    assert merged.problems() == []
    assert merged.facts().rows == card.facts().rows


@pytest.mark.parametrize(("text", "front"), [("# x", {}), ("---\n---\n", {}), ("---\na: 1\n---\n", {"a": 1})])
def test_front_matter_is_data(text, front):
    """Front matter is a mapping, empty where there is none."""
    assert Card(text).front_matter == front


@pytest.mark.parametrize("text", ["---\n- a\n---\n", "---\na: [\n---\n"])
def test_front_matter_that_is_no_mapping_is_an_error(text):
    """Front matter that cannot be read raises, and is a problem."""
    with pytest.raises(CardError, match="front matter"):
        _ = Card(text).front_matter
    assert [problem.severity for problem in Card(text).problems()] == ["error"]


def test_saving_writes_the_bytes_and_nothing_else(tmp_path):
    """The file has the card's bytes, whatever its line ends, and no other file stays."""
    text = "\ufeff---\r\ntags: [é]\r\n---\r\nbody\n\u2028"
    path = Card(text).save(tmp_path / "README.md")
    assert path == tmp_path / "README.md"
    assert path.read_bytes() == text.encode()
    assert os.listdir(tmp_path) == ["README.md"]


def test_a_card_is_saved_into_the_readme_that_is_there(tmp_path):
    """The author's text stays, before and after; the next card takes the place of the first one, and no other."""
    path = tmp_path / "README.md"
    path.write_bytes(b"---\r\nlicense: mit\r\n---\r\n# Mine \xe9\r\n")
    Card.from_facts(facts_of("sst2-distilbert"), slug="one").save(path)
    path.write_bytes(path.read_bytes() + b"\r\nMine, too\r\n")
    Card.from_facts(facts_of("vit-beans"), slug="two").save(path)
    Card.from_facts(facts_of("sst2-distilbert"), layout="classic", slug="one").save(path)
    saved = path.read_bytes()
    assert saved.startswith(b"---\r\nlicense: mit\r\n")
    assert saved.count(b"# Mine \xe9\r\n\r\n<!-- benchcard:begin id=one") == 1
    assert saved.count(b"\r\nMine, too\r\n") == 1
    assert saved.count(b"benchcard:begin") == 2
    assert set(find_sections(saved.decode("utf-8", "surrogateescape"))) == {"one", "two"}


def test_a_section_that_was_edited_is_not_replaced(tmp_path):
    """What somebody wrote into a saved card is theirs, unless they say otherwise."""
    card = Card.from_facts(facts_of("vit-beans"), slug="beans")
    path = card.save(tmp_path / "README.md")
    before, marker, section = path.read_text(encoding="utf-8").partition("<!-- benchcard:begin")
    edited = before + marker + section.replace("accuracy", "share of right answers", 1)
    path.write_text(edited, encoding="utf-8")
    with pytest.raises(CardError, match="edited by hand"):
        card.save(path)
    assert path.read_text(encoding="utf-8") == edited
    card.save(path, force=True)
    assert find_sections(path.read_text(encoding="utf-8"))["beans"].edited is False
    assert card.save(tmp_path / "new.md").read_text(encoding="utf-8") == card.merge_into("", "beans").text


def test_bytes_that_are_no_utf8_survive(tmp_path):
    """A file in another encoding is loaded and saved to the same bytes."""
    path = tmp_path / "README.md"
    path.write_bytes(b"caf\xe9 \xff\r\n")
    Card.load(path).save(path)
    assert path.read_bytes() == b"caf\xe9 \xff\r\n"


def test_a_card_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    """Where the last move fails, the old file stands and no draft stays."""
    path = tmp_path / "README.md"
    path.write_text("old")

    def refuse(source: object, target: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(CardError, match="no space left"):
        Card("new").save(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["README.md"]


def test_saving_keeps_permissions_and_links(tmp_path):
    """A file keeps its permissions, and a link goes on pointing where it did."""
    path, link = tmp_path / "real.md", tmp_path / "README.md"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    Card("new").save(link)
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    """A card that was not there is as readable as any other file that the user makes."""
    (tmp_path / "other").write_text("x")
    Card("new").save(tmp_path / "README.md")
    assert (tmp_path / "README.md").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_saving_into_a_folder_that_is_not_there_is_an_error(tmp_path):
    """A missing folder is the caller's to make."""
    with pytest.raises(CardError, match="No such file"):
        Card("x").save(tmp_path / "no" / "README.md")


def test_the_package_loads_nothing_heavy():
    """Making a card needs the standard library alone until YAML is read."""
    script = (
        "import sys; import benchcard.card.card\n"
        "print([name for name in ('torch', 'pandas', 'numpy', 'transformers', 'ruamel.yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
