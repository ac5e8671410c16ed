"""The gallery: cards of an organization, of repositories and of folders become one frame and one page."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pandas as pd
import pytest
from browser import browser
from card.layouts.test_full import GOLDEN, sample
from card.test_facts import facts_of
from click.testing import CliRunner
from hub_fixtures import hub

import benchcard
from benchcard.card import Card
from benchcard.card.facts import Metric
from benchcard.card.layouts import classic
from benchcard.card.readme import merge
from benchcard.cli.commands import main
from benchcard.errors import CardError, HubError

__all__ = ["browser", "hub"]

ORGANIZATION = "org"


def section(slug: str, **changes: object) -> str:
    """Return a README with the sample card."""
    card = Card.from_facts(sample(**changes), slug=slug)
    return card.merge_into("# A model\n", slug).text


@pytest.fixture
def filled(hub):
    """A Hub with an organization: two cards of now, one of 2022, and four repositories without one that can be read."""
    golden = GOLDEN.read_text(encoding="utf-8")
    rows = [{"row": 0, "ratio": 1.0, "batch_size": 1, "input_length": 64}]
    run = {"spec": {"task": "text-classification"}, "quality": [], "time": rows}
    hub.add_model(f"{ORGANIZATION}/new", {"README.md": section("one"), "benchcard/one/run.json": json.dumps(run)})
    hub.add_model(f"{ORGANIZATION}/digits", {"README.md": golden})
    hub.add_model(f"{ORGANIZATION}/old", {"README.md": classic.render(facts_of("vit-beans"))})
    hub.add_model(f"{ORGANIZATION}/broken", {"README.md": section("one").replace("| row |", "| line |")})
    hub.add_model(f"{ORGANIZATION}/damaged", {"README.md": section("one"), "benchcard/one/run.json": "{"})
    hub.add_model(f"{ORGANIZATION}/empty", {"config.json": "{}"})
    hub.add_model(f"{ORGANIZATION}/other", {"README.md": "# Somebody's model\n"})
    hub.add_model(f"{ORGANIZATION}/secret", {"README.md": section("one")}, private=True)
    hub.add_model("somebody/else", {"README.md": section("one")})
    return hub


def test_the_cards_of_an_organization_are_one_frame(filled):
    """Each variant of each card is a row with where it is from and its figures; no other repository is read."""
    gallery = benchcard.read_gallery(ORGANIZATION, endpoint=filled.endpoint, token=filled.token)
    frame = gallery.frame
    assert frame.groupby("repo").size().to_dict() == {"org/digits": 5, "org/new": 5, "org/old": 18}
    new = frame[frame["repo"] == "org/new"].set_index("row")
    assert new["section"].unique().tolist() == ["one"]
    assert new.loc[1, ["quality", "quality_low", "quality_high"]].tolist() == [0.974, 0.956, 0.99]
    assert (new.loc[1, "ratio"], new.loc[1, "ratio_low"], new.loc[1, "size_mb"]) == (2.0, 1.9, 1.19)
    assert new.loc[0, "role"].startswith("baseline")
    old = frame[frame["repo"] == "org/old"]
    assert set(old["model"]) == {"nateraw/vit-base-beans"}
    assert (set(old["dataset"]), set(old["metric"]), set(old["task"])) == (
        {"beans"},
        {"accuracy"},
        {"image-classification"},
    )
    assert frame.loc[frame["repo"] == "org/digits", "machine"].notna().all()


def test_cards_that_cannot_be_read_are_listed(filled):
    """A repository with a broken card, or with a damaged run is listed with the reason, which has its name once; those
    without a card are apart.
    """
    gallery = benchcard.read_gallery(ORGANIZATION, endpoint=filled.endpoint, token=filled.token)
    unread = gallery.unread
    assert sorted(unread) == ["org/broken, section one", "org/damaged, section one"]
    assert sorted(gallery.without_card) == ["org/empty", "org/other"]
    assert "org/broken" not in unread["org/broken, section one"]
    assert "run.json cannot be read" in unread["org/damaged, section one"]
    page = benchcard.read_gallery(ORGANIZATION, endpoint=filled.endpoint, token=filled.token).to_html()
    assert "2 cards could not be read" in page


def test_a_repository_that_fails_ends_nothing(filled):
    """If the Hub refuses one repository, the others are read."""
    filled.fail("info", status=403, times=1)
    gallery = benchcard.read_gallery(ORGANIZATION, endpoint=filled.endpoint, token=filled.token)
    assert "403" in gallery.unread["org/broken"]
    assert len(gallery.unread) == 2
    assert gallery.frame["repo"].nunique() == 3


def test_a_private_repository_is_read_with_its_token(filled):
    """Private repositories are listed for those who may see them."""
    token = filled.add_user("member", organizations=(ORGANIZATION,))
    assert "org/secret" in set(
        benchcard.read_gallery(ORGANIZATION, endpoint=filled.endpoint, token=token).frame["repo"]
    )


def test_all_pages_of_a_listing_are_read(filled, monkeypatch):
    """An organization of more repositories than one answer lists is read to the end."""
    monkeypatch.setattr("benchcard.testing.hub.read._PAGE_SIZE", 2)
    gallery = benchcard.read_gallery(ORGANIZATION, endpoint=filled.endpoint, token=filled.token)
    assert gallery.frame["repo"].nunique() == 3
    assert len(filled.requests("list")) == 4


def test_a_name_without_models_is_an_error(filled):
    """A wrong name of an organization, and what can be no name, are reported and not shown as an empty gallery."""
    with pytest.raises(HubError, match="nobody has no models on the Hub"):
        benchcard.read_gallery("nobody", endpoint=filled.endpoint, token=filled.token)
    with pytest.raises(CardError, match="no folder 'a b'"):
        benchcard.read_gallery("a b", endpoint=filled.endpoint)
    filled.fail("list", status=403)
    with pytest.raises(HubError, match="Listing the models of org failed"):
        benchcard.read_gallery(ORGANIZATION, endpoint=filled.endpoint, token=filled.token)


@pytest.fixture
def folder(tmp_path):
    """A folder with three READMEs, one of them with two sections, and one that is hidden."""
    texts = {
        "a/README.md": merge(section("one"), Card.from_facts(sample(), slug="two").text, "two").text,
        "b/c/README.md": section("three", metrics=(Metric("accuracy", "", None),)),
        "d/README.md": "# Nothing\n",
        ".hidden/README.md": section("four"),
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_the_cards_of_folders_are_one_frame(folder, monkeypatch):
    """Every README.md below a folder is read, all its sections, each file once."""
    monkeypatch.chdir(folder)
    gallery = benchcard.read_gallery(".", "a", folder / "b" / "c" / "README.md")
    pairs = gallery.frame[["repo", "section"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [["a", "one"], ["a", "two"], ["b/c", "three"]]
    assert (gallery.unread, gallery.without_card) == ({}, ("d/README.md",))


def test_the_frame_has_the_fidelity_of_cards(tmp_path):
    """Fidelity and processor time are columns where a card shows them, and only there."""
    facts = sample()
    assert "kl_mean" not in benchcard.read_gallery(tmp_path).frame
    first = replace(facts.rows[1], figures={**facts.rows[1].figures, "kl_mean": facts.rows[1].metrics["accuracy"]})
    frame = pd.DataFrame(rows_of("here", replace(facts, rows=(facts.rows[0], first, *facts.rows[2:]))))
    assert frame["kl_mean"].tolist()[1] == 0.974


def rows_of(name: str, facts):
    """Return the rows of a card's facts."""
    from benchcard.report.gallery import _variants
    from benchcard.reproduce.results import CardResults

    return list(_variants(name, CardResults(facts, None, None, "one")))


def test_an_empty_folder_is_an_empty_gallery(tmp_path):
    """Without cards there is a page and a frame without rows, with its columns."""
    gallery = benchcard.read_gallery(tmp_path)
    assert len(gallery.frame) == 0
    assert {"repo", "model", "task", "dataset", "metric", "quality", "ratio", "size_mb", "machine"} <= set(
        gallery.frame
    )
    assert "0 variants of 0 cards" in gallery.to_html()


def test_a_browser_shows_the_gallery(browser, folder):
    """The page has a row and a point for each variant, a filter by card, and says how far ratios can be compared."""
    result = browser(
        benchcard.read_gallery(folder).to_html(),
        """return [document.querySelectorAll('#rows tbody tr').length, document.querySelectorAll('.point').length,
          document.querySelector('#filters label').firstChild.textContent,
          [...document.querySelector('#filters select').options].map(each => each.text.replace(/.*[/]/, '')),
          document.querySelectorAll('.front').length, document.querySelector('main').textContent];""",
    )
    assert result[:2] == [15, 12]
    assert result[2:4] == ["card", ["all", "a, one", "a, two", "c"]]
    # The direction of the metric of one card is not known, and so there is no front.
    assert result[4] == 0
    assert "Compare ratios and milliseconds within a card only" in result[5]


def test_the_command_writes_a_page_or_csv(folder, tmp_path):
    """`benchcard gallery` writes the page, or the frame as CSV; what could not be read is on standard error."""
    output = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["gallery", str(folder), "-o", str(output)])
    assert (done.exit_code, done.stdout) == (0, f"gallery: {output}\n")
    assert output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert done.stderr == f"no card of benchcard: 1 other README, as {folder / 'd' / 'README.md'}\n"
    done = CliRunner().invoke(main, ["gallery", str(folder), "--csv"])
    frame = pd.read_csv(io.StringIO(done.stdout))
    assert (len(frame), frame["quality"].max()) == (15, 0.977)
    done = CliRunner().invoke(main, ["gallery", "a b"])
    assert done.exit_code == 1
