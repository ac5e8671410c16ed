"""`benchcard.hub.push`: what a push does where the Hub does as it is asked, and what is refused before it is asked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import hub_fixtures
import pytest
from hub_fixtures import BEGIN, CARD, END, FILES, MINE, Card, Push, error_of, section
from huggingface_hub import HfApi

from benchcard.errors import CardError, HubError
from benchcard.hub.faults import RetryPolicy
from benchcard.hub.files import Pushed
from benchcard.hub.gitignore import is_ignored
from benchcard.hub.repository import read_readme
from benchcard.testing import Fault, LocalHub

hub, pushed = hub_fixtures.hub, hub_fixtures.pushed


# Where nothing goes wrong


def test_a_new_repository_is_private_and_gets_one_commit(hub: LocalHub, pushed: Push) -> None:
    """README and files, regular and LFS, arrive in a single commit on a repository that is made private."""
    files = {**FILES, "onnx/model.onnx": b"\0" * 64}
    done = pushed(files=files, commit_message="tiny model")
    assert hub.repo(MINE).private
    held = hub.files(MINE)
    assert held.pop(".gitattributes")
    assert held == {**files, "README.md": section(CARD).encode()}
    assert [commit.title for commit in hub.commits(MINE)] == ["benchcard: tiny model", "initial commit"]
    assert done == Pushed(
        commit_oid=hub.head(MINE),
        commit_url=f"{hub.endpoint}/{MINE}/commit/{hub.head(MINE)}",
        pr_url=None,
        pr_revision=None,
        changed=True,
        warnings=(),
        diff=done.diff,
    )


def test_pushing_again_changes_nothing(hub: LocalHub, pushed: Push) -> None:
    """The second push of the same makes no commit, uploads nothing, and names the commit that is there."""
    files = {**FILES, "onnx/model.onnx": b"\0" * 64}
    first = pushed(files=files)
    asked = len(hub.requests())
    second = pushed(files=files)
    assert (second.changed, second.commit_oid, second.diff) == (False, first.commit_oid, "")
    assert {seen.method for seen in hub.requests()[asked:]} == {"GET", "HEAD"}


def test_only_what_changed_is_sent(hub: LocalHub, pushed: Push) -> None:
    """A large file that is there already is neither uploaded nor committed again."""
    pushed(files={**FILES, "onnx/model.onnx": b"\0" * 64})
    again = pushed(files={**FILES, "onnx/model.onnx": b"\0" * 64, "new.txt": b"new"})
    assert again.diff == "new file: new.txt (3 bytes)\n"
    assert len(hub.requests("lfs-upload")) == 1
    assert hub.read(MINE, "new.txt") == b"new"


@pytest.mark.parametrize(
    "text",
    [
        CARD,
        "\ufeff---\r\nlicense: mit\r\n---\r\n# Theirs\r\n\r\nno final line end",
        "---\nlicense: mit # why\nzzz: no\n---",
        "",
        "---\nlicense: mit\n---\n\u2028 odd \u0085 \x0b ends \u202e and שלום \U0001f680\r alone",
    ],
)
def test_their_text_stays_to_the_byte(hub: LocalHub, pushed: Push, text: str) -> None:
    """The card gets the very text that is there, and what it gives back is what stands there then."""
    hub.add_model(MINE, {"README.md": text.encode()})
    card = Card()
    pushed(card=card)
    assert card.got == [text]
    assert hub.read(MINE, "README.md") == section(text).encode()
    assert read_readme(MINE, endpoint=hub.endpoint, token=hub.token) == section(text)


def test_a_repository_without_readme_gets_one(hub: LocalHub, pushed: Push) -> None:
    """Where the Hub says that there is no README, the card gets None."""
    hub.add_model(MINE, {"config.json": "{}"})
    card = Card()
    pushed(card=card)
    assert card.got == [None]
    assert not hub.repo(MINE).private
    assert read_readme(MINE, endpoint=hub.endpoint, token=hub.token) == section(CARD)


def test_files_come_from_disk(hub: LocalHub, pushed: Push, tmp_path: Path) -> None:
    """A path on disk is pushed as the bytes that it holds."""
    (tmp_path / "m.onnx").write_bytes(os.urandom(3_000_000))
    pushed(files={"onnx/model.onnx": tmp_path / "m.onnx"})
    assert hub.read(MINE, "onnx/model.onnx") == (tmp_path / "m.onnx").read_bytes()
    assert not pushed(files={"onnx/model.onnx": tmp_path / "m.onnx"}).changed


def test_a_public_repository_on_demand(hub: LocalHub, pushed: Push) -> None:
    """`private=False` makes a public one; it says nothing about one that is there."""
    pushed(private=False)
    assert not hub.repo(MINE).private
    pushed(card=Card("faster"), private=True)
    assert not hub.repo(MINE).private


def test_a_branch(hub: LocalHub, pushed: Push) -> None:
    """A revision is read and written; the main branch stays; a revision that is not there is an error."""
    head = hub.add_model(MINE, {"README.md": CARD})
    HfApi(endpoint=hub.endpoint, token=hub.token).create_branch(MINE, branch="dev")
    pushed(revision="dev")
    assert hub.head(MINE) == head
    assert hub.read(MINE, "README.md", revision="dev") == section(CARD).encode()
    assert "nope" in error_of(pushed, revision="nope")


def test_slow_answers(hub: LocalHub, pushed: Push) -> None:
    """A Hub that takes its time is waited for."""
    hub.slow_down(delay_s=0.05)
    assert pushed().changed


# Looking before leaping


def test_a_dry_run_writes_nothing(hub: LocalHub, pushed: Push) -> None:
    """It shows the diff of the README and the files, and sends nothing but reads."""
    hub.add_model(MINE, {"README.md": "---\nlicense: mit\n---\nold\n", "a.csv": "1", "same.csv": "1"})
    head = hub.head(MINE)
    done = pushed(files={"a.csv": b"22", "b/c.csv": b"x" * 12345, "same.csv": b"1"}, dry_run=True)
    assert done.diff == (
        "--- a/README.md\n+++ b/README.md\n@@ -2,3 +2,4 @@\n license: mit\n ---\n old\n"
        f"+{BEGIN}fast{END}\n\\ No newline at end of file\n"
        "changed file: a.csv (2 bytes)\nnew file: b/c.csv (12,345 bytes)\n"
    )
    assert (done.changed, done.commit_oid, done.commit_url) == (True, None, None)
    assert hub.head(MINE) == head
    assert {seen.method for seen in hub.requests()} == {"GET", "HEAD"}


def test_a_dry_run_for_a_repository_to_be(hub: LocalHub, pushed: Push) -> None:
    """A repository that is not there is not made, and the whole card is new."""
    done = pushed(dry_run=True)
    assert not hub.exists(MINE)
    assert done.diff.startswith("--- /dev/null\n+++ b/README.md\n@@ -0,0 +1,5 @@\n+---\n")
    assert done.warnings == (f"{MINE} does not exist yet",)


def test_a_dry_run_of_what_is_there(pushed: Push) -> None:
    """Where nothing would change, it says so."""
    pushed()
    done = pushed(dry_run=True)
    assert (done.changed, done.diff) == (False, "")


def test_a_diff_breaks_lines_at_line_feeds_alone(hub: LocalHub, pushed: Push) -> None:
    """What Unicode calls a line end is text in a diff."""
    hub.add_model(MINE, {"README.md": "one\u2028two\x0bthree\r\n"})
    assert "\n one\u2028two\x0bthree\r\n+" in pushed(dry_run=True).diff


# What is wrong here


@pytest.mark.parametrize("path", ["../up", "/root", "a//b", "a/./b", "", ".git/config", "a\\b", "README.md"])
def test_paths_that_no_repository_holds(hub: LocalHub, pushed: Push, path: str) -> None:
    """A path that could not stand there is refused before anything is asked."""
    assert repr(path) in error_of(pushed, files={path: b""}) or path == "README.md"
    assert not hub.requests()


def test_a_file_that_is_not_there(hub: LocalHub, pushed: Push, tmp_path: Path) -> None:
    """A missing file, or a folder, is named before anything is asked."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(HubError, match=r"results\.csv cannot be pushed"):
            pushed(files={"results.csv": path})
    assert not hub.requests()


def test_a_card_that_cannot_be_merged(hub: LocalHub, pushed: Push) -> None:
    """What the card refuses is passed on as it is; nothing is written, and no repository is made."""

    def card(_text: str | None, _paths: frozenset[str]) -> str:
        raise CardError("edited by hand")

    with pytest.raises(CardError, match="edited by hand"):
        pushed(card=card)
    assert not hub.exists(MINE)


def test_a_card_that_utf8_cannot_write(hub: LocalHub, pushed: Push) -> None:
    """Half a surrogate pair is refused before a repository is made."""
    assert "UTF-8" in error_of(pushed, card=lambda _text, _paths: "\ud800")
    assert not hub.exists(MINE)


def test_a_readme_that_is_not_utf8(hub: LocalHub, pushed: Push) -> None:
    """A README in another encoding is left as it is."""
    head = hub.add_model(MINE, {"README.md": "café".encode("latin-1")})
    assert "not UTF-8 (byte 3)" in error_of(pushed)
    assert hub.head(MINE) == head


@pytest.mark.parametrize("repo_id", ["a/b/c", "a b/c", "datasets/a/b", "a/--"])
def test_ids_that_no_repository_has(pushed: Push, repo_id: str) -> None:
    """An impossible name is an error of ours, not a traceback of the client's."""
    assert repo_id in error_of(pushed, repo_id)


def test_an_endpoint_that_is_none(pushed: Push) -> None:
    """An address without a scheme is refused with what it should be."""
    assert "https://" in error_of(pushed, endpoint="hub.example.org")


def test_offline_mode_is_said(hub: LocalHub, pushed: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client is switched offline, that is the message, at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in error_of(pushed)
    assert not hub.requests()


def test_a_repository_that_is_not_made(hub: LocalHub, pushed: Push) -> None:
    """`create=False` asks for one that is there; a foreign namespace cannot be made in."""
    assert "`create`" in error_of(pushed, create=False)
    assert "403" in error_of(pushed, "other/new")
    assert not hub.exists(MINE)
    with pytest.raises(HubError, match="not on the Hub"):
        read_readme(MINE, endpoint=hub.endpoint, token=hub.token)


def test_a_wrong_token_and_none(hub: LocalHub, pushed: Push) -> None:
    """A token that nobody has, and no token, are refused at once and not taken for anything else."""
    head = hub.add_model(MINE, {"README.md": CARD})
    assert "did not accept the token (401)" in error_of(pushed, token="hf_wrong")
    assert "401" in error_of(pushed, token=False)
    assert hub.head(MINE) == head


# Metadata


def test_metadata_that_the_hub_refuses(hub: LocalHub, pushed: Push) -> None:
    """The field and what is wrong with it are told; nothing is uploaded, nothing tried again."""
    head = hub.add_model(MINE, {"README.md": CARD})
    text = error_of(pushed, card=lambda _text, _paths: "---\nlicense: mine\n---\n", files={"m.onnx": b"\0"})
    assert '- "license" must be one of' in text
    assert "Nothing was written" in text
    assert len(hub.requests("validate-yaml")) == 1
    assert not hub.requests("lfs-batch")
    assert hub.head(MINE) == head


def test_metadata_that_only_the_commit_refuses(hub: LocalHub, pushed: Push) -> None:
    """The commit's own check is final too."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.strike(Fault("validate-yaml", status=200, times=None, body=b'{"errors": [], "warnings": []}'))
    assert '"license" must be one of' in error_of(pushed, card=lambda _text, _paths: "---\nlicense: mine\n---\n")
    assert len(hub.requests("commit")) == 1


def test_warnings_of_the_hub_are_handed_back(hub: LocalHub, pushed: Push) -> None:
    """They stand in the result, one by one, and are no Python warnings; nor is that a table lies in a model repo."""
    hub.add_model(MINE, {"README.md": CARD})
    body = {"errors": [], "warnings": [{"message": "odd tag"}, {"message": "odder tag"}]}
    hub.strike(Fault("validate-yaml", status=200, body=json.dumps(body).encode()))
    assert pushed(files={"latencies.parquet": b"\0"}).warnings == ("odd tag", "odder tag")
    assert hub.exists(MINE)


def test_an_empty_card_is_warned_of(pushed: Push) -> None:
    """A card without front matter is pushed, and said to have none."""
    assert pushed(card=lambda _text, _paths: "# Words\n").warnings == ("empty or missing yaml metadata in repo card",)


def test_a_readme_in_lfs(hub: LocalHub, pushed: Push) -> None:
    """It is read, merged and kept, and its owner is told that the Hub does not see its metadata."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.store_as_lfs(MINE)
    done = pushed()
    assert hub.read(MINE, "README.md") == section(CARD).encode()
    assert any("LFS" in warning for warning in done.warnings)
    assert not pushed().changed


def test_a_renamed_repository(hub: LocalHub, pushed: Push) -> None:
    """The push reaches it under its new name, and says so."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.rename(MINE, "local-user/better")
    done = pushed()
    assert hub.read("local-user/better", "README.md") == section(CARD).encode()
    assert done.warnings == (f"{MINE} is now called local-user/better",)
    assert "/local-user/better/commit/" in done.commit_url


# What a .gitignore keeps out


def test_what_a_gitignore_keeps_out_is_said(hub: LocalHub, pushed: Push) -> None:
    """Files that the Hub would leave out of the commit are named, as they are by the next push, which makes no commit;
    once they may come, they do.
    """
    hub.add_model(MINE, {"README.md": CARD, ".gitignore": "*.csv\n!kept.csv\n# *.txt\nonnx/\n"})
    files = {**FILES, "kept.csv": b"1", "a.txt": b"1", "onnx/model.onnx": b"\0" * 64}
    first = pushed(files=files)
    assert {"kept.csv", "a.txt"} <= set(hub.files(MINE))
    (said,) = first.warnings
    assert said.startswith("benchcard/run/results.csv, onnx/model.onnx not pushed: the repository's .gitignore")
    assert "onnx" not in first.diff
    again = pushed(files=files)
    assert (again.changed, again.commit_oid, again.warnings) == (False, hub.head(MINE), (said,))
    hub.commit(MINE, {".gitignore": "*.tmp"})
    assert pushed(files=files).warnings == ()
    assert set(files) <= set(hub.files(MINE))


@pytest.mark.parametrize("rule", ["README.md", "*.md", "/README.md", "**/README.md", "R*\n"])
@pytest.mark.parametrize("there", [{"README.md": CARD}, {"README.md": b"caf\xe9"}, {}])
def test_a_readme_that_a_gitignore_keeps_out_costs_no_commits(
    hub: LocalHub, pushed: Push, rule: str, there: dict[str, str | bytes]
) -> None:
    """The same push twice makes one commit, of the other files; both say that the README is not among them."""
    hub.add_model(MINE, {**there, ".gitignore": rule})
    first = pushed()
    assert first.changed
    assert "README.md" not in first.diff
    head = hub.head(MINE)
    again = pushed()
    assert (again.changed, again.commit_oid, hub.head(MINE)) == (False, head, head)
    for done in (first, again, pushed(dry_run=True)):
        (said,) = done.warnings
        assert said.startswith("README.md not pushed: the repository's .gitignore")
    kept = there.get("README.md", b"")
    assert hub.files(MINE).get("README.md", b"") == (kept.encode() if isinstance(kept, str) else kept)


def test_what_did_not_arrive_is_said(hub: LocalHub, pushed: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is sent and that the Hub leaves out all the same, by a rule that is read otherwise here, is named."""
    hub.add_model(MINE, {"README.md": CARD, ".gitignore": "*.md"})
    with monkeypatch.context() as patch:
        patch.setattr("benchcard.hub.overwrite.is_ignored", lambda path, rules: False)
        (said,) = pushed().warnings
    assert said.startswith("README.md not pushed")
    hub.commit(MINE, {".gitignore": "*.tmp"})
    hub.fail("info", after=1)
    done = pushed(retry_policy=RetryPolicy(1, 0.001))
    assert (done.changed, done.commit_oid, done.warnings) == (True, hub.head(MINE), ()), "what came is looked at later"


@pytest.mark.parametrize(
    ("rule", "out"),
    [
        ("*.csv", {"a.csv", "b/c.csv", "b/d/e.csv"}),
        ("/a.csv", {"a.csv"}),
        ("b/", {"b/c.csv", "b/d/e.csv"}),
        ("b/d", {"b/d/e.csv"}),
        ("d", {"b/d/e.csv"}),
        ("*.csv\n!c.csv", {"a.csv", "b/d/e.csv"}),
        ("# a.csv\n\n  ", set()),
        ("a.csv/", set()),
        ("**/a.csv", {"a.csv"}),
        ("**/d/e.csv", {"b/d/e.csv"}),
        ("**/b", {"b/c.csv", "b/d/e.csv"}),
    ],
)
def test_rules_of_a_gitignore(rule: str, out: set[str]) -> None:
    """Names count at any depth, paths from the root, a slash at the end for folders, the last rule that fits."""
    assert {path for path in ("a.csv", "b/c.csv", "b/d/e.csv") if is_ignored(path, rule)} == out
