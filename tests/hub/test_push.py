"""`benchcard.hub.push`: pushes without faults, and pushes that are refused before a request."""

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


# Without faults


def test_a_new_repository_is_private_and_gets_one_commit(hub: LocalHub, pushed: Push) -> None:
    """README and files, regular and LFS, arrive in one commit in a new private repository."""
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
    """The same push again makes no commit, uploads nothing, and returns the present commit."""
    files = {**FILES, "onnx/model.onnx": b"\0" * 64}
    first = pushed(files=files)
    count = len(hub.requests())
    second = pushed(files=files)
    assert (second.changed, second.commit_oid, second.diff) == (False, first.commit_oid, "")
    assert {seen.method for seen in hub.requests()[count:]} == {"GET", "HEAD"}


def test_only_what_changed_is_sent(hub: LocalHub, pushed: Push) -> None:
    """A large file that did not change is neither uploaded nor committed again."""
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
    """The card receives the exact text of the README, and the README becomes the exact text that it returns."""
    hub.add_model(MINE, {"README.md": text.encode()})
    card = Card()
    pushed(card=card)
    assert card.got == [text]
    assert hub.read(MINE, "README.md") == section(text).encode()
    assert read_readme(MINE, endpoint=hub.endpoint, token=hub.token) == section(text)


def test_a_repository_without_readme_gets_one(hub: LocalHub, pushed: Push) -> None:
    """Where there is no README, the card receives None."""
    hub.add_model(MINE, {"config.json": "{}"})
    card = Card()
    pushed(card=card)
    assert card.got == [None]
    assert not hub.repo(MINE).private
    assert read_readme(MINE, endpoint=hub.endpoint, token=hub.token) == section(CARD)


def test_files_come_from_disk(hub: LocalHub, pushed: Push, tmp_path: Path) -> None:
    """A file on disk is pushed unchanged."""
    (tmp_path / "m.onnx").write_bytes(os.urandom(3_000_000))
    pushed(files={"onnx/model.onnx": tmp_path / "m.onnx"})
    assert hub.read(MINE, "onnx/model.onnx") == (tmp_path / "m.onnx").read_bytes()
    assert not pushed(files={"onnx/model.onnx": tmp_path / "m.onnx"}).changed


def test_a_public_repository_on_request(hub: LocalHub, pushed: Push) -> None:
    """`private=False` creates a public repository, and does not change an existing one."""
    pushed(private=False)
    assert not hub.repo(MINE).private
    pushed(card=Card("faster"), private=True)
    assert not hub.repo(MINE).private


def test_a_branch(hub: LocalHub, pushed: Push) -> None:
    """A revision is read and written, and the main branch does not change; a missing revision is an error."""
    head = hub.add_model(MINE, {"README.md": CARD})
    HfApi(endpoint=hub.endpoint, token=hub.token).create_branch(MINE, branch="dev")
    pushed(revision="dev")
    assert hub.head(MINE) == head
    assert hub.read(MINE, "README.md", revision="dev") == section(CARD).encode()
    assert "nope" in error_of(pushed, revision="nope")


def test_slow_answers(hub: LocalHub, pushed: Push) -> None:
    """A push waits for slow replies."""
    hub.slow_down(delay_s=0.05)
    assert pushed().changed


# Dry runs


def test_a_dry_run_writes_nothing(hub: LocalHub, pushed: Push) -> None:
    """It returns the diff of the README and the files, and only reads."""
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


def test_a_dry_run_for_a_new_repository(hub: LocalHub, pushed: Push) -> None:
    """A missing repository is not created, and the whole card is new."""
    done = pushed(dry_run=True)
    assert not hub.exists(MINE)
    assert done.diff.startswith("--- /dev/null\n+++ b/README.md\n@@ -0,0 +1,5 @@\n+---\n")
    assert done.warnings == (f"{MINE} does not exist yet",)


def test_a_dry_run_without_changes(pushed: Push) -> None:
    """The result says that nothing would change."""
    pushed()
    done = pushed(dry_run=True)
    assert (done.changed, done.diff) == (False, "")


def test_a_diff_breaks_lines_at_line_feeds_alone(hub: LocalHub, pushed: Push) -> None:
    """Other line ends of Unicode are text in a diff."""
    hub.add_model(MINE, {"README.md": "one\u2028two\x0bthree\r\n"})
    assert "\n one\u2028two\x0bthree\r\n+" in pushed(dry_run=True).diff


# Invalid arguments


@pytest.mark.parametrize("path", ["../up", "/root", "a//b", "a/./b", "", ".git/config", "a\\b", "README.md"])
def test_invalid_paths(hub: LocalHub, pushed: Push, path: str) -> None:
    """A path that is not valid in a repository is refused before any request."""
    assert repr(path) in error_of(pushed, files={path: b""}) or path == "README.md"
    assert not hub.requests()


def test_a_missing_file(hub: LocalHub, pushed: Push, tmp_path: Path) -> None:
    """A missing file or a folder is refused before any request; the error names it."""
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(HubError, match=r"results\.csv cannot be pushed"):
            pushed(files={"results.csv": path})
    assert not hub.requests()


def test_a_card_that_cannot_be_merged(hub: LocalHub, pushed: Push) -> None:
    """An error of the card is raised unchanged; nothing is written, and no repository is created."""

    def card(_text: str | None, _paths: frozenset[str]) -> str:
        raise CardError("edited by hand")

    with pytest.raises(CardError, match="edited by hand"):
        pushed(card=card)
    assert not hub.exists(MINE)


def test_a_card_that_utf8_cannot_encode(hub: LocalHub, pushed: Push) -> None:
    """Half a surrogate pair is refused before a repository is created."""
    assert "UTF-8" in error_of(pushed, card=lambda _text, _paths: "\ud800")
    assert not hub.exists(MINE)


def test_a_readme_that_is_not_utf8(hub: LocalHub, pushed: Push) -> None:
    """A README in another encoding does not change."""
    head = hub.add_model(MINE, {"README.md": "café".encode("latin-1")})
    assert "not UTF-8 (byte 3)" in error_of(pushed)
    assert hub.head(MINE) == head


@pytest.mark.parametrize("repo_id", ["a/b/c", "a b/c", "datasets/a/b", "a/--"])
def test_invalid_ids(pushed: Push, repo_id: str) -> None:
    """An invalid id raises a `HubError` that has the id."""
    assert repo_id in error_of(pushed, repo_id)


def test_an_invalid_endpoint(pushed: Push) -> None:
    """For an address without a scheme the error says what it must begin with."""
    assert "https://" in error_of(pushed, endpoint="hub.example.org")


def test_offline_mode_is_reported(hub: LocalHub, pushed: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the client is offline, the error says so at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in error_of(pushed)
    assert not hub.requests()


def test_a_repository_that_is_not_created(hub: LocalHub, pushed: Push) -> None:
    """In the namespace of another user no repository can be created; a missing one cannot be read."""
    assert "403" in error_of(pushed, "other/new")
    assert not hub.exists(MINE)
    with pytest.raises(HubError, match="not on the Hub"):
        read_readme(MINE, endpoint=hub.endpoint, token=hub.token)


def test_a_wrong_token_and_none(hub: LocalHub, pushed: Push) -> None:
    """An unknown token and a missing token give an error about the token."""
    head = hub.add_model(MINE, {"README.md": CARD})
    assert "did not accept the token (401)" in error_of(pushed, token="hf_wrong")
    assert "401" in error_of(pushed, token=False)
    assert hub.head(MINE) == head


# Metadata


def test_metadata_that_the_hub_refuses(hub: LocalHub, pushed: Push) -> None:
    """The error names the field and the problem; nothing is uploaded or retried."""
    head = hub.add_model(MINE, {"README.md": CARD})
    text = error_of(pushed, card=lambda _text, _paths: "---\nlicense: mine\n---\n", files={"m.onnx": b"\0"})
    assert '- "license" must be one of' in text
    assert "Nothing was written" in text
    assert len(hub.requests("validate-yaml")) == 1
    assert not hub.requests("lfs-batch")
    assert hub.head(MINE) == head


def test_metadata_that_only_the_commit_refuses(hub: LocalHub, pushed: Push) -> None:
    """An error in the check of the commit is final too."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.strike(Fault("validate-yaml", status=200, times=None, body=b'{"errors": [], "warnings": []}'))
    assert '"license" must be one of' in error_of(pushed, card=lambda _text, _paths: "---\nlicense: mine\n---\n")
    assert len(hub.requests("commit")) == 1


def test_a_push_shows_itself_in_five_lines_at_most(hub: LocalHub, pushed: Push) -> None:
    """As the last line of a cell of a notebook it shows what changed and where, and not the diff."""
    body = {"errors": [], "warnings": [{"message": "odd\ntag"}, {"message": "odder tag"}]}
    hub.strike(Fault("validate-yaml", times=None, status=200, body=json.dumps(body).encode()))
    hub.add_model(MINE, {"README.md": CARD, "old.txt": "old"})
    files = {"old.txt": b"new", **{f"+{number}.txt": b"+ new file: one\n" for number in range(40)}}
    done = pushed(card=Card("\n" * 300), files=files, create_pr=True)
    assert len(done.diff.splitlines()) > 300
    assert repr(done).splitlines() == [
        "README.md: 301 lines added, 0 removed",
        "other files: 40 new, 1 changed",
        "note: odd tag; odder tag",
        f"commit: {done.commit_url}",
        f"pull request: {hub.endpoint}/{MINE}/discussions/1",
    ]
    assert repr(pushed(card=Card("\n" * 300), files=files, create_pr=True)).splitlines() == [
        "nothing to push: the pull request has these results already",
        f"pull request: {hub.endpoint}/{MINE}/discussions/1",
    ]
    dry = str(pushed(dry_run=True))
    assert dry.splitlines()[-1] == "nothing was written: this was a dry run"


def test_warnings_of_the_hub_are_returned(hub: LocalHub, pushed: Push) -> None:
    """The result has them one by one; neither they nor a table in a model repository give a Python warning."""
    hub.add_model(MINE, {"README.md": CARD})
    body = {"errors": [], "warnings": [{"message": "odd tag"}, {"message": "odder tag"}]}
    hub.strike(Fault("validate-yaml", status=200, body=json.dumps(body).encode()))
    assert pushed(files={"latencies.parquet": b"\0"}).warnings == ("odd tag", "odder tag")
    assert hub.exists(MINE)


def test_a_card_without_front_matter_gives_a_warning(pushed: Push) -> None:
    """A card without front matter is pushed with a warning."""
    assert pushed(card=lambda _text, _paths: "# Words\n").warnings == ("empty or missing yaml metadata in repo card",)


def test_a_readme_in_lfs(hub: LocalHub, pushed: Push) -> None:
    """It is read, merged and stays in LFS; a warning says that the Hub does not read its metadata."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.store_as_lfs(MINE)
    done = pushed()
    assert hub.read(MINE, "README.md") == section(CARD).encode()
    assert any("LFS" in warning for warning in done.warnings)
    assert not pushed().changed


def test_a_renamed_repository(hub: LocalHub, pushed: Push) -> None:
    """The push reaches it under its new name, with a warning."""
    hub.add_model(MINE, {"README.md": CARD})
    hub.rename(MINE, "local-user/better")
    done = pushed()
    assert hub.read("local-user/better", "README.md") == section(CARD).encode()
    assert done.warnings == (f"{MINE} is now called local-user/better",)
    assert "/local-user/better/commit/" in done.commit_url


# Files that a .gitignore excludes


def test_files_that_a_gitignore_excludes_are_reported(hub: LocalHub, pushed: Push) -> None:
    """A warning names the excluded files, also in the next push, which makes no commit; once the rules allow them, they
    are pushed.
    """
    hub.add_model(MINE, {"README.md": CARD, ".gitignore": "*.csv\n!kept.csv\n# *.txt\nonnx/\n"})
    files = {**FILES, "kept.csv": b"1", "a.txt": b"1", "onnx/model.onnx": b"\0" * 64}
    first = pushed(files=files)
    assert {"kept.csv", "a.txt"} <= set(hub.files(MINE))
    (warning,) = first.warnings
    assert warning.startswith("benchcard/run/results.csv, onnx/model.onnx not pushed: the repository's .gitignore")
    assert "onnx" not in first.diff
    again = pushed(files=files)
    assert (again.changed, again.commit_oid, again.warnings) == (False, hub.head(MINE), (warning,))
    hub.commit(MINE, {".gitignore": "*.tmp"})
    assert pushed(files=files).warnings == ()
    assert set(files) <= set(hub.files(MINE))


@pytest.mark.parametrize("rule", ["README.md", "*.md", "/README.md", "**/README.md", "R*\n"])
@pytest.mark.parametrize("there", [{"README.md": CARD}, {"README.md": b"caf\xe9"}, {}])
def test_a_readme_that_a_gitignore_excludes_makes_no_commit(
    hub: LocalHub, pushed: Push, rule: str, there: dict[str, str | bytes]
) -> None:
    """The same push twice makes one commit, of the other files; both warn that the README is excluded."""
    hub.add_model(MINE, {**there, ".gitignore": rule})
    first = pushed()
    assert first.changed
    assert "README.md" not in first.diff
    head = hub.head(MINE)
    again = pushed()
    assert (again.changed, again.commit_oid, hub.head(MINE)) == (False, head, head)
    for done in (first, again, pushed(dry_run=True)):
        (warning,) = done.warnings
        assert warning.startswith("README.md not pushed: the repository's .gitignore")
    kept = there.get("README.md", b"")
    assert hub.files(MINE).get("README.md", b"") == (kept.encode() if isinstance(kept, str) else kept)


def test_files_that_a_commit_lacks_are_reported(hub: LocalHub, pushed: Push, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning names a file that was sent and that the Hub excluded by a rule that benchcard reads differently."""
    hub.add_model(MINE, {"README.md": CARD, ".gitignore": "*.md"})
    with monkeypatch.context() as patch:
        patch.setattr("benchcard.hub.overwrite.is_ignored", lambda path, rules: False)
        (warning,) = pushed().warnings
    assert warning.startswith("README.md not pushed")
    hub.commit(MINE, {".gitignore": "*.tmp"})
    hub.fail("info", after=1)
    done = pushed(retry_policy=RetryPolicy(1, 0.001))
    assert (done.changed, done.commit_oid, done.warnings) == (True, hub.head(MINE), ()), (
        "the next push checks the files"
    )


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
    """Names match at any depth, paths from the root, a final slash folders only; the last matching rule decides."""
    assert {path for path in ("a.csv", "b/c.csv", "b/d/e.csv") if is_ignored(path, rule)} == out
